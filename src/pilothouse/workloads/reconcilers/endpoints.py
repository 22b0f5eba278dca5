"""The controllers of endpoints: Endpoints and slices of each service's pods, and slices of Endpoints users write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.labels import Selector, from_labels
from pilothouse.kinds.status import ApiStatus, Forbidden
from pilothouse.kinds.structs import Endpoints, EndpointSlice, Node, Pod, Resource, Service
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller
from pilothouse.operator.handlers import itself
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.endpoints import TriggerTimes, is_relevant_change
from pilothouse.workloads.endpoints_drafts import Plan
from pilothouse.workloads.endpoints_hints import is_overloaded, shares_of
from pilothouse.workloads.endpoints_mirroring import MIRRORER, is_mirror, mirror, mirrors
from pilothouse.workloads.endpoints_slices import MANAGED_BY, MANAGER, SERVICE_NAME, Hinting, plan
from pilothouse.workloads.endpoints_subsets import MANAGED_BY as ENDPOINTS_MANAGED_BY
from pilothouse.workloads.endpoints_subsets import MANAGER as ENDPOINTS_MANAGER
from pilothouse.workloads.endpoints_subsets import endpoints_for
from pilothouse.workloads.podcontrol import is_namespace_ending

from .bylabel import index_pods, index_selectors, pods_with, selectors_of

__all__ = ["MirroringReconciler", "ServiceReconciler", "add_endpoints", "add_mirroring"]

_CONCURRENCY: Final = 5
_BY_SERVICE: Final = "workloads-service"
_log = get_logger("pilothouse.workloads.endpoints")


class ServiceReconciler(Reconciler[Service]):
    """Publishes the pods of services, in Endpoints and in slices: both of what one look at the pods gave."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._times = TriggerTimes()
        self._hinting = Hinting()
        self._are_zones_known = False
        self._known: set[Request] = set()
        self._endpoints_events = manager.recorder(ENDPOINTS_MANAGER)

    async def reconcile(self, obj: Service, context: Context) -> Result | None:
        """Write what has changed of a service's endpoints; a service without selector is its user's."""
        self._known.add(context.request)
        if obj.spec.type == "ExternalName" or not obj.spec.selector:
            return None
        pods = self._pods(obj)
        time = self._times.changed(obj, pods)
        await self._write_endpoints(obj, pods, time, context)
        try:
            await self._write_slices(obj, pods, time, context)
        except ApiStatus as error:
            self._tell(obj, error.message, context)
            raise
        return None

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Delete the Endpoints, which nothing owns; slices go with their owner.

        Those that a user wrote go with their service; where there never was one they are no concern of ours.
        """
        self._times.forget(*request)
        self._hinting.given.pop(str(request), None)
        was_known = request in self._known
        self._known.discard(request)
        found = context.get(Endpoints, request.name)
        if found is not None and (was_known or _is_ours(found)):
            await context.delete(found)
        return None

    def overloaded(self, _: Node) -> Iterable[Request]:
        """Return the services whose endpoints no longer fit the zones, now that a node has changed."""
        self._are_zones_known = False
        if not self._hinting.given:
            return ()
        shares = self._zones().shares
        return [
            Request(*key.split("/", 1))
            for key, families in self._hinting.given.items()
            if any(is_overloaded(given, shares) for given in families.values())
        ]

    def _zones(self) -> Hinting:
        if not self._are_zones_known:
            self._are_zones_known = True
            self._hinting.shares = shares_of(self._manager.informer(Node).lister().list())
        return self._hinting

    def _pods(self, obj: Service) -> list[Pod]:
        selector: Selector = from_labels(obj.spec.selector)
        found = pods_with(self._manager, obj.metadata.namespace, obj.spec.selector)
        fitting = [pod for pod in found if selector.matches(pod.metadata.labels)]
        return sorted(fitting, key=lambda pod: pod.metadata.name)

    async def _write_endpoints(self, obj: Service, pods: list[Pod], time: str, context: Context) -> None:
        present = context.get(Endpoints, obj.metadata.name)
        wanted = endpoints_for(obj, pods, present, time)
        if wanted is None:
            return
        try:
            await (context.create(wanted) if present is None else context.update(wanted))
        except Forbidden as error:
            if present is None and is_namespace_ending(error):
                return
            self._refused(wanted, error, is_new=present is None)
            raise
        except ApiStatus as error:
            self._refused(wanted, error, is_new=present is None)
            raise

    def _refused(self, wanted: Endpoints, error: ApiStatus, *, is_new: bool) -> None:
        where = f"{wanted.metadata.namespace}/{wanted.metadata.name}"
        if is_new:
            told = f"Failed to create endpoint for service {where}: {error.message}"
            self._endpoints_events.warning(wanted, "FailedToCreateEndpoint", told)
        else:
            told = f"Failed to update endpoint {where}: {error.message}"
            self._endpoints_events.warning(wanted, "FailedToUpdateEndpoint", told)

    async def _write_slices(self, obj: Service, pods: list[Pod], time: str, context: Context) -> None:
        present = _present(context, obj, MANAGER)
        made = plan(obj, pods, lambda name: context.get(Node, name), present, time, self._zones())
        await _carry_out(context, made)
        for note in made.notes:
            context.recorder.event(obj, note.type, note.reason, note.message)
        if made.lost:
            where = f"{obj.metadata.namespace}/{obj.metadata.name}"
            whats = [
                f"skipping Pod {pod.metadata.name} for Service {where}: Node {pod.spec.node_name} Not Found"
                for pod in made.lost
            ]
            self._tell(obj, whats[0] if len(whats) == 1 else f"[{', '.join(whats)}]", context)
            raise LookupError(whats[0])

    def _tell(self, obj: Service, what: str, context: Context) -> None:
        where = f"{obj.metadata.namespace}/{obj.metadata.name}"
        told = f"Error updating Endpoint Slices for Service {where}: {what}"
        context.recorder.warning(obj, "FailedToUpdateEndpointSlices", told)


class MirroringReconciler(Reconciler[Endpoints]):
    """Mirrors the Endpoints of services without selector to slices."""

    async def reconcile(self, obj: Endpoints, context: Context) -> Result | None:
        """Write what has changed, or delete all where they are mirrored no more."""
        present = _present(context, obj, MIRRORER)
        if not mirrors(obj, context.get(Service, obj.metadata.name)):
            await _carry_out(context, Plan(delete=present))
            return None
        made = mirror(obj, present)
        for note in made.notes:
            context.recorder.event(obj, note.type, note.reason, note.message)
        await _carry_out(context, made)
        return None

    async def removed(self, request: Request, context: Context) -> Result | None:
        """Delete the mirrored slices."""
        await _carry_out(
            context, Plan(delete=[each for each in _named(context, request.name).values() if is_mirror(each)])
        )
        return None


async def _carry_out(context: Context, made: Plan) -> None:
    for each in made.create:
        try:
            await context.create(each)
        except Forbidden as error:
            if is_namespace_ending(error):
                return
            raise
    for each in made.update:
        await context.update(each)
    for each in made.delete:
        await context.delete(each)


def _present(context: Context, owner: Resource, manager: str) -> list[EndpointSlice]:
    """Return the slices of a manager for a service's name, those that were written just now as they are by now."""
    found = {each.metadata.name: each for each in context.owned(EndpointSlice, owner)}
    found |= _named(context, owner.metadata.name)
    return [each for each in found.values() if _is_of(each, owner.metadata.name, manager)]


