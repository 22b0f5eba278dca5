"""Watch fan-out: 1,000 watchers of one prefix, events a second delivered, and what they cost the writers.

In this process: puts a second with no watcher, with 1,000 watchers of the prefix written to, and with 1,000 of another
one. Through the gRPC service: 1,000 watchers on 8 connections beside real etcd, with the same client program.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import _client
from _kit import Spread, arguments, note, report, run, scratch, value_of
from _peers import servers
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.model import PutRequest, WatchRequest, prefix_end

WATCHERS = 1000
WRITERS = 16
WRITTEN = b"/bench/watched/"
ELSEWHERE = b"/bench/elsewhere/"


class Delivery(NamedTuple):
    """One run: puts a second, and events a second that all watchers got together."""

    puts: float
    events: float


class Counter:
    """Counts what watchers receive and knows when it is all there."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.seen = 0
        self.all_there = asyncio.Event()

    async def receive(self, store: EmbeddedStore, prefix: bytes) -> None:
        """Watch a prefix and count events for ever."""
        async with store.watch(WatchRequest(prefix, prefix_end(prefix))) as watch:
            async for response in watch:
                if response.canceled:
                    raise RuntimeError(f"a watch was cancelled: {response.cancel_reason}")
                self.seen += len(response.events)
                if self.seen >= self.expected:
                    self.all_there.set()


async def write(store: EmbeddedStore, puts: int) -> None:
    """Put new keys under the prefix, `WRITERS` at a time."""
    numbers = iter(range(puts))
    value = value_of(1)

    async def work() -> None:
        for number in numbers:
            await store.put(PutRequest(b"%b%08d" % (WRITTEN, number), value))

    await asyncio.gather(*(work() for _ in range(WRITERS)))


async def deliver(directory: Path, watchers: int, prefix: bytes, puts: int) -> Delivery:
    """Write with watchers there; wait until each has got what it is due."""
    async with await EmbeddedStore.open(StoreOptions(data_dir=str(directory))) as store:
        await store.put(PutRequest(b"/first"))
        counter = Counter(watchers * puts if prefix == WRITTEN else 0)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(counter.receive(store, prefix)) for _ in range(watchers)]
            await asyncio.sleep(0)
            begun = time.perf_counter()
            await write(store, puts)
            written = time.perf_counter() - begun
            if counter.expected:
                await counter.all_there.wait()
            took = time.perf_counter() - begun
            for task in tasks:
                task.cancel()
        return Delivery(puts / written, counter.seen / took)


def in_process(rounds: int, seconds: float) -> None:
    """Report the figures of the hub alone."""
    cases = {
        "none": (0, WRITTEN, int(20_000 * seconds)),
        "elsewhere": (WATCHERS, ELSEWHERE, int(20_000 * seconds)),
        "same": (WATCHERS, WRITTEN, int(1000 * seconds)),
    }
    found: dict[str, list[Delivery]] = defaultdict(list)
    for number in range(rounds):
        with scratch() as directory:
            for case, (watchers, prefix, puts) in cases.items():
                found[case].append(run(deliver(directory / f"{case}-{number}", watchers, prefix, puts)))
    writing = {case: Spread.of([one.puts for one in runs]) for case, runs in found.items()}
    events = Spread.of([one.events for one in found["same"]])
    report("store_watch_1000_in_process", events, "events/s", digits=0, watchers=WATCHERS, writers=WRITERS)
    for case, text in (("elsewhere", "1,000 watchers of another prefix"), ("same", "1,000 watchers of the prefix")):
        report(
            f"store_watch_cost_{case}",
            writing[case],
            "puts/s",
            peer="the same without watchers",
            peer_spread=writing["none"],
            digits=0,
            watched_by=text,
            writers=WRITERS,
        )


def through_grpc(rounds: int, puts: int) -> None:
    """Report the figures of the service beside etcd's."""
    found: dict[str, list[_client.WatchRate]] = defaultdict(list)
    candidates = servers()
    for _ in range(rounds):
        for candidate in candidates:
            note(f"{candidate.name} {candidate.version}")
            with scratch() as directory, candidate.start(directory / "server") as server:
                result = _client.watch(server, watchers=WATCHERS, puts=puts, in_flight=WRITERS, connections=8)
                found[candidate.name].append(result)
    ours, *peers = candidates
    events = Spread.of([one.events for one in found[ours.name]])
    for peer in peers:
        report(
            "store_grpc_watch_1000",
            events,
            "events/s",
            peer=peer.name,
            peer_spread=Spread.of([one.events for one in found[peer.name]]),
            digits=0,
            peer_version=peer.version,
            load_client="our asyncio client, one stream on each of 8 connections, 16 puts at a time",
            puts_s=Spread.of([one.puts for one in found[ours.name]]).median,
            peer_puts_s=Spread.of([one.puts for one in found[peer.name]]).median,
        )


def main() -> None:
    """Measure the hub, then the servers."""
    quick = arguments(__doc__).quick
    in_process(1 if quick else 3, 0.5 if quick else 2.0)
    through_grpc(1 if quick else 3, 200 if quick else 1000)


if __name__ == "__main__":
    main()
