// Motion as a face, in a canvas: the same as pipeline/view/avatar.py draws. A puppet is what `puppet_json` gives.
"use strict";

(() => {
  const POSE = 6, LANDMARKS = 478, FACE = 0.6, WIDEST = 4;
  const LIGHT = [-0.35, 0.5, 0.79];

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
  const integers = (text) => new Uint16Array(bytes(text));

  /** Rows of floats that were packed as integers in steps: Float32Array of all rows. */
  function rows({steps, bits, data}) {
    const numbers = bits === 8 ? new Int8Array(bytes(data)) : new Int16Array(bytes(data));
    const long = steps.length ? numbers.length / steps.length : 0;
    return Float32Array.from(numbers, (n, i) => n * steps[Math.floor(i / long)]);
  }

  /** Roll, then pitch, then yaw, and `turn` before them: nine numbers, row by row. */
  function rotation(pitch, yaw, roll, turn) {
    const [cp, sp, cy, sy, cr, sr] = [pitch, yaw, roll].flatMap((a) => [Math.cos(a), Math.sin(a)]);
    const r = [
      cy * cr + sy * sp * sr, sy * sp * cr - cy * sr, sy * cp,
      cp * sr, cp * cr, -sp,
      cy * sp * sr - sy * cr, sy * sr + cy * sp * cr, cy * cp,
    ];
    return turn.map((_, k) => [0, 1, 2].reduce((sum, j) => sum + r[3 * Math.floor(k / 3) + j] * turn[3 * j + (k % 3)], 0));
  }

  const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

  /** A frame of motion as landmarks: Float32Array [478 · 3] in face widths, y up, z near. */
  function decoder({model, face}) {
    model.unpacked ??= {basis: rows(model.basis)};
    const {basis} = model.unpacked, base = rows(face.base), size = LANDMARKS * 3, cm = new Float64Array(size);
    return (motion) => {
      cm.set(base);
      for (let e = 0; e * size < basis.length; e++) {
        const much = motion[POSE + e];
        if (much) for (let k = 0, at = e * size; k < size; k++) cm[k] += much * basis[at + k];
      }
      const scale = Math.exp(clamp(motion[5] - face.start[2], -8, 8)) / model.width;
      const r = rotation(motion[0], motion[1], motion[2], face.turn).map((x) => x * scale);
      const dx = motion[3] - face.start[0], dy = motion[4] - face.start[1], points = new Float32Array(size);
      for (let k = 0; k < size; k += 3) {
        const x = cm[k], y = cm[k + 1], z = cm[k + 2];
        points[k] = clamp(r[0] * x + r[1] * y + r[2] * z + dx, -WIDEST, WIDEST);
        points[k + 1] = clamp(r[3] * x + r[4] * y + r[5] * z + dy, -WIDEST, WIDEST);
        points[k + 2] = clamp(r[6] * x + r[7] * y + r[8] * z, -WIDEST, WIDEST);
      }
      return points;
    };
  }

  const rgb = (text) => {
    const probe = document.createElement("canvas").getContext("2d");
    probe.fillStyle = text.trim();
    probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  };
  const mixed = (colour, paper, share) =>
    `rgb(${colour.map((c, i) => Math.round(share * c + (1 - share) * paper[i])).join(" ")})`;

  /** The mesh, lit from above, with lines for triangles, lids, brows and lips. */
  function wireframe(canvas, model) {
    model.skinTriangles ??= integers(model.skin);
    const skin = model.skinTriangles, context = canvas.getContext("2d");
    const x = new Float64Array(LANDMARKS), y = new Float64Array(LANDMARKS);
    const outline = (numbers) => {
      context.beginPath();
      for (const l of numbers) context.lineTo(x[l], y[l]);
      context.closePath();
    };
    return (points, colour, paper) => {
      const size = canvas.width, side = Math.min(size, canvas.height);
      for (let l = 0; l < LANDMARKS; l++) {
        x[l] = size / 2 + points[3 * l] * FACE * side;
        y[l] = canvas.height / 2 - points[3 * l + 1] * FACE * side;
      }
      context.clearRect(0, 0, size, canvas.height);
      const seen = [];
      for (let k = 0; k < skin.length; k += 3) {
        const [a, b, c] = [skin[k], skin[k + 1], skin[k + 2]];
        const area = (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a]);
        if (area < 0) seen.push([points[3 * a + 2] + points[3 * b + 2] + points[3 * c + 2], k]);
      }
      seen.sort((one, other) => one[0] - other[0]);
      const line = mixed(colour, paper, 0.62);
      context.lineWidth = Math.max(1, side / 512);
      context.lineJoin = "round";
      for (const [, k] of seen) {
        const [a, b, c] = [skin[k], skin[k + 1], skin[k + 2]];
        context.fillStyle = mixed(colour, paper, 0.55 - 0.45 * lit(points, a, b, c));
        context.strokeStyle = line;
        outline([a, b, c]);
        context.fill();
        context.stroke();
      }
      features(context, model, outline, x, y, colour, paper, Math.max(1, side / 256));
    };
  }

  function lit(points, a, b, c) {
    const edge = (from, to) => [0, 1, 2].map((i) => points[3 * to + i] - points[3 * from + i]);
    const [u, v] = [edge(a, b), edge(a, c)];
    const normal = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
    return clamp(normal.reduce((sum, n, i) => sum + n * LIGHT[i], 0) / (Math.hypot(...normal) + 1e-12), 0, 1);
  }

  function features(context, model, outline, x, y, colour, paper, stroke) {
    const dark = mixed(colour, [0, 0, 0], 0.55);
    context.fillStyle = mixed(colour, paper, 0.75);
    outline(model.lips[0]);
    context.fill();
    Object.assign(context, {fillStyle: dark, strokeStyle: dark, lineWidth: stroke});
    outline(model.lips[1]);
    context.fill();
    context.stroke();
    model.lids.forEach((lids, eye) => {
      const iris = model.irises[eye], radius =
        iris.slice(1).reduce((sum, l) => sum + Math.hypot(x[l] - x[iris[0]], y[l] - y[iris[0]]), 0) / 4;
      context.save();
      outline(lids);
      context.clip();
      context.fillStyle = "rgb(250 250 250)";
      context.fill();
      context.fillStyle = dark;
      context.beginPath();
      context.arc(x[iris[0]], y[iris[0]], radius, 0, 2 * Math.PI);
      context.fill();
      context.restore();
      outline(lids);
      context.lineWidth = stroke;
      context.stroke();
      context.beginPath();
      for (const l of lids.slice(0, lids.length / 2 + 1)) context.lineTo(x[l], y[l]);
      context.lineWidth = 2 * stroke;
      context.stroke();
    });
    context.fillStyle = dark;
    for (const brow of model.brows) {
      outline(brow);
      context.fill();
    }
  }

  /**
   * A face in a canvas. `draw(motion)` takes a frame of motion (numbers in the codec's units), `drawLandmarks(points)`
   * 478 · 3 numbers in face widths, y up. Frames with a number that is not finite are left out: the face stays as it is.
   * Without a portrait the colours are the canvas' `color` and the page's `--panel`, or those of `look`. `ready` is
   * resolved when the portrait is there; what is drawn before is shown then.
   */
  visavis.avatar = (canvas, puppet, look = {}) => {
    const decode = decoder(puppet), mesh = wireframe(canvas, puppet.model);
    let last = null;
    const colours = () => {
      const style = getComputedStyle(canvas), root = getComputedStyle(document.documentElement);
      return [rgb(look.colour ?? style.color), rgb(look.paper ?? (root.getPropertyValue("--panel") || "#fff"))];
    };
    let [colour, paper] = colours();
    const drawLandmarks = (points) => {
      if (points.length !== LANDMARKS * 3 || !points.every(Number.isFinite)) return false;
      last = points;
      mesh(points, colour, paper);
      return true;
    };
    document.addEventListener("theme", () => {
      [colour, paper] = colours();
      if (last) drawLandmarks(last);
    });
    return {
      ready: Promise.resolve(),
      points: decode,
      drawLandmarks,
      draw: (motion) => motion.every(Number.isFinite) && drawLandmarks(decode(motion)),
    };
  };
})();
