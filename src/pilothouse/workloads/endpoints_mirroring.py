"""Endpoints that a user writes for a service without selector, as slices: one for each subset and family. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pilothouse.kinds.structs import Endpoints, EndpointSlice, ObjectMeta, Service, replace
from pilothouse.kinds.structs.core_services import EndpointAddress
from pilothouse.kinds.structs.discovery import Endpoint, EndpointConditions, EndpointPort
from pilothouse.operator.owners import owner_reference

from .endpoints import TRIGGER_TIME, normal_address
from .endpoints_drafts import Plan, identity_of, is_same
from .endpoints_hints import Note
from .endpoints_order import slice_port_order
from .endpoints_slices import MANAGED_BY, SERVICE_NAME, name_prefix, port_key
from .endpoints_subsets import repacked

__all__ = ["MIRRORER", "MirrorPlan", "is_mirror", "mirror", "mirrors"]

MIRRORER: Final = "endpointslicemirroring-controller.k8s.io"
_SKIP: Final = "endpointslice.kubernetes.io/skip-mirror"
_LEADER: Final = "control-plane.alpha.kubernetes.io/leader"
_NOT_COPIED: Final = frozenset({TRIGGER_TIME, "kubectl.kubernetes.io/last-applied-configuration"})
_MAX_PER_SUBSET: Final = 1000

_Key = tuple[str, tuple[object, ...]]


@dataclass(slots=True)
class MirrorPlan(Plan):
    """What to do about mirrored slices, and which events of the Endpoints to tell."""

    notes: list[Note] = field(default_factory=list)


def is_mirror(found: EndpointSlice) -> bool:
    """Whether a slice mirrors Endpoints."""
    return found.metadata.labels.get(MANAGED_BY) == MIRRORER


def mirrors(endpoints: Endpoints | None, service: Service | None) -> bool:
    """Whether Endpoints are mirrored: those of a service without selector, unless a label says no."""
    return (
        endpoints is not None
        and endpoints.metadata.labels.get(_SKIP) != "true"
        and _LEADER not in endpoints.metadata.annotations
        and service is not None
        and not service.spec.selector
    )


def mirror(endpoints: Endpoints, present: Iterable[EndpointSlice]) -> MirrorPlan:
    """Return what makes slices mirror Endpoints."""
    made = MirrorPlan()
    wanted, ports = _wanted(endpoints, made)
    by_key: dict[_Key, list[EndpointSlice]] = {}
    for each in present:
        by_key.setdefault((each.address_type or "", port_key(each.ports)), []).append(each)
    for key, found in wanted.items():
        there = by_key.pop(key, [])
        if not found:
            made.delete += there
            continue
        made.delete += there[1:]
        if there and _is_right(there[0], endpoints, found):
            continue
        fresh = _new(endpoints, key[0], ports[key], [*found.values()][:_MAX_PER_SUBSET])
        if there:
            made.update.append(_over(there[0], fresh))
        else:
            made.create.append(fresh)
    made.delete += [each for rest in by_key.values() for each in rest]
    return _recycled(made, endpoints)


def _wanted(
    endpoints: Endpoints, made: MirrorPlan
) -> tuple[dict[_Key, dict[tuple[object, ...], Endpoint]], dict[_Key, Sequence[EndpointPort]]]:
    wanted: dict[_Key, dict[tuple[object, ...], Endpoint]] = {}
    ports: dict[_Key, Sequence[EndpointPort]] = {}
    bad = skipped = 0
    for subset in repacked(endpoints.subsets):
        of_subset = [
            EndpointPort(name=each.name, port=each.port, protocol=each.protocol, app_protocol=each.app_protocol)
            for each in subset.ports
        ]
        of_subset.sort(key=slice_port_order)
        for family in ("IPv4", "IPv6"):
            wanted.setdefault((family, port_key(of_subset)), {})
            ports[family, port_key(of_subset)] = of_subset
        sides = [(each, True) for each in subset.addresses] + [(each, False) for each in subset.not_ready_addresses]
        taken = 0
        for address, ready in sides:
            if taken >= _MAX_PER_SUBSET:
                break
            endpoint = _endpoint(address, ready)
            if endpoint is None:
                bad += 1
                continue
            family = "IPv6" if ":" in endpoint.addresses[0] else "IPv4"
            wanted[family, port_key(of_subset)][identity_of(endpoint)] = endpoint
            taken += 1
        skipped += len(sides) - taken
    if bad:
        told = f"Skipped {bad} invalid IP addresses when mirroring to EndpointSlices"
        made.notes.append(Note("Warning", "InvalidIPAddress", told))
    if skipped > bad:
        told = (
            f"A max of {_MAX_PER_SUBSET} addresses can be mirrored to EndpointSlices per Endpoints subset. "
            f"{skipped} addresses were skipped"
        )
        made.notes.append(Note("Warning", "TooManyAddressesToMirror", told))
    return wanted, ports


def _endpoint(address: EndpointAddress, ready: bool) -> Endpoint | None:
    normal = normal_address(address.ip)
    if not normal:
        return None
    return Endpoint(
        addresses=(normal,),
        conditions=EndpointConditions(ready=ready),
        hostname=address.hostname or None,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )


def _is_right(found: EndpointSlice, endpoints: Endpoints, wanted: Mapping[tuple[object, ...], Endpoint]) -> bool:
    held = {identity_of(each): each for each in found.endpoints}
    labels = {key: value for key, value in found.metadata.labels.items() if key not in (MANAGED_BY, SERVICE_NAME)}
    owner = next((each for each in found.metadata.owner_references if each.kind == "Endpoints"), None)
    return (
        held.keys() == wanted.keys()
        and all(is_same(wanted[key], each) for key, each in held.items())
        and labels == endpoints.metadata.labels
        and found.metadata.annotations == _notes(endpoints)
        and (owner is None or owner.uid == endpoints.metadata.uid)
    )


def _notes(endpoints: Endpoints) -> dict[str, str]:
    return {key: value for key, value in endpoints.metadata.annotations.items() if key not in _NOT_COPIED}


def _new(endpoints: Endpoints, family: str, ports: Sequence[EndpointPort], held: Sequence[Endpoint]) -> EndpointSlice:
    metadata = endpoints.metadata
    return EndpointSlice(
        metadata=ObjectMeta(
            generate_name=name_prefix(metadata.name),
            namespace=metadata.namespace,
            labels={**metadata.labels, SERVICE_NAME: metadata.name, MANAGED_BY: MIRRORER},
            annotations=_notes(endpoints),
            owner_references=(owner_reference(endpoints),),
        ),
        address_type="IPv6" if family == "IPv6" else "IPv4",
        endpoints=held,
        ports=ports,
    )


def _over(present: EndpointSlice, fresh: EndpointSlice) -> EndpointSlice:
    """Return a slice that is there with all that a new one would have."""
    return replace(
        present,
        endpoints=fresh.endpoints,
        ports=fresh.ports,
        metadata__labels=fresh.metadata.labels,
        metadata__annotations=fresh.metadata.annotations,
        metadata__owner_references=fresh.metadata.owner_references,
    )


def _recycled(made: MirrorPlan, endpoints: Endpoints) -> MirrorPlan:
    for fresh in [*made.create]:
        spare = next((each for each in made.delete if each.address_type == fresh.address_type), None)
        if spare is not None:
            made.create.remove(fresh)
            made.delete.remove(spare)
            made.update.append(_over(spare, fresh))
    if endpoints.metadata.deletion_timestamp is not None:
        made.create.clear()
    return made
