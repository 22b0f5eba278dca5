"""Supervision of the platform's processes as a pure state machine: events and the time in, actions out.

A part that ends is begun anew, each time later if it ends soon again. One that ends before it ever did its work with a
code that a person has to do something about, such as a wrong option or a taken port, ends everything with that code.
A part that is on demand is idle until another says that it is wanted, and again when it is wanted no more.
When it is told to stop, parts end in the reverse of the order in which they are listed; what takes too long is killed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

__all__ = [
    "Action",
    "Asked",
    "Begin",
    "Ended",
    "Event",
    "Finish",
    "Kill",
    "Ready",
    "Spawn",
    "Supervision",
    "Terminate",
    "Tick",
    "Wanted",
]

_FIRST_DELAY: Final = 0.1
_LAST_DELAY: Final = 10.0
_WELL_SECONDS: Final = 60.0
"""After so long a part is taken to be well, and its earlier ends are forgotten."""
_STOP_SECONDS: Final = 4.0
_LET_GO_SECONDS: Final = 20.0
"""How long a part has that is wanted no more."""
_STEP_SECONDS: Final = 2.0
"""How long those that stop first may hold up the others."""


@dataclass(frozen=True, slots=True)
class Begin:
    """Start everything."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A part does its work."""

    name: str
    told: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ended:
    """A part's process has ended, with a code or minus the number of the signal."""

    name: str
    code: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """Somebody says whether a part that is on demand is wanted."""

    name: str
    is_wanted: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants it to stop; a second time: at once."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed."""


Event = Begin | Ready | Ended | Wanted | Asked | Tick


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a part's process."""

    name: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask a part's process to end."""

    name: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End a part's process at once."""

    name: str


@dataclass(frozen=True, slots=True)
class Finish:
    """All is over; exit with the code."""

    code: int


Action = Spawn | Terminate | Kill | Finish


class _Is(Enum):
    DOWN = "down"
    IDLE = "idle"
    WAITING = "waiting"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"


_TIMED: Final = frozenset({_Is.WAITING, _Is.STOPPING})
"""States that do not last for ever, as long as not all is to stop."""


@dataclass(slots=True)
class _Part:
    name: str
    hopeless: Collection[int]
    on_demand: bool = False
    wanted: bool = False
    state: _Is = _Is.DOWN
    since: float = 0.0
    due: float = 0.0
    failures: int = 0
    restarts: int = 0
    was_ready: bool = False
    code: int | None = None
    told: Mapping[str, str] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        return self.state in {_Is.STARTING, _Is.READY, _Is.STOPPING}

    @property
    def does_its_work(self) -> bool:
        """Whether nothing more is to be had of it now: one on demand may be about to come or to go."""
        if self.state in {_Is.READY, _Is.IDLE}:
            return True
        return self.on_demand and (self.state is _Is.STOPPING or (self.state is _Is.STARTING and not self.failures))


