"""Routes of services as rules of nftables: maps find a service in one step, one chain spreads its connections."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from .rulesets import Chain, Collection, Fragment, Ruleset, chain_name
from .selection import ServicePortRoute, Target

__all__ = ["MARK", "ProxyNetwork", "compile_route", "new_ruleset", "skeleton"]

MARK: Final = 0x4000
"""Of packets that came from outside: their source is rewritten where the endpoint is on another node. kube-proxy's."""

_FEW: Final = 8
"""So many endpoints are chosen by rules, more by a map: the kernel looks at all maps to name one without a name."""

_REJECT: Final = "reject-it"
_DROP: Final = "drop-it"
_MARK_IT: Final = "from-outside"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyNetwork:
    """The node's network, as far as rules depend on it.

    pod_cidrs: of all pods; who has an address out of them is within the cluster. bridge: of the pods of this node.
    is_bridge_filtered: whether what passes between ports of the bridge comes by nftables; where not, answers would go
    past the node, so sources are rewritten. is_localhost: whether node ports answer on 127.0.0.1.
    """

    pod_cidrs: tuple[str, ...] = ()
    bridge: str = ""
    is_bridge_filtered: bool = True
    is_localhost: bool = False

    def cidrs(self, family: int) -> list[str]:
        """Return the ranges of pods in a family."""
        return [each for each in self.pod_cidrs if (":" in each) == (family == 6)]


def new_ruleset(family: int, name: str, network: ProxyNetwork) -> Ruleset:
    """Return the table of a family (4 or 6) without any service."""
    return Ruleset("ip" if family == 4 else "ip6", name, skeleton(family, network))


def skeleton(family: int, network: ProxyNetwork) -> Fragment:
    """Return the sets, maps and base chains that all services share."""
    ip, address = _words(family)
    place = f"type {address} . inet_proto . inet_service : verdict;"
    sets = {
        "service-ips": Collection(place, "map"),
        "no-endpoint-ips": Collection(place, "map"),
        "firewall-ips": Collection(place, "map"),
        "node-ports": Collection("type inet_proto . inet_service : verdict;", "map"),
        "no-endpoint-ports": Collection("type inet_proto . inet_service : verdict;", "map"),
        "cluster-ips": Collection(f"type {address};"),
        "local-endpoints": Collection(f"type {address};"),
        "hairpin": Collection(f"type {address} . {address};"),
    }
    target = f"{ip} daddr . meta l4proto . th dport vmap"
    local = "fib daddr type local" + ("" if network.is_localhost and family == 4 else f" {ip} daddr != {_loopback(ip)}")
    port = f"{local} meta l4proto . th dport vmap"
    chains = {
        _MARK_IT: Chain((f"meta mark set meta mark | {MARK:#x}",)),
        _REJECT: Chain(("meta l4proto tcp reject with tcp reset", "reject")),
        _DROP: Chain(("drop",)),
        "check": Chain((f"{target} @firewall-ips", f"{target} @no-endpoint-ips", f"{port} @no-endpoint-ports")),
        "services": Chain((*_outsiders(ip, family, network), f"{target} @service-ips", f"{port} @node-ports")),
        "check-prerouting": _base("filter", "prerouting", "dstnat - 10", "ct state new jump check"),
        "check-output": _base("filter", "output", "-110", "ct state new jump check"),
        "nat-prerouting": _base("nat", "prerouting", "dstnat", "jump services"),
        "nat-output": _base("nat", "output", "-100", "jump services"),
        "nat-postrouting": _base("nat", "postrouting", "srcnat - 1", *_masquerading(ip, family, network)),
    }
    for hook in ("input", "forward", "output"):
        # A port that no service has: whoever comes here was not sent on.
        chains[f"unknown-{hook}"] = _base(
            "filter", hook, "filter", f"ct state new {ip} daddr @cluster-ips goto {_REJECT}"
        )
    if network.is_localhost and family == 4 and network.bridge:
        # Loopback addresses may leave by the bridge for node ports on localhost, so none may come in there.
        guard = f'iifname "{network.bridge}" ip daddr 127.0.0.0/8 drop'
        chains["guard-localhost"] = _base("filter", "prerouting", "raw", guard)
    return Fragment(chains, sets)


