"""A controller's figures, named as controller-runtime's are, so that dashboards made for those work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pilothouse.client.metrics import Distribution, Sample

from .loop import Failed, Outcome

__all__ = ["ControllerMetrics"]


class ControllerMetrics:
    """Plain counters of one controller, read when somebody asks."""

    __slots__ = ("active", "name", "results", "seconds", "terminal", "timeouts", "workers")

    def __init__(self, name: str, workers: int) -> None:
        self.name: Final = name
        self.workers: Final = workers
        self.active = 0
        self.results = {"success": 0, "error": 0, "requeue": 0, "requeue_after": 0}
        self.terminal = 0
        self.timeouts = 0
        self.seconds: Final = Distribution()

    @property
    def total(self) -> int:
        """Reconciles that have ended."""
        return sum(self.results.values())

    def count(self, outcome: Outcome) -> None:
        """Count a reconcile by its end."""
        if isinstance(outcome, Failed):
            self.results["error"] += 1
            self.terminal += outcome.how == "terminal"
            self.timeouts += outcome.how == "timeout"
        elif outcome.requeue_after is None:
            self.results["success"] += 1
        elif outcome.requeue_after:
            self.results["requeue_after"] += 1
        else:
            self.results["requeue"] += 1

    def samples(self, failing: int, unconverged: int) -> Iterable[Sample]:
        """Return the values now."""
        labels = {"controller": self.name}
        for result, count in self.results.items():
            text = "Reconciles by controller and how they ended"
            yield Sample("counter", "controller_runtime_reconcile_total", text, {**labels, "result": result}, count)
        for name, text, count in (
            ("reconcile_errors_total", "Reconciles that failed", self.results["error"]),
            ("terminal_reconcile_errors_total", "Reconciles that failed for good", self.terminal),
            ("reconcile_timeouts_total", "Reconciles that were cancelled as they took too long", self.timeouts),
        ):
            yield Sample("counter", f"controller_runtime_{name}", text, labels, count)
        for name, text, count in (
            ("controller_runtime_max_concurrent_reconciles", "Workers", self.workers),
            ("controller_runtime_active_workers", "Workers that reconcile now", self.active),
            ("pilothouse_operator_failing_requests", "Objects whose last reconcile failed", failing),
            ("pilothouse_operator_unconverged_requests", "Objects that do not converge", unconverged),
        ):
            yield Sample("gauge", name, text, labels, count)
        text = "From the begin of a reconcile to its end"
        yield Sample("histogram", "controller_runtime_reconcile_time_seconds", text, labels, self.seconds)
