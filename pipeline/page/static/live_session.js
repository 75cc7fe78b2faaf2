// A session of the live page: what is said to the server and what comes back, and when each frame of it is due.
"use strict";

const LiveSession = (() => {
  const NOT_SPEAKING = -(2 ** 31);
  const HEADER = 16, [PICTURE, SOUND, PING, SPEAK] = [1, 2, 3, 4], [BLOCK, SEEN, PONG] = [1, 2, 3];
  const MARGIN = 5, MOST_LATER = 200; // ms that a block should come before it is due; by which one makes all later
  const LATEST = 20, MOST = 0.75; // blocks by which it is judged when frames are due; how many of them should be in time

  /** A message: kind, number, time since the session began, and what follows. */
  const message = (kind, number, time, payload = new ArrayBuffer(0)) => {
    const made = new Uint8Array(HEADER + payload.byteLength), head = new DataView(made.buffer);
    head.setUint8(0, kind);
    head.setUint32(4, number, true);
    head.setFloat64(8, time, true);
    made.set(new Uint8Array(payload), HEADER);
    return made.buffer;
  };

  return class {
    static PICTURE = PICTURE;
    static SOUND = SOUND;
    static SPEAK = SPEAK;

    /** config: of the page. speech: the avatar's own sound, once it is known. */
    constructor(socket, config) {
      Object.assign(this, {socket, config, frameMs: 1000 / config.fps, speech: null});
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
      this.wait(got - first * this.frameMs, speech !== NOT_SPEAKING);
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
      else if (!speaking) this.lag = Math.max(wanted, this.lag - this.frameMs / 2);
    }

    /** Perf time at which a frame is due. */
    due(number) {
      return this.epoch + number * this.frameMs + this.lag;
    }

    /** The avatar's own sound of a block, heard when the block is seen. */
    play(first, count, sample) {
      if (!this.speech || !this.audio) return;
      const {contextTime, performanceTime} = this.audio.getOutputTimestamp();
      const base = performanceTime ? contextTime - performanceTime / 1000 : this.audio.currentTime - performance.now() / 1000;
      let offset = sample / this.config.sampleRate, when = base + this.due(first) / 1000, length = count / this.config.fps;
      if (offset < 0) [when, length, offset] = [when - offset, length + offset, 0];
      const source = this.audio.createBufferSource();
      source.buffer = this.speech;
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
  };
})();
