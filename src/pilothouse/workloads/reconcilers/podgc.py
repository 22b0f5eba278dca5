"""The garbage collector of pods: now and then it looks for those that nobody else will ever remove."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from pilothouse.client import ignore_not_found
from pilothouse.client.patches import StrategicPatch
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds import times
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import Node, Pod
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.podgc import (
    MAX_TERMINATED,
    PERIOD_SECONDS,
    Quarantine,
    failed_status,
    is_lost,
    surplus,
)

__all__ = ["PodCollector", "add_podgc"]

_INDEX: Final = "pods-to-collect"
_ENDED: Final = "ended"
_GOING: Final = "being-deleted"
_NODE: Final = "node/"
_SIDE_BY_SIDE: Final = 20
_EVERY: Final = Request("", "*")
"""No node has this name: the one request of this controller, whatever changes."""
_log = get_logger("pilothouse.workloads.podgc")


class PodCollector(Reconciler[Node]):
    """Looks at all pods, by indexes. max_terminated: ended pods that are kept, 0 for all."""

    def __init__(self, manager: Manager, *, max_terminated: int = MAX_TERMINATED) -> None:
        self._manager = manager
        self._max = max_terminated
        self._quarantine = Quarantine({})

    async def reconcile(self, obj: Node, context: Context) -> Result | None:
        """Do nothing: it is not single nodes that are looked at."""
        return None

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Look, and ask to be called again."""
        nodes = {node.metadata.name: node for node in self._manager.informer(Node).indexer.list()}
        pods = self._manager.informer(Pod).indexer
        if len(pods.index_keys(_INDEX, _ENDED)) > self._max > 0:
            await self._collect(context, surplus(context.indexed(Pod, _INDEX, _ENDED), self._max))
        await self._collect(context, [pod for pod in context.indexed(Pod, _INDEX, _GOING) if is_lost(pod, nodes)])
        named = {value.removeprefix(_NODE) for value in pods.index_values(_INDEX) if value.startswith(_NODE)}
        for name in self._quarantine.gone(named - nodes.keys(), context.clock.monotonic()):
            if await ignore_not_found(context.client.get(Node, name)) is None:
                await self._collect(context, context.indexed(Pod, _INDEX, _NODE + name), orphaned=True)
        return Result(requeue_after=PERIOD_SECONDS)

    async def _collect(self, context: Context, pods: Iterable[Pod], *, orphaned: bool = False) -> None:
        limit = asyncio.Semaphore(_SIDE_BY_SIDE)

        async def collect(pod: Pod) -> None:
            async with limit:
                try:
                    await _remove(context, pod, orphaned=orphaned)
                except ApiStatus as error:
                    name = f"{pod.metadata.namespace}/{pod.metadata.name}"
                    _log.error("a pod was not collected", pod=name, error=str(error))

        await asyncio.gather(*map(collect, pods))


async def _remove(context: Context, pod: Pod, *, orphaned: bool) -> None:
    metadata = pod.metadata
    status = failed_status(pod, times.format_seconds(context.clock.now()), orphaned=orphaned)
    if status is not None:
        patch = StrategicPatch({**status, "metadata": {"uid": metadata.uid}})
        if await ignore_not_found(context.patch(pod, patch, subresource="status")) is None:
            return
    await ignore_not_found(
        context.client.delete(Pod, metadata.name, metadata.namespace, grace_seconds=0, uid=metadata.uid)
    )
    _log.info("a pod was collected", pod=f"{metadata.namespace}/{metadata.name}", node=pod.spec.node_name)


class _Never(Predicate[Node]):
    """No event of a node matters: the collector calls itself."""

    reads_head = True

    def create(self, obj: Node) -> bool:
        return False

    def update(self, old: Node, new: Node) -> bool:
        return False

    def delete(self, obj: Node) -> bool:
        return False


def _places(pod: Pod) -> Iterable[str]:
    """Return under what the collector finds a pod."""
    if pod.status.phase in ("Succeeded", "Failed"):
        yield _ENDED
    if pod.metadata.deletion_timestamp is not None:
        yield _GOING
    if pod.spec.node_name:
        yield _NODE + pod.spec.node_name


def add_podgc(manager: Manager) -> None:
    """Add the garbage collector of pods."""
    manager.index(Pod, _INDEX, _places)
    built = controller(manager, "pod-garbage-collector-controller").for_(Node, _Never()).build(PodCollector(manager))
    built.queue.add(_EVERY)
