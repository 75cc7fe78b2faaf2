// A picture of time: lanes beneath each other, one position through all; click or keys to go there.
"use strict";

visavis.Timeline = class {
  static LABEL = 92; // pixels on the left

  /**
   * lanes: [{label, colour, height, draw(context, x, left, right, top, height)}], where x(seconds) is a place, and [left,
   * right] the seconds in view. player: whose position it shows and sets.
   */
  constructor(lanes, player, label) {
    Object.assign(this, {lanes, player, left: 0, right: player.seconds});
    const height = 20 + lanes.reduce((sum, lane) => sum + lane.height + 6, 0);
    this.canvas = visavis.canvas(label, height, (context, width) => this.draw(context, width), {
      role: "slider", tabindex: "0", "aria-valuemin": "0", "aria-valuemax": player.seconds.toFixed(2),
    });
    this.canvas.classList.add("timeline");
    const go = (event) => {
      const place = (event.offsetX - visavis.Timeline.LABEL) / (this.canvas.clientWidth - visavis.Timeline.LABEL);
      player.seek(this.left + Math.max(0, Math.min(1, place)) * (this.right - this.left));
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      this.canvas.setPointerCapture(event.pointerId);
      go(event);
    });
    this.canvas.addEventListener("pointermove", (event) => event.buttons & 1 && go(event));
    player.watch((at) => {
      this.canvas.setAttribute("aria-valuenow", at.toFixed(2));
      this.canvas.setAttribute("aria-valuetext", visavis.clock(at));
      if (this.span && (at < this.left || at > this.right)) this.view(this.span, at);
      this.canvas.redraw();
    });
  }

  /** Shows so many seconds around a moment; 0: all. */
  view(span, at = this.player.at) {
    this.span = span;
    if (!span || span >= this.player.seconds) [this.left, this.right] = [0, this.player.seconds];
    else {
      this.left = Math.max(0, Math.min(this.player.seconds - span, at - span * 0.1));
      this.right = this.left + span;
    }
    this.canvas.redraw();
  }

  zoom() {
    const spans = [0, 60, 20, 5].filter((span) => span < this.player.seconds);
    if (spans.length < 2) return "";
    const select = visavis.el("select", {onchange: () => this.view(Number(select.value))}, ...spans.map((span) => visavis.el("option", {value: span}, span ? `${span} s` : "all")));
    return visavis.el("label", {class: "controls"}, "In view ", select);
  }

  draw(context, width) {
    const {LABEL} = visavis.Timeline, x = (seconds) => LABEL + ((seconds - this.left) / (this.right - this.left)) * (width - LABEL);
    let top = 0;
    for (const lane of this.lanes) {
      context.fillStyle = visavis.colour("panel");
      context.fillRect(LABEL, top, width - LABEL, lane.height);
      context.save();
      context.beginPath();
      context.rect(LABEL, top, width - LABEL, lane.height);
      context.clip();
      lane.draw(context, x, this.left, this.right, top, lane.height);
      context.restore();
      context.fillStyle = visavis.colour(lane.colour ?? "quiet");
      context.font = "12px system-ui, sans-serif";
      context.textAlign = "left";
      context.textBaseline = "middle";
      context.fillText(lane.label, 0, top + lane.height / 2, LABEL - 8);
      top += lane.height + 6;
    }
    this.ruler(context, x, top);
    context.fillStyle = visavis.colour("ink");
    context.fillRect(x(this.player.at) - 0.75, 0, 1.5, top);
  }

  ruler(context, x, top) {
    const step = [0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 600, 1800, 3600].find((s) => x(s) - x(0) >= 56) ?? 7200;
    context.fillStyle = visavis.colour("quiet");
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "top";
    context.textAlign = "left";
    for (let n = Math.ceil(this.left / step); n * step <= this.right; n++) {
      const text = visavis.clock(n * step).replace(/\.00$/, "").replace(/(\.\d)0$/, "$1");
      if (x(n * step) > x(this.right) - 34) break;
      context.fillRect(x(n * step), top, 1, 4);
      context.fillText(text, x(n * step) + 3, top + 3);
    }
  }
};

visavis.lanes = {
  /** Loudness, one value for each frame. */
  wave: (label, peaks, colour, {fps} = visavis.report) => ({label, colour, height: 44, draw(context, x, left, right, top, height) {
    context.fillStyle = visavis.colour(colour);
    const first = Math.max(0, Math.floor(left * fps)), last = Math.min(peaks.length, Math.ceil(right * fps));
    const wide = Math.max(1, x(1 / fps) - x(0)), each = Math.max(1, Math.floor(1 / (x(1 / fps) - x(0))));
    for (let n = first; n < last; n += each) {
      let peak = 0;
      for (let k = n; k < Math.min(last, n + each); k++) peak = Math.max(peak, peaks[k]);
      const tall = Math.max(1, (peak / 255) * (height - 4));
      context.fillRect(x(n / fps), top + (height - tall) / 2, Math.max(0.8, wide - 0.4), tall);
    }
  }}),

  /** Spans [start, end, colour, share of the height, text]. */
  spans: (label, spans, height = 14, colour) => ({label, colour, height, draw(context, x, left, right, top, tall) {
    context.textBaseline = "middle";
    context.textAlign = "left";
    for (const [start, end, colour, share = 1, text = ""] of spans) {
      if (end < left || start > right) continue;
      context.fillStyle = visavis.colour(colour);
      context.fillRect(x(start), top + (tall * (1 - share)) / 2, Math.max(1, x(end) - x(start) - 0.5), tall * share);
      if (text) {
        context.fillStyle = visavis.colour("ink");
        context.font = "12px system-ui, sans-serif";
        context.save();
        context.beginPath();
        context.rect(x(start), top, Math.max(0, x(end) - x(start)), tall);
        context.clip();
        context.fillText(text, x(start) + 2, top + tall / 2);
        context.restore();
      }
    }
  }}),
};
