"""How a run stands: state.json in its folder, written when its work begins and when it ends.

A run that was killed has no time to write: then the file still says `running`, and nobody holds the folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from visavis.schemas.errors import DatasetError, UsageError, VisavisError
from visavis.schemas.names import Text
from visavis.schemas.plain import fitted, read_strict, to_json
from visavis.schemas.secrets import safe
from visavis.schemas.storage.store import Store
from visavis.schemas.untrusted import parsing

STATE_FILE = "state.json"
Standing = dict[str, Any]
"""state: running, finished, stopped or failed. began, ended: Unix time. message: why it failed. phase, finished, total:
how far it was."""


class Keeper:
    """Writes the state of one run. Nothing is written before `begin`, so wrong use leaves no trace.

    settle: called at the beginning. how_far: asked at the end; may be set later.
    """

    def __init__(self, store: Store, settle: Callable[[], None]) -> None:
        self.how_far: Callable[[], Standing] = dict
        self._store, self._settle = store, settle
        self._began = round(time.time(), 1)
        self.begun = False

    def begin(self) -> None:
        """Work begins, if it has not yet."""
        if not self.begun:
            self.begun = True
            self._settle()
            self._write({"state": "running"})

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Records how the block ends."""
        try:
            yield
        except BaseException as error:
            if self.begun or not isinstance(error, UsageError):
                stopped = isinstance(error, KeyboardInterrupt)
                with suppress(OSError):  # a disk that is full or gone: people are told already
                    self._end("stopped" if stopped else "failed", "" if stopped else _said(error))
            raise
        self._end("finished")

    def _end(self, state: str, message: str = "") -> None:
        self.begin()  # there may have been nothing to do
        self._write({"state": state, "message": message, "ended": round(time.time(), 1), **self.how_far()})

    def _write(self, standing: Standing) -> None:
        self._store.write(STATE_FILE, (to_json({"began": self._began, **standing}) + "\n").encode())


def read_standing(store: Store, *, held: bool, built: bool) -> Standing:
    """How the run in a folder stands; its state may also be `killed`.

    Args:
        held: whether somebody is at work in the folder.
        built: whether it has a dataset; tells how a run ended that was made before there was a state.
    """
    found = store.peek(STATE_FILE)
    standing: Standing = {"state": "finished" if built and found is None else "stopped"}
    if found is not None:
        with suppress(DatasetError), parsing(DatasetError):  # torn, or of somebody else's making
            standing = fitted(_State, read_strict(found)).model_dump(exclude_unset=True)
    if held:
        return standing | {"state": "running"}
    return standing | {"state": "killed"} if standing["state"] == "running" else standing


def _said(error: BaseException) -> str:
    """One line; errors that are no word of ours with their kind."""
    text = safe(" ".join(str(error).split()))
    return text if isinstance(error, VisavisError) else f"{type(error).__name__}: {text}".removesuffix(": ")


class _State(BaseModel):
    """What state.json may say; it may be of anybody's making."""

    model_config = ConfigDict(allow_inf_nan=False)

    state: Literal["running", "finished", "stopped", "failed"]
    began: float = 0.0
    ended: float = 0.0
    message: str = ""
    phase: Text = ""
    finished: int = 0
    total: int = 0
