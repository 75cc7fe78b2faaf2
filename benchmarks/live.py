"""`visavis live`, fed with a clip through a real browser: latency and its parts, drift, memory.

    python -m benchmarks.live CHECKPOINT DATASET CLIP [--seconds 60]         # any clip of one person with sound
    python -m benchmarks.live CHECKPOINT DATASET --drift [--seconds 600]     # a nod and a click every 4 s, made here

Chromium's camera and microphone play the clip; all times are the page's. With --drift the clip is drawn and sounded by
the page itself, on that one clock, since a fake camera of a loaded machine loses time by itself: how far the nod, as
the server's motion has it, and the click, as its sound has it, lie from where the page made them, minute
by minute. Memory is that of the server with the process that looks, and of the page's scripts.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

PERIOD = 4.0  # seconds between nods
NOD, NOD_FRAMES = 2.0, 12  # seconds into the period, and frames to either side


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("clip", type=Path, nargs="?")
    parser.add_argument("--drift", action="store_true")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--screenshot", type=Path)
    parser.add_argument("--out", type=Path, help="all measurements as JSON")
    wanted = parser.parse_args()
    if bool(wanted.clip) == wanted.drift:
        parser.error("either a clip or --drift")
    import torch  # here, not above: the process that looks for faces reads this file, too, and needs none of it

    from benchmarks.fake_devices import devices_of
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.live.avatar import load_avatar
    from visavis.pipeline.live.server import LiveServer

    torch.set_num_threads(1)
    avatar = load_avatar(wanted.checkpoint, dataset_folder(wanted.dataset))
    kept = _keep() if wanted.drift else None
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    looking = avatar.looking()
    asyncio.run_coroutine_threadsafe(looking.begin(), loop).result(60)
    server = LiveServer(avatar, looking)
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(20)
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
        if wanted.clip:
            flags = devices_of(wanted.clip, Path(folder))
        found = _drive(server.address, flags, wanted)
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(20)
    looking.close()
    if wanted.out:
        wanted.out.write_text(json.dumps(found | {"kept": kept}), encoding="utf-8")
    _print(found)
    if kept:
        _print_drift(kept, found)


def _drive(address: str, flags: list[str], wanted: argparse.Namespace) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    memory: list[tuple[float, float, float]] = []
    with sync_playwright() as playwright:
        args = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required", "--enable-precise-memory-info", *flags]
        browser = playwright.chromium.launch(executable_path=wanted.chromium, args=args)
        page = browser.new_page(viewport={"width": 1000, "height": 1100})
        page.on("console", lambda said: print(f"console: {said.text}"))
        page.on("pageerror", lambda error: print(f"error: {error}"))
        if wanted.drift:
            page.add_init_script(_script())
        page.goto(address)
        page.get_by_role("button", name="Start").click()
        began, busy = time.monotonic(), psutil.cpu_times()
        while time.monotonic() - began < wanted.seconds:
            page.wait_for_timeout(min(10_000, 1000 * wanted.seconds))
            heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
            memory.append((time.monotonic() - began, _server_memory(), heap))
            print(
                f"{memory[-1][0]:5.0f} s: {page.inner_text('#median')}; {page.inner_text('#rate')} pictures a second,"
                f" {page.inner_text('#skipped')} blocks left out; server {memory[-1][1]:.0f} MB, scripts {heap:.0f} MB",
                flush=True,
            )
        found: dict[str, Any] = page.evaluate("live.measurements()")
        found["epochs"] = page.evaluate("[live.epoch(), globalThis.madeAt ?? null]")
        after = psutil.cpu_times()
        found |= {"memory": memory, "cores": sum(after[:3]) - sum(busy[:3])}
        found["cores"] /= time.monotonic() - began
        if wanted.screenshot:
            page.screenshot(path=wanted.screenshot, full_page=True)
        browser.close()
    return found


def _server_memory() -> float:
    """MB of this process and of the one that looks."""
    me = psutil.Process()
    looks = [child for child in me.children() if "spawn_main" in " ".join(child.cmdline())]
    return sum(process.memory_info().rss for process in (me, *looks)) / 1e6


def _print(found: dict[str, Any]) -> None:
    late = found["latency"]
    print(
        f"{late['blocks']} blocks: median {late['median']:.0f} ms, 95 % {late['p95']:.0f} ms; of that, median / 95 %:"
    )
    for name, part in late["parts"].items():
        print(f"  {name:10s} {part['median']:6.0f} {part['p95']:6.0f}")
    print(f"pictures {found['pictures']}, blocks left out {found['blocksLeftOut']}, late {found['blocksLate']}")
    print(f"{found['cores']:.2f} cores were busy, with all that ran beside")
    minutes = [m for m in found["memory"] if m[0] > 30] or found["memory"]
    print(
        f"server {minutes[0][1]:.0f} → {minutes[-1][1]:.0f} MB, scripts {minutes[0][2]:.0f} → {minutes[-1][2]:.0f} MB"
    )


def _keep() -> dict[str, Any]:
    """What the server makes of pictures and sound, beside its work."""
    from visavis.pipeline.live.messages import Message
    from visavis.pipeline.live.session import Session

    kept: dict[str, Any] = {"pitch": [], "clicks": []}
    look, hear = Session._look, Session.hear

    async def looked(self: Session) -> None:
        add = self._motion.add

        def added(time: float, motion_D: np.ndarray, rest_D: np.ndarray) -> None:
            kept["pitch"].append((time, float(motion_D[0])))
            add(time, motion_D, rest_D)

        self._motion.add = added  # type: ignore[method-assign]
        await look(self)

    async def heard(self: Session, message: Message) -> None:
        known = self._sound.end
        await hear(self, message)
        if message.kind == "sound":
            new_N = np.abs(self._sound._samples_N[len(self._sound._samples_N) - (self._sound.end - known) :])
            if len(new_N) and new_N.max() > 0.2:
                kept["clicks"].append((known + int((new_N > 0.2).argmax())) / 16)

    Session._look, Session.hear = looked, heard  # type: ignore[method-assign]
    return kept


def _print_drift(kept: dict[str, Any], found: dict[str, Any]) -> None:
    epoch, made = found["epochs"]
    times, pitch = np.array(kept["pitch"]).T
    clicks = np.array(kept["clicks"])
    rows = []
    for n in range(1, int(times[-1] / 1000 / PERIOD)):
        true = made + 1000 * (PERIOD * n + NOD) - epoch
        near = np.abs(times - true) < 700
        weight = np.clip(pitch[near] - np.median(pitch[near]) - 0.03, 0, None)
        click = clicks[np.abs(clicks - true) < 700]
        if near.sum() > 5 and weight.sum() > 0 and len(click):
            rows.append((true, float((times[near] * weight).sum() / weight.sum()) - true, float(click[0]) - true))
    table = np.array(rows).reshape(-1, 3)
    print(f"{len(table)} nods and clicks; ms behind where the page made them, and the sound behind the motion:")
    for minute in np.unique(table[:, 0] // 60_000):
        nod, click = np.median(table[table[:, 0] // 60_000 == minute, 1:], axis=0)
        print(f"  minute {minute + 1:2.0f}: motion {nod:+.1f}, sound {click:+.1f}, apart {click - nod:+.1f}")


def _script() -> str:
    """A camera and a microphone that the page makes itself: a rendered head whose nod is a function of the clock."""
    from visavis.pipeline.demo.people import make_person
    from visavis.pipeline.demo.render import Pose, Renderer

    renderer = Renderer(make_person(0, long_hair=False), 480, 480, 13.8)
    pictures = []
    for n in range(NOD_FRAMES + 1):  # from rest to the nod's depth
        rgb = renderer.frame(Pose(0.25 * n / NOD_FRAMES, 0, 0, 0, 0, 0, 0, 0, 0))
        jpeg = cv2.imencode(".jpg", rgb[:, :, ::-1])[1].tobytes()
        pictures.append(base64.b64encode(jpeg).decode())
    return _MADE % {"pictures": json.dumps(pictures), "period": PERIOD, "nod": NOD, "most": NOD_FRAMES}


_MADE = """
(() => {
  const PERIOD = %(period)f, NOD = %(nod)f, MOST = %(most)d;
  const pictures = %(pictures)s.map((data) => Object.assign(new Image(), {src: "data:image/jpeg;base64," + data}));
  globalThis.madeAt = performance.now();
  navigator.mediaDevices.getUserMedia = async ({video}) => {
    if (video) {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = 480;
      const context = canvas.getContext("2d");
      const draw = () => {
        const at = ((performance.now() - madeAt) / 1000) %% PERIOD - NOD;
        const depth = Math.exp(-0.5 * (at / 0.12) ** 2);
        context.drawImage(pictures[Math.round(depth * MOST)], 0, 0);
      };
      setInterval(draw, 40);
      draw();
      return canvas.captureStream(25);
    }
    const audio = new AudioContext({sampleRate: 48000});
    await audio.resume();
    const out = audio.createMediaStreamDestination();
    const click = audio.createBuffer(1, 480, 48000);
    click.getChannelData(0).fill(0.8);
    let next = Math.ceil((performance.now() - madeAt) / 1000 / PERIOD);
    const schedule = () => {
      const due = (next * PERIOD + NOD) * 1000 + madeAt - performance.now();
      if (due > 900) return;
      next++;
      const source = audio.createBufferSource();
      source.buffer = click;
      source.connect(out);
      source.start(Math.max(0, audio.currentTime + due / 1000));
    };
    setInterval(schedule, 200);
    return out.stream;
  };
})();
"""


if __name__ == "__main__":
    main()
