"""Ranges of 10,000 keys and gets a second: in this process, and through the gRPC service beside real etcd.

100,000 keys of 43 bytes with values of 256 bytes; linearizable reads. Clients: our asyncio client for ranges and gets,
and etcd's Go load program for gets.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from pathlib import Path

import _client
from _client import key_of
from _kit import Burst, Spread, arguments, burst, note, report, run, scratch, value_of
from _peers import Server, load_tool, range_load, servers
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.model import PutRequest, RangeRequest

KEYS = 100_000
SPAN = 10_000
UNITS = {"range_10000": "keys/s"}


async def fill(store: EmbeddedStore, count: int) -> None:
    """Write the keys, a thousand at a time."""
    for start in range(0, count, 1000):
        await asyncio.gather(*(store.submit(PutRequest(key_of(n), value_of(n))) for n in range(start, start + 1000)))


async def in_process(directory: Path, rounds: int, seconds: float) -> dict[str, list[Burst]]:
    """Measure ranges and gets without a server in between."""
    chosen = [RangeRequest(key_of(number)) for number in random.Random(1).sample(range(KEYS), 10_000)]
    whole = RangeRequest(key_of(0), key_of(SPAN))
    found: dict[str, list[Burst]] = defaultdict(list)
    async with await EmbeddedStore.open(StoreOptions(data_dir=str(directory))) as store:
        await fill(store, KEYS)
        assert len((await store.range(whole)).kvs) == SPAN
        for _ in range(rounds):
            found["range_10000"].append(await burst(1, seconds, lambda _: store.range(whole)))
            found["get"].append(await burst(1, seconds, lambda number: store.range(chosen[number % 10_000])))
    return found


def through_grpc(server: Server, rounds: int, seconds: float) -> dict[str, list[float]]:
    """Measure one server: keys a second for ranges, gets a second otherwise."""
    _client.load(server, KEYS)
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        spans = _client.span(server, in_flight=2, seconds=seconds, connections=2)
        found["range_10000"].append(spans.rate * SPAN)
        for in_flight in (1, 64):
            gets = _client.get(server, count=KEYS, in_flight=in_flight, seconds=seconds, connections=min(in_flight, 8))
            found[f"get_{in_flight}"].append(gets.rate)
        if load_tool() is not None:
            total = int(10_000 * seconds)
            result = range_load(server, key_of(KEYS // 2).decode(), clients=64, connections=8, total=total)
            found["get_64_go"].append(result.rate)
    return found


def main() -> None:
    """Measure ours in this process, then every server."""
    quick = arguments(__doc__).quick
    rounds, seconds = (1, 0.4) if quick else (3, 1.0)
    with scratch() as directory:
        for name, bursts in run(in_process(directory / "store", rounds, seconds)).items():
            times = SPAN if name == "range_10000" else 1
            rate = Spread.of([one.rate * times for one in bursts])
            p50 = Spread.of([one.micros(0.5) for one in bursts]).median
            report(f"store_{name}_in_process", rate, UNITS.get(name, "gets/s"), digits=0, p50_us=p50)
    found: dict[str, dict[str, list[float]]] = {}
    candidates = servers()
    for candidate in candidates:
        note(f"{candidate.name} {candidate.version}")
        with scratch() as directory, candidate.start(directory / "server") as server:
            found[candidate.name] = through_grpc(server, rounds, seconds)
    ours, *peers = candidates
    clients = {"range_10000": "our asyncio client, 2 calls at a time", "get_64_go": "etcd's benchmark, 64 clients"}
    for name, rates in found[ours.name].items():
        for peer in peers:
            report(
                f"store_grpc_{name}",
                Spread.of(rates),
                UNITS.get(name, "gets/s"),
                peer=peer.name,
                peer_spread=Spread.of(found[peer.name][name]),
                digits=0,
                peer_version=peer.version,
                load_client=clients.get(name, f"our asyncio client, {name[4:]} calls at a time"),
            )


if __name__ == "__main__":
    main()
