"""Figures of GitOps: applications by state, syncs, what git was asked, what was rendered and compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, Final

from pilothouse.client.metrics import Sample, register
from pilothouse.delivery.resources.applications import Application
from pilothouse.foundation.metrics import Metrics

from .evaluation import Evaluator
from .repositories import Repositories

__all__ = ["Figures"]


class Figures:
    """Gathers them. applications: all that there are now. syncs: counted by phase, as they end."""

    def __init__(
        self,
        applications: Callable[[], Iterable[Application]],
        repositories: Repositories[Any],
        evaluator: Evaluator,
        syncs: Counter[str],
        metrics: Metrics | None,
    ) -> None:
        self._applications: Final = applications
        self._repositories = repositories
        self._evaluator = evaluator
        self._syncs = syncs
        register(self, metrics)

    def samples(self) -> Iterable[Sample]:
        """Return the figures now; those of Argo CD's names mean the same."""
        states = Counter(
            (app.status.sync.status or "Unknown", app.status.health.status or "Unknown") for app in self._applications()
        )
        text = "Applications by sync status and health"
        for (sync, health), count in states.items():
            yield Sample("gauge", "pilothouse_gitops_applications", text, {"sync": sync, "health": health}, count)
        for phase, count in self._syncs.items():
            yield Sample("counter", "argocd_app_sync_total", "Syncs that ended", {"phase": phase}, count)
        text, mirrors = "What repositories were asked", self._repositories.mirrors
        for kind, count in (("ls-remote", sum(m.polls for m in mirrors)), ("fetch", sum(m.fetches for m in mirrors))):
            yield Sample("counter", "argocd_git_request_total", text, {"request_type": kind}, count)
        renderer = self._evaluator.renderer
        for name, text, count in (
            ("renders_total", "Sources that were rendered", renderer.renders),
            ("renders_reused_total", "Sources of which what was rendered before held", renderer.reused),
            ("comparisons_total", "Objects that were compared field by field", self._evaluator.compared),
        ):
            yield Sample("counter", f"pilothouse_gitops_{name}", text, {}, count)