def compile_route(route: ServicePortRoute) -> Fragment:
    """Return what one port of a service adds to its family's table."""
    return _Compiler(route).fragment()


class _Compiler:
    """One route, on its way."""

    def __init__(self, route: ServicePortRoute) -> None:
        self._route = route
        self._ip, self._address = _words(route.family)
        self._protocol = route.protocol.lower()
        self._digest = hashlib.sha256(route.key.encode()).hexdigest()[:10]
        self._chains: dict[str, Chain] = {}
        self._sets: dict[str, Collection] = {}
        self._elements: dict[str, dict[str, str]] = {}

    def fragment(self) -> Fragment:
        route = self._route
        self._element("cluster-ips", route.cluster_address)
        internal = self._spread("svc", route.internal)
        self._at(route.cluster_address, internal, dropped=route.dropped_internal)
        if route.is_exposed:
            self._expose(internal)
        for target in {*route.internal, *route.external}:
            if target.is_local:
                self._element("local-endpoints", target.address)
            self._element("hairpin", f"{target.address} . {target.address}")
        return Fragment(self._chains, self._sets, self._elements)

    def _expose(self, internal: str) -> None:
        route = self._route
        external = internal if route.external == route.internal else self._spread("loc", route.external)
        entry = self._entry(external) if external else ""
        firewall = self._firewall() if route.source_ranges else ""
        for address in (*route.external_addresses, *route.balancer_addresses):
            self._at(address, entry, dropped=route.dropped_external)
        for address in route.balancer_addresses if firewall else ():
            self._element("firewall-ips", self._place(address), f"goto {firewall}")
        if route.node_port:
            place = f"{self._protocol} . {route.node_port}"
            if entry:
                self._element("node-ports", place, f"goto {entry}")
            else:
                self._element("no-endpoint-ports", place, f"goto {_DROP if route.dropped_external else _REJECT}")

    def _entry(self, external: str) -> str:
        name = chain_name("ext", self._digest, *self._shown())
        mark = () if self._route.is_external_local else (f"jump {_MARK_IT}",)
        self._chains[name] = Chain((*mark, f"goto {external}"))
        return name

    def _firewall(self) -> str:
        name = chain_name("fw", self._digest, *self._shown())
        ranges = ", ".join(_without_covered(self._route.source_ranges))
        self._chains[name] = Chain((f"{self._ip} saddr != {{ {ranges} }} drop",))
        return name

    def _at(self, address: str, chain: str, *, dropped: bool) -> None:
        if chain:
            self._element("service-ips", self._place(address), f"goto {chain}")
        else:
            self._element("no-endpoint-ips", self._place(address), f"goto {_DROP if dropped else _REJECT}")

    def _spread(self, prefix: str, targets: Sequence[Target]) -> str:
        """Return the name of a chain that sends each connection to one of the targets, empty where there is none."""
        if not targets:
            return ""
        name = chain_name(prefix, self._digest, *self._shown())
        if self._route.affinity_seconds:
            self._chains[name] = Chain(tuple(self._sticky(targets)))
        elif len(targets) <= _FEW:
            self._chains[name] = Chain(tuple(_one_of([self._to(each) for each in targets])))
        else:
            places = ", ".join(f"{at} : {each.address} . {each.port}" for at, each in enumerate(targets))
            spread = f"numgen random mod {len(targets)} map {{ {places} }}"
            self._chains[name] = Chain((f"meta l4proto {self._protocol} dnat {self._ip} addr . port to {spread}",))
        return name

    def _sticky(self, targets: Sequence[Target]) -> list[str]:
        """Return rules that send who came lately to where he was; each endpoint remembers its own clients."""
        known, choices = [], []
        for at, target in enumerate(targets):
            tag = hashlib.sha256(f"{self._route.key} {target.address} {target.port}".encode()).hexdigest()[:16]
            memory, chain = f"aff-{tag}", f"ep-{tag}"
            seconds = self._route.affinity_seconds
            spec = f"type {self._address}; size 65535; flags dynamic,timeout; timeout {seconds}s;"
            self._sets[memory] = Collection(spec)
            self._chains[chain] = Chain((f"update @{memory} {{ {self._ip} saddr }}", self._to(target)))
            known.append(f"{self._ip} saddr @{memory} goto {chain}")
            choices.append(f"{at} : goto {chain}")
        if len(targets) <= _FEW:
            return [*known, *_one_of([each.partition(" : ")[2] for each in choices])]
        return [*known, f"numgen random mod {len(targets)} vmap {{ {', '.join(choices)} }}"]

    def _to(self, target: Target) -> str:
        address = f"[{target.address}]" if self._route.family == 6 else target.address
        return f"meta l4proto {self._protocol} dnat to {address}:{target.port}"

    def _place(self, address: str) -> str:
        return f"{address} . {self._protocol} . {self._route.port}"

    def _element(self, name: str, key: str, value: str = "") -> None:
        self._elements.setdefault(name, {})[key] = value

    def _shown(self) -> tuple[str, str, str]:
        return self._route.namespace, self._route.name, self._route.port_name


