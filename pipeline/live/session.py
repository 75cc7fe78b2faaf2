"""One person in front of the page: pictures and sound in, blocks of the avatar's motion out.

All state belongs to the event loop; a process looks at pictures, a thread runs the model, and nothing waits for
another but by `await`. Of pictures only the newest waits, so a slow machine sees fewer of them. A
machine that is too slow for the model leaves out blocks and says how many: it never falls behind.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from visavis.pipeline.live.avatar import Avatar, Reaction
from visavis.pipeline.live.looking import Looker
from visavis.pipeline.live.messages import Message, pack_block, pack_pong, pack_seen
from visavis.pipeline.live.timeline import FRAME_MS, MotionLine, SoundLine
from visavis.schemas import SAMPLES_PER_FRAME

Send = Callable[[bytes], Awaitable[None]]

_PATIENCE = 150.0  # ms that a block waits for sound or pictures that are late …
_ALIVE = 1000.0  # … if any came in that time before
_BEHIND = 200.0  # ms that a block may begin too late; behind that, blocks are left out
_SILENT = -(2**31)


class Session:
    """Feed it messages by `hear`; it sends by `send` until it is closed.

    Args:
        key: names the session; noise is drawn by it.
    """

    def __init__(self, avatar: Avatar, looker: Looker, key: str, send: Send) -> None:
        self._avatar, self._looker, self._send = avatar, looker, send
        self._reaction: Reaction = avatar.reaction(key)
        self._sound, self._motion = SoundLine(), MotionLine(len(avatar.reference_D))
        self._moving = ThreadPoolExecutor(1, "motion")
        self._news = asyncio.Event()
        self._picture: Message | None = None  # the newest that nobody has looked at
        self._looked = -math.inf  # time of the last picture that was looked at
        self._began: float | None = None  # on the server's clock: when the session's clock was at 0, at the earliest
        self._heard_at = self._seen_at = -math.inf  # on the session's clock: when sound and pictures came last
        self._captured: list[float] = []  # times of pictures with a face, for the page's measurement
        self._end = 0  # frame behind the last that the next block needs
        self._marks: dict[str, float] = {}  # on the server's clock: when what this block needs had come, and was seen
        self._skipped = 0
        self._speech: int | None = None  # the stream's frame at which the avatar began to speak

    async def hear(self, message: Message) -> None:
        """A message from the page."""
        now = _now()
        if message.kind == "ping":
            await self._send(pack_pong(message.number, now))
            return
        if self._began is None or now - message.time < self._began:
            self._began = now - message.time  # the quickest message tells the clock best
        if message.kind == "sound":
            self._sound.add(message.time, message.samples())
            self._heard_at = self._clock()
            if self._sound.end >= self._end * SAMPLES_PER_FRAME:
                self._marks.setdefault("sound", now)
        elif message.kind == "picture":
            self._picture = message
            self._seen_at = self._clock()
            if message.time >= self._last_seen():
                self._marks.setdefault("picture", now)
        elif self._speech is None or self._spoken() >= len(self._avatar.speech_N):
            self._speech = self._reaction.given
        self._news.set()

    async def run(self) -> None:
        """Look and react until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look())
                tasks.create_task(self._react())
        finally:
            self._moving.shutdown(wait=False, cancel_futures=True)

    def _clock(self) -> float:
        """The session's time, ms; never ahead of the page's."""
        return _now() - self._began if self._began is not None else 0.0

    async def _look(self) -> None:
        await self._looker.begin()
        while True:
            picture = self._picture
            if picture is None:
                await self._wait(1.0)
                continue
            self._picture = None
            if picture.time <= self._looked:  # times that go backwards
                continue
            began = _now()
            seen = await self._looker.look(picture.payload)
            self._looked = picture.time
            if self._looked >= self._last_seen():
                self._marks.setdefault("seen", _now())
            points_L3 = None
            if seen is not None:
                self._motion.add(picture.time, seen.motion_D, seen.rest_D)
                self._captured = [*self._captured[-100:], picture.time]
                points_L3 = seen.points_L3
            self._news.set()
            await self._send(pack_seen(picture.number, picture.time, _now() - began, points_L3, self._sound.level()))

    async def _react(self) -> None:
        loop = asyncio.get_running_loop()
        while self._began is None:
            await self._wait(1.0)
        while True:
            self._leave_out()
            first = self._reaction.given + self._skipped
            last = self._end = first + self._reaction.needs
            if not self._ready(last):
                await self._wait(0.01)
                continue
            self._sound.silence(last * SAMPLES_PER_FRAME)
            block = self._reaction.done + self._skipped
            now, marks = _now(), self._marks
            received = max(marks.get("sound", now), marks.get("picture", now))
            times, self._marks = [received, max(received, marks.get("seen", now)), now], {}
            self._end = last + self._avatar.block  # what comes meanwhile may be what the next one needs
            speech, spoken_N = self._voice()
            heard_N, seen_TD = self._sound.frames(first, last), self._motion.frames(first, last)
            motion_TD = await loop.run_in_executor(
                self._moving, partial(self._reaction.step, spoken_N, heard_N, seen_TD)
            )
            times += [_now(), _now()]
            await self._send(pack_block(block, self._captured_at(block), times, speech, self._skipped, motion_TD))
            await loop.run_in_executor(self._moving, self._reaction.remember)

    async def _wait(self, seconds: float) -> None:
        """Until there is news, or for so long."""
        self._news.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            pass

    def _ready(self, last: int) -> bool:
        """Whether sound and pictures up to frame `last` − 1 are there, or are waited for no longer."""
        end, now = last * FRAME_MS, self._clock()
        heard = self._sound.end >= last * SAMPLES_PER_FRAME or now > end + self._grace(now - self._heard_at)
        seen = self._looked >= self._last_seen() or now > end + self._grace(now - self._seen_at) / 2
        return now >= end and heard and seen

    def _last_seen(self) -> float:
        """Time of the last frame that the next block needs, ms."""
        return (self._end - 0.5) * FRAME_MS

    def _grace(self, since: float) -> float:
        return _PATIENCE if since < _ALIVE else 0.0

    def _leave_out(self) -> None:
        """Whole blocks, where the next one would begin too late: the stream goes on with what is heard and seen now."""
        size = self._avatar.block
        late = self._clock() - (self._reaction.given + self._reaction.needs + self._skipped) * FRAME_MS
        if late > _BEHIND + size * FRAME_MS:
            self._skipped += size * int((late - _BEHIND) // (size * FRAME_MS))

    def _captured_at(self, frame: int) -> float:
        """Time of the picture in which this frame was seen: the last one with a face by then."""
        time = (frame + 0.5) * FRAME_MS
        return max((t for t in self._captured if t <= time), default=math.nan)

    def _spoken(self) -> int:
        """Samples of the avatar's file that were given to the model."""
        return 0 if self._speech is None else (self._reaction.given - self._speech) * SAMPLES_PER_FRAME

    def _voice(self) -> tuple[int, np.ndarray]:
        """Where the file is at the next block's first frame, and the avatar's sound of what is given."""
        samples = self._reaction.needs * SAMPLES_PER_FRAME
        spoken_N = np.zeros(samples, np.float32)
        if self._speech is None:
            return _SILENT, spoken_N
        part_N = self._avatar.speech_N[self._spoken() :][:samples]
        spoken_N[: len(part_N)] = part_N
        at = (self._reaction.done - self._speech) * SAMPLES_PER_FRAME
        return (at if at < len(self._avatar.speech_N) else _SILENT), spoken_N


def _now() -> float:
    """The server's clock, ms."""
    return time.perf_counter() * 1000
