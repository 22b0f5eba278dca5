"""Pods that wait to be scheduled: those to try now, those that back off, and those that wait for something to happen.

A state machine without a clock of its own: it is told the time by a function and never waits. Events that happen while
a pod is being tried are kept and weighed when it comes back, so that none that would have woken it is lost.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pilothouse.kinds.structs import Pod

from .events import UNSCHEDULABLE_TIMEOUT, ClusterEvent, Hint, Interest, Kind, pod_changes
from .framework import PreEnqueuePlugin, Reject
from .shapes import priority_of

__all__ = ["Hints", "Queue", "Queued"]

Place = Literal["", "active", "backoff", "unschedulable", "in flight"]
Hints = Mapping[str, Mapping[str, Sequence[Interest]]]
"""The events that plugins want to hear of, by the names of scheduler and plugin."""
_MOST_EVENTS: Final = 10_000
"""Events kept for pods that are being tried. With more, such a pod is simply tried again."""
_LEFTOVERS: Final = 30.0
"""Seconds between looks for pods that nothing woke for too long."""


@dataclass(slots=True, eq=False)
class Queued:
    """A pod in the queue, with what came of it so far. Times are seconds of the queue's clock."""

    pod: Pod
    timestamp: float
    place: Place = ""
    ticket: int = 0
    attempts: int = 0
    failures: int = 0
    """How often no node was found."""
    errors: int = 0
    """How often something went wrong, in a row."""
    plugins: frozenset[str] = frozenset()
    """Those that refused the pod."""
    pending: frozenset[str] = frozenset()
    """Those that wait for something for it; when it happens there is no back-off."""
    gate: str = ""
    """The plugin that keeps the pod out of the queue."""
    gate_reason: str = ""
    first_try: float | None = None
    overdue: bool = False
    priority: int = 0

    @property
    def uid(self) -> str:
        """The pod's uid."""
        return self.pod.metadata.uid


@dataclass(slots=True)
class _Journal:
    """Events since the first of the pods in flight was taken out."""

    base: int = 0
    events: list[tuple[ClusterEvent, Any, Any]] = field(default_factory=list)
    started: dict[str, int] = field(default_factory=dict)

    def end(self) -> int:
        return self.base + len(self.events)

    def add(self, event: ClusterEvent, old: Any, new: Any) -> None:
        if self.started:
            if len(self.events) >= _MOST_EVENTS:
                self.base += len(self.events)
                self.events.clear()
            self.events.append((event, old, new))

    def finish(self, uid: str) -> list[tuple[ClusterEvent, Any, Any]] | None:
        """Give the events since a pod was taken out; None where some were dropped."""
        position = self.started.pop(uid, None)
        found = [] if position is None else None if position < self.base else self.events[position - self.base :]
        if not self.started:
            self.base, self.events = self.end(), []
        else:
            oldest = min(self.started.values())
            if oldest > self.base:
                del self.events[: oldest - self.base]
                self.base = oldest
        return found


