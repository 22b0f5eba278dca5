"""Carries out decisions on an API: bindings, conditions, nominations, deletions, volumes and events."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec

from pilothouse.client import Client, StrategicPatch
from pilothouse.client.recorder import EventRecorder
from pilothouse.foundation.clock import Clock
from pilothouse.kinds import times
from pilothouse.kinds.status import Conflict, NotFound
from pilothouse.kinds.structs import PersistentVolume, PersistentVolumeClaim, Pod

from .decisions import Bind, Decision, Failed, Skipped
from .scheduler import Scheduler
from .storage import SELECTED_NODE, is_bound

__all__ = ["VolumesNotBound", "Writer"]

_BOUND_BY_CONTROLLER: Final = "pv.kubernetes.io/bound-by-controller"


class VolumesNotBound(Exception):
    """A pod's volumes did not become usable in time."""


class Pods(Protocol):
    """What is known of pods as the server has them."""

    def get(self, key: str) -> Pod | None:
        """Give a pod by `namespace/name`."""


class Writer:
    """Writes what a scheduler decided, and tells it what became of that.

    recorders: events of one pod go to the same one, so that like ones are put together. pods: the cache, asked before
    a condition is written that may be there already. volume_seconds: how long a binding waits for its volumes.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        client: Client,
        recorders: Sequence[EventRecorder],
        pods: Pods,
        clock: Clock,
        *,
        volume_seconds: float = 600.0,
    ) -> None:
        self._scheduler = scheduler
        self._client = client
        self._recorders = recorders
        self._pods = pods
        self._clock = clock
        self._volume_seconds = volume_seconds
        self._storage_changed = asyncio.Event()
        self.bound = 0
        """Pods that were bound."""

    def storage_changed(self) -> None:
        """Note that claims changed, for bindings that wait for their volumes."""
        self._storage_changed.set()

    def _recorder(self, pod: Pod) -> EventRecorder:
        return self._recorders[hash(pod.metadata.uid) % len(self._recorders)]

    async def write(self, decision: Decision) -> None:
        """Carry out a decision. Raises what the client raises, but for bindings, which go back to the queue."""
        match decision:
            case Bind():
                await self._bind(decision)
            case Failed():
                await self._fail(decision)
            case Skipped():
                self._recorder(decision.pod).warning(decision.pod, "FailedScheduling", decision.message)
            case _:
                pass  # the API server itself says of a gated pod that it is

    async def _bind(self, decision: Bind) -> None:
        pod, meta = decision.pod, decision.pod.metadata
        try:
            if decision.volumes is not None:
                await self._prepare_volumes(decision)
            binding = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
                "target": {"apiVersion": "v1", "kind": "Node", "name": decision.node},
            }
            path = f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}/binding"
            await self._client.request("POST", path, msgspec.json.encode(binding))
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001  whatever went wrong, the pod is tried again and the reason told
            failed = self._scheduler.bind_failed(meta.uid, f"binding rejected: {error}")
            # A pod that is gone, or that another scheduler has bound, needs no words.
            if failed is not None and not isinstance(error, NotFound | Conflict):
                await self._fail(failed)
            return
        self._scheduler.bound(meta.uid)
        self.bound += 1
        where = f"{meta.namespace}/{meta.name} to {decision.node}"
        self._recorder(pod).normal(pod, "Scheduled", f"Successfully assigned {where}")

    async def _fail(self, decision: Failed) -> None:
        pod = decision.pod
        self._recorder(pod).warning(pod, "FailedScheduling", decision.message)
        await self._tell(pod, decision)
        for cleared in decision.cleared:
            await self._patch(cleared, {"nominatedNodeName": None})
        scheduler = pod.spec.scheduler_name or "default-scheduler"
        for victim in decision.victims:
            await self._evict(victim, pod, decision.nominated or "", scheduler)

    async def _tell(self, pod: Pod, decision: Failed) -> None:
        """Write the condition and the nomination where they are not what the server has."""
        known = self._pods.get(f"{pod.metadata.namespace}/{pod.metadata.name}")
        if known is None or known.metadata.uid != pod.metadata.uid:
            return
        changes: dict[str, Any] = {}
        old = next((one for one in known.status.conditions if one.type == "PodScheduled"), None)
        wanted = ("False", decision.reason, decision.message)
        if old is None or (old.status, old.reason, old.message) != wanted:
            status, reason, message = wanted
            condition = {"type": "PodScheduled", "status": status, "reason": reason, "message": message}
            if old is None or old.status != status:
                condition["lastTransitionTime"] = times.format_seconds(self._clock.now())
            changes["conditions"] = [condition]
        if decision.nominated is not None and decision.nominated != known.status.nominated_node_name:
            changes["nominatedNodeName"] = decision.nominated or None
        if changes:
            await self._patch(pod, changes)

    async def _evict(self, victim: Pod, preemptor: Pod, node: str, scheduler: str) -> None:
        uid = victim.metadata.uid
        told = f"Preempted by pod {preemptor.metadata.uid} on node {node}"
        if self._scheduler.refuse(uid, "preempted"):
            self._recorder(victim).normal(victim, "Preempted", f"{told} (in kube-scheduler memory).")
            return
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{scheduler}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": times.format_seconds(self._clock.now()),
        }
        meta = victim.metadata
        try:
            await self._patch(victim, {"conditions": [condition]})
            await self._client.delete(Pod, meta.name, meta.namespace, uid=uid)
        except (NotFound, Conflict):
            return  # it is gone, or another pod of its name has come: there is room
        self._recorder(victim).normal(victim, "Preempted", told)

    async def _patch(self, pod: Pod, status: Mapping[str, Any]) -> None:
        meta = pod.metadata
        # With the uid, so that it does not hit another pod of the same name.
        patch = StrategicPatch({"metadata": {"uid": meta.uid}, "status": dict(status)})
        try:
            await self._client.patch(Pod, meta.name, patch, meta.namespace, subresource="status")
        except (NotFound, Conflict):
            return

    async def _prepare_volumes(self, decision: Bind) -> None:
        volumes, storage = decision.volumes, self._scheduler.cluster.storage
        if volumes is None:
            return
        for name, key in volumes.bindings:
            claim = storage.claims[key]
            reference = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim.metadata.namespace,
                "name": claim.metadata.name,
                "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version,
            }
            patch = {"metadata": {"annotations": {_BOUND_BY_CONTROLLER: "yes"}}, "spec": {"claimRef": reference}}
            await self._client.patch(PersistentVolume, name, patch)
        for key in volumes.provisions:
            namespace, _, name = key.partition("/")
            patch = {"metadata": {"annotations": {SELECTED_NODE: decision.node}}}
            await self._client.patch(PersistentVolumeClaim, name, patch, namespace)
        keys = [key for _, key in volumes.bindings] + [*volumes.provisions]
        await self._until_bound(keys, decision)

    async def _until_bound(self, keys: list[str], decision: Bind) -> None:
        storage = self._scheduler.cluster.storage
        deadline = self._clock.monotonic() + self._volume_seconds

        def missing() -> list[str]:
            return [key for key in keys if (claim := storage.claims.get(key)) is None or not is_bound(claim)]

        while left := missing():
            for key in left:
                claim = storage.claims.get(key)
                if claim is None or (key not in storage.assumed_claims and storage.selected_node(claim) is None):
                    given = any(key == holder for _, holder in (decision.volumes.bindings if decision.volumes else ()))
                    if claim is None or not given:
                        raise VolumesNotBound(f'binding volumes: selectedNode annotation reset for PVC "{key}"')
            seconds = deadline - self._clock.monotonic()
            if seconds <= 0:
                raise VolumesNotBound(f"binding volumes: claims {', '.join(left)} are not bound in time")
            self._storage_changed.clear()
            timer = self._clock.call_later(seconds, self._storage_changed.set)
            try:
                await self._storage_changed.wait()
            finally:
                timer.cancel()
