"""What there is to know of the platform in a data directory: its processes from /proc, all else from its API."""

from __future__ import annotations

import contextlib
import os
import time
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from pilothouse.client import Client, ClientError, ConfigError
from pilothouse.foundation.tls import TlsError
from pilothouse.kinds.status import ApiStatus

from .health import NodeList, NodeRow, Pod, PodList, node_problems, node_rows, phases, pod_problems
from .state import PartState, PlatformState, holder, is_process, read_state

__all__ = ["ApiRow", "PartRow", "PlatformRow", "Survey", "survey"]

_SECONDS: Final = 5.0
_PAGE: Final = 2_000
_LOW_DISK: Final = 0.05
_LOW_BYTES: Final = 1 << 30
_RECENT_SECONDS: Final = 600.0


class PlatformRow(msgspec.Struct, frozen=True, kw_only=True):
    """The platform as a whole. state: starting, ready, degraded, stopping, "not running" or "killed".

    dashboard, webhook: their addresses, where they are served.
    """

    state: str
    data_dir: str
    pid: int = 0
    uptime_seconds: float = 0.0
    program: str = ""
    service: str = ""
    kubeconfig: str = ""
    dashboard: str = ""
    webhook: str = ""


class ApiRow(msgspec.Struct, frozen=True, kw_only=True):
    """The API. state: ready, "not ready", "cannot be reached", or empty where this machine does not serve it."""

    url: str = ""
    state: str = ""
    version: str = ""


class PartRow(msgspec.Struct, frozen=True, kw_only=True):
    """A process. memory_bytes: its share of memory (PSS), its helpers' included; None where that is hidden."""

    name: str
    state: str
    restarts: int
    pid: int
    memory_bytes: int | None = None
    uptime_seconds: float = 0.0
    last_code: int | None = None


class Survey(msgspec.Struct, kw_only=True):
    """All of it. Nothing is wrong where `problems` is empty."""

    platform: PlatformRow
    api: ApiRow = ApiRow()
    parts: list[PartRow] = []
    nodes: list[NodeRow] = []
    pods: dict[str, int] = {}
    problems: list[str] = []

    @property
    def is_running(self) -> bool:
        """Whether there is a platform."""
        return self.platform.pid > 0


async def survey(directory: str) -> Survey:
    """Look at the platform of a data directory; what cannot be found out is a problem and no error. Raises OSError."""
    pid, state = holder(directory), read_state(directory)
    if pid is None or state is None or state.pid != pid:
        return _not_running(directory, pid, state)
    now = time.time()
    found = Survey(
        platform=PlatformRow(
            state=state.state,
            data_dir=directory,
            pid=pid,
            uptime_seconds=round(now - state.since, 1),
            program=state.program,
            service=state.service,
            kubeconfig=state.kubeconfig,
            dashboard=_told(state, "dashboard"),
            webhook=_told(state, "webhook"),
        ),
        parts=[_supervisor_row(state, now), *(_part_row(name, part) for name, part in state.parts.items())],
        problems=[*_part_problems(state, now), *_disk_problems(directory)],
    )
    if state.kubeconfig:
        await _ask(state, found)
    return found


def _not_running(directory: str, pid: int | None, state: PlatformState | None) -> Survey:
    if pid is not None:
        row = PlatformRow(state="starting", data_dir=directory, pid=pid)
        return Survey(platform=row, problems=["the platform begins to start, or is about to end"])
    row = PlatformRow(state="not running" if state is None else "killed", data_dir=directory)
    left = [name for name, part in state.parts.items() if is_process(part.pid, part.started)] if state else []
    problems = ["no platform runs here" if state is None else "the platform was killed, and nobody started it again"]
    problems += [f"{name} of it has not ended yet" for name in left]
    return Survey(platform=row, problems=problems)


def _told(state: PlatformState, name: str) -> str:
    """Return what a part said when it was ready, empty where none did."""
    return next((part.told[name] for part in state.parts.values() if name in part.told), "")


# Processes


