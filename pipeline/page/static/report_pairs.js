// Preference pairs: the gate's figures as distributions and as a table, and pairs that play side by side.
"use strict";

visavis.pairs = {
  show(sets, place) {
    this.scripts = new Map();
    for (const set of sets) set.pairs = this.rows(set.table);
    sets.forEach((set, n) => place.append(this.one(set, n, sets.length)));
  },

  /** The columns of a set as pairs. */
  rows({words, figures, scripts, ...columns}) {
    return columns.key.map((key, n) => ({
      key, start: columns.start[n], script: scripts[n],
      ...Object.fromEntries(Object.entries(words).map(([name, texts]) => [name, texts[columns[name][n]]])),
      figures: Object.fromEntries(Object.entries(figures).map(([name, values]) => [name, values[n]])),
    }));
  },

  one(set, number, of) {
    const id = number ? `pairs-${number + 1}` : "pairs", {gate} = set, names = Object.keys(set.table.figures);
    const section = visavis.el("section", {id, "aria-labelledby": `${id}-title`}, visavis.el("h2", {id: `${id}-title`}, of > 1 ? `Pairs: ${set.run}` : "Preference pairs"));
    const gated = Object.entries(set.gated).sort((a, b) => b[1] - a[1]).map(([reason, n]) => `${n.toLocaleString("en")} ${visavis.words(reason)}`);
    section.append(visavis.el("p", {}, `${visavis.count(set.total, "pair")} of ${set.tried.toLocaleString("en")} tried. Chosen: ${visavis.words(set.made.chosen)}; rejected: ${set.made.rejected}${set.made.dropped.length ? " without " + set.made.dropped.map(visavis.words).join(", ") : ""}. Left out by the gate: ${gated.join(", ") || "none"}; passed over as little expressive: ${set.passed_over.toLocaleString("en")} of ${visavis.count(set.windows, "window")}.`));
    const played = set.pairs.filter((pair) => pair.script).length;
    section.append(visavis.note(`${set.pairs.length === set.total ? "All are" : `${set.pairs.length.toLocaleString("en")} of ${set.total.toLocaleString("en")}, from some shards spread over the set, are`} in the table; ${played.toLocaleString("en")} of them, spread over it, can be played (--pairs-shown)${set.codec ? "" : ": none, for the set holds no codec that decodes its motion"}.`));
    const limits = this.limits(set, names);
    const recount = visavis.el("output", {class: "recount"});
    const update = () => {
      const found = visavis.limits.recount(limits, set.pairs.length);
      set.kept = found.kept;
      recount.textContent = `${found.total.toLocaleString("en")} of the ${visavis.count(set.pairs.length, "pair")} in the table pass`;
    };
    const controls = limits.map((limit) => visavis.limits.control(limit, () => {
      update();
      limits.forEach((other) => other !== limit && other.refresh());
      table.update();
    }));
    const table = this.table(set, names);
    update();
    limits.forEach((limit) => limit.refresh());
    section.append(visavis.el("h3", {}, "What the gate measured"), visavis.el("p", {class: "quiet"}, "Of every pair that was made, also of those left out. The sliders count the pairs in the table, which passed the gate: a looser gate needs `visavis pairs` again."), recount, visavis.el("div", {class: "limits"}, ...controls), visavis.el("h3", {}, "Pairs"), table.element);
    return section;
  },

  WHAT: {
    score_margin: "how much higher the scorer puts chosen, in its own unit",
    reactivity_margin: "how much better chosen fits the reactions of the corpus to this user",
    lagged_margin: "lagged correlation with the user, chosen less rejected",
    event_margin: "response to the ends of the user's phrases, chosen less rejected",
    energy_margin: "log ratio of motion energy, chosen over rejected",
    distance: "difference of the two motions, in deviations of the corpus",
    jerk_ratio: "jerk over the recorded motion's, of the worse of the two",
    off_manifold: "distance from the frames of the corpus, of the worse of the two",
  },

  limits(set, names) {
    return names.filter((name) => set.figures[name]).map((name) => {
      const figure = set.figures[name], least = !(`max_${name}` in set.gate), bound = set.gate[`${least ? "min" : "max"}_${name}`];
      const unset = least ? figure.low : figure.high;
      return {
        setting: name, label: visavis.words(name), least, bound: bound ?? unset, what: `${this.WHAT[name] ?? ""}${bound == null ? "; the gate asks nothing of it" : ""}${figure.undefined ? `; not defined of ${figure.undefined.toLocaleString("en")}` : ""}`,
        figures: [{name, ...figure, values: set.pairs.map((pair) => pair.figures[name] ?? null)}],
      };
    });
  },

  table(set, names) {
    const labels = [...new Set(set.pairs.map((pair) => pair.label))];
    for (const pair of set.pairs) if (pair.script) this.scripts.set(pair.script, {pair, set});
    return new visavis.Table({
      caption: "Preference pairs", rows: set.pairs.map((pair, n) => n), size: 15,
      columns: [
        {title: "pair", kind: "name", value: (n) => set.pairs[n].key, cell: (n) => this.link(set.pairs[n])},
        {title: "avatar", value: (n) => set.pairs[n].avatar, cell: (n) => this.name(set.pairs[n], "avatar")},
        {title: "user", value: (n) => set.pairs[n].user, cell: (n) => this.name(set.pairs[n], "user")},
        {title: "at", number: true, value: (n) => set.pairs[n].start, cell: (n) => visavis.clock(set.pairs[n].start / visavis.report.fps)},
        ...names.map((name) => ({title: visavis.words(name), number: true, value: (n) => set.pairs[n].figures[name], cell: (n) => visavis.figure(set.pairs[n].figures[name])})),
      ],
      filters: [
        {label: "Class", options: labels.map((label) => [label, label]), keeps: (n, value) => set.pairs[n].label === value},
        {label: "Passes the sliders", options: [["yes", "yes"], ["no", "no"]], keeps: (n, value) => Boolean(set.kept?.[n]) === (value === "yes")},
        {label: "Can be played", options: [["yes", "yes"]], keeps: (n) => Boolean(set.pairs[n].script)},
      ],
      text: (n) => `${set.pairs[n].key} ${set.pairs[n].avatar} ${set.pairs[n].user}`.toLowerCase(),
    });
  },

  link: (pair) => (pair.script ? visavis.el("a", {href: `#p-${pair.script}`}, pair.key) : pair.key),
  name: (pair, side) => pair[side].replace(`${pair.conversation}-`, "#"),

  async open(script, place) {
    const {pair, set} = this.scripts.get(script) ?? {};
    if (!pair) throw new Error(`there is no pair ${script} that can be played`);
    const [data, codec] = await Promise.all([visavis.load(`data/${script}.js`, script), visavis.codec(set.codec)]);
    const people = data.drawn ? await visavis.faces(pair.conversation) : null;
    const [state, ...peaks] = await Promise.all([data.state, ...data.peaks].map(visavis.inflate));
    const {fps} = visavis.report, seconds = data.frames / fps, notes = visavis.el("div"), film = this.film(pair, data, notes);
    const player = new visavis.Player(seconds, film ? [film] : [], pair.start / fps);
    const panels = [];
    if (film) {
      player.lost = () => {
        film.closest("figure").remove();
        notes.append(visavis.note("This browser cannot play the user's film (its codec, or it is gone)."));
      };
      panels.push(visavis.el("figure", {class: "film"}, visavis.el("div", {class: "screen"}, film), visavis.el("figcaption", {class: "user"}, "user, as filmed")));
    }
    const titles = {user: "user, as a model knows it", chosen: "chosen", rejected: "rejected", recorded: "recorded"}, colours = {user: "user", chosen: "good", rejected: "bad", recorded: "avatar"};
    for (const [side, motion] of Object.entries(data.motions)) {
      if (!people) {
        notes.append(visavis.note("The set holds no faces of this conversation: nothing can be drawn."));
        break;
      }
      const valid = data.valid[side === "user" ? "user" : "avatar"], who = side === "user" ? 1 - data.number : data.number;
      const canvas = await visavis.drawn(titles[side], {model: codec, face: people.faces[who]}, motion, player, colours[side], (frame) => side === "rejected" || visavis.inside(valid, frame));
      panels.push(visavis.el("figure", {class: "drawn"}, canvas, visavis.el("figcaption", {class: colours[side]}, titles[side])));
    }
    const spans = (bit, colour, share) => {
      const found = [];
      state.forEach((value, n) => {
        if (!((value >> bit) & 1)) return;
        if (found.at(-1)?.[1] === n / fps) found.at(-1)[1] = (n + 1) / fps;
        else found.push([n / fps, (n + 1) / fps, colour, share]);
      });
      return found;
    };
    const timeline = new visavis.Timeline([
      visavis.lanes.wave("avatar", peaks[0], "avatar"), visavis.lanes.spans("turns", [...spans(0, "avatar", 1), ...spans(2, "avatar", 0.4)]),
      visavis.lanes.wave("user", peaks[1], "user"), visavis.lanes.spans("turns", [...spans(1, "user", 1), ...spans(3, "user", 0.4)]),
    ], player, `Time line of pair ${pair.key}`);
    const loop = visavis.el("input", {type: "checkbox", checked: true});
    player.watch((at, playing) => {
      if (loop.checked && !playing && at >= seconds && player.was) setTimeout(() => player.play(), 0);
      player.was = playing;
    });
    const figures = Object.entries(pair.figures).map(([name, value]) => visavis.el("tr", {}, visavis.el("th", {scope: "row"}, visavis.words(name)), visavis.el("td", {class: "number"}, visavis.figure(value)), visavis.el("td", {class: "quiet"}, this.WHAT[name] ?? "")));
    const others = [...this.scripts.keys()], here = others.indexOf(script);
    const step = (by, text) => (others[here + by] ? visavis.el("a", {href: `#p-${others[here + by]}`}, text) : "");
    place.replaceChildren(
      visavis.el("p", {class: "bar"}, visavis.el("a", {href: "#pairs"}, "← All pairs"), step(-1, "Previous"), step(1, "Next")),
      visavis.el("h2", {tabindex: "-1"}, `Pair ${pair.key}`),
      visavis.el("p", {class: "quiet"}, `${pair.label}; avatar ${this.name(pair, "avatar")}, user ${this.name(pair, "user")}; from ${visavis.clock(pair.start / fps)} of `, visavis.conversations.link(pair.conversation, `conversation ${pair.conversation}`)),
      notes, visavis.el("div", {class: "stage row"}, ...panels),
      visavis.el("div", {class: "player"}, player.controls(place), visavis.el("label", {class: "controls"}, loop, " again and again"), timeline.canvas),
      visavis.el("table", {}, visavis.el("caption", {}, "What the gate measured"), visavis.el("tbody", {}, ...figures)));
    timeline.canvas.redraw();
    this.player = player;
    return () => player.close();
  },

  /** The film in which the user is seen, if it is at hand. */
  film(pair, data, notes) {
    const media = visavis.report.places[pair.conversation];
    const mine = media && (media.length > 1 ? media[1 - data.number] : media[0]);
    if (!mine?.source) {
      notes.append(visavis.note(`The user is drawn and not shown as filmed, without sound: ${mine ? mine.why : "the conversation is not among those that can be opened in this page"}.`));
      return null;
    }
    return visavis.el("video", {src: mine.source, playsinline: true, "aria-label": "The user's film"});
  },
};
