// Faces on a canvas: landmarks in face widths, y up, as the lines that people know a face by.
"use strict";

const liveDraw = {
  NOSE: [[168, 6, 197, 195, 5, 4, 1], [98, 97, 2, 326, 327]],
  OVAL: [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109],

  /** Of a puppet's model, which knows the other outlines: numbers of landmarks. */
  lines({lids, irises, brows, lips}) {
    const rims = irises.map(([, ...rim]) => rim); // without the centre
    return [...[liveDraw.OVAL, ...lids, ...rims, ...brows, ...lips].map((ring) => [...ring, ring[0]]), ...liveDraw.NOSE];
  },

  /** A face as lines; points: Float32Array of 478 × 3, or none: nobody. */
  face(canvas, lines, points) {
    const context = canvas.getContext("2d", {alpha: false});
    const {width, height} = canvas;
    context.fillStyle = visavis.colour("panel");
    context.fillRect(0, 0, width, height);
    if (!points) return;
    const scale = 0.48 * Math.min(width, height);
    const x = (i) => width / 2 + scale * points[3 * i];
    const y = (i) => 0.48 * height - scale * points[3 * i + 1];
    context.strokeStyle = visavis.colour("user");
    context.lineWidth = Math.max(1, width / 256);
    context.lineJoin = "round";
    context.beginPath();
    for (const line of lines) {
      context.moveTo(x(line[0]), y(line[0]));
      for (const i of line.slice(1)) context.lineTo(x(i), y(i));
    }
    context.stroke();
  },
};
