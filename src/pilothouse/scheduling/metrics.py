"""The scheduler's figures, under the names that kube-scheduler's have, so that dashboards find them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from pilothouse.client.metrics import Distribution, Sample

from .decisions import Bind, Decision, Failed

__all__ = ["Figures"]


class Figures:
    """Counts decisions. pending: gives the number of pods by the part of the queue that they are in."""

    def __init__(self, profile: str, pending: Callable[[], Mapping[str, int]]) -> None:
        self._profile: Final = profile
        self._pending = pending
        self.attempts: Final[dict[str, int]] = {}
        self._seconds = Distribution()
        self._victims = 0

    def decided(self, decision: Decision, seconds: float) -> None:
        """Count a decision and the time it took."""
        if isinstance(decision, Bind):
            result = "scheduled"
        elif isinstance(decision, Failed):
            result = "unschedulable" if decision.reason == "Unschedulable" else "error"
            self._victims += len(decision.victims)
        else:
            return
        self._seconds.observe(seconds)
        self.attempts[result] = self.attempts.get(result, 0) + 1

    def samples(self) -> Iterable[Sample]:
        """Return the values now."""
        for queue, number in self._pending().items():
            yield Sample("gauge", "scheduler_pending_pods", "Pods in the queue", {"queue": queue}, number)
        for result, number in self.attempts.items():
            labels = {"profile": self._profile, "result": result}
            yield Sample("counter", "scheduler_schedule_attempts_total", "Tries, by what came of them", labels, number)
        name, text = "scheduler_scheduling_algorithm_duration_seconds", "Time to decide on one pod"
        yield Sample("histogram", name, text, {}, self._seconds)
        yield Sample("counter", "scheduler_preemption_victims_total", "Pods that made room", {}, self._victims)
