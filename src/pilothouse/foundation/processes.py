"""Running other programs: one way, with a time limit, bounded output and no process left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shlex
import signal
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Completed", "ProcessError", "ProcessFailed", "ProcessNotStarted", "ProcessTimeout", "inherit", "run"]

_CHUNK = 65_536
_TAIL = 500


@dataclass(frozen=True, slots=True)
class Completed:
    """How a command ended.

    `status` is the exit status, or minus the signal that ended it. `stdout` holds the first bytes up to the limit,
    `stderr` the last ones, because that is where the reason stands; `*_cut` counts the bytes left out.
    """

    command: tuple[str, ...]
    status: int
    stdout: bytes
    stderr: bytes
    stdout_cut: int
    stderr_cut: int
    seconds: float


class ProcessError(Exception):
    """Root of the errors of `run`."""


class ProcessNotStarted(ProcessError):
    """The program is not there, or may not be run."""


class ProcessFailed(ProcessError):
    """The program ended with a status other than 0; `completed` holds everything known."""

    def __init__(self, completed: Completed) -> None:
        super().__init__(f"{_shown(completed.command)}: {_reason(completed.status)}{_tail(completed.stderr)}")
        self.completed = completed


class ProcessTimeout(ProcessError):
    """The program did not end in time and was killed with all its children; `completed` is what it had printed."""

    def __init__(self, completed: Completed, timeout: float) -> None:
        super().__init__(f"{_shown(completed.command)}: not done after {timeout:g} s{_tail(completed.stderr)}")
        self.completed = completed


def inherit(*names: str, **extra: str) -> dict[str, str]:
    """Return an environment of PATH, HOME and LANG, the variables `names` of our own, and `extra`."""
    wanted = ("PATH", "HOME", "LANG", *names)
    return {name: os.environ[name] for name in wanted if name in os.environ} | extra


async def run(  # noqa: PLR0913  # a process has this many properties, and all but two have a default
    command: Sequence[str],
    *,
    env: Mapping[str, str],
    timeout: float = 60.0,  # noqa: ASYNC109  # on timeout the whole process group has to go, which only we can do
    stdin: bytes = b"",
    cwd: str | None = None,
    max_output: int = 1 << 20,
    grace: float = 1.0,
    check: bool = True,
    memory: int = 0,
    end_when_cut: bool = False,
) -> Completed:
    """Run `command` without a shell in its own process group and return how it ended.

    `env` is the whole environment (see `inherit`). `timeout` is in seconds; after it, and on cancellation, the group
    gets SIGTERM, after `grace` seconds SIGKILL. `max_output` bounds stdout and stderr each, in bytes; what is beyond
    is read and dropped, so the program never blocks on us; with `end_when_cut` the group is killed where stdout is
    cut, which is then no failure. `memory` bounds the data of each process of it, in bytes, where the system can
    (Linux). Secrets belong in `env` or `stdin`: errors show the command. Raises `ProcessNotStarted`, `ProcessTimeout`,
    and with `check` `ProcessFailed` for a status other than 0.
    """
    argv = tuple(command)
    started = time.monotonic()
    process = await _start(argv, env, cwd)
    _bound(process, memory)
    output = _Head(max_output)
    errors = _Tail(max_output)

    def completed() -> Completed:
        status = process.returncode if process.returncode is not None else -signal.SIGKILL
        seconds = time.monotonic() - started
        return Completed(argv, status, output.bytes(), errors.bytes(), output.cut, errors.cut, seconds)

    try:
        async with asyncio.timeout(timeout), asyncio.TaskGroup() as group:
            group.create_task(_feed(process.stdin, stdin))
            group.create_task(_drain(process.stdout, output, process if end_when_cut else None))
            group.create_task(_drain(process.stderr, errors))
            await process.wait()
    except TimeoutError:
        await asyncio.shield(_end_group(process, grace))
        raise ProcessTimeout(completed(), timeout) from None
    except BaseException:
        await asyncio.shield(_end_group(process, grace))
        raise
    finally:
        _release(process)
    result = completed()
    if check and result.status != 0 and not (end_when_cut and result.stdout_cut):
        raise ProcessFailed(result)
    return result


class _Head:
    """Keeps the first bytes."""

    def __init__(self, limit: int) -> None:
        self._kept = bytearray()
        self._limit = limit
        self.cut = 0

    def add(self, chunk: bytes) -> None:
        fits = chunk[: self._limit - len(self._kept)]
        self._kept += fits
        self.cut += len(chunk) - len(fits)

    def bytes(self) -> bytes:
        return bytes(self._kept)


class _Tail:
    """Keeps the last bytes."""

    def __init__(self, limit: int) -> None:
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._limit = limit
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._size += len(chunk)
        while self._chunks and self._size - len(self._chunks[0]) >= self._limit:
            gone = len(self._chunks.popleft())
            self._size -= gone
            self._dropped += gone

    @property
    def cut(self) -> int:
        return self._dropped + max(0, self._size - self._limit)

    def bytes(self) -> bytes:
        joined = b"".join(self._chunks)
        return joined[max(0, len(joined) - self._limit) :]


async def _start(argv: tuple[str, ...], env: Mapping[str, str], cwd: str | None) -> asyncio.subprocess.Process:
    if not argv:
        raise ProcessNotStarted("command: empty; name at least a program")
    if any("\0" in text for text in (*argv, *env, *env.values())):
        # Event loops differ: one refuses it, another runs what stands before it.
        raise ProcessNotStarted(f"{_shown(argv)}: cannot be started: a null character in the command or environment")
    pipe = asyncio.subprocess.PIPE
    try:
        return await asyncio.create_subprocess_exec(
            *argv, stdin=pipe, stdout=pipe, stderr=pipe, cwd=cwd, env=dict(env), start_new_session=True
        )
    except OSError as error:
        where = f" in {cwd}" if cwd else ""
        raise ProcessNotStarted(f"{_shown(argv)}: cannot be started{where}: {error.strerror}") from error


async def _feed(stream: asyncio.StreamWriter | None, data: bytes) -> None:
    if stream is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        if data and not stream.is_closing():  # a process that has ended already reads nothing; uvloop would raise
            stream.write(data)
            await stream.drain()
        stream.close()
        await stream.wait_closed()


async def _drain(
    stream: asyncio.StreamReader | None, into: _Head | _Tail, bounded: asyncio.subprocess.Process | None = None
) -> None:
    while stream is not None and (chunk := await stream.read(_CHUNK)):
        into.add(chunk)
        if bounded is not None and into.cut:
            _signal_group(bounded, signal.SIGKILL)


def _bound(process: asyncio.subprocess.Process, memory: int) -> None:
    """Bound the data of a process and of what it starts. It may have begun, but cannot have grown yet."""
    if memory and hasattr(resource, "prlimit"):
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_DATA, (memory, memory))


async def _end_group(process: asyncio.subprocess.Process, grace: float) -> None:
    _signal_group(process, signal.SIGTERM)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), grace)
    # The leader may be gone while children of its group live on, therefore always.
    _signal_group(process, signal.SIGKILL)
    await process.wait()


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _release(process: asyncio.subprocess.Process) -> None:
    """Close the pipes even where a process that left the group still holds their other ends."""
    transport = getattr(process, "_transport", None)
    if transport is not None:
        transport.close()


def _shown(argv: tuple[str, ...]) -> str:
    text = shlex.join(argv)
    return text if len(text) <= _TAIL else f"{text[:_TAIL]}…"


def _reason(status: int) -> str:
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"ended by signal {-status}"


def _tail(stderr: bytes) -> str:
    text = stderr[-_TAIL:].decode(errors="replace").strip()
    return f": {text}" if text else ""
