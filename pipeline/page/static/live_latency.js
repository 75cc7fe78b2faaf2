// How long a reaction takes, and which part of it: each block from the camera's picture to the drawn frame.
"use strict";

const PARTS = [
  ["block", "#6b8fd6", "the model makes so many frames at once, and waits for all of them"],
  ["look-ahead", "#a9bfe8", "frames behind the block that it waits for, too"],
  ["upload", "#d9a441", "camera, microphone and compression, until the last of it is here"],
  ["faces", "#c9702f", "landmarks of the last picture, and its motion"],
  ["model", "#3f9a5a", "the block's motion"],
  ["download", "#8a6fc0", "back to the page"],
  ["draw", "#9aa5b1", "until the frame is due, and drawn"],
];

class Latency {
  constructor(place, table) {
    const label = "Parts of the latency; the table below has the figures";
    this.canvas = visavis.canvas(label, 64, (context, width) => this.draw(context, width, this.summary()));
    place.append(this.canvas);
    this.all = []; // {frame, at, total, parts}, ms
    this.cells = PARTS.map(([name, colour, what]) => {
      const key = visavis.el("span", {class: "key"});
      key.style.backgroundColor = colour; // of the CSSOM, which the policy allows
      const [median, high] = [visavis.el("td", {class: "number"}), visavis.el("td", {class: "number"})];
      table.append(visavis.el("tr", {}, visavis.el("th", {scope: "row"}, key, name), median, high, visavis.el("td", {class: "quiet"}, what)));
      return [median, high];
    });
  }

  /** The value below which a share q of some numbers lies; NaN for none. */
  static quantile(values, q) {
    const sorted = [...values].sort((a, b) => a - b);
    return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : NaN;
  }

  /** A block that was drawn. Times in ms of the page's clock; each part ends where the next begins. */
  add(block, drawn, frameMs, blockFrames, aheadFrames) {
    if (!Number.isFinite(block.captured)) return; // nobody was there to react to
    const end = (block.first + blockFrames + aheadFrames) * frameMs;
    const borders = [block.captured, end - aheadFrames * frameMs, end, block.received, block.seen, block.done, block.got, drawn];
    for (let i = 1; i < borders.length; i++) borders[i] = Math.max(borders[i], borders[i - 1]);
    const parts = PARTS.map((_, i) => borders[i + 1] - borders[i]);
    this.all.push({frame: block.first, at: drawn, total: drawn - block.captured, parts});
    if (this.all.length > 20000) this.all.shift();
  }

  recent() {
    return this.all.slice(-150);
  }

  summary(list = this.recent()) {
    const totals = list.map((one) => one.total);
    return {
      blocks: list.length,
      median: Latency.quantile(totals, 0.5),
      p95: Latency.quantile(totals, 0.95),
      parts: Object.fromEntries(PARTS.map(([name], i) => {
        const values = list.map((one) => one.parts[i]);
        return [name, {median: Latency.quantile(values, 0.5), p95: Latency.quantile(values, 0.95)}];
      })),
    };
  }

  /** Strip, table; returns the summary of the last minute. */
  show() {
    const found = this.summary();
    PARTS.forEach(([name], i) => {
      const {median, p95} = found.parts[name];
      this.cells[i][0].textContent = Number.isFinite(median) ? median.toFixed(0) : "–";
      this.cells[i][1].textContent = Number.isFinite(p95) ? p95.toFixed(0) : "–";
    });
    this.canvas.redraw();
    return found;
  }

  draw(context, width, found) {
    const most = Math.max(800, found.p95 * 1.1 || 0), x = (ms) => (ms / most) * width;
    context.font = "12px system-ui, sans-serif";
    context.fillStyle = context.strokeStyle = visavis.colour("quiet");
    for (let ms = 0; ms <= most; ms += 100) {
      context.fillRect(x(ms), 40, 1, 5);
      if (ms % 200 === 0) context.fillText(String(ms), Math.min(x(ms) + 2, width - 24), 58);
    }
    if (!found.blocks) return;
    let at = 0;
    for (const [i, [name, colour]] of PARTS.entries()) {
      const wide = found.parts[name].median;
      context.fillStyle = colour;
      context.fillRect(x(at), 8, x(wide), 30);
      if (x(wide) > context.measureText(name).width + 8) {
        context.fillStyle = "#10151c";
        context.fillText(name, x(at) + 4, 27);
      }
      at += wide;
    }
    context.fillStyle = visavis.colour("ink");
    for (const ms of [found.median, found.p95]) context.fillRect(x(ms) - 1, 4, 2, 38);
  }
}
