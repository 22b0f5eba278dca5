"""The controller of nodes' lives: silent nodes are taken for lost, and what follows for their taints and their pods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final

from pilothouse.client.objects import DeletedFinalStateUnknown, key_of
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import Conflict, NotFound
from pilothouse.kinds.structs import Lease, Node, Pod
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.nodes import (
    GRACE_SECONDS,
    STARTUP_GRACE_SECONDS,
    counts_for_disruption,
    evicting_taint,
    is_healthy,
    not_ready_pod,
    ready_of,
    settled,
    with_evicting,
    with_unknown,
    zone_of,
)
from pilothouse.workloads.nodes_zones import Zones

__all__ = ["BY_NODE", "NodeReconciler", "add_nodelifecycle", "index_by_node"]

BY_NODE: Final = "workloads-node"
_CONCURRENCY: Final = 8
_LEASES: Final = "kube-node-lease"
_PERIOD_SECONDS: Final = 20.0
"""After which a lost node that may not be tainted asks again, at the latest."""
_log = get_logger("pilothouse.workloads.nodelifecycle")


class NodeReconciler(Reconciler[Node]):
    """Looks at one node when it changed, and when it should have been heard of again."""

    def __init__(self, manager: Manager, grace_seconds: float = GRACE_SECONDS) -> None:
        self._manager = manager
        self._grace = grace_seconds
        self._events = manager.recorder("node-controller")
        self._zones = Zones()
        self._heard: dict[str, float] = {}
        self._known: dict[str, str] = {}
        self._beats: dict[str, str | None] = {}
        self._unmarked: set[str] = set()
        """Nodes whose pods may be taken for ready although the nodes are not."""
        self._were_all_lost = False
        self.enqueue: Callable[[Request], None] = _nowhere

    # Heartbeats

    def lease_renewed(self, _: Any, lease: Any) -> None:
        """Take note that a node's lease was renewed: it lives. No object has to be read for it."""
        namespace, _, name = key_of(lease).rpartition("/")
        if namespace == _LEASES and name in self._heard:
            self._heard[name] = self._manager.clock.monotonic()

    def _hear(self, node: Node) -> float:
        """Return when a node was heard of last."""
        name, now, ready = node.metadata.name, self._manager.clock.monotonic(), ready_of(node)
        beat = None if ready is None else ready.last_heartbeat_time or ready.last_transition_time
        if name not in self._heard or (ready is not None and ready.status != "Unknown" and self._beats[name] != beat):
            self._heard[name] = now
        self._beats[name] = beat
        return self._heard[name]

    async def reconcile(self, obj: Node, context: Context) -> Result | None:
        """See to a node's conditions, taints and pods."""
        name = obj.metadata.name
        if self._known.get(name) != obj.metadata.uid:
            self._known[name] = obj.metadata.uid
            self._heard.pop(name, None)
            self._unmarked.add(name)  # it may have been lost while nobody looked
            self._tell(obj, "RegisteredNode", f"Registered Node {name} in Controller")
        heard, now = self._hear(obj), context.clock.monotonic()
        grace = STARTUP_GRACE_SECONDS if ready_of(obj) is None else self._grace
        due = heard + grace - now
        if due <= 0:
            due = math.inf  # until it says itself how it is
            if not self._is_reported_by_hand(obj):
                obj = await self._lost(obj, context)
        await self._mark_pods(obj, context)
        self._count(obj)
        fixed = settled(obj, context.clock.now())
        fixed, again = self._with_evicting(fixed, context)
        if fixed is not obj:
            await context.update(fixed)
        wait = min(due + 0.001, again)
        return None if wait == math.inf else Result(requeue_after=wait)

    def _is_reported_by_hand(self, obj: Node) -> bool:
        """Whether a node said to be ready never had an agent, which would have sent a heartbeat: then that stands."""
        ready = ready_of(obj)
        if ready is None or ready.status != "True" or ready.last_heartbeat_time:
            return False
        return self._manager.informer(Lease).indexer.get(f"{_LEASES}/{obj.metadata.name}") is None

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Forget a node that is gone."""
        self._heard.pop(request.name, None)
        self._beats.pop(request.name, None)
        self._unmarked.discard(request.name)
        uid = self._known.pop(request.name, None)
        self._zones.forget(request.name)
        self._check_disruption()
        if uid is not None:
            about = _reference(request.name, uid)
            what = f"Node {request.name} event: Removing Node {request.name} from Controller"
            self._events.normal(about, "RemovingNode", what)
        return None

    async def _lost(self, obj: Node, context: Context) -> Node:
        """Say of a node that nobody knows how it is, and of its pods that they are not ready."""
        unknown = with_unknown(obj, context.clock.now())
        if unknown is obj:
            return obj
        was_ready = is_healthy(obj)
        _log.warning("a node is silent", node=obj.metadata.name, seconds=self._grace)
        made = await context.update_status(unknown)
        if was_ready:
            name = obj.metadata.name
            self._unmarked.add(name)
            self._events.normal(_reference(name, name), "NodeNotReady", f"Node {name} status is now: NodeNotReady")
        return made

    async def _mark_pods(self, obj: Node, context: Context) -> None:
        """Say of the pods of a lost node that they are not ready, once; what fails is tried again."""
        name, ready = obj.metadata.name, ready_of(obj)
        if name not in self._unmarked or ready is None:
            return
        for pod in context.indexed(Pod, BY_NODE, name) if ready.status != "True" else ():
            changed = not_ready_pod(pod, context.clock.now())
            if changed is None:
                continue
            self._events.warning(pod, "NodeNotReady", "Node is not ready")
            try:
                await context.update_status(changed)
            except (Conflict, NotFound):
                _log.info("a pod of a lost node changed meanwhile", pod=pod.metadata.name, node=name)
        self._unmarked.discard(name)

    # Taints

    def _count(self, obj: Node) -> None:
        name, healthy = obj.metadata.name, is_healthy(obj)
        if counts_for_disruption(obj):
            self._zones.observe(name, zone_of(obj), healthy)
        else:
            self._zones.forget(name)
        self._check_disruption()

    def _check_disruption(self) -> None:
        """When the last ready node is lost, or the first is back, all nodes are looked at again."""
        all_lost = self._zones.are_all_lost
        if all_lost == self._were_all_lost:
            return
        self._were_all_lost = all_lost
        if not all_lost:
            now = self._manager.clock.monotonic()
            self._heard = dict.fromkeys(self._heard, now)
        _log.warning("no node is ready" if all_lost else "some nodes are ready again", nodes=len(self._heard))
        for name in self._known:
            self.enqueue(Request("", name))

    def _with_evicting(self, obj: Node, context: Context) -> tuple[Node, float]:
        """Return a node with the taint that evicts its pods as far as it may have it, and when to ask again."""
        wanted, now = evicting_taint(obj), context.clock.now()
        if self._zones.are_all_lost:
            return with_evicting(obj, "", now), math.inf
        made = with_evicting(obj, wanted, now)
        has_one = with_evicting(obj, "", now) is not obj
        if made is obj or not wanted or has_one:
            return made, math.inf
        wait = self._zones.wait(zone_of(obj), context.clock.monotonic())
        return (made, math.inf) if wait == 0.0 else (obj, min(wait, _PERIOD_SECONDS))

    def _tell(self, obj: Node, reason: str, what: str) -> None:
        name = obj.metadata.name
        self._events.normal(_reference(name, obj.metadata.uid), reason, f"Node {name} event: {what}")


def _nowhere(_: Request) -> None:
    return None


def _reference(name: str, uid: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": uid}}


def index_by_node(manager: Manager) -> None:
    """Have the cache of pods find them by their node."""

    def by_node(pod: Pod) -> Iterable[str]:
        return (pod.spec.node_name,) if pod.spec.node_name else ()

    manager.index(Pod, BY_NODE, by_node)


class _Changed(Predicate[Node]):
    """Nodes that changed in what matters here; of heartbeats alone it is only noted when."""

    def update(self, old: Node, new: Node) -> bool:
        return old is new or _facts(old) != _facts(new)


def _facts(node: Node) -> tuple[object, ...]:
    conditions = [(each.type, each.status, each.last_heartbeat_time) for each in node.status.conditions]
    return conditions, node.spec.taints, node.spec.unschedulable, node.metadata.labels


def add_nodelifecycle(manager: Manager, grace_seconds: float = GRACE_SECONDS) -> None:
    """Add the controller of nodes' lives. grace_seconds: for which a node may keep silent."""
    index_by_node(manager)
    reconciler = NodeReconciler(manager, grace_seconds)
    made = (
        controller(manager, "node-lifecycle-controller")
        .for_(Node, _Changed())
        .with_options(concurrency=_CONCURRENCY)
        .build(reconciler)
    )
    reconciler.enqueue = made.queue.add
    manager.informer(Lease).add_packed_handler(_Renewals(reconciler), name="leases of nodes")


class _Renewals:
    """Hears of leases."""

    def __init__(self, reconciler: NodeReconciler) -> None:
        self._reconciler = reconciler

    def on_add(self, obj: Any, is_in_initial_list: bool) -> None:
        self._reconciler.lease_renewed(None, obj)

    def on_update(self, old: Any, new: Any) -> None:
        self._reconciler.lease_renewed(old, new)

    def on_delete(self, obj: Any | DeletedFinalStateUnknown[Any]) -> None:
        return None
