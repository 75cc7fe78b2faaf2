"""The server as a command runs it: it starts, says where it is, opens the page, and goes on until it is stopped."""

from __future__ import annotations

import asyncio
import tempfile
import webbrowser
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from html import escape
from pathlib import Path

from visavis.pipeline.live.avatar import Avatar
from visavis.pipeline.live.server import LiveServer
from visavis.schemas.errors import UsageError


async def serve(avatar: Avatar, portrait: Path | None, port: int, say: Callable[[str], None], *, browser: bool) -> None:
    """Until it is cancelled.

    Raises:
        UsageError: the port is taken, or the portrait shows no face. One line.
    """
    looking = avatar.looking()
    try:
        await looking.begin()  # its models are loaded before anybody waits
        face = await looking.portrait(portrait) if portrait else None
    except BrokenProcessPool as error:
        looking.close()
        named = avatar.faces.landmarker or "the face model in MediaPipe's wheel"
        raise UsageError(f"{named} cannot be loaded; what it says of that stands above") from error
    except UsageError:
        looking.close()
        raise
    server = LiveServer(avatar, looking, port, face, tell=say)
    try:
        await server.start()
    except OSError as error:
        looking.close()
        raise UsageError(f"port {port} cannot be had ({error.strerror}); without --port any free one is") from error
    say(f"talk to it at {server.address}")
    say("the address is the key: whoever has it can talk to it. Ctrl-C ends it, and nothing is kept")
    with tempfile.TemporaryDirectory(prefix="visavis-live-") as folder:
        if browser:
            await asyncio.to_thread(webbrowser.open, door(Path(folder), server.address).as_uri())
        try:
            await asyncio.Event().wait()
        finally:
            await server.stop()
            looking.close()


def door(folder: Path, address: str) -> Path:
    """A page of one's own that leads there: what a browser is started with, everybody on the machine can read."""
    page = folder / "live.html"
    page.touch(mode=0o600)
    page.write_text(
        f'<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0; url={escape(address)}">'
        f'<a href="{escape(address)}">Visavis live</a>\n',
        encoding="utf-8",
    )
    return page