def _one_of(verdicts: Sequence[str]) -> list[str]:
    """Return rules that take one of some verdicts, each as often: the first for one in n, the next for the rest."""
    last = len(verdicts) - 1
    return [
        verdict if at == last else f"numgen random mod {last + 1 - at} == 0 {verdict}"
        for at, verdict in enumerate(verdicts)
    ]


def _base(kind: str, hook: str, priority: str, *rules: str) -> Chain:
    return Chain(rules, f"type {kind} hook {hook} priority {priority}; policy accept;")


def _outsiders(ip: str, family: int, network: ProxyNetwork) -> list[str]:
    """Return the rule that marks who asks at a cluster address but is neither a pod nor this node."""
    cidrs = network.cidrs(family)
    if not cidrs:
        return []
    inside = ", ".join(_without_covered(cidrs))
    return [f"{ip} daddr @cluster-ips {ip} saddr != {{ {inside} }} fib saddr type != local jump {_MARK_IT}"]


def _masquerading(ip: str, family: int, network: ProxyNetwork) -> list[str]:
    rules = [
        f"ct status dnat {ip} saddr . {ip} daddr @hairpin masquerade fully-random",
        f"meta mark & {MARK:#x} != 0 {ip} daddr != @local-endpoints masquerade fully-random",
    ]
    if network.is_localhost and family == 4 and network.bridge:
        rules.append(f'ct status dnat ip saddr 127.0.0.0/8 oifname "{network.bridge}" masquerade fully-random')
    cidrs = network.cidrs(family)
    if not network.is_bridge_filtered and network.bridge and cidrs:
        near = ", ".join(_without_covered(cidrs))
        rules.append(f'ct status dnat {ip} saddr {{ {near} }} oifname "{network.bridge}" masquerade fully-random')
    return rules


def _words(family: int) -> tuple[str, str]:
    return ("ip", "ipv4_addr") if family == 4 else ("ip6", "ipv6_addr")


def _loopback(ip: str) -> str:
    return "127.0.0.0/8" if ip == "ip" else "::1"


def _without_covered(cidrs: Sequence[str]) -> list[str]:

    read = [ipaddress.ip_network(each) for each in cidrs]
    fours = ipaddress.collapse_addresses(each for each in read if each.version == 4)
    sixes = ipaddress.collapse_addresses(each for each in read if each.version == 6)
    return [str(each) for each in (*fours, *sixes)]
