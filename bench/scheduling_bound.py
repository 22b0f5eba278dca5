"""Pods bound end to end: 6,000 pending pods on 5,000 nodes, API writes included, by a scheduler in its own process.

Goal: 2,000 pods/s. Time counts from the scheduler's first decision to the last binding that the server has answered;
caches are filled before. Events are written beside the bindings and told beside them. A real kube-scheduler with
kube-apiserver and etcd bound 400 pods/s on a machine of the same kind.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

from _apiserver import TOKEN, Server, prepare, serving
from _kit import Spread, arguments, note, report, run, scratch
from pilothouse.client import Client, ClientConfig
from pilothouse.kinds.structs import Event, Node, Pod, from_dict
from pilothouse.operator import Manager
from pilothouse.scheduling.reconcilers import PodScheduler

NODES, PODS = 5_000, 6_000
KUBERNETES = 400.0
_SECONDS = 300.0
_AT_ONCE = 64


def node(number: int) -> Node:
    """Make a node of 4 cores and 32 GiB in one of three zones."""
    name = f"node-{number}"
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": f"zone-{number % 3}"}
    allocatable = {"cpu": "4", "memory": "32Gi", "pods": "110"}
    return from_dict({"metadata": {"name": name, "labels": labels}, "status": {"allocatable": allocatable}}, Node)


def pod(number: int) -> Pod:
    """Make a pod that asks for 100m and 500Mi, and does not mind that no agent says that nodes are ready."""
    requests = {"cpu": "100m", "memory": "500Mi"}
    container = {"name": "pause", "image": "pause:3", "resources": {"requests": requests}}
    tolerations = [{"key": "node.kubernetes.io/not-ready", "operator": "Exists"}]
    spec = {"containers": [container], "tolerations": tolerations, "automountServiceAccountToken": False}
    return from_dict({"metadata": {"name": f"pod-{number}", "namespace": "default"}, "spec": spec}, Pod)


async def each(count: int, work: Callable[[int], Coroutine[Any, Any, object]]) -> None:
    """Do work for each number, some at once."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))


async def fill(client: Client, nodes: int, pods: int) -> None:
    """Make all nodes and pods."""

    async def make_node(number: int) -> None:
        made = node(number)
        await client.create(made)
        status = {"status": {"allocatable": dict(made.status.allocatable)}}
        await client.patch(Node, made.metadata.name, status, subresource="status")

    await each(nodes, make_node)
    await each(pods, lambda number: client.create(pod(number)))


class Figures(NamedTuple):
    """Pods and events a second, and the seconds of a core that scheduler and server took until all pods were bound."""

    rate: float
    events: float
    own: float
    server: float


def spent(server: Server) -> float:
    """Give the seconds of a core that a server took so far."""
    fields = Path(f"/proc/{server.pids[0]}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def until(done: Callable[[], bool]) -> None:
    """Look every few milliseconds: what is measured is not to pay for telling us."""
    while not done():  # noqa: ASYNC110
        await asyncio.sleep(0.002)


async def bind(client: Client, pods: int, server: Server) -> Figures:
    """Have all pods bound, and their events written."""
    manager = Manager(client)
    scheduler = PodScheduler(manager, seed=1)
    async with manager, asyncio.timeout(_SECONDS):
        await until(lambda: bool(scheduler.figures.attempts.get("scheduled")))
        begun, own, theirs = time.perf_counter(), time.process_time(), spent(server)
        await until(lambda: scheduler.bound >= pods)
        took, own, theirs = time.perf_counter() - begun, time.process_time() - own, spent(server) - theirs
        written, quiet = -1, 0
        last = time.perf_counter()
        while quiet < 4:
            found = len(await client.list_all(Event, "default"))
            quiet = quiet + 1 if found == written else 0
            last = last if quiet else time.perf_counter()
            written = found
            await asyncio.sleep(0.25)
    return Figures(pods / took, written / (last - begun), own, theirs)


async def once(server: Server, nodes: int, pods: int) -> Figures:
    """Fill a fresh server and have all bound."""
    config = ClientConfig(server=server.url, token=TOKEN, insecure=True)
    async with Client.from_config(config) as client:
        note(f"making {nodes} nodes and {pods} pods")
        await fill(client, nodes, pods)
        return await bind(client, pods, server)


def main() -> None:
    """Measure."""
    quick = arguments(__doc__).quick
    nodes, pods, runs = (200, 300, 1) if quick else (NODES, PODS, 3)
    rates = []
    for _ in range(runs):
        with scratch() as directory, serving(directory) as server:
            prepare(server)
            rates.append(run(once(server, nodes, pods)))
    report(
        "scheduling_bound",
        Spread.of([one.rate for one in rates]),
        "pods/s",
        peer="kube-scheduler, kube-apiserver and etcd, measured before on a machine of the same kind",
        peer_spread=KUBERNETES,
        digits=0,
        nodes=nodes,
        events_per_second=round(max(one.events for one in rates)),
        scheduler_cpu_seconds=min(one.own for one in rates),
        server_cpu_seconds=min(one.server for one in rates),
    )


if __name__ == "__main__":
    main()
