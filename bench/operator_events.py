"""Events a second from a watch through cache and queue to a reconciler that does nothing; pods of 2 KB as sent.

Goal: 20,000. A server of canned changes of 1,000 pods sends them as fast as they are read, by plain HTTP from a process
of its own, to one client after the other. Ours is a manager with a controller: typed objects, cache, queue, reconciler;
changes of a pod that already waits in the queue are one reconcile, as in Go. kopf calls a handler of events, with its
own queue of each object and no cache. The others watch into a dictionary and call a function: neither queue nor
retries. Objects are typed with us, kubernetes, kubernetes_asyncio and lightkube, and dictionaries with kr8s and kopf.

A client that is not done after some seconds is measured by what it had seen until then.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from _canned import canned
from _clients import write_config
from _followers import OURS, Followed, follow, installed
from _kit import Spread, arguments, note, report, scratch

OBJECTS, CHANGES, LIMIT = 1_000, 200_000, 15.0


def measure(client: str, directory: Path, objects: int, changes: int, limit: float) -> tuple[float, Followed] | None:
    """Return events a second, and all that was seen."""
    with canned(directory, objects, changes) as server:
        found = follow(client, write_config(server.server), objects, changes=changes, limit=limit, when_ready=server.go)
    if found is None:
        return None
    if not found.seen:
        note(f"{client}: left out, it saw no change within {limit:g} s")
        return None
    last = max(when for _, when in found.seen) if found.complete else found.ended
    rate = (changes if found.complete else found.passed) / (last - server.begun)
    note(f"{client}: {rate:,.0f} events/s, {found.calls:,} calls, {found.events_cpu:.2f} s of its own")
    return rate, found


def main() -> None:
    """Measure every client."""
    options = arguments(__doc__, objects=OBJECTS, changes=CHANGES, limit=int(LIMIT))
    objects, changes, limit = options.objects, options.changes, float(options.limit)
    if options.quick:
        objects, changes, limit = min(objects, 100), min(changes, 2_000), min(limit, 5.0)
    with scratch() as directory:
        runs = [measure(OURS, directory, objects, changes, limit) for _ in range(1 if options.quick else 3)]
        rates = [found for found in runs if found is not None]
        if not rates:
            raise SystemExit("our own client failed")
        ours = Spread.of([rate for rate, _ in rates])
        calls, passed = rates[-1][1].calls, rates[-1][1].passed
        cpu = rates[-1][1].events_cpu / max(passed, 1) * 1e6
        name = f"operator events, watch to a reconciler that does nothing, {objects:,} typed pods of 2 KB"
        context: dict[str, Any] = {"digits": 0, "goal": 20_000, "reconciles": calls, "client_microseconds": cpu}
        report(name, ours, "1/s", **context)
        for client in installed():
            theirs = measure(client, directory, objects, changes, limit)
            if theirs is not None:
                rate, found = theirs
                each = found.events_cpu / max(found.passed, 1) * 1e6
                report(
                    name,
                    ours,
                    "1/s",
                    peer=client,
                    peer_spread=rate,
                    peer_calls=found.calls,
                    peer_client_microseconds=each,
                    **context,
                )


if __name__ == "__main__":
    main()
