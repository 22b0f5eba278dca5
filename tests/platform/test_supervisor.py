"""The supervisor with real processes: small Python programs that say they are ready, end, or hang."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pilothouse.platform.supervisor import Part, parts_from

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

    def __init__(self, directory: Path, names: list[str]) -> None:
        self.files = {name: directory / name for name in names}
        parts = [[name, [sys.executable, "-c", _PART, str(file)], []] for name, file in self.files.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pilothouse.platform", json.dumps(parts)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pids(self, name: str) -> list[int]:
        file = self.files[name]
        return [int(line) for line in file.read_text().split()] if file.exists() else []


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
        running.process.send_signal(signal.SIGTERM)
        _, errors = running.process.communicate(timeout=20)
    finally:
        running.process.kill()
    assert running.process.returncode == 0
    assert errors == "controllers ended with -9 and is started again\n"
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
    text = f'[["apiserver", ["{tmp_path}/none"], []]]'
    assert parts_from(text) == [Part("apiserver", (f"{tmp_path}/none",), frozenset())]
    process = subprocess.Popen(
        [sys.executable, "-m", "pilothouse.platform", text], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    told = [process.stderr.readline() for _ in range(3)]
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert "apiserver could not be started: " in told[0]
    assert "apiserver could not be started: " in told[2]
