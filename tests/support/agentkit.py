"""Node agents for tests: a control plane, a runtime and an agent on it, and pods in short."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from pilothouse.client import Client
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.status import NotFound
from pilothouse.node.agent import Agent, AgentOptions, Ports
from pilothouse.node.agent.pullsecrets import PullSecrets
from pilothouse.node.runtime import Runtime
from pilothouse.testing import ControlPlane

from .nodekit import Place

__all__ = ["Cluster", "cluster", "container", "pod"]

_PATIENCE = float(os.environ.get("NODE_TEST_PATIENCE", "30"))
PODS = "/api/v1/namespaces/default/pods"
NODE = "one"


class Cluster:
    """A plane with one node, whose agent may end and come back."""

    def __init__(self, plane: ControlPlane, client: Client, place: Place) -> None:
        self.plane = plane
        self.client = client
        self.place = place
        self.runtime: Runtime | None = None
        self.agent: Agent | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self, **changes: Any) -> Agent:
        """Start an agent on a new runtime."""
        runtime = await self.place.runtime()
        self.runtime = runtime
        given: dict[str, Any] = {"name": NODE, "root": f"{self.place.directory}/agent", "addresses": ("127.0.0.1",)}
        options = AgentOptions(**(given | changes))
        ports = Ports(options.root, credentials=PullSecrets(self.client))
        self.agent = Agent(self.client, runtime, options, ports=ports, metrics=Metrics())
        self._running = asyncio.create_task(self.agent.run())
        started = asyncio.create_task(self.agent.wait_started())
        await asyncio.wait([self._running, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._running.done():
            await self._running
        return self.agent

    async def stop(self) -> None:
        """End the agent and close its runtime; pods run on."""
        if self._running is not None and self.agent is not None:
            self.agent.stop()
            await self._running
            self._running = None
        if self.runtime is not None:
            await self.runtime.close()

    async def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a pod."""
        made: dict[str, Any] = await self.plane.call("POST", PODS, dict(body))
        return made

    async def get(self, name: str) -> dict[str, Any] | None:
        """Return a pod, None for none."""
        try:
            found: dict[str, Any] = await self.plane.call("GET", f"{PODS}/{name}")
        except NotFound:
            return None
        return found

    async def until(self, name: str, true: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        """Wait until something is so of a pod that is there."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = await self.get(name)
            if found is not None and true(found):
                return found
            assert time.monotonic() < deadline, f"{name}: {found and found['status']}; {await self.events(name)}"
            await asyncio.sleep(0.02)

    async def until_gone(self, name: str) -> None:
        """Wait until a pod is not there any more."""
        deadline = time.monotonic() + _PATIENCE
        while (found := await self.get(name)) is not None:
            assert time.monotonic() < deadline, f"{name}: {found['status']}; {await self.events(name)}"
            await asyncio.sleep(0.02)

    async def events(self, name: str) -> list[tuple[str, str, str]]:
        """Return type, reason and message of the events about a pod, as they came."""
        found = await self.plane.call("GET", "/api/v1/namespaces/default/events")
        return [
            (each["type"], each["reason"], each["message"])
            for each in found["items"]
            if each["involvedObject"]["name"] == name
        ]

    async def eventually(self, true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + _PATIENCE
        while not true():
            assert time.monotonic() < deadline, "it does not come"
            await asyncio.sleep(0.02)

    async def until_event(self, name: str, reason: str, text: str = "") -> tuple[str, str, str]:
        """Wait for an event about a pod."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            found = await self.events(name)
            for each in found:
                if each[1] == reason and text in each[2]:
                    return each
            assert time.monotonic() < deadline, f"{name}: no event {reason}: {found}"
            await asyncio.sleep(0.02)


@asynccontextmanager
async def cluster(place: Place, **changes: Any) -> AsyncIterator[Cluster]:
    """Give a plane with a node whose agent runs; both end, and pods with the place."""
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        made = Cluster(plane, client, place)
        try:
            await made.start(**changes)
            yield made
        finally:
            await made.stop()


def pod(name: str, *containers: Mapping[str, Any] | str, **spec: Any) -> dict[str, Any]:
    """Return a pod of this node; a text is the shell line of a container `main`, which takes part of the image host."""
    listed = [container(each) if isinstance(each, str) else dict(each) for each in containers]
    return {
        "metadata": {"name": name},
        "spec": {
            "nodeName": NODE,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "containers": listed,
            **spec,
        },
    }


def container(script: str, name: str = "main", **fields: Any) -> dict[str, Any]:
    """Return a container that runs a shell line."""
    return {"name": name, "image": "host", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", script], **fields}
