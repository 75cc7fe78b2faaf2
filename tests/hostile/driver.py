"""Carries out commands of the command line that come as JSON lines; see `tests.hostile.watch.Driver`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import traceback

from tests.command_line import keep_commands
from tests.hostile.watch import peak_with_children_mb


class Late(BaseException):
    """A command took too long; no handler of the program catches it."""


def _late(*_: object) -> None:
    raise Late


def carry_out(argv: list[str], seconds: float) -> dict[str, object]:
    """Exit code and output of a command."""
    from visavis.pipeline.app import main

    out, err = io.StringIO(), io.StringIO()
    sys.argv = ["visavis", *argv]
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = ended.code or 0
    except Late:
        code = 124
        err.write(f"after {seconds:g} s: {' '.join(traceback.format_exc().split()[-40:])}")
    except BaseException:  # noqa: BLE001 - what must not be
        code = 70
        traceback.print_exc(file=err)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue(), "peak_mb": peak_with_children_mb()}


def main() -> None:
    """Until stdin ends."""
    limit = int(float(sys.argv[1]) * 1e6)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    keep_commands()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    for line in sys.stdin:
        task = json.loads(line)
        print(json.dumps(carry_out(task["argv"], task["seconds"])), file=answers, flush=True)


if __name__ == "__main__":
    main()