def _named(context: Context, service: str) -> dict[str, EndpointSlice]:
    cached = context.indexed(EndpointSlice, _BY_SERVICE, f"{context.request.namespace}/{service}")
    fresh = [context.get(EndpointSlice, each.metadata.name) for each in cached]
    return {each.metadata.name: each for each in fresh if each is not None}


def _is_of(found: EndpointSlice, service: str, manager: str) -> bool:
    labels = found.metadata.labels
    going = found.metadata.deletion_timestamp is not None
    return not going and labels.get(SERVICE_NAME) == service and labels.get(MANAGED_BY) == manager


class _Relevant(Predicate[Pod]):
    """Pods that changed in what services see of them."""

    def update(self, old: Pod, new: Pod) -> bool:
        return is_relevant_change(old, new)


class _Managed(Predicate[EndpointSlice]):
    """Slices of one manager, or that were its before."""

    def __init__(self, manager: str) -> None:
        self._manager = manager

    def create(self, obj: EndpointSlice) -> bool:
        return self._is_ours(obj)

    def update(self, old: EndpointSlice, new: EndpointSlice) -> bool:
        return self._is_ours(old) or self._is_ours(new)

    def delete(self, obj: EndpointSlice) -> bool:
        return self._is_ours(obj)

    def _is_ours(self, obj: EndpointSlice) -> bool:
        return obj.metadata.labels.get(MANAGED_BY) == self._manager


