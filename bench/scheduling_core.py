"""The scheduler's core alone: 6,000 pending pods on 5,000 nodes, objects in and decisions out, nothing written.

Goal: 10,000 pods/s for plain pods. Time counts from the first pod told to the last decision: reading the pod's shape,
the queue, filters, scores and taking over what was decided. The variants are those of upstream's performance tests,
whose floors (the least that its CI accepts, with an API server) stand beside them.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from _kit import Spread, arguments, note, report
from pilothouse.kinds.structs import Node, Pod, from_dict
from pilothouse.scheduling import Bind, Failed, Scheduler

NODES = 5_000
PODS = 6_000

BASIC_FLOOR = 270.0
NODE_AFFINITY_FLOOR = 220.0
SPREAD_FLOOR = 85.0
PREFERRED_AFFINITY_FLOOR = 90.0
REQUIRED_AFFINITY_FLOOR = 35.0
REQUIRED_ANTI_AFFINITY_FLOOR = 60.0
PREEMPTION_FLOOR = 160.0

Object = dict[str, Any]
_HOST = "kubernetes.io/hostname"
_ZONE = "topology.kubernetes.io/zone"


def node(number: int) -> Node:
    """Make a node of 4 cores and 32 GiB in one of three zones."""
    labels = {_HOST: f"node-{number}", _ZONE: f"zone-{number % 3}"}
    allocatable = {"cpu": "4", "memory": "32Gi", "pods": "110"}
    return from_dict(
        {"metadata": {"name": f"node-{number}", "labels": labels}, "status": {"allocatable": allocatable}}, Node
    )


def pod(number: int, color: str, **spec: Any) -> Pod:
    """Make a pod that asks for 100m and 500Mi."""
    requests = {"cpu": "100m", "memory": "500Mi"}
    container = {"name": "pause", "image": "pause:3", "resources": {"requests": requests}}
    meta = {"name": f"pod-{number}", "namespace": "default", "uid": f"uid-{number}", "labels": {"color": color}}
    return from_dict({"metadata": meta, "spec": {"containers": [container], **spec}}, Pod)


def affinity(kind: str, key: str, *, preferred: bool) -> Object:
    """Make a pod's affinity, or anti-affinity, to pods of its color."""
    term = {"topologyKey": key, "labelSelector": {"matchLabels": {"color": "blue"}}}
    if preferred:
        return {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": term}]}}
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def in_zones() -> Object:
    """Make a node affinity to two of the zones."""
    zones = {"key": _ZONE, "operator": "In", "values": ["zone-0", "zone-1"]}
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [zones]}]}
        }
    }


def plain(number: int) -> Pod:
    """Make a pod without wishes."""
    return pod(number, "blue")


VARIANTS: dict[str, tuple[Callable[[int], Pod], float, int]] = {
    "basic": (plain, BASIC_FLOOR, PODS),
    "names_of_their_own": (lambda i: pod(i, f"color-{i}"), BASIC_FLOOR, PODS),
    "node_affinity": (lambda i: pod(i, "blue", affinity=in_zones()), NODE_AFFINITY_FLOOR, PODS),
    "topology_spread": (
        lambda i: pod(
            i,
            "blue",
            topologySpreadConstraints=[
                {
                    "maxSkew": 5,
                    "topologyKey": _ZONE,
                    "whenUnsatisfiable": "DoNotSchedule",
                    "labelSelector": {"matchLabels": {"color": "blue"}},
                }
            ],
        ),
        SPREAD_FLOOR,
        PODS,
    ),
    "preferred_pod_affinity": (
        lambda i: pod(i, "blue", affinity=affinity("podAffinity", _HOST, preferred=True)),
        PREFERRED_AFFINITY_FLOOR,
        PODS,
    ),
    "preferred_pod_anti_affinity": (
        lambda i: pod(i, "blue", affinity=affinity("podAntiAffinity", _HOST, preferred=True)),
        PREFERRED_AFFINITY_FLOOR,
        PODS,
    ),
    "required_pod_affinity": (
        lambda i: pod(i, "blue", affinity=affinity("podAffinity", _ZONE, preferred=False)),
        REQUIRED_AFFINITY_FLOOR,
        PODS,
    ),
    "required_pod_anti_affinity": (
        lambda i: pod(i, "blue", affinity=affinity("podAntiAffinity", _HOST, preferred=False)),
        REQUIRED_ANTI_AFFINITY_FLOOR,
        NODES,
    ),
}


