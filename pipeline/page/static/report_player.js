// One clock for everything that plays: films that are kept in step, or none, and then the time goes by itself.
"use strict";

visavis.Player = class {
  static SEEK = 0.15; // seconds apart beyond which a follower jumps; below, it goes faster or slower
  static STEP = 0.006; // apart so little, nothing is done

  /** seconds: how long it is. media: elements that play the same time line; from: where on it they begin. */
  constructor(seconds, media, from = 0) {
    Object.assign(this, {seconds, media: [...media], from, playing: false, rate: 1, watchers: [], apart: 0});
    this.at = 0;
    this.closed = new AbortController(); // of listeners to what outlives the player
    for (const one of this.media) {
      one.preload = "auto";
      one.preservesPitch = true;
      one.addEventListener("error", () => this.lose(one));
      one.addEventListener("loadedmetadata", () => this.place(one));
    }
    this.tick = this.tick.bind(this);
    this.frame = requestAnimationFrame(this.tick);
  }

  /** A film that cannot be played is left alone. */
  lose(one) {
    this.media = this.media.filter((other) => other !== one);
    this.lost?.(one);
  }

  place(one) {
    one.currentTime = this.from + this.at;
  }

  get leader() {
    return this.media.find((one) => one.readyState >= 2 && !one.ended);
  }

  watch(watcher) {
    this.watchers.push(watcher);
    watcher(this.at, this.playing);
  }

  tell() {
    for (const watcher of this.watchers) watcher(this.at, this.playing);
  }

  async play() {
    if (this.at >= this.seconds - 0.02) this.at = 0;
    for (const one of this.media) this.place(one);
    await Promise.all(this.media.map((one) => visavis.Player.settled(one)));
    this.playing = true;
    this.last = performance.now();
    this.jumped = 0;
    await Promise.all(this.media.map((one) => {
      one.playbackRate = this.rate;
      return one.play().catch((error) => { if (error.name === "NotSupportedError") this.lose(one); });
    }));
    this.tell();
  }

  /** Resolves when a film can go on from where it was placed, or after a second. */
  static settled(one) {
    if (one.readyState >= 3 && !one.seeking) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => { if (one.readyState >= 3 && !one.seeking) resolve(); };
      for (const name of ["seeked", "canplay", "canplaythrough"]) one.addEventListener(name, done);
      one.addEventListener("error", resolve);
      setTimeout(resolve, 1000);
    });
  }

  pause() {
    this.playing = false;
    for (const one of this.media) one.pause();
    this.seek(this.at);
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }

  seek(at) {
    this.at = Math.max(0, Math.min(this.seconds, at));
    for (const one of this.media) if (one.readyState >= 1) this.place(one);
    this.jumped = performance.now();
    this.tell();
  }

  setRate(rate) {
    this.rate = rate;
    for (const one of this.media) one.playbackRate = rate;
  }

  tick(now) {
    this.frame = requestAnimationFrame(this.tick);
    if (!this.playing) return;
    const leader = this.leader;
    if (leader && !leader.seeking) this.at = leader.currentTime - this.from;
    else if (!this.media.length) this.at += ((now - this.last) / 1000) * this.rate;
    this.last = now;
    if (leader) this.keepInStep(leader, now);
    const over = this.at >= this.seconds || (this.media.length && this.media.every((one) => one.ended));
    if (over) {
      this.at = this.seconds;
      this.pause();
    }
    this.tell();
  }

  /** Followers go a little faster or slower until they are where the leader is, and jump where that would take long. */
  keepInStep(leader, now) {
    let apart = 0;
    for (const one of this.media) {
      if (one === leader || one.readyState < 2 || one.ended || one.seeking) continue;
      const gap = one.currentTime - leader.currentTime;
      apart = Math.max(apart, Math.abs(gap));
      if (Math.abs(gap) > visavis.Player.SEEK && now - this.jumped > 500) {
        this.jumped = now;
        one.currentTime = leader.currentTime + 0.03 * this.rate;
      } else {
        const wanted = Math.abs(gap) < visavis.Player.STEP ? 1 : 1 - Math.max(-0.4, Math.min(0.4, gap * 4));
        if (Math.abs(one.playbackRate - this.rate * wanted) > 0.005) one.playbackRate = this.rate * wanted;
      }
      if (one.paused) one.play().catch(() => {});
    }
    this.apart = apart;
  }

  close() {
    cancelAnimationFrame(this.frame);
    this.closed.abort();
    this.watchers = [];
    this.playing = false;
    for (const one of this.media) {
      one.pause();
      one.removeAttribute("src");
      one.load();
    }
  }

  /** Buttons and keys. place: where keys are heard. */
  controls(place) {
    const button = visavis.el("button", {type: "button", class: "play", onclick: () => this.toggle()}, "▶ Play");
    const where = visavis.el("output", {class: "where"});
    const rate = visavis.el("select", {"aria-label": "Speed", onchange: () => this.setRate(Number(rate.value))}, ...[0.25, 0.5, 1, 1.5, 2].map((r) => visavis.el("option", {value: r, selected: r === 1}, `${r}×`)));
    this.watch((at, playing) => {
      const label = playing ? "❚❚ Pause" : "▶ Play";
      if (button.textContent !== label) button.textContent = label;
      where.textContent = `${visavis.clock(at)} / ${visavis.clock(this.seconds)}`;
    });
    place.addEventListener("keydown", (event) => {
      if (event.target.closest("input, select, textarea") || event.ctrlKey || event.altKey || event.metaKey) return;
      if (event.key === " " && event.target.closest("button, a, summary")) return;
      const frame = 1 / visavis.report.fps, step = {ArrowLeft: -1, ArrowRight: 1, ",": -frame, ".": frame}[event.key];
      if (event.key === " " || event.key === "k") this.toggle();
      else if (step) this.seek(this.at + step * (event.shiftKey ? 5 : 1));
      else if (event.key === "Home") this.seek(0);
      else if (event.key === "End") this.seek(this.seconds);
      else return;
      event.preventDefault();
    }, {signal: this.closed.signal});
    return visavis.el("div", {class: "controls bar"}, button, where, rate, visavis.el("span", {class: "quiet small"}, "space: play · ← →: 1 s, with shift 5 s · , . : one frame · Home, End"));
  }
};
