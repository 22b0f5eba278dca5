"""The controller that says on nodes for how long their agents may keep secrets and config maps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from pilothouse.client import ignore_not_found
from pilothouse.kinds.structs import Node
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.predicates import Predicate

__all__ = ["ANNOTATION", "NodeTtlReconciler", "add_node_ttl", "step_of"]

ANNOTATION: Final = "node.alpha.kubernetes.io/ttl"
_STEPS: Final = ((0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, 1 << 31, 300))
"""Of a cluster's size, the bounds within which it stays on a step, and the seconds."""


def step_of(nodes: int, step: int) -> int:
    """Return the step for a number of nodes, coming from another step."""
    while nodes > _STEPS[step][1]:
        step += 1
    while nodes < _STEPS[step][0]:
        step -= 1
    return step


class NodeTtlReconciler(Reconciler[Node]):
    """Annotates nodes."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._step = 0
        self.enqueue: Callable[[Request], None] = _nowhere

    async def reconcile(self, obj: Node, context: Context) -> Result | None:
        """Write a node's annotation, and look at all nodes when there have come to be many more or fewer."""
        self._count()
        wanted = str(_STEPS[self._step][2])
        if obj.metadata.annotations.get(ANNOTATION) != wanted and obj.metadata.deletion_timestamp is None:
            await ignore_not_found(context.patch(obj, {"metadata": {"annotations": {ANNOTATION: wanted}}}))
        return None

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Count the nodes that are left."""
        self._count()
        return None

    def _count(self) -> None:
        names = list(self._manager.informer(Node).indexer.keys())
        step = step_of(len(names), self._step)
        if step != self._step:
            self._step = step
            for name in names:
                self.enqueue(Request("", name))


def _nowhere(_: Request) -> None:
    return None


class _Annotated(Predicate[Node]):
    """Nodes whose annotation is another than before."""

    def update(self, old: Node, new: Node) -> bool:
        return old is new or old.metadata.annotations.get(ANNOTATION) != new.metadata.annotations.get(ANNOTATION)


def add_node_ttl(manager: Manager) -> None:
    """Add the controller of the annotation."""
    reconciler = NodeTtlReconciler(manager)
    made = controller(manager, "ttl-controller").for_(Node, _Annotated()).build(reconciler)
    reconciler.enqueue = made.queue.add
