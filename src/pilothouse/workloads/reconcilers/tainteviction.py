"""The controller of evictions by taints: pods leave a node that evicts them, those that tolerate it a while later."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from pilothouse.client import ignore_not_found
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.structs import Node, Pod
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.nodes_tolerations import evicting_taints, marked_for_eviction, stay_seconds

from .nodelifecycle import BY_NODE, index_by_node

__all__ = ["EvictionReconciler", "add_tainteviction"]

_CONCURRENCY: Final = 8
_log = get_logger("pilothouse.workloads.tainteviction")


class EvictionReconciler(Reconciler[Pod]):
    """Deletes pods that do not tolerate their node's taints any longer."""

    def __init__(self) -> None:
        self._due: dict[tuple[str, str], float] = {}

    async def reconcile(self, obj: Pod, context: Context) -> Result | None:
        """Delete a pod, or wait until it is time, or let it stay."""
        key = (obj.metadata.namespace, obj.metadata.uid)
        node = context.get(Node, obj.spec.node_name, "") if obj.spec.node_name else None
        taints = [] if node is None else evicting_taints(node)
        stay = stay_seconds(obj, taints) if taints else math.inf
        if obj.metadata.deletion_timestamp is not None or stay == math.inf:
            if self._due.pop(key, None) is not None:
                self._cancelled(obj, context)
            return None
        now = context.clock.monotonic()
        due = now if stay == 0.0 else self._due.setdefault(key, now + stay)
        if due > now:
            return Result(requeue_after=due - now)
        await self._evict(obj, context)
        if self._due.pop(key, None) is not None and not obj.spec.termination_grace_period_seconds:
            # A pod that is gone at once is one whose timer has nothing left to do, and Kubernetes says so.
            self._cancelled(obj, context)
        return None

    async def _evict(self, obj: Pod, context: Context) -> None:
        name = f"{obj.metadata.namespace}/{obj.metadata.name}"
        _log.info("a pod is evicted by a taint", pod=name, node=obj.spec.node_name)
        context.recorder.normal(obj, "TaintManagerEviction", f"Marking for deletion Pod {name}")
        marked = marked_for_eviction(obj, context.clock.now())
        if marked is not None:
            await ignore_not_found(context.update_status(marked))
        await context.delete(obj)

    def _cancelled(self, obj: Pod, context: Context) -> None:
        name = f"{obj.metadata.namespace}/{obj.metadata.name}"
        context.recorder.normal(obj, "TaintManagerEviction", f"Cancelling deletion of Pod {name}")


class _OnTainted(Predicate[Pod]):
    """Pods on nodes that evict, when they come there or tolerate something else."""

    def __init__(self, manager: Manager) -> None:
        self._nodes = manager.informer(Node).indexer

    def create(self, obj: Pod) -> bool:
        if not obj.spec.node_name:
            return False
        node = self._nodes.get(obj.spec.node_name)
        return node is not None and bool(evicting_taints(node))

    def update(self, old: Pod, new: Pod) -> bool:
        same = old.spec.node_name == new.spec.node_name and old.spec.tolerations == new.spec.tolerations
        return not same and self.create(new)

    def delete(self, obj: Pod) -> bool:
        return False


class _Tainted(Predicate[Node]):
    """Nodes whose evicting taints changed."""

    def create(self, obj: Node) -> bool:
        return bool(evicting_taints(obj))

    def update(self, old: Node, new: Node) -> bool:
        return evicting_taints(old) != evicting_taints(new)

    def delete(self, obj: Node) -> bool:
        return False


def add_tainteviction(manager: Manager) -> None:
    """Add the controller of evictions by taints."""
    index_by_node(manager)

    def pods_of(node: Node) -> Iterable[Request]:
        return [Request.of(pod) for pod in manager.informer(Pod).indexer.by_index(BY_NODE, node.metadata.name)]

    (
        controller(manager, "taint-eviction-controller")
        .for_(Pod, _OnTainted(manager))
        .watches(Node, pods_of, _Tainted())
        .with_options(concurrency=_CONCURRENCY)
        .build(EvictionReconciler())
    )
