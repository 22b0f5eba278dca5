"""A fleet at rest: 2,000 simulated nodes with 20,000 running pods, in one process beside the server's.

Goal: at most one core for both together, all heartbeats included (a lease of each node every 10 s, a status every 5
minutes). The pods are bound as they are made, so that no scheduler takes part.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import NamedTuple

from _apiserver import TOKEN, Server, prepare, serving
from _kit import arguments, note, report, resident_bytes, run, scratch
from pilothouse.client import Client, ClientConfig
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import Pod, from_dict
from pilothouse.node.simulated import Fleet, FleetOptions

NODES, PODS, SECONDS = 2_000, 20_000, 60
_AT_ONCE = 32


class Figures(NamedTuple):
    """Seconds of a core a second, of both and of the fleet alone; pods started a second; MB of the fleet."""

    cores: float
    own: float
    starts: float
    megabytes: float
    late: int


def pod(number: int, nodes: int) -> Pod:
    """Make a pod that is bound already."""
    container = {"name": "pause", "image": "pause:3", "resources": {"requests": {"cpu": "100m"}}}
    spec = {
        "nodeName": f"sim-{number % nodes}",
        "containers": [container],
        "automountServiceAccountToken": False,
    }
    return from_dict({"metadata": {"name": f"pod-{number}", "namespace": "default"}, "spec": spec}, Pod)


def spent(server: Server) -> float:
    """Give the seconds of a core that a server took so far."""
    fields = Path(f"/proc/{server.pids[0]}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def once(server: Server, nodes: int, pods: int, seconds: int) -> Figures:
    """Fill a fleet and look at it."""
    config = ClientConfig(server=server.url, token=TOKEN, insecure=True)
    async with Client.from_config(config, managed_fields=False) as client:
        fleet = Fleet(client, FleetOptions(count=nodes), metrics=Metrics())
        working = asyncio.create_task(fleet.run())
        begun = time.perf_counter()
        await fleet.wait_started()
        note(f"{nodes} nodes after {time.perf_counter() - begun:.1f} s; making {pods} pods")
        numbers = iter(range(pods))

        async def make() -> None:
            for number in numbers:
                await client.create(pod(number, nodes))

        begun = time.perf_counter()
        await asyncio.gather(*(make() for _ in range(_AT_ONCE)))
        while fleet.running < pods or fleet.waiting:  # noqa: ASYNC110  what is measured is not to pay for telling us
            await asyncio.sleep(0.05)
        starts = pods / (time.perf_counter() - begun)
        note(f"{pods} pods run, {starts:.0f} a second; looking for {seconds} s")
        await asyncio.sleep(5)
        begun, own, theirs = time.perf_counter(), time.process_time(), spent(server)
        await asyncio.sleep(seconds)
        took = time.perf_counter() - begun
        own, theirs = time.process_time() - own, spent(server) - theirs
        fleet.stop()
        await working
        return Figures((own + theirs) / took, own / took, starts, resident_bytes() / 1e6, fleet.late_leases)


def main() -> None:
    """Measure."""
    quick = arguments(__doc__).quick
    nodes, pods, seconds = (100, 500, 5) if quick else (NODES, PODS, SECONDS)
    with scratch() as directory, serving(directory) as server:
        prepare(server)
        found = run(once(server, nodes, pods, seconds))
    report(
        "node_fleet",
        found.cores,
        "cores",
        digits=2,
        nodes=nodes,
        pods=pods,
        fleet_cores=found.own,
        fleet_megabytes=round(found.megabytes),
        pods_started_per_second=round(found.starts),
        late_leases=found.late,
    )


if __name__ == "__main__":
    main()
