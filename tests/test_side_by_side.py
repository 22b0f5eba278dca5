"""Tests run side by side: what happens where a worker dies."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
import pytest
from support.sidebyside import FileScheduling

@pytest.hookimpl
def pytest_xdist_make_scheduler(config, log):
    return FileScheduling(config, log)
"""
DIES = "import os\n\ndef test_before(): pass\ndef test_dies(): os._exit(3)\n"
PASSES = "def test_it(): pass\n"


@pytest.mark.parametrize(("after", "workers"), [(0, 1), (1, 1), (1, 2)])
@pytest.mark.slow
def test_a_worker_that_dies_costs_one_test(tmp_path: Path, after: int, workers: int) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST, encoding="utf-8")
    rest = "".join(f"def test_after_{number}(): pass\n" for number in range(after))
    (tmp_path / "test_a.py").write_text(DIES + rest, encoding="utf-8")
    for number in range(3):
        (tmp_path / f"test_b{number}.py").write_text(PASSES, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", str(workers), "-p", "no:cacheprovider", "-p", "no:cov"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    assert re.search(r"worker 'gw\d' crashed while running 'test_a.py::test_dies'", done.stdout)
    assert f"1 failed, {1 + after + 3} passed" in done.stdout
