"""Options and arguments that several commands have."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from visavis.schemas.errors import UsageError

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="Override a setting; may be repeated. VALUE is YAML 1.2, and none where it is empty.",
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Weights of the checkpoint's audio encoder, where it was trained on one."),
]
Portrait = Annotated[
    Path | None,
    typer.Option(
        metavar="PICTURE",
        help="Face that the avatar carries (PNG, JPEG, WebP or BMP). None: a frame of the person's own video, where the"
        " run and its media are at hand, else a mesh.",
    ),
]
Flame = Annotated[
    Path | None,
    typer.Option(
        metavar="MODEL.npz",
        help="Your FLAME model as plain arrays, for motion that is its coefficients; see the docs.",
    ),
]
FlameLandmarks = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.npz",
        help="MediaPipe's landmarks on it; none: mediapipe_landmark_embedding.npz beside MODEL.npz.",
    ),
]
UpperFace = Annotated[
    Path | None,
    typer.Option(
        "--upper-face",
        metavar="FILE.npy",
        help="Numbers of the upper face's vertices, for FDD; none: the model's upper_face, else those near eyes, brows"
        " and forehead.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, for scripts.")]
Data = Annotated[str, typer.Argument(help="Dataset or run of `visavis build`.")]
Checkpoint = Annotated[Path, typer.Argument(help="Checkpoint of `visavis train`.")]
Engine = Annotated[str | None, typer.Option(help="ray (default) or local: in this process.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster: auto, or host:port. None: one is started here.")]
Reconfigure = Annotated[
    bool, typer.Option("--reconfigure", help="Rebuild what changed settings touch in a folder of other settings.")
]


def typed(context: typer.Context) -> dict[str, str]:
    """Parameters that were given on the command line, and how they are written there."""
    found = {}
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name and source is not None and source.name == "COMMANDLINE":
            found[parameter.name] = parameter.opts[0]
    return found


def refuse(given: Mapping[str, str], what: str, *names: str) -> None:
    """Raises UsageError for the first of these parameters that was `typed`, and does not go with `what`."""
    for name in names:
        if name in given:
            raise UsageError(f"{given[name]} does not go with {what}")
