"""The whole platform for benchmarks: `pilothouse up` on free ports, in a directory of its own, cleared at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from _peers import free_port
from pilothouse.client import Client, ClientError
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import Pod, from_dict
from pilothouse.node.clearing import clear
from pilothouse.platform.agent import runtime_options
from pilothouse.platform.nodeplan import read_plan

__all__ = ["Platform", "platform", "pod", "running", "until_running"]

_PSS = re.compile(r"^Pss:\s+(\d+)", re.MULTILINE)
_PATIENCE = 60.0


class Platform:
    """A platform that runs. begun: when it was started, on the clock of `time.perf_counter`."""

    def __init__(self, directory: Path, process: subprocess.Popen[bytes], begun: float) -> None:
        self.directory = directory
        self.process = process
        self.begun = begun

    def pids(self) -> list[int]:
        """Return the platform's processes: the one that was started and those below it."""
        parents: dict[int, list[int]] = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):
                parents.setdefault(int(_stat(int(entry))[1]), []).append(int(entry))
        found, rest = [], [self.process.pid]
        while rest:
            found.append(rest.pop())
            rest += parents.get(found[-1], [])
        return found

    def memory_mb(self) -> float:
        """Return the proportional set size of all processes, in MB."""
        total = 0
        for pid in self.pids():
            found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii"))
            total += int(found[1]) if found else 0
        return total * 1024 / 1e6

    def cpu_seconds(self) -> float:
        """Return the seconds of a core that all processes took."""
        ticks = 0
        for pid in self.pids():
            fields = _stat(pid)
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()


@contextlib.asynccontextmanager
async def platform(directory: Path, *options: str) -> AsyncIterator[tuple[Platform, Client]]:
    """Start a platform, yield it with its administrator's client once the server answers, and clear up."""
    suffix = os.getpid() % 10_000
    command = [sys.executable, "-m", "pilothouse", "up", "--data-dir", str(directory), "--log-level", "error"]
    command += ["--listen", f"127.0.0.1:{free_port()}", "--bridge", f"phu{suffix}", "--cluster-cidr", "10.231.0.0/16"]
    if os.geteuid() == 0:
        command += ["--service-cluster-ip-range", "10.232.0.0/16"]
    begun = time.perf_counter()
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)  # noqa: ASYNC220  # it is quick
    try:
        kubeconfig = directory / "admin.kubeconfig"
        while not kubeconfig.exists():
            if process.poll() is not None or time.perf_counter() - begun > _PATIENCE:
                raise RuntimeError("the platform did not start")
            await asyncio.sleep(0.01)
        async with Client.from_kubeconfig(str(kubeconfig), managed_fields=False) as client:
            yield Platform(directory, process, begun), client
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait)
        plan = read_plan(str(directory / "node" / "plan.json"))
        tables = (plan.services_table, plan.policies_table)
        await clear(runtime_options(plan), grace=0.0, tables=tables, addresses=(plan.dns,))


def pod(name: str) -> Pod:
    """Return a pod of one container that sleeps, of the machine's own files."""
    container = {"name": "main", "image": "host", "command": ["/bin/sleep", "100000"]}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 0}
    return from_dict({"metadata": {"name": name, "namespace": "default"}, "spec": spec}, Pod)


async def running(client: Client, name: str) -> None:
    """Make a pod, again while the server does not take it yet, and wait until it runs."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                made = await client.create(pod(name))
                break
            except (ApiStatus, ClientError, OSError):  # the server, or the default service account, is not there yet
                await asyncio.sleep(0.01)
        await until_running(client, name, made.metadata.resource_version or "")


async def until_running(client: Client, name: str, version: str) -> None:
    """Wait until a pod runs, seen by a watch. Raises LookupError for one that is deleted."""
    events = client.watch(Pod, "default", fields=f"metadata.name={name}", since=version)
    async with contextlib.aclosing(events):
        async for event in events:
            if event.type == "DELETED":
                raise LookupError(f"pod {name} was deleted")
            if event.object.status.phase == "Running":
                return