class Queue:
    """The scheduling queue.

    now: gives the time in seconds. sort_key: of a queued pod; the smallest is tried first. initial_backoff and
    max_backoff: seconds after the first failure, doubled with each further one. unschedulable_after: seconds after
    which a pod that nothing woke is tried all the same.
    """

    def __init__(  # noqa: PLR0913  each is one setting
        self,
        now: Callable[[], float],
        sort_key: Callable[[Queued], tuple[Any, ...]],
        *,
        hints: Hints | None = None,
        gates: Mapping[str, Sequence[PreEnqueuePlugin]] | None = None,
        initial_backoff: float = 1.0,
        max_backoff: float = 10.0,
        unschedulable_after: float = 300.0,
        idle_ignores_backoff: bool = True,
    ) -> None:
        self._now = now
        self._sort_key = sort_key
        self._hints: Hints = {} if hints is None else hints
        self._gates = {} if gates is None else gates
        self._initial = initial_backoff
        self._most = max_backoff
        self._after = unschedulable_after
        self._idle = idle_ignores_backoff
        self._tickets = itertools.count(1)
        self._pods: dict[str, Queued] = {}
        self._active: list[tuple[tuple[Any, ...], int, Queued]] = []
        self._backoff: list[tuple[float, int, Queued]] = []
        self._early: list[tuple[tuple[Any, ...], int, Queued]] = []
        """Those that back off, in the order in which they are tried where nothing else is to do."""
        self._next_leftovers = now() + _LEFTOVERS
        self._waiting: dict[str, dict[str, Queued]] = {}
        """Unschedulable pods by the plugins that refused them."""
        self._journal = _Journal()

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, uid: object) -> bool:
        return uid in self._pods

    def get(self, uid: str) -> Queued | None:
        """Give a pod that is here or being tried."""
        return self._pods.get(uid)

    def counts(self) -> dict[str, int]:
        """Give how many pods are active, back off, are unschedulable or gated."""
        found = {"active": 0, "backoff": 0, "unschedulable": 0, "gated": 0}
        for one in self._pods.values():
            kind = "gated" if one.gate else one.place
            if kind in found:
                found[kind] += 1
        return found

    def gated(self) -> list[Queued]:
        """Give the pods that are kept out."""
        return [one for one in self._pods.values() if one.gate]

    def add(self, pod: Pod) -> Queued:
        """Take in a new pod; `gate` of what is returned says whether it is kept out."""
        queued = Queued(pod, self._now(), priority=priority_of(pod))
        self._pods[queued.uid] = queued
        self._activate(queued)
        return queued

    def update(self, old: Pod, new: Pod) -> Queued:
        """Take over a change of a pod, which may be what it waited for."""
        queued = self._pods.get(new.metadata.uid)
        if queued is None:
            return self.add(new)
        changes = pod_changes(old, new)
        if queued.place == "in flight":
            for event in changes:
                self._journal.add(event, old, new)
            queued.pod = new
            return queued
        queued.pod = new
        priority = priority_of(new)
        if priority != queued.priority:
            queued.priority = priority
            if queued.place == "active":
                self._push(queued)
        if queued.place == "unschedulable":
            for event in changes:
                if self._wake(queued, event, old, new):
                    break
        return queued

    def delete(self, uid: str) -> None:
        """Forget a pod."""
        queued = self._pods.pop(uid, None)
        if queued is not None:
            self._leave(queued)
            self._journal.finish(uid)

    def pop(self) -> Queued | None:
        """Give the pod to try next, if any. It is in flight until `done`, `requeue` or `delete`."""
        queued = self._pop_active() or (self._pop_backoff() if self._idle else None)
        if queued is None:
            return None
        queued.place = "in flight"
        queued.attempts += 1
        if queued.first_try is None:
            queued.first_try = self._now()
        self._journal.started[queued.uid] = self._journal.end()
        return queued

    def done(self, uid: str) -> None:
        """Note that a pod has its node, and forget it."""
        self._journal.finish(uid)
        queued = self._pods.pop(uid, None)
        if queued is not None:
            self._leave(queued)

    def requeue(
        self, queued: Queued, plugins: Iterable[str] = (), pending: Iterable[str] = (), *, pod: Pod | None = None
    ) -> None:
        """Take a pod back that could not be scheduled. Without plugins that refused it, something went wrong."""
        if pod is not None:
            queued.pod = pod
        self._pods[queued.uid] = queued
        queued.plugins, queued.pending = frozenset(plugins), frozenset(pending)
        missed = self._journal.finish(queued.uid)
        queued.timestamp = self._now()
        queued.overdue = False
        if not queued.plugins and not queued.pending:
            queued.errors += 1
            self._back_off(queued)
            return
        queued.failures += 1
        queued.errors = 0
        strategy = "backoff" if missed is None else "skip"
        for event, old, new in missed or ():
            found = self._worth(queued, event, old, new)
            strategy = found if found != "skip" else strategy
            if found == "now" or (found == "backoff" and not queued.pending):
                break
        self._place(queued, strategy)

    def event(self, event: ClusterEvent, old: Any = None, new: Any = None) -> int:
        """Tell what happened; give how many pods were woken."""
        self._journal.add(event, old, new)
        woken = 0
        for name in [*self._waiting]:
            if event.kind is not Kind.ANY and not self._interested(name, event):
                continue
            for queued in [*self._waiting.get(name, {}).values()]:
                woken += self._wake(queued, event, old, new)
        return woken

    def activate(self, uid: str) -> bool:
        """Have a pod tried now, whatever it waits for, unless it is gated."""
        queued = self._pods.get(uid)
        if queued is None or queued.place not in {"backoff", "unschedulable"}:
            return False
        self._leave(queued)
        self._activate(queued)
        return not queued.gate

    def flush(self) -> None:
        """Move pods whose back-off is over, and those that nothing woke for too long. Call it as `next_flush` says."""
        now = self._now()
        while self._backoff and (self._stale(self._backoff[0]) or self._backoff[0][0] <= now):
            *_, ticket, queued = heapq.heappop(self._backoff)
            if queued.ticket == ticket and queued.place == "backoff":
                self._push(queued)
        if now < self._next_leftovers:
            return
        self._next_leftovers = now + _LEFTOVERS
        for queued in [*self._pods.values()]:
            if queued.place == "unschedulable" and not queued.gate and now - queued.timestamp > self._after:
                queued.overdue = True
                self._wake(queued, UNSCHEDULABLE_TIMEOUT, None, None)

    def next_flush(self) -> float | None:
        """Give the seconds until `flush` may have something to do; None if never."""
        now = self._now()
        times = []
        while self._backoff and self._stale(self._backoff[0]):
            heapq.heappop(self._backoff)
        if self._backoff:
            times.append(max(self._backoff[0][0] - now, 0.0))
        if self._waiting:
            times.append(max(self._next_leftovers - now, 0.0))
        return min(times) if times else None

    def backoff_of(self, queued: Queued) -> float:
        """Give the time at which a pod's back-off is over."""
        count = queued.errors or queued.failures
        if not count:
            return queued.timestamp
        return queued.timestamp + min(self._initial * 2.0 ** min(count - 1, 32), self._most)

    @staticmethod
    def _stale(entry: tuple[float, int, Queued]) -> bool:
        return entry[2].ticket != entry[1] or entry[2].place != "backoff"

    def _pop_active(self) -> Queued | None:
        while self._active:
            _, ticket, queued = heapq.heappop(self._active)
            if queued.ticket == ticket and queued.place == "active":
                return queued
        return None

    def _pop_backoff(self) -> Queued | None:
        """Give a pod that backs off, where nothing else is to be done; one that met an error has to wait."""
        while self._early:
            _, ticket, queued = heapq.heappop(self._early)
            if queued.ticket == ticket and queued.place == "backoff":
                return queued
        return None

    def _interested(self, plugin: str, event: ClusterEvent) -> bool:
        return any(
            interest.event.concerns(event) for plugins in self._hints.values() for interest in plugins.get(plugin, ())
        )

    def _worth(self, queued: Queued, event: ClusterEvent, old: Any, new: Any) -> Literal["skip", "backoff", "now"]:
        """Say whether an event may have made a pod schedulable."""
        rejectors = queued.plugins | queued.pending
        if not rejectors or event.kind is Kind.ANY:
            return "backoff"
        hints = self._hints.get(queued.pod.spec.scheduler_name or "default-scheduler", {})
        found: Literal["skip", "backoff", "now"] = "skip"
        for plugin in sorted(rejectors):
            for interest in hints.get(plugin, ()):
                if not interest.event.concerns(event):
                    continue
                if interest.hint is not None and interest.hint(queued.pod, old, new) is Hint.SKIP:
                    continue
                if plugin in queued.pending:
                    return "now"
                found = "backoff"
        return found

    def _wake(self, queued: Queued, event: ClusterEvent, old: Any, new: Any) -> bool:
        if queued.place != "unschedulable":
            return False
        strategy = self._worth(queued, event, old, new)
        if strategy == "skip":
            return False
        self._leave(queued)
        self._place(queued, strategy)
        return queued.place != "unschedulable"

    def _place(self, queued: Queued, strategy: str) -> None:
        if strategy == "skip":
            self._park(queued)
        elif strategy == "backoff" and self.backoff_of(queued) > self._now():
            self._back_off(queued)
        else:
            self._activate(queued)

    def _shut(self, queued: Queued) -> bool:
        """Ask the plugins that may keep a pod out, the one that did so before first."""
        plugins = self._gates.get(queued.pod.spec.scheduler_name or "default-scheduler", ())
        for plugin in sorted(plugins, key=lambda one: one.name != queued.gate):
            answer = plugin.pre_enqueue(queued.pod)
            if isinstance(answer, Reject):
                queued.gate, queued.gate_reason = plugin.name, answer.reason
                queued.plugins |= {plugin.name}
                self._park(queued)
                return True
        queued.gate = queued.gate_reason = ""
        return False

    def _activate(self, queued: Queued) -> None:
        if not self._shut(queued):
            self._push(queued)

    def _push(self, queued: Queued) -> None:
        queued.place, queued.ticket = "active", next(self._tickets)
        heapq.heappush(self._active, (self._sort_key(queued), queued.ticket, queued))

    def _back_off(self, queued: Queued) -> None:
        if not self._shut(queued):
            queued.place, queued.ticket = "backoff", next(self._tickets)
            entry = (self.backoff_of(queued), queued.ticket, queued)
            heapq.heappush(self._backoff, entry)
            if self._idle and not queued.errors:
                heapq.heappush(self._early, (self._sort_key(queued), queued.ticket, queued))

    def _park(self, queued: Queued) -> None:
        queued.place = "unschedulable"
        for plugin in queued.plugins | queued.pending:
            self._waiting.setdefault(plugin, {})[queued.uid] = queued

    def _leave(self, queued: Queued) -> None:
        if queued.place == "unschedulable":
            for plugin in queued.plugins | queued.pending:
                waiting = self._waiting.get(plugin, {})
                waiting.pop(queued.uid, None)
                if not waiting:
                    self._waiting.pop(plugin, None)
        queued.place = ""
