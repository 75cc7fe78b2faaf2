"""The commands that train a model, let it generate, and bring an older one along. What they need is imported when they
run: torch takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, get_args

import typer

from visavis.pipeline.cli.options import Checkpoint, Data, Encoder, Overrides
from visavis.pipeline.engine.terminal import say
from visavis.schemas.errors import UsageError
from visavis.schemas.extras import needs
from visavis.schemas.words import counted

models = typer.Typer()


@models.command()
def train(
    config: Annotated[str, typer.Argument(help="Recipe, for example configs/train/tiny.yaml.")],
    dataset: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of checkpoint.safetensors and metrics.")] = Path(
        "runs/train"
    ),
    init: Annotated[Path | None, typer.Option(help="Checkpoint to start from.")] = None,
    pairs: Annotated[
        str | None, typer.Option(help="Pairs of `visavis pairs`: preference tuning of --init, which is its reference.")
    ] = None,
    distill: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Distil --init: a student that makes a block in N evaluations, such as 2."
        ),
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option(min=1, help="Train in so many processes on Ray, with a GPU each where there are some.")
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="With --num-workers: a Ray cluster, auto or host:port. None: one is started here."),
    ] = None,
    set_: Overrides = None,
) -> None:
    """Train the causal listener on shards, tune it by preference pairs, or distil it. Running it again resumes.

    Ctrl-C or SIGTERM finishes the step and writes a checkpoint. torchrun … -m visavis train works, too.
    """
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.engine.progress import Reporter
    from visavis.schemas.manifest import MANIFEST_NAME, parse_manifest
    from visavis.schemas.recipes import load_config
    from visavis.schemas.storage.store import Store
    from visavis.schemas.train import TrainConfig
    from visavis.training import train as training
    from visavis.training.dataset import Dataset
    from visavis.training.preferences.groups import weights_line
    from visavis.training.ranks import ranks

    if address and num_workers is None:
        raise UsageError("--address goes with --num-workers")
    overrides = [*([f"distill.evaluations={distill}"] if distill else []), *(set_ or [])]
    recipe = load_config(config, TrainConfig, overrides)
    reporter = Reporter()
    first = ranks().rank == 0  # of the processes that torchrun may have started
    run: Callable[..., Path] = training.train
    if num_workers is not None:
        needs("build", "--num-workers")
        from visavis.pipeline.engine.ray_train import train_on_ray

        run = partial(train_on_ray, workers=num_workers, address=address)
    preferences = dataset_folder(pairs) if pairs else None
    inputs = {"init": init, "pairs": preferences}
    if preferences and first and (told := weights_line(Dataset(preferences).manifest, recipe.dpo)):
        reporter.line(told)
    steps, latest = recipe.steps(pairs=pairs is not None), dict[str, float]()
    name = "dpo" if pairs else "distill" if recipe.distill.evaluations else "train"
    with reporter.training(name, steps if first else None) as progress:

        def follow(step: int, of: int, line: dict[str, float]) -> None:
            latest.update(line, step=step)
            progress(step, of, line)

        try:
            path = run(dataset_folder(dataset), out, recipe, **inputs, progress=follow)
        except training.Stopped as stopped:
            if first:
                reporter.line(str(stopped))
            raise
    if not first:
        return
    say(str(path))
    loss = f", loss {latest['loss']:.3f}" if "loss" in latest else ""
    at = f"step {latest['step']:.0f} of {steps}{loss}" if latest else f"{counted(steps, 'step')} cached"
    held_out = parse_manifest(Store(dataset_folder(dataset)).read(MANIFEST_NAME)).of("val")
    split = () if held_out else ("--split", "train")
    reporter.end(at, "evaluate", str(path), dataset, *split)


@models.command()
def generate(
    checkpoint: Checkpoint,
    dataset: Data,
    key: Annotated[str, typer.Argument(help="A sample's key, as `visavis report` lists them.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for KEY.generated.npy and others.")] = Path(
        "runs/generated"
    ),
    drop: Annotated[str, typer.Option(help="Conditions left: full, no_user, no_avatar or none.")] = "full",
    encoder: Encoder = None,
) -> None:
    """Generate the motion of one sample, beside its truth. `visavis report` draws it."""
    from visavis.pipeline.cli.folders import dataset_folder
    from visavis.pipeline.engine.progress import Reporter
    from visavis.schemas.train import Drop
    from visavis.training import generate as making

    if drop not in get_args(Drop):
        raise UsageError(f"--drop is one of {', '.join(get_args(Drop))}, not {drop}")
    reporter, folder = Reporter(), dataset_folder(dataset)
    path = making.generate(checkpoint, folder, key, out, drop=drop, encoder=encoder)  # type: ignore[arg-type]
    say(str(path))
    reporter.end(f"1 window generated, conditions {drop}", "report", str(path))


@models.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A checkpoint.pt, or weights of torch.save (.pt, .pth, .bin).")],
    to: Annotated[
        Path | None, typer.Option(help="The new file; none: FILE's name with .safetensors, beside it.")
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Of a checkpoint that was trained on an encoder: its weights in training. They are converted, too,"
            " and the new checkpoint names the new file's sha256; it serves with that file alone.",
        ),
    ] = None,
) -> None:
    """Make safetensors of what was pickled: nothing else is read. The old file stays.

    It is unpickled by a process of its own, without rights worth having. A half-done preference run is best ended
    before: a converted initial checkpoint is another file to it.
    """
    from visavis.pipeline.engine.progress import Reporter
    from visavis.training.checkpoint import checkpoint_id
    from visavis.training.convert import convert as converted

    reporter, made = Reporter(), list(converted(file, to, encoder))
    say("\n".join(f"{path}  sha256 {checkpoint_id(path)}" for path in made))
    reporter.end(f"{counted(len(made), 'file')} converted", advice=f"{file} stays; use the new one in its place")
