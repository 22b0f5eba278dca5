"""The control loop without input or output: what a reconcile's end means for its key, and which keys never settle.

A key settles when it was reconciled without an error and is not wanted again at once. One that fails many times in a
row, or is reconciled again and again without a pause although nothing fails (two controllers that undo each other's
work, a reconciler that writes what differs each time), is reported with its key, its count and its last error.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final, Generic, Literal, NamedTuple, TypeAlias, TypeVar

__all__ = [
    "Failed",
    "Forget",
    "LoopCore",
    "LoopOptions",
    "Outcome",
    "Retry",
    "RetryAfter",
    "Step",
    "Succeeded",
    "Unconverged",
]

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Succeeded:
    """It went well. requeue_after: seconds after which it is wanted again, None for not before something changes."""

    requeue_after: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """It raised. how: a "terminal" error is not tried again; a "timeout" was ended by us."""

    error: str
    how: Literal["error", "terminal", "timeout"] = "error"


Outcome: TypeAlias = Succeeded | Failed


@dataclass(frozen=True, slots=True)
class Forget:
    """Have the queue forget the key's failures; it is not wanted again."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Add the key rate-limited."""


@dataclass(frozen=True, slots=True)
class RetryAfter:
    """Have the queue forget the key's failures, then add it after so many seconds."""

    seconds: float


Action: TypeAlias = Forget | Retry | RetryAfter


class Unconverged(NamedTuple):
    """A key that does not settle: how often it was reconciled since when, and its last error, empty if none."""

    key: Hashable
    reconciles: int
    failures: int
    seconds: float
    last_error: str

    def __str__(self) -> str:
        because = f"last error: {self.last_error}" if self.last_error else "without an error, so something undoes it"
        failing = f", {self.failures} times in a row with an error" if self.failures else ""
        often = f"reconciled {self.reconciles} times in {self.seconds:.1f} s{failing}"
        return f"{self.key} does not converge: {often}; {because}"


class Step(NamedTuple):
    """What to do with the key; and, once for each time that it begins not to converge, the report of that."""

    action: Action
    report: Unconverged | None = None
    recovered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopOptions:
    """When a key counts as not converging.

    failures: errors in a row. rounds: reconciles without a pause of `quiet_seconds` between them, 0 for any number, as
    where each of thousands of objects below makes for one. max_keys: of which this is remembered; beyond, the one that
    was reconciled longest ago begins anew.
    """

    failures: int = 10
    rounds: int = 100
    quiet_seconds: float = 5.0
    max_keys: int = 100_000


_EXPIRE_FROM: Final = 64
_SETTLED: Final = Step(Forget())


class _Streak:
    """What is remembered of a key that has not settled."""

    __slots__ = ("count", "failures", "last_end", "last_error", "reported", "since")

    def __init__(self, now: float) -> None:
        self.count = 0
        self.failures = 0
        self.since = self.last_end = now
        self.last_error = ""
        self.reported = False


class LoopCore(Generic[K]):
    """Decides, key by key. Feed it with `ended`; `now` is in seconds and never goes back."""

    def __init__(self, options: LoopOptions | None = None) -> None:
        self.options: Final = options or LoopOptions()
        self._well: OrderedDict[K, _Streak] = OrderedDict()
        self._failing: OrderedDict[K, _Streak] = OrderedDict()
        self._expire_at = _EXPIRE_FROM

    def __len__(self) -> int:
        """Return the keys that are remembered."""
        return len(self._well) + len(self._failing)

    def ended(self, key: K, outcome: Outcome, now: float) -> Step:
        """Take the end of a reconcile."""
        streak = self._well.pop(key, None) or self._failing.pop(key, None)
        if streak is None or self._is_quiet(streak, now):
            streak = _Streak(now)
        (self._failing if isinstance(outcome, Failed) else self._well)[key] = streak
        if len(self._well) >= self._expire_at:
            self._expire(now)
        if len(self._well) + len(self._failing) > self.options.max_keys:
            (self._well or self._failing).popitem(last=False)
        streak.count += 1
        streak.last_end = now
        if isinstance(outcome, Failed):
            return self._failed(key, streak, outcome, now)
        if streak.count == 1 != self.options.rounds and outcome.requeue_after is None:
            return _SETTLED
        recovered = streak.failures > 0 and streak.reported
        if streak.failures:
            # It may still spin: counted from here.
            streak.failures, streak.last_error, streak.reported = 0, "", False
            streak.count, streak.since = 1, now
        action: Action = Forget() if outcome.requeue_after is None else RetryAfter(outcome.requeue_after)
        return Step(action, self._maybe_report(key, streak, now), recovered)

    def forget(self, key: K) -> None:
        """Forget a key: its object is gone."""
        self._well.pop(key, None)
        self._failing.pop(key, None)

    def failing(self) -> list[Unconverged]:
        """Return all keys whose last reconcile failed."""
        return [_shown(key, streak, streak.last_end) for key, streak in self._failing.items()]

    def unconverged(self, now: float) -> list[Unconverged]:
        """Return the keys that do not converge now."""
        return [
            _shown(key, streak, now)
            for key, streak in (*self._failing.items(), *self._well.items())
            if streak.reported and not self._is_quiet(streak, now)
        ]

    def _failed(self, key: K, streak: _Streak, outcome: Failed, now: float) -> Step:
        streak.failures += 1
        streak.last_error = outcome.error
        action: Action = Forget() if outcome.how == "terminal" else Retry()
        return Step(action, self._maybe_report(key, streak, now))

    def _maybe_report(self, key: K, streak: _Streak, now: float) -> Unconverged | None:
        options = self.options
        if streak.reported or (streak.failures < options.failures and not 0 < options.rounds <= streak.count):
            return None
        streak.reported = True
        return _shown(key, streak, now)

    def _is_quiet(self, streak: _Streak, now: float) -> bool:
        # One that failed is still waited for, however long its back-off is.
        return not streak.failures and now - streak.last_end >= self.options.quiet_seconds

    def _expire(self, now: float) -> None:
        """Forget the keys that have settled; look again when there are twice as many as are left."""
        while self._well:
            key, streak = next(iter(self._well.items()))
            if not self._is_quiet(streak, now):
                break
            del self._well[key]
        self._expire_at = max(_EXPIRE_FROM, 2 * len(self._well))


def _shown(key: Hashable, streak: _Streak, now: float) -> Unconverged:
    return Unconverged(key, streak.count, streak.failures, now - streak.since, streak.last_error)
