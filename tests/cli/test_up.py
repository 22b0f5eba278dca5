"""`pilothouse up`: it says when it is ready, keeps its data to its user, and stops when told."""

from __future__ import annotations

import signal
import stat
import subprocess
from pathlib import Path

import pytest

from support.service import PILOTHOUSE, pilothouse

pytestmark = pytest.mark.slow


def test_it_stays_until_it_is_told_to_stop(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with subprocess.Popen(
        [*PILOTHOUSE, "up", "--home", str(home), "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert (process.returncode, ready.startswith("ready: serving etcd v3 on http://127.0.0.1:")) == (0, True)
    assert f"data in {home / 'store'}" in ready
    assert stat.S_IMODE(home.stat().st_mode) == 0o700


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for home in (tmp_path / "file", tmp_path / "file" / "below"):
        done = pilothouse("up", "--home", str(home), "--listen", "127.0.0.1:0", check=False)
        assert (done.returncode, done.stderr.splitlines()[0].startswith(f"error: --home {home}: ")) == (2, True)
        assert "--debug" not in done.stderr


def test_plain_text_stays_on_this_machine(tmp_path: Path) -> None:
    done = pilothouse("up", "--home", str(tmp_path / "home"), "--listen", "0.0.0.0:0", check=False)
    assert (done.returncode, "plain text is served on loopback only" in done.stderr) == (2, True)
    assert "--tls-key to `pilothouse store serve`" in done.stderr, "`up` itself has no such options"
