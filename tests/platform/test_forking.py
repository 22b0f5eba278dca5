"""Parts as forks: they begin as if they had been executed, and end with the codes that they would have then."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from pilothouse.platform.forking import Forked, is_module

_TOLD = """
import json, os, signal, sys
with open(sys.argv[1], "w") as file:
    json.dump({
        "name": __name__, "argv": sys.argv, "session": os.getsid(0), "pid": os.getpid(),
        "descriptors": sorted(int(each) for each in os.listdir("/proc/self/fd")),
        "stdin": os.readlink("/proc/self/fd/0"), "told": os.environ["TOLD"],
        "default": signal.getsignal(signal.SIGTERM) is signal.SIG_DFL,
    }, file)
exec(sys.argv[2])
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "fork_me.py").write_text(_TOLD)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "fork_me"


def ended(process: Forked) -> int:
    deadline = time.monotonic() + 30
    while (code := process.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return code


def begin(module: str, out: Path, then: str, keep: tuple[int, ...] = ()) -> Forked:
    return Forked([sys.executable, "-m", module, str(out), then], {"TOLD": "yes"}, keep)


def test_only_modules_of_the_same_python_are_forked() -> None:
    assert is_module([sys.executable, "-m", "x"])
    assert not is_module([sys.executable, "-c", "pass"])
    assert not is_module([sys.executable, "-m"])
    assert not is_module(["/bin/true", "-m", "x"])


def test_a_part_has_nothing_of_the_supervisor(module: str, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    mine, given = os.pipe()
    try:
        assert ended(begin(module, tmp_path / "out", "", (given,))) == 0
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(mine)
        os.close(given)
    found = json.loads((tmp_path / "out").read_text())
    assert found["name"] == "__main__"
    assert found["argv"][1:] == [str(tmp_path / "out"), ""]
    assert found["session"] == found["pid"] != os.getpid()
    # the file that it writes and the directory that it lists are its own
    assert set(found["descriptors"]) >= {0, 1, 2, given}
    assert len(found["descriptors"]) == 6
    assert (found["stdin"], found["told"], found["default"]) == (os.devnull, "yes", True)


@pytest.mark.parametrize(
    ("then", "code"),
    [
        ("sys.exit(3)", 3),
        ("sys.exit()", 0),
        ("sys.exit('why')", 1),
        ("raise ValueError('broken')", 1),
        ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
    ],
)
def test_its_end_is_told_as_of_any_process(module: str, tmp_path: Path, then: str, code: int) -> None:
    assert ended(begin(module, tmp_path / "out", then)) == code


def test_a_signal_at_once_is_not_lost_in_handlers_of_the_supervisor(module: str, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        for _ in range(20):
            process = begin(module, tmp_path / "out", "import time; time.sleep(60)")
            process.terminate()
            assert ended(process) == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_part_ends_with_a_supervisor_that_is_killed(module: str, tmp_path: Path) -> None:
    told = tmp_path / "out"
    reading, writing = os.pipe()
    supervisor = os.fork()
    if supervisor == 0:
        begin(module, told, "import time; time.sleep(60)", (writing,))
        os.close(writing)
        signal.pause()
    os.close(writing)
    deadline = time.monotonic() + 30
    while not told.exists() or not told.read_text().endswith("}"):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(supervisor, signal.SIGKILL)
    os.waitpid(supervisor, 0)
    assert os.read(reading, 1) == b""  # the part has had the other end
    os.close(reading)


def test_it_can_be_asked_to_end_and_killed(module: str, tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        process = begin(module, tmp_path / "out", "import time; time.sleep(60)")
        process.terminate() if number == signal.SIGTERM else process.kill()
        assert ended(process) == -number
        process.kill()  # it is over: nobody else who has its number now is hit
