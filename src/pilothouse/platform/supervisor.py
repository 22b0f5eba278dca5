"""The process above all others of the platform: it starts them, begins anew what ends, and stops them in order.

It does nothing else, so that it hardly ever fails, and imports only what parts share, which begin as its forks. Should
it be killed all the same, the others notice by their lifelines and end; whatever started it starts it again.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, Protocol

from pilothouse.foundation.lifeline import VARIABLE

from .core import Action, Asked, Begin, Ended, Event, Finish, Kill, Ready, Spawn, Supervision, Terminate, Tick, Wanted
from .forking import Forked, is_module

__all__ = ["Part", "Plan", "Supervisor", "Watcher", "become_supervisor", "plan_from"]

_FAILED: Final = 1
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_MAX_LINE: Final = 65_536


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the platform: its name, and the command that runs it.

    hopeless: codes with which it ends, before it ever did its work, if trying again does not help. on_demand: whether
    it runs only while another part says that it is wanted.
    """

    name: str
    command: tuple[str, ...]
    hopeless: Collection[int] = ()
    on_demand: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What a supervisor is to do. directory: which it has for itself and where it writes down how all is, or empty."""

    parts: Sequence[Part]
    directory: str = ""


class Process(Protocol):
    """A part's process."""

    @property
    def pid(self) -> int:
        """Its number."""

    def poll(self) -> int | None:
        """Return the code with which it ended, None while it runs."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it at once."""


class Watcher(Protocol):
    """Is told what happens."""

    @property
    def interval(self) -> float | None:
        """Seconds after which it wants a Tick, None where it needs none."""

    def changed(self, supervisor: Supervisor, event: Event) -> None:
        """Take note of an event that has been acted on."""


def become_supervisor(parts: Sequence[Part], directory: str = "") -> NoReturn:
    """Go on as the supervisor of parts, in this process but without what it has imported.

    directory: the platform's data directory, which is refused where another platform has it. Raises OSError.
    """
    listed = [[part.name, part.command, sorted(part.hopeless), part.on_demand] for part in parts]
    plan = {"directory": directory, "parts": listed}
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "pilothouse.platform", json.dumps(plan)])  # noqa: S606  # our own program


def plan_from(text: str) -> Plan:
    """Return the plan that `become_supervisor` was given."""
    plan = json.loads(text)
    parts = [Part(name, tuple(command), frozenset(codes), *more) for name, command, codes, *more in plan["parts"]]
    return Plan(parts, plan.get("directory", ""))


class _Child:
    """A running part with the upper ends of its pipes."""

    def __init__(self, part: Part) -> None:
        below, self.lifeline = os.pipe()
        self.said, above = os.pipe()
        try:
            environment = {**os.environ, VARIABLE: f"{below},{above}"}
            self.process = _begin(part.command, environment, (below, above))
        finally:
            os.close(below)
            os.close(above)
        self.text = b""

    def close(self) -> None:
        os.close(self.lifeline)
        os.close(self.said)


def _begin(command: Sequence[str], environment: Mapping[str, str], keep: Sequence[int]) -> Process:
    if is_module(command):
        return Forked(command, environment, keep)
    return subprocess.Popen(  # noqa: S603  # parts are our own programs
        command, env=environment, pass_fds=keep, stdin=subprocess.DEVNULL, start_new_session=True
    )


class Supervisor:
    """Runs parts until it is told to stop. watchers are told of each event once it has been acted on."""

    def __init__(self, parts: Sequence[Part], watchers: Sequence[Watcher] = ()) -> None:
        on_demand = {part.name for part in parts if part.on_demand}
        self.core: Final = Supervision({part.name: part.hopeless for part in parts}, on_demand)
        self._parts = {part.name: part for part in parts}
        self._watchers = watchers
        self._children: dict[str, _Child] = {}
        self._selector = selectors.DefaultSelector()
        self._code: int | None = None

    def pids(self) -> Mapping[str, int]:
        """Return the process of each part that runs."""
        return {name: child.process.pid for name, child in self._children.items()}

    def run(self) -> int:
        """Run until all has ended; return the code to exit with. SIGTERM and SIGINT stop it, a second one at once."""
        woken, waker = os.pipe()
        for descriptor in (woken, waker):
            os.set_blocking(descriptor, False)
        before = signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, _noted) for number in (*_SIGNALS, signal.SIGCHLD)}
        self._selector.register(woken, selectors.EVENT_READ, None)
        try:
            self._step(Begin())
            while self._code is None:
                self._wait(woken)
            return self._code
        finally:
            for child in self._children.values():
                child.process.kill()
            signal.set_wakeup_fd(before)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            self._selector.close()
            os.close(woken)
            os.close(waker)

    def _wait(self, woken: int) -> None:
        for key, _ in self._selector.select(self._timeout()):
            if key.data is not None:
                self._read(key.data)
                continue
            for number in os.read(woken, 512):
                if number in _SIGNALS:
                    self._step(Asked())
        self._reap()
        due = self.core.next_due()
        if due is not None and due <= time.monotonic():
            self._step(Tick())
        for watcher in self._watchers:
            if watcher.interval is not None:
                watcher.changed(self, Tick())

    def _timeout(self) -> float | None:
        """Return the seconds until somebody wants a tick."""
        due = self.core.next_due()
        waits = [watcher.interval for watcher in self._watchers if watcher.interval is not None]
        if due is not None:
            waits.append(max(0.0, due - time.monotonic()))
        return min(waits, default=None)

    def _read(self, name: str) -> None:
        child = self._children.get(name)
        if child is None:
            return
        data = os.read(child.said, _MAX_LINE)
        if not data:
            self._selector.unregister(child.said)
            return
        *lines, child.text = (child.text + data)[-_MAX_LINE:].split(b"\n")
        for line in lines:
            self._told(name, json.loads(line))

    def _told(self, name: str, message: Mapping[str, Any]) -> None:
        """Act on what a part says by its lifeline."""
        if "ready" in message:
            self._step(Ready(name, message["ready"]))
        for wanted, is_wanted in message.get("wanted", {}).items():
            self._step(Wanted(wanted, is_wanted))

    def _reap(self) -> None:
        for name, child in [*self._children.items()]:
            code = child.process.poll()
            if code is None:
                continue
            del self._children[name]
            if child.said in self._selector.get_map():
                self._selector.unregister(child.said)
            child.close()
            self._step(Ended(name, code))

    def _step(self, event: Event) -> None:
        for action in self.core.step(event, time.monotonic()):
            self._do(action)
        for watcher in self._watchers:
            watcher.changed(self, event)

    def _spawn(self, name: str) -> None:
        try:
            child = self._children[name] = _Child(self._parts[name])
        except OSError as error:  # no process or descriptor is left; it is tried again later
            sys.stderr.write(f"error: {name} could not be started: {error}\n")
            self._step(Ended(name, _FAILED))
            return
        self._selector.register(child.said, selectors.EVENT_READ, name)

    def _do(self, action: Action) -> None:
        match action:
            case Spawn(name):
                self._spawn(name)
            case Terminate(name):
                self._children[name].process.terminate()
            case Kill(name):
                self._children[name].process.kill()
            case Finish(code):
                self._code = code


def _noted(_number: int, _frame: object) -> None:
    """Let the wake-up descriptor have it."""
