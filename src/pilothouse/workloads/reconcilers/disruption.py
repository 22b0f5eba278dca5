"""The controller of disruption budgets: their status, which allows evictions, and pods that stayed after all."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pilothouse.client.resources import Mapping as ResourceMapping
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.intstr import IntOrStringError
from pilothouse.kinds.labels import Selector, SelectorError, from_label_selector
from pilothouse.kinds.status import ApiStatus, Conflict, NotFound, qualified
from pilothouse.kinds.structs import (
    Deployment,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    ReplicationController,
    StatefulSet,
    replace,
    to_dict,
)
from pilothouse.kinds.structs.meta import OwnerReference
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.owners import controller_of
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.disruption import (
    disrupted,
    failed_status,
    needs_scales,
    selector_text,
    stale_in,
    status_of,
    without_disruption,
)

from .bylabel import index_pods, index_selectors, pods_with, selectors_of

__all__ = ["BudgetReconciler", "StaleDisruptionReconciler", "add_disruption"]

_COMPONENT: Final = "controllermanager"
_CONCURRENCY: Final = 5
_UNMANAGED: Final = (
    "were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, "
    "which may result in undefined behavior. "
    'To account for these pods please set ".spec.minAvailable" field of the PDB to an integer value.'
)
_log = get_logger("pilothouse.workloads.disruption")

_Kind = type[ReplicaSet | ReplicationController | StatefulSet]
_KINDS: Final[dict[tuple[str, str], _Kind]] = {
    ("", "ReplicationController"): ReplicationController,
    ("apps", "ReplicaSet"): ReplicaSet,
    ("apps", "StatefulSet"): StatefulSet,
}


class _CannotCountError(Exception):
    """The number of pods that there should be is not known."""


class BudgetReconciler(Reconciler[PodDisruptionBudget]):
    """Counts the pods of budgets."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._events = manager.recorder(_COMPONENT)

    async def reconcile(self, obj: PodDisruptionBudget, context: Context) -> Result | None:
        """Bring the status up to date; what cannot be counted allows no disruption."""
        try:
            return await self._count(obj, context)
        except Conflict:
            raise
        except (SelectorError, IntOrStringError, _CannotCountError, ApiStatus) as error:
            _log.info("a disruption budget cannot be counted", request=str(context.request), error=str(error))
            status = failed_status(obj, str(error), context.clock.now())
            if status != obj.status:
                await context.update_status(replace(obj, status=status))
            return None

    async def _count(self, obj: PodDisruptionBudget, context: Context) -> Result | None:
        try:
            selector = _selector_of(obj)
        except SelectorError as error:
            self._events.warning(obj, "NoPods", f"Failed to get pods: {error}")
            raise
        pods = pods_with(self._manager, obj.metadata.namespace, _labels_of(obj) or {}, selector)
        if not pods:
            self._events.normal(obj, "NoPods", "No matching pods found")
        now = context.clock.now()
        try:
            scales = await self._scales(obj, pods, context) if needs_scales(obj) else {}
            going = disrupted(obj, pods, now)
            status = status_of(obj, pods, scales.values(), going.pods, now)
        except (_CannotCountError, ApiStatus, IntOrStringError) as error:
            told = f"Failed to calculate the number of expected pods: {error}"
            self._events.warning(obj, "CalculateExpectedPodCountFailed", told)
            raise
        where = f"{obj.metadata.namespace}/{obj.metadata.name}"
        for pod in going.late:
            told = f"Pod was expected by PDB {where} to be deleted but it wasn't"
            self._events.warning(pod, "NotDeleted", told)
        if status != obj.status:
            await context.update_status(replace(obj, status=status))
        return Result(requeue_after=going.again)

    async def _scales(self, obj: PodDisruptionBudget, pods: Iterable[Pod], context: Context) -> dict[str, int]:
        """Return how many pods the pods' controllers want, each by its UID."""
        found: dict[str, int] = {}
        known: set[str] = set()
        unmanaged = False
        for pod in pods:
            owner = controller_of(pod)
            if owner is None:
                unmanaged = True
            elif owner.uid not in known:
                known.add(owner.uid)
                uid, scale = await self._scale(owner, pod, context)
                found[uid] = scale
        if unmanaged:
            told = f"Pods selected by this PodDisruptionBudget (selector: {selector_text(obj.spec.selector)}) "
            self._events.warning(obj, "UnmanagedPods", told + _UNMANAGED)
        return found

    async def _scale(self, owner: OwnerReference, pod: Pod, context: Context) -> tuple[str, int]:
        """Return whose number counts for a pod, by the UID, and the number. Raises _CannotCountError and ApiStatus."""
        group = owner.api_version.rpartition("/")[0]
        kind = _KINDS.get((group, owner.kind))
        found = None if kind is None else context.get(kind, owner.name)
        if found is not None and found.metadata.uid == owner.uid:
            above = controller_of(found) if isinstance(found, ReplicaSet) else None
            if above is None or above.kind != "Deployment":
                return owner.uid, _replicas(found.spec.replicas)
            deployment = context.get(Deployment, above.name)
            if deployment is not None and deployment.metadata.uid == above.uid:
                return above.uid, _replicas(deployment.spec.replicas)
        return await self._asked_scale(owner, pod, context)

    async def _asked_scale(self, owner: OwnerReference, pod: Pod, context: Context) -> tuple[str, int]:
        mapping: ResourceMapping = await context.client.dynamic(owner.api_version, owner.kind).mapping()
        target = mapping.item(owner.name, pod.metadata.namespace, "scale")
        try:
            scale: dict[str, Any] = json.loads(await context.client.request("GET", target))
        except NotFound as error:
            group = owner.api_version.rpartition("/")[0]
            if not await self._has_scale(owner.api_version, mapping.plural, context):
                name = qualified(group, mapping.plural)
                raise _CannotCountError(f"{name} does not implement the scale subresource") from error
            scale = {}
        if (scale.get("metadata") or {}).get("uid") != owner.uid:
            raise _CannotCountError(f'found no controllers for pod "{pod.metadata.name}"')
        return owner.uid, int((scale.get("spec") or {}).get("replicas") or 0)

    async def _has_scale(self, api_version: str, plural: str, context: Context) -> bool:
        root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
        found: dict[str, Any] = json.loads(await context.client.request("GET", root))
        return any(each.get("name") == f"{plural}/scale" for each in found.get("resources") or ())


