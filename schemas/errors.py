"""The tree of errors, and the closed list of reasons why data is left out.

    VisavisError
    ├── UsageError     wrong use: one line, exit 2, nothing written
    ├── Rejected       the data is at fault: the item is left out and the ledger says why
    ├── DatasetError   a dataset does not match its manifest: one line per finding, exit 1
    └── RunFailed      the run stopped, or more items failed than allowed: exit 1

Anything else that escapes a stage is a bug or a broken machine: the item is *failed*.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why an item was rejected. Closed: a new reason is added here, with a sentence, or not at all."""

    UNREADABLE = "unreadable"  # not media, or broken beyond decoding
    CHANGED = "changed"  # its bytes are no longer those that were ingested
    TOO_LONG = "too_long"  # longer than any conversation that is wanted
    TOO_LARGE = "too_large"  # more pixels in a picture than any camera of people has
    TOO_HEAVY = "too_heavy"  # more bytes than are read of one file
    TOO_BUSY = "too_busy"  # more streams, samples or packets a second than recordings have
    NO_VIDEO = "no_video"  # no moving picture stream
    NO_MOTION = "no_motion"  # motion was to be given, and there is none
    NO_AUDIO = "no_audio"  # no audio stream
    TOO_SHORT = "too_short"  # shorter than the shortest useful clip
    AV_LENGTH_MISMATCH = "av_length_mismatch"  # audio and video cover different spans
    DUPLICATE_CONTENT = "duplicate_content"  # the same bytes were listed before
    NEAR_DUPLICATE = "near_duplicate"  # the sound of another conversation, whatever was done to it
    INCOMPLETE_DYAD = "incomplete_dyad"  # a conversation listed with fewer or more than two participants
    NO_TURNS = "no_turns"  # turns were to be given, and there are none
    NO_SPEECH = "no_speech"  # nobody speaks
    ONE_SPEAKER = "one_speaker"  # a single voice where two are needed
    TOO_MANY_SPEAKERS = "too_many_speakers"  # more voices than two hold the conversation
    NO_FACE = "no_face"  # no face was tracked long enough
    ONE_FACE = "one_face"  # a single face where two are needed
    NOT_ALIVE = "not_alive"  # a still picture where a person is needed
    COPIED_FACE = "copied_face"  # one face shown several times where two people are needed
    UNBOUND_VOICE = "unbound_voice"  # lips do not tell whose voice is whose
    SWAPPED_VOICES = "swapped_voices"  # each person's file has the other one's voice
    UNSEEN_VOICE = "unseen_voice"  # somebody speaks whose lips are not in the picture
    SILENT_FACE = "silent_face"  # one of the two people never speaks, by the lips
    AV_OFFSET = "av_offset"  # a voice comes too early or too late for the lips that speak it
    DUBBED = "dubbed"  # the lips fit the sound at no offset: another language, or more than a second away
    TOO_FEW_PICTURES = "too_few_pictures"  # fewer new pictures a second than motion needs
    FACE_NOT_VISIBLE = "face_not_visible"  # the two are hardly ever in view together
    SMALL_FACE = "small_face"  # too few pixels to see a face move
    BLURRED = "blurred"  # a face out of focus, or enlarged
    BADLY_LIT = "badly_lit"  # a face too dark or too bright
    TURNED_AWAY = "turned_away"  # a head turned or bent so far that half of the face is a guess
    JITTERY = "jittery"  # landmarks that tremble more than faces do
    TOO_MANY_PEOPLE = "too_many_people"  # more than two people in the picture
    TOO_MANY_CUTS = "too_many_cuts"  # edited too fast to see anybody listen
    CLIPPED_SOUND = "clipped_sound"  # a voice recorded louder than the recorder could take
    BAND_LIMITED = "band_limited"  # a voice without its upper band
    FAINT_VOICE = "faint_voice"  # a voice too faint to be learned from
    NOISY = "noisy"  # a voice with too much noise beside it
    OTHER_VOICE = "other_voice"  # too much of the other's voice in somebody's track
    POOR_SPEECH = "poor_speech"  # speech that people would rate low (DNSMOS)
    NOT_A_DIALOGUE = "not_a_dialogue"  # two people who speak, but not with each other
    NO_WINDOW = "no_window"  # no window has enough valid frames


class VisavisError(Exception):
    """Base of every error that Visavis raises on purpose."""


class UsageError(VisavisError):
    """Wrong use. The message is one line that says what to do."""


class Rejected(VisavisError):
    """The data is at fault. Raised by a stage to leave an item out; never a failure of ours."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[Rejected], tuple[Reason, str]]:
        return type(self), (self.reason, self.detail)  # survives the way between processes


class DatasetError(VisavisError):
    """A dataset that does not match its manifest, or a manifest of another schema version."""


class RunFailed(VisavisError):
    """The run ended with more failures than allowed, or could not go on."""
