// Motion as a face, in a canvas: the same as pipeline/view/avatar.py draws. A puppet is what `puppet_json` gives.
"use strict";

(() => {
  const POSE = 6, LANDMARKS = 478, SKIN = 468, SHARPEST = 512, JUMP = 3, FACE = 0.6, WIDEST = 4, SHADES = 64;
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
    const steepest = face.portrait ? model.steepest : 1e6;
    return (motion) => {
      cm.set(base);
      for (let e = 0; e * size < basis.length; e++) {
        const much = motion[POSE + e];
        if (much) for (let k = 0, at = e * size; k < size; k++) cm[k] += much * basis[at + k];
      }
      const scale = Math.exp(clamp(motion[5] - face.start[2], -8, 8)) / model.width;
      const [pitch, yaw, roll] = [0, 1, 2].map((i) => clamp(motion[i], -steepest, steepest));
      const r = rotation(pitch, yaw, roll, face.turn).map((x) => x * scale);
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
      context.lineWidth = Math.max(1, side / 512);
      context.lineJoin = "round";
      const order = inOrder(skin, points, (l) => x[l], (l) => y[l]);
      const shades = Array.from({length: SHADES}, (_, n) => mixed(colour, paper, 0.55 - (0.45 * n) / (SHADES - 1)));
      for (const k of order) {
        const [a, b, c] = [skin[k], skin[k + 1], skin[k + 2]];
        context.fillStyle = shades[Math.round(lit(points, a, b, c) * (SHADES - 1))];
        outline([a, b, c]);
        context.fill();
      }
      context.strokeStyle = mixed(colour, paper, 0.62);
      context.beginPath(); // all lines at once: one by one they take three times as long
      for (const k of order) {
        context.moveTo(x[skin[k]], y[skin[k]]);
        for (const l of [skin[k + 1], skin[k + 2], skin[k]]) context.lineTo(x[l], y[l]);
      }
      context.stroke();
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

  const distance = (xy, a, b) => Math.hypot(xy[2 * a] - xy[2 * b], xy[2 * a + 1] - xy[2 * b + 1]);

  /** Where the vertices of a portrait are and what they show, as `Rig.placed` in pipeline/view/rig.py has it. */
  function rig(model, {still, rest, ring, weight, fit, ...portrait}) {
    [still, rest, ring, weight, fit] = [still, rest, ring, weight, fit].map(rows);
    const {skull, origin, unit, limits} = portrait, N = skull.length, rings = weight.length, count = SKIN + rings;
    const holes = model.holes.map(([top, bottom, iris]) => ({top, bottom, iris, all: [...top, ...bottom.slice(1, -1)]}));
    const total = count + holes.reduce((sum, hole) => sum + hole.all.length, 0);
    const places = new Float64Array(2 * total), shown = new Float64Array(2 * total), seen = new Float64Array(2 * LANDMARKS);
    const restSeen = new Float64Array(2 * LANDMARKS), points = new Float64Array(3 * LANDMARKS);
    const look = (from, to, n) => {
      for (let l = 0; l < n; l++) {
        to[2 * l] = origin[0] + from[3 * l] * unit;
        to[2 * l + 1] = origin[1] - from[3 * l + 1] * unit;
      }
    };
    look(rest, restSeen, LANDMARKS);
    shown.set(still);
    const mean = (from) => [0, 1, 2].map((i) => skull.reduce((sum, l) => sum + from[3 * l + i], 0) / N);
    const spread = (from, middle) =>
      Math.sqrt(skull.reduce((sum, l) => sum + [0, 1, 2].reduce((s, i) => s + (from[3 * l + i] - middle[i]) ** 2, 0), 0));
    const restMiddle = mean(rest), restSpread = spread(rest, restMiddle);

    /** The face, no further from its place and no larger or smaller than the picture can carry. */
    function within(given) {
      const middle = mean(given), size = spread(given, middle) / restSpread;
      const scale = clamp(size, limits.smallest, limits.largest) / Math.max(size, 1e-9);
      const dx = middle[0] - restMiddle[0], dy = middle[1] - restMiddle[1], far = Math.hypot(dx, dy) / limits.furthest;
      const share = far > 1e-9 ? Math.tanh(far) / far : 1;
      const place = [restMiddle[0] + dx * share, restMiddle[1] + dy * share, middle[2]];
      for (let k = 0; k < points.length; k++) points[k] = (given[k] - middle[k % 3]) * scale + place[k % 3];
    }

    function placeRings() {
      const head = [0, 1, 2, 3].map((row) => [0, 1].map((i) =>
        skull.reduce((sum, l, n) => sum + fit[row * N + n] * points[3 * l + i], 0)));
      for (let n = 0; n < rings; n++) {
        const [x, y] = [0, 1].map((i) =>
          ring[3 * n] * head[0][i] + ring[3 * n + 1] * head[1][i] + ring[3 * n + 2] * head[2][i] + head[3][i]);
        const at = 2 * (SKIN + n), w = weight[n];
        places[at] = still[at] * (1 - w) + (origin[0] + x * unit) * w;
        places[at + 1] = still[at + 1] * (1 - w) + (origin[1] - y * unit) * w;
      }
    }

    /** The eyeball keeps its place between the corners; lids that open wider than in the picture stretch it. */
    function eye({top, bottom, iris}, at) {
      const [first, last] = [top[0], top[top.length - 1]], ax = restSeen[2 * last] - restSeen[2 * first];
      const ay = restSeen[2 * last + 1] - restSeen[2 * first + 1];
      const sx = seen[2 * last] - seen[2 * first], sy = seen[2 * last + 1] - seen[2 * first + 1], s2 = sx * sx + sy * sy;
      const re = s2 > 1e-12 ? (ax * sx + ay * sy) / s2 : 0, im = s2 > 1e-12 ? (ay * sx - ax * sy) / s2 : 0;
      const back = (l) => {
        const x = seen[2 * l] - seen[2 * first], y = seen[2 * l + 1] - seen[2 * first + 1];
        return [restSeen[2 * first] + re * x - im * y, restSeen[2 * first + 1] + re * y + im * x];
      };
      const [ix, iy] = back(iris), gx = ix - restSeen[2 * iris], gy = iy - restSeen[2 * iris + 1];
      const gaze = clamp((gx * ax + gy * ay) / Math.max(ax * ax + ay * ay, 1e-12), -limits.gaze, limits.gaze);
      for (let i = 0; i < top.length; i++) {
        const [u, l] = [top[i], bottom[i]], dx = restSeen[2 * l] - restSeen[2 * u];
        const dy = restSeen[2 * l + 1] - restSeen[2 * u + 1];
        const along = ([x, y]) => clamp(((x - restSeen[2 * u]) * dx + (y - restSeen[2 * u + 1]) * dy) /
          Math.max(dx * dx + dy * dy, 1e-12), 0, 1);
        const a = along(back(u)), b = Math.max(a, along(back(l))), side = gaze * Math.sin((Math.PI * i) / (top.length - 1));
        const show = (k, share) => {
          shown[2 * (at + k)] = restSeen[2 * u] + share * dx - side * ax;
          shown[2 * (at + k) + 1] = restSeen[2 * u + 1] + share * dy - side * ay;
        };
        show(i, a);
        if (i > 0 && i < top.length - 1) show(top.length - 1 + i, b);
      }
    }

    /** Teeth hang with the upper lip. */
    function mouth({top, bottom}, at) {
      for (let i = 0; i < top.length; i++) {
        const [u, l] = [top[i], bottom[i]], gap = distance(seen, u, l);
        const inPicture = Math.max(distance(restSeen, u, l), 1e-6);
        const show = (k, share) => {
          shown[2 * (at + k)] = portrait.open ? restSeen[2 * u] + share * (restSeen[2 * l] - restSeen[2 * u]) : i / (top.length - 1);
          shown[2 * (at + k) + 1] = portrait.open ? restSeen[2 * u + 1] + share * (restSeen[2 * l + 1] - restSeen[2 * u + 1]) : share;
        };
        show(i, 0);
        const down = Math.min(gap / (portrait.open ? inPicture : limits.deepest * unit), 1);
        if (i > 0 && i < top.length - 1) show(top.length - 1 + i, down);
      }
    }

    return (given) => {
      within(given);
      look(points, seen, LANDMARKS);
      places.set(seen.subarray(0, 2 * SKIN));
      placeRings();
      let at = count;
      for (const hole of holes) {
        hole.all.forEach((l, k) => places.set([seen[2 * l], seen[2 * l + 1]], 2 * (at + k)));
        (hole.iris ? eye : mouth)(hole, at);
        at += hole.all.length;
      }
      return {places, shown, mouthAt: at - holes[2].all.length};
    };
  }

  /** One triangle of `texture` in `picture`, both {data, width, height} of RGBA; corners in pixels, the first's
   * middle at 0. `picture.maps` keeps which place of the texture each pixel shows. */
  function paint(picture, texture, p, q) {
    const [ax, ay, bx, by, cx, cy] = p, area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
    if (Math.abs(area) <= 0.05) return;
    const slope = (a, b, c) => [((b - a) * (cy - ay) - (c - a) * (by - ay)) / area, ((c - a) * (bx - ax) - (b - a) * (cx - ax)) / area];
    const [ux, uy] = slope(q[0], q[2], q[4]), [vx, vy] = slope(q[1], q[3], q[5]);
    const low = Math.max(Math.ceil(Math.min(ay, by, cy) - 0.5), 0), {data, width, maps} = picture, from = texture.data;
    const high = Math.min(Math.floor(Math.max(ay, by, cy) + 0.5), picture.height - 1), wide = texture.width;
    const mostX = wide - 1.001, mostY = texture.height - 1.001;
    for (let y = low; y <= high; y++) {
      let left = Infinity, right = -Infinity;
      for (let e = 0; e < 6; e += 2) {
        const to = e === 4 ? 0 : e + 2, y0 = p[e + 1], y1 = p[to + 1];
        const middle = y0 < y1 ? clamp(y, y0, y1) : clamp(y, y1, y0);
        if (Math.abs(y - middle) > 0.5) continue;
        const x0 = p[e], x1 = p[to], x = y1 === y0 ? x1 : x0 + ((middle - y0) / (y1 - y0)) * (x1 - x0);
        if (x < left) left = x;
        if (x > right) right = x;
        if (y1 === y0 && x0 < left) left = x0;
        if (y1 === y0 && x0 > right) right = x0;
      }
      const start = Math.max(Math.ceil(left - 0.5), 0), end = Math.min(Math.floor(right + 0.5), width - 1);
      let u = q[0] + (start - ax) * ux + (y - ay) * uy, v = q[1] + (start - ax) * vx + (y - ay) * vy;
      for (let x = start, to = 4 * (y * width + start); x <= end; x++, to += 4, u += ux, v += vx) {
        const cu = u < 0 ? 0 : u > mostX ? mostX : u, cv = v < 0 ? 0 : v > mostY ? mostY : v;
        const iu = cu | 0, iv = cv | 0, fu = cu - iu, fv = cv - iv, at = 4 * (iv * wide + iu), under = at + 4 * wide;
        const w11 = fu * fv, w10 = fv - w11, w01 = fu - w11, w00 = 1 - fu - w10;
        maps[to >> 1] = u;
        maps[(to >> 1) + 1] = v;
        data[to] = w00 * from[at] + w01 * from[at + 4] + w10 * from[under] + w11 * from[under + 4];
        data[to + 1] = w00 * from[at + 1] + w01 * from[at + 5] + w10 * from[under + 1] + w11 * from[under + 5];
        data[to + 2] = w00 * from[at + 2] + w01 * from[at + 6] + w10 * from[under + 2] + w11 * from[under + 6];
      }
    }
  }

  /** Edges that lie over something, where the texture goes on elsewhere from one pixel to the next: they are smoothed. */
  function smooth({data, width, height, maps}) {
    const marks = new Uint8Array(width * height), edges = [];
    const jumps = (a, b) => {
      const u = maps[2 * a] - maps[2 * b], v = maps[2 * a + 1] - maps[2 * b + 1];
      if (u < JUMP && u > -JUMP && v < JUMP && v > -JUMP) return;
      marks[a] = marks[b] = 1;
    };
    for (let at = width + 1; at < marks.length; at++) {
      jumps(at, at - 1);
      jumps(at, at - width);
    }
    for (let y = 1; y < height - 1; y++) {
      for (let at = y * width + 1, end = at + width - 2; at < end; at++) if (marks[at]) edges.push(4 * at);
    }
    const r = 4 * width, soft = (at) => (4 * data[at] + 2 * (data[at - 4] + data[at + 4] + data[at - r] + data[at + r]) +
      data[at - r - 4] + data[at - r + 4] + data[at + r - 4] + data[at + r + 4]) / 16;
    const values = edges.flatMap((at) => [soft(at), soft(at + 1), soft(at + 2)]);
    edges.forEach((at, i) => data.set(values.slice(3 * i, 3 * i + 3), at));
  }

  /** A portrait's picture of `side` pixels, moved to `points` each time it is called. */
  function portraitDrawing(canvas, model, portrait, side, picture, mouth) {
    const shape = (width, height) => Object.assign(document.createElement("canvas"), {width, height});
    const screen = shape(side, side).getContext("2d"), high = side + 2 + mouth.height;
    const sheet = shape(Math.max(side, mouth.width), high).getContext("2d", {willReadFrequently: true});
    sheet.imageSmoothingQuality = "high";
    sheet.drawImage(picture, 0, 0, side, side);
    const still = sheet.getImageData(0, 0, side, side), drawn = screen.createImageData(side, side);
    sheet.drawImage(sheet.canvas, 0, side - 1, side, 1, 0, side, side, 1);
    sheet.drawImage(mouth, 0, side + 2);
    sheet.drawImage(mouth, 0, 0, mouth.width, 1, 0, side + 1, mouth.width, 1);
    const texture = sheet.getImageData(0, 0, sheet.canvas.width, high), place = rig(model, portrait);
    const [ringed, eyes, inside, skin] = [model.rings, model.eyes, model.mouth, model.skin].map(integers);
    const p = new Float64Array(6), q = new Float64Array(6), screenful = new Float32Array(2 * side * side);
    for (let k = 0; k < side * side; k++) screenful.set([k % side, Math.floor(k / side)], 2 * k);
    const target = {data: drawn.data, width: side, height: side, maps: new Float32Array(2 * side * side)};
    return (points) => {
      const {places, shown, mouthAt} = place(points);
      drawn.data.set(still.data);
      target.maps.set(screenful);
      const triangle = (numbers, k) => {
        for (let i = 0; i < 3; i++) {
          const l = numbers[k + i], painted = l >= mouthAt && !portrait.open;
          p[2 * i] = places[2 * l] * side - 0.5;
          p[2 * i + 1] = places[2 * l + 1] * side - 0.5;
          q[2 * i] = painted ? shown[2 * l] * (mouth.width - 1) : shown[2 * l] * side - 0.5;
          q[2 * i + 1] = painted ? shown[2 * l + 1] * (mouth.height - 1) + side + 2 : shown[2 * l + 1] * side - 0.5;
        }
        paint(target, texture, p, q);
      };
      for (const part of [ringed, inside, eyes]) for (let k = 0; k < part.length; k += 3) triangle(part, k);
      for (const k of inOrder(skin, points, (l) => places[2 * l], (l) => places[2 * l + 1])) triangle(skin, k);
      smooth(target);
      screen.putImageData(drawn, 0, 0);
      const context = canvas.getContext("2d"), size = Math.min(canvas.width, canvas.height);
      context.imageSmoothingQuality = "high";
      context.drawImage(screen.canvas, (canvas.width - size) / 2, (canvas.height - size) / 2, size, size);
    };
  }

  /** The triangles that look at the viewer, the furthest first: where they begin in `skin`. */
  function inOrder(skin, points, x, y) {
    const seen = [], depth = new Float64Array(skin.length);
    for (let k = 0; k < skin.length; k += 3) {
      const [a, b, c] = [skin[k], skin[k + 1], skin[k + 2]];
      if ((x(b) - x(a)) * (y(c) - y(a)) - (y(b) - y(a)) * (x(c) - x(a)) >= 0) continue;
      depth[k] = points[3 * a + 2] + points[3 * b + 2] + points[3 * c + 2];
      seen.push(k);
    }
    return seen.sort((one, other) => depth[one] - depth[other]);
  }

  async function image(address) {
    const made = new Image();
    made.src = address;
    await made.decode();
    return made;
  }

  /**
   * A face in a canvas. `draw(motion)` takes a frame of motion (numbers in the codec's units), `drawLandmarks(points)`
   * 478 · 3 numbers in face widths, y up. Frames with a number that is not finite are left out: the face stays as it is.
   * Without a portrait the colours are the canvas' `color` and the page's `--panel`, or those of `look`; `recolour()` where
   * that has changed. `ready` is resolved when the portrait is there; what is drawn before is shown then. When `signal`
   * is aborted, the page's theme moves it no longer.
   */
  visavis.avatar = (canvas, puppet, look = {}, signal) => {
    const {model, face: {portrait}} = puppet, decode = decoder(puppet);
    let show = null, last = null, recolour = () => {};
    const colours = () => {
      const style = getComputedStyle(canvas), root = getComputedStyle(document.documentElement);
      return [rgb(look.colour ?? style.color), rgb(look.paper ?? (root.getPropertyValue("--panel") || "#fff"))];
    };
    const again = () => last && show?.(last);
    async function prepare() {
      if (portrait) {
        const side = Math.min(canvas.width, canvas.height, SHARPEST);
        show = portraitDrawing(canvas, model, portrait, side, await image(portrait.picture), await image(portrait.mouth));
      } else {
        const mesh = wireframe(canvas, model);
        let [colour, paper] = colours();
        show = (points) => mesh(points, colour, paper);
        recolour = () => { [colour, paper] = colours(); };
        document.addEventListener("theme", () => {
          recolour();
          again();
        }, {signal});
      }
      again();
    }
    const drawLandmarks = (points) => {
      if (points.length !== LANDMARKS * 3 || !points.every(Number.isFinite)) return false;
      last = points;
      show?.(points);
      return true;
    };
    return {
      ready: prepare(),
      points: decode,
      recolour: () => recolour(),
      drawLandmarks,
      draw: (motion) => motion.every(Number.isFinite) && drawLandmarks(decode(motion)),
    };
  };
})();
