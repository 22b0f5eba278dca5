"""Typed lists: 5,000 pods and 3,661 ReplicaSets of our server as objects, by every Python client there is.

Goal: 0.5 s for the pods. Users report 11.6 s typed and 1.4 s raw for these pods, and 32 s for these ReplicaSets.
The server runs in a process of its own on the same two cores; its part is in all figures.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

from _apiserver import Server, pod, prepare, serving
from _clients import Job, jobs, write_config
from _kit import Spread, arguments, note, report, run, scratch
from pilothouse.client import Client

PODS, SETS = 5_000, 3_661


def replica_set(number: int) -> dict[str, Any]:
    """Return a ReplicaSet whose template is the pod of the other benchmarks."""
    made = pod("template")
    labels = {"app": f"web-{number}"}
    template = {"metadata": {"labels": labels}, "spec": {**made["spec"], "restartPolicy": "Always"}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": f"set-{number}"}, "spec": spec}


async def fill(config: str, pods: int, sets: int) -> None:
    """Create the objects with our own client, many at once."""
    async with Client.from_kubeconfig(config) as client:
        for handle, make, count in (
            (client.dynamic("v1", "Pod"), lambda number: pod(f"fill-{number}"), pods),
            (client.dynamic("apps/v1", "ReplicaSet"), replica_set, sets),
        ):
            note(f"creating {count:,}")
            for start in range(0, count, 64):
                await asyncio.gather(*(handle.create(make(n)) for n in range(start, min(start + 64, count))))


async def seconds_of(job: Job, expected: int, rounds: int) -> tuple[Spread, float]:
    """Measure a list: seconds, and those of our own processor time. Who is measured once is not warmed up."""
    taken, spent = [], []
    for _ in range(rounds + 1 if rounds > 1 else 1):
        gc.collect()
        begun, used = time.perf_counter(), time.process_time()
        found = await job()
        taken.append(time.perf_counter() - begun)
        spent.append(time.process_time() - used)
        if len(found) != expected:
            raise SystemExit(f"{len(found)} objects; want {expected}")
        del found
    return Spread.of(taken[1:] or taken), min(spent)


async def measure(server: Server, *, quick: bool) -> None:
    """List with every client."""
    pods, sets, rounds = (200, 100, 1) if quick else (PODS, SETS, 3)
    config = write_config(server)
    await fill(config, pods, sets)
    for what, count in (("pods", pods), ("sets", sets)):
        ours, our_cpu = Spread.of([0.0]), 0.0
        for client in await jobs(config, lean=True):
            job = client.list_pods if what == "pods" else client.list_sets
            if client.name.startswith("kr8s") and count > 1_000:
                note(f"{client.name}: left out, it takes some 15 ms an object")
                continue
            slow = client.name in {"kubernetes", "kubernetes_asyncio"}
            found, cpu = await seconds_of(job, count, 1 if slow else rounds)
            note(f"{client.name}: {count} {what} in {found.median:.3f} s, {cpu:.3f} s of its own")
            name = f"client.list_{count}_{what}"
            if client.name == "pilothouse":
                ours, our_cpu = found, cpu
                report(name, found, "s", digits=3, client_seconds=cpu)
            elif client.name.startswith("pilothouse"):
                report(f"{name}_lean", found, "s", digits=3, client_seconds=cpu)
            else:
                report(
                    name,
                    ours,
                    "s",
                    peer=client.name,
                    peer_spread=found,
                    digits=3,
                    client_seconds=our_cpu,
                    peer_client_seconds=cpu,
                )
            await client.close()


def main() -> None:
    """Start a server, fill it, and list."""
    quick = arguments(__doc__).quick
    with scratch() as directory, serving(directory) as server:
        prepare(server)
        run(measure(server, quick=quick))


if __name__ == "__main__":
    main()
