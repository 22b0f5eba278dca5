"""The controller of service levels: counts what routes answered, follows deploys, and writes what it comes to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from pilothouse.client.patches import MergePatch
from pilothouse.delivery.analysis.traffic import Numbers
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.resources.servicelevels import Deploy, ServiceFigures, ServiceLevel, ServiceLevelStatus
from pilothouse.kinds import durations, times
from pilothouse.kinds.structs import Resource, replace, to_dict
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller

from .deploys import attributed, followed
from .figures import ObjectiveError, counted, objective_of, summed_up

__all__ = ["Commits", "ServiceLevelReconciler", "add_service_levels"]

Commits: TypeAlias = Callable[[Rollout, datetime], Awaitable[tuple[str, str | None] | None]]
"""The port to git: which commit brought a rollout as it is now, and when that was made; None where none did."""

_MINUTE: Final = 60.0
_REACH: Final = 240
"""Seconds that are counted at most at once."""
_NEW: Final = timedelta(minutes=2)
"""So long after a deploy began it is asked which commit brought it."""


class ServiceLevelReconciler(Reconciler[ServiceLevel]):
    """Counts each second once. `countedUntil` says up to when it is done, for who goes on after a restart.

    What came while nobody counted is not known and is left out; windows reach back five minutes.
    """

    def __init__(self, numbers: Numbers | None, commits: Commits | None = None) -> None:
        self._numbers = numbers
        self._commits = commits
        self._counted: dict[Request, tuple[str, int]] = {}

    async def reconcile(self, obj: ServiceLevel, context: Context) -> Result | None:
        """Count what came since the last time, and take in what the rollout says."""
        now = context.clock.now()
        try:
            objective_of(obj.spec)
            status = self._count(obj, now)
        except (ObjectiveError, durations.DurationError) as error:
            context.recorder.warning(obj, "InvalidObjective", str(error))
            return None
        rollout = context.get(Rollout, obj.spec.rollout, obj.metadata.namespace)
        if rollout is not None:
            deploys = await self._attributed(followed(status.deploys, rollout, now), rollout, now)
            status = replace(status, deploys=deploys)
        if status != obj.status:
            status = replace(status, figures=summed_up(obj.spec, status, now))
            await context.patch(obj, MergePatch({"status": _written(status)}), subresource="status")
        return Result(requeue_after=_MINUTE)

    async def _attributed(self, deploys: Sequence[Deploy], rollout: Rollout, now: datetime) -> Sequence[Deploy]:
        """Return the deploys with the commit of the last one, where it is new and git knows."""
        last = deploys[-1] if deploys else None
        if self._commits is None or last is None or last.revision or last.version != rollout.status.current_pod_hash:
            return deploys
        if now - times.parse(last.started_at) > _NEW:
            return deploys
        found = await self._commits(rollout, now)
        return attributed(deploys, *found) if found is not None else deploys

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Forget what is counted no longer."""
        self._counted.pop(request, None)
        return None

    def _count(self, obj: ServiceLevel, now: datetime) -> ServiceLevelStatus:
        if self._numbers is None:
            return obj.status
        last, _ = self._numbers.last()
        uid, until = self._counted.get(Request.of(obj), ("", 0))
        seconds = min(last - (until if uid == obj.metadata.uid else self._first(obj, now, last)), _REACH)
        self._counted[Request.of(obj)] = obj.metadata.uid, last
        if seconds <= 0:
            return obj.status
        latency = durations.parse(obj.spec.latency) / durations.SECOND if obj.spec.latency else None
        requests = bad = 0
        for route in obj.spec.routes:
            name = route if "/" in route else f"{obj.metadata.namespace}/{route}"
            seen = self._numbers.over(seconds, last, route=name, version="", regions=())
            requests += seen.requests
            bad += min(seen.requests, seen.errors + (seen.slower(latency) if latency is not None else 0))
        return counted(obj.status, now, requests, bad, obj.spec.window_days)

    def _first(self, obj: ServiceLevel, now: datetime, last: int) -> int:
        """Return the second up to which somebody else has counted; nothing is known of one who never did."""
        if not obj.status.counted_until:
            return last
        return last - max(0, int((now - times.parse(obj.status.counted_until)).total_seconds()))


def _written(status: ServiceLevelStatus) -> dict[str, object]:
    """Return a status as a merge patch that also takes away figures which are there no more."""
    none = dict.fromkeys(ServiceFigures.__struct_encode_fields__)
    return {**to_dict(status), "figures": {**none, **to_dict(status.figures)}}


def add_service_levels(
    manager: Manager, numbers: Numbers | None = None, commits: Commits | None = None
) -> ServiceLevelReconciler:
    """Run the controller of service levels in a manager.

    numbers, commits: of the data plane and of git, where they are in this process.
    """
    for kind in (ServiceLevel, Rollout):
        if kind not in manager.scheme:
            manager.scheme.register(kind)
    reconciler = ServiceLevelReconciler(numbers, commits)

    def levels(rollout: Resource) -> list[Request]:
        found = manager.informer(ServiceLevel).indexer.list()
        return [
            Request.of(level)
            for level in found
            if level.metadata.namespace == rollout.metadata.namespace and level.spec.rollout == rollout.metadata.name
        ]

    controller(manager, "servicelevel").for_(ServiceLevel).watches(Rollout, levels).build(reconciler)
    return reconciler
