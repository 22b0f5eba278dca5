"""Events a second from a watch through cache and queue to a reconciler that does nothing; pods of 2 KB as sent.

Goal: 20,000. A server of canned changes of 1,000 pods sends them as fast as they are read, by plain HTTP from a process
of its own, to one client after the other. Ours is a manager with a controller: typed objects, cache, queue, reconciler;
kopf calls a handler of events, with its own queue of each object and no cache. The others watch into a dictionary and
call a function: neither queue nor retries. Objects are typed with us, kubernetes, kubernetes_asyncio and lightkube, and
dictionaries with kr8s and kopf.

controller-runtime is there where Go is: a manager with a reconciler, which would read protobuf but is sent JSON here.

Changes of a pod that nobody has looked at yet may become one: ours merges them in the queue, and before it once 10,000
wait for the handler. The reconciles are told beside the events. A client that is not done after some seconds is
measured by the latest change that it had seen until then.

Our API server cannot write as fast as clients read. So with it, over TLS, it is the first state that is measured: 5,000
pods from a client's first call until each of them was handled once, all that happens at a start included.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, NamedTuple

from _apiserver import prepare, serving
from _canned import canned
from _clients import write_config
from _followers import OURS, follow, installed
from _kit import Spread, arguments, note, report, scratch
from client_informer import varied
from client_list import fill

OBJECTS, CHANGES, PODS, LIMIT = 1_000, 150_000, 5_000, 10.0


class Measured(NamedTuple):
    """Events a second, µs of the client's processor time for each, and the calls that came of them."""

    rate: float
    micros: float
    calls: int


def measure(client: str, directory: Path, objects: int, changes: int, limit: float) -> Measured | None:
    """Measure one client."""
    with canned(directory, objects, changes) as server:
        found = follow(client, write_config(server.server), objects, changes=changes, limit=limit, when_ready=server.go)
    if found is None:
        return None
    if not found.seen:
        note(f"{client}: left out, it saw no change within {limit:g} s")
        return None
    last = max(when for _, when in found.seen) if found.complete else found.ended
    events = max(number for number, _ in found.seen) + 1
    measured = Measured(events / (last - server.begun), found.events_cpu / events * 1e6, found.calls)
    note(
        f"{client}: {measured.rate:,.0f} events/s, {found.calls:,} calls, {measured.micros:.1f} µs of its own for each"
    )
    return measured


def starts(client: str, config: str, pods: int, limit: float) -> tuple[float, bool] | None:
    """Return the pods a second of our server that a client has handled from its first call on, and whether all."""
    found = follow(client, config, pods, limit=limit, handles=True)
    if found is None:
        return None
    rate = found.objects / found.seconds
    note(f"{client}: {found.objects:,} pods of our server in {found.seconds:.2f} s, {found.cpu:.2f} s of its own")
    return rate, found.complete


def replayed(directory: Path, objects: int, changes: int, limit: float, rounds: int, peers: list[str]) -> None:
    """Measure changes that are replayed, with every client."""
    own = [found for _ in range(rounds) if (found := measure(OURS, directory, objects, changes, limit)) is not None]
    if not own:
        raise SystemExit("our own client failed")
    rates = Spread.of([found.rate for found in own])
    shared: dict[str, Any] = {"digits": 0, "goal": 20_000, "reconciles": own[-1].calls}
    shared["client_microseconds"] = Spread.of([found.micros for found in own]).median
    name = f"operator events, watch to a reconciler that does nothing, {objects:,} typed pods of 2 KB"
    report(name, rates, "1/s", **shared)
    for client in peers:
        theirs = measure(client, directory, objects, changes, limit)
        if theirs is not None:
            told: dict[str, Any] = {"peer_calls": theirs.calls, "peer_client_microseconds": theirs.micros}
            report(name, rates, "1/s", peer=client, peer_spread=theirs.rate, **told, **shared)


def first_states(directory: Path, pods: int, limit: float, rounds: int, peers: list[str]) -> None:
    """Measure the first state of our server, with every client."""
    with serving(directory) as server:
        prepare(server)
        config = write_config(server)
        asyncio.run(fill(config, pods, 0, varied))
        own = [found for _ in range(rounds) if (found := starts(OURS, config, pods, limit)) is not None]
        rates = Spread.of([rate for rate, _ in own])
        name = f"operator start, {pods:,} typed pods of our server, each reconciled once"
        report(name, rates, "1/s", digits=0)
        for client in peers:
            theirs = starts(client, config, pods, limit)
            if theirs is not None:
                rate, complete = theirs
                report(name, rates, "1/s", peer=client, peer_spread=rate, digits=0, peer_complete=complete)


def main() -> None:
    """Measure every client, with changes that are replayed and with our server."""
    options = arguments(__doc__, objects=OBJECTS, changes=CHANGES, pods=PODS, limit=int(LIMIT))
    objects, changes, pods, limit = options.objects, options.changes, options.pods, float(options.limit)
    if options.quick:
        objects, changes, pods, limit = min(objects, 100), min(changes, 2_000), min(pods, 200), min(limit, 5.0)
    rounds = 1 if options.quick else 3
    with scratch() as directory:
        peers = installed(build=not options.quick)
        replayed(directory, objects, changes, limit, rounds, peers)
        first_states(directory, pods, 2 * limit, rounds, peers)


if __name__ == "__main__":
    main()
