"""Back-channels: "mm-hmm", "yeah", a laugh while the other goes on. They are sounds of listening and take no turn.

They are the very reactions that a listener has to learn, so they must not make an overlap of a window that shows
listening. A turn is one if it is short, if its speaker neither just had a longer turn nor soon takes one, and if the
other has the floor: spoke before, and goes on (Skantze 2021, "Turn-taking in Conversational Systems and Human-Robot
Interaction: A Review"). Length, and silence on its own side before and after, are the rule by which VAP finds the
back-channels that it is scored on (Ekstedt and Skantze, arXiv 2205.09812); its 2 s of silence after are 1 s here,
because a listener who reacts may well be the next to speak.

Its words decide where a transcript has some. The trade-off without one: an answer as short as a back-channel, after
which the other goes on at once, sounds like one. Hums and laughter that a recogniser left out are told by their timing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Sequence

import numpy as np

from visavis.schemas.rows import Turn
from visavis.schemas.voice_rows import Transcript
from visavis.schemas.windows_config import BackchannelsConfig

_ANYWHERE = ("mm", "mhm", "mm-hmm", "hm", "uh-huh", "ah", "aha", "oh", "ooh", "laughter", "laughs", "laughing", "laugh")
_ENGLISH = (
    "yeah", "yep", "yup", "yes", "right", "okay", "ok", "sure", "wow", "huh", "really", "exactly", "true", "absolutely",
    "definitely", "totally", "indeed", "gosh", "alright", "all right", "i see", "i know", "oh my god", "of course",
    "got it", "no way", "that's right", "that's true", "great", "nice", "cool",
)  # fmt: skip
_LAUGH = re.compile(r"ha|(a?h[aeio]){2,}h?")
_LONGEST_PHRASE = 4  # words


def mark_backchannels(
    turns: Sequence[Turn], config: BackchannelsConfig, transcript: Transcript | None = None
) -> tuple[Turn, ...]:
    """The same turns, with those marked that are back-channels.

    K turns, all looked at together: an hour has a few thousand.

    Args:
        turns: of a binding, in its order.
        transcript: of the same turns.
    """
    texts = _texts(transcript) if transcript and transcript.aligned else {}
    lexicon = lexicon_of(transcript.language if transcript else "", config)
    speaker_K, start_K, end_K = (np.array([getattr(t, name) for t in turns]) for name in ("speaker", "start", "end"))

    def near(turn: Turn, among_K: np.ndarray, before: float, after: float) -> np.ndarray:
        """Which of those turns are less than so many seconds away."""
        return among_K & (end_K > turn.start - before) & (start_K < turn.end + after)

    longest_K = np.array([_longest(texts.get(i), lexicon, config) for i in range(len(turns))])
    short_K = end_K - start_K <= longest_K + 1e-9  # 0.3 − 0.1 is more than 0.2
    isolated_K = short_K.copy()
    for i in np.flatnonzero(short_K).tolist():
        own_K = (speaker_K == speaker_K[i]) & ~short_K
        isolated_K[i] = not near(turns[i], own_K, config.quiet_before, config.quiet_after).any()
    marked_K = np.zeros(len(turns), bool)
    for i in np.flatnonzero(isolated_K).tolist():
        others_K = near(turns[i], (speaker_K != speaker_K[i]) & ~isolated_K, config.max_gap, config.max_gap)
        marked_K[i] = (others_K & (start_K < start_K[i])).any() and (others_K & (end_K > end_K[i])).any()
    return tuple(t.model_copy(update={"backchannel": bool(b)}) for t, b in zip(turns, marked_K, strict=True))


def lexicon_of(language: str, config: BackchannelsConfig) -> frozenset[tuple[str, ...]]:
    """What people say as back-channels in a language, each as its words; empty where nobody told us.

    Hums and laughter are the same everywhere, but alone they would make a word of content of every "ja" and "oui".
    """
    own = (*(_ENGLISH if language == "en" else ()), *config.words.get(language, ()))
    return frozenset(tuple(plain_words(phrase)) for phrase in (*own, *_ANYWHERE)) if own else frozenset()


def is_backchannel_text(text: str, lexicon: Collection[tuple[str, ...]]) -> bool:
    """True if a text has words, and all of them are laughter or phrases of the lexicon."""
    words = plain_words(text)
    covered = [True]  # the first n words are phrases of the lexicon
    for n in range(1, len(words) + 1):
        starts = range(max(0, n - _LONGEST_PHRASE), n)
        covered.append(
            (covered[n - 1] and bool(_LAUGH.fullmatch(words[n - 1])))
            or any(covered[start] and tuple(words[start:n]) in lexicon for start in starts)
        )
    return bool(words) and covered[-1]


def plain_words(text: str) -> list[str]:
    """Words without case, punctuation and hyphens; what is drawn out counts once: Mm-hmm is mhm, okaaay okay."""
    words = re.sub(r"[^\w\s]|_", "", text.lower().replace("’", "'")).split()
    return [re.sub(r"(.)\1+", r"\1", word) for word in words]


def _texts(transcript: Transcript) -> dict[int, str]:
    """What was said in each turn that has words."""
    texts: dict[int, list[str]] = defaultdict(list)
    for word in transcript.words:
        texts[word.turn].append(word.text)
    return {turn: " ".join(words) for turn, words in texts.items()}


def _longest(text: str | None, lexicon: Collection[tuple[str, ...]], config: BackchannelsConfig) -> float:
    """Seconds that a turn with this text may last to be a back-channel; −1: it is none."""
    if text is None or not lexicon:
        return config.max_seconds or -1.0
    return config.max_spoken if is_backchannel_text(text, lexicon) else -1.0
