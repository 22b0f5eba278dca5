"""The process runtime: how long a pod takes to run, what a pod costs in memory, how many a second.

A pod is a sandbox and one container of the machine's own files (`image: host`), which sleeps. As root it has a network
of its own, limits and a filter of system calls. `start` is one pod after the other, from the request to Running; `many`
as many at once as a kubelet starts; `pss` the memory that a pod's keeper does not share. No peer: containerd and runc
are measured with the CRI runtime.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from _kit import Spread, arguments, fraction, note, report, run, scratch
from pilothouse.node.config import ContainerConfig, ContainerMetadata, Resources, SandboxConfig, SandboxMetadata
from pilothouse.node.process.machine import capabilities_of_this_machine
from pilothouse.node.process.options import Options
from pilothouse.node.process.runtime import ProcessRuntime

_AT_ONCE = 8


async def pod(runtime: ProcessRuntime, logs: Path, number: int) -> tuple[str, float, float]:
    """Start one pod; return its sandbox, the seconds until that was there, and until it ran."""
    begun = time.perf_counter()
    name = f"p{number}"
    sandbox = await runtime.run_sandbox(
        SandboxConfig(
            metadata=SandboxMetadata(name=name, uid=name),
            hostname=name,
            log_directory=str(logs),
            cgroup_parent=f"/kubepods/pod{name}" if os.geteuid() == 0 else "",
        )
    )
    there = time.perf_counter()
    container = await runtime.create_container(
        sandbox,
        ContainerConfig(
            metadata=ContainerMetadata(name="main"),
            image="host",
            command=("/bin/sleep", "100000"),
            log_path=f"{name}.log",
            resources=Resources(memory_limit=64 << 20, cpu_shares=102),
        ),
    )
    await runtime.start_container(container)
    return sandbox, there - begun, time.perf_counter() - begun


async def measure(root: Path, count: int) -> None:
    """Start pods one by one and at once, look at their memory, and remove them."""
    options = Options(
        root=str(root / "node"), bridge=f"phb{os.getpid()}", masquerade=False, cgroup_prefix=f"phb{os.getpid()}"
    )
    logs = root / "logs"
    logs.mkdir()
    runtime = ProcessRuntime(options)
    begun = time.perf_counter()
    await runtime.start()
    report("node.runtime_ready_ms", (time.perf_counter() - begun) * 1e3, "ms", mode=runtime.machine.mode)
    try:
        one_by_one = [await pod(runtime, logs, number) for number in range(count)]
        whole = sorted(took for _, _, took in one_by_one)
        sandboxes = [there * 1e3 for _, there, _ in one_by_one]
        report(
            "node.pod_start_ms",
            Spread.of([took * 1e3 for took in whole]),
            "ms",
            p50=fraction(whole, 0.5) * 1e3,
            p99=fraction(whole, 0.99) * 1e3,
            sandbox_p50=Spread.of(sandboxes).median,
            mode=runtime.machine.mode,
        )
        begun = time.perf_counter()
        limit = asyncio.Semaphore(_AT_ONCE)

        async def limited(number: int) -> None:
            async with limit:
                await pod(runtime, logs, count + number)

        await asyncio.gather(*(limited(number) for number in range(count)))
        report("node.pods_per_second", count / (time.perf_counter() - begun), "pods/s", at_once=_AT_ONCE)
        keepers = [found.pid for found in await runtime.list_sandboxes()]
        pss = [memory(pid)["Pss"] / 1024 for pid in keepers]
        private = [memory(pid)["Private_Dirty"] / 1024 for pid in keepers]
        report("node.keeper_pss_kib", Spread.of(pss), "KiB", private_kib=Spread.of(private).median, pods=len(keepers))
        begun = time.perf_counter()
    finally:
        await runtime.dismantle()
    report("node.pod_remove_ms", (time.perf_counter() - begun) * 1e3 / (2 * count), "ms")


def memory(pid: int) -> dict[str, int]:
    """Return what the kernel says of a process's memory, in bytes by name."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    return {row.split(":")[0]: int(row.split()[1]) * 1024 for row in rows}


def main() -> None:
    """Measure all of it."""
    quick = arguments(__doc__).quick
    machine = capabilities_of_this_machine()
    if machine.mode != "root":
        note(f"not root: pods are isolated by {machine.mode}, without a network of their own")
    with scratch() as root:
        root.chmod(0o755)
        run(measure(root, 5 if quick else 100))


if __name__ == "__main__":
    main()
