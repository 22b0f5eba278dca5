"""Figures of rollouts, named as Argo's are, so that dashboards made for those work; plus the weight of the canary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from pilothouse.client.metrics import Sample
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.operator import Manager

from .conditions import condition
from .routing import route_keys

__all__ = ["RolloutFigures"]

_PHASES: Final = {
    "NewReplicaSetAvailable": "Completed",
    "RolloutPaused": "Paused",
    "ReplicaSetCreateError": "Error",
    "ProgressDeadlineExceeded": "Timeout",
    "RolloutAborted": "Abort",
}
"""By the reason of the condition Progressing."""


class RolloutFigures:
    """A source of figures that reads the cache of rollouts when somebody asks."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def samples(self) -> Iterable[Sample]:
        """Return the figures of each rollout."""
        informer = self._manager.known(Rollout)
        for found in informer.indexer.list() if informer is not None else ():
            yield from _of(found)


def _of(found: Rollout) -> Iterator[Sample]:
    labels = {"namespace": found.metadata.namespace, "name": found.metadata.name}
    status, weights = found.status, found.status.canary.weights
    there, available = status.replicas or 0, status.available_replicas or 0
    strategy = "blueGreen" if found.spec.strategy.blue_green is not None else "canary"
    router = "GatewayAPI" if route_keys(found) else ""
    info = {**labels, "strategy": strategy, "traffic_router": router, "phase": _phase(found)}
    yield Sample("gauge", "rollout_info", "Information about rollout.", info, 1)
    desired = 1 if found.spec.replicas is None else found.spec.replicas
    for word, value in (
        ("available", available),
        ("unavailable", there - available),
        ("desired", desired),
        ("updated", status.updated_replicas or 0),
    ):
        text = f"The number of {word} replicas per rollout."
        yield Sample("gauge", f"rollout_info_replicas_{word}", text, labels, value)
    if weights is not None:
        text = "The share of traffic that the new version has, in percent."
        yield Sample("gauge", "pilothouse_rollout_canary_weight", text, labels, weights.canary.weight)


def _phase(found: Rollout) -> str:
    if condition(found.status, "InvalidSpec") is not None:
        return "InvalidSpec"
    progressing = condition(found.status, "Progressing")
    return _PHASES.get(progressing.reason if progressing is not None else "", "Progressing")
