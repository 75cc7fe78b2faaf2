"""Checkpoints written while training goes on.

What a checkpoint holds is copied to the memory of the host first, which the next step must wait for, and then written
by a thread, which it need not. There is one write at a time, files are replaced when they are whole, and the error of a
write that failed is raised by whoever comes next: the next write, or the end of the run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from visavis.training.checkpoint import Checkpoint, save_checkpoint
from visavis.training.process_group import Processes

_log = logging.getLogger(__name__)


class CheckpointWriter:
    """Close it, or a write may be lost; what is being written when the process is killed leaves the file before."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def write(self, checkpoint: Checkpoint, path: Path, then: Callable[[], None] | None = None) -> None:
        """Begin to write what the checkpoint holds now, and then call `then`, in the thread.

        Raises:
            Exception: that of the write before, which this one waits for.
        """
        self.wait()
        copied = replace(
            checkpoint,
            model=_copied(checkpoint.model),
            ema=_copied(checkpoint.ema),
            optimizer=_copied(checkpoint.optimizer),
        )

        def work() -> None:
            try:
                save_checkpoint(copied, path)
                if then is not None:
                    then()
            except Exception as error:  # noqa: BLE001 - raised again by `wait`
                self._error = error

        self._thread = threading.Thread(target=work, name="checkpoint")  # no daemon: the interpreter waits for it, too
        self._thread.start()

    def wait(self) -> None:
        """Until the last write is done. Raises its error, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error


@contextmanager
def writing(group: Processes) -> Iterator[CheckpointWriter]:
    """A writer whose last checkpoint is whole when this is left, by whatever way.

    Raises the error of a write that failed, unless another one is on its way.
    """
    writer = CheckpointWriter()
    try:
        yield writer
    except BaseException:
        try:
            writer.wait()
        except Exception as error:  # noqa: BLE001 - the first error is the one to tell
            _log.warning("the last checkpoint was not written: %s", error)
        raise
    finish(writer, group)


def finish(writer: CheckpointWriter, group: Processes) -> None:
    """Wait for the last write, in all processes. Each raises its error."""
    with group.together():
        writer.wait()


def _copied(value: Any) -> Any:
    """Its tensors on the host, shared with nobody; all else as it is."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copied(each) for each in value)
    return value
