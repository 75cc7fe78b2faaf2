"""Sound and motion tied to one clock by their time stamps: sample n is of n/16000 s, frame n of (n + ½)/25 s, always.

So they cannot drift apart, whatever is late or lost. A gap of the sound is silence; a sound card that runs a little
fast or slow against the clock is followed by single samples. Motion between two pictures is on the line between them;
behind the last one it holds, and after a while goes back to rest.
"""

from __future__ import annotations

import bisect

import numpy as np

from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME

FRAME_MS = 1000 / FPS
_SAMPLES_PER_MS = SAMPLE_RATE / 1000
_JUMP = SAMPLE_RATE // 20  # 50 ms: further off than that is a gap, nearer is jitter and drift
_DRIFT, _STEP = SAMPLE_RATE // 500, 160  # 2 ms off: one sample in so many is taken out or put in
_SMOOTH = 0.05  # of how far off each chunk is; twenty of them make a mean
_KEPT = 4 * SAMPLE_RATE  # samples that wait at most
_HOLD, _FADE = 500.0, 400.0  # ms without a face until it goes to rest, and how quickly
_PICTURES = 200


class SoundLine:
    """Samples by their number; those that were never heard are zero."""

    def __init__(self) -> None:
        self.end = 0
        """Number of the sample after the last one that is known."""
        self._start = 0
        self._samples_N = np.zeros(0, np.float32)
        self._off = 0.0  # samples by which chunks came late, smoothed
        self.gaps = 0
        """Samples of silence that stand for what was not heard."""

    def add(self, time: float, samples_N: np.ndarray) -> None:
        """Sound whose first sample was heard at `time`, ms. What is older than what is known already is left out."""
        position = round(time * _SAMPLES_PER_MS)
        off = position - self.end
        if abs(off) > _JUMP:
            self._off = 0.0
            if off < 0:
                samples_N = samples_N[-off:]
            else:
                self.silence(position)
        else:  # it goes on; the clocks of sound card and page differ a little
            self._off += _SMOOTH * (off - self._off)
            if abs(self._off) > _DRIFT:
                samples_N = _stretched(samples_N, round(np.sign(self._off) * max(1, len(samples_N) // _STEP)))
        self._append(samples_N)

    def silence(self, end: int) -> None:
        """Zeros up to this sample, where nothing is known so far."""
        missing = end - self.end
        if missing <= 0:
            return
        self.gaps += missing
        if missing > _KEPT:
            self._start = self.end = end - _KEPT
            self._samples_N, missing = np.zeros(0, np.float32), _KEPT
        self._append(np.zeros(missing, np.float32))

    def _append(self, samples_N: np.ndarray) -> None:
        self._samples_N = np.concatenate([self._samples_N, samples_N])[-_KEPT:]
        self.end += len(samples_N)
        self._start = self.end - len(self._samples_N)

    def frames(self, first: int, last: int) -> np.ndarray:
        """The sound of frames `first` … `last` − 1, float32 [640 · frames]; silence where nothing is known."""
        start, stop = first * SAMPLES_PER_FRAME, last * SAMPLES_PER_FRAME
        out_N = np.zeros(stop - start, np.float32)
        low, high = max(start, self._start), min(stop, self.end)
        if low < high:
            out_N[low - start : high - start] = self._samples_N[low - self._start : high - self._start]
        return out_N

    def level(self) -> float:
        """Root mean square of the last tenth of a second."""
        last_N = self._samples_N[-SAMPLE_RATE // 10 :]
        return float(np.sqrt(np.mean(last_N**2))) if len(last_N) else 0.0


class MotionLine:
    """Motion by time, of pictures at any times; D columns."""

    def __init__(self, dim: int) -> None:
        self._times: list[float] = []
        self._motion: list[np.ndarray] = []
        self._rest_D = np.zeros(dim)

    def add(self, time: float, motion_D: np.ndarray, rest_D: np.ndarray) -> None:
        """Motion in a picture of `time`, ms; where it goes without a face. Older ones do not count."""
        if self._times and time <= self._times[-1]:
            return
        self._times.append(time)
        self._motion.append(motion_D)
        self._rest_D = rest_D
        if len(self._times) > 2 * _PICTURES:
            del self._times[:_PICTURES], self._motion[:_PICTURES]

    def frames(self, first: int, last: int) -> np.ndarray:
        """Motion of frames `first` … `last` − 1: float32 [T, D]."""
        times_T = (np.arange(first, last) + 0.5) * FRAME_MS
        if not self._times:
            return np.tile(self._rest_D, (len(times_T), 1)).astype(np.float32)
        return np.stack([self._at(time) for time in times_T]).astype(np.float32)

    def _at(self, time: float) -> np.ndarray:
        after = bisect.bisect_right(self._times, time)
        if after == 0:
            return self._motion[0]
        before, since = self._motion[after - 1], time - self._times[after - 1]
        if after < len(self._times) and (gap := self._times[after] - self._times[after - 1]) <= _HOLD:
            return before + (self._motion[after] - before) * (since / gap)
        left = np.exp(-max(0.0, since - _HOLD) / _FADE)
        return self._rest_D + (before - self._rest_D) * left


def _stretched(samples_N: np.ndarray, by: int) -> np.ndarray:
    """The same sound in so many samples more, or fewer."""
    count = max(1, len(samples_N) + by)
    where_N = np.linspace(0, len(samples_N) - 1, count)
    return np.interp(where_N, np.arange(len(samples_N)), samples_N).astype(np.float32)
