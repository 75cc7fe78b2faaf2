"""A file system without locks, played by a shim that is preloaded and answers flock with an error."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SHIM = """
#include <errno.h>
#include <stdlib.h>
int flock(int fd, int operation) { errno = atoi(getenv("FLOCK_ERRNO")); return -1; }
"""

PROGRAM = """
import subprocess, sys
from visavis.pipeline.state.lock import holder, locked
from visavis.schemas.errors import UsageError
from visavis.schemas.storage.store import Store

root = sys.argv[1]
try:
    with locked(root) as hold:
        hold.check()
        print("held by", holder(Store(root))["pid"], flush=True)
        subprocess.run([sys.executable, __file__, root], check=True)
except UsageError as error:
    print("refused:", error)
print("free" if holder(Store(root)) is None else "in use")
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c"], check=True)
    return folder / "shim.so"


@pytest.mark.slow
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_lease_holds_the_folder(shim: Path, tmp_path: Path, number: int) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    project = str(Path(__file__).parents[2])
    ended = subprocess.run(
        [sys.executable, program, tmp_path / "run"],
        env={**os.environ, "LD_PRELOAD": str(shim), "FLOCK_ERRNO": str(number), "PYTHONPATH": project},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, inside, after = ended.stdout.splitlines()
    assert first.startswith("held by")
    assert "is in use by process" in second
    assert (inside, after) == ("in use", "free")
