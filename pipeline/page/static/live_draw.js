// Faces on a canvas: landmarks in face widths, y up, as the lines that people know a face by.
"use strict";

const LINES = (() => {
  const closed = (list) => [...list, list[0]];
  const lids = [[33, 246, 161, 160, 159, 158, 157, 173, 133, 155, 154, 153, 145, 144, 163, 7],
    [263, 466, 388, 387, 386, 385, 384, 398, 362, 382, 381, 380, 374, 373, 390, 249]].map(closed);
  const irises = [[469, 470, 471, 472], [474, 475, 476, 477]].map(closed);
  const brows = [[70, 63, 105, 66, 107], [46, 53, 52, 65, 55], [300, 293, 334, 296, 336], [276, 283, 282, 295, 285]];
  const lips = [[61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146],
    [78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95]].map(closed);
  const nose = [[168, 6, 197, 195, 5, 4, 1], [98, 97, 2, 326, 327]];
  const oval = [closed([10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109])];
  return [...oval, ...lids, ...irises, ...brows, ...lips, ...nose];
})();

const liveDraw = {
  /** A colour of the page, as it is now in dark or light. */
  colour(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  },

  /** A face as lines; points: Float32Array of 478 × 3, or null: nobody. */
  face(canvas, points, colour) {
    const context = canvas.getContext("2d", {alpha: false});
    const {width, height} = canvas;
    context.fillStyle = liveDraw.colour("--panel");
    context.fillRect(0, 0, width, height);
    if (!points) return;
    const scale = 0.48 * Math.min(width, height);
    const x = (i) => width / 2 + scale * points[3 * i];
    const y = (i) => 0.48 * height - scale * points[3 * i + 1];
    context.strokeStyle = colour;
    context.lineWidth = Math.max(1, width / 256);
    context.lineJoin = "round";
    context.beginPath();
    for (const line of LINES) {
      context.moveTo(x(line[0]), y(line[0]));
      for (const i of line.slice(1)) context.lineTo(x(i), y(i));
    }
    context.stroke();
  },
};
