"""The controllers of replica sets and replication controllers: as many pods as wanted, and a status that says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.labels import SelectorError
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import Pod, ReplicaSet, ReplicationController, replace
from pilothouse.operator import Context, Manager, Reconciler, Result, controller
from pilothouse.operator.owners import controller_of
from pilothouse.workloads.podcontrol import claimed, create_pods, delete_pods
from pilothouse.workloads.pods import is_active, is_terminating
from pilothouse.workloads.replicasets import next_check, plan, selector_of, status_of
from pilothouse.workloads.sources import controller_or_adopters
from pilothouse.workloads.templates import pod_of

__all__ = ["ReplicaReconciler", "add_replicasets", "add_replicationcontrollers"]

R = TypeVar("R", bound=ReplicaSet | ReplicationController)

_CONCURRENCY: Final = 5
_log = get_logger("pilothouse.workloads.replicaset")


class ReplicaReconciler(Reconciler[R]):
    """Keeps as many pods as an object wants."""

    def __init__(self, manager: Manager, kind: type[R]) -> None:
        self._manager = manager
        self._kind = kind

    async def reconcile(self, obj: R, context: Context) -> Result | None:
        """Make or delete pods, then bring the status up to date."""
        try:
            selector = selector_of(obj)
        except SelectorError as error:
            _log.error("a selector cannot be read", kind=obj.kind, request=str(context.request), error=str(error))
            return None
        candidates = [pod for pod in [*context.owned(Pod, obj), *context.orphans(Pod)] if is_active(pod)]
        active = await claimed(context, obj, selector, candidates)
        refused: ApiStatus | None = None
        if obj.metadata.deletion_timestamp is None:
            refused = await self._manage(obj, active, context)
        ending = [pod for pod in context.owned(Pod, obj) if is_terminating(pod)]
        terminating = sum(selector.matches(pod.metadata.labels) for pod in ending)
        now = context.clock.now()
        status = status_of(obj, active, terminating, None if refused is None else str(refused), now)
        if status != obj.status:
            await context.update_status(replace(obj, status=status))
        if refused is not None:
            raise refused
        return Result(requeue_after=next_check(obj, active, now))

    async def _manage(self, obj: R, active: list[Pod], context: Context) -> ApiStatus | None:
        todo = plan(obj, active, self._neighbours(obj, context) if active else (), context.clock.now())
        if todo.create and obj.spec.template is not None:
            return await create_pods(context, obj, [pod_of(obj.spec.template, obj)] * todo.create)
        return await delete_pods(context, obj, todo.delete)

    def _neighbours(self, obj: R, context: Context) -> Iterable[Pod]:
        """Return the pods of all sets that have the same controller: a deployment's old and new ones share nodes."""
        owner = controller_of(obj)
        sets = [obj] if owner is None else self._manager.controlled(self._kind, owner.uid)
        return [pod for each in sets for pod in context.owned(Pod, each)]


def add_replicasets(manager: Manager) -> None:
    """Add the controller of replica sets."""
    _add(manager, ReplicaSet, "replicaset-controller")


def add_replicationcontrollers(manager: Manager) -> None:
    """Add the controller of replication controllers."""
    _add(manager, ReplicationController, "replication-controller")


def _add(manager: Manager, kind: type[R], name: str) -> None:
    (
        controller(manager, name)
        .for_(kind)
        .watches(Pod, controller_or_adopters(manager, kind, selector_of))
        .with_options(concurrency=_CONCURRENCY)
        .build(ReplicaReconciler(manager, kind))
    )
