"""A control plane for tests: how long until the block begins, and how many objects a second it takes.

The first plane of a process, with and without importing the server, in a process of its own each time; later ones in
one process; objects created one after the other in memory and on disk. No peer starts within a test's process:
kube-apiserver and etcd as envtest runs them take about three seconds (`apiserver_start`).
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

from _kit import Spread, arguments, report, run, scratch
from pilothouse.testing import ControlPlane

_FIRST = """
import time
begun = time.perf_counter()
import asyncio, json
from pilothouse.testing import ControlPlane
ControlPlane
imported = time.perf_counter()
async def main():
    async with ControlPlane():
        print(json.dumps([time.perf_counter() - begun, time.perf_counter() - imported]))
asyncio.run(main())
"""
_MAPS = "/api/v1/namespaces/default/configmaps"


def first() -> tuple[float, float]:
    """Return the ms of a process's first plane, with and without its imports."""
    done = subprocess.run([sys.executable, "-c", _FIRST], capture_output=True, text=True, check=True)
    whole, start = json.loads(done.stdout)
    return whole * 1e3, start * 1e3


async def later() -> float:
    """Return the ms until a block begins."""
    begun = time.perf_counter()
    async with ControlPlane():
        return (time.perf_counter() - begun) * 1e3


async def creates(count: int, data_dir: str | None) -> float:
    """Return the config maps created a second, one after the other."""
    async with ControlPlane(data_dir=data_dir) as plane:
        begun = time.perf_counter()
        for number in range(count):
            await plane.call("POST", _MAPS, {"metadata": {"name": f"map-{number}"}})
        return count / (time.perf_counter() - begun)


def main() -> None:
    """Measure all of it."""
    quick = arguments(__doc__).quick
    rounds, count = (1, 50) if quick else (7, 1000)
    firsts = [first() for _ in range(rounds)]
    report("testing_plane_first_with_imports", Spread.of([whole for whole, _ in firsts]), "ms", digits=0)
    report("testing_plane_first", Spread.of([start for _, start in firsts]), "ms", digits=0)

    async def in_one_process() -> None:
        await later()
        report("testing_plane_later", Spread.of([await later() for _ in range(3 * rounds)]), "ms", digits=0, goal=150)
        memory, disk = [], []
        for number in range(rounds):
            memory.append(await creates(count, None))
            with scratch() as directory:
                disk.append(await creates(count, str(directory / str(number))))
        report("testing_plane_creates_in_memory", Spread.of(memory), "creates/s", digits=0)
        report("testing_plane_creates_on_disk", Spread.of(disk), "creates/s", digits=0)

    run(in_one_process())


if __name__ == "__main__":
    main()
