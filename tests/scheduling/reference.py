"""A slow, obvious scheduler to compare ours with: one pod and one node a call, plain dictionaries, nothing kept.

Written from what kube-scheduler 1.36 does. It shares no code with the scheduler but the reading of quantities.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilothouse.kinds import quantity

Object = dict[str, Any]
HOSTNAME = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"


def number(name: str, text: Any) -> int:
    found = quantity.parse_json(text)
    return found.milli_value() if name == "cpu" else found.value()


def requests(pod: Object, defaults: Mapping[str, int] | None = None) -> dict[str, int]:
    total: dict[str, int] = {}

    def of(container: Object) -> dict[str, int]:
        found = {k: number(k, v) for k, v in container.get("resources", {}).get("requests", {}).items()}
        return {**(defaults or {}), **found}

    for container in pod["spec"]["containers"]:
        for k, v in of(container).items():
            total[k] = total.get(k, 0) + v
    sidecars: dict[str, int] = {}
    for container in pod["spec"].get("initContainers", []):
        needs = of(container)
        if container.get("restartPolicy") == "Always":
            for k, v in needs.items():
                total[k] = total.get(k, 0) + v
                sidecars[k] = sidecars.get(k, 0) + v
        else:
            for k in {*needs, *sidecars}:
                total[k] = max(total.get(k, 0), needs.get(k, 0) + sidecars.get(k, 0))
    # What init containers need beside sidecars that start later is less than all together.
    return total


def labels_match(selector: Object | None, labels: Mapping[str, str]) -> bool:
    if selector is None:
        return False
    for k, v in selector.get("matchLabels", {}).items():
        if labels.get(k) != v:
            return False
    return all(requirement(one, labels) for one in selector.get("matchExpressions", []))


def requirement(one: Object, labels: Mapping[str, str]) -> bool:
    key, values = one["key"], one.get("values", [])
    match one["operator"]:
        case "In":
            return key in labels and labels[key] in values
        case "NotIn":
            return key not in labels or labels[key] not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case "Gt" | "Lt" as operator:
            try:
                has, bound = int(labels[key]), int(values[0])
            except (KeyError, ValueError):
                return False
            return has > bound if operator == "Gt" else has < bound
    raise AssertionError(one)


def node_term(term: Object, node: Object) -> bool:
    expressions, fields = term.get("matchExpressions", []), term.get("matchFields", [])
    if not expressions and not fields:
        return False
    labels = node["metadata"].get("labels", {})
    named = {"metadata.name": node["metadata"]["name"]}
    return all(requirement(one, labels) for one in expressions) and all(requirement(one, named) for one in fields)


def affinity_of(pod: Object, kind: str) -> Object:
    found: Object = pod["spec"].get("affinity", {}).get(kind, {})
    return found


REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"


def node_required(pod: Object, node: Object) -> bool:
    labels = node["metadata"].get("labels", {})
    if any(labels.get(k) != v for k, v in pod["spec"].get("nodeSelector", {}).items()):
        return False
    required = affinity_of(pod, "nodeAffinity").get(REQUIRED)
    return required is None or any(node_term(term, node) for term in required["nodeSelectorTerms"])


def tolerated(tolerations: Iterable[Object], taint: Object) -> bool:
    for one in tolerations:
        if one.get("effect") and one["effect"] != taint["effect"]:
            continue
        if one.get("key") and one["key"] != taint["key"]:
            continue
        if one.get("operator") == "Exists" or one.get("value", "") == taint.get("value", ""):
            return True
    return False


def repelled(pod: Object, node: Object) -> bool:
    return any(
        taint["effect"] in {"NoSchedule", "NoExecute"} and not tolerated(pod["spec"].get("tolerations", []), taint)
        for taint in node["spec"].get("taints", [])
    )


def host_ports(pod: Object) -> list[tuple[str, str, int]]:
    return [
        (port.get("hostIP") or "0.0.0.0", port.get("protocol") or "TCP", port["hostPort"])
        for container in pod["spec"]["containers"]
        for port in container.get("ports", [])
        if port.get("hostPort")
    ]


def priority(pod: Object) -> int:
    return int(pod["spec"].get("priority", 0))


Refusal = tuple[str, tuple[str, ...], bool]
"""The plugin, its reasons, and whether no pod that goes would help."""


@dataclass
class World:
    """All there is. `placed` has pods and the names of their nodes."""

    nodes: dict[str, Object] = field(default_factory=dict)
    placed: list[tuple[Object, str]] = field(default_factory=list)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    services: list[Object] = field(default_factory=list)

    def on(self, name: str) -> list[Object]:
        return [pod for pod, node in self.placed if node == name]

    def here(self) -> list[tuple[Object, Object]]:
        return [(pod, self.nodes[node]) for pod, node in self.placed if node in self.nodes]

    # filters

    def refuses(self, pod: Object, node: Object) -> Refusal | None:
        for check in (
            self.cordoned,
            self.tainted,
            self.node_affinity,
            self.ports,
            self.fit,
            self.spread,
            self.pod_affinity,
        ):
            found = check(pod, node)
            if found is not None:
                return found
        return None

    def cordoned(self, pod: Object, node: Object) -> Refusal | None:
        taint = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
        if node["spec"].get("unschedulable") and not tolerated(pod["spec"].get("tolerations", []), taint):
            return "NodeUnschedulable", ("node(s) were unschedulable",), True
        return None

    def tainted(self, pod: Object, node: Object) -> Refusal | None:
        return ("TaintToleration", ("node(s) had untolerated taint(s)",), True) if repelled(pod, node) else None

    def node_affinity(self, pod: Object, node: Object) -> Refusal | None:
        if node_required(pod, node):
            return None
        return "NodeAffinity", ("node(s) didn't match Pod's node affinity/selector",), True

    def ports(self, pod: Object, node: Object) -> Refusal | None:
        taken = [port for other in self.on(node["metadata"]["name"]) for port in host_ports(other)]
        for ip, protocol, port in host_ports(pod):
            for its_ip, its_protocol, its_port in taken:
                alike = (protocol, port) == (its_protocol, its_port)
                if alike and ("0.0.0.0" in {ip, its_ip} or ip == its_ip):
                    return "NodePorts", ("node(s) didn't have free ports for the requested pod ports",), False
        return None

    def fit(self, pod: Object, node: Object) -> Refusal | None:
        has = {k: number(k, v) for k, v in node["status"]["allocatable"].items()}
        others = self.on(node["metadata"]["name"])
        reasons, final = [], False
        if len(others) + 1 > has.get("pods", 0):
            reasons.append("Too many pods")
        for name, value in sorted(requests(pod).items(), key=lambda item: item[0]):
            used = sum(requests(other).get(name, 0) for other in others)
            if value and value > has.get(name, 0) - used:
                reasons.append(f"Insufficient {name}")
                final = final or value > has.get(name, 0)
        return ("NodeResourcesFit", tuple(reasons), final) if reasons else None

    def spread(self, pod: Object, node: Object) -> Refusal | None:
        constraints = self.constraints(pod, "DoNotSchedule")
        for constraint in constraints:
            key = constraint["topologyKey"]
            value = node["metadata"]["labels"].get(key)
            text = "node(s) didn't match pod topology spread constraints"
            if value is None:
                return "PodTopologySpread", (f"{text} (missing required label)",), True
            numbers: dict[str, int] = {}
            for other in self.nodes.values():
                labels = other["metadata"]["labels"]
                if all(one["topologyKey"] in labels for one in constraints) and self.counts(pod, other, constraint):
                    numbers.setdefault(labels[key], 0)
                    numbers[labels[key]] += self.alike(pod, other, constraint)
            least = min(numbers.values(), default=0)
            if len(numbers) < (constraint.get("minDomains") or 1):
                least = 0
            itself = labels_match(self.selector(pod, constraint), pod["metadata"].get("labels", {}))
            if numbers.get(value, 0) + itself - least > constraint["maxSkew"]:
                return "PodTopologySpread", (text,), False
        return None

    def constraints(self, pod: Object, action: str) -> list[Object]:
        own = pod["spec"].get("topologySpreadConstraints")
        if own:
            return [one for one in own if one["whenUnsatisfiable"] == action]
        selector = self.default_selector(pod)
        if action == "DoNotSchedule" or not selector:
            return []
        return [
            {"topologyKey": HOSTNAME, "maxSkew": 3, "labelSelector": {"matchLabels": selector}},
            {"topologyKey": ZONE, "maxSkew": 5, "labelSelector": {"matchLabels": selector}},
        ]

    def default_selector(self, pod: Object) -> dict[str, str]:
        chosen: dict[str, str] = {}
        labels = pod["metadata"].get("labels", {})
        for service in self.services:
            selector = service["spec"]["selector"]
            same = service["metadata"]["namespace"] == pod["metadata"]["namespace"]
            if same and all(labels.get(k) == v for k, v in selector.items()):
                chosen.update(selector)
        return chosen

    def selector(self, pod: Object, constraint: Object) -> Object | None:
        selector = constraint.get("labelSelector")
        labels = pod["metadata"].get("labels", {})
        keys = [key for key in constraint.get("matchLabelKeys", []) if key in labels]
        if selector is None or not keys:
            return selector
        return {**selector, "matchLabels": {**selector.get("matchLabels", {}), **{key: labels[key] for key in keys}}}

    def counts(self, pod: Object, node: Object, constraint: Object) -> bool:
        if constraint.get("nodeAffinityPolicy", "Honor") == "Honor" and not node_required(pod, node):
            return False
        return not (constraint.get("nodeTaintsPolicy") == "Honor" and repelled(pod, node))

    def alike(self, pod: Object, node: Object, constraint: Object) -> int:
        selector = self.selector(pod, constraint)
        if selector is not None and not selector.get("matchLabels") and not selector.get("matchExpressions"):
            return 0
        return sum(
            other["metadata"]["namespace"] == pod["metadata"]["namespace"]
            and "deletionTimestamp" not in other["metadata"]
            and labels_match(selector, other["metadata"].get("labels", {}))
            for other in self.on(node["metadata"]["name"])
        )

    def takes(self, owner: Object, term: Object, other: Object) -> bool:
        """Whether a term of `owner` means `other`."""
        namespace = other["metadata"]["namespace"]
        listed, selector = term.get("namespaces", []), term.get("namespaceSelector")
        if not listed and selector is None:
            listed = [owner["metadata"]["namespace"]]
        if namespace not in listed and not labels_match(selector, self.namespaces.get(namespace, {})):
            return False
        labels = owner["metadata"].get("labels", {})
        theirs = other["metadata"].get("labels", {})
        for key in term.get("matchLabelKeys", []):
            if key in labels and theirs.get(key) != labels[key]:
                return False
        for key in term.get("mismatchLabelKeys", []):
            if key in labels and theirs.get(key) == labels[key]:
                return False
        return labels_match(term.get("labelSelector"), theirs)

    def pod_affinity(self, pod: Object, node: Object) -> Refusal | None:
        labels = node["metadata"]["labels"]

        def same_domain(term: Object, other: Object) -> bool:
            key = term["topologyKey"]
            return key in labels and other["metadata"]["labels"].get(key) == labels[key]

        wants = affinity_of(pod, "podAffinity").get(REQUIRED, [])
        if wants:
            mates = [(o, n) for o, n in self.here() if all(self.takes(pod, term, o) for term in wants)]
            labelled = all(term["topologyKey"] in labels for term in wants)
            near = all(any(same_domain(term, n) for _, n in mates) for term in wants)
            anywhere = any(term["topologyKey"] in n["metadata"]["labels"] for _, n in mates for term in wants)
            first = not anywhere and all(self.takes(pod, term, pod) for term in wants)
            if not labelled or not (near or first):
                return "InterPodAffinity", ("node(s) didn't match pod affinity rules",), True
        for term in affinity_of(pod, "podAntiAffinity").get(REQUIRED, []):
            if any(self.takes(pod, term, o) and same_domain(term, n) for o, n in self.here()):
                return "InterPodAffinity", ("node(s) didn't match pod anti-affinity rules",), False
        for other, its_node in self.here():
            for term in affinity_of(other, "podAntiAffinity").get(REQUIRED, []):
                if self.takes(other, term, pod) and same_domain(term, its_node):
                    reason = "node(s) didn't satisfy existing pods anti-affinity rules"
                    return "InterPodAffinity", (reason,), False
        return None

    # scores

    def totals(self, pod: Object) -> dict[str, int]:
        """Give the score of each node that the pod may run on."""
        feasible = [node for node in self.nodes.values() if self.refuses(pod, node) is None]
        total = {node["metadata"]["name"]: 0 for node in feasible}
        for weight, scores in (
            (3, self.taint_scores(pod, feasible)),
            (2, self.node_affinity_scores(pod, feasible)),
            (1, [self.least_allocated(pod, node) for node in feasible]),
            (2, self.spread_scores(pod, feasible)),
            (2, self.pod_affinity_scores(pod, feasible)),
            (1, [self.balanced(pod, node) for node in feasible]),
            (1, [self.images(pod, node) for node in feasible]),
        ):
            for node, score in zip(feasible, scores, strict=True):
                total[node["metadata"]["name"]] += weight * score
        return total

    def taint_scores(self, pod: Object, feasible: Sequence[Object]) -> list[int]:
        soft = [one for one in pod["spec"].get("tolerations", []) if one.get("effect", "") in {"", "PreferNoSchedule"}]
        raw = [
            sum(t["effect"] == "PreferNoSchedule" and not tolerated(soft, t) for t in node["spec"].get("taints", []))
            for node in feasible
        ]
        most = max(raw, default=0)
        return [100 - (100 * one // most if most else 0) for one in raw]

    def node_affinity_scores(self, pod: Object, feasible: Sequence[Object]) -> list[int]:
        terms = affinity_of(pod, "nodeAffinity").get(PREFERRED, [])
        raw = [sum(term["weight"] for term in terms if node_term(term["preference"], node)) for node in feasible]
        most = max(raw, default=0)
        return [100 * one // most if most else 0 for one in raw]

    def least_allocated(self, pod: Object, node: Object) -> int:
        defaults = {"cpu": 100, "memory": 200 * 1024 * 1024}
        scores = []
        for name in ("cpu", "memory"):
            has = number(name, node["status"]["allocatable"].get(name, 0))
            if not has:
                continue
            pods = [*self.on(node["metadata"]["name"]), pod]
            used = sum(requests(one, defaults)[name] for one in pods)
            scores.append(0 if used > has else (has - used) * 100 // has)
        return sum(scores) // len(scores) if scores else 0

    def balanced(self, pod: Object, node: Object) -> int:
        wants = requests(pod)
        if not wants.get("cpu", 0) and not wants.get("memory", 0):
            return 0

        def even(with_pod: bool) -> int:
            parts = []
            for name in ("cpu", "memory"):
                has = number(name, node["status"]["allocatable"].get(name, 0))
                if has:
                    used = sum(requests(one).get(name, 0) for one in self.on(node["metadata"]["name"]))
                    parts.append(min(1.0, (used + (wants.get(name, 0) if with_pod else 0)) / has))
            deviation = abs((parts[0] - parts[1]) / 2) if len(parts) == 2 else 0.0
            return int((1 - deviation) * 100)

        return 50 + math.trunc((50 + even(True) - even(False)) / 2)

    def images(self, pod: Object, node: Object) -> int:
        def listed(one: Object) -> dict[str, int]:
            return {n: image["sizeBytes"] for image in one["status"].get("images", []) for n in image["names"]}

        total = 0
        containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
        for container in containers:
            name = container["image"]
            name = name if ":" in name.rsplit("/", 1)[-1] else f"{name}:latest"
            if name in listed(node):
                spread = sum(name in listed(one) for one in self.nodes.values()) / len(self.nodes)
                total += int(listed(node)[name] * spread)
        low, high = 23 * 1024 * 1024, 1000 * 1024 * 1024 * len(containers)
        return 100 * (min(max(total, low), high) - low) // (high - low)

    def spread_scores(self, pod: Object, feasible: Sequence[Object]) -> list[int]:
        constraints = self.constraints(pod, "ScheduleAnyway")
        if not constraints:
            return [0] * len(feasible)
        strict = bool(pod["spec"].get("topologySpreadConstraints"))

        def ignored(node: Object) -> bool:
            return strict and any(one["topologyKey"] not in node["metadata"]["labels"] for one in constraints)

        scored = [node for node in feasible if not ignored(node)]
        raw: dict[str, int] = {}
        for node in scored:
            score = 0.0
            for one in constraints:
                key = one["topologyKey"]
                if key not in node["metadata"]["labels"]:
                    continue
                value = node["metadata"]["labels"][key]
                if key == HOSTNAME:
                    size, count = len(scored), self.alike(pod, node, one)
                else:
                    size = len({n["metadata"]["labels"].get(key, "") for n in scored})
                    count = sum(
                        self.alike(pod, other, one)
                        for other in self.nodes.values()
                        if other["metadata"]["labels"].get(key) == value
                        and not ignored(other)
                        and self.counts(pod, other, one)
                    )
                score += count * math.log(size + 2) + (one["maxSkew"] - 1)
            raw[node["metadata"]["name"]] = math.floor(score + 0.5)
        low, high = min(raw.values(), default=0), max(raw.values(), default=0)
        found = []
        for node in feasible:
            name = node["metadata"]["name"]
            found.append(0 if name not in raw else 100 * (high + low - raw[name]) // high if high else 100)
        return found

    def pod_affinity_scores(self, pod: Object, feasible: Sequence[Object]) -> list[int]:
        raw = []
        for node in feasible:
            labels, score = node["metadata"]["labels"], 0
            for other, its_node in self.here():
                for owner, meant, kind, sign in (
                    (pod, other, "podAffinity", 1),
                    (pod, other, "podAntiAffinity", -1),
                    (other, pod, "podAffinity", 1),
                    (other, pod, "podAntiAffinity", -1),
                ):
                    terms = [
                        (one["weight"], one["podAffinityTerm"]) for one in affinity_of(owner, kind).get(PREFERRED, [])
                    ]
                    if owner is other and kind == "podAffinity":
                        terms += [(1, term) for term in affinity_of(other, kind).get(REQUIRED, [])]
                    for weight, term in terms:
                        key = term["topologyKey"]
                        near = key in labels and its_node["metadata"]["labels"].get(key) == labels[key]
                        if near and self.takes(owner, term, meant):
                            score += sign * weight
            raw.append(score)
        low, high = min(raw, default=0), max(raw, default=0)
        return [int(100 * ((one - low) / (high - low))) if high > low else 0 for one in raw]

    # messages

    def message(self, pod: Object) -> str:
        reasons: dict[str, int] = {}
        for node in self.nodes.values():
            refusal = self.refuses(pod, node)
            assert refusal is not None
            for reason in refusal[1]:
                reasons[reason] = reasons.get(reason, 0) + 1
        return self.told(reasons)

    def told(self, reasons: Mapping[str, int]) -> str:
        listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
        return f"0/{len(self.nodes)} nodes are available: {listed}."

    # preemption

    def victims(self, pod: Object, node: Object) -> list[Object] | tuple[str, ...]:
        """Give who has to go from a node, the more important first; or why that does not help."""
        name = node["metadata"]["name"]
        lower = [other for other in self.on(name) if priority(other) < priority(pod)]
        if not lower:
            return ("No preemption victims found for incoming pod",)
        lower.sort(key=lambda other: (-priority(other), other["status"].get("startTime", "9")))
        trial = World(self.nodes, [one for one in self.placed if one[0] not in lower], self.namespaces, self.services)
        refusal = trial.refuses(pod, node)
        if refusal is not None:
            return refusal[1]
        gone = []
        for other in lower:
            trial.placed.append((other, name))
            if trial.refuses(pod, node) is not None:
                trial.placed.pop()
                gone.append(other)
        return gone

    def preempt(self, pod: Object) -> tuple[dict[str, list[Object]], str]:
        """Give the victims on each of the best nodes, or the text that says why there is none."""
        found: dict[str, list[Object]] = {}
        reasons: dict[str, int] = {}
        for name, node in self.nodes.items():
            refusal = self.refuses(pod, node)
            assert refusal is not None
            outcome = ("Preemption is not helpful for scheduling",) if refusal[2] else self.victims(pod, node)
            if isinstance(outcome, list):
                found[name] = outcome
                continue
            for reason in outcome:
                reasons[reason] = reasons.get(reason, 0) + 1
        if not found:
            return {}, f"preemption: {self.told(reasons)}"

        def cost(name: str) -> tuple[int, int, int, list[int]]:
            pods = found[name]
            highest = max(priority(one) for one in pods)
            earliest = min(one["status"].get("startTime", "9") for one in pods if priority(one) == highest)
            later_is_better = [-ord(letter) for letter in earliest]
            return highest, sum(priority(one) + 2**31 for one in pods), len(pods), later_is_better

        best = min(cost(name) for name in found)
        return {name: pods for name, pods in found.items() if cost(name) == best}, ""
