"""`visavis metrics`: figures of public protocols for whoever has only arrays in files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from visavis.pipeline.app import app
from visavis.schemas.errors import UsageError
from visavis.training.protocols.clips import Clip
from visavis.training.protocols.score import score

PARTS = {"exp": slice(0, 50), "jaw": slice(50, 53), "pose": slice(53, 56)}


def walk(seed: int, frames: int = 80) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).normal(size=(frames, 56)), axis=0).astype(np.float32)


def metrics(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["metrics", *map(str, arguments)])


def figures(*arguments: str | Path) -> dict[str, dict[str, float | None]]:
    done = metrics(*arguments, "--json")
    assert done.exit_code == 0, done.exception
    return json.loads(done.stdout)["figures"]["all"]


def test_folders_of_a_public_corpus(tmp_path: Path) -> None:
    """Both speakers in one folder, as DualTalk has them; each has the other as its user."""
    (tmp_path / "test").mkdir()
    (tmp_path / "made").mkdir()
    clips = []
    for n, name in enumerate(("a", "b")):
        sides = [walk(2 * n), walk(2 * n + 1)]
        for speaker, motion in enumerate(sides, 1):
            pose = np.concatenate([motion[:, 53:], motion[:, 50:53]], axis=1)  # theirs: neck first
            np.savez(tmp_path / "test" / f"{name}_speaker{speaker}.npz", exp=motion[:, :50], pose=pose, cam=walk(0))
        np.save(tmp_path / "made" / f"{name}_speaker2.npy", walk(9 + n)[:70])
        clips.append(Clip(sides[1][:70], sides[0][:70], walk(9 + n)[:70]))
    found = figures(tmp_path / "test", tmp_path / "test", tmp_path / "made")
    assert found["generated"] == pytest.approx(score("dualtalk", clips, PARTS))
    said = metrics(tmp_path / "test", tmp_path / "test", tmp_path / "made").stderr
    assert "20 frames at ends left out" in said
    assert "for which nothing was generated" not in said  # the first speakers are the users
    (tmp_path / "copy").mkdir()
    for file in (tmp_path / "test").iterdir():
        shutil.copy(file, tmp_path / "copy")
    done = metrics(tmp_path / "test", tmp_path / "copy", tmp_path / "made")
    assert "a_speaker2: its user is the truth itself; a folder with both speakers is named twice" in str(done.exception)
    for n, name in enumerate(("a_speaker1", "a_speaker2", "b_speaker1", "b_speaker2")):  # users by the truth's names
        (tmp_path / "copy" / f"{name}.npz").unlink()
        np.save(tmp_path / "copy" / f"{name}.npy", walk(20 + n))
    clips = [Clip(walk(2 * n + 1)[:70], walk(21 + 2 * n)[:70], walk(9 + n)[:70]) for n in range(2)]
    found = figures(tmp_path / "test", tmp_path / "copy", tmp_path / "made")
    assert found["generated"] == pytest.approx(score("dualtalk", clips, PARTS))


def test_a_mean_over_fewer_sequences_says_so(tmp_path: Path) -> None:
    """One of 30 frames has no 40 clusters; of one that holds still there is no correlation."""
    for side, seed in {"truth": 0, "user": 10, "made": 20}.items():
        (tmp_path / side).mkdir()
        for n, frames in enumerate((80, 30, 80)):
            still = side == "made" and n == 2
            np.save(tmp_path / side / f"{n}.npy", np.ones((80, 56)) if still else walk(seed + n, frames))
    done = metrics(*(tmp_path / side for side in ("truth", "user", "made")))
    said = " ".join(done.stdout.split())
    assert "generated, all frames: sequences in which a figure is not defined, left out: SID_exp 1" in said
    told = json.loads(metrics(*(tmp_path / side for side in ("truth", "user", "made")), "--json").stdout)
    partial = told["partial_means"]["all"]
    assert partial["generated"] == {"SID_exp": 1, "SID-truth_exp": 1, "rPCC_exp": 1, "rPCC_jaw": 1, "rPCC_pose": 1}
    assert partial["shifted"] == {"SID_exp": 1, "SID-truth_exp": 1}
    assert partial["floor"]["SID_exp"] == 1  # halves of 40 frames are enough for 40 clusters, of 30 they are not
    mask = tmp_path / "mask"
    mask.mkdir()
    for n, frames in enumerate((80, 30, 80)):
        np.save(mask / f"{n}.npy", np.arange(frames) < (20 if n == 0 else frames))
    asked = (*(tmp_path / side for side in ("truth", "user", "made")), "--listening", mask, "--json")
    listening = json.loads(metrics(*asked).stdout)["partial_means"]["listening"]["generated"]
    assert listening["SID_exp"] == 2  # of 20 listening frames, too


def test_the_challenges_own_columns_are_known(tmp_path: Path) -> None:
    for side, seed in {"truth": 0, "user": 1, "made": 2}.items():
        np.save(tmp_path / f"{side}.npy", walk(seed)[:, :25])
    paths = [tmp_path / f"{side}.npy" for side in ("truth", "user", "made")]
    asked = "au=0:15,va=15:17,emotion=17:25"
    assert figures(*paths, "--protocol", "react") == figures(*paths, "--protocol", "react", "--columns", asked)


def test_many_in_one_file_with_several_motions_each(tmp_path: Path) -> None:
    truth, user = (np.stack([walk(s), walk(s + 1)]) for s in (0, 2))
    made = np.stack([np.stack([walk(4), walk(5), walk(6)]), np.stack([walk(7), walk(8), walk(9)])])
    for name, array in {"truth": truth, "user": user, "made": made}.items():
        np.save(tmp_path / f"{name}.npy", array)
    paths = [tmp_path / f"{name}.npy" for name in ("truth", "user", "made")]
    found = figures(*paths, "--protocol", "react", "--columns", "exp=0:50,pose=53:56")
    clips = [Clip(t, u, m[0], more=tuple(m[1:])) for t, u, m in zip(truth, user, made, strict=True)]
    expected = score("react", clips, {"exp": slice(0, 50), "pose": slice(53, 56)})
    assert found["generated"] == pytest.approx(expected)
    still = [Clip(c.truth, c.user, np.repeat(c.truth[:1], 80, axis=0)) for c in clips]
    once = score("react", still, {"exp": slice(0, 50), "pose": slice(53, 56)})
    assert found["hold_still"]["FRDist"] == pytest.approx(3 * once["FRDist"])  # a sum over motions: of as many
    assert found["hold_still"]["FRDiv"] == 0  # the same thrice


def test_listening_frames(tmp_path: Path) -> None:
    for name, seed in {"truth": 0, "user": 1, "made": 2}.items():
        np.save(tmp_path / f"{name}.npy", walk(seed))
    paths = [tmp_path / f"{name}.npy" for name in ("truth", "user", "made")]
    np.save(tmp_path / "mask.npy", np.arange(80) % 2 == 0)
    done = metrics(*paths, "--listening", tmp_path / "mask.npy", "--json")
    found = json.loads(done.stdout)["figures"]["listening"]["generated"]
    clip = Clip(*(walk(seed)[::2] for seed in range(3)))
    assert found["FD_exp"] == pytest.approx(score("dualtalk", [clip], PARTS)["FD_exp"])
    assert found["SID_exp"] is not None


@pytest.mark.parametrize("protocol", ["dim", "dualtalk", "unils", "react"])
def test_whatever_numbers_arrays_are_made_of(tmp_path: Path, protocol: str) -> None:
    """Sides of different types, lengths and layouts; one frame; nobody listens: figures or –, and a line about it."""
    np.save(tmp_path / "truth.npy", walk(0))
    np.save(tmp_path / "user.npy", np.asfortranarray(walk(1)))
    np.save(tmp_path / "double.npy", walk(2).astype(np.float64))
    np.save(tmp_path / "whole.npy", walk(2).round().astype(np.int16))
    np.save(tmp_path / "short.npy", walk(2)[:1])
    np.save(tmp_path / "nobody.npy", np.zeros(80, np.uint8))
    truth, user = tmp_path / "truth.npy", tmp_path / "user.npy"
    for name in ("double", "whole", "short"):
        found = figures(truth, user, tmp_path / f"{name}.npy", "--protocol", protocol)
        assert found["generated"].keys() == found["floor"].keys()
    asked = (truth, user, tmp_path / "short.npy", "--protocol", protocol, "--listening", tmp_path / "nobody.npy")
    assert "1 sequence, 1 frame; 79 frames at ends left out" in metrics(*asked).stderr
    assert "no listening frame" in metrics(*asked).stderr


def test_several_motions_of_one_clip_and_masks_of_many_in_one_file(tmp_path: Path) -> None:
    for name, array in {"truth": walk(0), "user": walk(1), "made": np.stack([walk(2), walk(3)])}.items():
        np.save(tmp_path / f"{name}.npy", array)
    paths = [tmp_path / f"{name}.npy" for name in ("truth", "user", "made")]
    found = figures(*paths, "--protocol", "react")["generated"]
    expected = score("react", [Clip(walk(0), walk(1), walk(2), more=(walk(3),))], PARTS)
    assert found == pytest.approx(expected | {"FRDvs": None})  # of one user
    for path, seeds in zip(paths, ((0, 1), (2, 3), (4, 5)), strict=True):
        np.save(path, np.stack([walk(seed) for seed in seeds]))
    mask = np.stack([np.arange(80) < 40, np.arange(80) < 20])
    np.save(tmp_path / "mask.npy", mask)
    done = json.loads(metrics(*paths, "--listening", tmp_path / "mask.npy", "--protocol", "dim", "--json").stdout)
    clips = [Clip(*(walk(seed)[chosen] for seed in (n, n + 2, n + 4))) for n, chosen in enumerate(mask)]
    assert done["figures"]["listening"]["generated"]["MSE_exp"] == pytest.approx(score("dim", clips, PARTS)["MSE_exp"])
    assert not done["left_out"]


@pytest.mark.parametrize(
    ("names", "options", "said"),
    [
        (("truth", "user", "short"), (), "do not compare"),
        (("truth", "user", "text"), (), "no array of numbers"),
        (("truth", "user", "objects"), (), "no array of numbers"),
        (("truth", "user", "empty"), (), "no .npy or .npz file"),
        (("truth", "user", "nan"), (), "not finite, the first in frame"),
        (("truth", "user", "curve"), (), "frames × columns of numbers are expected"),
        (("truth", "user", "bools"), (), "frames × columns of numbers are expected"),
        (("truth", "user", "none"), (), "no frames in (0, 56)"),
        (("truth", "user", "many"), (), "truth.npy has nothing for a; it has truth"),
        (("truth", "user", "made"), ("--listening", "truth.npy"), "in which frames the avatar listens"),
        (("truth", "user", "made"), ("--columns", "exp=0:99"), "within the 56 columns"),
        (("truth", "user", "made"), ("--columns", "exp=0:50,exp=50:56"), "exp is there twice"),
        (("truth", "user", "huge"), (), "a number of 1e+20 is no motion"),
        (("truth", "user", "uneven"), (), "exp (80, 50) and pose (79, 6); frames × 50 and as many frames × 6"),
        (("truth", "user", "made"), ("--protocol", "best"), "one of dim, dualtalk"),
    ],
)
def test_one_line_says_what_is_wrong(
    tmp_path: Path, names: tuple[str, ...], options: tuple[str, ...], said: str
) -> None:
    for name, seed in {"truth": 0, "user": 1, "made": 2}.items():
        np.save(tmp_path / f"{name}.npy", walk(seed))
    np.save(tmp_path / "short.npy", walk(3)[:, :50])
    np.save(tmp_path / "nan.npy", np.where(walk(3) > 5, np.nan, 0))
    np.save(tmp_path / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "curve.npy", walk(3)[:, 0])
    np.save(tmp_path / "huge.npy", np.full((80, 56), -1e20))
    (tmp_path / "uneven").mkdir()
    np.savez(tmp_path / "uneven" / "truth.npz", exp=walk(3)[:, :50], pose=walk(3)[:79, :6])
    np.save(tmp_path / "bools.npy", walk(3) > 0)
    np.save(tmp_path / "none.npy", walk(3)[:0])
    (tmp_path / "many").mkdir()
    for name in ("a", "b"):
        np.save(tmp_path / "many" / f"{name}.npy", walk(3))
    (tmp_path / "text.npy").write_text("none")
    (tmp_path / "empty").mkdir()
    paths = [path if (path := tmp_path / name).is_dir() else tmp_path / f"{name}.npy" for name in names]
    done = metrics(*paths, *(tmp_path / option if option.endswith(".npy") else option for option in options))
    assert isinstance(done.exception, UsageError)
    assert said in str(done.exception)
