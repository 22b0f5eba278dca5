"""Pods bound end to end: 6,000 pending pods on 5,000 nodes, API writes included, by the processes of `pilothouse up`.

The API server (TLS, RBAC, durable writes) is one process, controllers and scheduler another. Time counts from the first
bound pod that a watcher sees to the last. Seconds of a core are counted as well: they tell the same on a machine that
others use. Events are written beside the bindings and told beside them. Goal: 2,000 pods/s. The peer is kube-scheduler
with kube-apiserver and etcd, its client's rate not limited, without other controllers.
"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Coroutine
from typing import Any

from _apiserver import TOKEN, Server, Serving, prepare, serving
from _kit import Spread, arguments, note, report, run, scratch
from _kube import KUBE_VERSION, peer
from _schedulers import Bound, Scheduling, follow, kube_scheduler, pilothouse
from pilothouse.client import Client, ClientConfig
from pilothouse.kinds.structs import Node, Pod, from_dict

NODES, PODS, RUNS = 5_000, 6_000, 3
GOAL = 2_000
_AT_ONCE = 64
_READY = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": None}


def node(number: int) -> Node:
    """Make a node of 4 cores and 32 GiB in one of three zones, with what controllers would write on it."""
    name = f"node-{number}"
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{number % 3}"}
    metadata = {"name": name, "labels": labels, "annotations": {"node.alpha.kubernetes.io/ttl": "300"}}
    return from_dict({"metadata": metadata, "spec": {"podCIDR": f"10.{number >> 8}.{number & 255}.0/24"}}, Node)


def status() -> dict[str, Any]:
    """Make the status of a node that is ready."""
    resources = {"cpu": "4", "memory": "32Gi", "pods": "110"}
    return {"status": {"capacity": resources, "allocatable": resources, "conditions": [_READY]}}


def pod(number: int) -> Pod:
    """Make a pod that asks for 100m and 500Mi."""
    requests = {"cpu": "100m", "memory": "500Mi"}
    container = {"name": "pause", "image": "pause:3", "resources": {"requests": requests}}
    spec = {"containers": [container], "automountServiceAccountToken": False}
    return from_dict({"metadata": {"name": f"pod-{number}", "namespace": "default"}, "spec": spec}, Pod)


async def each(count: int, work: Callable[[int], Coroutine[Any, Any, object]]) -> None:
    """Do work for each number, some at once."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))


async def fill(server: Server, nodes: int, pods: int) -> None:
    """Make all nodes and pods."""
    config = ClientConfig(server=server.url, token=TOKEN, insecure=True)
    async with Client.from_config(config) as client:

        async def make_node(number: int) -> None:
            made = await client.create(node(number))
            await client.patch(Node, made.metadata.name, status(), subresource="status")
            await client.patch(Node, made.metadata.name, {"spec": {"taints": None}})  # as it is ready

        await each(nodes, make_node)
        await each(pods, lambda number: client.create(pod(number)))


def once(serve: Serving, start: Scheduling, nodes: int, pods: int) -> Bound:
    """Fill a fresh server and have all bound."""
    with scratch() as directory, serve(directory) as server:
        prepare(server)
        note(f"making {nodes} nodes and {pods} pods")
        run(fill(server, nodes, pods))
        return follow(server, start, directory, pods)


def micros(found: list[Bound], take: Callable[[Bound], float], pods: int) -> int:
    """Give the µs of a core that a pod took, at best."""
    return round(min(take(one) for one in found) / pods * 1e6)


def told(found: list[Bound], pods: int, prefix: str = "") -> dict[str, int | float]:
    """Give what is said beside the rate."""
    return {
        f"{prefix}scheduler_micros_per_pod": micros(found, lambda one: one.scheduler, pods),
        f"{prefix}server_micros_per_pod": micros(found, lambda one: one.server, pods),
        f"{prefix}events": max(one.events for one in found),
        f"{prefix}events_meanwhile": round(statistics.median(one.written for one in found)),
        f"{prefix}events_late_seconds": round(statistics.median(one.late for one in found), 1),
    }


def main() -> None:
    """Measure ours, then the peer."""
    quick = arguments(__doc__).quick
    nodes, pods, runs = (200, 300, 1) if quick else (NODES, PODS, RUNS)
    ours: Serving = lambda directory: serving(directory, "--lifecycle")  # noqa: E731
    found = [once(ours, pilothouse, nodes, pods) for _ in range(runs)]
    theirs: list[Bound] = []
    serve, start = peer(build=not quick), kube_scheduler(build=not quick)
    if serve is not None and start is not None:
        theirs = [once(serve, start, nodes, pods) for _ in range(runs)]
    report(
        "scheduling_bound",
        Spread.of([one.rate for one in found]),
        "pods/s",
        peer=f"kube-scheduler {KUBE_VERSION} with kube-apiserver and etcd" if theirs else None,
        peer_spread=Spread.of([one.rate for one in theirs]) if theirs else None,
        digits=0,
        goal=GOAL,
        nodes=nodes,
        pods=pods,
        **told(found, pods),
        **(told(theirs, pods, "peer_") if theirs else {}),
    )


if __name__ == "__main__":
    main()
