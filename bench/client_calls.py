"""Calls a second: GET of one pod as a typed object, by every Python client there is, with 1 and 16 at once.

The server runs in a process of its own on the same two cores.
"""

from __future__ import annotations

import asyncio
import gc
import time

from _apiserver import Server, prepare, serving
from _clients import Job, jobs, write_config
from _kit import Spread, arguments, note, report, run, scratch
from apiserver_pods import fill


async def rate(job: Job, workers: int, seconds: float) -> float:
    """Return calls a second."""
    gc.collect()
    done = 0
    begun = time.perf_counter()
    end = begun + seconds

    async def work() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await job()
            done += 1

    await asyncio.gather(*(work() for _ in range(workers)))
    return done / (time.perf_counter() - begun)


async def measure(server: Server, *, quick: bool) -> None:
    """Call with every client."""
    config = write_config(server)
    seconds, rounds = (0.3, 1) if quick else (3.0, 3)
    for workers in (1, 16):
        ours: Spread | None = None
        for client in await jobs(config):
            await rate(client.get_pod, workers, 0.2)
            found = Spread.of([await rate(client.get_pod, workers, seconds) for _ in range(rounds)])
            note(f"{client.name}: {found.median:,.0f} calls/s with {workers} at once")
            ours = ours or found
            peer = None if found is ours else client.name
            report(f"client.get_pod_{workers}", ours, "1/s", peer=peer, peer_spread=None if peer is None else found)
            await client.close()


def main() -> None:
    """Start a server and call it."""
    quick = arguments(__doc__).quick
    with scratch() as directory, serving(directory) as server:
        prepare(server)
        fill(server, 1)
        run(measure(server, quick=quick))


if __name__ == "__main__":
    main()
