// Thresholds as sliders above the distribution of what they bound.
"use strict";

visavis.limits = {
  BINS: 48,

  /** Whether a threshold is crossed, as `pipeline/plan/quality.py` has it; what is not known crosses nothing. */
  crossed(limit, value, bound) {
    return value != null && (limit.least ? value < bound : value > bound);
  },

  /** How many of `count` measured items all thresholds let through, and which: `kept` Uint8Array. */
  recount(limits, count) {
    const kept = new Uint8Array(count).fill(1);
    for (const limit of limits) {
      limit.drops = 0;
      for (let n = 0; n < count; n++) {
        if (limit.figures.some((figure) => visavis.limits.crossed(limit, figure.values[n], limit.now))) {
          kept[n] = 0;
          limit.drops++;
        }
      }
    }
    return {kept, total: kept.reduce((sum, one) => sum + one, 0)};
  },

  /** A slider, a number and histograms. changed(): after each move of `limit.now`. */
  control(limit, changed) {
    limit.now = limit.bound;
    const values = limit.figures.flatMap((figure) => figure.values.filter((value) => value != null));
    let low = values.reduce((a, b) => Math.min(a, b), limit.bound), high = values.reduce((a, b) => Math.max(a, b), limit.bound);
    if (low >= 0) low = 0;
    if (high <= low) high = low + 1;
    const step = 10 ** Math.floor(Math.log10((high - low) / 200)), top = Math.ceil(high / step) * step;
    low = Math.floor(low / step) * step;
    const name = `limit-${limit.setting}`;
    const range = visavis.el("input", {type: "range", id: name, min: low, max: top, step, value: limit.bound});
    const number = visavis.el("input", {type: "number", step: "any", value: limit.bound, "aria-label": `${limit.label ?? limit.setting}, exactly`});
    const drops = visavis.el("output", {for: name, class: "quiet"});
    const pictures = limit.figures.map((figure) => visavis.limits.histogram(limit, figure, low, top));
    const move = (value, from) => {
      if (!Number.isFinite(value)) return;
      limit.now = value;
      if (from !== range) range.value = value;
      if (from !== number) number.value = value;
      range.setAttribute("aria-valuetext", `${limit.least ? "at least" : "at most"} ${value}`);
      changed();
      limit.refresh();
    };
    limit.set = (value) => move(value, null);
    limit.refresh = () => {
      drops.textContent = `${limit.drops.toLocaleString("en")} left out by it`;
      for (const picture of pictures) picture.redraw();
    };
    range.addEventListener("input", () => move(range.valueAsNumber, range));
    number.addEventListener("input", () => move(number.valueAsNumber, number));
    return visavis.el("div", {class: "limit"},
      visavis.el("div", {class: "bar"}, visavis.el("label", {for: name}, limit.label ?? limit.setting), visavis.el("span", {}, limit.least ? "≥ " : "≤ ", number)),
      ...pictures, range, drops, visavis.el("p", {class: "quiet"}, limit.what));
  },

  histogram(limit, figure, low, high) {
    const bins = new Float64Array(visavis.limits.BINS), width = (high - low) / bins.length;
    const add = (value, times) => { bins[Math.max(0, Math.min(bins.length - 1, Math.floor((value - low) / width)))] += times; };
    if (figure.counts) { // of a manifest: bins of its own
      const each = (figure.high - figure.low) / figure.counts.length;
      figure.counts.forEach((times, n) => add(figure.low + each * (n + 0.5), times));
    } else figure.values.forEach((value) => value != null && add(value, 1));
    const most = Math.max(1, ...bins);
    return visavis.canvas(`Distribution of ${visavis.words(figure.name)}`, 56, (context, w, h) => {
      const x = (value) => 8 + ((value - low) / (high - low)) * (w - 16); // as a slider's thumb goes
      for (let n = 0; n < bins.length; n++) {
        if (!bins[n]) continue;
        const tall = Math.max(2, (bins[n] / most) ** 0.5 * (h - 14)), middle = low + width * (n + 0.5);
        context.fillStyle = visavis.colour(visavis.limits.crossed(limit, middle, limit.now) ? "bad" : "generated");
        context.fillRect(x(low + width * n), h - tall, Math.max(1, (w - 16) / bins.length - 1), tall);
      }
      context.fillStyle = visavis.colour("ink");
      context.fillRect(Math.min(w - 2, Math.max(0, x(limit.now) - 1)), 0, 2, h);
      context.fillStyle = visavis.colour("quiet");
      context.font = "11px system-ui, sans-serif";
      context.textAlign = x(limit.now) > w / 2 ? "left" : "right";
      context.fillText(visavis.words(figure.name), x(limit.now) > w / 2 ? 0 : w, 9);
    });
  },
};