def _replicas(number: int | None) -> int:
    return 1 if number is None else number


def _labels_of(obj: PodDisruptionBudget) -> Mapping[str, str] | None:
    return None if obj.spec.selector is None else obj.spec.selector.match_labels


def _selector_of(obj: PodDisruptionBudget) -> Selector:
    return from_label_selector(None if obj.spec.selector is None else to_dict(obj.spec.selector))


class StaleDisruptionReconciler(Reconciler[Pod]):
    """Takes back the condition of pods that were to be disrupted and have not gone in time."""

    async def reconcile(self, obj: Pod, context: Context) -> Result | None:
        """Wait, then take it back."""
        left = stale_in(obj, context.clock.now())
        if left is None:
            return None
        if left > 0:
            return Result(requeue_after=left)
        await context.update_status(without_disruption(obj, context.clock.now()))
        return None


class _Counted(Predicate[Pod]):
    """Pods that changed in what budgets count."""

    def update(self, old: Pod, new: Pod) -> bool:
        return _facts(old) != _facts(new)


def _facts(pod: Pod) -> tuple[object, ...]:
    ready = any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions)
    return ready, pod.metadata.labels, pod.metadata.deletion_timestamp, controller_of(pod)


class _Target(Predicate[Pod]):
    """Pods that are said to be disrupted."""

    def create(self, obj: Pod) -> bool:
        return any(each.type == "DisruptionTarget" and each.status == "True" for each in obj.status.conditions)

    def update(self, old: Pod, new: Pod) -> bool:
        return self.create(new)

    def delete(self, obj: Pod) -> bool:
        return False


def add_disruption(manager: Manager) -> None:
    """Add the controller of disruption budgets."""
    recorder = manager.recorder(_COMPONENT)

    def budgets_of(pod: Pod) -> Iterable[Request]:
        fitting = [each for each in selectors_of(manager, PodDisruptionBudget, pod) if _takes(each, pod)]
        if len(fitting) > 1 and pod.metadata.deletion_timestamp is None:
            told = (
                f'Pod "{pod.metadata.namespace}"/"{pod.metadata.name}" matches multiple PodDisruptionBudgets.  '
                f'Chose "{fitting[0].metadata.name}" arbitrarily.'
            )
            recorder.warning(pod, "MultiplePodDisruptionBudgets", told)
        return [Request.of(each) for each in fitting]

    def of_scaled(obj: Any) -> Iterable[Request]:
        budgets = manager.informer(PodDisruptionBudget).lister().namespaced(obj.metadata.namespace).list()
        return [Request.of(each) for each in budgets if needs_scales(each)] if budgets else ()

    index_pods(manager)
    index_selectors(manager, PodDisruptionBudget, _labels_of)
    (
        controller(manager, "disruption-controller")
        .for_(PodDisruptionBudget)
        .watches(Pod, budgets_of, _Counted())
        .watches(Deployment, of_scaled, _Scaled())
        .watches(ReplicaSet, of_scaled, _Scaled())
        .watches(ReplicationController, of_scaled, _Scaled())
        .watches(StatefulSet, of_scaled, _Scaled())
        .with_options(concurrency=_CONCURRENCY)
        .build(BudgetReconciler(manager))
    )
    (controller(manager, "disruption-controller-stale-pods").for_(Pod, _Target()).build(StaleDisruptionReconciler()))


class _Scaled(Predicate[Any]):
    """Objects that want another number of pods than before."""

    def create(self, obj: Any) -> bool:
        return False

    def update(self, old: Any, new: Any) -> bool:
        return bool(old.spec.replicas != new.spec.replicas)

    def delete(self, obj: Any) -> bool:
        return False


def _takes(budget: PodDisruptionBudget, pod: Pod) -> bool:
    try:
        return _selector_of(budget).matches(pod.metadata.labels)
    except SelectorError:
        return False
