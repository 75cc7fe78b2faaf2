"""Is the other's voice in this track, too? How late, how loud, with which sign; and do both clocks run alike?

Every two seconds of both tracks are correlated with their spectra whitened (GCC-PHAT, Knapp and Carter 1976), which
finds a delayed copy far below the own voice. How loud it is follows from the track's power while only the other speaks.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from visavis.schemas import FPS, SAMPLE_RATE, SAMPLES_PER_FRAME
from visavis.stages.doctor.excerpt import Excerpt, Sums
from visavis.stages.doctor.findings import Sign, certainty
from visavis.stages.doctor.kinds import Kind
from visavis.stages.doctor.sound import loudness

_BLOCK = 2 * FPS * SAMPLES_PER_FRAME  # samples
_LATEST = int(0.6 * SAMPLE_RATE)  # samples of delay that are looked at
_BINS = 241  # of 5 ms
_PEAK = 9.0  # times the rest's root mean square; of 19,200 normal values the largest has 4.3
_HEARD = 1e-9  # mean square below which a block says nothing
_FEWEST, _SHARE = 3, 0.15  # blocks with a peak, and of all blocks in which both tracks have sound
_SAME_PLACE = 0.6  # of the peaks within 10 ms of one delay or of two
_ONE = 0.85  # correlation of two tracks that are one
_LOUD = -32.0  # dB of the other's voice against the own one …
_FAINT = -6.0  # … below which both tracks are not one, however alike they are while only one speaks
_DRIFT = 0.004  # seconds of delay that grow from beginning to end


def measure(excerpt: Excerpt) -> Sums:
    """Peaks by delay, their sign and course over time; power by who speaks."""
    lags, signs, alike, times = [], [], [], []
    both = 0
    for n in range(excerpt.audio_PN.shape[1] // _BLOCK if excerpt.own_tracks else 0):
        one_N, other_N = (track_N[n * _BLOCK : (n + 1) * _BLOCK] for track_N in excerpt.audio_PN)
        if min(one_N.var(), other_N.var()) < _HEARD:
            continue
        both += 1
        if found := _delay(one_N, other_N):
            lags.append(found[0] / SAMPLE_RATE)
            signs.append(found[1])
            alike.append(found[2])
            times.append((excerpt.first + n * 2 * FPS) / FPS)
    t, lag = np.array(times), np.array(lags)
    who_T = excerpt.state_T & 15  # frames with back-channels tell nothing of either voice
    return {
        "bleed.blocks": np.array(float(both)),
        "bleed.lags": np.histogram(lag, _BINS, (-0.6025, 0.6025))[0] * 1.0,
        "bleed.signs": np.array([float(np.sum(signs)), float(np.sum(alike)), float(len(lags))]),
        "bleed.course": np.array([len(t), t.sum(), lag.sum(), (t * t).sum(), (t * lag).sum(), (lag * lag).sum()]),
        "bleed.power": np.stack([[power_T[who_T == who].sum() for who in range(4)] for power_T in excerpt.power_PT]),
        "bleed.count": np.bincount(who_T, minlength=16)[:4] * 1.0,
    }


def judge(sums: Sums) -> Iterator[Sign]:
    """At most one sign of what is shared, and one of clocks that drift."""
    signs, alike, peaks = sums["bleed.signs"].tolist()
    if peaks < max(_FEWEST, _SHARE * sums["bleed.blocks"]):
        return
    (place, count), (second, more) = _places(sums["bleed.lags"])
    drift, noise = _drift(sums)
    if count + more < _SAME_PLACE * peaks and not noise < 0.005:
        return
    share = peaks / float(sums["bleed.blocks"])
    sure = certainty(share, _SHARE, 0.5)
    level = [_residual_db(sums, person) for person in (0, 1)]
    if alike / peaks > _ONE and not _LOUD < max(level) < _FAINT:
        kind = Kind.INVERTED if signs < 0 else Kind.SAME_SOUND
        yield Sign(kind, sure, f"correlation {alike / peaks:.2f} at {1000 * (place - _BINS // 2) * 0.005:+.0f} ms")
    elif max(level) > _LOUD:
        person = int(np.argmax(level))
        if more >= _FEWEST and _is_later(second, person) and not _is_later(place, person):
            place = second
        late = 1000 * (place - _BINS // 2) * 0.005
        when = "later" if _is_later(place, person) else "earlier"
        said = f"the other's voice at {level[person]:.0f} dB, {abs(late):.0f} ms {when} than in its own track"
        yield Sign(Kind.BLEED, min(sure, certainty(level[person], _LOUD, -24)), said, person)
    seconds = float(sums["sound.frames"]) / FPS
    if peaks >= 5 and noise < 0.005 and abs(drift) * seconds > _DRIFT:
        yield Sign(
            Kind.TRACK_CLOCKS,
            certainty(abs(drift) * seconds, _DRIFT, 3 * _DRIFT),
            f"the second falls behind the first by {1e6 * drift:+.0f} ppm",
        )


def _places(count_B: np.ndarray) -> tuple[tuple[int, float], tuple[int, float]]:
    """The two bins around which most peaks lie, and how many: where each microphone hears both people, each of them is
    late in the other's track, so it depends on who speaks which delay is seen."""
    first, count = _place(count_B)
    rest_B = count_B.copy()
    rest_B[max(0, first - 4) : first + 5] = 0
    return (first, count), _place(rest_B)