def _is_ours(obj: Endpoints) -> bool:
    return obj.metadata.labels.get(ENDPOINTS_MANAGED_BY) == ENDPOINTS_MANAGER


class _Leftover(Predicate[Endpoints]):
    """Endpoints of ours that are there from the start, whose service may be gone, and those that somebody deleted."""

    def create(self, obj: Endpoints) -> bool:
        return _is_ours(obj)

    def update(self, old: Endpoints, new: Endpoints) -> bool:
        return False


class _Zones(Predicate[Node]):
    """Nodes that changed in what hints follow."""

    def update(self, old: Node, new: Node) -> bool:
        return _zone_facts(old) != _zone_facts(new)


def _zone_facts(node: Node) -> tuple[object, ...]:
    ready = next((each.status for each in node.status.conditions if each.type == "Ready"), None)
    return ready, node.metadata.labels.get("topology.kubernetes.io/zone"), node.status.allocatable.get("cpu")


def _of_slice(obj: EndpointSlice) -> Iterable[Request]:
    service = obj.metadata.labels.get(SERVICE_NAME)
    return (Request(obj.metadata.namespace, service),) if service else ()


def _add_slice_index(manager: Manager) -> None:
    def by_service(obj: EndpointSlice) -> Iterable[str]:
        service = obj.metadata.labels.get(SERVICE_NAME)
        return (f"{obj.metadata.namespace}/{service}",) if service else ()

    manager.index(EndpointSlice, _BY_SERVICE, by_service)


def add_endpoints(manager: Manager) -> None:
    """Add the controller of Endpoints and of their slices."""

    def services_of(pod: Pod) -> Iterable[Request]:
        return [
            Request.of(service)
            for service in selectors_of(manager, Service, pod)
            if from_labels(service.spec.selector).matches(pod.metadata.labels)
        ]

    index_pods(manager)
    index_selectors(manager, Service, lambda service: service.spec.selector or None)
    _add_slice_index(manager)
    reconciler = ServiceReconciler(manager)
    (
        controller(manager, "endpoint-slice-controller")
        .for_(Service)
        .watches(Pod, services_of, _Relevant())
        .watches(EndpointSlice, _of_slice, _Managed(MANAGER))
        .watches(Endpoints, itself, _Leftover())
        .watches(Node, reconciler.overloaded, _Zones())
        .with_options(concurrency=_CONCURRENCY)
        .build(reconciler)
    )


def add_mirroring(manager: Manager) -> None:
    """Add the controller that mirrors Endpoints to slices."""
    _add_slice_index(manager)
    (
        controller(manager, "endpoint-slice-mirroring-controller")
        .for_(Endpoints)
        .watches(Service, itself)
        .watches(EndpointSlice, _of_slice, _Managed(MIRRORER))
        .with_options(concurrency=_CONCURRENCY)
        .build(MirroringReconciler())
    )
