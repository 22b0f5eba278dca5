"""Durable puts a second in this process, by 1, 64 and 1,000 concurrent writers of 256-byte values.

Beside it, in turns on the same disk: the raw append + fdatasync of the same framed bytes, and the puts a second of
real etcd under etcd's own load program with as many clients. Goals: one writer within 150 µs of the raw latency,
1,000 writers at least twice etcd.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from _kit import Burst, Spread, arguments, burst, note, report, run, scratch, value_of
from _peers import Etcd, etcds, load_tool, put_load
from pilothouse.store import commands
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.model import PutRequest
from pilothouse.store.wal_format import frame

WRITERS = (1, 64, 1000)
CONNECTIONS = {1: 1, 64: 8, 1000: 100}
PER_SECOND = {1: 700, 64: 10_000, 1000: 15_000}  # about what etcd does, to size its runs
SEGMENT_BYTES = 64 * 1024 * 1024
VALUES = [value_of(number) for number in range(1000)]


def put_of(number: int) -> PutRequest:
    """Return the put of a new key."""
    return PutRequest(b"/bench/put/%020d" % number, VALUES[number % 1000])


def raw(path: Path, group: int, seconds: float) -> Burst:
    """Append and sync the bytes that the log would write for `group` writers, one sync for each group."""
    frames, chain = [], 0
    for number in range(1, group * 64 + 1):
        framed, chain = frame(commands.encode(put_of(number)), number, chain, number - 1, 12345)
        frames.append(framed)
    groups = [b"".join(frames[start : start + group]) for start in range(0, len(frames), group)]
    latencies: list[float] = []
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.posix_fallocate(fd, 0, SEGMENT_BYTES)
        os.fsync(fd)
        offset = turn = 0
        begun = time.perf_counter()
        while time.perf_counter() - begun < seconds:
            data = groups[turn % len(groups)]
            if offset + len(data) > SEGMENT_BYTES:
                offset = 0
            started = time.perf_counter()
            os.pwrite(fd, data, offset)
            os.fdatasync(fd)
            latencies.append(time.perf_counter() - started)
            offset += len(data)
            turn += 1
    finally:
        os.close(fd)
    return Burst(len(latencies) * group, sum(latencies), sorted(latencies))


async def ours(directory: Path, writers: int, seconds: float) -> Burst:
    """Put new keys into a new store."""
    async with await EmbeddedStore.open(StoreOptions(data_dir=str(directory))) as store:
        # Until the scheduler has settled where the loop and the log's thread run.
        await burst(writers, 0.5, lambda number: store.put(put_of(number)))
        return await burst(writers, seconds, lambda number: store.put(put_of(10_000_000 + number)))


def measure_ours(directory: Path, seconds: float, found: dict[str, dict[int, list[Burst]]]) -> None:
    """Take one round of ours and raw, in short turns, since the disk's speed changes by the second."""
    for writers in WRITERS:
        turns = 2 if writers == 1 else 1
        for turn in range(turns):
            found["raw"][writers].append(raw(directory / "raw", writers, seconds / turns / 2))
            store = directory / f"ours-{writers}-{turn}"
            found["ours"][writers].append(run(ours(store, writers, seconds / turns)))


def measure_etcd(etcd: Etcd, directory: Path, seconds: float) -> dict[int, float]:
    """Take one round of an etcd on a new directory; puts a second by number of clients."""
    rates = {}
    with etcd.start(directory) as server:
        put_load(server, clients=8, connections=8, total=500)
        for writers in WRITERS:
            total = max(200, int(PER_SECOND[writers] * seconds))
            rates[writers] = put_load(server, clients=writers, connections=CONNECTIONS[writers], total=total).rate
    return rates


def report_all(found: dict[str, dict[int, list[Burst]]], peers: dict[Etcd, dict[int, list[float]]]) -> None:
    """Print the figures."""
    ours_one, raw_one = found["ours"][1], found["raw"][1]
    over = [mine.micros(0.5) - bare.micros(0.5) for mine, bare in zip(ours_one, raw_one, strict=True)]
    report(
        "store_put_1_latency_p50",
        Spread.of([one.micros(0.5) for one in ours_one]),
        "µs",
        peer="append + fdatasync of the same bytes",
        peer_spread=Spread.of([one.micros(0.5) for one in raw_one]),
        over_raw_us=Spread.of(over).median,
        goal="at most 150 µs over raw",
    )
    for writers in WRITERS:
        mine = found["ours"][writers]
        context: dict[str, Any] = {
            "p50_us": Spread.of([one.micros(0.5) for one in mine]).median,
            "p99_us": Spread.of([one.micros(0.99) for one in mine]).median,
            "raw_puts_s": Spread.of([one.rate for one in found["raw"][writers]]).median,
            "load": f"{writers} asyncio tasks in the store's process, 256-byte values, new keys",
        }
        name, rate = f"store_put_{writers}_writers", Spread.of([one.rate for one in mine])
        if not peers:
            report(name, rate, "puts/s", digits=0, **context)
        for etcd, rates in peers.items():
            report(
                name,
                rate,
                "puts/s",
                peer=etcd.name,
                peer_spread=Spread.of(rates[writers]),
                digits=0,
                peer_version=etcd.version,
                load_client=f"etcd's benchmark, {writers} clients on {CONNECTIONS[writers]} connections",
                goal="at least 2 times" if writers == 1000 else None,
                **context,
            )


def main() -> None:
    """Measure in rounds: raw, ours, each etcd, each time on new files."""
    quick = arguments(__doc__).quick
    rounds, seconds = (1, 0.5) if quick else (3, 2.0)
    found: dict[str, dict[int, list[Burst]]] = {"ours": defaultdict(list), "raw": defaultdict(list)}
    peers: dict[Etcd, dict[int, list[float]]] = {}
    chosen = etcds() if load_tool() is not None else []
    for number in range(rounds):
        note(f"round {number + 1} of {rounds}")
        with scratch() as directory:
            measure_ours(directory, seconds, found)
            for place, etcd in enumerate(chosen):
                rates = peers.setdefault(etcd, defaultdict(list))
                for writers, rate in measure_etcd(etcd, directory / f"etcd-{place}", seconds).items():
                    rates[writers].append(rate)
    report_all(found, peers)


if __name__ == "__main__":
    main()
