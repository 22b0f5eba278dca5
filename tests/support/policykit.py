"""Network policies for tests: a slow and obvious reading of the API's words, and a reader of the rules that we make."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pilothouse.kinds.structs import NetworkPolicy, Pod, from_dict
from pilothouse.node.services.policies import pod_facts
from pilothouse.node.services.policing import PolicyState
from pilothouse.node.services.policyrules import compile_groups, compile_policy, groups_of, new_policy_ruleset
from pilothouse.node.services.rulesets import Ruleset

__all__ = ["NAMESPACES", "World", "allowed", "policy", "run_rules"]

NAMESPACES: dict[str, dict[str, str]] = {"x": {"team": "a"}, "y": {"team": "b"}}


class _Pod(NamedTuple):
    name: str
    namespace: str
    labels: dict[str, str]
    address: str
    ports: dict[str, tuple[str, int]]
    is_local: bool = True


class World(NamedTuple):
    """Pods by name, and policies as dictionaries, as users write them."""

    pods: tuple[_Pod, ...]
    policies: tuple[dict[str, Any], ...]

    @classmethod
    def of(cls, policies: Sequence[dict[str, Any]], *, far: bool = False) -> World:
        """Make a world of four pods in two namespaces, `far` makes the last one another node's."""
        return cls(
            (
                _Pod("a", "x", {"app": "web", "tier": "front"}, "10.99.0.11", {"http": ("TCP", 8080)}),
                _Pod("b", "x", {"app": "db"}, "10.99.0.12", {"http": ("TCP", 9090)}),
                _Pod("c", "y", {"app": "web"}, "10.99.0.13", {"http": ("TCP", 8080), "dns": ("UDP", 8080)}),
                _Pod("d", "y", {}, "10.99.0.14", {}, not far),
            ),
            tuple(policies),
        )

    def ruleset(self) -> Ruleset:
        """Return our rules, made as the node makes them."""
        state = PolicyState("here")
        for name, labels in NAMESPACES.items():
            state.set_namespace(name, labels)
        for at, body in enumerate(self.policies):
            state.set_policy(f"{body['metadata']['namespace']}/p{at}", from_dict(body, NetworkPolicy))
        for pod in self.pods:
            state.set_pod(f"{pod.namespace}/{pod.name}", self.typed(pod))
        made = new_policy_ruleset(4, "pilothouse-policies")
        for key, plan in state.changes().items():
            made.put(key, None if plan is None else compile_policy(key, plan, 4))
        made.put("groups", compile_groups(state.plans, groups_of(state.plans), 4))
        return made

    @staticmethod
    def typed(pod: _Pod) -> Pod:
        """Return a pod as the API has it."""
        ports = [{"name": name, "protocol": each[0], "containerPort": each[1]} for name, each in pod.ports.items()]
        made = from_dict(
            {
                "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels},
                "spec": {"nodeName": "here" if pod.is_local else "far", "containers": [{"name": "c", "ports": ports}]},
                "status": {"phase": "Running", "podIP": pod.address, "podIPs": [{"ip": pod.address}]},
            },
            Pod,
        )
        assert pod_facts(made, "here").addresses == (pod.address,)
        return made


