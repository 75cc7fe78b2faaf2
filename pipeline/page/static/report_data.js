// Of a report: packed arrays (`pipeline/page/packed.py`), and numbers as text.
"use strict";

Object.assign(visavis, {
  async inflate(text) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  },

  /** {rows, columns, values}: values row by row. */
  async unpack(packed) {
    const {rows, columns, low, step} = packed;
    const bytes = await visavis.inflate(packed.data);
    const values = new Float32Array(rows * columns), plane = rows * columns;
    for (let c = 0; c < columns; c++) {
      for (let r = 0, sum = 0; r < rows; r++) {
        const folded = bytes[c * rows + r] | (bytes[plane + c * rows + r] << 8);
        sum += (folded >> 1) ^ -(folded & 1);
        values[r * columns + c] = low[c] + step[c] * sum;
      }
    }
    return {rows, columns, values};
  },

  /** Three digits that matter; a dash for what is not defined. */
  figure(value) {
    if (value == null || !Number.isFinite(value)) return "–";
    const size = Math.abs(value);
    if (size >= 1e7) return value.toExponential(0);
    return value.toFixed(size < 10 ? 3 : size < 1000 ? 1 : 0);
  },

  /** The same without zeros behind it, and a minus that is one: for a number with a unit. */
  short(value) {
    return value == null ? "–" : String(Number(visavis.figure(value))).replace("-", "−");
  },

  count(number, noun, plural) {
    return `${number.toLocaleString("en")} ${number === 1 ? noun : plural ?? noun + "s"}`;
  },

  words(name) {
    return name.replaceAll("_", " ");
  },

  clock(seconds) {
    const whole = Math.max(0, seconds), hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    const rest = (whole % 60).toFixed(2).padStart(5, "0");
    return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
  },

  /** Whether frame `at` lies in one of the sorted spans [first, end). */
  inside(spans, at) {
    return spans.some(([first, end]) => first <= at && at < end);
  },
});
