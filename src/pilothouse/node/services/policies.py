"""What network policies allow, as plans: policies, pods and namespaces in, who may reach whom at which ports out.

Semantics of networking.k8s.io/v1: a pod that no policy selects in a direction is open there; one that some select may
do what at least one of them allows, and nothing else.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Literal, NamedTuple, TypeAlias

from pilothouse.kinds.labels import NOTHING, Operator, Requirement, Selector, SelectorError
from pilothouse.kinds.structs import LabelSelector, NetworkPolicy, Pod
from pilothouse.kinds.structs.networking import NetworkPolicyPeer, NetworkPolicyPort

__all__ = [
    "Block",
    "Direction",
    "Permit",
    "PodFacts",
    "PodsByNamespace",
    "PolicyPlan",
    "Ports",
    "looks_outside",
    "plan_policy",
    "pod_facts",
]

Direction = Literal["ingress", "egress"]

_OPERATORS: Final[Mapping[str, Operator]] = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
_ENDED: Final = {"Succeeded", "Failed"}
_ALL_PORTS: Final = (0, 65_535)


class PodFacts(NamedTuple):
    """What policies see of a pod. Those in the machine's own network have no address of their own, so none here."""

    key: str
    namespace: str
    labels: Mapping[str, str]
    addresses: tuple[str, ...]
    is_local: bool
    ports: tuple[tuple[str, str, int], ...] = ()


class Block(NamedTuple):
    """A range of addresses but for some."""

    cidr: str
    excepted: tuple[str, ...] = ()


class Ports(NamedTuple):
    """Numbers of ports by protocol, as ranges that are sorted and do not touch."""

    protocol: str
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Permit:
    """One thing that is allowed: with these peers, at these ports. The ports are the destination's in both directions.

    peers: addresses of pods; None means everybody. blocks: ranges beside them. ports: None means all, of any protocol.
    named: places (address, protocol, port) that ports given by name stand for, each with the destination's address.
    """

    peers: frozenset[str] | None
    blocks: tuple[Block, ...] = ()
    ports: tuple[Ports, ...] | None = None
    named: frozenset[tuple[str, str, int]] = frozenset()
    has_named: bool = False


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """A policy on this node: which local addresses it holds for, and what it allows them, by direction."""

    selected: frozenset[str] = frozenset()
    directions: Mapping[Direction, tuple[Permit, ...]] = field(default_factory=dict)


def pod_facts(pod: Pod, node: str) -> PodFacts:
    """Return what policies see of a pod."""
    has_own = not pod.spec.host_network and pod.status.phase not in _ENDED
    addresses = [each.ip for each in pod.status.pod_ips] or [pod.status.pod_ip]
    containers = (*pod.spec.init_containers, *pod.spec.containers)
    return PodFacts(
        key=f"{pod.metadata.namespace}/{pod.metadata.name}",
        namespace=pod.metadata.namespace,
        labels=pod.metadata.labels,
        addresses=tuple(each for each in addresses if each) if has_own else (),
        is_local=pod.spec.node_name == node,
        ports=tuple(
            (port.name, port.protocol or "TCP", port.container_port)
            for container in containers
            for port in container.ports
            if port.name
        ),
    )


PodsByNamespace: TypeAlias = Mapping[str, Collection[PodFacts]]


def plan_policy(
    policy: NetworkPolicy, pods: PodsByNamespace, namespaces: Mapping[str, Mapping[str, str]]
) -> PolicyPlan:
    """Return the plan of a policy. pods: of all nodes, by namespace. namespaces: their labels by name.

    A policy that selects no pod of this node has an empty plan, whatever it says.
    """
    return _Planner(policy, pods, namespaces).plan()


def looks_outside(policy: NetworkPolicy) -> bool:
    """Return whether pods of other namespaces matter to a policy."""
    anywhere = [rule for rule in policy.spec.egress if not rule.to or any(peer.ip_block for peer in rule.to)]
    if any(isinstance(port.port, str) for rule in anywhere for port in rule.ports):
        return True
    peers = [peer for rule in policy.spec.ingress for peer in rule.from_]
    peers += [peer for rule in policy.spec.egress for peer in rule.to]
    return any(peer.namespace_selector is not None for peer in peers)


