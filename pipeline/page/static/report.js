// A report: fills the page's sections, and shows a conversation or a pair in their place when the address names one.
"use strict";

Object.assign(visavis, {
  note(text) {
    return visavis.el("p", {class: "note"}, text);
  },

  async copy(text, button) {
    const label = button.textContent;
    await visavis.toClipboard(text);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1200);
  },
});

(() => {
  const data = visavis.data("report"), overview = document.getElementById("overview"), view = document.getElementById("view");
  const links = document.getElementById("sections");
  visavis.report = data;
  const link = (id, text) => links.append(visavis.el("a", {href: `#${id}`}, text));
  visavis.conversations.opened = new Set((data.corpus?.table.id ?? []).filter((id, n) => data.corpus.table.shown[n]));
  if (data.corpus) {
    visavis.corpus.show(data.corpus, overview);
    visavis.conversations.show(data.corpus, overview);
    for (const [id, text] of [["came-in", "Corpus"], ["examples", "Examples"], ["thresholds", "Quality"], ["conversations", "Conversations"]]) link(id, text);
  }
  if (data.doctor) {
    visavis.doctor.show(data.doctor, overview);
    link("doctor", "Doctor");
  }
  visavis.pairs?.show(data.pairs, overview);
  if (data.pairs.length) link("pairs", "Pairs");
  visavis.training?.show(data.training, data.evaluation, overview);
  if (data.training.length) link("training", "Training");
  if (data.evaluation.length) link("evaluation", "Evaluation");
  if (data.notes.length) overview.append(visavis.el("section", {"aria-label": "What is not in this page"}, ...data.notes.map((note) => visavis.note(`${note[0].toUpperCase()}${note.slice(1)}.`))));

  let left = 0, close = () => {};
  const route = async () => {
    const [, kind, id] = /^#(c|p)-([A-Za-z0-9_.-]+)$/.exec(location.hash) ?? [];
    close();
    close = () => {};
    if (!kind) {
      const back = !view.hidden;
      view.hidden = true;
      view.replaceChildren();
      overview.hidden = false;
      if (back && !location.hash.slice(1)) scrollTo(0, left);
      else document.getElementById(location.hash.slice(1))?.scrollIntoView();
      return;
    }
    if (!overview.hidden) left = scrollY;
    overview.hidden = true;
    view.hidden = false;
    view.replaceChildren(visavis.el("p", {class: "quiet", role: "status"}, "Loading …"));
    scrollTo(0, 0);
    try {
      close = (await (kind === "c" ? visavis.conversation.open(id, view) : visavis.pairs.open(id, view))) ?? close;
    } catch (error) {
      view.replaceChildren(visavis.el("a", {href: "#"}, "← Back"), visavis.note(`This cannot be shown: ${error.message}`));
    }
    view.querySelector("h2")?.focus();
  };
  addEventListener("hashchange", route);
  route();
})();
