"""`pilothouse demo` as its users run it: to the end, ended by a signal, and too short to show anything."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from pilothouse.cli.demo import demo
from support.service import PILOTHOUSE

pytestmark = pytest.mark.slow


def processes_of(directory: Path) -> list[int]:
    """Return the processes that name `directory` in their arguments."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                arguments = (entry / "cmdline").read_bytes()
            except OSError:
                continue  # it ended meanwhile
            if os.fsencode(directory) in arguments:
                found.append(int(entry.name))
    return found


def test_it_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [*PILOTHOUSE, "demo", "--seconds", "0.5"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("acknowledged objects lost  0") == 1
    assert list(tmp_path.iterdir()) == []
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_its_cluster_too(number: signal.Signals, tmp_path: Path) -> None:
    with subprocess.Popen(
        [*PILOTHOUSE, "demo", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
    ) as process:
        assert process.stdout is not None
        while (line := process.stdout.readline()) and not line.startswith("4."):
            pass
        assert len(processes_of(tmp_path)) == 1
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
        left = processes_of(tmp_path)
        for orphan in left:
            os.kill(orphan, signal.SIGKILL)
    assert (process.returncode, errors.strip(), left) == (130, "interrupted", [])
    assert list(tmp_path.iterdir()) == []


def test_a_time_that_shows_nothing_is_refused() -> None:
    done = CliRunner().invoke(demo, ["--seconds", "-1"])
    assert (done.exit_code, "not in the range" in done.output) == (2, True), done.output
