// One conversation: both people, what they say and when, who was bound to whom, what is seen and cut into windows.
"use strict";

visavis.conversation = {
  get FPS() { return visavis.report.fps; },
  WHO: ["user", "avatar"], // colours of the two people, as everywhere

  async open(id, place) {
    const corpus = visavis.report.corpus, n = visavis.conversations.names.get(id);
    if (n === undefined || !visavis.conversations.opened.has(id)) throw new Error(`there is no conversation ${id} that can be opened`);
    const data = await visavis.load(`data/c-${id}.js`, `c-${id}`);
    const name = corpus.table.name[n], outcome = visavis.corpus.OUTCOMES[corpus.table.outcome[n]];
    const reason = corpus.table.words.reason[corpus.table.reason[n]], detail = corpus.table.words.detail[corpus.table.detail[n]];
    const seconds = data.frames / this.FPS;
    const stage = visavis.el("div", {class: "stage"}), notes = visavis.el("div");
    let faces = null;
    const films = this.films(data, notes);
    const player = new visavis.Player(seconds, [...films.map((film) => film.video), ...films.flatMap((film) => film.sound ?? []), ...this.voices(data)]);
    player.lost = (one) => {
      const film = films.find((each) => each.video === one);
      film?.figure.classList.add("lost");
      notes.append(visavis.note(`${film ? film.title : "A voice"}: this browser cannot play the file (its codec, or it is gone)${data.motion.some((motion) => motion.motion) ? "; the faces below are drawn from the motion" : ""}.`));
      if (faces) faces.open = true;
    };
    stage.append(...films.map((film) => film.figure));
    for (const film of films) this.boxes(film, data, player);
    faces = await this.faces(data, player);
    if (faces) faces.open = films.length === 0 || films.some((film) => film.figure.classList.contains("lost"));
    if (films.length && data.motion.length && !faces) notes.append(visavis.note("Its motion is not drawn in this page: more are with --with-motion N."));
    if (!films.length) notes.append(visavis.note(data.voices.length ? "The voices are played from the page's copies." : "There is no sound: no film of it is at hand."));
    place.replaceChildren(
      visavis.el("a", {href: "#conversations"}, "← All conversations"),
      visavis.el("h2", {tabindex: "-1"}, name),
      visavis.el("p", {}, visavis.el("span", {class: `chip ${outcome}`}, outcome), reason ? ` ${visavis.words(reason)}` : "", detail ? visavis.el("span", {class: "quiet"}, ` ${detail}`) : "",
        visavis.el("span", {class: "quiet"}, ` · ${visavis.clock(seconds)} · ${id}`)),
      notes, stage, faces ?? "");
    if (!films.length && !faces) notes.append(visavis.note("There is no film at hand and no motion was made of it: what is left is the time line."));
    const lanes = await this.lanes(data), timeline = new visavis.Timeline(lanes, player, `Time line of ${name}`);
    const wave = visavis.el("div", {class: "player"}, visavis.el("div", {class: "bar"}, player.controls(place), timeline.zoom()), timeline.canvas, this.legend(data));
    place.append(wave, this.people(data), this.transcript(data, player), this.turns(data, player));
    timeline.canvas.redraw();
    this.player = player;
    return () => player.close();
  },

  films(data, notes) {
    const films = [];
    data.media.forEach((media, number) => {
      const whose = data.people.filter((person) => (person.media ?? (data.layout === "one_frame" ? 0 : data.people.indexOf(person))) === number);
      const title = whose.map((person) => this.short(person.name, data)).join(" and ") || `file ${number + 1}`;
      if (!media.source) {
        notes.append(visavis.note(`${title}: no film is shown: ${media.why}.`));
        return;
      }
      const video = visavis.el("video", {src: media.source, playsinline: true, "aria-label": `Film of ${title}`});
      const overlay = visavis.el("canvas", {class: "overlay", "aria-hidden": "true"});
      const sound = media.sound ? visavis.el("audio", {src: media.sound}) : null;
      if (media.sound_why) notes.append(visavis.note(`${title}: the sound is the film's own: ${media.sound_why}.`));
      if (sound) video.muted = true;
      const mute = visavis.el("button", {type: "button", class: "controls", "aria-pressed": "false", onclick: () => {
        const heard = sound ?? video;
        heard.muted = !heard.muted;
        mute.setAttribute("aria-pressed", String(heard.muted));
      }}, "Mute");
      const caption = visavis.el("figcaption", {class: "bar"}, visavis.el("span", {class: whose.length === 1 ? this.WHO[data.people.indexOf(whose[0])] : ""}, title), mute);
      const figure = visavis.el("figure", {class: "film"}, visavis.el("div", {class: "screen"}, video, overlay, sound ?? ""), caption);
      films.push({number, video, overlay, sound, figure, title, media});
    });
    return films;
  },

  voices(data) {
    return data.media.some((media) => media.source) ? [] : data.voices.map((source) => visavis.el("audio", {src: source}));
  },

  /** The boxes of the faces over a film. */
  async boxes(film, data, player) {
    const mine = data.boxes.filter((box) => box.media === film.number);
    await Promise.all(mine.map(async (box) => { box.values = (await visavis.unpack(box.box)).values; }));
    const {overlay, media} = film;
    overlay.width = media.width;
    overlay.height = media.height;
    player.watch((at) => {
      const context = overlay.getContext("2d"), frame = at * this.FPS;
      context.clearRect(0, 0, overlay.width, overlay.height);
      context.lineWidth = Math.max(2, media.width / 320);
      for (const box of mine) {
        const i = Math.round((frame - box.first) / box.each);
        if (!visavis.inside(box.there, i)) continue;
        const [x0, y0, x1, y1] = box.values.subarray(i * 4, i * 4 + 4);
        context.strokeStyle = box.person < 0 ? "#aaa" : visavis.colour(this.WHO[box.person]);
        context.strokeRect(x0, y0, x1 - x0, y1 - y0);
      }
    });
  },

  /** Both people drawn from their motion. */
  async faces(data, player) {
    if (!data.motion.some((one) => one.motion)) return null;
    const {codec, faces} = await visavis.faces(data.id), model = await visavis.codec(codec);
    const drawn = await Promise.all(data.motion.map(async ({motion, valid}, number) => {
      const name = this.short(data.people[number].name, data);
      const canvas = await visavis.drawn(name, {model, face: faces[number]}, motion, player, this.WHO[number], (frame) => visavis.inside(valid, frame));
      return visavis.el("figure", {class: "drawn"}, canvas, visavis.el("figcaption", {class: this.WHO[number]}, name));
    }));
    const box = visavis.el("details", {class: "faces"}, visavis.el("summary", {}, "Both people, drawn from the motion that a model learns from"), visavis.el("div", {class: "stage"}, ...drawn));
    return box;
  },

  async lanes(data) {
    const lanes = [], {FPS, WHO} = this;
    const peaks = await Promise.all((data.peaks ?? []).map(visavis.inflate));
    const name = (n) => this.short(data.people[n].name, data);
    const speakers = data.bound ? [0, 1] : [...new Set(data.turns.map(([speaker]) => speaker))].sort((a, b) => a - b);
    for (const n of [0, 1]) if (peaks[n]) lanes.push(visavis.lanes.wave(name(n), peaks[n], WHO[n]));
    for (const n of speakers) {
      const colour = data.bound ? WHO[n] : "generated"; // a voice without a face has nobody's colour
      const mine = data.turns.filter(([speaker]) => speaker === n).map(([, start, end, back]) => [start, end, colour, back ? 0.4 : 1]);
      lanes.push(visavis.lanes.spans(data.bound ? "turns" : `voice ${n + 1}`, mine, 14, colour));
    }
    for (const n of [0, 1]) {
      if (data.seen[n]) lanes.push(visavis.lanes.spans("face seen", data.seen[n].map(([first, end]) => [first / FPS, end / FPS, WHO[n], 0.5]), 10, WHO[n]));
      if (data.motion[n]) lanes.push(visavis.lanes.spans("motion valid", data.motion[n].valid.map(([first, end]) => [first / FPS, end / FPS, WHO[n], 0.5]), 10, WHO[n]));
    }
    const colours = ["avatar", "user", "generated", "quiet"];
    for (const n of [0, 1]) {
      const {length, first, labels} = data.windows[n] ?? {first: []};
      const until = (i) => Math.min(first[i] + length, first[i + 1] ?? Infinity); // as far as the next one, or they would hide each other
      if (first.length) lanes.push(visavis.lanes.spans("windows", first.map((begin, i) => [begin / FPS, until(i) / FPS, colours[Number(labels[i])]]), 12, WHO[n]));
    }
    if (data.words) for (const n of [0, 1]) lanes.push(visavis.lanes.spans("words", data.words.words.filter(([speaker]) => speaker === n).map(([, start, end, text]) => [start, end, "panel", 1, text]), 18, WHO[n]));
    return lanes;
  },

  legend(data) {
    const chip = (colour, text) => visavis.el("span", {class: "key"}, visavis.el("i", {class: `swatch ${colour}`}), text);
    return visavis.el("p", {class: "quiet small"}, "Turns; thin: back-channels.", ...(data.windows.length ? [" Windows, where each begins, seen from its avatar: ", chip("avatar", "speaking"), chip("user", "listening"), chip("generated", "overlap"), chip("quiet", "silence")] : []));
  },

  people(data) {
    const figure = visavis.short, rows = [];
    const line = (title, of) => {
      const cells = data.people.map((person, n) => of(person, n));
      if (cells.some((cell) => cell != null)) rows.push([title, ...cells.map((cell) => cell ?? "–")]);
    };
    line("voice", (p) => (p.speaker === undefined ? null : `number ${p.speaker + 1}`));
    line("lips fit this voice", (p) => (p.score === undefined ? null : figure(p.score)));
    line("… better than the other by", (p) => (p.margin === undefined ? null : data.layout === "one_frame" ? figure(p.margin) : "each has a file of its own"));
    line("voice is late by", (p) => (p.offset_ms == null ? null : `${figure(p.offset_ms)} ms (confidence ${figure(p.offset_confidence)})`));
    line("voice had by", (p) => (p.voice ? {own_track: "own track", mask: "the turns alone", network: "a network"}[p.voice.method] : null));
    line("other's voice left in it", (p) => (p.voice?.residual_db == null ? null : `${figure(p.voice.residual_db)} dB`));
    for (const [title, name, unit, per] of [["voice's level", "level_db", " dB", 1], ["over the noise", "snr_db", " dB", 1], ["clipped", "clipped", " %", 100], ["sound up to", "bandwidth_hz", " Hz", 1]]) line(title, (p) => (p.voice?.[name] == null ? null : figure(per * p.voice[name]) + unit));
    for (const [name, unit] of [["visible", ""], ["face_size", " px"], ["sharpness", ""], ["luminance", ""], ["confidence", ""], ["yaw", "°"], ["pitch", "°"], ["jitter", " %"]]) line(visavis.words(name), (p) => (p.figures ? figure(p.figures[name]) + unit : null));
    const said = data.bound ? `Turns by ${data.method}; the lips corrected ${figure(data.corrected)} s of speech.` : data.method ? `Voices by ${data.method}; nobody was bound to them.` : "Nobody was bound to a voice: it did not come that far.";
    return visavis.el("section", {"aria-labelledby": "who"}, visavis.el("h3", {id: "who"}, "Who is who, and why"), visavis.el("p", {class: "quiet"}, said),
      visavis.el("table", {}, visavis.el("thead", {}, visavis.el("tr", {}, visavis.el("td"), ...data.people.map((person, n) => visavis.el("th", {scope: "col", class: this.WHO[n]}, this.short(person.name, data))))),
        visavis.el("tbody", {}, ...rows.map(([title, ...cells]) => visavis.el("tr", {}, visavis.el("th", {scope: "row"}, title), ...cells.map((cell) => visavis.el("td", {class: "number"}, cell)))))));
  },

  transcript(data, player) {
    if (!data.words) return "";
    const spoken = data.words.words.slice(0, 4000).map(([speaker, start, end, text]) => {
      const word = visavis.el("button", {type: "button", class: `word ${this.WHO[speaker]}`, onclick: () => player.seek(start)}, text);
      return {word, start, end};
    });
    player.watch((at) => {
      for (const {word, start, end} of spoken) word.classList.toggle("now", start <= at && at < end);
    });
    const left = data.words.left_out + Math.max(0, data.words.words.length - 4000);
    return visavis.el("section", {"aria-label": "Words"}, visavis.el("h3", {}, `Words (${data.words.language})`), data.words.aligned ? "" : visavis.note("Times of words are rough: there was no model to align them."),
      visavis.el("p", {class: "transcript"}, ...spoken.flatMap(({word}) => [word, " "])), left ? visavis.note(`${left} more words are not shown.`) : "");
  },

  turns(data, player) {
    if (!data.turns.length) return visavis.note("No turns are known.");
    const name = (n) => (data.bound ? this.short(data.people[n].name, data) : `voice ${n + 1}`);
    const table = new visavis.Table({
      caption: "Turns", rows: data.turns, size: 15,
      columns: [
        {title: "from", value: (t) => t[1], cell: (t) => visavis.el("button", {type: "button", class: "link", onclick: () => player.seek(t[1])}, visavis.clock(t[1]))},
        {title: "seconds", number: true, value: (t) => t[2] - t[1], cell: (t) => (t[2] - t[1]).toFixed(2)},
        {title: "who", value: (t) => t[0], cell: (t) => visavis.el("span", {class: data.bound ? this.WHO[t[0]] : ""}, name(t[0]))},
        {title: "kind", value: (t) => t[3], cell: (t) => (t[3] ? "back-channel" : "turn")},
      ],
    });
    return visavis.el("details", {}, visavis.el("summary", {}, visavis.count(data.turns.length, "turn") + " as a list"), table.element);
  },

  short(name, data) {
    return name.startsWith(`${data.id}-`) ? (data.layout === "one_frame" ? ["left", "right"] : ["first", "second"])[Number(name.at(-1))] ?? name : name;
  },
};

