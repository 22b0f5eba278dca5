"""A cluster of one node for tests: a plane over HTTPS, an agent on the process runtime, and the node's own server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse.apiserver.nodeclient import NodeClient
from pilothouse.client import Client
from pilothouse.foundation import tls
from pilothouse.foundation.metrics import Metrics
from pilothouse.node.agent import Agent, AgentOptions
from pilothouse.node.serving.equipment import Equipment
from pilothouse.testing import ControlPlane
from support.agentkit import NODE, Cluster
from support.nodekit import Place

__all__ = ["CLIENTS", "Kubectl", "ServedCluster", "kubectl_program", "served_cluster"]

CLIENTS = Path(__file__).parents[2] / ".venv" / "clients"


class ServedCluster(Cluster):
    """A cluster whose node serves its API, with real volumes."""

    def __init__(self, plane: ControlPlane, client: Client, place: Place) -> None:
        super().__init__(plane, client, place)
        self.equipment: Equipment | None = None

    def files(self) -> dict[str, str]:
        """Write the API server's keys for nodes, and return their paths."""
        authority = self.plane.server.pki.authority("ca")
        directory = self.place.directory
        made = {name: f"{directory}/{name}" for name in ("ca.crt", "api.crt", "api.key")}
        Path(made["ca.crt"]).write_bytes(self.plane.ca)
        api = tls.issue(authority, "kube-apiserver-kubelet-client", organizations=["system:masters"], client=True)
        tls.write(api, made["api.crt"], made["api.key"])
        return made

    async def serve(self, **changes: Any) -> None:
        """Start agent and server, and let the plane reach it."""
        files = self.files()
        self.runtime = runtime = await self.place.runtime()
        options = AgentOptions(
            name=NODE, root=f"{self.place.directory}/agent", addresses=("127.0.0.1",), port=0, **changes
        )
        authority = self.plane.server.pki.authority("ca")
        self.equipment = Equipment(
            self.client, runtime, options, ca=self.plane.ca, authority=authority, host="127.0.0.1", metrics=Metrics()
        )
        await self.equipment.start()
        options, ports = self.equipment.options, self.equipment.ports()
        self.agent = Agent(self.client, runtime, options, metrics=Metrics(), ports=ports)
        self._running = asyncio.create_task(self.agent.run())
        await self.agent.wait_started()
        await self.equipment.attach(self.agent)
        self.plane.server.backends.use(NodeClient(files["api.crt"], files["api.key"], files["ca.crt"]))

    async def again(self) -> None:
        """End the agent, its server and its runtime, and start new ones; pods run on."""
        await self.stop()
        await self.serve()

    async def stop(self) -> None:
        if self.equipment is not None:
            await self.equipment.close()
        await super().stop()


@asynccontextmanager
async def served_cluster(place: Place, **changes: Any) -> AsyncIterator[ServedCluster]:
    """Give a cluster whose node serves its API."""
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        made = ServedCluster(plane, client, place)
        try:
            await made.serve(**changes)
            yield made
        finally:
            await made.stop()


def kubectl_program(name: str) -> Path:
    """Return a kubectl that scripts/real-clients put there; skip the test where it is missing."""
    program = CLIENTS / name
    if not program.exists():
        pytest.skip(f"{name} is not in .venv/clients: run scripts/real-clients")
    return program


class Kubectl:
    """A real kubectl against a plane."""

    def __init__(self, program: Path, plane: ControlPlane, home: Path) -> None:
        self.program = program
        self._always = (f"--kubeconfig={plane.kubeconfig}", f"--cache-dir={home}/cache-{program.name}")

    @property
    def old(self) -> bool:
        """Whether it speaks SPDY alone."""
        return self.program.name == "kubectl-1.20"

    def line(self, *arguments: str) -> str:
        """Return a command line for a shell."""
        return " ".join((str(self.program), *self._always, *arguments))

    async def start(self, *arguments: str, stdin: bool = False) -> asyncio.subprocess.Process:
        """Start it; outputs are pipes."""
        return await asyncio.create_subprocess_exec(
            str(self.program),
            *self._always,
            *arguments,
            stdin=asyncio.subprocess.PIPE if stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def whole(self, *arguments: str, data: bytes | None = None) -> tuple[int, str, str]:
        """Run it; return exit code and outputs."""
        process = await self.start(*arguments, stdin=data is not None)
        try:
            out, err = await asyncio.wait_for(process.communicate(data), 60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return process.returncode or 0, out.decode(), err.decode()

    async def __call__(self, *arguments: str, data: bytes | None = None) -> str:
        """Run it, and return the output of what succeeds."""
        code, out, err = await self.whole(*arguments, data=data)
        assert code == 0, (arguments, out, err)
        return out
