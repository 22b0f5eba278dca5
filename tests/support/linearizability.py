"""Check that a concurrent history of a key-value store has a linearization, key by key.

Each key is a register that starts absent. An operation takes effect at one instant between its call and its return;
one whose outcome is unknown (time-out, crash) takes effect at any instant after its call, or never. The search is
that of Wing and Gong with Lowe's memoisation of (operations done, state); histories of different keys are checked
apart, which is sound because linearizability is local to each object.
"""

from __future__ import annotations

import enum
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

__all__ = ["Kind", "Operation", "SearchLimitError", "Violation", "check_history", "check_key"]

State: TypeAlias = bytes | None


class Kind(enum.Enum):
    """What an operation does to its key."""

    GET = "get"
    PUT = "put"
    DELETE = "delete"
    CAS = "cas"


class Operation(NamedTuple):
    """One operation on one key: `returned` is None where the outcome is unknown.

    GET: `result` is the value read, None when absent. PUT: `value` is written. DELETE: `result` says whether there was
    something to delete, None when that was not asked. CAS: `value` replaces `expected` (None: absent) and `result`
    says whether it did. Times are of one monotonic clock, in any unit.
    """

    key: bytes
    kind: Kind
    called: float
    returned: float | None
    value: State = None
    expected: State = None
    result: bytes | bool | None = None


class Violation(NamedTuple):
    """A key whose history has no linearization.

    `done` operations could be ordered at most, leaving the value `state`; none of `stuck` can come next.
    """

    key: bytes
    done: int
    total: int
    state: State
    stuck: tuple[Operation, ...]

    def __str__(self) -> str:
        """Return the violation for a failing test's message."""
        lines = [f"key {self.key!r}: {self.done} of {self.total} operations can be ordered; at {self.state!r} none of"]
        return "\n".join(lines + [f"  {operation}" for operation in self.stuck])


class _Entry:
    """The call or return of an operation, in a doubly linked list ordered by time."""

    __slots__ = ("after", "before", "index", "match", "operation")

    def __init__(self, index: int, operation: Operation, match: _Entry | None) -> None:
        self.index = index
        self.operation = operation
        self.match = match
        self.before: _Entry | None = None
        self.after: _Entry | None = None


def check_history(operations: Iterable[Operation]) -> list[Violation]:
    """Return the keys whose operations cannot be linearized, in key order; empty when all is well."""
    by_key: dict[bytes, list[Operation]] = defaultdict(list)
    for operation in operations:
        by_key[operation.key].append(operation)
    found = [check_key(history) for _, history in sorted(by_key.items())]
    return [violation for violation in found if violation is not None]


def step(state: State, operation: Operation) -> tuple[bool, State]:
    """Return whether `operation` can act on `state` with the result it has, and the state after it."""
    known = operation.returned is not None
    match operation.kind:
        case Kind.GET:
            return not known or operation.result == state, state
        case Kind.PUT:
            return True, operation.value
        case Kind.DELETE:
            possible = not known or operation.result is None or operation.result == (state is not None)
            return possible, None
        case Kind.CAS:
            matches = state == operation.expected
            return not known or operation.result == matches, operation.value if matches else state


def check_key(history: Sequence[Operation], initial: State = None, *, limit: int = 5_000_000) -> Violation | None:
    """Return why the operations of one key cannot be linearized, or None where they can.

    Raise `SearchLimitError` where more than `limit` configurations would have to be looked at.
    """
    useful = [o for o in history if o.returned is not None or o.kind is not Kind.GET]
    # An unknown write that nobody saw is most often one that never happened. Leaving those out first keeps the search
    # small; only where that fails are they tried too.
    likely = _without_unseen(useful)
    violation = _Search(likely, initial, limit).run()
    if violation is not None and len(likely) < len(useful):
        violation = _Search(useful, initial, limit).run()
    return violation


def _without_unseen(history: Sequence[Operation]) -> list[Operation]:
    seen: set[object] = {o.result for o in history if o.kind is Kind.GET}
    seen |= {o.expected for o in history if o.kind is Kind.CAS and o.result is not False}
    return [o for o in history if o.returned is not None or o.kind is Kind.DELETE or o.value in seen]


class SearchLimitError(Exception):
    """The history of one key has more configurations than the checker may look at."""


class _Search:
    """Depth-first search: lift an operation that may come next, or go back to the last one lifted."""

    def __init__(self, history: Sequence[Operation], initial: State, limit: int) -> None:
        self.history = history
        self.limit = limit
        self.state = initial
        self.done = 0
        self.lifted: list[tuple[_Entry, State]] = []
        self.seen: set[tuple[int, State]] = set()
        self.open = sum(operation.returned is not None for operation in history)
        self.head = _linked(history)
        self.best: tuple[int, State, tuple[Operation, ...]] = (-1, initial, ())

    def run(self) -> Violation | None:
        entry = self.head.after
        # Operations without an outcome may stay undone, so only the completed ones have to be lifted.
        while self.open:
            assert entry is not None
            if entry.match is not None:
                entry = self._try(entry)
                continue
            self._remember_stuck()
            if not self.lifted:
                done, state, stuck = self.best
                return Violation(self.history[0].key, done, len(self.history), state, stuck)
            entry = self._back()
        return None

    def _try(self, entry: _Entry) -> _Entry | None:
        possible, state = step(self.state, entry.operation)
        if possible:
            configuration = (self.done | 1 << entry.index, state)
            if configuration not in self.seen:
                self.seen.add(configuration)
                if len(self.seen) > self.limit:
                    raise SearchLimitError(f"key {entry.operation.key!r}: over {self.limit} configurations")
                self.lifted.append((entry, self.state))
                self.done, self.state = configuration
                self.open -= entry.operation.returned is not None
                _lift(entry)
                return self.head.after
        return entry.after

    def _back(self) -> _Entry | None:
        entry, self.state = self.lifted.pop()
        self.done &= ~(1 << entry.index)
        self.open += entry.operation.returned is not None
        _unlift(entry)
        return entry.after

    def _remember_stuck(self) -> None:
        if len(self.lifted) <= self.best[0]:
            return
        stuck: list[Operation] = []
        entry = self.head.after
        while entry is not None and entry.match is not None:
            stuck.append(entry.operation)
            entry = entry.after
        self.best = (len(self.lifted), self.state, tuple(stuck))


def _linked(history: Sequence[Operation]) -> _Entry:
    # At equal times calls stand before returns: touching operations count as concurrent.
    points: list[tuple[float, int, int, _Entry]] = []
    for index, operation in enumerate(history):
        end = _Entry(index, operation, None)
        points.append((operation.called, 0, index, _Entry(index, operation, end)))
        points.append((math.inf if operation.returned is None else operation.returned, 1, index, end))
    points.sort(key=lambda point: point[:3])
    head = last = _Entry(-1, Operation(b"", Kind.GET, 0, 0), None)
    for *_, entry in points:
        last.after, entry.before = entry, last
        last = entry
    return head


def _unlink(entry: _Entry) -> None:
    assert entry.before is not None
    entry.before.after = entry.after
    if entry.after is not None:
        entry.after.before = entry.before


def _relink(entry: _Entry) -> None:
    assert entry.before is not None
    entry.before.after = entry
    if entry.after is not None:
        entry.after.before = entry


def _lift(entry: _Entry) -> None:
    assert entry.match is not None
    _unlink(entry)
    _unlink(entry.match)


def _unlift(entry: _Entry) -> None:
    assert entry.match is not None
    _relink(entry.match)
    _relink(entry)
