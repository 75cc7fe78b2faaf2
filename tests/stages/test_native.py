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
import ctypes, os, urllib.request
from visavis.stages.models.native import report_no_use
report_no_use()
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
print(getenv(b"https_proxy").decode(), getenv(b"no_proxy").decode(), urllib.request.getproxies_environment())
"""


def test_mediapipes_reports_lead_nowhere_and_the_users_proxy_stays() -> None:
    users = {"https_proxy": "http://proxy.example:3128", "no_proxy": ""}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=os.environ | users, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("http://127.0.0.1:9 127.0.0.1 ")  # libcurl asks C
    assert "'https': 'http://proxy.example:3128'" in done.stdout  # Python asks its own copy


def test_a_mediapipe_without_face_mesh_is_told_of_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    landmarker.check_faces(FacesConfig())  # a checkout has it
    monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"MediaPipe 0\.10\.21.*visavis assets fetch face-landmarker"):
        landmarker.check_faces(FacesConfig())
