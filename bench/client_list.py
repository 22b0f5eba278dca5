"""Typed lists: 5,000 pods and 3,661 ReplicaSets of our server as objects, by every Python client there is.

Goal: 0.5 s for the pods. Users report 11.6 s typed and 1.4 s raw for these pods, and 32 s for these ReplicaSets.
The server runs in a process of its own on the same two cores; its part is in all figures. kr8s's objects are
dictionaries with methods. `--pods 20000` measures what `client_informer` starts on.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Any

from _apiserver import Server, pod, prepare, serving
from _clients import Job, jobs, write_config
from _kit import Spread, arguments, note, report, run, scratch
from pilothouse.client import Client

PODS, SETS = 5_000, 3_661
_LIMIT_SECONDS = 60.0


def replica_set(number: int) -> dict[str, Any]:
    """Return a ReplicaSet whose template is the pod of the other benchmarks."""
    made = pod("template")
    labels = {"app": f"web-{number}"}
    template = {"metadata": {"labels": labels}, "spec": {**made["spec"], "restartPolicy": "Always"}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": f"set-{number}"}, "spec": spec}


async def fill(config: str, pods: int, sets: int, make_pod: Callable[[str], dict[str, Any]] = pod) -> None:
    """Create the objects with our own client, many at once. make_pod: of a name."""
    async with Client.from_kubeconfig(config) as client:
        for handle, make, count in (
            (client.dynamic("v1", "Pod"), lambda number: make_pod(f"fill-{number}"), pods),
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


async def measure(server: Server, pods: int, sets: int, rounds: int) -> None:
    """List with every client."""
    config = write_config(server)
    await fill(config, pods, sets)
    for what, count in (("pods", pods), ("sets", sets)):
        ours, our_cpu = Spread.of([0.0]), 0.0
        for client in await jobs(config, lean=True):
            job = client.list_pods if what == "pods" else client.list_sets
            slow = client.name.startswith(("kubernetes", "kr8s"))
            try:
                async with asyncio.timeout(_LIMIT_SECONDS):
                    found, cpu = await seconds_of(job, count, 1 if slow else rounds)
            except TimeoutError:
                note(f"{client.name}: left out, it takes more than {_LIMIT_SECONDS:g} s for {count:,} {what}")
                await client.close()
                continue
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
    options = arguments(__doc__, pods=PODS, sets=SETS)
    pods, sets, rounds = (200, 100, 1) if options.quick else (options.pods, options.sets, 3)
    with scratch() as directory, serving(directory) as server:
        prepare(server)
        run(measure(server, pods, sets, rounds))


if __name__ == "__main__":
    main()
