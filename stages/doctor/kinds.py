"""What can be wrong with a corpus, and what is to be done about it."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

Severity = Literal["mend", "look"]
"""mend: a model would learn what is not so. look: may be meant."""


class Kind(StrEnum):
    """What can be wrong. Closed: a new kind has a `Remedy`."""

    DEAD_TRACK = "dead_track"
    DROPOUTS = "dropouts"
    CLIPPED = "clipped"
    BAND_LIMITED = "band_limited"
    QUIET = "quiet"
    DC_OFFSET = "dc_offset"
    SAME_SOUND = "same_sound"
    INVERTED = "inverted"
    BLEED = "bleed"
    TRACK_CLOCKS = "track_clocks"
    SWAPPED = "swapped"
    WRONG_VOICE = "wrong_voice"
    AV_OFFSET = "av_offset"
    AV_DRIFT = "av_drift"
    TURNS_SHIFTED = "turns_shifted"
    TURNS_WRONG = "turns_wrong"
    PARTNERS_SHIFTED = "partners_shifted"
    NOT_PARTNERS = "not_partners"
    FROZEN = "frozen"
    REPEATED = "repeated"
    SAME_FACE = "same_face"
    MIRRORED = "mirrored"
    OUT_OF_RANGE = "out_of_range"
    JITTERY = "jittery"
    DULL = "dull"
    UNSEEN = "unseen"
    ENLARGED = "enlarged"
    CROPPED = "cropped"
    SPLIT_LEAK = "split_leak"
    SEVERAL_NAMES = "several_names"
    SEVERAL_PEOPLE = "several_people"
    IMBALANCE = "imbalance"
    OTHER_LANGUAGE = "other_language"
    MISSING_PARTNER = "missing_partner"
    LEFT_OUT = "left_out"
    UNREADABLE = "unreadable"
    RATE = "rate"
    LENGTHS = "lengths"
    LOW_RESOLUTION = "low_resolution"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"


class Remedy(NamedTuple):
    severity: Severity
    what: str
    advice: str


REMEDIES = {
    Kind.DEAD_TRACK: Remedy(
        "mend", "a track without a voice", "look which channel or file the voice is on; else leave it out"
    ),
    Kind.DROPOUTS: Remedy(
        "mend", "digital silence in the midst of a track", "record or convert it again; else leave it out"
    ),
    Kind.CLIPPED: Remedy(
        "mend", "clipped sound", "convert it from the source with less gain; else set `quality.max_clipped`"
    ),
    Kind.BAND_LIMITED: Remedy(
        "mend",
        "sound without its upper band",
        "convert it from the source; else set `quality.min_bandwidth`, or teach on such sound alone",
    ),
    Kind.QUIET: Remedy("look", "a voice far below the others", "levels are never adapted: raise it before the build"),
    Kind.DC_OFFSET: Remedy("look", "sound with a constant offset", "take the mean away before the build"),
    Kind.SAME_SOUND: Remedy(
        "mend",
        "the same sound in both tracks",
        "look for the other's own file; as one picture with one mix it can be built (`one_frame`)",
    ),
    Kind.INVERTED: Remedy("mend", "one sound in both tracks, with inverse sign", "look for the other's own file"),
    Kind.BLEED: Remedy(
        "mend",
        "the other's voice in a track (bleed, echo)",
        "set `quality.max_residual`, cancel the echo, or build from one mix",
    ),
    Kind.TRACK_CLOCKS: Remedy(
        "mend", "the clocks of both tracks drift apart", "resample one of them by the figure that is named"
    ),
    Kind.SWAPPED: Remedy(
        "mend", "each has the other's voice", "exchange the two sound files, or the names in the list"
    ),
    Kind.WRONG_VOICE: Remedy(
        "mend", "a voice that does not go with the lips", "look which file belongs to whom; else leave it out"
    ),
    Kind.AV_OFFSET: Remedy(
        "mend", "the voice comes early or late for the lips", "shift the sound by the figure that is named"
    ),
    Kind.AV_DRIFT: Remedy(
        "mend", "sound and picture run at different rates", "look for a rate that is mislabelled; resample the sound"
    ),
    Kind.TURNS_SHIFTED: Remedy(
        "mend", "turns that lie early or late for the voice", "shift them: column `turns_offset` of a list"
    ),
    Kind.TURNS_WRONG: Remedy(
        "mend", "turns that do not go with the voice", "leave the given turns out, and let the build listen"
    ),
    Kind.PARTNERS_SHIFTED: Remedy(
        "mend", "one answers late, the other too early: the timelines are shifted", "bring both files to one timeline"
    ),
    Kind.NOT_PARTNERS: Remedy(
        "mend", "two who do not speak with each other", "look which files are of one conversation"
    ),
    Kind.FROZEN: Remedy(
        "mend", "pictures or motion that freeze", "take the source of the pictures anew; else leave it out"
    ),
    Kind.REPEATED: Remedy(
        "mend",
        "frames that are there twice",
        "the source has fewer pictures a second than it says; leave it out, or interpolate",
    ),
    Kind.SAME_FACE: Remedy("mend", "both people move as one: the same face twice", "look for the other's own picture"),
    Kind.MIRRORED: Remedy("mend", "one person is the mirror image of the other", "look for the other's own picture"),
    Kind.OUT_OF_RANGE: Remedy(
        "mend", "motion of another scale than the rest", "look for other units (degrees, millimetres) or another codec"
    ),
    Kind.JITTERY: Remedy("mend", "motion that trembles", "set `quality.max_jitter`"),
    Kind.DULL: Remedy(
        "look", "a listener that hardly moves", "raise `windows.min_expressiveness` or lower `balance.dull_keep`"
    ),
    Kind.UNSEEN: Remedy("look", "somebody who is hardly seen", "set `quality.min_visible`"),
    Kind.ENLARGED: Remedy(
        "mend",
        "large faces without detail: enlarged video",
        "take the source in its own size; set `quality.min_sharpness`",
    ),
    Kind.CROPPED: Remedy("mend", "faces that the picture's border cuts", "take a wider picture; else leave it out"),
    Kind.SPLIT_LEAK: Remedy("mend", "somebody is in both training and validation", "mend the names, and build again"),
    Kind.SEVERAL_NAMES: Remedy(
        "look", "one voice or face under several names, or without any", "give one person one name"
    ),
    Kind.SEVERAL_PEOPLE: Remedy("look", "several voices or faces under one name", "give each person a name"),
    Kind.IMBALANCE: Remedy("look", "few people make most of the corpus", "take less of them, or more of others"),
    Kind.OTHER_LANGUAGE: Remedy(
        "look",
        "another language than nearly all of the corpus",
        "leave it out, or set `transcribe.language` if misheard",
    ),
    Kind.MISSING_PARTNER: Remedy(
        "mend", "conversations with one file, or more than two", "add the partner, or take them out of the list"
    ),
    Kind.LEFT_OUT: Remedy(
        "look", "much of the corpus is left out for one reason", "`visavis status RUN --left-out` names each"
    ),
    Kind.UNREADABLE: Remedy("mend", "files that cannot be read", "fetch them again"),
    Kind.RATE: Remedy("mend", "a rate that is mislabelled", "resample, or write the right rate into the file"),
    Kind.LENGTHS: Remedy(
        "mend",
        "files of one conversation of different lengths",
        "look whether they are of one recording, and cut both alike",
    ),
    Kind.LOW_RESOLUTION: Remedy("look", "pictures too small for faces", "take the source in its own size"),
    Kind.DUPLICATE: Remedy("mend", "the same conversation twice", "leave one out"),
    Kind.NEAR_DUPLICATE: Remedy(
        "mend",
        "the sound of another conversation: encoded anew, cut, sped up",
        "take it out of the list, or build with `duplicates.enabled=true`",
    ),
}
