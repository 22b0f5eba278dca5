"""A service's endpoint slices: which endpoints each holds, with as few writes as can be. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pilothouse.kinds.structs import EndpointSlice, Node, ObjectMeta, Pod, Service, replace
from pilothouse.kinds.structs.discovery import Endpoint, EndpointPort
from pilothouse.operator.owners import owner_reference

from .endpoints import HEADLESS, TRIGGER_TIME, endpoint_of, families_of, has_address, is_headless, ports_of
from .endpoints_drafts import Draft, Plan, identity_of, is_same
from .endpoints_hints import Note, by_distribution, by_topology, distribution_of, uses_topology, without

__all__ = [
    "MANAGED_BY",
    "MANAGER",
    "MAX_ENDPOINTS",
    "SERVICE_NAME",
    "Hinting",
    "ServicePlan",
    "is_managed",
    "name_prefix",
    "plan",
    "port_key",
]

SERVICE_NAME: Final = "kubernetes.io/service-name"
MANAGED_BY: Final = "endpointslice.kubernetes.io/managed-by"
MANAGER: Final = "endpointslice-controller.k8s.io"
MAX_ENDPOINTS: Final = 100
_RESERVED: Final = frozenset({SERVICE_NAME, MANAGED_BY, HEADLESS})
_MAX_PREFIX: Final = 253

_PortKey = tuple[tuple[str | None, str | None, int | None, str | None], ...]


@dataclass(slots=True)
class Hinting:
    """What is known of the zones: their parts of the processors, and what services' endpoints got, by family."""

    shares: Mapping[str, float] = field(default_factory=dict)
    given: dict[str, dict[str, Mapping[str, int]]] = field(default_factory=dict)


@dataclass(slots=True)
class ServicePlan(Plan):
    """What to do about a service's slices, which events to tell, and which pods are on nodes that are not there."""

    notes: list[Note] = field(default_factory=list)
    lost: list[Pod] = field(default_factory=list)


def is_managed(found: EndpointSlice) -> bool:
    """Whether a slice is one that is made of a service's pods."""
    return found.metadata.labels.get(MANAGED_BY) == MANAGER


def name_prefix(name: str) -> str:
    """Return how the names of a service's slices begin."""
    return f"{name}-" if len(name) < _MAX_PREFIX else name


def plan(
    service: Service,
    pods: Iterable[Pod],
    node_of: Callable[[str], Node | None],
    present: Iterable[EndpointSlice],
    trigger_time: str,
    hinting: Hinting,
) -> ServicePlan:
    """Return what makes slices publish the pods that the service's selector takes.

    node_of: gives a node by its name. present: the slices of the service's name. hinting: brought up to date.
    """
    made, families, slices = ServicePlan(), families_of(service), [*present]
    candidates = [pod for pod in pods if has_address(pod)]
    for family in families:
        of_family = [each for each in slices if each.address_type == family]
        _plan_family(made, service, family, candidates, node_of, of_family, hinting)
    made.lost = [*{pod.metadata.name: pod for pod in made.lost}.values()]
    made.delete += [each for each in slices if each.address_type not in families]
    if service.metadata.deletion_timestamp is not None:
        made.create.clear()
    made.create = [_timed(each, trigger_time) for each in made.create]
    made.update = [_timed(each, trigger_time) for each in made.update]
    return made


def _plan_family(
    made: ServicePlan,
    service: Service,
    family: str,
    pods: Iterable[Pod],
    node_of: Callable[[str], Node | None],
    present: Sequence[EndpointSlice],
    hinting: Hinting,
) -> None:
    wanted, ports = _wanted(made, service, family, pods, node_of)
    labels = _labels(service)
    by_ports: dict[_PortKey, list[EndpointSlice]] = {}
    delete = []
    for each in present:
        if _is_owned(each, service):
            by_ports.setdefault(port_key(each.ports), []).append(each)
        else:
            delete.append(each)
    drafts: list[Draft] = []
    for key, endpoints in wanted.items():
        kept, gone = _pack(by_ports.pop(key, []), endpoints, ports[key], labels)
        drafts += kept
        delete += gone
    delete += [each for rest in by_ports.values() for each in rest]
    if not drafts:
        empty = next((each for each in delete if len(delete) == 1 and _is_placeholder(each, service, labels)), None)
        if empty is not None:
            delete.remove(empty)
            drafts.append(Draft((), [], labels, empty))
        else:
            drafts.append(Draft((), [], labels))
    made.notes += _hint(service, family, drafts, hinting)
    _finish(made, service, family, drafts, delete)


def _wanted(
    made: ServicePlan, service: Service, family: str, pods: Iterable[Pod], node_of: Callable[[str], Node | None]
) -> tuple[dict[_PortKey, dict[tuple[object, ...], Endpoint]], dict[_PortKey, Sequence[EndpointPort]]]:
    wanted: dict[_PortKey, dict[tuple[object, ...], Endpoint]] = {}
    ports: dict[_PortKey, Sequence[EndpointPort]] = {}
    for pod in pods:
        of_pod = ports_of(service, pod)
        key = port_key(of_pod)
        endpoints = wanted.setdefault(key, {})
        ports.setdefault(key, of_pod)
        node = node_of(pod.spec.node_name)
        if node is None and not service.spec.publish_not_ready_addresses:
            made.lost.append(pod)
            continue
        endpoint = endpoint_of(service, pod, node, family)
        if endpoint.addresses:
            endpoints[identity_of(endpoint)] = endpoint
    return wanted, ports


