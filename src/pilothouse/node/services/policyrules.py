"""Plans of network policies as rules of nftables: pods with the same policies share a chain, addresses are in sets."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable, Mapping

from .policies import Direction, Permit, PolicyPlan, Ports
from .rulesets import Chain, Collection, Fragment, Ruleset

__all__ = ["compile_groups", "compile_policy", "group_name", "groups_of", "new_policy_ruleset"]


def new_policy_ruleset(family: int, name: str) -> Ruleset:
    """Return the table of a family (4 or 6) without any policy.

    What the node itself sends to its pods, and they to it, is not forwarded and so never held up, as probes want it.
    """
    ip, address = _words(family)
    sets = {
        "egress-pods": Collection(f"type {address} : verdict;", "map"),
        "ingress-pods": Collection(f"type {address} : verdict;", "map"),
        "itself": Collection(f"type {address} . {address};"),
    }
    rules = (
        "ct state established,related accept",
        f"{ip} saddr . {ip} daddr @itself accept",
        f"{ip} saddr vmap @egress-pods",
        f"{ip} daddr vmap @ingress-pods",
    )
    hook = "type filter hook forward priority filter + 10; policy accept;"
    chains = {"forward": Chain(rules, hook)}
    if family == 6:
        # Neighbours must be found whatever policies say.
        neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept"
        chains["forward"] = Chain((neighbours, *rules), hook)
    return Ruleset("ip" if family == 4 else "ip6", name, Fragment(chains, sets))


def group_name(direction: Direction, policies: Iterable[str]) -> str:
    """Return the name of the chain for pods that exactly these policies select."""
    return f"{direction}-{hashlib.sha256(' '.join(sorted(policies)).encode()).hexdigest()[:16]}"


def groups_of(plans: Mapping[str, PolicyPlan]) -> dict[str, dict[Direction, tuple[str, ...]]]:
    """Return which policies hold for each address that some policy selects, by direction."""
    found: dict[str, dict[Direction, tuple[str, ...]]] = {}
    for key in sorted(plans):
        plan = plans[key]
        for direction in plan.directions:
            for address in plan.selected:
                mine = found.setdefault(address, {})
                mine[direction] = (*mine.get(direction, ()), key)
    return found


def compile_policy(key: str, plan: PolicyPlan, family: int) -> Fragment:
    """Return a policy's sets with their elements; chains of groups have the rules, see `compile_groups`."""
    sets: dict[str, Collection] = {}
    elements: dict[str, dict[str, str]] = {}
    _, address = _words(family)
    for direction, permits in plan.directions.items():
        for at, permit in enumerate(permits):
            if permit.peers is not None:
                name = _set_name(key, direction, at, "peers")
                sets[name] = Collection(f"type {address};")
                elements[name] = {each: "" for each in sorted(permit.peers) if _is_of(each, family)}
            if permit.has_named:
                name = _set_name(key, direction, at, "named")
                sets[name] = Collection(f"type {address} . inet_proto . inet_service;")
                elements[name] = {
                    f"{where} . {protocol.lower()} . {port}": ""
                    for where, protocol, port in sorted(permit.named)
                    if _is_of(where, family)
                }
    return Fragment({}, sets, {name: found for name, found in elements.items() if found})


def compile_groups(
    plans: Mapping[str, PolicyPlan], groups: Mapping[str, Mapping[Direction, tuple[str, ...]]], family: int
) -> Fragment:
    """Return the chains of all groups, and which address belongs to which."""
    chains: dict[str, Chain] = {}
    elements: dict[str, dict[str, str]] = {"egress-pods": {}, "ingress-pods": {}, "itself": {}}
    for address, directions in groups.items():
        if not _is_of(address, family):
            continue
        elements["itself"][f"{address} . {address}"] = ""
        for direction, keys in directions.items():
            name = group_name(direction, keys)
            elements[f"{direction}-pods"][address] = f"jump {name}"
            if name not in chains:
                chains[name] = Chain(tuple(_rules(plans, keys, direction, family)))
    return Fragment(chains, {}, {name: found for name, found in elements.items() if found})


def _rules(plans: Mapping[str, PolicyPlan], keys: Iterable[str], direction: Direction, family: int) -> list[str]:
    ip, _ = _words(family)
    peer = f"{ip} {'saddr' if direction == 'ingress' else 'daddr'}"
    rules: list[str] = []
    for key in keys:
        for at, permit in enumerate(plans[key].directions[direction]):
            places = _places(permit, _set_name(key, direction, at, "named"), ip)
            peers = _peers(permit, _set_name(key, direction, at, "peers"), peer, family)
            rules += [" ".join(filter(None, (who, where, "return"))) for who in peers for where in places]
    return [*dict.fromkeys(rules), "drop"]


def _peers(permit: Permit, name: str, peer: str, family: int) -> list[str]:
    if permit.peers is None:
        return [""]
    found = [f"{peer} @{name}"]
    for block in permit.blocks:
        if not _is_of(block.cidr, family):
            continue
        excepted = [each for each in block.excepted if _is_of(each, family)]
        but = f" {peer} != {{ {', '.join(_collapsed(excepted))} }}" if excepted else ""
        found.append(f"{peer} {block.cidr}{but}")
    return found


def _places(permit: Permit, named: str, ip: str) -> list[str]:
    if permit.ports is None:
        return [""]
    found = [_numbers(each) for each in permit.ports]
    if permit.has_named:
        found.append(f"{ip} daddr . meta l4proto . th dport @{named}")
    return found


def _numbers(ports: Ports) -> str:
    protocol = ports.protocol.lower()
    if ports.ranges == ((0, 65_535),):
        return f"meta l4proto {protocol}"
    spans = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ports.ranges)
    return f"{protocol} dport {{ {spans} }}"


def _set_name(key: str, direction: Direction, at: int, what: str) -> str:
    return f"{what}-{direction}-{at}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"


def _collapsed(cidrs: Iterable[str]) -> list[str]:
    read = [ipaddress.ip_network(each, strict=False) for each in cidrs]
    fours = ipaddress.collapse_addresses(each for each in read if each.version == 4)
    sixes = ipaddress.collapse_addresses(each for each in read if each.version == 6)
    return [str(each) for each in (*fours, *sixes)]


def _is_of(address: str, family: int) -> bool:
    return (":" in address) == (family == 6)


def _words(family: int) -> tuple[str, str]:
    return ("ip", "ipv4_addr") if family == 4 else ("ip6", "ipv6_addr")
