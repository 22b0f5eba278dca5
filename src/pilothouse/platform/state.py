"""What is written down of a platform that runs: DATA/run/platform.json, and the lock that says whether it is true.

The supervisor holds `run/lock` for as long as it lives and rewrites the file at each change; whoever asks looks at the
lock first, for the file stays behind when its writer is killed. Imports next to nothing, as the supervisor must.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

__all__ = [
    "FORMAT",
    "InUse",
    "PartState",
    "PlatformState",
    "holder",
    "is_process",
    "read_state",
    "start_ticks",
    "state_path",
    "take_lock",
    "write_state",
]

FORMAT: Final = 1
"""Of the file; one of another number was written by another program and is not read."""
_STARTED: Final = 19
"""Of the fields behind the name in /proc/PID/stat, which is where `starttime` stands (field 22 of all)."""

_TRIES: Final = 5
_PAUSE_SECONDS: Final = 0.02


class InUse(Exception):
    """Another process runs the platform of this directory; `pid` is its id, 0 where it is not known."""

    def __init__(self, directory: str, pid: int) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"{directory}: a platform runs here already ({who})")
        self.pid = pid


class PartState(NamedTuple):
    """One process of the platform. pid, started: 0 while there is none; started in clock ticks, as /proc has it.

    since: when it came into its state, in seconds of Unix time. code: how it ended last, None for never. told: what it
    said when it was ready.
    """

    state: str
    restarts: int = 0
    pid: int = 0
    started: int = 0
    since: float = 0.0
    code: int | None = None
    told: Mapping[str, str] = {}


class PlatformState(NamedTuple):
    """The whole platform. state: starting, ready, degraded or stopping. service: its systemd unit, empty without."""

    pid: int
    started: int
    since: float
    state: str
    program: str
    parts: Mapping[str, PartState]
    url: str = ""
    kubeconfig: str = ""
    service: str = ""


def state_path(directory: str) -> str:
    """Return the file of the platform in a data directory."""
    return os.path.join(directory, "run", "platform.json")


def start_ticks(pid: int) -> int | None:
    """Return when a process began, in clock ticks since boot; None where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    # A zombie does nothing any more, and whoever waits for its end has waited long enough.
    return None if len(fields) <= _STARTED or fields[0] in {b"Z", b"X"} else int(fields[_STARTED])


def is_process(pid: int, started: int) -> bool:
    """Whether the process that had this id when it was written down is still there."""
    return pid > 0 and start_ticks(pid) == started


def take_lock(directory: str) -> int:
    """Take a data directory for this process, making DIR and DIR/run where missing; return the descriptor of the lock.

    It is free again when the process ends, however that comes. Raises InUse, OSError.
    """
    os.makedirs(directory, 0o700, exist_ok=True)
    run = os.path.join(directory, "run")
    with contextlib.suppress(FileExistsError):
        os.mkdir(run, 0o700)
    fd = os.open(os.path.join(run, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    for left in reversed(range(_TRIES)):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:  # it may be somebody who only looks, as `holder` does
            if left:
                time.sleep(_PAUSE_SECONDS)
                continue
            owner = _number(os.pread(fd, 32, 0))
            os.close(fd)
            raise InUse(directory, owner) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd


def holder(directory: str) -> int | None:
    """Return the process that has a data directory, 0 where its id is not known, None for none. Raises OSError."""
    try:
        fd = os.open(os.path.join(directory, "run", "lock"), os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _number(os.pread(fd, 32, 0))
    else:
        return None
    finally:
        os.close(fd)


def _number(data: bytes) -> int:
    return int(data) if data.strip().isdigit() else 0


def write_state(directory: str, state: PlatformState) -> None:
    """Put a state in the place of the former one, whole; it need not outlive the machine. Raises OSError."""
    plain = {"format": FORMAT, **state._asdict(), "parts": {name: part._asdict() for name, part in state.parts.items()}}
    path = state_path(directory)
    temporary = f"{path}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, json.dumps(plain, indent=1).encode() + b"\n")
    finally:
        os.close(fd)
    os.rename(temporary, path)


def read_state(directory: str) -> PlatformState | None:
    """Return what was last written, by whoever runs or by one that was killed; None where there is nothing to read."""
    try:
        with open(state_path(directory), "rb") as file:
            found: dict[str, Any] = json.load(file)
        if found.pop("format") != FORMAT:
            return None
        parts = {name: PartState(**part) for name, part in found.pop("parts").items()}
        return PlatformState(**found, parts=parts)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
