"""What pods and their node use, sampled now and then: totals, and how fast they grow."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.node.errors import NodeError
from pilothouse.node.runtime import ContainerStats, ContainerStatus, Runtime, SandboxStatus

__all__ = ["ContainerFigures", "Figures", "NodeFigures", "PodFigures", "Sampler", "read_machine"]

_EVERY_SECONDS: Final = 10.0
_LEAST_SECONDS: Final = 1.0
_SOON_SECONDS: Final = 1.5
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_KIB: Final = 1024


class ContainerFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One running container: `cpu_nanocores` is how much of it was used lately, None before there are two samples."""

    name: str
    id: str
    started_at: int
    stats: ContainerStats
    cpu_nanocores: int | None = None


class PodFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A pod with its running containers. Times are nanoseconds since the epoch."""

    name: str
    namespace: str
    uid: str
    started_at: int
    containers: tuple[ContainerFigures, ...]


class NodeFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The machine: CPU in nanoseconds since its start, memory in bytes."""

    timestamp: int
    started_at: int
    cpu_ns: int
    memory_capacity: int
    memory_available: int
    memory_working_set: int
    memory_rss: int
    page_faults: int = 0
    major_page_faults: int = 0
    cpu_nanocores: int | None = None
    filesystem: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """Capacity, available and used bytes; inodes, free inodes."""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All at one moment."""

    node: NodeFigures
    pods: tuple[PodFigures, ...]


def read_machine(root: str = "/") -> NodeFigures:
    """Read what the whole machine uses."""
    with open("/proc/stat", encoding="ascii") as file:
        stat = {line.split(maxsplit=1)[0]: line.split()[1:] for line in file if line[0] in "cb"}
    with open("/proc/meminfo", encoding="ascii") as file:
        memory = {line.partition(":")[0]: int(line.split()[1]) * _KIB for line in file if line[0] in "MAIC"}
    with open("/proc/vmstat", encoding="ascii") as file:
        faults = {name: int(value) for name, value in (line.split() for line in file) if name.startswith("pg")}
    user, nice, system, _, _, irq, softirq, steal = map(int, stat["cpu"][:8])
    total, available = memory["MemTotal"], memory.get("MemAvailable", 0)
    disk = os.statvfs(root)
    sizes = (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize)
    return NodeFigures(
        timestamp=time.time_ns(),
        started_at=int(stat["btime"][0]) * 1_000_000_000,
        cpu_ns=(user + nice + system + irq + softirq + steal) * 1_000_000_000 // _TICKS,
        memory_capacity=total,
        memory_available=available,
        memory_working_set=total - available,
        memory_rss=memory.get("AnonPages", 0),
        page_faults=faults.get("pgfault", 0),
        major_page_faults=faults.get("pgmajfault", 0),
        filesystem=(*sizes, (disk.f_blocks - disk.f_bfree) * disk.f_frsize, disk.f_files, disk.f_ffree),
    )


class Sampler:
    """Keeps the last figures. `run` samples every ten seconds, `now` when they are older than asked for."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        clock: Clock | None = None,
        machine: Callable[[], NodeFigures] = read_machine,
    ) -> None:
        self._runtime = runtime
        self._clock = clock or SystemClock()
        self._machine = machine
        self._last: Figures | None = None
        self._taken = 0.0
        self._before: dict[str, tuple[int, int]] = {}
        self._lock = asyncio.Lock()

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            wait = _EVERY_SECONDS
            with contextlib.suppress(NodeError, OSError):
                found = await self.now(_LEAST_SECONDS)
                # How fast something uses a processor is known from the second sample on.
                if any(each.cpu_nanocores is None for pod in found.pods for each in pod.containers):
                    wait = _SOON_SECONDS
            await self._clock.sleep(wait)

    async def now(self, at_most: float = _EVERY_SECONDS) -> Figures:
        """Return figures that are no older than so many seconds, a second at least. Raises NodeError, OSError."""
        async with self._lock:
            if self._last is None or self._clock.monotonic() - self._taken >= max(at_most, _LEAST_SECONDS):
                self._last = await self._sample()
                self._taken = self._clock.monotonic()
            return self._last

    async def _sample(self) -> Figures:
        before, self._before = self._before, {}
        node = self._machine()
        rate = self._rate(before, "", node.timestamp, node.cpu_ns)
        sandboxes = [each for each in await self._runtime.list_sandboxes() if each.state == "Ready"]
        pods = tuple([await self._pod(each, before) for each in sandboxes])
        return Figures(node=msgspec.structs.replace(node, cpu_nanocores=rate), pods=pods)

    def _rate(self, before: dict[str, tuple[int, int]], key: str, moment: int, used: int) -> int | None:
        known = before.get(key)
        if known is not None and moment - known[0] < 1_000_000:
            self._before[key] = known
            return None
        self._before[key] = (moment, used)
        if known is None or used < known[1]:
            return None
        return (used - known[1]) * 1_000_000_000 // (moment - known[0])

    async def _pod(self, sandbox: SandboxStatus, before: dict[str, tuple[int, int]]) -> PodFigures:
        containers: Sequence[ContainerStatus] = ()
        with contextlib.suppress(NodeError):
            containers = await self._runtime.list_containers(sandbox.id)
        made = []
        for each in containers:
            if each.state != "Running":
                continue
            with contextlib.suppress(NodeError, OSError):
                stats = await self._runtime.container_stats(each.id)
                rate = self._rate(before, each.id, stats.timestamp, stats.cpu_usage_ns)
                made.append(
                    ContainerFigures(
                        name=each.metadata.name,
                        id=each.id,
                        started_at=each.started_at,
                        stats=stats,
                        cpu_nanocores=rate,
                    )
                )
        meta = sandbox.metadata
        return PodFigures(
            name=meta.name,
            namespace=meta.namespace,
            uid=meta.uid,
            started_at=sandbox.created_at,
            containers=tuple(made),
        )
