"""The objects that make gateways known to a cluster are what their kinds say now."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_file_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate-bundled-objects"), "--check"]
    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
