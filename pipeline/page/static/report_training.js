// Training as curves, evaluation as tables with the floors of noise.
"use strict";

visavis.training = {
  JOINED: [ // panels of several curves; a metric and the same of held-out windows share one, too
    ["loss by noise level, from little to much", /^loss_t\dof\d$/],
    ["chosen and rejected, of the policy and of its reference", /^(chosen|rejected)_(policy|reference)$/],
    ["the same, held out", /^val_(chosen|rejected)_(policy|reference)$/],
  ],
  ASIDE: /^(grad_norm|lr|samples_s|media_hours_s|data_wait_share|eta_s|gpu_peak_gb|bad_samples)$/,

  show(trainings, evaluations, place) {
    trainings.forEach((training, n) => place.append(this.curves(training, n ? `training-${n + 1}` : "training")));
    evaluations.forEach((evaluation, n) => place.append(this.tables(evaluation, n ? `evaluation-${n + 1}` : "evaluation")));
  },

  curves(training, id) {
    const section = visavis.el("section", {id, "aria-labelledby": `${id}-title`}, visavis.el("h2", {id: `${id}-title`}, `Training: ${training.name}`));
    const said = [training.averaged > 1 && `each point is the mean of ${training.averaged} lines`, training.torn && `${visavis.count(training.torn, "line")} could not be read`, training.left_out.length && `not drawn: ${training.left_out.join(", ")}`].filter(Boolean);
    if (said.length) section.append(visavis.note(`${said.join("; ")}.`));
    if (!training.steps.length) {
      section.append(visavis.note("No step is in its metrics yet."));
      return section;
    }
    const names = Object.keys(training.curves).filter((name) => training.curves[name].some((value) => value));
    const groups = new Map();
    for (const name of names) {
      const title = this.JOINED.find(([, pattern]) => pattern.test(name))?.[0] ?? name.replace(/^val_/, "");
      groups.set(title, [...(groups.get(title) ?? []), name]);
    }
    const main = visavis.el("div", {class: "curves"}), aside = visavis.el("div", {class: "curves"});
    for (const [title, found] of groups) (this.ASIDE.test(title) ? aside : main).append(this.plot(training, visavis.words(title), found));
    section.append(main, visavis.el("details", {}, visavis.el("summary", {}, "Rate, gradient and speed"), aside));
    return section;
  },

  COLOURS: ["generated", "user", "avatar", "bad", "quiet", "link"],

  plot(training, title, names) {
    const box = visavis.el("div", {class: "curve"}, visavis.el("h4", {}, title)), target = visavis.el("div");
    const last = names.map((name) => `${visavis.words(name)} ${visavis.figure(training.curves[name].findLast((v) => v != null))}`).join(", ");
    box.append(target, visavis.el("p", {class: "quiet small"}, `At step ${training.steps.at(-1).toLocaleString("en")}: ${last}`));
    let plot = null;
    const draw = () => {
      plot?.destroy();
      const axis = {stroke: visavis.colour("quiet"), grid: {stroke: visavis.colour("line"), width: 1}, ticks: {stroke: visavis.colour("line"), width: 1}};
      plot = new uPlot({
        width: Math.max(240, target.clientWidth), height: 190, scales: {x: {time: false}}, legend: {show: names.length > 1, live: false}, cursor: {drag: {x: false, y: false}},
        axes: [axis, {...axis, size: 62}],
        series: [{label: "step"}, ...names.map((name, n) => ({label: visavis.words(name).replace(/^val /, "held out "), stroke: visavis.colour(this.COLOURS[n % this.COLOURS.length]), width: 1.6, spanGaps: true, points: {show: training.steps.length < 3}}))],
      }, [training.steps, ...names.map((name) => training.curves[name])], target);
    };
    let width = 0;
    new ResizeObserver(() => {
      if (target.clientWidth && Math.abs(target.clientWidth - width) > 2) {
        width = target.clientWidth;
        draw();
      }
    }).observe(target);
    document.addEventListener("theme", draw);
    return box;
  },

  tables(evaluation, id) {
    const section = visavis.el("section", {id, "aria-labelledby": `${id}-title`}, visavis.el("h2", {id: `${id}-title`}, `Evaluation: ${evaluation.name}`));
    const {windows, split, seeds} = evaluation.facts;
    if (windows) section.append(visavis.el("p", {}, `${visavis.count(windows.all, `${split} window`)}: ${Object.entries(windows).filter(([name]) => name !== "all").map(([name, n]) => `${n} ${name}`).join(", ")}; ${visavis.count(seeds?.length ?? 1, "seed")}.`));
    section.append(visavis.note(evaluation.floors
      ? "± is one standard error over windows; the floor is what two halves of the truth differ by: a difference below it says nothing."
      : "This file holds no noise floors and no errors: `visavis evaluate … --json` writes them."));
    const labels = Object.keys(evaluation.tables), body = visavis.el("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Metrics"});
    const select = visavis.el("select", {onchange: () => show(select.value)}, ...labels.map((label) => visavis.el("option", {value: label}, label)));
    const show = (label) => body.replaceChildren(...["expression", "pose"].map((part) => this.table(evaluation, label, part)));
    section.append(visavis.el("label", {class: "controls"}, "Windows ", select), body);
    show(labels[0]);
    return section;
  },

  table(evaluation, label, part) {
    const rows = evaluation.tables[label].filter((row) => row.part === part), {columns, floors} = evaluation;
    const cell = (row, n) => [visavis.figure(row.values[n]), row.errors[n] == null ? "" : visavis.el("span", {class: "error"}, ` ± ${visavis.figure(row.errors[n])}`)];
    return visavis.el("table", {}, visavis.el("caption", {}, `${part}, ${label}`),
      visavis.el("thead", {}, visavis.el("tr", {}, visavis.el("th", {scope: "col"}, "metric"), ...columns.map((name) => visavis.el("th", {scope: "col", class: "number"}, visavis.words(name))), floors ? visavis.el("th", {scope: "col", class: "number"}, "floor") : "")),
      visavis.el("tbody", {}, ...rows.map((row) => visavis.el("tr", {}, visavis.el("th", {scope: "row"}, visavis.words(row.metric)), ...columns.map((name, n) => visavis.el("td", {class: "number"}, ...cell(row, n))), floors ? visavis.el("td", {class: "number floor"}, visavis.figure(row.floor)) : ""))));
  },
};
