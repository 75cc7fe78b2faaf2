"""Back-channels are told from turns, so that a window of somebody who listens and says "mm-hmm" shows listening."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stages.test_bind import MEDIA
from tests.stages.test_diarize import wav
from tests.stages.test_quality import GOOD
from visavis.schemas.dyads import Codec, Dyad, Motion, WindowClass
from visavis.schemas.rows import Binding, BoundParticipant, Conversation, Layout, Turn
from visavis.schemas.voice_rows import Transcript, Word
from visavis.schemas.windows_config import BackchannelsConfig, WindowsConfig
from visavis.stages.media.audio import speech_state
from visavis.stages.voice.backchannels import is_backchannel_text, lexicon_of, mark_backchannels, plain_words
from visavis.stages.windows import WindowsInput, WindowsStage, avatar_state, window_class

DEFAULT = BackchannelsConfig()
HOLDS, OTHER = 0, 1


def turns_of(*spans: tuple[int, float, float]) -> tuple[Turn, ...]:
    return tuple(sorted((Turn(speaker=s, start=a, end=b) for s, a, b in spans), key=lambda t: (t.start, t.speaker)))


def marked(turns: Sequence[Turn], config: BackchannelsConfig = DEFAULT, **words: str) -> list[tuple[int, float]]:
    """(speaker, start) of the back-channels. words: what is said in turn `tN`."""
    transcript = spoken(turns, {int(name[1:]): text for name, text in words.items()}) if words else None
    found = mark_backchannels(turns, config, transcript)
    assert [t.model_copy(update={"backchannel": False}) for t in found] == list(turns)
    return [(t.speaker, t.start) for t in found if t.backchannel]


def spoken(turns: Sequence[Turn], texts: dict[int, str], language: str = "en", *, aligned: bool = True) -> Transcript:
    words = (
        Word(speaker=turns[i].speaker, turn=i, start=turns[i].start, end=turns[i].end, text=word)
        for i, text in texts.items()
        for word in text.split()
    )
    return Transcript(conversation="c", language=language, aligned=aligned, words=tuple(words))


def test_a_short_sound_within_the_others_turn_is_a_backchannel() -> None:
    assert marked(turns_of((HOLDS, 0, 8), (OTHER, 3, 3.6))) == [(OTHER, 3)]


def test_so_is_one_in_a_pause_of_the_others_turn() -> None:
    assert marked(turns_of((HOLDS, 0, 4), (OTHER, 4.2, 4.7), (HOLDS, 5.1, 9))) == [(OTHER, 4.2)]


def test_and_one_that_begins_in_it_and_ends_in_the_pause() -> None:
    assert marked(turns_of((HOLDS, 0, 4), (OTHER, 3.8, 4.4), (HOLDS, 4.5, 9))) == [(OTHER, 3.8)]


def test_several_in_a_row_are_all_listening() -> None:
    assert len(marked(turns_of((HOLDS, 0, 12), (OTHER, 3, 3.4), (OTHER, 4.1, 4.5), (OTHER, 5.6, 6.2)))) == 3


@pytest.mark.parametrize(
    ("name", "spans"),
    [
        ("too long", [(HOLDS, 0, 8), (OTHER, 3, 4.2)]),
        ("the floor changes", [(HOLDS, 0, 4), (OTHER, 4.2, 4.7), (OTHER, 5.3, 9)]),
        ("nobody goes on", [(HOLDS, 0, 4), (OTHER, 4.2, 4.7)]),
        ("the other goes on much later", [(HOLDS, 0, 4), (OTHER, 4.2, 4.7), (HOLDS, 6.0, 9)]),
        ("nobody spoke before", [(OTHER, 0.5, 0.9), (HOLDS, 1.0, 9)]),
        ("the tail of an own turn", [(OTHER, 0, 3), (HOLDS, 3.1, 8), (OTHER, 3.6, 4.2)]),
        ("the beginning of an own turn", [(HOLDS, 0, 8), (OTHER, 6.0, 6.5), (OTHER, 7.3, 12)]),
        ("two short ones in exchange", [(HOLDS, 0, 0.5), (OTHER, 0.7, 1.1), (HOLDS, 1.3, 1.8), (OTHER, 2.0, 2.4)]),
    ],
)
def test_turns_stay_turns(name: str, spans: list[tuple[int, float, float]]) -> None:
    assert marked(turns_of(*spans)) == [], name


SHORT = turns_of((HOLDS, 0, 4), (OTHER, 4.2, 4.7), (HOLDS, 5.1, 9))
LONGER = turns_of((HOLDS, 0, 8), (OTHER, 3, 4.3))


def test_words_decide_where_there_are_some() -> None:
    assert marked(SHORT, t1="Mm-hmm.") == [(OTHER, 4.2)]
    assert marked(SHORT, t1="On Tuesday.") == []
    assert marked(SHORT, t0="So I went.") == [(OTHER, 4.2)]  # a hum that the recogniser left out
    assert marked(LONGER) == []
    assert marked(LONGER, t1="Yeah, oh wow!") == [(OTHER, 3)]  # longer than timing alone would trust
    assert marked(turns_of((HOLDS, 0, 8), (OTHER, 3, 4.6)), t1="yeah yeah yeah yeah") == []
    taken = turns_of((HOLDS, 0, 4), (OTHER, 4.2, 4.7), (OTHER, 5.3, 9))
    assert marked(taken, t1="Yeah.") == []  # the floor changed, whatever was said


def test_words_without_good_times_decide_nothing() -> None:
    rough = spoken(SHORT, {1: "Tuesday"}, aligned=False)
    assert [t.backchannel for t in mark_backchannels(SHORT, DEFAULT, rough)] == [False, True, False]


def test_other_languages_are_told_by_timing_until_their_words_are_listed() -> None:
    german = spoken(SHORT, {1: "Ja genau"}, "de")
    content = spoken(SHORT, {1: "am Dienstag"}, "de")
    listed = BackchannelsConfig(words={"de": ("ja", "genau")})
    for transcript, config, expected in (
        (german, DEFAULT, True), (content, DEFAULT, True), (german, listed, True), (content, listed, False)
    ):  # fmt: skip
        assert mark_backchannels(SHORT, config, transcript)[1].backchannel == expected
    assert marked(SHORT, BackchannelsConfig(max_seconds=0)) == []


ENGLISH = lexicon_of("en", DEFAULT)


@pytest.mark.parametrize(
    "text",
    ["Mm-hmm.", "mhm", "Mmm", "Uh-huh!", "yeah", "Yeah, yeah.", "Right.", "okaaay", "Oh!", "wow", "Oh my God", "I see.",
     "[laughter]", "(laughs)", "haha", "Hahahaha", "ha ha", "hehe", "Oh, that’s right.", "yeah [laughter] all right"],
)  # fmt: skip
def test_what_listeners_say(text: str) -> None:
    assert is_backchannel_text(text, ENGLISH)


@pytest.mark.parametrize(
    "text", ["", "...", "he", "hi", "yeah but", "no", "I", "see", "my god is here", "Tuesday", "um"]
)
def test_what_speakers_say(text: str) -> None:
    assert not is_backchannel_text(text, ENGLISH)


@given(st.text(max_size=30))
def test_any_text_is_taken_apart(text: str) -> None:
    assert is_backchannel_text(text, ENGLISH) in (True, False)
    assert plain_words(" ".join(plain_words(text))) == plain_words(text)


seconds = st.integers(0, 300).map(lambda n: n / 10)
any_turns = st.lists(st.tuples(st.integers(0, 1), seconds, st.integers(2, 60)), max_size=15).map(
    lambda found: turns_of(*((s, a, a + n / 10) for s, a, n in found))
)


@given(any_turns)
def test_what_is_marked_is_short_and_the_other_is_near(turns: tuple[Turn, ...]) -> None:
    found = mark_backchannels(turns, DEFAULT)
    assert [t.model_copy(update={"backchannel": False}) for t in found] == list(turns)
    for turn in (t for t in found if t.backchannel):
        assert turn.end - turn.start <= 1.0 + 1e-6
        others = [t for t in found if t.speaker != turn.speaker and not t.backchannel]
        assert any(t.start < turn.start and t.end > turn.start - 1 for t in others)
        assert any(t.end > turn.end and t.start < turn.end + 1 for t in others)
        own = [t for t in found if t.speaker == turn.speaker and t.end - t.start > 1.0 + 1e-6]
        assert not any(t.start < turn.end + 1 and t.end > turn.start - 1 for t in own)
    state_T = speech_state(found, 900)
    whole_T = speech_state(turns, 900)
    assert not (whole_T & 0b1100).any()
    np.testing.assert_array_equal((state_T | state_T >> 2) & 0b11, whole_T)  # no sound is lost


def test_states_and_classes_seen_from_either_side() -> None:
    found = mark_backchannels(SHORT, DEFAULT)
    state_T = speech_state(found, 225)
    in_pause = state_T[round(4.4 * 25)]
    assert in_pause == 0b1000  # participant 1 makes a back-channel; nobody has a turn
    assert (avatar_state(state_T, 1) == [0b0100 if s == 0b1000 else s << 1 for s in state_T]).all()
    np.testing.assert_array_equal(avatar_state(avatar_state(state_T, 1), 1), state_T)
    assert window_class(np.array([0b0100], np.uint8)) is WindowClass.LISTENING
    assert window_class(np.array([0b1000], np.uint8)) is WindowClass.SILENCE  # the avatar pauses
    assert window_class(np.array([0b0110], np.uint8)) is WindowClass.LISTENING
    assert window_class(np.array([0b1001], np.uint8)) is WindowClass.SPEAKING
    assert window_class(np.array([0b0011], np.uint8)) is WindowClass.OVERLAP


@pytest.fixture
def conversation(tmp_path_factory: pytest.TempPathFactory) -> Conversation:
    path = tmp_path_factory.mktemp("audio") / "mix.wav"
    uri = wav(path, np.full(24 * 16_000, 0.3, np.float32))
    media = (MEDIA.model_copy(update={"uri": str(uri)}), MEDIA.model_copy(update={"uri": str(uri)}))
    return Conversation(id="c", layout=Layout.PER_PARTICIPANT, media=media, participants=("a", "b"), frames=24 * 25)


def windows_of(conversation: Conversation, turns: tuple[Turn, ...], config: WindowsConfig) -> Dyad:
    rng = np.random.default_rng(0)
    motion = tuple(
        Motion(
            conversation="c", participant=i, codec="x", motion=rng.normal(size=(600, 8)).astype(np.float32),
            valid=np.ones(600, bool), reference=np.zeros(8, np.float32), neutral=np.zeros((478, 3), np.float32),
            neutral_code=np.zeros(0, np.float32),
        )
        for i in (0, 1)
    )  # fmt: skip
    codec = Codec(
        id="x", kind="landmark-pca", given=0, network="", mean=np.zeros(478 * 3, np.float32),
        basis=np.eye(2, 478 * 3, dtype=np.float32), explained=1.0,
    )  # fmt: skip
    one, other = (
        BoundParticipant(name=n, media=i, speaker=i, segments=(), score=0.5, margin=0.0, figures=GOOD)
        for i, n in enumerate("ab")
    )
    binding = Binding(conversation="c", participants=(one, other), turns=turns)
    given = WindowsInput(codec=codec, conversation=conversation, binding=binding, motion=motion)
    (dyad,) = WindowsStage(config).process(given)
    return dyad


def test_windows_of_a_listener_who_reacts_show_listening(conversation: Conversation) -> None:
    """The same dialogue without and with back-channels told from turns: b listens to a for 24 s, and reacts."""
    reactions = [(1, 1.0, 2.0), (1, 4.2, 5.2), (1, 8.1, 9.0), (1, 9.2, 10.1), (1, 14.5, 15.5)]
    turns = turns_of((0, 0.0, 7.9), (0, 8.4, 15.0), (0, 15.2, 24.0), *reactions)
    off = WindowsConfig(length=25, hop=25, backchannels=BackchannelsConfig(max_seconds=0, max_spoken=0))
    before, after = (
        windows_of(conversation, turns, c) for c in (off, off.model_copy(update={"backchannels": DEFAULT}))
    )

    def labels(dyad: Dyad, avatar: int) -> list[WindowClass]:
        return [w.label for w in dyad.windows if w.avatar == avatar]

    assert labels(before, 1).count(WindowClass.OVERLAP) == 5
    assert labels(after, 1) == [WindowClass.LISTENING] * 24
    assert labels(after, 0) == [WindowClass.SPEAKING] * 24
    speaks = sum(b - a for _, a, b in reactions) * 25
    assert np.count_nonzero(after.state & 0b0010) == 0
    assert np.count_nonzero(after.state & 0b1000) == pytest.approx(speaks, abs=3)


@dataclass(frozen=True)
class Dialogue:
    turns: tuple[Turn, ...]
    reactions: frozenset[tuple[int, float]]
    answers: frozenset[tuple[int, float]]


def dialogue(seed: int, minutes: float = 10.0) -> Dialogue:
    """Two people who take turns, drawn with the times that studies of conversation report.

    Turns of 1.5 to 12 s are broken by pauses (log-normal, median 0.5 s); the next speaker begins 0.2 ± 0.4 s after the
    end (in the way of Heldner and Edlund 2010). Listeners react for 0.25 to 0.9 s, half of the time in a pause, half
    into the speech. One turn in eight is an answer as short as a reaction, after which the other speaks at once.
    """
    rng = np.random.default_rng(seed)
    spans: list[tuple[int, float, float]] = []
    reactions, answers = set(), set()
    now, who = 0.5, 0
    while now < minutes * 60:
        end = now + float(rng.uniform(1.5, 12))
        start = now
        while True:
            stop = min(end, start + float(rng.uniform(1.2, 4)))
            spans.append((who, round(start, 3), round(stop, 3)))
            pause = float(np.clip(rng.lognormal(np.log(0.5), 0.5), 0.31, 1.6))
            if stop + pause + 0.5 > end:
                break
            if rng.random() < 0.4:
                length = float(rng.uniform(0.25, 0.9))
                at = round(stop + 0.1 if rng.random() < 0.5 else stop - rng.uniform(0.3, 1.0), 3)
                if all(s == who or at > b + 0.3 for s, _, b in spans):
                    spans.append((1 - who, at, round(at + length, 3)))
                    reactions.add((1 - who, at))
            start = stop + pause
        now = stop + float(np.clip(rng.normal(0.2, 0.4), -0.6, 1.5))
        if rng.random() < 0.125:
            now = stop + 0.2
            length = float(rng.uniform(0.3, 0.9))
            spans.append((1 - who, round(now, 3), round(now + length, 3)))
            answers.add((1 - who, round(now, 3)))
            now += length + float(rng.uniform(0.1, 0.6))
        else:
            who = 1 - who
    return Dialogue(turns_of(*spans), frozenset(reactions), frozenset(answers))


def test_most_reactions_of_drawn_dialogues_are_found() -> None:
    """By timing alone, and with words. Short answers are beyond timing: it takes nearly all of them for reactions."""
    found: dict[str, int] = {
        "reactions": 0,
        "by timing": 0,
        "by words": 0,
        "answers": 0,
        "answers taken": 0,
        "wrong": 0,
    }
    for seed in range(10):
        drawn = dialogue(seed)
        whose = {(t.speaker, t.start): i for i, t in enumerate(drawn.turns)}
        texts = {i: "mm-hmm" if key in drawn.reactions else "not at all" for key, i in whose.items()}
        timing = {(t.speaker, t.start) for t in mark_backchannels(drawn.turns, DEFAULT) if t.backchannel}
        words = mark_backchannels(drawn.turns, DEFAULT, spoken(drawn.turns, texts))
        by_words = {(t.speaker, t.start) for t in words if t.backchannel}
        assert by_words <= drawn.reactions
        found["reactions"] += len(drawn.reactions)
        found["by timing"] += len(timing & drawn.reactions)
        found["by words"] += len(by_words)
        found["answers"] += len(drawn.answers)
        found["answers taken"] += len(timing & drawn.answers)
        found["wrong"] += len(timing - drawn.reactions - drawn.answers)
    assert found["reactions"] > 300
    assert found["by timing"] >= 0.85 * found["reactions"], found
    assert found["by words"] >= 0.85 * found["reactions"], found
    assert found["wrong"] <= 0.05 * found["reactions"], found
