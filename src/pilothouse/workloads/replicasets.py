"""Replica sets: how many pods to make or which to delete, and what the status says. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pilothouse.kinds import labels, times
from pilothouse.kinds.structs import Pod, ReplicaSet, ReplicationController, replace, to_dict
from pilothouse.kinds.structs.apps import ReplicaSetCondition, ReplicaSetStatus
from pilothouse.kinds.structs.core_pods import (
    PodTemplateSpec,
    ReplicationControllerCondition,
    ReplicationControllerStatus,
)

from .podcontrol import BURST
from .pods import available_in, deletion_order, is_ready

__all__ = ["Plan", "Replicated", "next_check", "plan", "selector_of", "status_of"]

Replicated = ReplicaSet | ReplicationController
_FAILURE = "ReplicaFailure"


@dataclass(frozen=True, slots=True)
class Plan:
    """How many pods to make, and which to delete."""

    create: int = 0
    delete: Sequence[Pod] = ()


def selector_of(owner: Replicated) -> labels.Selector:
    """Return the compiled selector. Raises SelectorError."""
    if isinstance(owner, ReplicationController):
        return labels.from_labels(owner.spec.selector)
    return labels.from_label_selector(to_dict(owner.spec.selector))


def plan(owner: Replicated, active: Sequence[Pod], neighbours: Iterable[Pod], now: datetime) -> Plan:
    """Return what makes the active pods as many as wanted, at most 500 at a time.

    neighbours: pods of all sets of the same owner; of the nodes that are crowded by them, pods go first.
    """
    wanted = owner.spec.replicas if owner.spec.replicas is not None else 1
    surplus = len(active) - wanted
    if surplus < 0:
        return Plan(create=min(-surplus, BURST))
    if surplus == 0:
        return Plan()
    order = active if surplus == len(active) else deletion_order(active, neighbours, now)
    return Plan(delete=order[: min(surplus, BURST)])


def status_of(
    owner: Replicated, active: Sequence[Pod], terminating: int, refused: str | None, now: datetime
) -> ReplicaSetStatus | ReplicationControllerStatus:
    """Return the status as it should be.

    terminating: pods that are being deleted and still run. refused: why pods could not be made or deleted.
    """
    template = owner.spec.template or PodTemplateSpec()
    wanted_labels = template.metadata.labels.items()
    waits = [available_in(pod, owner.spec.min_ready_seconds, now) for pod in active]
    status = replace(
        owner.status,
        replicas=len(active),
        fully_labeled_replicas=sum(wanted_labels <= pod.metadata.labels.items() for pod in active),
        ready_replicas=sum(map(is_ready, active)),
        available_replicas=waits.count(0.0),
        observed_generation=owner.metadata.generation,
        conditions=_conditions(owner, len(active), refused, now),
    )
    return replace(status, terminating_replicas=terminating) if isinstance(status, ReplicaSetStatus) else status


def next_check(owner: Replicated, active: Iterable[Pod], now: datetime) -> float | None:
    """Return in how many seconds the next ready pod becomes available, None where none is waiting."""
    waits = [available_in(pod, owner.spec.min_ready_seconds, now) for pod in active]
    return min((wait for wait in waits if wait), default=None)


def _conditions(owner: Replicated, active: int, refused: str | None, now: datetime) -> Sequence[Any]:
    present = owner.status.conditions
    told = any(found.type == _FAILURE for found in present)
    if refused is None:
        return [found for found in present if found.type != _FAILURE] if told else present
    if told:
        return present
    wanted = owner.spec.replicas if owner.spec.replicas is not None else 1
    kind = ReplicationControllerCondition if isinstance(owner, ReplicationController) else ReplicaSetCondition
    made = kind(
        type=_FAILURE,
        status="True",
        reason="FailedCreate" if active < wanted else "FailedDelete" if active > wanted else "",
        message=refused,
        last_transition_time=times.format_seconds(now),
    )
    return [*present, made]
