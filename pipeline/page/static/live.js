// The live page: what camera and microphone give goes to this machine's server, and what comes back is drawn when due.
"use strict";

const live = (() => {
  const config = visavis.data("config");
  const FRAME = 1000 / config.fps, NOT_SPEAKING = -(2 ** 31);
  const HEADER = 16, [PICTURE, SOUND, PING, SPEAK] = [1, 2, 3, 4], [BLOCK, SEEN, PONG] = [1, 2, 3];
  const MARGIN = 5, MOST_LATER = 200; // ms that a block should come before it is due; by which one makes all later
  const LATEST = 20, MOST = 0.75; // blocks by which it is judged when frames are due; how many of them should be in time
  const $ = (id) => document.getElementById(id);
  const latency = new Latency($("strip"), $("parts"));
  let session = null, avatar = null, lastSaved = null;

  const say = (text, bad = false) => {
    $("said").textContent = text;
    $("said").classList.toggle("bad", bad);
  };

  /** A message: kind, number, time since the session began, and what follows. */
  const message = (kind, number, time, payload = new ArrayBuffer(0)) => {
    const made = new Uint8Array(HEADER + payload.byteLength), head = new DataView(made.buffer);
    head.setUint8(0, kind);
    head.setUint32(4, number, true);
    head.setFloat64(8, time, true);
    made.set(new Uint8Array(payload), HEADER);
    return made.buffer;
  };

  class Session {
    constructor(socket) {
      this.socket = socket;
      this.epoch = performance.now();
      this.number = 0;
      this.lag = null; // ms from a frame's time to when it is due
      this.came = []; // of the last blocks, ms from the time of their first frame to when they came
      this.frames = []; // {number, motion, block}, in order
      this.drawn = -1;
      this.pings = []; // [round trip, server's clock − ours], ms
      this.seen = {found: 0, lost: 0, times: []};
      this.skipped = 0;
      this.late = 0;
      this.moved = []; // [frame, when it was drawn, its motion …], for measurements
      this.ended = "";
    }

    now() {
      return performance.now() - this.epoch;
    }

    /** False: the way is full, and it was left out. */
    post(kind, time, payload) {
      if (this.socket.readyState !== WebSocket.OPEN || time < 0) return false;
      if (kind === PICTURE && this.socket.bufferedAmount > 1 << 18) return false;
      this.socket.send(message(kind, this.number++ >>> 0, time, payload));
      return true;
    }

    hear(buffer) {
      const view = new DataView(buffer), kind = view.getUint8(0);
      const count = view.getUint16(2, true), number = view.getUint32(4, true), time = view.getFloat64(8, true);
      if (kind === PONG) this.pong(number, time);
      else if (kind === SEEN) this.saw(time, view.getFloat32(20, true), count ? new Float32Array(buffer, 24) : null);
      else if (kind === BLOCK) this.block(buffer, view, count, number, time);
    }

    ping() {
      const began = this.now();
      this.asked = [this.number, began];
      this.post(PING, began);
    }

    pong(number, server) {
      if (this.asked?.[0] !== number) return;
      const [, began] = this.asked, ended = this.now();
      this.pings = [...this.pings.slice(-20), [ended - began, server - (began + ended) / 2]];
    }

    /** A time of the server's clock on ours. */
    ours(server) {
      const best = this.pings.reduce((a, b) => (b[0] < a[0] ? b : a), [Infinity, NaN]);
      return server - best[1];
    }

    saw(time, level, points) {
      this.seen.times = [...this.seen.times.slice(-60), performance.now()];
      this.seen[points ? "found" : "lost"]++;
      this.seen.points = points;
      this.seen.changed = true;
      this.seen.level = level;
    }

    block(buffer, view, count, first, captured) {
      const got = this.now();
      const [received, seen, , done] = [0, 1, 2, 3, 4].map((i) => this.ours(view.getFloat64(HEADER + 8 * i, true)));
      const speech = view.getInt32(HEADER + 40, true);
      this.skipped = view.getInt32(HEADER + 44, true);
      const block = {first, captured, received, seen, done, got};
      this.wait(got - first * FRAME, speech !== NOT_SPEAKING);
      const motion = new Float32Array(buffer, HEADER + 48), size = motion.length / count;
      for (let i = 0; i < count; i++) {
        this.frames.push({number: first + i, motion: motion.subarray(i * size, (i + 1) * size), block: i === 0 ? block : null});
      }
      if (speech !== NOT_SPEAKING) this.play(first, count, speech);
    }

    /**
     * How long after its time a frame is due, after a block that came so long after its own: what most of the last
     * blocks needed. Those that came later begin in their middle; while sound is heard, all wait for the latest, and
     * nothing is drawn earlier.
     */
    wait(came, speaking) {
      const early = this.lag === null ? 0 : this.lag - came;
      this.late += early < 0;
      this.came = [...this.came.slice(1 - LATEST), came];
      const sorted = this.came.toSorted((a, b) => a - b), most = sorted[Math.floor(MOST * (sorted.length - 1))];
      const wanted = (speaking ? Math.max(came, most) : most) + MARGIN;
      if (this.lag === null) this.lag = wanted;
      else if (this.lag < wanted) this.lag = Math.min(wanted, this.lag + MOST_LATER); // a stall passes
      else if (!speaking) this.lag = Math.max(wanted, this.lag - FRAME / 2);
    }

    /** Perf time at which a frame is due. */
    due(number) {
      return this.epoch + number * FRAME + this.lag;
    }

    /** The avatar's own sound of a block, heard when the block is seen. */
    play(first, count, sample) {
      if (!avatar?.speech || !this.audio) return;
      const {contextTime, performanceTime} = this.audio.getOutputTimestamp();
      const base = performanceTime ? contextTime - performanceTime / 1000 : this.audio.currentTime - performance.now() / 1000;
      let offset = sample / config.sampleRate, when = base + this.due(first) / 1000, length = count / config.fps;
      if (offset < 0) [when, length, offset] = [when - offset, length + offset, 0];
      const source = this.audio.createBufferSource();
      source.buffer = avatar.speech;
      source.connect(this.audio.destination);
      source.start(Math.max(0, when), offset, length);
    }

    /** The newest frame that is due, or null where that is drawn already. */
    next() {
      const now = performance.now();
      let found = null;
      while (this.frames.length && this.due(this.frames[0].number) <= now) {
        const frame = this.frames.shift();
        found = {...frame, block: frame.block ?? found?.block ?? null};
      }
      return found;
    }
  }

  /** Draws when something is due: asking sixty times a second takes a quarter of a core where there is no GPU. */
  const beat = () => {
    if (!session) return;
    const wait = session.frames.length ? session.due(session.frames[0].number) - performance.now() : FRAME / 4;
    if (wait > 2) setTimeout(beat, wait - 1);
    else requestAnimationFrame(() => {
      draw();
      beat();
    });
  };

  const draw = () => {
    const frame = session?.next();
    if (!frame) return;
    avatar.draw(frame.motion);
    session.drawn = frame.number;
    const at = session.now();
    session.moved.push([frame.number, at, ...frame.motion]);
    if (session.moved.length > 20000) session.moved.shift();
    if (frame.block) latency.add(frame.block, at, FRAME, config.block, config.ahead);
    if (frame.number % 4 === 0) you(); // with some of its frames, so that both are shown at once
  };

  const you = () => {
    if (!session?.seen.changed) return;
    session.seen.changed = false;
    liveDraw.face($("you"), session.seen.points, liveDraw.colour("--user"));
  };

  const signs = () => {
    if (!session) return;
    session.ping();
    if (session.drawn < 0) you(); // until the avatar moves
    const {seen} = session, counts = session.counts ?? {dropped: 0};
    const found = latency.show(), now = performance.now();
    const rate = seen.times.filter((time) => time > now - 2000).length / 2;
    $("face").textContent = !seen.times.length ? "–" : seen.points ? "found" : "not found";
    $("level").value = Math.min(1, Math.sqrt(seen.level ?? 0) * 1.5);
    $("rate").textContent = rate.toFixed(0);
    $("dropped").textContent = String(session.left = Math.max(0, counts.taken + counts.dropped - seen.found - seen.lost));
    $("skipped").textContent = String(session.skipped / config.block);
    $("median").textContent = found.blocks ? `${found.median.toFixed(0)} ms, 95 % within ${found.p95.toFixed(0)} ms` : "–";
    judge(rate, found);
  };

  /** What a person should know of how it goes. */
  const judge = (rate, found) => {
    if (document.hidden) return;
    const age = session.now();
    if (age < 4000) return;
    const blocks = Math.max(1, Math.floor(age / (config.block * FRAME)));
    const left = session.skipped / config.block;
    if (!session.seen.times.length && session.camera) say("The camera gives no pictures.", true);
    else if (left / blocks > 0.05) say(`This machine is too slow for this model: ${left} of ${blocks} blocks were left out. The avatar pauses then; it does not fall behind.`, true);
    else if (session.camera && rate < 12) say(`This machine looks at ${rate.toFixed(0)} pictures a second; below 12, nods get lost. Close what else is running.`, true);
    else if (found.blocks && found.median > 1000) say(`A reaction takes ${(found.median / 1000).toFixed(1)} s here: this machine is slow for this model.`, true);
    else if (session.camera && !session.seen.points) say("No face is seen: sit in front of the camera, with light on your face.", true);
    else say(session.note || "Talk to it. Nothing leaves this machine.");
  };

  const begin = async () => {
    $("start").disabled = true;
    say("Waiting for camera and microphone …");
    const devices = await liveCapture.devices(config.speaks > 0);
    if (!devices.camera && !devices.microphone) {
      say(devices.said, true);
      $("start").disabled = false;
      return;
    }
    const place = new URL("session", location.href);
    place.protocol = "ws:";
    const socket = new WebSocket(place);
    socket.binaryType = "arraybuffer";
    const mine = new Session(socket);
    mine.devices = [devices.camera, devices.microphone].filter(Boolean);
    socket.onmessage = ({data}) => mine.hear(data);
    socket.onclose = ({code, reason}) => end(mine, code === 1013 ? "Somebody else is talking to it: close the other page first."
      : code === 1000 || code === 1005 ? "" : `The server ended the session (${reason || `code ${code}`}).`);
    socket.onopen = async () => {
      session = mine;
      latency.all.length = 0;
      mine.epoch = performance.now();
      mine.camera = !!devices.camera;
      mine.note = devices.said && `${devices.said} It goes on without.`;
      for (let i = 0; i < 5; i++) setTimeout(() => mine.ping(), 40 * i);
      if (devices.camera) {
        mine.counts = liveCapture.pictures(devices.camera, $("camera"), (time, jpeg) => mine.post(PICTURE, time - mine.epoch, jpeg));
      }
      if (devices.microphone) {
        mine.audio = await liveCapture.sound(devices.microphone, (time, buffer) => mine.post(SOUND, time - mine.epoch, buffer));
      }
      if (config.speaks) {
        mine.audio ??= new AudioContext();
        avatar.speech ??= await mine.audio.decodeAudioData(await (await fetch("speech.wav")).arrayBuffer());
      }
      mine.beat = setInterval(signs, 500);
      $("stop").disabled = $("save").disabled = $("speak").disabled = false;
      say(mine.note || "Look into the camera: your face at rest is being learned.");
      beat();
    };
  };

  const end = (ended, why) => {
    if (ended.over) return;
    ended.over = true;
    clearInterval(ended.beat);
    ended.counts?.stop();
    for (const stream of ended.devices) stream.getTracks().forEach((track) => track.stop());
    ended.audio?.close();
    if (ended.socket.readyState === WebSocket.OPEN) ended.socket.close(1000);
    if (session === ended) [session, lastSaved] = [null, measurements(ended)];
    $("start").disabled = false;
    $("stop").disabled = $("speak").disabled = true;
    $("face").textContent = "–";
    avatar.draw(config.rest);
    liveDraw.face($("you"), null);
    say(why || "Ended. Camera and microphone are off.", !!why);
  };

  /** All that was measured, as plain data. */
  const measurements = (of = session) => of && {
    seconds: of.now() / 1000,
    fps: config.fps, block: config.block, ahead: config.ahead,
    latency: latency.summary(latency.all),
    blocks: latency.all,
    pictures: {found: of.seen.found, lost: of.seen.lost, taken: of.counts?.taken, leftOut: of.left},
    blocksLeftOut: of.skipped / config.block, blocksLate: of.late,
    moved: of.moved,
    agent: navigator.userAgent,
  };

  const save = () => {
    const text = JSON.stringify(measurements() ?? lastSaved);
    const link = visavis.el("a", {href: URL.createObjectURL(new Blob([text], {type: "application/json"})), download: "visavis-live.json"});
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };

  const setUp = async () => {
    avatar = visavis.avatar($("avatar"), config.puppet);
    await avatar.ready;
    avatar.draw(config.rest);
    liveDraw.face($("you"), null);
    latency.show();
    $("speak").hidden = !config.speaks;
    $("start").addEventListener("click", begin);
    $("stop").addEventListener("click", () => session && end(session, ""));
    $("speak").addEventListener("click", () => session?.post(SPEAK, session.now()));
    $("save").addEventListener("click", save);
    document.addEventListener("visibilitychange", () => {
      if (session && document.hidden) say("This tab is hidden: browsers stop the camera's pictures then.", true);
    });
    document.addEventListener("theme", () => {
      latency.show();
      if (!session) liveDraw.face($("you"), null);
    });
  };
  setUp();

  return {measurements: () => measurements() ?? lastSaved, running: () => session !== null, epoch: () => session?.epoch};
})();
