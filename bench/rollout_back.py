"""From a verdict to the route that leads back: a failed analysis run is written, and the canary's weight becomes 0.

One control plane, the controllers and the client in one process; no pods run, they are told to be ready.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from typing import Any, Final

from _kit import arguments, fraction, report
from pilothouse.client import Client
from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.installing import install_kinds
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts import verbs
from pilothouse.delivery.rollouts.running import add_rollouts
from pilothouse.kinds.structs import ReplicaSet, Service, from_dict
from pilothouse.operator import Manager, definition, install
from pilothouse.testing import ControlPlane
from pilothouse.traffic.control.kinds import GRPCRoute, HTTPRoute

RUNS: Final = 20
ROLLOUTS: Final = 20
"""Beside the one that is measured; they rest."""
SECONDS: Final = 60


def rollout(name: str) -> Rollout:
    """Make a rollout with background analysis that stops at 30 %."""
    routing = {"plugins": {"argoproj-labs/gatewayAPI": {"httpRoute": name}}}
    canary = {
        "stableService": f"{name}-stable",
        "canaryService": f"{name}-canary",
        "trafficRouting": routing,
        "analysis": {"templates": [{"templateName": "errors"}]},
        "steps": [{"setWeight": 30}, {"pause": {}}],
    }
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "web:0"}]}}
    spec = {
        "replicas": 10,
        "selector": {"matchLabels": labels},
        "template": template,
        "strategy": {"canary": canary},
    }
    return from_dict({"metadata": {"name": name}, "spec": spec}, Rollout)


async def prepare(client: Client, name: str) -> None:
    """Make a rollout's services and its route."""
    refs = [{"name": f"{name}-{part}", "port": 80, "weight": 0} for part in ("stable", "canary")]
    for ref in refs:
        spec = {"selector": {"app": name}, "ports": [{"port": 80}]}
        await client.create(from_dict({"metadata": {"name": ref["name"]}, "spec": spec}, Service))
    routes = client.dynamic("gateway.networking.k8s.io/v1", "HTTPRoute")
    await routes.create({"metadata": {"name": name}, "spec": {"rules": [{"backendRefs": refs}]}})
    await client.create(rollout(name))


async def play_pods(client: Client) -> None:
    """Tell all sets' pods to be ready, for ever."""
    while True:
        async for found in client.list(ReplicaSet):
            count = found.spec.replicas or 0
            if found.status.available_replicas != count:
                status = {"replicas": count, "availableReplicas": count, "readyReplicas": count}
                await client.patch(ReplicaSet, found.metadata.name, {"status": status}, subresource="status")
        await asyncio.sleep(0.02)


async def until(client: Client, name: str, phase: str) -> Rollout:
    """Wait for a phase of a rollout."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        found = await client.get(Rollout, name)
        if found.status.phase == phase and found.status.observed_generation == str(found.metadata.generation):
            return found
        await asyncio.sleep(0.01)
    raise TimeoutError(f"rollout {name} is {found.status.phase}: {found.status.message}")


async def once(client: Client, name: str, number: int) -> float:
    """Bring a version to 30 %, judge it bad; return the seconds until its weight is 0."""
    change = verbs.set_image(await client.get(Rollout, name), {"web": f"web:{number}"})
    await client.patch(Rollout, name, [dict(one) for one in change.json])
    await until(client, name, "Paused")
    (run,) = [one async for one in client.list(AnalysisRun) if one.status.phase in {"", "Pending"}]
    routes = client.dynamic("gateway.networking.k8s.io/v1", "HTTPRoute")
    since = (await routes.get(name))["metadata"]["resourceVersion"]
    async with aclosing(routes.watch(since=since, fields={"metadata.name": name})) as events:
        began = time.perf_counter()
        await client.patch(AnalysisRun, run.metadata.name, {"status": {"phase": "Failed"}})
        async for event in events:
            refs: list[dict[str, Any]] = event.object["spec"]["rules"][0]["backendRefs"]
            if refs[1]["weight"] == 0:
                break
        took = time.perf_counter() - began
    await until(client, name, "Degraded")
    return took


async def measure(runs: int) -> list[float]:
    """Return the seconds of each run."""
    template = {"metrics": [{"name": "errors", "provider": {"web": {"url": "http://x"}}}]}
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_kinds(client)
        await install(client, definition(HTTPRoute), definition(GRPCRoute))
        templates = client.dynamic("argoproj.io/v1alpha1", "AnalysisTemplate")
        await templates.create({"metadata": {"name": "errors"}, "spec": template})
        manager = Manager(client)
        add_rollouts(manager)
        async with manager:
            playing = asyncio.create_task(play_pods(client))
            names = ["web", *(f"other-{number}" for number in range(ROLLOUTS))]
            for name in names:
                await prepare(client, name)
            for name in names:
                await until(client, name, "Healthy")
            found = [await once(client, "web", number) for number in range(1, runs + 1)]
            playing.cancel()
            await asyncio.wait([playing])
            return found


def main() -> None:
    """Measure and print one JSON line."""
    options = arguments(__doc__, runs=RUNS)
    found = sorted(asyncio.run(measure(3 if options.quick else options.runs)))
    report("rollout_back/p50", fraction(found, 0.5) * 1e3, "ms", goal=100, runs=len(found), worst=found[-1] * 1e3)


if __name__ == "__main__":
    main()
