"""The supervisor with real processes: small Python programs that say they are ready, end, or hang."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pilothouse.platform.state import holder, read_state, start_ticks
from pilothouse.platform.supervisor import Part, plan_from

pytestmark = pytest.mark.slow

_PART = """
import asyncio, os, signal, sys
from pilothouse.foundation.lifeline import Lifeline

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    line = Lifeline.from_environment()
    line.watch(stop.set)
    with open(sys.argv[1], "a") as file:
        file.write(f"{os.getpid()}\\n")
    line.ready(url="https://x", kubeconfig="k")
    await stop.wait()

asyncio.run(main())
"""


class Running:
    """A supervisor of programs that write their process ids to files."""

    def __init__(self, directory: Path, names: list[str], **environment: str) -> None:
        self.files = {name: directory / name for name in names}
        parts = [[name, [sys.executable, "-c", _PART, str(file)], []] for name, file in self.files.items()]
        self.directory = directory / "data"
        plan = {"directory": str(self.directory), "parts": parts}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pilothouse.platform", json.dumps(plan)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )

    def pids(self, name: str) -> list[int]:
        file = self.files[name]
        return [int(line) for line in file.read_text().split()] if file.exists() else []


def states(running: Running) -> dict[str, tuple[str, int]]:
    state = read_state(str(running.directory))
    return {} if state is None else {name: (part.state, part.restarts) for name, part in state.parts.items()}


def eventually(condition: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_part_that_is_killed_comes_again_and_all_end_when_told(tmp_path: Path) -> None:
    running = Running(tmp_path, ["apiserver", "controllers"])
    try:
        assert running.process.stdout is not None
        assert running.process.stdout.readline() == "ready: serving Kubernetes on https://x, kubeconfig in k\n"
        (first,) = running.pids("controllers")
        os.kill(first, signal.SIGKILL)
        eventually(lambda: len(running.pids("controllers")) == 2)
        eventually(lambda: states(running) == {"apiserver": ("ready", 0), "controllers": ("ready", 1)})
        assert holder(str(running.directory)) == running.process.pid
        running.process.send_signal(signal.SIGTERM)
        _, errors = running.process.communicate(timeout=20)
    finally:
        running.process.kill()
    assert running.process.returncode == 0
    told = errors.splitlines()
    assert sorted(re.sub(r"[\d.]+ s", "N s", line) for line in told[:2]) == [
        "apiserver: ready after N s",
        "controllers: ready after N s",
    ]
    assert told[2:] == ["controllers ended with -9 and is started again", "controllers: ready again"]
    assert (holder(str(running.directory)), read_state(str(running.directory))) == (None, None)
    assert not any(is_there(pid) for name in running.files for pid in running.pids(name))


def test_parts_end_when_their_supervisor_is_killed(tmp_path: Path) -> None:
    running = Running(tmp_path, ["apiserver", "controllers"])
    assert running.process.stdout is not None
    running.process.stdout.readline()
    pids = [pid for name in running.files for pid in running.pids(name)]
    running.process.kill()
    running.process.communicate()
    eventually(lambda: not any(is_there(pid) for pid in pids))


def test_a_program_that_is_not_there_is_told_and_tried_again(tmp_path: Path) -> None:
    text = f'{{"parts": [["apiserver", ["{tmp_path}/none"], []]]}}'
    assert plan_from(text).parts == [Part("apiserver", (f"{tmp_path}/none",), frozenset())]
    process = subprocess.Popen(
        [sys.executable, "-m", "pilothouse.platform", text], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    told = [process.stderr.readline() for _ in range(4)]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert "apiserver could not be started: " in told[0]
    assert "apiserver could not be started: " in told[2]


def test_one_directory_has_one_platform_and_the_other_is_told_whose_it_is(tmp_path: Path) -> None:
    running = Running(tmp_path, ["apiserver"])
    try:
        assert running.process.stdout is not None
        running.process.stdout.readline()
        other = Running(tmp_path, ["apiserver"])
        _, errors = other.process.communicate(timeout=20)
        assert other.process.returncode == 5
        said, hint = errors.splitlines()
        assert said == f"error: {running.directory}: a platform runs here already (process {running.process.pid})"
        assert f"`pilothouse down --data-dir {running.directory}` ends it" in hint
        assert len(running.pids("apiserver")) == 1
    finally:
        running.process.terminate()
        running.process.communicate(timeout=20)


def test_the_next_platform_waits_for_what_a_killed_one_left(tmp_path: Path) -> None:
    """A part that has not noticed yet would have the store and the port."""
    running = Running(tmp_path, ["apiserver", "controllers"])
    assert running.process.stdout is not None
    running.process.stdout.readline()
    for pid in (pids := [running.pids(name)[0] for name in running.files]):
        os.kill(pid, signal.SIGSTOP)  # so that it does not notice in time
    running.process.kill()
    running.process.wait()  # its pipes are still those of its parts
    again = Running(tmp_path, ["apiserver", "controllers"])
    try:
        assert again.process.stdout is not None
        assert again.process.stdout.readline().startswith("ready: ")
        assert not any(start_ticks(pid) for pid in pids)
    finally:
        running.process.communicate()
        again.process.terminate()
        again.process.communicate(timeout=20)


def test_systemd_is_told_when_it_is_ready_and_when_it_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        running = Running(tmp_path, ["apiserver"], NOTIFY_SOCKET=str(tmp_path / "notify"))
        try:
            told = [manager.recv(4096).decode() for _ in range(2)]
            environment = Path(f"/proc/{running.pids('apiserver')[0]}/environ").read_bytes()
            running.process.terminate()
            told.append(manager.recv(4096).decode())
        finally:
            running.process.kill()
            running.process.communicate()
    assert told == [
        "STATUS=starting: apiserver",
        "READY=1\nSTATUS=serving https://x",
        "STOPPING=1\nSTATUS=stopping; pods run on",
    ]
    assert b"NOTIFY_SOCKET" not in environment


def test_a_terminal_sees_what_is_waited_for_and_then_the_table(tmp_path: Path) -> None:
    upper, lower = pty.openpty()
    parts = [["apiserver", [sys.executable, "-c", _PART, str(tmp_path / "pids")], []]]
    process = subprocess.Popen(
        [sys.executable, "-m", "pilothouse.platform", json.dumps({"parts": parts})], stdout=lower, stderr=lower
    )
    os.close(lower)
    shown = b""
    try:
        while b"parts" not in shown:
            shown += os.read(upper, 4096)
        process.send_signal(signal.SIGINT)
        while b"stopping" not in shown:
            shown += os.read(upper, 4096)
        assert process.wait(20) == 0
    finally:
        process.kill()
        os.close(upper)
    text = shown.decode()
    assert "\rwaiting for apiserver (" in text.replace("\x1b[K", "")
    assert "\n  API         https://x\r\n  kubeconfig  k\r\n  parts       apiserver (in " in text
    assert text.endswith("stopping; pods run on\r\n")