visavis._shared = new Map();

/** A script of the page's data that several views need, loaded once. */
visavis.shared = (name) => {
  if (!visavis._shared.has(name)) visavis._shared.set(name, visavis.load(`data/${name}.js`, name));
  return visavis._shared.get(name);
};
visavis.codec = (id) => visavis.shared(`codec-${id}`);
visavis.faces = (id) => visavis.shared(`f-${id}`);

/** A face that moves with a player, grey where valid(frame) is false. packed: pose and expression. */
visavis.drawn = async (title, puppet, packed, player, colour, valid) => {
  const [pose, expression] = await Promise.all(packed.map(visavis.unpack));
  const canvas = visavis.el("canvas", {width: 420, height: 420, role: "img", "aria-label": `${title}, drawn from motion`, class: colour});
  let there = true, shown = -1;
  const look = {get colour() { return visavis.colour(there ? colour : "quiet"); }};
  const avatar = visavis.avatar(canvas, puppet, look, player.closed.signal);
  player.watch(() => {
    const frame = Math.max(0, Math.min(pose.rows - 1, Math.floor(player.at * visavis.report.fps + 1e-6)));
    if (frame === shown) return;
    shown = frame;
    if (there !== valid(frame)) {
      there = !there;
      avatar.recolour();
    }
    avatar.draw([pose, expression].flatMap(({values, columns}) => [...values.subarray(frame * columns, (frame + 1) * columns)]));
  });
  return canvas;
};
