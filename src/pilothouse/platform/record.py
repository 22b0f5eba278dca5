"""The supervisor's record: it has the data directory, writes down how each part is, and tells systemd."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Final, Self

from pilothouse import __version__

from .core import Event
from .former import end_parts
from .notify import Notifier, service_name
from .state import (
    InUse,
    PartState,
    PlatformState,
    read_state,
    start_ticks,
    state_path,
    take_lock,
    write_state,
)
from .supervisor import Supervisor

__all__ = ["Record", "RecordError"]

_USAGE: Final = 2
_CONFLICT: Final = 5
_FORMER_SECONDS: Final = 5.0
"""How long parts of a platform whose supervisor was killed have to end by themselves."""


class RecordError(Exception):
    """A data directory cannot be had. hint: the way out. code: what to exit with."""

    def __init__(self, message: str, hint: str, code: int) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


class Record:
    """What is known of the platform in a data directory, for as long as this process runs it."""

    interval: Final = None

    def __init__(self, directory: str, lock: int, notifier: Notifier, *, wall: Callable[[], float] = time.time) -> None:
        self._directory = directory
        self._lock = lock
        self._notifier = notifier
        self._wall = wall
        self._pid = os.getpid()
        self._started = start_ticks(self._pid) or 0
        self._since = wall()
        self._service = _own_service() if notifier.is_wanted else ""
        self._written: PlatformState | None = None
        self._failed = False

    @classmethod
    def open(cls, directory: str) -> Self:
        """Take a data directory; wait for what is left of a platform there that was killed. Raises RecordError."""
        try:
            lock = take_lock(directory)
        except InUse as error:
            option = f"--data-dir {directory}"
            hint = f"`pilothouse status {option}` shows it, `pilothouse down {option}` ends it; or name another one"
            raise RecordError(str(error), hint, _CONFLICT) from error
        except OSError as error:
            where = error.filename or directory
            hint = "name a directory of your own with --data-dir"
            raise RecordError(f"{where}: {error.strerror or error}", hint, _USAGE) from error
        former = read_state(directory)
        end_parts(former.parts.values() if former is not None else (), _FORMER_SECONDS)
        return cls(directory, lock, Notifier())

    def close(self) -> None:
        """Let another process have the directory; nothing is said of a platform that is no more."""
        with contextlib.suppress(OSError):
            os.unlink(state_path(self._directory))
        os.close(self._lock)

    def changed(self, supervisor: Supervisor, event: Event) -> None:
        """Write down what is new, and tell systemd where the whole is in another state."""
        del event
        before, state = self._written, self._state(supervisor)
        if state == before:
            return
        self._written = state
        try:
            write_state(self._directory, state)
            self._failed = False
        except OSError as error:  # a full disk: the platform does its work all the same
            if not self._failed:
                sys.stderr.write(f"warning: {state_path(self._directory)} cannot be written: {error.strerror}\n")
            self._failed = True
        if before is None or before.state != state.state:
            self._tell(state)

    def _state(self, supervisor: Supervisor) -> PlatformState:
        core, pids = supervisor.core, supervisor.pids()
        known = self._written.parts if self._written is not None else {}
        parts = {}
        for name, (state, restarts) in core.states().items():
            parts[name] = self._part(known.get(name), state, restarts, pids.get(name, 0), core.code(name))
        told = {key: value for name in parts for key, value in core.told(name).items()}
        for name, part in parts.items():
            parts[name] = part._replace(told=dict(core.told(name)))
        return PlatformState(
            pid=self._pid,
            started=self._started,
            since=self._since,
            state=_whole(core.is_stopping, core.is_ready, self._written),
            program=__version__,
            parts=parts,
            url=told.get("url", ""),
            kubeconfig=told.get("kubeconfig", ""),
            service=self._service,
        )

    def _part(self, known: PartState | None, state: str, restarts: int, pid: int, code: int | None) -> PartState:
        same = known is not None and (known.state, known.pid) == (state, pid)
        since = known.since if known is not None and same else self._wall()
        started = known.started if known is not None and known.pid == pid else start_ticks(pid) or 0
        return PartState(state, restarts, pid, started if pid else 0, since, code)

    def _tell(self, state: PlatformState) -> None:
        down = [name for name, part in state.parts.items() if part.state not in {"ready", "idle"}]
        if state.state == "ready":
            self._notifier.tell("READY=1", f"STATUS=serving {state.url}" if state.url else "STATUS=ready")
        elif state.state == "stopping":
            self._notifier.tell("STOPPING=1", "STATUS=stopping; pods run on")
        else:
            self._notifier.tell(f"STATUS={state.state}: {', '.join(down)}")


def _whole(is_stopping: bool, is_ready: bool, before: PlatformState | None) -> str:
    if is_stopping:
        return "stopping"
    if is_ready:
        return "ready"
    return "starting" if before is None or before.state == "starting" else "degraded"


def _own_service() -> str:
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as file:
            return service_name(file.read())
    except OSError:
        return ""
