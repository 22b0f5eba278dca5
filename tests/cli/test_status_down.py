"""`pilothouse status` and `down` beside a real `up`: what is said, in every format, and that the right process ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from pilothouse.cli.home import age, seconds
from pilothouse.platform.state import PartState, PlatformState, holder, take_lock, write_state
from support.service import PILOTHOUSE, pilothouse

pytestmark = pytest.mark.slow


@contextmanager
def running(home: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a control plane without a node until it is ready."""
    command = [*PILOTHOUSE, "up", "--data-dir", str(home), "--listen", "127.0.0.1:0", "--without", "agent,scheduler"]
    with subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready: ")
            yield process
        finally:
            process.terminate()
            process.wait(30)


def status(home: Path, *options: str) -> tuple[int, Any]:
    done = pilothouse("status", "--data-dir", str(home), "-o", "json", *options, check=False)
    return done.returncode, json.loads(done.stdout)


def test_status_tells_all_of_a_platform_that_runs_and_down_ends_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home) as process:
        code, found = status(home, "--wait", "25s")
        assert (code, found["problems"], found["platform"]["state"]) == (0, [], "ready")
        assert found["platform"]["pid"] == process.pid
        assert found["api"]["state"] == "ready"
        parts = {part["name"]: part for part in found["parts"]}
        idle = parts.pop("gateway")
        assert (idle["state"], idle["pid"], idle["memory_bytes"]) == ("idle", 0, None)
        assert sorted(parts) == ["apiserver", "controllers", "supervisor"]
        for part in parts.values():
            assert (part["state"], part["restarts"]) == ("ready", 0)
            assert part["memory_bytes"] > 1 << 20
            assert 0 <= part["uptime_seconds"] < 120
            assert os.path.exists(f"/proc/{part['pid']}")
        shown = pilothouse("status", "--data-dir", str(home), "--wait", "25s").stdout
        assert shown.splitlines()[0].startswith("platform    ready, ")
        assert "\nNAME " in shown
        assert shown.endswith("all is well\n")
        again = yaml.safe_load(pilothouse("status", "--data-dir", str(home), "--wait", "25s", "-o", "yaml").stdout)
        assert again["api"] == found["api"]

        done = pilothouse("down", "--data-dir", str(home), "-o", "json")
        assert json.loads(done.stdout)["how"] == "stopped"
        assert process.wait(20) == 0
    assert not any(os.path.exists(f"/proc/{part['pid']}") for part in parts.values())
    code, found = status(home)
    assert (code, found["platform"]["state"], found["problems"]) == (3, "not running", ["no platform runs here"])
    assert json.loads(pilothouse("down", "--data-dir", str(home), "-o", "json").stdout)["how"] == "not running"


def test_a_script_waits_until_all_is_well(tmp_path: Path) -> None:
    command = [*PILOTHOUSE, "up", "--data-dir", str(tmp_path), "--listen", "127.0.0.1:0", "--without", "agent"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        done = pilothouse("status", "--data-dir", str(tmp_path), "--wait", "25s", "-o", "json")
        process.terminate()
    assert json.loads(done.stdout)["platform"]["state"] == "ready"
    done = pilothouse("status", "--data-dir", str(tmp_path), "--wait", "0.3", check=False)
    assert (done.returncode, done.stdout.splitlines()[0]) == (3, f"not running: {tmp_path}")


def test_a_part_that_is_not_well_is_a_problem(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home):
        before = {part["name"]: part["pid"] for part in status(home)[1]["parts"]}
        os.kill(before["controllers"], signal.SIGKILL)
        end = time.monotonic() + 30
        while True:
            code, found = status(home)
            part = next(part for part in found["parts"] if part["name"] == "controllers")
            if (part["state"], part["restarts"]) == ("ready", 1) or time.monotonic() > end:
                break
        assert (code, part["last_code"]) == (1, -9)
        told = [text for text in found["problems"] if text.startswith("controllers was started again ")]
        assert [text.split(" ago")[1] for text in told] == [", it ended with -9 last"]

        os.kill(before["apiserver"], signal.SIGSTOP)
        code, found = status(home)
        os.kill(before["apiserver"], signal.SIGCONT)
        assert (code, found["api"]["state"]) == (1, "cannot be reached")


def test_a_platform_that_was_killed_is_not_taken_for_one_that_runs(tmp_path: Path) -> None:
    """Its process number may be another's by then: here it is this test's."""
    home = str(tmp_path)
    os.close(take_lock(home))
    state = PlatformState(os.getpid(), 1, 0.0, "ready", "1", {"apiserver": PartState("ready", 0, os.getpid(), 1)})
    write_state(home, state)
    code, found = status(tmp_path)
    assert (code, found["platform"]["state"]) == (3, "killed")
    shown = pilothouse("status", "--data-dir", home, check=False).stdout
    assert f"start it: pilothouse up --data-dir {home}\n" in shown
    assert json.loads(pilothouse("down", "--data-dir", home, "-o", "json").stdout)["how"] == "not running"
    assert holder(home) is None


def test_down_ends_a_platform_that_does_not_listen(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with running(home) as process:
        parts = [part["pid"] for part in status(home)[1]["parts"]]
        os.kill(process.pid, signal.SIGSTOP)
        done = pilothouse("down", "--data-dir", str(home), "--timeout", "1", "-o", "json")
        assert json.loads(done.stdout)["how"] == "killed"
        assert process.wait(20) == -signal.SIGKILL
    for pid in parts[1:]:  # their lifelines told them
        stat = Path(f"/proc/{pid}/stat")
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has directories of others")
def test_what_is_another_users_is_left_to_that_user(tmp_path: Path) -> None:
    os.close(take_lock(str(tmp_path / "home")))
    for place in ("pki", "store"):
        (tmp_path / "home" / place).mkdir()
        os.chown(tmp_path / "home" / place, 65534, 65534)
    os.chown(tmp_path / "home", 65534, 65534)
    for command in (["down"], ["backup", str(tmp_path / "b.tar")]):
        done = pilothouse(*command, "--data-dir", str(tmp_path / "home"), check=False)
        assert done.returncode in {1, 5}
        assert f"{tmp_path / 'home'}: is of user 65534" in done.stderr
        assert "sudo -u '#65534'" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["home"]


def test_systemd_is_not_worked_against(tmp_path: Path) -> None:
    home = str(tmp_path)
    lock = take_lock(home)
    write_state(home, PlatformState(os.getpid(), 1, 0.0, "ready", "1", {}, service="pilothouse.service"))
    done = pilothouse("down", "--data-dir", home, check=False)
    os.close(lock)
    assert (done.returncode, "hint: `systemctl stop pilothouse.service`" in done.stderr) == (5, True)


@pytest.mark.parametrize(("text", "found"), [("30", 30.0), ("1.5", 1.5), ("30s", 30.0), ("1m30s", 90.0), ("0", 0.0)])
def test_durations_are_read(text: str, found: float) -> None:
    assert seconds(text) == found


@pytest.mark.parametrize("text", ["", "soon", "-5s", "5 s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="want a duration"):
        seconds(text)


@pytest.mark.parametrize(
    ("passed", "shown"), [(3.9, "3s"), (119, "119s"), (120, "2m"), (130, "2m10s"), (7260, "2h1m"), (200_000, "2d7h")]
)
def test_ages_are_short(passed: float, shown: str) -> None:
    assert age(passed) == shown
