// Camera and microphone, each with time stamps of one clock: performance.now(), in ms.
"use strict";

const liveCapture = {
  SIDE: 480, // pixels; the face model looks at 192 of a face

  /** What the person allows; a device that is missing or refused is null, and `said` tells why. */
  async devices(echo) {
    const ask = async (wanted, name) => {
      try {
        return [await navigator.mediaDevices.getUserMedia(wanted), ""];
      } catch (error) {
        const why = {NotAllowedError: "was not allowed", NotFoundError: "was not found", NotReadableError: "is in use"};
        return [null, `The ${name} ${why[error.name] ?? `does not work (${error.name})`}.`];
      }
    };
    if (!navigator.mediaDevices) return {said: "This browser gives no camera to this page."};
    const video = {width: {ideal: 640}, height: {ideal: 480}, frameRate: {ideal: 25, max: 30}, facingMode: "user"};
    const audio = {echoCancellation: echo, noiseSuppression: false, autoGainControl: true, channelCount: 1};
    const [camera, noCamera] = await ask({video}, "camera");
    const [microphone, noMicrophone] = await ask({audio}, "microphone");
    return {camera, microphone, said: [noCamera, noMicrophone].filter(Boolean).join(" ")};
  },

  /** Pictures of a camera: calls `send(time, buffer)` with a JPEG of each, one at a time; what comes meanwhile is left out. */
  pictures(stream, video, send) {
    const counts = {taken: 0, dropped: 0}, worker = new Worker("static/live_worker.js");
    let waiting = null; // time of the picture that is being compressed
    const stop = {over: false};
    video.srcObject = stream;
    worker.onmessage = ({data: {jpeg}}) => {
      const time = waiting;
      waiting = null;
      counts.taken++;
      if (!stop.over && !(jpeg && send(time, jpeg))) counts.dropped++;
    };
    const frame = async (now, about) => {
      if (stop.over) return;
      video.requestVideoFrameCallback(frame);
      if (waiting !== null) {
        counts.dropped++;
        return;
      }
      waiting = about.captureTime ?? now;
      const scale = Math.min(1, liveCapture.SIDE / Math.max(about.width, about.height));
      const [width, height] = [about.width, about.height].map((side) => Math.max(1, Math.round(side * scale)));
      try { // a VideoFrame goes to the worker as it is; a bitmap has to be made of the picture here
        const picture = window.VideoFrame ? new VideoFrame(video, {timestamp: 1000 * waiting}) : await createImageBitmap(video);
        worker.postMessage({picture, width, height}, [picture]);
      } catch {  // the camera was taken away
        waiting = null;
      }
    };
    video.requestVideoFrameCallback(frame);
    video.play();
    counts.stop = () => {
      stop.over = true;
      worker.terminate();
      video.srcObject = null;
    };
    return counts;
  },

  /** Sound of a microphone: calls `send(time, buffer)` with 20 ms of 16 bit at 16 kHz. */
  async sound(stream, send) {
    let context = new AudioContext({sampleRate: 16000, latencyHint: "interactive"}), source;
    try {
      source = context.createMediaStreamSource(stream);
    } catch {  // a browser that does not resample; the worklet does
      await context.close();
      context = new AudioContext({latencyHint: "interactive"});
      source = context.createMediaStreamSource(stream);
    }
    await context.audioWorklet.addModule("static/live_worklet.js");
    const pieces = new AudioWorkletNode(context, "pieces", {numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit"});
    const latency = 1000 * (stream.getAudioTracks()[0].getSettings().latency ?? 0);
    // Messages come late by this or that; the quickest of the last two seconds tells how the clocks stand.
    const offsets = [];
    pieces.port.onmessage = ({data}) => {
      offsets.push(performance.now() - 1000 * data.now);
      if (offsets.length > 100) offsets.shift();
      send(1000 * data.began + Math.min(...offsets) - latency, data.samples);
    };
    source.connect(pieces);
    await context.resume();
    return context;
  },
};
