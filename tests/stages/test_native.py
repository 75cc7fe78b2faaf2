"""Native libraries are kept from what nobody asked them to do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from visavis.schemas.config import FacesConfig
from visavis.schemas.errors import UsageError
from visavis.stages.face import landmarker
from visavis.stages.models import wheels

LOOK = """
import ctypes, os, sys, urllib.request
from visavis.stages.models import native
native.version = lambda name: sys.argv[1]
native.report_no_use()
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
print(getenv(b"https_proxy").decode(), getenv(b"no_proxy").decode(), urllib.request.getproxies_environment())
"""


def proxies(mediapipe: str) -> str:
    """What C says of the proxy and of who goes around it, and then Python."""
    users = {"https_proxy": "http://proxy.example:3128", "no_proxy": "intranet"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, mediapipe], env=os.environ | users, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "'https': 'http://proxy.example:3128'" in done.stdout  # Python asks its own copy
    return done.stdout


def test_a_mediapipe_that_reports_is_sent_to_a_proxy_where_nobody_listens() -> None:
    assert proxies("1.2.3").startswith("http://127.0.0.1:9 127.0.0.1 ")  # libcurl asks C


@pytest.mark.parametrize("quiet", ["0.10.21", "0.10.31"])
def test_beside_one_that_does_not_report_the_users_proxy_is_everybodys(quiet: str) -> None:
    assert proxies(quiet).startswith("http://proxy.example:3128 intranet ")


def test_a_mediapipe_without_face_mesh_is_told_of_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    landmarker.check_faces(FacesConfig())  # a checkout has it
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"MediaPipe 0\.10\.21.*visavis assets fetch face-landmarker"):
        landmarker.check_faces(FacesConfig())
