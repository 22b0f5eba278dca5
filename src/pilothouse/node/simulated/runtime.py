"""A runtime without processes: containers start, end and are stopped by rules, in the time of its clock."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Sequence

import msgspec

from pilothouse import __version__
from pilothouse.foundation.clock import Clock, SystemClock, Timer
from pilothouse.node.config import ContainerConfig, RegistryAuth, SandboxConfig
from pilothouse.node.errors import ExecError, ImagePullError, NotFound, StartError
from pilothouse.node.runtime import (
    ContainerStats,
    ContainerStatus,
    Event,
    ExecResult,
    FilesystemUsage,
    ImageService,
    ImageStatus,
    PodConnection,
    Runtime,
    RuntimeStatus,
    SandboxStatus,
    Session,
)

from .rules import Rules, rules_of

__all__ = ["SimulatedRuntime"]

_NS = 1_000_000_000
_KILLED, _STOPPED = 137, 143
_MAX_EVENTS = 10_000
_NO_PROCESS = "a simulated container has no process"


class _Images(ImageService):
    def __init__(self, rules: Rules, source: random.Random) -> None:
        self._rules = rules
        self._source = source
        self._found: dict[str, ImageStatus] = {}

    async def status(self, image: str) -> ImageStatus | None:
        return self._found.get(image)

    async def pull(self, image: str, auth: RegistryAuth | None = None) -> str:
        del auth
        if self._source.random() < self._rules.pull_error_rate:
            raise ImagePullError(f'failed to pull image "{image}": simulated')
        self._found[image] = ImageStatus(id=f"sha256:{image}", tags=(image,), size=1 << 20, user="1000")
        return f"sha256:{image}"

    async def list(self) -> Sequence[ImageStatus]:
        return list(self._found.values())

    async def remove(self, image: str) -> None:
        self._found = {name: found for name, found in self._found.items() if image not in {name, found.id}}

    async def filesystem(self) -> FilesystemUsage:
        return FilesystemUsage(path="", used_bytes=len(self._found) << 20)


class _Container:
    def __init__(self, status: ContainerStatus, rules: Rules, source: random.Random) -> None:
        self.status = status
        self.rules = rules
        self.source = source
        self.timer: Timer | None = None
        self.exited = asyncio.Event()


class SimulatedRuntime(Runtime):
    """Sandboxes and containers that are only remembered. An agent on it writes statuses as on any other runtime.

    A pod's annotations `simulated.pilothouse.dev/…` change its rules. Nothing survives the process.
    """

    def __init__(self, rules: Rules | None = None, *, clock: Clock | None = None, seed: int = 0) -> None:
        self._rules = rules or Rules()
        self._clock = clock or SystemClock()
        self._source = random.Random(seed)  # noqa: S311  a simulation
        self.images = _Images(self._rules, self._source)
        self._numbers = itertools.count(1)
        self._sandboxes: dict[str, tuple[SandboxStatus, Rules]] = {}
        self._containers: dict[str, _Container] = {}
        self._listeners: list[asyncio.Queue[Event]] = []

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        for container in self._containers.values():
            if container.timer is not None:
                container.timer.cancel()

    async def status(self) -> RuntimeStatus:
        return RuntimeStatus(name="pilothouse-simulated", version=__version__, runtime_ready=True, network_ready=True)

    async def run_sandbox(self, config: SandboxConfig) -> str:
        number = next(self._numbers)
        rules = rules_of(config.annotations, self._rules)
        await self._clock.sleep(rules.lasting(rules.start_seconds, self._source))
        host = config.security.namespaces.network == "Node"
        made = SandboxStatus(
            id=f"sim-{number}",
            metadata=config.metadata,
            state="Ready",
            created_at=self._now(),
            ip="" if host else f"100.{64 + (number >> 16) % 64}.{number >> 8 & 255}.{number & 255}",
            labels=config.labels,
            annotations=config.annotations,
        )
        self._sandboxes[made.id] = (made, rules)
        return made.id

    async def stop_sandbox(self, sandbox_id: str) -> None:
        found = self._sandboxes.get(sandbox_id)
        if found is None or found[0].state == "NotReady":
            return
        for container in self._of(sandbox_id):
            self._end(container, _KILLED)
        self._sandboxes[sandbox_id] = (msgspec.structs.replace(found[0], state="NotReady"), found[1])
        self._tell(Event(type="SandboxStopped", sandbox_id=sandbox_id, timestamp=self._now()))

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        for container in self._of(sandbox_id):
            self._containers.pop(container.status.id, None)
        self._sandboxes.pop(sandbox_id, None)

    async def sandbox_status(self, sandbox_id: str) -> SandboxStatus:
        if sandbox_id not in self._sandboxes:
            raise NotFound(f'there is no sandbox "{sandbox_id}"')
        return self._sandboxes[sandbox_id][0]

    async def list_sandboxes(self) -> Sequence[SandboxStatus]:
        return [status for status, _ in self._sandboxes.values()]

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        await self.sandbox_status(sandbox_id)
        container_id = f"simc-{next(self._numbers)}"
        status = ContainerStatus(
            id=container_id,
            metadata=config.metadata,
            sandbox_id=sandbox_id,
            state="Created",
            created_at=self._now(),
            image=config.image,
            image_id=f"sha256:{config.image}",
            labels=config.labels,
            annotations=config.annotations,
        )
        self._containers[container_id] = _Container(status, self._sandboxes[sandbox_id][1], self._source)
        return container_id

    async def start_container(self, container_id: str) -> None:
        container = self._container(container_id)
        if self._sandboxes[container.status.sandbox_id][0].state != "Ready" or container.status.state != "Created":
            raise StartError(f'failed to start container "{container.status.metadata.name}": its sandbox is gone')
        container.status = msgspec.structs.replace(container.status, state="Running", started_at=self._now())
        run = container.rules.run(container.source)
        if run.seconds is not None:
            container.timer = self._clock.call_later(run.seconds, lambda: self._end(container, run.exit_code))
        self._tell(self._event("Started", container))

    async def stop_container(self, container_id: str, grace: float) -> None:
        container = self._containers.get(container_id)
        if container is None or container.status.state != "Running":
            return
        takes = container.rules.stop_seconds
        await self._clock.sleep(min(takes, grace))
        self._end(container, _STOPPED if takes <= grace else _KILLED)

    async def remove_container(self, container_id: str) -> None:
        container = self._containers.pop(container_id, None)
        if container is not None:
            self._end(container, _KILLED)

    async def container_status(self, container_id: str) -> ContainerStatus:
        return self._container(container_id).status

    async def list_containers(self, sandbox_id: str | None = None) -> Sequence[ContainerStatus]:
        return [each.status for each in self._containers.values() if sandbox_id in {None, each.status.sandbox_id}]

    async def container_stats(self, container_id: str) -> ContainerStats:
        self._container(container_id)
        return ContainerStats(id=container_id, timestamp=self._now(), memory_working_set_bytes=1 << 20)

    async def reopen_log(self, container_id: str) -> None:
        self._container(container_id)

    async def exec_sync(
        self, container_id: str, command: Sequence[str], *, seconds: float = 0, max_output: int = 16 << 20
    ) -> ExecResult:
        del command, seconds, max_output
        if self._container(container_id).status.state != "Running":
            raise ExecError(f'container "{container_id}" is not running')
        return ExecResult(exit_code=0, stdout=b"", stderr=b"")

    async def exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool = False, tty: bool = False
    ) -> Session:
        raise ExecError(_NO_PROCESS)

    async def attach(self, container_id: str, *, stdin: bool = False) -> Session:
        raise ExecError(_NO_PROCESS)

    async def port_forward(self, sandbox_id: str, port: int) -> PodConnection:
        raise ConnectionRefusedError(_NO_PROCESS)

    async def events(self) -> AsyncIterator[Event]:
        queue: asyncio.Queue[Event] = asyncio.Queue(_MAX_EVENTS)
        self._listeners.append(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            self._listeners.remove(queue)

    def _end(self, container: _Container, exit_code: int) -> None:
        if container.timer is not None:
            container.timer.cancel()
        if container.status.state == "Exited":
            return
        container.status = msgspec.structs.replace(
            container.status,
            state="Exited",
            finished_at=self._now(),
            exit_code=exit_code,
            reason="Completed" if exit_code == 0 else "Error",
        )
        self._tell(self._event("Stopped", container))

    def _event(self, kind: str, container: _Container) -> Event:
        status = container.status
        return msgspec.convert(
            {"type": kind, "sandbox_id": status.sandbox_id, "container_id": status.id, "timestamp": self._now()}, Event
        )

    def _tell(self, event: Event) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
                event = Event(type="Overflow")
            queue.put_nowait(event)

    def _of(self, sandbox_id: str) -> list[_Container]:
        return [each for each in self._containers.values() if each.status.sandbox_id == sandbox_id]

    def _container(self, container_id: str) -> _Container:
        if container_id not in self._containers:
            raise NotFound(f'there is no container "{container_id}"')
        return self._containers[container_id]

    def _now(self) -> int:
        return int(self._clock.now().timestamp() * _NS)
