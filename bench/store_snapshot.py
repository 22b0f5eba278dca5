"""What a checkpoint costs those who write: latency of puts by 64 writers with checkpoints every 10,000 entries.

200,000 keys are there and are written over, 256-byte values; the peer is the same store with checkpoints off, in
turns on the same disk.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

from _client import key_of
from _kit import Burst, Spread, arguments, burst, note, report, run, scratch, value_of
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.model import PutRequest

KEYS = 200_000
WRITERS = 64
NEVER = 1 << 60
EVERY = 10_000


async def measure(directory: Path, entries: int, keys: int, seconds: float) -> tuple[Burst, int]:
    """Fill a new store, then write over it; return the load's result and the checkpoints written meanwhile."""
    order = random.Random(1).choices(range(keys), k=100_000)
    values = [value_of(number) for number in range(1000)]
    async with await EmbeddedStore.open(StoreOptions(data_dir=str(directory), snapshot_entries=entries)) as store:
        for start in range(0, keys, 1000):
            await asyncio.gather(*(store.submit(PutRequest(key_of(n), values[0])) for n in range(start, start + 1000)))
        if entries != NEVER:
            await store.checkpointer.write(base=True)
        before = store.checkpointer.written

        async def write(number: int) -> None:
            await store.put(PutRequest(key_of(order[number % len(order)]), values[number % 1000]))

        done = await burst(WRITERS, seconds, write)
        return done, store.checkpointer.written - before


def main() -> None:
    """Measure with and without, in turns."""
    quick = arguments(__doc__).quick
    rounds, seconds, keys = (1, 1.0, 20_000) if quick else (3, 6.0, KEYS)
    found: dict[int, list[Burst]] = {EVERY: [], NEVER: []}
    written = 0
    for number in range(rounds):
        note(f"round {number + 1} of {rounds}")
        # The second of a pair meets a warmer machine, so they take turns at being first.
        for entries in (EVERY, NEVER) if number % 2 else (NEVER, EVERY):
            with scratch() as directory:
                done, checkpoints = run(measure(directory / "store", entries, keys, seconds))
            found[entries].append(done)
            written += checkpoints
    context: dict[str, Any] = {
        "keys": keys,
        "writers": WRITERS,
        "checkpoints": written,
        "entries_between": EVERY,
        "peer": "the same with checkpoints off",
    }
    for part in (0.5, 0.99, 0.999):
        report(
            f"store_snapshot_put_p{part * 100:g}".replace(".", "_"),
            Spread.of([one.micros(part) for one in found[EVERY]]),
            "µs",
            peer_spread=Spread.of([one.micros(part) for one in found[NEVER]]),
            **context,
        )
    report(
        "store_snapshot_put_rate",
        Spread.of([one.rate for one in found[EVERY]]),
        "puts/s",
        peer_spread=Spread.of([one.rate for one in found[NEVER]]),
        digits=0,
        **context,
    )


if __name__ == "__main__":
    main()
