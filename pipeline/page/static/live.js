// The live page: what camera and microphone give goes to this machine's server, and what comes back is drawn when due.
"use strict";

const live = (() => {
  const config = visavis.data("config");
  const FRAME = 1000 / config.fps;
  const $ = (id) => document.getElementById(id);
  const latency = new Latency($("strip"), $("parts")), lines = liveDraw.lines(config.puppet.model);
  let session = null, avatar = null, speech = null, lastSaved = null;

  const say = (text, bad = false) => {
    $("said").textContent = text;
    $("said").classList.toggle("bad", bad);
  };

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
    liveDraw.face($("you"), lines, session.seen.points);
  };

  const signs = () => {
    if (!session) return;
    session.ping();
    if (session.drawn < 0) you(); // until the avatar moves
    const {seen} = session, counts = session.counts ?? {taken: 0, dropped: 0};
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
    const mine = new LiveSession(socket, config);
    mine.devices = [devices.camera, devices.microphone].filter(Boolean);
    socket.onmessage = ({data}) => mine.hear(data);
    socket.onclose = ({code, reason}) => end(mine, code === 1013 ? "Somebody else is talking to it: close the other page first."
      : code === 1000 || code === 1005 ? "" : `The server ended the session (${reason || `code ${code}`}).`);
    socket.onopen = () => start(mine, devices).catch((error) => end(mine, `It cannot start here: ${error.message}`));
  };

  const start = async (mine, {camera, microphone, said}) => {
    session = mine;
    latency.all.length = 0;
    mine.epoch = performance.now();
    mine.camera = !!camera;
    mine.note = said && `${said} It goes on without.`;
    $("stop").disabled = false;
    for (let i = 0; i < 5; i++) setTimeout(() => mine.ping(), 40 * i);
    if (camera) {
      mine.counts = liveCapture.pictures(camera, $("camera"), (time, jpeg) => mine.post(LiveSession.PICTURE, time - mine.epoch, jpeg));
    }
    if (microphone) {
      mine.audio = await liveCapture.sound(microphone, (time, buffer) => mine.post(LiveSession.SOUND, time - mine.epoch, buffer));
    }
    if (config.speaks) {
      mine.audio ??= new AudioContext();
      speech ??= await mine.audio.decodeAudioData(await (await fetch("speech.wav")).arrayBuffer());
      mine.speech = speech;
    }
    if (mine.over) { // it ended meanwhile
      mine.audio?.close();
      return;
    }
    mine.beat = setInterval(signs, 500);
    $("save").disabled = $("speak").disabled = false;
    say(mine.note || "Look into the camera: your face at rest is being learned.");
    beat();
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
    liveDraw.face($("you"), lines);
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

  const save = () => visavis.save("visavis-live.json", JSON.stringify(measurements() ?? lastSaved));

  const setUp = async () => {
    avatar = visavis.avatar($("avatar"), config.puppet);
    await avatar.ready;
    avatar.draw(config.rest);
    liveDraw.face($("you"), lines);
    latency.show();
    $("speak").hidden = !config.speaks;
    $("start").addEventListener("click", begin);
    $("stop").addEventListener("click", () => session && end(session, ""));
    $("speak").addEventListener("click", () => session?.post(LiveSession.SPEAK, session.now()));
    $("save").addEventListener("click", save);
    document.addEventListener("visibilitychange", () => {
      if (session && document.hidden) say("This tab is hidden: browsers stop the camera's pictures then.", true);
    });
    document.addEventListener("theme", () => {
      if (!session) liveDraw.face($("you"), lines);
    });
  };
  setUp();

  return {measurements: () => measurements() ?? lastSaved, running: () => session !== null, epoch: () => session?.epoch};
})();