class Rate(NamedTuple):
    """Pods a second, and pods a second of this program's own time, which tells how far others were in the way."""

    wall: float
    own: float


class Watch:
    """Takes both times."""

    def __init__(self) -> None:
        gc.collect()
        self._own, self._wall = time.process_time(), time.perf_counter()

    def rate(self, count: int) -> Rate:
        """Give the rates since the watch was made."""
        return Rate(count / (time.perf_counter() - self._wall), count / (time.process_time() - self._own))


def place(make: Callable[[int], Pod], nodes: int, count: int) -> Rate:
    """Schedule pods and give how many a second; the answer of an API server is told as well."""
    scheduler = Scheduler(seed=1)
    for number in range(nodes):
        scheduler.upsert(node(number))
    pods = [make(number) for number in range(count)]
    watch = Watch()
    for one in pods:
        scheduler.upsert(one)
    bound = 0
    while (decision := scheduler.schedule()) is not None:
        if not isinstance(decision, Bind):
            raise SystemExit(f"pod {decision.pod.metadata.name}: {decision.message}")
        scheduler.bound(decision.pod.metadata.uid)
        bound += 1
    if bound != count:
        raise SystemExit(f"{bound} of {count} pods were bound")
    return watch.rate(count)


def preempt(nodes: int, count: int) -> Rate:
    """Fill the nodes with four pods each, then give how many pods of higher priority a second get room made."""
    scheduler = Scheduler(seed=1)
    for number in range(nodes):
        scheduler.upsert(node(number))
    big = [{"name": "pause", "image": "pause:3", "resources": {"requests": {"cpu": "900m", "memory": "500Mi"}}}]
    for number in range(4 * nodes):
        scheduler.upsert(pod(number, "red", containers=big, nodeName=f"node-{number % nodes}"))
    bigger = [{"name": "pause", "image": "pause:3", "resources": {"requests": {"cpu": "3", "memory": "500Mi"}}}]
    pods = [pod(10**6 + number, "blue", priority=10, containers=bigger) for number in range(count)]
    watch = Watch()
    for one in pods:
        scheduler.upsert(one)
        decision = scheduler.schedule()
        if not isinstance(decision, Failed) or not decision.victims:
            raise SystemExit(f"pod {one.metadata.name}: no room was made")
        for victim in decision.victims:
            scheduler.remove(victim)
    return watch.rate(count)


def tell(name: str, rates: list[Rate], floor: float, nodes: int) -> None:
    """Print a figure."""
    report(
        f"scheduling_core_{name}",
        Spread.of([rate.wall for rate in rates]),
        "pods/s",
        peer="floor of kube-scheduler's CI, with an API server",
        peer_spread=floor,
        digits=0,
        nodes=nodes,
        per_cpu_second=round(max(rate.own for rate in rates)),
    )


def main() -> None:
    """Measure each variant."""
    quick = arguments(__doc__).quick
    nodes, runs = (500, 1) if quick else (NODES, 3)
    for name, (make, floor, count) in VARIANTS.items():
        note(f"{name}: {count} pods on {nodes} nodes")
        tell(name, [place(make, nodes, min(count, nodes) if quick else count) for _ in range(runs)], floor, nodes)
    note(f"preemption on {nodes} nodes")
    tell("preemption", [preempt(nodes, 100 if quick else 1_000) for _ in range(runs)], PREEMPTION_FLOOR, nodes)


if __name__ == "__main__":
    main()
