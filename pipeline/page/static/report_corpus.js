// The corpus: what came in and what became of it, examples, thresholds that recount, the table of conversations.
"use strict";

visavis.corpus = {
  OUTCOMES: ["kept", "rejected", "failed", "unfinished"],

  show(corpus, place) {
    if (!corpus) return;
    place.append(this.counts(corpus), this.examples(corpus), this.thresholds(corpus));
  },

  counts(corpus) {
    const {counts, listed} = corpus, of = (name) => counts[name] ?? 0;
    const figures = [["came in", corpus.total, ""], ...this.OUTCOMES.filter((name) => of(name)).map((name) => [name, of(name), name])];
    const section = visavis.el("section", {"aria-labelledby": "came-in"}, visavis.el("h2", {id: "came-in"}, "What came in"),
      visavis.el("dl", {class: "figures"}, ...figures.map(([name, value, kind]) =>
        visavis.el("div", {class: kind}, visavis.el("dt", {}, name), visavis.el("dd", {}, value.toLocaleString("en"))))));
    if (listed < corpus.total) section.append(visavis.note(`Of ${corpus.total.toLocaleString("en")} conversations ${listed.toLocaleString("en")} are in this page, chosen by hash; all figures below are of these.`));
    const rows = [["kept", of("kept"), "kept"], ...Object.entries(corpus.reasons).map(([reason, n]) => [reason, n, "left"])];
    if (of("unfinished")) rows.push(["unfinished", of("unfinished"), "open"]);
    const most = Math.max(1, ...rows.map(([, n]) => n));
    section.append(visavis.el("table", {class: "bars"}, visavis.el("caption", {}, "Kept, and left out by reason"), visavis.el("tbody", {}, ...rows.map(([reason, n, kind]) => {
      const bar = visavis.el("span", {class: `fill ${kind}`});
      bar.style.width = `${Math.max(0.5, (100 * n) / most)}%`;
      const name = visavis.el("button", {type: "button", class: "link", onclick: () => visavis.conversations.filtered(kind, reason)}, visavis.words(reason));
      return visavis.el("tr", {}, visavis.el("th", {scope: "row"}, name), visavis.el("td", {class: "number"}, n.toLocaleString("en")), visavis.el("td", {class: "fillcell", "aria-hidden": "true"}, bar));
    }))));
    for (const failure of corpus.failures.slice(0, 20)) section.append(visavis.note(`Could not be read: ${failure}`));
    if (corpus.failures.length > 20) section.append(visavis.note(`… and ${corpus.failures.length - 20} more could not be read.`));
    return section;
  },

  examples(corpus) {
    const section = visavis.el("section", {"aria-labelledby": "examples"}, visavis.el("h2", {id: "examples"}, "Examples"),
      visavis.el("p", {class: "quiet"}, "A moment of some conversations, with the faces that were tracked: the two people in their colours, others grey."));
    const shelf = visavis.el("div", {class: "shelf"});
    for (const group of corpus.examples) {
      const title = group.reason ? visavis.words(group.reason) : "kept";
      const block = visavis.el("div", {class: `shelved ${group.reason ? "left" : "kept"}`}, visavis.el("h3", {}, `${title} · ${group.count.toLocaleString("en")}`));
      const row = visavis.el("div", {class: "pictures"});
      for (const picture of group.pictures) {
        const image = visavis.el("img", {src: picture.source, alt: `A moment of ${picture.name}`, loading: "lazy", height: "150"});
        row.append(visavis.el("figure", {}, image, visavis.el("figcaption", {}, visavis.conversations.link(picture.id, picture.name), picture.detail ? visavis.el("span", {class: "quiet"}, ` ${picture.detail}`) : "")));
      }
      if (group.pictures.length) block.append(row);
      else block.append(visavis.el("p", {class: "quiet"}, group.detail));
      const left = group.count - group.pictures.length, why = group.why.join("; ");
      if (left > 0) block.append(visavis.el("p", {class: "quiet small"}, `${group.pictures.length ? left.toLocaleString("en") + " more without a picture here" : "no picture"}${why ? ": " + why : ""}`));
      shelf.append(block);
    }
    section.append(shelf);
    return section;
  },

  thresholds(corpus) {
    const {table, limits} = corpus, count = table.measured.reduce((sum, one) => sum + one, 0);
    const section = visavis.el("section", {"aria-labelledby": "thresholds"}, visavis.el("h2", {id: "thresholds"}, "Quality, and what other thresholds would leave"));
    if (!count) {
      section.append(visavis.note("No conversation came as far as being measured."));
      return section;
    }
    const total = visavis.el("output", {class: "recount", id: "recount", "aria-live": "polite"}), split = visavis.el("p", {class: "quiet", id: "recount-split"});
    const line = visavis.el("code", {id: "set-line"}), copy = visavis.el("button", {type: "button", id: "copy-line"}, "Copy");
    const reset = visavis.el("button", {type: "button", id: "reset"}, "As built");
    copy.addEventListener("click", () => visavis.copy(line.textContent, copy));
    const judged = new Set(limits.flatMap((limit) => limit.figures.map((figure) => `${figure.stage} ${figure.reason}`)));
    const recount = () => {
      const found = visavis.limits.recount(limits, count), now = {kept: 0, rejected: 0, failed: 0, unfinished: 0, again: 0};
      for (let n = 0; n < count; n++) {
        if (!found.kept[n]) continue;
        const built = table.outcome[n] === 1 && judged.has(`${table.words.stage[table.stage[n]]} ${table.words.reason[table.reason[n]]}`);
        now[built ? "again" : this.OUTCOMES[table.outcome[n]]]++;
      }
      total.textContent = `${found.total.toLocaleString("en")} of ${visavis.count(count, "measured conversation")} pass`;
      const parts = [[now.kept, "are kept today"], [now.rejected, "pass and are left out by a later stage"], [now.failed, "failed later"], [now.again, "were left out by today's thresholds, and would go on"], [now.unfinished, "are not done yet"]];
      split.textContent = `Of these ${parts.filter(([n]) => n).map(([n, what]) => `${n.toLocaleString("en")} ${what}`).join(", ") || "none is left"}.`;
      const changed = limits.filter((limit) => limit.now !== limit.bound).map((limit) => `--set quality.${limit.setting}=${limit.now}`);
      line.textContent = changed.join(" ") || "(nothing is changed)";
      copy.disabled = !changed.length;
      visavis.corpus.kept = found;
    };
    const grid = visavis.el("div", {class: "limits"}, ...limits.map((limit) => visavis.limits.control(limit, () => {
      recount();
      for (const other of limits) if (other !== limit) other.refresh();
    })));
    reset.addEventListener("click", () => limits.forEach((limit) => limit.set(limit.bound)));
    section.append(visavis.el("p", {class: "quiet"}, `Each of the ${visavis.count(count, "conversation")} that came as far as being measured, the worse of the two people. Bars by their square root; red: beyond the threshold. Moving one measures nothing again: build with the line below and --reconfigure.`),
      visavis.el("div", {class: "stick"}, visavis.el("div", {class: "bar"}, total, reset), split, visavis.el("div", {class: "bar"}, line, copy)), grid);
    recount();
    for (const limit of limits) limit.refresh();
    return section;
  },
};

