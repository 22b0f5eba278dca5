"""Which zones and nodes an endpoint is for: by a service's traffic distribution, or by the zones' processors. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from pilothouse.kinds.quantity import parse_json
from pilothouse.kinds.structs import Node, Service, replace
from pilothouse.kinds.structs.discovery import Endpoint, EndpointHints, ForNode, ForZone

from .endpoints_drafts import Draft

__all__ = [
    "Note",
    "by_distribution",
    "by_topology",
    "distribution_of",
    "is_overloaded",
    "shares_of",
    "uses_topology",
    "without",
]

_OVERLOAD: Final = 0.2
"""By how much more traffic than its part of the processors an endpoint may get."""
_MODES: Final = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")
_ZONE: Final = "topology.kubernetes.io/zone"
_CONTROL_PLANE: Final = frozenset({"node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"})
_DISTRIBUTIONS: Final = frozenset({"PreferClose", "PreferSameZone", "PreferSameNode"})


@dataclass(frozen=True, slots=True)
class Note:
    """An event of the service."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str

    @classmethod
    def disabled(cls, why: str, family: str) -> Note:
        """Return the one that says why there are no hints."""
        return cls("Warning", "TopologyAwareHintsDisabled", f"{why}, addressType: {family}")


def uses_topology(service: Service) -> bool:
    """Whether hints are to follow the zones' processors."""
    notes = service.metadata.annotations
    told = next((notes[mode] for mode in _MODES if mode in notes), "")
    return told in ("Auto", "auto")


def distribution_of(service: Service) -> str:
    """Return the traffic distribution that hints follow, "" for none."""
    told = service.spec.traffic_distribution or ""
    return told if told in _DISTRIBUTIONS and not uses_topology(service) else ""


def without(drafts: Iterable[Draft]) -> None:
    """Take all hints away."""
    for draft in drafts:
        if any(each.hints is not None for each in draft.endpoints):
            draft.set([each if each.hints is None else replace(each, hints=None) for each in draft.endpoints])


def by_distribution(drafts: Iterable[Draft], distribution: str) -> None:
    """Hint ready endpoints at their own zones, and nodes where that is preferred."""
    with_nodes = distribution == "PreferSameNode"
    for draft in drafts:
        wanted = [_near(each, with_nodes) for each in draft.endpoints]
        if wanted != draft.endpoints:
            draft.set(wanted)


def _near(endpoint: Endpoint, with_nodes: bool) -> Endpoint:
    if not endpoint.conditions.ready:
        return endpoint
    zones = () if endpoint.zone is None else (ForZone(name=endpoint.zone),)
    nodes = (ForNode(name=endpoint.node_name),) if with_nodes and endpoint.node_name is not None else ()
    hints = EndpointHints(for_zones=zones, for_nodes=nodes) if zones or nodes else None
    return endpoint if endpoint.hints == hints else replace(endpoint, hints=hints)


# By zones


def shares_of(nodes: Iterable[Node]) -> Mapping[str, float]:
    """Return each zone's part of the processors of all nodes; nothing where one lacks a zone, or there is one zone."""
    found: dict[str, Fraction] = {}
    for node in nodes:
        if _CONTROL_PLANE & node.metadata.labels.keys() or not _is_ready(node):
            continue
        zone, cpu = node.metadata.labels.get(_ZONE), node.status.allocatable.get("cpu")
        amount = Fraction(0) if cpu is None else parse_json(cpu).exact()
        if not zone or not amount:
            return {}
        found[zone] = found.get(zone, Fraction(0)) + amount
    total = sum(found.values())
    return {zone: float(cpu / total) for zone, cpu in found.items()} if len(found) > 1 else {}


def _is_ready(node: Node) -> bool:
    return any(each.type == "Ready" and each.status == "True" for each in node.status.conditions)


@dataclass(frozen=True, slots=True)
class _Part:
    least: int
    most: int
    desired: float


def _parts(shares: Mapping[str, float], count: int) -> Mapping[str, _Part] | str:
    """Return how many endpoints each zone is to get, or why that cannot be."""
    if not shares:
        return "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
    numbers = f"({count} endpoints, {len(shares)} zones)"
    if len(shares) > count:
        return f"Insufficient number of endpoints {numbers}"
    least = {zone: math.ceil(share * count / (1 + _OVERLOAD)) for zone, share in shares.items()}
    spare = count - sum(least.values())
    if spare < 0:
        why = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
        return f"{why} {numbers}"
    return {
        zone: _Part(number, number + spare, max(shares[zone] * count, float(number))) for zone, number in least.items()
    }


