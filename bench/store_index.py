"""The ordered index of keys at 1,000,000 keys: the store's (`sortedcontainers`) beside a C B-tree (`BTrees`).

Bulk load of sorted keys, memory a key (keys themselves not counted), insert, rank of a key, and the 1,000 keys from
one on. Each structure has a process of its own. `BTrees` is optional: `pip install BTrees`; it knows no ranks.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import random
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from itertools import islice
from multiprocessing import get_context
from typing import Any, NamedTuple

from _client import key_of
from _kit import Spread, arguments, note, report, resident_bytes
from pilothouse.store.index import KeyIndex

OPERATIONS = 100_000
SLICE = 1000


class Structure(NamedTuple):
    """What is measured of an ordered set of keys."""

    make: Callable[[Iterable[bytes]], Any]
    insert: Callable[[Any, bytes], object]
    rank: Callable[[Any, bytes], int] | None
    slice: Callable[[Any, bytes], list[bytes]]


def ours() -> Structure:
    """Return the store's index."""
    return Structure(
        KeyIndex,
        lambda index, key: index.add(key),
        lambda index, key: int(index.bounds(key, b"\0")[0]),
        lambda index, key: list(index.range(key, b"\0", SLICE)),
    )


def btrees() -> Structure:
    """Return BTrees' set of objects."""
    module = importlib.import_module("BTrees.OOBTree")
    return Structure(
        module.OOTreeSet,
        lambda tree, key: tree.add(key),
        None,
        lambda tree, key: list(islice(tree.keys(key), SLICE)),
    )


def give_back() -> None:
    """Return free memory to the system, so that what is resident is in use; glibc only, elsewhere it is a bit more."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def timed(operation: Callable[[Any, bytes], object], index: Any, keys: list[bytes]) -> float:
    """Return the µs that one operation takes."""
    begun = time.perf_counter()
    for key in keys:
        operation(index, key)
    return (time.perf_counter() - begun) / len(keys) * 1e6


def measure(which: Callable[[], Structure], count: int) -> dict[str, float]:
    """Measure one structure with `count` keys, every second number of a dense range."""
    structure = which()
    keys = [key_of(2 * number) for number in range(count)]
    give_back()
    before = resident_bytes()
    begun = time.perf_counter()
    index = structure.make(keys)
    found = {"bulk_load": time.perf_counter() - begun}
    give_back()
    found["bytes_per_key"] = (resident_bytes() - before) / count
    chosen = random.Random(1).sample(range(count), min(OPERATIONS, count // 2))
    found["slice_1000"] = timed(structure.slice, index, [keys[number] for number in chosen[:2000]])
    if structure.rank is not None:
        found["rank"] = timed(structure.rank, index, [keys[number] for number in chosen])
    found["insert"] = timed(structure.insert, index, [key_of(2 * number + 1) for number in chosen])
    return found


def alone(which: Callable[[], Structure], count: int) -> dict[str, float]:
    """Measure in a new process, so that its memory is the structure's."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, which, count).result()


def main() -> None:
    """Measure both in turns."""
    quick = arguments(__doc__).quick
    count, rounds = (100_000, 1) if quick else (1_000_000, 3)
    structures = [ours]
    if importlib.util.find_spec("BTrees") is None:
        note("left out: BTrees is not installed (pip install BTrees)")
    else:
        structures.append(btrees)
    runs = [[alone(which, count) for which in structures] for _ in range(rounds)]
    units = {"bulk_load": "s", "bytes_per_key": "bytes", "insert": "µs", "rank": "µs", "slice_1000": "µs"}
    for name, unit in units.items():
        peer: dict[str, Any] = {}
        if len(structures) > 1:
            peer = {"peer": "BTrees.OOTreeSet", "peer_version": version("BTrees")}
            if name in runs[0][1]:
                peer["peer_spread"] = Spread.of([one[1][name] for one in runs])
        mine = Spread.of([one[0][name] for one in runs])
        own = version("sortedcontainers")
        report(f"store_index_{name}", mine, unit, digits=3, keys=count, sortedcontainers=own, **peer)


if __name__ == "__main__":
    main()