class _Planner:
    def __init__(
        self, policy: NetworkPolicy, pods: PodsByNamespace, namespaces: Mapping[str, Mapping[str, str]]
    ) -> None:
        self._policy = policy
        self._pods = pods
        self._namespaces = namespaces
        selects = _selector(policy.spec.pod_selector)
        self._selected = [
            pod
            for pod in pods.get(policy.metadata.namespace, ())
            if pod.is_local and pod.addresses and selects.matches(pod.labels)
        ]

    def plan(self) -> PolicyPlan:
        if not self._selected:
            return PolicyPlan()
        spec = self._policy.spec
        types = set(spec.policy_types) or ({"Ingress", "Egress"} if spec.egress else {"Ingress"})
        directions: dict[Direction, tuple[Permit, ...]] = {}
        if "Ingress" in types:
            directions["ingress"] = tuple(self._permit("ingress", rule.from_, rule.ports) for rule in spec.ingress)
        if "Egress" in types:
            directions["egress"] = tuple(self._permit("egress", rule.to, rule.ports) for rule in spec.egress)
        addresses = frozenset(each for pod in self._selected for each in pod.addresses)
        return PolicyPlan(addresses, directions)

    def _permit(
        self, direction: Direction, peers: Sequence[NetworkPolicyPeer], ports: Sequence[NetworkPolicyPort]
    ) -> Permit:
        chosen = self._peers(peers) if peers else None
        blocks = tuple(
            Block(str(ipaddress.ip_network(each.ip_block.cidr, strict=False)), tuple(each.ip_block.except_))
            for each in peers
            if each.ip_block is not None
        )
        named = [each for each in ports if isinstance(each.port, str)]
        # A name stands for a port of whoever is reached: of the selected pods, or of the peers.
        reached: Iterable[PodFacts] = self._selected
        if direction == "egress":
            reached = chain.from_iterable(self._pods.values()) if chosen is None or blocks else chosen
        return Permit(
            peers=None if chosen is None else frozenset(each for pod in chosen for each in pod.addresses),
            blocks=blocks,
            ports=_numbered([each for each in ports if not isinstance(each.port, str)]) if ports else None,
            named=frozenset(_places(named, reached)),
            has_named=bool(named),
        )

    def _peers(self, peers: Sequence[NetworkPolicyPeer]) -> list[PodFacts]:
        found: dict[str, PodFacts] = {}
        for peer in peers:
            if peer.ip_block is not None:
                continue
            pods = _selector(peer.pod_selector) if peer.pod_selector is not None else Selector()
            for space in self._spaces(peer):
                found.update((pod.key, pod) for pod in self._pods.get(space, ()) if pods.matches(pod.labels))
        return list(found.values())

    def _spaces(self, peer: NetworkPolicyPeer) -> set[str]:
        if peer.namespace_selector is None:
            return {self._policy.metadata.namespace}
        selects = _selector(peer.namespace_selector)
        return {name for name, labels in self._namespaces.items() if selects.matches(labels)}


def _places(ports: Iterable[NetworkPolicyPort], pods: Iterable[PodFacts]) -> Iterable[tuple[str, str, int]]:
    wanted = {(str(each.port), each.protocol or "TCP") for each in ports}
    for pod in pods:
        for name, protocol, number in pod.ports:
            if (name, protocol) in wanted:
                yield from ((address, protocol, number) for address in pod.addresses)


def _numbered(ports: Iterable[NetworkPolicyPort]) -> tuple[Ports, ...]:
    by_protocol: dict[str, list[tuple[int, int]]] = {}
    for each in ports:
        first = int(each.port) if each.port is not None else 0
        span = (first, each.end_port or first) if first else _ALL_PORTS
        by_protocol.setdefault(each.protocol or "TCP", []).append(span)
    return tuple(Ports(protocol, _merged(spans)) for protocol, spans in sorted(by_protocol.items()))


def _merged(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return tuple(merged)


def _selector(found: LabelSelector) -> Selector:
    requirements = [Requirement(key, "=", (value,)) for key, value in found.match_labels.items()]
    for each in found.match_expressions:
        operator = _OPERATORS.get(each.operator)
        if operator is None:
            return NOTHING  # nobody knows what it selects, so nobody is let in by it
        requirements.append(Requirement(each.key, operator, tuple(each.values)))
    try:
        return Selector(requirements)
    except SelectorError:
        return NOTHING