visavis.conversations = {
  show(corpus, place) {
    if (!corpus) return;
    const {table} = corpus, word = (name) => (n) => table.words[name][table[name][n]];
    const stage = word("stage"), reason = word("reason"), detail = word("detail"), LABELS = ["speaking", "listening", "overlap", "silence"];
    const sum = (n) => (table.windows[n] ? table.windows[n].reduce((a, b) => a + b, 0) : 0);
    const outcome = (n) => visavis.corpus.OUTCOMES[table.outcome[n]];
    const lower = new Map();
    this.data = corpus;
    this.names = new Map(table.id.map((id, n) => [id, n]));
    this.opened = new Set(table.id.filter((id, n) => table.shown[n]));
    this.table = new visavis.Table({
      caption: "Conversations",
      rows: table.id.map((id, n) => n),
      columns: [
        {title: "conversation", value: (n) => table.name[n].toLowerCase(), cell: (n) => visavis.conversations.link(table.id[n], table.name[n])},
        {title: "people", value: (n) => table.people[n], cell: (n) => (table.people[n].startsWith(`${table.id[n]}-`) ? "–" : table.people[n])},
        {title: "outcome", value: outcome, cell: (n) => visavis.el("span", {class: `chip ${outcome(n)}`}, outcome(n))},
        {title: "reason", value: reason, cell: (n) => [visavis.words(reason(n)), visavis.el("span", {class: "quiet small"}, ` ${detail(n)}`)]},
        {title: "stage", value: stage, cell: stage},
        {title: "minutes", number: true, value: (n) => table.seconds[n], cell: (n) => (table.seconds[n] / 60).toFixed(1)},
        {title: "windows", number: true, value: sum, cell: (n) => (sum(n) ? visavis.el("span", {title: table.windows[n].map((k, i) => `${k} ${LABELS[i]}`).join(", ")}, sum(n)) : "–")},
      ],
      filters: [
        {label: "Outcome", options: visavis.corpus.OUTCOMES.filter((name) => corpus.counts[name]).map((name) => [name, name]), keeps: (n, value) => outcome(n) === value},
        {label: "Reason", options: Object.keys(corpus.reasons).map((name) => [name, visavis.words(name)]), keeps: (n, value) => reason(n) === value},
        {label: "Passes the sliders", options: [["yes", "yes"], ["no", "no"]], keeps: (n, value) => Boolean(table.measured[n]) && Boolean(visavis.corpus.kept?.kept[n]) === (value === "yes")},
      ],
      text: (n) => {
        if (!lower.has(n)) lower.set(n, `${table.name[n]} ${table.people[n]} ${table.id[n]} ${detail(n)}`.toLowerCase());
        return lower.get(n);
      },
    });
    const section = visavis.el("section", {id: "conversations", "aria-labelledby": "conversations-title"}, visavis.el("h2", {id: "conversations-title"}, "Conversations"));
    const all = corpus.opened === corpus.listed;
    section.append(visavis.note(all
      ? "Every conversation can be opened."
      : `${corpus.opened.toLocaleString("en")} of ${corpus.listed.toLocaleString("en")} can be opened: those with a link. At most ${corpus.asked.toLocaleString("en")} were asked for (--conversations), taken in turn from what was kept and from each reason; what was left out before anything of it was kept has nothing to show.`),
      this.table.element);
    place.append(section);
  },

  link(id, name) {
    if (!this.opened?.has(id)) return name;
    return visavis.el("a", {href: `#c-${id}`}, name);
  },

  filtered(kind, reason) {
    this.table.filter("Outcome", kind === "kept" ? "kept" : kind === "open" ? "unfinished" : "");
    this.table.filter("Reason", kind === "left" ? reason : "");
    document.getElementById("conversations").scrollIntoView();
    this.table.search.focus({preventScroll: true});
  },
};