def _place(count_B: np.ndarray) -> tuple[int, float]:
    near_B = np.convolve(count_B, np.ones(5), "same")
    begin = max(0, int(near_B.argmax()) - 2)
    return begin + int(count_B[begin : begin + 5].argmax()), float(near_B.max())


def _is_later(place: int, person: int) -> bool:
    """Whether at this delay it is a person's track that hears the other late."""
    return place != _BINS // 2 and (place > _BINS // 2) == (person == 1)


def _delay(one_N: np.ndarray, other_N: np.ndarray) -> tuple[int, float, float] | None:
    """By how many samples the other comes later, its sign, and how alike both are then (0…1); None: not at all."""
    from scipy.fft import irfft, rfft

    size = 2 * _BLOCK
    spectra = rfft(np.stack([one_N - one_N.mean(), other_N - other_N.mean()]), size)
    cross = np.conj(spectra[0]) * spectra[1]
    weight = np.abs(cross)
    whole = irfft(cross / (weight + 1e-3 * weight.mean() + 1e-20), size)
    phat = np.concatenate([whole[-_LATEST:], whole[: _LATEST + 1]])
    place = int(np.abs(phat).argmax())
    rest = np.delete(phat, slice(max(0, place - 40), place + 40))
    if abs(phat[place]) < _PEAK * rest.std():
        return None
    lag = place - _LATEST
    plain = irfft(cross, size)[lag] / np.sqrt((np.abs(spectra) ** 2).sum(axis=1).prod()) * size / 2
    return lag, float(np.sign(phat[place])), min(1.0, abs(float(plain)))


def _drift(sums: Sums) -> tuple[float, float]:
    """Seconds of delay gained a second, and what is left around that course, root mean square."""
    n, t, lag, tt, tlag, laglag = sums["bleed.course"].tolist()
    spread = tt - t * t / n
    slope = (tlag - t * lag / n) / spread if spread > 1 else 0.0
    left = (laglag - lag * lag / n) - slope * (tlag - t * lag / n)
    return slope, float(np.sqrt(max(left, 0.0) / n))


def _residual_db(sums: Sums, person: int) -> float:
    """Power of the other's voice in this track against the own one's, as in `stages.voice.leakage`; −99: unknown."""
    power, count = sums["bleed.power"][person], sums["bleed.count"]
    own, other = 1 << person, 1 << (1 - person)
    if min(count[own], count[other]) < FPS // 2:
        return -99.0
    floor = 10 ** (loudness(sums, person, 0.1) / 10)
    own_power, heard = power[own] / count[own], power[other] / count[other]
    if own_power <= floor or heard <= floor:
        return -99.0
    return float(10 * np.log10((heard - floor) / (own_power - floor)))
