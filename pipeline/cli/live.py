"""`visavis live`: a page on this machine, where one talks to the listener."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from visavis.pipeline.cli.options import Checkpoint, Encoder
from visavis.pipeline.engine.terminal import say
from visavis.schemas.extras import needs

live_page = typer.Typer()


@live_page.command()
def live(
    checkpoint: Checkpoint,
    dataset: Annotated[
        str | None,
        typer.Argument(help="Dataset or run that it was trained on; none: where `visavis demo` puts it."),
    ] = None,
    portrait: Annotated[
        Path | None, typer.Option(metavar="PICTURE", help="A picture with a face, which the motion then moves.")
    ] = None,
    speak: Annotated[
        str | None, typer.Option(metavar="FILE", help="Any file with sound, which the avatar says at a button.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="A sample whose avatar it is at rest; none: the first that was held out.")
    ] = None,
    landmarker: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A .task file in place of FaceMesh; a codec of blendshapes needs it."),
    ] = None,
    encoder: Encoder = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page in your browser.")] = True,
) -> None:
    """Talk to a listener: a page of this machine alone, with your camera and microphone. Ctrl-C ends it.

    Nothing leaves the machine, and nothing is recorded.
    """
    needs("build", "visavis live")
    try:
        import asyncio
        import os

        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch

        from visavis.pipeline.cli.folders import dataset_folder
        from visavis.pipeline.engine.progress import Reporter
        from visavis.pipeline.live.avatar import load_avatar
        from visavis.pipeline.live.serving import serve

        torch.set_num_threads(1)  # the face model and the browser want the others
        reporter = Reporter()
        reporter.line("loading the model")
        avatar = load_avatar(
            checkpoint,
            dataset_folder(dataset) if dataset else None,
            key=key,
            speak=speak,
            landmarker=landmarker,
            encoder=encoder,
        )
        asyncio.run(serve(avatar, portrait, port, reporter.line, browser=browser))
    except KeyboardInterrupt:  # there is nothing to resume: this is how it is ended
        say("visavis: ended; nothing was kept", err=True)
