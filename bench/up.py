"""`pilothouse up`, all parts: how soon the first pod runs, what it costs at rest, how fast pods start, 200 of them.

`first pod` is from the start of the command in an empty directory to a pod that is Running, as a watch sees it. `idle`
is the memory of all processes (PSS) and their part of one core, without pods. `pod start` is from the request that
creates a pod to Running, one after the other. `pods` are 200 of a Deployment. Goals: 1.5 s; 150 MB and 2 % of a core;
p50 of 150 ms as root; 200 pods on two cores. No peer: nothing else does the same in one command.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from _kit import Spread, arguments, fraction, note, report, run, scratch
from _up import platform, pod, running, until_running
from pilothouse.client import Client
from pilothouse.kinds.structs import Deployment, Pod, from_dict

_SETTLE_SECONDS = 15.0
_PATIENCE = 120.0
_LOOK_SECONDS = 0.1


async def first_pod(times: int) -> None:
    """Start platforms in empty directories."""
    ready, took = [], []
    for number in range(times):
        with scratch() as directory:
            async with platform(Path(directory) / "data") as (up, client):
                ready.append(time.perf_counter() - up.begun)
                await running(client, f"first-{number}")
                took.append(time.perf_counter() - up.begun)
                note(f"first pod {took[-1]:.2f} s")
    report("up.first_pod_s", Spread.of(took), "s", digits=2, server_s=Spread.of(ready).median, goal=1.5)


async def at_rest_and_under_pods(seconds: int, starts: int, many: int) -> None:
    """Look at one platform at rest, then start pods."""
    with scratch() as directory:
        async with platform(Path(directory) / "data", "--max-pods", str(many + 10)) as (up, client):
            await running(client, "warm")
            await client.delete(Pod, "warm", "default")
            await asyncio.sleep(_SETTLE_SECONDS)
            before, begun = up.cpu_seconds(), time.perf_counter()
            await asyncio.sleep(seconds)
            cpu = (up.cpu_seconds() - before) / (time.perf_counter() - begun) * 100
            report("up.idle_mb", up.memory_mb(), "MB", processes=len(up.pids()), goal=150)
            report("up.idle_cpu_percent", cpu, "% of a core", digits=2, seconds=seconds, goal=2.0)
            took = sorted([await one_pod(client, number) for number in range(starts)])
            report("up.pod_start_ms", Spread.of(took), "ms", p99=fraction(took, 0.99), goal=150)
            await deployment(client, many)


async def one_pod(client: Client, number: int) -> float:
    """Return the milliseconds until a pod runs."""
    begun = time.perf_counter()
    made = await client.create(pod(f"one-{number}"))
    await until_running(client, f"one-{number}", made.metadata.resource_version or "")
    took = (time.perf_counter() - begun) * 1e3
    await client.delete(Pod, f"one-{number}", "default")
    return took


async def deployment(client: Client, count: int) -> None:
    """Scale a Deployment up, and down again."""
    template = {"metadata": {"labels": {"app": "many"}}, "spec": {**_spec()}}
    spec = {"replicas": count, "selector": {"matchLabels": {"app": "many"}}, "template": template}
    made = from_dict({"metadata": {"name": "many", "namespace": "default"}, "spec": spec}, Deployment)
    begun = time.perf_counter()
    await client.create(made)
    async with asyncio.timeout(_PATIENCE):
        while (await client.get(Deployment, "many", "default")).status.ready_replicas != count:  # noqa: ASYNC110  # a look
            await asyncio.sleep(_LOOK_SECONDS)
    up_seconds = time.perf_counter() - begun
    begun = time.perf_counter()
    await client.delete(Deployment, "many", "default")
    async with asyncio.timeout(_PATIENCE):
        while [found async for found in client.list(Pod, "default", labels="app=many")]:  # noqa: ASYNC110  # a look
            await asyncio.sleep(_LOOK_SECONDS)
    report("up.pods_s", up_seconds, "s", digits=2, pods=count, removed_s=time.perf_counter() - begun)


def _spec() -> dict[str, object]:
    container = {"name": "main", "image": "host", "command": ["/bin/sleep", "100000"]}
    return {"containers": [container], "terminationGracePeriodSeconds": 0}


async def main() -> None:
    """Measure."""
    options = arguments(__doc__, times=7, seconds=60, starts=40, pods=200)
    if options.quick:
        options.times, options.seconds, options.starts, options.pods = 1, 3, 5, 10
    await first_pod(options.times)
    await at_rest_and_under_pods(options.seconds, options.starts, options.pods)


if __name__ == "__main__":
    run(main())
