"""What is written down of a platform: whole, true only while the lock is held, and never of another process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pilothouse.platform.notify import Notifier, service_name
from pilothouse.platform.state import (
    InUse,
    PartState,
    PlatformState,
    holder,
    is_process,
    read_state,
    start_ticks,
    state_path,
    take_lock,
    write_state,
)

_STATE = PlatformState(
    pid=7,
    started=11,
    since=1_700_000_000.5,
    state="degraded",
    program="1.0",
    parts={"apiserver": PartState("ready", 2, 9, 12, 1.5, -9, {"url": "https://x"}), "agent": PartState("waiting")},
    url="https://x",
)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    os.close(take_lock(str(tmp_path)))
    write_state(str(tmp_path), _STATE)
    assert read_state(str(tmp_path)) == _STATE
    assert Path(state_path(str(tmp_path))).stat().st_mode & 0o777 == 0o600
    assert sorted(os.listdir(tmp_path / "run")) == ["lock", "platform.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"format": 2}', '{"format": 1, "parts": {"a": {"x": 1}}}'])
def test_what_cannot_be_read_is_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "run").mkdir()
    Path(state_path(str(tmp_path))).write_text(text, encoding="utf-8")
    assert read_state(str(tmp_path)) is None


def test_a_directory_has_one_holder(tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    assert holder(home) is None
    lock = take_lock(home)
    assert holder(home) == os.getpid()
    with pytest.raises(InUse, match=f"a platform runs here already .process {os.getpid()}.") as caught:
        take_lock(home)
    assert caught.value.pid == os.getpid()
    os.close(lock)
    assert holder(home) is None
    assert Path(home).stat().st_mode & 0o777 == 0o700


def test_a_process_is_known_by_its_start_and_not_by_its_number_alone() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = start_ticks(process.pid)
    assert started is not None
    assert is_process(process.pid, started)
    assert not is_process(process.pid, started - 1)
    process.communicate(b"\n")
    assert not is_process(process.pid, started)
    assert not is_process(0, 0)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("0::/system.slice/pilothouse.service\n", "pilothouse.service"),
        ("0::/user.slice/user-1.slice/user@1.service/app.slice/boat.service/inner\n", "boat.service"),
        ("4:memory:/user.slice\n0::/init.scope\n", ""),
        ("", ""),
    ],
)
def test_a_unit_is_known_by_its_group(text: str, name: str) -> None:
    assert service_name(text) == name


def test_who_is_no_service_tells_nobody() -> None:
    environment = {"NOTIFY_SOCKET": "/no/such/socket"}
    notifier = Notifier(environment)
    assert (notifier.is_wanted, environment) == (True, {})
    notifier.tell("READY=1")
    assert not Notifier({}).is_wanted
    Notifier({}).tell("READY=1")