def _pack(
    present: Iterable[EndpointSlice],
    wanted: dict[tuple[object, ...], Endpoint],
    ports: Sequence[EndpointPort],
    labels: Mapping[str, str],
) -> tuple[list[Draft], list[EndpointSlice]]:
    """Keep what is where it is, fill the slices that change anyway, then one that has room, then new ones."""
    drafts, gone = [], []
    for each in present:
        kept, is_changed = [], False
        for endpoint in each.endpoints:
            found = wanted.pop(identity_of(endpoint), None)
            if found is None:
                is_changed = True
                continue
            is_changed = is_changed or not is_same(found, endpoint)
            # The hints stay for comparison; they are seen to at the end.
            kept.append(replace(found, hints=endpoint.hints))
        if is_changed and not kept:
            gone.append(each)
            continue
        is_changed = is_changed or _own_labels(each.metadata.labels) != _own_labels(labels)
        drafts.append(Draft(each.ports, kept, labels, each, is_changed))
    left = [*wanted.values()]
    for draft in sorted((each for each in drafts if each.is_changed), key=lambda each: -len(each.endpoints)):
        left = _fill(draft, left)
    while left:
        unchanged = [each for each in drafts if not each.is_changed] if len(left) < MAX_ENDPOINTS else []
        target = _with_room(unchanged, len(left))
        if target is None:
            target = Draft(ports, [], labels)
            drafts.append(target)
        left = _fill(target, left)
    return drafts, gone


def _fill(draft: Draft, left: list[Endpoint]) -> list[Endpoint]:
    room = MAX_ENDPOINTS - len(draft.endpoints)
    if left and room > 0:
        draft.set([*draft.endpoints, *left[:room]])
        return left[room:]
    return left


def _with_room(drafts: Iterable[Draft], count: int) -> Draft | None:
    """Return the slice that is fullest after endpoints are added, None where none has the room for them."""
    fitting = [each for each in drafts if len(each.endpoints) <= MAX_ENDPOINTS - count]
    return max(fitting, key=lambda each: len(each.endpoints), default=None)


def _hint(service: Service, family: str, drafts: list[Draft], hinting: Hinting) -> list[Note]:
    key = f"{service.metadata.namespace}/{service.metadata.name}"
    had = hinting.given.get(key)
    if uses_topology(service):
        given, why = by_topology(drafts, hinting.shares, family)
        if given is None:
            _forget(hinting, key, family)
            return [] if why is None else [why]
        hinting.given.setdefault(key, {})[family] = given
        told = f"Topology Aware Hints has been enabled, addressType: {family}"
        return [] if had else [Note("Normal", "TopologyAwareHintsEnabled", told)]
    notes = [] if not had else [Note.disabled("Topology Aware Hints has been disabled", family)]
    _forget(hinting, key, family)
    if distribution := distribution_of(service):
        by_distribution(drafts, distribution)
    else:
        without(drafts)
    return notes


def _forget(hinting: Hinting, key: str, family: str) -> None:
    found = hinting.given.get(key)
    if found is not None:
        found.pop(family, None)
        if not found:
            del hinting.given[key]


def _finish(
    made: ServicePlan, service: Service, family: str, drafts: Iterable[Draft], delete: list[EndpointSlice]
) -> None:
    """Make slices of drafts; those that would be deleted are used again for new ones."""
    fresh = [each for each in drafts if each.present is None]
    for draft in fresh:
        spare = next((each for each in delete if _is_owned(each, service)), None)
        if spare is None:
            made.create.append(_new(service, family, draft))
            continue
        delete.remove(spare)
        draft.present, draft.is_changed = spare, True
    for draft in drafts:
        if draft.present is not None and draft.is_changed:
            made.update.append(
                replace(
                    draft.present,
                    endpoints=draft.endpoints,
                    ports=draft.ports,
                    metadata__labels=draft.labels,
                )
            )
    made.delete += delete


def _new(service: Service, family: str, draft: Draft) -> EndpointSlice:
    return EndpointSlice(
        metadata=ObjectMeta(
            generate_name=name_prefix(service.metadata.name),
            namespace=service.metadata.namespace,
            labels=draft.labels,
            owner_references=(owner_reference(service),),
        ),
        address_type="IPv6" if family == "IPv6" else "IPv4",
        endpoints=draft.endpoints,
        ports=draft.ports,
    )


def _timed(found: EndpointSlice, trigger_time: str) -> EndpointSlice:
    notes = {key: value for key, value in found.metadata.annotations.items() if key != TRIGGER_TIME}
    if trigger_time:
        notes[TRIGGER_TIME] = trigger_time
    return replace(found, metadata__annotations=notes)


def _labels(service: Service) -> Mapping[str, str]:
    labels = {**_own_labels(service.metadata.labels), SERVICE_NAME: service.metadata.name, MANAGED_BY: MANAGER}
    return labels | {HEADLESS: ""} if is_headless(service) else labels


def _own_labels(labels: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if key not in _RESERVED}


def _is_owned(found: EndpointSlice, service: Service) -> bool:
    return any(each.uid == service.metadata.uid and each.kind == "Service" for each in found.metadata.owner_references)


def _is_placeholder(found: EndpointSlice, service: Service, labels: Mapping[str, str]) -> bool:
    return not found.endpoints and not found.ports and _is_owned(found, service) and found.metadata.labels == labels


def port_key(ports: Iterable[EndpointPort]) -> _PortKey:
    """Return what makes ports the same ones, in whatever order they are."""
    found = [(each.name, each.protocol, each.port, each.app_protocol) for each in ports]
    return tuple(sorted(found, key=str))
