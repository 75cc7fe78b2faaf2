// Motion as a face: decoded in the browser as `stages/face/codec.py` does, drawn as lines.
"use strict";

visavis.Face = class {
  static POSE = 6;
  static LINES = [
    // outline, lips outside and inside, eyes, brows, nose: MediaPipe's landmarks in order; true: closed
    [true, "10 338 297 332 284 251 389 356 454 323 361 288 397 365 379 378 400 377 152 148 176 149 150 136 172 58 132 93 234 127 162 21 54 103 67 109"],
    [true, "61 146 91 181 84 17 314 405 321 375 291 409 270 269 267 0 37 39 40 185"],
    [true, "78 95 88 178 87 14 317 402 318 324 308 415 310 311 312 13 82 81 80 191"],
    [true, "33 7 163 144 145 153 154 155 133 173 157 158 159 160 161 246"],
    [true, "263 249 390 373 374 380 381 382 362 398 384 385 386 387 388 466"],
    [true, "469 470 471 472"], [true, "474 475 476 477"],
    [false, "46 53 52 65 55"], [false, "70 63 105 66 107"], [false, "276 283 282 295 285"], [false, "300 293 334 296 336"],
    [false, "168 6 197 195 5 4"], [false, "98 97 2 326 327"],
  ].map(([closed, text]) => [closed, text.split(" ").map(Number)]);

  static async load(codec, motion, neutral) {
    const [basis, mean, moved, still] = await Promise.all([codec.basis, codec.mean, motion, neutral].map(visavis.unpack));
    return new visavis.Face(basis, mean, moved, still);
  }

  constructor(basis, mean, motion, neutral) {
    Object.assign(this, {basis, mean, motion, neutral, points: new Float32Array(neutral.rows * 3)});
  }

  /** Landmarks x, y, z of a frame, in face widths, y up, around the person's median place. */
  at(frame) {
    const {basis, mean, motion, neutral, points} = this, dims = motion.columns, E = basis.columns;
    const row = Math.max(0, Math.min(motion.rows - 1, frame)) * dims, m = motion.values, pose = visavis.Face.POSE;
    const [pitch, yaw, roll] = [m[row], m[row + 1], m[row + 2]];
    const [cp, sp, cy, sy, cr, sr] = [pitch, yaw, roll].flatMap((angle) => [Math.cos(angle), Math.sin(angle)]);
    const R = [cy * cr + sy * sp * sr, -cy * sr + sy * sp * cr, sy * cp, cp * sr, cp * cr, -sp, -sy * cr + cy * sp * sr, sy * sr + cy * sp * cr, cy * cp];
    const scale = Math.exp(m[row + 5]) / 15.2; // the canonical face is that many cm wide: `check` of the tests holds it
    const face = new Float32Array(3);
    for (let l = 0; l < neutral.rows; l++) {
      for (let axis = 0; axis < 3; axis++) {
        const k = l * 3 + axis;
        let value = mean.values[k] + neutral.values[k];
        for (let e = 0; e < E; e++) value += m[row + pose + e] * basis.values[k * E + e];
        face[axis] = value;
      }
      for (let axis = 0; axis < 3; axis++) points[l * 3 + axis] = scale * (R[axis * 3] * face[0] + R[axis * 3 + 1] * face[1] + R[axis * 3 + 2] * face[2]);
      points[l * 3] += m[row + 3];
      points[l * 3 + 1] += m[row + 4];
    }
    return points;
  }

  /** Draws a frame into the middle of a rectangle. */
  draw(context, frame, left, top, width, height, colour) {
    const points = this.at(frame), size = Math.min(width, height) / 2, x0 = left + width / 2, y0 = top + height * 0.52;
    context.save();
    context.strokeStyle = context.fillStyle = colour;
    context.lineWidth = Math.max(1, size / 110);
    context.lineJoin = "round";
    context.globalAlpha = 0.35;
    for (let l = 0; l < points.length; l += 3) context.fillRect(x0 + points[l] * size, y0 - points[l + 1] * size, 1.2, 1.2);
    context.globalAlpha = 1;
    for (const [closed, line] of visavis.Face.LINES) {
      context.beginPath();
      for (const l of line) context.lineTo(x0 + points[l * 3] * size, y0 - points[l * 3 + 1] * size);
      if (closed) context.closePath();
      context.stroke();
    }
    context.restore();
  }
};
