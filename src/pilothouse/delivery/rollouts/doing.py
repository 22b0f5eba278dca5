"""Does what was decided: each action is one write, in order; the first that fails ends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from pilothouse.client import ignore_not_found
from pilothouse.client.recorder import EventRecorder
from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import AlreadyExists, TooManyRequests
from pilothouse.kinds.structs import Deployment, Pod, ReplicaSet, Resource, Service, replace, to_dict
from pilothouse.operator import Context
from pilothouse.operator.owners import is_controlled_by, owner_reference

from . import actions as writes
from .gatewayroutes import Traffic
from .names import HASH, MANAGED_BY

__all__ = ["Doer", "create_once"]

_log = get_logger(__name__)
_VERDICTS: Final = frozenset({"RolloutCompleted", "RolloutPaused", "SkipSteps"})


async def create_once(context: Context, wanted: Resource, owner: Resource) -> bool:
    """Make an object; whether one of this name that is there already is the owner's too. Raises ApiStatus, OSError."""
    try:
        await context.create(wanted)
    except AlreadyExists:
        name, namespace = wanted.metadata.name, wanted.metadata.namespace
        there = await ignore_not_found(context.client.get(type(wanted), name, namespace))
        return there is not None and is_controlled_by(there, owner)
    return True


class Doer:
    """Writes for one rollout within one reconcile.

    services: as the caches have them. verdicts: records what decides about a version; events of one source and object
    are limited, and those of steps and scaling must not use that up.
    """

    def __init__(
        self,
        obj: Rollout,
        context: Context,
        traffic: Traffic,
        services: dict[str, Service],
        verdicts: EventRecorder,
    ) -> None:
        self._obj = obj
        self._verdicts: Final = verdicts
        self._context: Final = context
        self._traffic: Final = traffic
        self._services: Final = services
        self._table: Final[dict[type, Callable[[Any], Awaitable[None]]]] = {
            writes.WriteStatus: self._status,
            writes.Annotate: self._annotate,
            writes.AdoptSet: self._adopt,
            writes.ReleaseSet: self._release,
            writes.CreateSet: self._create_set,
            writes.UpdateSet: self._update_set,
            writes.DeleteSet: self._delete,
            writes.SelectService: self._select,
            writes.WriteRoute: self._route,
            writes.WriteRegions: self._regions,
            writes.StartRun: self._start,
            writes.StartExperiment: self._start,
            writes.StopRun: lambda action: self._stop(AnalysisRun, action.name),
            writes.StopExperiment: lambda action: self._stop(Experiment, action.name),
            writes.DeleteRun: self._delete,
            writes.DeleteExperiment: self._delete,
            writes.EvictPod: self._evict,
            writes.MarkPod: self._mark,
            writes.ScaleWorkload: self._scale,
            writes.Tell: self._tell,
        }

    async def do(self, action: writes.Action) -> None:
        """Do one thing. Raises ApiStatus and OSError; Conflict where an object is another by now."""
        await self._table[type(action)](action)

    async def _status(self, action: writes.WriteStatus) -> None:
        self._obj = await self._context.update_status(replace(self._obj, status=action.status))

    async def _annotate(self, action: writes.Annotate) -> None:
        self._obj = await self._context.patch(self._obj, {"metadata": {"annotations": dict(action.annotations)}})

    async def _create_set(self, action: writes.CreateSet) -> None:
        if await create_once(self._context, action.wanted, self._obj):
            return
        count = (self._obj.status.collision_count or 0) + 1
        await self._context.update_status(replace(self._obj, status__collision_count=count))
        raise AlreadyExists(
            f"ReplicaSet {action.wanted.metadata.name} is there and is not of rollout {self._obj.metadata.name};"
            " another name is taken"
        )

    async def _adopt(self, action: writes.AdoptSet) -> None:
        found, owner = action.found, self._obj
        # The cache may not know of its deletion yet.
        fresh = await ignore_not_found(self._context.client.get(Rollout, owner.metadata.name, owner.metadata.namespace))
        if fresh is None or fresh.metadata.uid != owner.metadata.uid or fresh.metadata.deletion_timestamp is not None:
            return
        references = [*map(to_dict, found.metadata.owner_references), to_dict(owner_reference(owner))]
        await ignore_not_found(self._own(found, references))

    async def _release(self, action: writes.ReleaseSet) -> None:
        others = [each for each in action.found.metadata.owner_references if each.uid != self._obj.metadata.uid]
        await ignore_not_found(self._own(action.found, [*map(to_dict, others)] or None))

    async def _own(self, found: ReplicaSet, references: list[dict[str, Any]] | None) -> None:
        metadata = {"ownerReferences": references, "uid": found.metadata.uid}
        await self._context.patch(found, {"metadata": metadata})

    async def _update_set(self, action: writes.UpdateSet) -> None:
        await self._context.update(action.wanted)
        if action.told:
            self._context.recorder.normal(self._obj, "ScalingReplicaSet", action.told)

    async def _delete(self, action: writes.DeleteSet | writes.DeleteRun | writes.DeleteExperiment) -> None:
        await self._context.delete(action.found)

    async def _select(self, action: writes.SelectService) -> None:
        patch = {
            "metadata": {"annotations": {MANAGED_BY: self._obj.metadata.name}},
            "spec": {"selector": {HASH: action.hash}},
        }
        await self._context.patch(self._services[action.name], patch)
        told = f"Switched selector for service '{action.name}' from '{action.before}' to '{action.hash}'"
        self._context.recorder.normal(self._obj, "SwitchService", told)

    async def _route(self, action: writes.WriteRoute) -> None:
        await self._traffic.write_route(action.key, action.wanted)

    async def _regions(self, action: writes.WriteRegions) -> None:
        await self._traffic.write_regions(action.namespace, action.name, action.weights, self._obj)

    async def _start(self, action: writes.StartRun | writes.StartExperiment) -> None:
        wanted = action.wanted
        if not await create_once(self._context, wanted, self._obj):
            _log.warning(
                "a name is taken", kind=wanted.kind, name=wanted.metadata.name, rollout=self._obj.metadata.name
            )

    async def _stop(self, kind: type[Resource], name: str) -> None:
        namespace = self._obj.metadata.namespace
        await ignore_not_found(self._context.client.patch(kind, name, {"spec": {"terminate": True}}, namespace))

    async def _evict(self, action: writes.EvictPod) -> None:
        metadata = action.found.metadata
        try:
            await ignore_not_found(self._context.client.pods.evict(metadata.name, metadata.namespace))
        except TooManyRequests:
            _log.info("a disruption budget keeps a pod for now", pod=metadata.name, namespace=metadata.namespace)

    async def _mark(self, action: writes.MarkPod) -> None:
        metadata = action.found.metadata
        patch = {"metadata": {"labels": dict(action.labels), "annotations": dict(action.annotations)}}
        await ignore_not_found(self._context.client.patch(Pod, metadata.name, patch, metadata.namespace))

    async def _scale(self, action: writes.ScaleWorkload) -> None:
        await self._context.client.scale(Deployment, action.name, action.replicas, self._obj.metadata.namespace)

    async def _tell(self, action: writes.Tell) -> None:
        recorder = self._verdicts if action.warning or action.reason in _VERDICTS else self._context.recorder
        tell = recorder.warning if action.warning else recorder.normal
        tell(self._obj, action.reason, action.message)
