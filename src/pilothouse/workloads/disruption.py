"""Disruption budgets: how many pods there should be, how many are healthy, and how many may be disrupted now. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from pilothouse.kinds import intstr, times
from pilothouse.kinds.structs import Pod, PodDisruptionBudget, replace
from pilothouse.kinds.structs.meta import Condition, LabelSelector
from pilothouse.kinds.structs.policy import PodDisruptionBudgetStatus

from .pods import condition_of, is_finished, is_ready

__all__ = [
    "Disrupted",
    "disrupted",
    "failed_status",
    "needs_scales",
    "selector_text",
    "stale_in",
    "status_of",
    "without_disruption",
]

DELETION_TIMEOUT: Final = timedelta(minutes=2)
"""For how long a pod whose eviction was allowed counts as one that goes."""
STALE_SECONDS: Final = 120.0
_ALLOWED: Final = "DisruptionAllowed"
_TARGET: Final = "DisruptionTarget"


@dataclass(slots=True)
class Disrupted:
    """Which pods go by an eviction that was allowed, by name, and since when.

    late: those that did not go in time, and count again. again: seconds until the next one is late.
    """

    pods: dict[str, str] = field(default_factory=dict)
    late: list[Pod] = field(default_factory=list)
    again: float | None = None


def needs_scales(budget: PodDisruptionBudget) -> bool:
    """Whether the numbers that the pods' controllers want have to be known."""
    if budget.spec.max_unavailable is not None:
        return True
    return isinstance(budget.spec.min_available, str)


def disrupted(budget: PodDisruptionBudget, pods: Iterable[Pod], now: datetime) -> Disrupted:
    """Return which of a budget's disrupted pods are still to go."""
    made, known = Disrupted(), budget.status.disrupted_pods
    for pod in pods:
        since = known.get(pod.metadata.name)
        if since is None or pod.metadata.deletion_timestamp is not None:
            continue
        left = (times.parse(since) + DELETION_TIMEOUT - now).total_seconds()
        if left <= 0:
            made.late.append(pod)
            continue
        made.pods[pod.metadata.name] = since
        made.again = left if made.again is None else min(made.again, left)
    return made


def status_of(
    budget: PodDisruptionBudget,
    pods: Sequence[Pod],
    scales: Iterable[int],
    going: Mapping[str, str],
    now: datetime,
) -> PodDisruptionBudgetStatus:
    """Return the status as it should be.

    scales: how many pods each of the pods' controllers wants. going: the pods that are to go, see `disrupted`. Raises
    IntOrStringError for a percentage that is none.
    """
    expected, desired = _wanted(budget, len(pods), sum(scales))
    healthy = sum(1 for pod in pods if _is_healthy(pod, going, now))
    allowed = max(healthy - desired, 0) if expected > 0 else 0
    status = replace(
        budget.status,
        current_healthy=healthy,
        desired_healthy=desired,
        expected_pods=expected,
        disruptions_allowed=allowed,
        disrupted_pods=dict(going),
        observed_generation=budget.metadata.generation,
    )
    state, reason = ("True", "SufficientPods") if allowed > 0 else ("False", "InsufficientPods")
    found = next((each for each in status.conditions if each.type == _ALLOWED), None)
    if status == budget.status and found is not None and (found.status, found.reason) == (state, reason):
        return budget.status
    return replace(status, conditions=_conditions(status, state, reason, "", now))


def _wanted(budget: PodDisruptionBudget, pods: int, scale: int) -> tuple[int, int]:
    """Return how many pods there should be, and how many of them healthy."""
    most, least = budget.spec.max_unavailable, budget.spec.min_available
    if most is not None:
        return scale, max(scale - intstr.scaled(most, scale, round_up=True), 0)
    if isinstance(least, str):
        return scale, intstr.scaled(least, scale, round_up=True)
    return (0, 0) if least is None else (pods, least)


def _is_healthy(pod: Pod, going: Mapping[str, str], now: datetime) -> bool:
    since = going.get(pod.metadata.name)
    goes = since is not None and times.parse(since) + DELETION_TIMEOUT > now
    return pod.metadata.deletion_timestamp is None and not goes and is_ready(pod)


def failed_status(budget: PodDisruptionBudget, why: str, now: datetime) -> PodDisruptionBudgetStatus:
    """Return the status of a budget that cannot be counted: nothing may be disrupted."""
    status = replace(budget.status, disruptions_allowed=0)
    return replace(status, conditions=_conditions(status, "False", "SyncFailed", why, now))


def _conditions(
    status: PodDisruptionBudgetStatus, state: str, reason: str, message: str, now: datetime
) -> Sequence[Condition]:
    found = next((each for each in status.conditions if each.type == _ALLOWED), None)
    changed = found is None or found.status != state
    made = Condition(
        type=_ALLOWED,
        status="True" if state == "True" else "False",
        observed_generation=status.observed_generation,
        last_transition_time=times.format_seconds(now) if found is None or changed else found.last_transition_time,
        reason=reason,
        message=message,
    )
    if found is None:
        return [*status.conditions, made]
    return [made if each is found else each for each in status.conditions]


def selector_text(selector: LabelSelector | None) -> str:
    """Return a selector as Kubernetes' events show it."""
    if selector is None:
        return "nil"
    labels = "".join(f"{key}: {value}," for key, value in sorted(selector.match_labels.items()))
    terms = "".join(
        f"LabelSelectorRequirement{{Key:{each.key},Operator:{each.operator},Values:[{' '.join(each.values)}],}},"
        for each in selector.match_expressions
    )
    return (
        f"&LabelSelector{{MatchLabels:map[string]string{{{labels}}},"
        f"MatchExpressions:[]LabelSelectorRequirement{{{terms}}},}}"
    )


# Pods that were to go and stayed


def stale_in(pod: Pod, now: datetime) -> float | None:
    """Return in how many seconds a pod that was to be disrupted and stays is one like others again; None for none."""
    found = condition_of(pod, _TARGET)
    if (
        pod.metadata.deletion_timestamp is not None
        or is_finished(pod)
        or found is None
        or found.status != "True"
        or found.reason == "TerminationByKubelet"
        or found.last_transition_time is None
    ):
        return None
    since = times.parse(found.last_transition_time)
    return max(0.0, STALE_SECONDS - (now - since).total_seconds())


def without_disruption(pod: Pod, now: datetime) -> Pod:
    """Return a pod that says that it is not to be disrupted."""
    time = times.format_seconds(now)
    return replace(
        pod,
        status__conditions=[
            replace(each, status="False", reason="", message="", last_transition_time=time, last_probe_time=None)
            if each.type == _TARGET
            else each
            for each in pod.status.conditions
        ],
    )
