"""The commands that score: checkpoints on a dataset, and motion in plain files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from visavis.pipeline.cli.options import Data, Encoder, Flame, FlameLandmarks, Json, UpperFace
from visavis.pipeline.engine.terminal import Terminal, say, say_json
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs
from visavis.schemas.words import counted

scores = typer.Typer()


@scores.command()
def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CHECKPOINT…", help="Checkpoints, each a column.")],
    dataset: Data,
    split: Annotated[str, typer.Option(help="val or train.")] = "val",
    seeds: Annotated[int, typer.Option(min=1, help="Generate with so many seeds and average.")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="Windows per class; none: all.")] = None,
    encoder: Encoder = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Score whole sequences as dim, dualtalk, unils or react do; --limit counts sequences."),
    ] = None,
    reactions: Annotated[
        bool, typer.Option("--reactions", help="When the avatar reacts, on whole sequences; --limit counts sequences.")
    ] = False,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.py:FUNCTION", help="A metric of yours: samples and motion [W, T, D] to [W] numbers."
        ),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Of sampling: float32, tf32, bfloat16; auto: tf32 on a GPU, float32 on a CPU.")
    ] = "auto",
    batch: Annotated[
        int | None,
        typer.Option(min=1, max=65_536, help="Windows generated together; none: as many as a GPU has room for."),
    ] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="All metrics and baselines, and how far off they may be.")
    ] = False,
    by_class: Annotated[bool, typer.Option("--by-class", help="Tables for every class, too.")] = False,
    flame: Flame = None,
    flame_landmarks: FlameLandmarks = None,
    upper_face: UpperFace = None,
    as_json: Json = False,
) -> None:
    """Score checkpoints beside the ground truth and simple baselines, with a verdict on each.

    With --protocol the windows of a conversation are put together, each checkpoint generates them as one stream, and
    what comes is scored by the definitions of a public script, beside the noise floor. With --reactions nods, smiles
    and other events are found in it, and held against what the user did and against chance.
    """
    from visavis.pipeline.cli.evaluate import evaluation_tables, names_of, own_table, verdict
    from visavis.pipeline.cli.flame import FlameFiles
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.engine.progress import Reporter
    from visavis.schemas.sampling import Precision, Sampling, SamplingConfig
    from visavis.schemas.storage.user_function import UserFunction
    from visavis.training import evaluate as scoring

    if split not in ("train", "val"):
        raise UsageError(f"--split is train or val, not {split}")
    if precision not in (known := ("auto", *get_args(Precision))):
        raise UsageError(f"--precision is one of {', '.join(known)}, not {precision}")
    sampling = SamplingConfig.model_validate({"precision": precision, "batch": batch})
    model = FlameFiles(flame, flame_landmarks, upper_face)
    model.check(protocol)
    if protocol or reactions:
        if metric:
            raise UsageError("--metric goes with neither --protocol nor --reactions: it scores windows")
        if by_class:
            raise UsageError("--by-class goes with neither --protocol nor --reactions: whole sequences are of no class")
        from visavis.pipeline.cli.evaluate_sequences import evaluate_sequences

        evaluate_sequences(
            checkpoints, dataset_folder(dataset), "val" if split == "val" else "train", range(seeds),
            protocol=protocol, reactions=reactions, model=model, limit=limit, encoder=encoder, sampling=sampling,
            whole=all_, as_json=as_json,
        )  # fmt: skip
        return
    own = [UserFunction(code, "metric") for code in metric or ()]
    reporter, results = Reporter(), dict[str, dict[str, Any]]()
    for name, checkpoint in zip(names_of(checkpoints), checkpoints, strict=True):
        with reporter.training("evaluate") as progress:
            results[name] = scoring.evaluate(
                checkpoint, dataset_folder(dataset), "val" if split == "val" else "train", seeds=range(seeds),
                limit=limit, sampling=sampling, encoder=encoder, own=own, progress=progress,
            )  # fmt: skip
    result = next(iter(results.values()))
    if as_json:
        say_json(result if len(results) == 1 else {"checkpoints": results})
        return
    counts = ", ".join(f"{n} {label}" for label, n in result["windows"].items() if label != "all")
    say(f"{counted(result['windows']['all'], result['split'] + ' window')}: {counts}")
    if result["sampling"]["precision"] != "float32":
        say(str(Sampling(**result["sampling"])))
    for label in result["windows"] if by_class else ("all",):
        Terminal().print(*evaluation_tables(results, label, whole=all_))
        if own:
            Terminal().print(own_table(results, label, [function.name for function in own]))
    for name, found in results.items():
        say(verdict(name, found))
    windows = f"{counted(result['windows']['all'], 'window')}, {counted(seeds, 'seed')}"
    reporter.end(windows, "generate", str(checkpoints[-1]), dataset, "KEY")


@scores.command()
def metrics(
    truth: Annotated[
        Path, typer.Argument(help="Recorded motion of the avatar: a folder of .npy or .npz, or one file.")
    ],
    user: Annotated[Path, typer.Argument(help="Motion of the user; TRUTH again, if both speakers lie there.")],
    generated: Annotated[Path, typer.Argument(help="Generated motion, by the names of TRUTH.")],
    protocol: Annotated[str, typer.Option(help="dim, dualtalk, unils or react.")] = "dualtalk",
    columns: Annotated[
        str | None,
        typer.Option(
            help="Parts by name. Of 56 columns, if not given: exp=0:50,jaw=50:53,pose=53:56. SID takes 40 clusters of"
            " what begins with exp."
        ),
    ] = None,
    listening: Annotated[
        Path | None,
        typer.Option(help="Frames in which the avatar listens, bool [T], by the names of TRUTH; unils asks for them."),
    ] = None,
    flame: Flame = None,
    flame_landmarks: FlameLandmarks = None,
    upper_face: UpperFace = None,
    all_: Annotated[bool, typer.Option("--all", help="All baselines.")] = False,
    as_json: Json = False,
) -> None:
    """Score motion in plain files as a public protocol of this field does, beside its noise floor.

    Arrays are [frames, columns] in raw units; [K, frames, columns] of several motions for one user. An .npz of DualTalk
    (exp, pose) becomes exp, jaw, pose. What each figure is stands in the docs, under evaluation.
    """
    needs("metrics", "visavis metrics")
    from visavis.pipeline.cli.arrays import parts_of, read_clips
    from visavis.pipeline.cli.flame import FlameFiles
    from visavis.pipeline.cli.protocols import known_protocol, partial_lines, protocol_table, summary
    from visavis.pipeline.engine.progress import Reporter
    from visavis.training.protocol_rows import protocol_rows

    known, reporter, model = known_protocol(protocol), Reporter(), FlameFiles(flame, flame_landmarks, upper_face)
    model.check(known)
    clips, left_out = read_clips(truth, user, generated, listening)
    parts = parts_of(columns, next(iter(clips.values())).truth.shape[1], known)
    upper, vertices = model.upper(parts) or (None, None)
    scored = list(clips.values())
    found, partial = protocol_rows(known, {"generated": scored}, parts, whole=all_, upper=upper)
    if as_json:
        also = {"vertices": vertices} if vertices else {}
        told = {"left_out": left_out, "partial_means": partial, **also, "figures": found}
        say_json({"protocol": known, "sequences": len(clips), **told})
        return
    if vertices:
        say(vertices)
    for of, rows in found.items():
        Terminal().print(protocol_table(known, of, rows))
    if known == "unils" and listening is None:
        say("no --listening: listening and speaking frames are not told apart")
    for line in partial_lines(partial):
        say(line)
    reporter.end(summary(clips, left_out), advice="--all shows every baseline, --json every digit")
