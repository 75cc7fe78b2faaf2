// Two clips in step: the left one has the sound and leads, the right one is muted and follows.
"use strict";

/**
 * Plays two videos of one length in step, again and again.
 * `on.changed()` when it begins or stops, `on.whole()` when both were played to the end, `on.broken()` when one cannot be.
 */
visavis.inStep = (left, right, on) => {
  const player = {playing: false, play, pause};
  let turn = 0; // what was begun before the last press ends in nothing

  const ready = (video) =>
    new Promise((resolve, reject) => {
      const names = ["canplay", "canplaythrough", "seeked", "error"];
      const look = () => {
        const done = video.error || (!video.seeking && video.readyState >= HTMLMediaElement.HAVE_FUTURE_DATA);
        if (!done) return;
        for (const name of names) video.removeEventListener(name, look);
        if (video.error) reject(video.error);
        else resolve();
      };
      for (const name of names) video.addEventListener(name, look);
      look();
    });

  async function play(fromStart) {
    const mine = ++turn;
    player.playing = true;
    on.changed();
    try {
      if (fromStart || left.ended || right.ended) left.currentTime = 0;
      right.currentTime = left.currentTime;
      right.playbackRate = 1;
      await Promise.all([ready(left), ready(right)]);
      if (mine !== turn) return;
      await Promise.all([left.play(), right.play()]);
    } catch (error) {
      if (mine !== turn) return;
      left.pause();
      right.pause();
      player.playing = false;
      // A page that was not clicked on yet may not begin with sound: it waits for the button.
      if (error.name !== "NotAllowedError" && error.name !== "AbortError") on.broken();
    }
    on.changed();
  }

  function pause() {
    turn++;
    player.playing = false;
    left.pause();
    right.pause();
    on.changed();
  }

  setInterval(() => {
    if (!player.playing || left.paused || right.paused || left.seeking || right.seeking) return;
    const ahead = right.currentTime - left.currentTime;
    if (Math.abs(ahead) > 0.3) right.currentTime = left.currentTime;
    else right.playbackRate = Math.abs(ahead) < 0.015 ? 1 : Math.min(2.5, Math.max(0.4, 1 - 8 * ahead));
  }, 40);

  left.addEventListener("ended", () => {
    if (!player.playing) return;
    right.pause();
    player.playing = false;
    on.whole();
    on.changed();
    const mine = ++turn;
    setTimeout(() => mine === turn && play(true), 700);
  });

  return player;
};