def by_topology(
    drafts: Sequence[Draft], shares: Mapping[str, float], family: str
) -> tuple[Mapping[str, int] | None, Note | None]:
    """Hint endpoints at zones, so that each zone has about as many as it has processors.

    Returns how many each zone has got, None where there are no hints, and then why.
    """
    count = sum(1 for draft in drafts for each in draft.endpoints if each.conditions.ready)
    parts = _parts(shares, count)
    if isinstance(parts, str):
        without(drafts)
        return None, Note.disabled(parts, family)
    given: dict[str, int] = {}
    open_drafts = [draft for draft in drafts if draft.is_changed]
    for draft in [draft for draft in drafts if not draft.is_changed]:
        present = _present(draft, given, parts)
        if present is None:
            open_drafts.append(draft)
        else:
            given |= {zone: given.get(zone, 0) + number for zone, number in present.items()}
    for draft in open_drafts:
        if any(each.conditions.ready and not each.zone for each in draft.endpoints):
            without(drafts)
            return None, Note.disabled("One or more endpoints do not have a zone specified", family)
        for each in draft.endpoints:
            if each.conditions.ready and each.zone:
                given[each.zone] = given.get(each.zone, 0) + 1
    _share_out(open_drafts, given, *_givers_and_takers(parts, given))
    if not given:
        without(drafts)
        return None, Note.disabled("No hints allocated for zones", family)
    return given, None


def _present(draft: Draft, given: Mapping[str, int], parts: Mapping[str, _Part]) -> Mapping[str, int] | None:
    """Count the hints that a slice has, None where they will not do."""
    found: dict[str, int] = {}
    for each in draft.endpoints:
        if not each.conditions.ready:
            continue
        zones = [] if each.hints is None else [zone.name for zone in each.hints.for_zones]
        if not zones or any(zone not in parts for zone in zones):
            return None
        for zone in zones:
            found[zone] = found.get(zone, 0) + 1
    if any(number + given.get(zone, 0) > parts[zone].most for zone, number in found.items()):
        return None
    return found


def _givers_and_takers(parts: Mapping[str, _Part], given: Mapping[str, int]) -> tuple[dict[str, int], dict[str, int]]:
    surplus = {zone: given.get(zone, 0) - part.desired for zone, part in sorted(parts.items())}
    much = {zone: number for zone, number in surplus.items() if number > 0}
    little = {zone: -number for zone, number in surplus.items() if number < 0}
    givers: dict[str, int] = {}
    takers: dict[str, int] = {}
    while much and little:
        giver, taker = max(much, key=much.__getitem__), max(little, key=little.__getitem__)
        if max(much[giver], little[taker]) < 1.0 or min(much[giver], little[taker]) < 0.5:
            break
        givers[giver], takers[taker] = givers.get(giver, 0) + 1, takers.get(taker, 0) + 1
        much[giver] -= 1
        little[taker] -= 1
    return givers, takers


def _share_out(drafts: Iterable[Draft], given: dict[str, int], givers: dict[str, int], takers: dict[str, int]) -> None:
    for draft in drafts:
        hinted = []
        for each in draft.endpoints:
            if not each.conditions.ready or not each.zone:
                hinted.append(each)
                continue
            zone = each.zone
            taker = next((one for one, number in takers.items() if number > 0), "")
            if givers.get(zone, 0) > 0 and taker:
                givers[zone] -= 1
                takers[taker] -= 1
                given[zone] -= 1
                given[taker] = given.get(taker, 0) + 1
                zone = taker
            hinted.append(replace(each, hints=EndpointHints(for_zones=(ForZone(name=zone),))))
        if hinted != draft.endpoints:
            draft.set(hinted)


def is_overloaded(given: Mapping[str, int], shares: Mapping[str, float]) -> bool:
    """Whether a zone has got too few endpoints by now for its processors."""
    total = sum(given.values())
    return bool(given) and (
        not shares
        or any(given.get(zone, 0) < math.ceil(total * share / (1 + _OVERLOAD)) for zone, share in shares.items())
    )
