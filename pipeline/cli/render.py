"""The command that makes films: `visavis render`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from visavis.pipeline.cli.options import Encoder, Flame, FlameLandmarks, Portrait, typed
from visavis.pipeline.engine.terminal import say
from visavis.schemas.extras import needs

films = typer.Typer()


@films.command()
def render(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(metavar="WHAT", help="Dataset, run or pairs (folder or URL), or a KEY.generated.npy."),
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY… | CONVERSATION]",
            help="Keys of windows or pairs, as `visavis report` lists them; or of a run, the beginning of a"
            " conversation's id or part of its file's name. None: some windows.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            help="The film: .mp4 or .webm, or without sound .webp or .gif (30 s at most). A folder: one .mp4 for each"
            " window. None: named after what is shown, here.",
        ),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option(
            "--checkpoint", "-c", metavar="FILE", help="Generate with it, beside the recorded motion; for each."
        ),
    ] = None,
    windows: Annotated[
        int, typer.Option(min=1, max=1000, help="How many windows, spread over the classes, where no KEY is named.")
    ] = 3,
    split: Annotated[
        str | None, typer.Option(help="Of these windows: val or train. None: val, if there are any.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of what is generated. None: the checkpoint's own.")] = None,
    start: Annotated[
        float | None, typer.Option("--from", min=0, help="Of a conversation: second to begin with.")
    ] = None,
    end: Annotated[float | None, typer.Option("--to", min=0, help="Of a conversation: second to end with.")] = None,
    size: Annotated[int, typer.Option(min=64, max=1080, help="Height of each picture, pixels.")] = 320,
    portrait: Portrait = None,
    user_portrait: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="The same for the user; of a conversation, the first person.")
    ] = None,
    wireframe: Annotated[bool, typer.Option("--wireframe", help="Draw meshes, no portraits.")] = False,
    dataset: Annotated[
        str | None, typer.Option(help="Of a KEY.generated.npy: where its dataset lies, if it was moved since.")
    ] = None,
    media: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL", help="Whole address of a conversation's file that is not on this machine; for each."
        ),
    ] = None,
    encoder: Encoder = None,
    flame: Flame = None,
    flame_landmarks: FlameLandmarks = None,
) -> None:
    """Make a film, with sound, of windows, pairs, a conversation, or of what checkpoints make of windows.

    The user beside the avatar, and beneath them who speaks, nods and smiles, and where we are.
    """
    needs("build", "visavis render")
    from visavis.pipeline.cli import films as making
    from visavis.pipeline.engine.progress import Reporter

    reporter = Reporter()
    request = making.RenderRequest(
        what=what, names=tuple(names or ()), out=out, checkpoints=tuple(checkpoint or ()), windows=windows, split=split,
        seed=seed, start=start, end=end, size=size, dataset=dataset, media=tuple(media or ()), encoder=encoder,
        portrait=portrait, user_portrait=user_portrait, wireframe=wireframe,
        flame=flame, flame_landmarks=flame_landmarks, given=typed(context),
    )  # fmt: skip
    made = making.make_films(request, reporter)
    for path in made.paths:
        say(str(path))
    reporter.end(making.summary(made), advice=f"look at {made.paths[-1]}")
