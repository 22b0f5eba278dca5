"""The API server's start, and what it holds when idle: seconds from `pilothouse apiserver` to a good /readyz, in MB.

An empty directory: keys are made, default roles and priority levels written. The goals are 0.7 s and 80 MB; the
kube-apiserver with etcd took 2.8 s and 278 + 43 MB on two cores.
"""

from __future__ import annotations

import time

from _apiserver import serving
from _kit import Spread, arguments, report, resident_bytes, scratch

IDLE_SECONDS = 3.0


def main() -> None:
    """Start several servers, one after another."""
    quick = arguments(__doc__).quick
    times, again, sizes = [], [], []
    with scratch() as directory:
        for number in range(1 if quick else 7):
            place = directory / str(number)
            with serving(place) as server:
                times.append(server.ready)
                time.sleep(0.5 if quick else IDLE_SECONDS)
                sizes.append(resident_bytes(server.pid) / 1e6)
            with serving(place) as server:
                again.append(server.ready)
    report("apiserver start, new directory", Spread.of(times), "s", digits=2, goal=0.7)
    report("apiserver start, existing directory", Spread.of(again), "s", digits=2, goal=0.7)
    report("apiserver idle memory", Spread.of(sizes), "MB", digits=1, goal=80)


if __name__ == "__main__":
    main()
