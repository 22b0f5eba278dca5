"""Start from 1,000,000 keys in a new process: seconds to the first answer, and resident memory after it.

Keys of 43 bytes, values of 256, each written by a put of its own. Once from a checkpoint alone, once with a log of
9,999 more puts behind it (one less than would make a checkpoint). The files are in the page cache, as after a crash of
the process. Beside it Debian's etcd (or what can be had) on the same keys. Goals: 5 s, and 1 KB a key beyond key and
value. What is made here is kept in `build/bench-cache`, so the first run takes some minutes.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import _client
from _client import key_of
from _kit import CACHE, ROOT, Spread, arguments, note, report, resident_bytes, run, scratch, value_of
from _peers import Etcd, etcds
from pilothouse.store.datadir import FORMAT_VERSION
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.model import PutRequest

TAIL = 9_999
IN_FLIGHT = 10_000
KEY_AND_VALUE = len(key_of(0)) + len(value_of(0))


async def fill(directory: Path, first: int, count: int, *, checkpoint: bool) -> None:
    """Put keys from number `first` on, and write a checkpoint of all of them or none."""
    async with await EmbeddedStore.open(StoreOptions(data_dir=str(directory))) as store:
        for start in range(first, first + count, IN_FLIGHT):
            stop = min(start + IN_FLIGHT, first + count)
            await asyncio.gather(*(store.submit(PutRequest(key_of(n), value_of(n))) for n in range(start, stop)))
        if checkpoint:
            await store.defragment()


def filled(keys: int) -> Path:
    """Return a data directory with that many keys and a checkpoint of them, made where there is none."""
    directory = CACHE / f"store-{keys}-format-{FORMAT_VERSION}"
    if not directory.exists():
        note(f"writing {keys:,} keys (once)")
        CACHE.mkdir(parents=True, exist_ok=True)
        begun = directory.with_suffix(".part")
        shutil.rmtree(begun, ignore_errors=True)
        run(fill(begun, 0, keys, checkpoint=True))
        begun.rename(directory)
    return directory


def opened(directory: Path) -> dict[str, Any]:
    """Open a data directory in a new process and return what it measured."""
    begun = time.monotonic()
    command = [sys.executable, str(ROOT / "bench" / "_open.py"), str(directory), key_of(0).decode()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise RuntimeError(f"the store in {directory.name} did not open: {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"seconds": found["answered"] - begun}


def etcd_start(etcd: Etcd, keys: int, rounds: int) -> tuple[list[float], int]:
    """Start an etcd on that many keys; seconds to its first linearizable answer and resident bytes."""
    directory = CACHE / f"etcd-{etcd.version}-{keys}"
    if not directory.exists():
        note(f"writing {keys:,} keys to {etcd.name} {etcd.version} (once)")
        begun = directory.with_name(f"{directory.name}.part")
        shutil.rmtree(begun, ignore_errors=True)
        with etcd.start(begun) as server:
            _client.load(server, keys, together=100)
        begun.rename(directory)
    seconds, resident = [], 0
    for _ in range(rounds):
        started = time.monotonic()
        with etcd.start(directory) as server:
            seconds.append(time.monotonic() - started)
            resident = resident_bytes(server.pid)
    return seconds, resident


def report_start(name: str, runs: list[dict[str, Any]], empty: int, peer: dict[str, Any]) -> None:
    """Print how long a start took."""
    report(
        name,
        Spread.of([one["seconds"] for one in runs]),
        "s",
        digits=2,
        keys=runs[0]["keys"],
        open_seconds=Spread.of([one["open_seconds"] for one in runs]).median,
        resident_mb=round(runs[0]["resident"] / 1e6),
        empty_resident_mb=round(empty / 1e6),
        goal="at most 5 s",
        **peer,
    )


def main() -> None:
    """Measure a start from a checkpoint, one with a log behind it, and the peer's."""
    quick = arguments(__doc__).quick
    keys, rounds = (50_000, 1) if quick else (1_000_000, 3)
    source = filled(keys)
    peer: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    for etcd in etcds()[:1]:
        seconds, resident = etcd_start(etcd, keys, rounds)
        peer = {"peer": etcd.name, "peer_version": etcd.version, "peer_spread": Spread.of(seconds)}
        beyond = resident / keys - KEY_AND_VALUE
        memory = {"peer": etcd.name, "peer_version": etcd.version, "peer_spread": beyond}
        memory["peer_resident_mb"] = round(resident / 1e6)
    with scratch() as directory:
        empty = opened(directory / "empty")["resident"]
        base, tail = directory / "base", directory / "tail"
        shutil.copytree(source, base)
        runs = [opened(base) for _ in range(rounds)]
        shutil.copytree(base, tail)
        run(fill(tail, keys, TAIL, checkpoint=False))
        behind = [opened(tail) for _ in range(rounds)]
    for one, expected in ((runs[0], keys), (behind[0], keys + TAIL)):
        if (one["keys"], one["found"]) != (expected, 1):
            raise RuntimeError(f"{one['keys']} keys after the start where {expected} were written")
    report_start("store_start_checkpoint", runs, empty, peer)
    report_start("store_start_checkpoint_and_log", behind, empty, peer)
    report(
        "store_start_bytes_per_key",
        Spread.of([(one["resident"] - empty) / keys - KEY_AND_VALUE for one in runs]),
        "bytes a key beyond key and value",
        keys=keys,
        resident_mb=round(runs[0]["resident"] / 1e6),
        goal="at most 1,000 bytes",
        **memory,
    )


if __name__ == "__main__":
    main()
