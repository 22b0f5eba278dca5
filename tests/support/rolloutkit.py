"""Rollouts on a control plane: the controllers, the project's replica sets, a made-up node, and a clock of the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final

import yaml

from pilothouse.client import Client
from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.installing import definitions
from pilothouse.delivery.resources.rollouts import Rollout, RolloutStatus
from pilothouse.delivery.rollouts.experimenting import add_experiments
from pilothouse.delivery.rollouts.names import HASH
from pilothouse.delivery.rollouts.running import add_rollouts
from pilothouse.delivery.rollouts.verbs import Change
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds import times
from pilothouse.kinds.structs import Pod, ReplicaSet, Service
from pilothouse.operator import Harness, Manager, definition, install
from pilothouse.testing import ControlPlane
from pilothouse.traffic.control.kinds import GRPCRoute, HTTPRoute, RegionWeights
from pilothouse.workloads.reconcilers.replicaset import add_replicasets

__all__ = ["ROUTE", "SERVICES", "Fleet", "fleet", "open_definitions"]

SERVICES: Final = """
apiVersion: v1
kind: Service
metadata: {name: shop-stable}
spec: {selector: {app: shop}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: shop-canary}
spec: {selector: {app: shop}, ports: [{port: 80}]}
"""
ROUTE: Final = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop}
spec:
  parentRefs: [{name: front}]
  rules:
  - backendRefs: [{name: shop-stable, port: 80, weight: 100}, {name: shop-canary, port: 80, weight: 0}]
"""
_ROUNDS: Final = 60


class Fleet:
    """A control plane with rollouts. broken: images whose pods never get ready."""

    def __init__(self, plane: ControlPlane, client: Client, harness: Harness, clock: FakeClock) -> None:
        self.plane = plane
        self.client = client
        self.harness = harness
        self.clock = clock
        self.broken: set[str] = set()

    async def apply(self, text: str) -> None:
        """Apply manifests."""
        for one in yaml.safe_load_all(text):
            await self.client.dynamic(one["apiVersion"], one["kind"]).apply(one, force=True)

    async def settle(self) -> None:
        """Let controllers work and pods get ready until nothing happens any more."""
        for _ in range(_ROUNDS):
            await self.harness.converge()
            if not await self._play_pods():
                return
        raise AssertionError("no end of it")

    async def advance(self, seconds: float) -> None:
        """Let time pass, and everything that falls due happen."""
        await self.harness.advance(seconds)
        await self.settle()

    async def _play_pods(self) -> bool:
        moved = False
        async for pod in self.client.list(Pod):
            image = (pod.spec.containers[0].image or "").rpartition(":")[2]
            ready = any(one.type == "Ready" and one.status == "True" for one in pod.status.conditions)
            if ready or image in self.broken or pod.metadata.deletion_timestamp is not None:
                continue
            now = times.format_seconds(self.clock.now())
            conditions = [{"type": "Ready", "status": "True", "lastTransitionTime": now}]
            await self.client.patch(
                Pod, pod.metadata.name, {"status": {"phase": "Running", "conditions": conditions}}, subresource="status"
            )
            moved = True
        return moved

    # What tests do and look at

    async def rollout(self, name: str = "shop") -> Rollout:
        """Return the rollout as it is."""
        return await self.client.get(Rollout, name)

    async def status(self) -> RolloutStatus:
        """Return its status."""
        return (await self.rollout()).status

    async def set_image(self, image: str) -> None:
        """Set another version."""
        patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": f"shop:{image}"}]
        await self.client.patch(Rollout, "shop", patch)

    async def verb(self, change: Change) -> None:
        """Do what a user's verb says, as its command does."""
        if change.status:
            await self.client.patch(Rollout, "shop", dict(change.status), subresource="status")
        if change.spec:
            await self.client.patch(Rollout, "shop", dict(change.spec))
        if change.json:
            await self.client.patch(Rollout, "shop", [dict(one) for one in change.json])

    async def judge(self, phase: str, role: str = "") -> list[str]:
        """Let analysis runs end; return their names."""
        ended = []
        async for run in self.client.list(AnalysisRun):
            if run.status.phase in {"", "Pending", "Running"} and role in {"", run.metadata.labels.get("rollout-type")}:
                await self.client.patch(AnalysisRun, run.metadata.name, {"status": {"phase": phase}})
                ended.append(run.metadata.name)
        return sorted(ended)

    async def weights(self) -> Mapping[str, int]:
        """Return the weights of the route's own rule."""
        route = await self.route()
        rule = next(one for one in route["spec"]["rules"] if "name" not in one)
        return {ref["name"]: ref["weight"] for ref in rule["backendRefs"]}

    async def route(self) -> dict[str, Any]:
        """Return the route."""
        return await self.client.dynamic("gateway.networking.k8s.io/v1", "HTTPRoute").get("shop")

    async def sizes(self) -> Mapping[str, int]:
        """Return how many pods each version is to have."""
        return {
            (one.spec.template.spec.containers[0].image or "").rpartition(":")[2]: one.spec.replicas or 0
            async for one in self.client.list(ReplicaSet)
        }

    async def selected(self, service: str) -> str:
        """Return the version that a service selects."""
        wanted = (await self.client.get(Service, service)).spec.selector.get(HASH, "")
        async for one in self.client.list(ReplicaSet):
            if one.metadata.labels.get(HASH) == wanted:
                return (one.spec.template.spec.containers[0].image or "").rpartition(":")[2]
        return ""


@asynccontextmanager
async def fleet(*manifests: str, extra: Iterable[Any] = ()) -> AsyncIterator[Fleet]:
    """Run a control plane with rollouts and what they stand on."""
    clock = FakeClock()
    async with (
        ControlPlane(clock=clock) as plane,
        Client.for_transport(plane.transport, plane.user) as client,
    ):
        await install(client, *_definitions())
        harness = Harness(client, clock=clock)
        add_controllers(harness.manager)
        for add in extra:
            add(harness.manager)
        made = Fleet(plane, client, harness, clock)
        async with harness:
            for text in manifests:
                await made.apply(text)
            await made.settle()
            yield made


@cache
def _definitions() -> list[dict[str, Any]]:
    """Return the definitions, but for the schema of pods, which servers would take a second to compile each time."""
    return open_definitions([*definitions(), *(definition(kind) for kind in (HTTPRoute, GRPCRoute, RegionWeights))])


def open_definitions(made: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Leave the schema of pods out of definitions, which servers would take a second to compile each time."""
    for one in made:
        for version in one["spec"]["versions"]:
            _open_templates(version["schema"]["openAPIV3Schema"])
    return made


def _open_templates(schema: dict[str, Any]) -> None:
    for name, found in schema.get("properties", {}).items():
        if name == "template" and "spec" in found.get("properties", {}):
            found.clear()
            found.update({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
        else:
            _open_templates(found)
            _open_templates(found.get("items", {}))


def add_controllers(manager: Manager) -> None:
    """Add what rollouts need."""
    add_replicasets(manager)
    add_rollouts(manager)
    add_experiments(manager)
