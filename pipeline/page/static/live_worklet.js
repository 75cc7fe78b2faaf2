// The microphone's sound at 16 kHz in pieces of 20 ms, each with the context's time of its first sample.
"use strict";

const RATE = 16000, PIECE = 320;

class Pieces extends AudioWorkletProcessor {
  constructor() {
    super();
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
    this.began = 0; // context time of the piece's first sample, s
    this.step = sampleRate / RATE;
    this.taken = 0; // input samples in the mean that is being made
    this.sum = 0;
    this.left = this.step; // of input samples until the next one of ours ends
  }

  push(value, time) {
    if (this.filled === 0) this.began = time;
    this.piece[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(value * 32767)));
    if (this.filled < PIECE) return;
    this.port.postMessage({began: this.began, now: currentTime, samples: this.piece.buffer}, [this.piece.buffer]);
    this.piece = new Int16Array(PIECE);
    this.filled = 0;
  }

  process([input]) {
    const heard = input[0];
    if (!heard) return true; // a gap; the time stamps tell
    for (let i = 0; i < heard.length; i++) {
      const time = currentTime + i / sampleRate;
      if (this.step === 1) {
        this.push(heard[i], time);
        continue;
      }
      // Each of our samples is the mean of the context's samples that it covers.
      const part = Math.min(1, this.left);
      this.sum += part * heard[i];
      this.left -= part;
      if (this.left <= 1e-9) {
        this.push(this.sum / this.step, time);
        this.sum = (1 - part) * heard[i];
        this.left = this.step - (1 - part);
      }
    }
    return true;
  }
}

registerProcessor("pieces", Pieces);
