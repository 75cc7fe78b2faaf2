"""Options and arguments that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, for scripts.")]
Data = Annotated[str, typer.Argument(help="Dataset or run of `visavis build`.")]
Checkpoint = Annotated[Path, typer.Argument(help="Checkpoint of `visavis train`.")]
Engine = Annotated[str | None, typer.Option(help="ray (default) or local: in this process.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster: auto, or host:port. None: one is started here.")]
Reconfigure = Annotated[
    bool, typer.Option("--reconfigure", help="Rebuild what changed settings touch in a folder of other settings.")
]