def policy(namespace: str = "x", selector: Any = None, **spec: Any) -> dict[str, Any]:
    """Make a policy."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": namespace},
        "spec": {"podSelector": selector or {}} | spec,
    }


# The reading of the API's words


def allowed(world: World, source: str, target: str, protocol: str, port: int) -> bool:
    """Return whether somebody may send to somebody, both by address, at a port."""
    if source == target:
        return True
    pods = {pod.address: pod for pod in world.pods}
    ways = (("Egress", "egress", "to", source, target), ("Ingress", "ingress", "from", target, source))
    for kind, rules, peers, own, other in ways:
        pod = pods.get(own)
        if pod is None or not pod.is_local:
            continue
        selecting = [each for each in world.policies if _selects(each, pod) and kind in _types(each)]
        reached = pods.get(target)
        permits = [
            rule
            for each in selecting
            for rule in each["spec"].get(rules, [])
            if _is_peer(rule.get(peers, []), each["metadata"]["namespace"], pods.get(other), other)
            and _is_port(rule.get("ports", []), reached, protocol, port)
        ]
        if selecting and not permits:
            return False
    return True


def _types(found: dict[str, Any]) -> list[str]:
    default = ["Ingress", "Egress"] if found["spec"].get("egress") else ["Ingress"]
    return found["spec"].get("policyTypes") or default


def _selects(found: dict[str, Any], pod: _Pod) -> bool:
    return found["metadata"]["namespace"] == pod.namespace and _matches(found["spec"]["podSelector"], pod.labels)


def _is_peer(peers: list[dict[str, Any]], namespace: str, pod: _Pod | None, address: str) -> bool:
    if not peers:
        return True
    for peer in peers:
        if "ipBlock" in peer:
            block = peer["ipBlock"]
            where = ipaddress.ip_address(address)
            if where in ipaddress.ip_network(block["cidr"]) and not any(
                where in ipaddress.ip_network(each) for each in block.get("except", [])
            ):
                return True
        elif pod is not None:
            if "namespaceSelector" in peer:
                is_space = _matches(peer["namespaceSelector"], NAMESPACES[pod.namespace])
            else:
                is_space = pod.namespace == namespace
            if is_space and _matches(peer.get("podSelector", {}), pod.labels):
                return True
    return False


def _is_port(ports: list[dict[str, Any]], reached: _Pod | None, protocol: str, port: int) -> bool:
    if not ports:
        return True
    for each in ports:
        wanted = each.get("port")
        if each.get("protocol", "TCP") != protocol:
            continue
        if wanted is None:
            return True
        if isinstance(wanted, str):
            if reached is not None and reached.ports.get(wanted) == (protocol, port):
                return True
        elif wanted <= port <= each.get("endPort", wanted):
            return True
    return False


def _matches(selector: dict[str, Any], labels: Mapping[str, str]) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for each in selector.get("matchExpressions", []):
        value, values = labels.get(each["key"]), each.get("values", [])
        fits = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not fits[each["operator"]]:
            return False
    return True


# The reader of rules


def run_rules(rules: Ruleset, source: str, target: str, protocol: str, port: int) -> bool:
    """Return what the forward chain says to a first packet."""
    packet = {"saddr": source, "daddr": target, "proto": protocol.lower(), "port": str(port)}
    return _run(rules, "forward", packet) != "drop"


def _run(rules: Ruleset, chain: str, packet: Mapping[str, str]) -> str:
    for rule in rules.chains[chain].rules:
        verdict = _rule(rules, rule, packet)
        if verdict in {"accept", "drop"}:
            return verdict
        if verdict == "return":
            return "return"
        if verdict.startswith("jump "):
            found = _run(rules, verdict.removeprefix("jump "), packet)
            if found in {"accept", "drop"}:
                return found
    return "accept" if chain == "forward" else "return"


def _rule(rules: Ruleset, rule: str, packet: Mapping[str, str]) -> str:
    """Return a rule's verdict, empty where it does not fit."""
    if rule.startswith("ct state"):
        return ""
    for part in _parts(rule):
        if part in {"accept", "drop", "return"}:
            return part
        if mapped := re.fullmatch(r"ip (saddr|daddr) vmap @(\S+)", part):
            return rules.elements(mapped[2]).get(packet[mapped[1]], "")
        if not _fits(rules, part, packet):
            return ""
    raise AssertionError(f"no verdict: {rule}")


_PART = re.compile(
    r"ip saddr \. ip daddr @\S+|ip daddr \. meta l4proto \. th dport @\S+|ip [sd]addr vmap @\S+|ip [sd]addr @\S+"
    r"|ip [sd]addr != \{ [^}]* \}|ip [sd]addr [0-9./]+|meta l4proto \w+|\w+ dport \{ [^}]* \}|accept|drop|return"
)


def _parts(rule: str) -> Iterator[str]:
    at = 0
    while at < len(rule):
        found = _PART.match(rule, at)
        assert found, f"nobody reads {rule[at:]!r} of {rule!r}"
        yield found[0]
        at = found.end() + 1


def _fits(rules: Ruleset, part: str, packet: Mapping[str, str]) -> bool:
    words = part.split()
    if part.startswith("ip saddr . "):
        return f"{packet['saddr']} . {packet['daddr']}" in rules.elements(words[-1][1:])
    if part.startswith("ip daddr . meta"):
        return f"{packet['daddr']} . {packet['proto']} . {packet['port']}" in rules.elements(words[-1][1:])
    if words[0] == "meta":
        return packet["proto"] == words[2]
    if words[1] == "dport":
        spans = [each.split("-") for each in part.partition("{ ")[2].rstrip(" }").split(", ")]
        return packet["proto"] == words[0] and any(
            int(span[0]) <= int(packet["port"]) <= int(span[-1]) for span in spans
        )
    address = packet[words[1]]
    if words[2].startswith("@"):
        return address in rules.elements(words[2][1:])
    where = ipaddress.ip_address(address)
    if words[2] == "!=":
        nets = part.partition("{ ")[2].rstrip(" }").split(", ")
        return not any(where in ipaddress.ip_network(net) for net in nets)
    return where in ipaddress.ip_network(words[2])