def _supervisor_row(state: PlatformState, now: float) -> PartRow:
    uptime = round(now - state.since, 1)
    return PartRow(
        name="supervisor",
        state="ready",
        restarts=0,
        pid=state.pid,
        memory_bytes=_memory(state.pid),
        uptime_seconds=uptime,
    )


def _part_row(name: str, part: PartState) -> PartRow:
    memory = _memory(part.pid, *_children(part.pid)) if part.pid else None
    return PartRow(
        name=name,
        state=part.state,
        restarts=part.restarts,
        pid=part.pid,
        memory_bytes=memory,
        uptime_seconds=_uptime(part.started) if part.pid else 0.0,
        last_code=part.code,
    )


def _part_problems(state: PlatformState, now: float) -> list[str]:
    found = []
    for name, part in state.parts.items():
        how = f", it ended with {part.code} last" if part.code is not None else ""
        if part.state == "idle":
            continue  # nobody wants it
        if part.state != "ready":
            found.append(f"{name} is {part.state}{how}")
        elif part.restarts and now - part.since < _RECENT_SECONDS:
            found.append(f"{name} was started again {now - part.since:.0f} s ago{how}")
    return found


def _uptime(started: int) -> float:
    """Return the seconds since a process began, from clock ticks since boot."""
    try:
        with open("/proc/uptime", encoding="ascii") as file:
            return round(max(0.0, float(file.read().split()[0]) - started / os.sysconf("SC_CLK_TCK")), 1)
    except (OSError, ValueError):
        return 0.0


def _children(pid: int) -> list[int]:
    """Return the helpers of a process: its children. Pods are none, they are of the helpers."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _memory(*pids: int) -> int | None:
    total = None
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
            pss = next((line for line in file if line.startswith("Pss:")), "Pss: 0 kB")
            total = (total or 0) + int(pss.split()[1]) * 1024
    return total


def _disk_problems(directory: str) -> list[str]:
    try:
        found = os.statvfs(directory)
    except OSError:
        return []
    free = found.f_bavail * found.f_frsize
    if free > _LOW_BYTES or free > _LOW_DISK * found.f_blocks * found.f_frsize:
        return []
    return [f"only {free >> 20} MiB are free where {directory} is; without room nothing can be written"]


# The API


async def _ask(state: PlatformState, found: Survey) -> None:
    try:
        async with Client.from_kubeconfig(state.kubeconfig, seconds=_SECONDS, backoff=None) as client:
            version = (await client.version()).get("gitVersion", "")
            failing = await _failing(client)
            found.api = ApiRow(url=state.url, state="not ready" if failing else "ready", version=version)
            found.problems += [f"the API's check {name} fails" for name in failing]
            await _ask_objects(client, found)
    except (ClientError, ConfigError, TlsError, ApiStatus, OSError) as error:
        if not found.api.state:
            found.api = ApiRow(url=state.url, state="cannot be reached")
        found.problems.append(f"the API cannot be asked: {error}")


async def _failing(client: Client) -> list[str]:
    try:
        await client.request("GET", "/readyz")
    except ApiStatus as error:
        lines = str(error).splitlines()
        return [line[3:].split(" ")[0] for line in lines if line.startswith("[-]")] or ["readyz"]
    return []


async def _ask_objects(client: Client, found: Survey) -> None:
    nodes = msgspec.json.decode(await client.request("GET", "/api/v1/nodes"), type=NodeList).items
    pods = await _all_pods(client)
    found.nodes, found.pods = node_rows(nodes, pods), phases(pods)
    found.problems += [*node_problems(nodes), *pod_problems(pods, datetime.now(UTC))]


async def _all_pods(client: Client) -> list[Pod]:
    pods: list[Pod] = []
    token = ""
    while True:
        more: Any = f"&continue={token}" if token else ""
        page = msgspec.json.decode(await client.request("GET", f"/api/v1/pods?limit={_PAGE}{more}"), type=PodList)
        pods += page.items
        token = page.metadata.continue_
        if not token:
            return pods