class Supervision:
    """The state machine.

    hopeless: the parts in the order in which they start, each with the codes that end everything. on_demand: those of
    them that run only while they are wanted.
    """

    def __init__(self, hopeless: Mapping[str, Collection[int]], on_demand: Collection[str] = ()) -> None:
        self._parts = {name: _Part(name, codes, name in on_demand) for name, codes in hopeless.items()}
        self._code = 0
        self._asked_at: float | None = None
        self._finished = False

    # What is to be seen

    @property
    def is_ready(self) -> bool:
        """Whether all parts do their work, or are not wanted."""
        return all(part.does_its_work for part in self._parts.values())

    @property
    def is_stopping(self) -> bool:
        """Whether everything is to end."""
        return self._asked_at is not None

    def states(self) -> dict[str, tuple[str, int]]:
        """Return each part's state, and how often it was begun anew."""
        return {part.name: (part.state.value, part.restarts) for part in self._parts.values()}

    def told(self, name: str) -> Mapping[str, str]:
        """Return what a part said when it was ready."""
        return self._parts[name].told

    def code(self, name: str) -> int | None:
        """Return how a part ended last, None where it never did."""
        return self._parts[name].code

    def next_due(self) -> float | None:
        """Return when a tick is wanted, None where nothing is waited for."""
        if self._asked_at is not None:
            return None if self._finished else self._asked_at + (_STEP_SECONDS if self._in_step() else _STOP_SECONDS)
        return min((part.due for part in self._parts.values() if part.state in _TIMED), default=None)

    # Steps

    def step(self, event: Event, now: float) -> list[Action]:
        """Take an event; return what to do."""
        match event:
            case Begin():
                return self._begin(now)
            case Ready(name, told):
                self._is_ready(self._parts[name], told)
                return []
            case Ended(name, code):
                return self._ended(self._parts[name], code, now)
            case Wanted(name, is_wanted):
                return self._demand(self._parts[name], is_wanted, now) if name in self._parts else []
            case Asked():
                return self._stop(now) if self._asked_at is None else self._kill_all()
            case Tick():
                return self._tick(now)

    def _begin(self, now: float) -> list[Action]:
        for part in self._parts.values():
            if part.on_demand:
                part.state = _Is.IDLE
        return [self._spawn(part, now) for part in self._parts.values() if not part.on_demand]

    def _demand(self, part: _Part, is_wanted: bool, now: float) -> list[Action]:
        if not part.on_demand or self._asked_at is not None:
            return []
        part.wanted = is_wanted
        if is_wanted and part.state is _Is.IDLE:
            return [self._spawn(part, now)]
        if not is_wanted and part.state in {_Is.STARTING, _Is.READY}:
            part.due = now + _LET_GO_SECONDS
            return [self._ask(part)]
        if not is_wanted and part.state is _Is.WAITING:
            self._rest(part)
        return []

    def _rest(self, part: _Part) -> None:
        part.state, part.failures, part.was_ready, part.told = _Is.IDLE, 0, False, {}

    def _spawn(self, part: _Part, now: float) -> Spawn:
        part.state, part.since, part.told = _Is.STARTING, now, {}
        return Spawn(part.name)

    def _is_ready(self, part: _Part, told: Mapping[str, str]) -> None:
        if part.state is _Is.STARTING:
            part.state, part.was_ready, part.told = _Is.READY, True, told

    def _ended(self, part: _Part, code: int, now: float) -> list[Action]:
        first, before = not part.was_ready, part.state
        part.state, part.code = _Is.DOWN, code
        if self._asked_at is not None:
            return self._go_on_stopping(now)
        if part.on_demand and before is _Is.STOPPING:
            self._rest(part)
            return [self._spawn(part, now)] if part.wanted else []
        if first and code in part.hopeless:
            self._code = code
            return self._stop(now)
        part.failures = 1 if now - part.since >= _WELL_SECONDS else part.failures + 1
        part.restarts += 1
        part.state = _Is.WAITING
        part.due = now + min(_LAST_DELAY, _FIRST_DELAY * 2 ** (part.failures - 1))
        return []

    def _tick(self, now: float) -> list[Action]:
        if self._asked_at is None:
            due = [part for part in self._parts.values() if part.state in _TIMED and part.due <= now]
            return [self._overdue(part, now) for part in due]
        if now >= self._asked_at + _STOP_SECONDS:
            return self._kill_all()
        return self._go_on_stopping(now)

    def _overdue(self, part: _Part, now: float) -> Action:
        if part.state is _Is.WAITING:
            return self._spawn(part, now)
        part.due = now + _LET_GO_SECONDS
        return Kill(part.name)

    # Stopping

    def _stop(self, now: float) -> list[Action]:
        self._asked_at = now
        for part in self._parts.values():
            if part.state in {_Is.WAITING, _Is.IDLE}:
                part.state = _Is.DOWN
        return self._go_on_stopping(now)

    def _in_step(self) -> bool:
        """Whether the first part, which the others need, has not been asked to stop yet."""
        return next(iter(self._parts.values())).state in {_Is.STARTING, _Is.READY}

    def _go_on_stopping(self, now: float) -> list[Action]:
        first, *others = self._parts.values()
        actions = [self._ask(part) for part in reversed(others) if part.state in {_Is.STARTING, _Is.READY}]
        waited = self._asked_at is not None and now >= self._asked_at + _STEP_SECONDS
        if first.state in {_Is.STARTING, _Is.READY} and (waited or not any(part.alive for part in others)):
            actions.append(self._ask(first))
        if not any(part.alive for part in self._parts.values()) and not self._finished:
            self._finished = True
            return [Finish(self._code)]
        return [*actions]

    def _ask(self, part: _Part) -> Action:
        part.state = _Is.STOPPING
        return Terminate(part.name)

    def _kill_all(self) -> list[Action]:
        alive = [part for part in self._parts.values() if part.alive]
        for part in alive:
            part.state = _Is.STOPPING
        return [Kill(part.name) for part in alive]
