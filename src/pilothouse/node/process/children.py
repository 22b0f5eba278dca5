"""A keeper's children: those on their way to their program, and those that end."""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Callable
from typing import Any

from . import wire
from .child import Spawned
from .spec import parent_of

__all__ = ["Children"]

_ADOPT_ROUNDS, _ADOPT_PAUSE = 2000, 0.0005


class _Pending:
    """A spawned process that does not run its program yet, and who wants to know."""

    def __init__(self, spawned: Spawned, done: Callable[[dict[str, Any]], None]) -> None:
        self.spawned = spawned
        self.done = done
        self.pid = 0
        self.fault: dict[str, Any] | None = None
        self.terminal = -1


class Children:
    """Follows spawned processes and collects those that ended; `ended` gets id, exit code and signal of each."""

    def __init__(self, selector: selectors.BaseSelector, ended: Callable[[int, int, int], None]) -> None:
        self._selector = selector
        self._ended = ended
        self._pending: dict[int, _Pending] = {}

    def follow(self, spawned: Spawned, done: Callable[[dict[str, Any]], None]) -> None:
        """Tell `done` once the program runs (`pid`, `terminal`), or why it does not (`error`, `code`)."""
        pending = _Pending(spawned, done)
        self._pending[spawned.report.fileno()] = pending
        spawned.report.setblocking(False)
        self._selector.register(spawned.report, selectors.EVENT_READ, lambda: self._report(pending))

    def _report(self, pending: _Pending) -> None:
        report = pending.spawned.report
        try:
            got = wire.receive(report)
        except BlockingIOError:
            return
        if got is not None:
            message, fds = got
            if "pid" in message:
                pending.pid = int(message["pid"])
                self._adopt(pending)
            if "error" in message:
                pending.fault = message
            pending.terminal = fds[0] if fds else pending.terminal
            return
        self._selector.unregister(report)
        del self._pending[report.fileno()]
        report.close()
        os.close(pending.spawned.gate)
        if pending.fault is not None and pending.terminal >= 0:
            os.close(pending.terminal)
        if pending.fault is None and pending.pid:
            # It runs, or is over by now.
            pending.done({"pid": pending.pid, "terminal": pending.terminal})
        else:
            pending.done(pending.fault or {"error": "the process went away while it was being made", "code": 128})
        self.reap()

    def _adopt(self, pending: _Pending) -> None:
        """Let the second child go on as soon as it is a child of this process."""
        for _ in range(_ADOPT_ROUNDS):
            self.reap()
            if parent_of(pending.pid) in {os.getpid(), 0}:
                break
            time.sleep(_ADOPT_PAUSE)
        with contextlib.suppress(BrokenPipeError):
            os.write(pending.spawned.gate, b"!")

    def reap(self) -> None:
        """Collect children that ended; those still on their way wait until they are known."""
        starting = {pending.pid for pending in self._pending.values()}
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in starting:
                # Of the latter its socket tells next; it is collected right after that.
                return
            os.waitpid(found.si_pid, 0)
            killed = found.si_code != os.CLD_EXITED
            code, number = (128 + found.si_status, found.si_status) if killed else (found.si_status, 0)
            self._ended(found.si_pid, code, number)
