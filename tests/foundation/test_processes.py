from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

import pytest

from pilothouse.foundation.processes import (
    ProcessFailed,
    ProcessNotStarted,
    ProcessTimeout,
    inherit,
    run,
)

SPAWN = """
import os, subprocess, sys, time
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", deaf])
print(child.pid, flush=True)
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(600)
"""


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


async def wait_until_gone(pid: int) -> None:
    """Wait for the kernel to finish a killed process that is not our child; a zombie counts as gone."""
    for _ in range(1000):
        try:
            state = (await asyncio.to_thread(Path(f"/proc/{pid}/stat").read_text)).rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return
        if state == "Z":
            return
        await asyncio.sleep(0.005)
    pytest.fail(f"process {pid} lives on")


async def test_output_input_and_status() -> None:
    code = "import sys; print(sys.stdin.read()); print('warn', file=sys.stderr); sys.exit(3)"
    done = await run(python(code), env={}, stdin=b"hello", check=False)
    assert (done.status, done.stdout, done.stderr) == (3, b"hello\n", b"warn\n")
    assert (done.stdout_cut, done.stderr_cut) == (0, 0)


async def test_a_failure_names_command_status_and_the_end_of_stderr() -> None:
    code = "import sys; sys.exit('no such thing')"
    with pytest.raises(ProcessFailed, match=r"exit status 1: no such thing$") as caught:
        await run(python(code), env={})
    assert str(caught.value).startswith(sys.executable)
    assert caught.value.completed.status == 1
    with pytest.raises(ProcessFailed, match="ended by SIGKILL"):
        await run(python("import os; os.kill(os.getpid(), 9)"), env={})


async def test_output_is_bounded_and_says_what_is_missing() -> None:
    code = "import sys; sys.stdout.write('a' * 300_000 + 'b'); sys.stderr.write('c' + 'd' * 300_000)"
    done = await run(python(code), env={}, max_output=1000)
    assert done.stdout == b"a" * 1000
    assert done.stdout_cut == 299_001
    assert done.stderr == b"d" * 1000
    assert done.stderr_cut == 299_001


async def test_a_program_that_does_not_read_its_input() -> None:
    done = await run(python("print('done')"), env={}, stdin=b"x" * 10_000_000)
    assert done.stdout == b"done\n"


async def test_a_timeout_kills_the_whole_group(tmp_path: Path) -> None:
    with pytest.raises(ProcessTimeout, match=r"not done after 1 s") as caught:
        await run(python(SPAWN, str(tmp_path / "pid")), env=inherit(), timeout=1, grace=0.05)
    await wait_until_gone(int(caught.value.completed.stdout))


async def test_cancelling_kills_the_whole_group(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "pid"
    task = asyncio.create_task(run(python(SPAWN, str(path)), env=inherit(), grace=0.05))
    while not (path.exists() and path.read_text()):  # noqa: ASYNC110  # another process is waited for
        await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await wait_until_gone(int(path.read_text()))
    del task
    gc.collect()
    assert caplog.records == []


async def test_what_cannot_be_started_says_why(tmp_path: Path) -> None:
    with pytest.raises(ProcessNotStarted, match=r"no-such-program x: cannot be started: No such file"):
        await run(["no-such-program", "x"], env={})
    with pytest.raises(ProcessNotStarted, match="cannot be started in"):
        await run(python("pass"), env={}, cwd=str(tmp_path / "none"))
    with pytest.raises(ProcessNotStarted, match="empty"):
        await run([], env={})
    with pytest.raises(ProcessNotStarted, match="null"):
        await run(["a\0b"], env={})
    with pytest.raises(ProcessNotStarted, match="null"):
        await run(["a"], env={"A": "b\0"})


async def test_the_environment_is_only_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PILOTHOUSE_SECRET", "x")
    monkeypatch.setenv("WANTED", "w")
    environment = inherit("WANTED", "NOT_THERE", EXTRA="e")
    assert environment["WANTED"] == "w"
    assert environment["PATH"] == os.environ["PATH"]
    done = await run(python("import os; print(sorted(os.environ))"), env=environment)
    assert b"PILOTHOUSE_SECRET" not in done.stdout
    assert b"EXTRA" in done.stdout


@pytest.mark.parametrize("data", [b"", b"x" * 100_000])
def test_programs_that_end_before_they_are_fed_are_no_failure_on_any_loop(data: bytes) -> None:
    """Under uvloop what is written to a pipe that is closed already raises RuntimeError."""
    uvloop = pytest.importorskip("uvloop")

    async def many() -> list[int]:
        ended = await asyncio.gather(*(run(["true"], env=inherit(), stdin=data) for _ in range(40)))
        return [each.status for each in ended]

    assert uvloop.run(many()) == [0] * 40


async def test_a_program_that_prints_without_end_is_ended() -> None:
    code = "import sys\nwhile True: sys.stdout.write('x' * 65536)"
    done = await run(python(code), env={}, timeout=60, max_output=100_000, end_when_cut=True)
    assert len(done.stdout) == 100_000
    assert done.status == -9
    assert done.seconds < 60


@pytest.mark.skipif(sys.platform != "linux", reason="a limit of Linux")
async def test_the_memory_of_a_program_is_bounded() -> None:
    code = "import sys\nsys.stdin.read()\nbytes = bytearray(400 << 20)\nprint(len(bytes))"
    assert (await run(python(code), env={})).status == 0
    with pytest.raises(ProcessFailed, match="MemoryError"):
        await run(python(code), env={}, memory=200 << 20)
