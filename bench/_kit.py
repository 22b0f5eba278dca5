"""What all benchmarks share: arguments, scratch directories on the checkout's disk, spreads, and the report line.

A figure goes to stdout as one JSON line; everything else (progress, what was left out and why) goes to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import json
import os
import platform
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

__all__ = [
    "CACHE",
    "ROOT",
    "Burst",
    "Spread",
    "arguments",
    "burst",
    "fraction",
    "note",
    "report",
    "resident_bytes",
    "run",
    "scratch",
    "value_of",
]

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
CACHE = BUILD / "bench-cache"
"""Built peers and big data directories, kept between runs; `make clean` removes it."""

_T = TypeVar("_T")


class Spread(NamedTuple):
    """Several runs of one measurement."""

    median: float
    low: float
    high: float
    samples: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarize at least one run."""
        return cls(statistics.median(values), min(values), max(values), len(values))


class Burst(NamedTuple):
    """One run of a load: operations done, seconds, and the latency of each in seconds, sorted."""

    operations: int
    seconds: float
    latencies: list[float]

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds

    def micros(self, part: float) -> float:
        """Return the latency that `part` of the operations did not exceed, in µs."""
        return fraction(self.latencies, part) * 1e6


def fraction(ordered: Sequence[float], part: float) -> float:
    """Return the value in an ascending sequence that `part` (0 to 1) of the values do not exceed."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def arguments(description: str | None, **numbers: int) -> argparse.Namespace:
    """Parse the arguments that every benchmark has, and clean up on SIGTERM too.

    numbers: options that only this one has, by name with their defaults.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short run: shows that it works, not a figure")
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"instead of {default}")
    # As after Ctrl-C: servers that were started are ended and directories removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    return parser.parse_args()


def note(text: str) -> None:
    """Tell the person who waits."""
    print(text, file=sys.stderr, flush=True)


def report(
    name: str,
    spread: Spread | float,
    unit: str,
    *,
    peer: str | None = None,
    peer_spread: Spread | float | None = None,
    digits: int = 1,
    **context: Any,
) -> None:
    """Print one figure.

    A spread is given as its median; how far its runs lay apart stands in `spread`. `ratio` is ours over the peer's.
    """
    line: dict[str, Any] = {"name": name, "value": round(_middle(spread), digits), "unit": unit, "peer": peer}
    theirs = None if peer_spread is None else _middle(peer_spread)
    line["peer_value"] = None if theirs is None else round(theirs, digits)
    line["ratio"] = round(_middle(spread) / theirs, 3) if theirs else None
    if isinstance(spread, Spread):
        line |= {"samples": spread.samples, "spread": [round(spread.low, digits), round(spread.high, digits)]}
    if isinstance(peer_spread, Spread):
        line["peer_spread"] = [round(peer_spread.low, digits), round(peer_spread.high, digits)]
    line |= {
        key: round(value, max(digits, 1)) if isinstance(value, float) else value
        for key, value in context.items()
        if value is not None
    }
    line["machine"] = {"cores": os.cpu_count(), "python": platform.python_version()}
    print(json.dumps(line, ensure_ascii=False), flush=True)


def _middle(value: Spread | float) -> float:
    return value.median if isinstance(value, Spread) else value


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Make a directory on the checkout's disk, so that peer and ours use the same one; remove it afterwards."""
    BUILD.mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="bench-", dir=BUILD))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def value_of(number: int, size: int = 256) -> bytes:
    """Return a value of `size` bytes that differs from number to number and does not repeat within itself."""
    return b"".join(b"%016x" % ((number * 16 + i) * 0x9E3779B97F4A7C15 & (1 << 64) - 1) for i in range(16))[:size]


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine on uvloop where it is installed, as the programs of the project do."""
    if importlib.util.find_spec("uvloop") is None:
        note("uvloop is not installed: running on asyncio's own loop")
        return asyncio.run(main)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


async def burst(writers: int, seconds: float, operation: Callable[[int], Coroutine[Any, Any, object]]) -> Burst:
    """Have `writers` tasks repeat `operation(number)` for some seconds, each with a number of its own."""
    gc.collect()  # of what ran before, not during the measurement
    latencies: list[float] = []
    clock = time.perf_counter
    numbers = iter(range(1 << 62))
    end = clock() + seconds

    async def work() -> None:
        started = clock()
        while started < end:
            await operation(next(numbers))
            now = clock()
            latencies.append(now - started)
            started = now

    begun = clock()
    await asyncio.gather(*(work() for _ in range(writers)))
    took = clock() - begun
    latencies.sort()
    return Burst(len(latencies), took, latencies)


def resident_bytes(pid: int | str = "self") -> int:
    """Return the resident memory of a process, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no resident memory any more")
