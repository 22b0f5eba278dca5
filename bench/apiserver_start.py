"""The API server's start, and what it holds when idle: seconds until a good /readyz, and MB.

An empty directory: keys are made, default roles and priority levels written. The goals are 0.7 s and 80 MB. The peer is
the kube-apiserver with its etcd, both counted.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from _apiserver import Serving, serving
from _kit import Spread, arguments, report, scratch
from _kube import against, peer

IDLE_SECONDS = 3.0


class Start(NamedTuple):
    """What several starts of one server took."""

    empty: Spread
    again: Spread
    megabytes: Spread


def measure(start: Serving, directory: Path, *, quick: bool) -> Start:
    """Start several servers, one after another, each twice."""
    times, again, sizes = [], [], []
    for number in range(1 if quick else 7):
        place = directory / str(number)
        with start(place) as server:
            times.append(server.ready)
            time.sleep(0.5 if quick else IDLE_SECONDS)
            sizes.append(server.megabytes)
        with start(place) as server:
            again.append(server.ready)
    return Start(Spread.of(times), Spread.of(again), Spread.of(sizes))


def main() -> None:
    """Measure our server, then the peer."""
    quick = arguments(__doc__).quick
    other = peer(build=not quick)
    with scratch() as directory:
        ours = measure(serving, directory / "ours", quick=quick)
        theirs = measure(other, directory / "theirs", quick=quick) if other is not None else (None,) * 3
    rows = (
        ("start, new directory", "s", 2, 0.7),
        ("start, existing directory", "s", 2, 0.7),
        ("idle memory", "MB", 1, 80),
    )
    for (name, unit, digits, goal), our, their in zip(rows, ours, theirs, strict=True):
        report(f"apiserver {name}", our, unit, **against(their), digits=digits, goal=goal)


if __name__ == "__main__":
    main()
