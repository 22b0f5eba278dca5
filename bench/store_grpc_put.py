"""Puts a second through the gRPC service, beside real etcd under the same client programs.

Two client programs, each in a process of its own: etcd's Go load program, and our asyncio client. Values of 256 bytes,
new keys, 1, 64 and 1,000 calls at a time. Goal: at least 0.7 times etcd.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import _client
from _kit import Spread, arguments, note, report, scratch
from _peers import Etcd, LoadResult, Pilothouse, Server, load_tool, put_load, servers

CLIENTS = (1, 64, 1000)
CONNECTIONS = {1: 1, 64: 8, 1000: 100}
PER_SECOND = {1: 1000, 64: 10_000, 1000: 15_000}  # to size the runs of a program that counts requests, not seconds

Result = LoadResult | _client.Rate


class Case(NamedTuple):
    """A client program and how many calls it has open."""

    client: str
    clients: int


def measure(server: Server, seconds: float) -> dict[Case, Result]:
    """Take one round of all client programs on one server."""
    found: dict[Case, Result] = {}
    for clients in CLIENTS:
        connections = CONNECTIONS[clients]
        mine = _client.put(server, in_flight=clients, seconds=seconds, connections=min(8, connections))
        found[Case("our asyncio client", clients)] = mine
        if load_tool() is not None:
            total = max(300, int(PER_SECOND[clients] * seconds))
            theirs = put_load(server, clients=clients, connections=connections, total=total)
            found[Case("etcd's benchmark", clients)] = theirs
    return found


def report_all(candidates: list[Pilothouse | Etcd], found: dict[str, dict[Case, list[Result]]]) -> None:
    """Print a figure for each case and peer."""
    ours, *peers = candidates
    for case, results in found[ours.name].items():
        short = "go" if case.client == "etcd's benchmark" else "asyncio"
        name, rate = f"store_grpc_put_{case.clients}_{short}", Spread.of([one.rate for one in results])
        connections = CONNECTIONS[case.clients] if short == "go" else min(8, CONNECTIONS[case.clients])
        context: dict[str, Any] = {
            "load_client": f"{case.client}, {case.clients} calls at a time on {connections} connections",
            "p50_us": Spread.of([one.p50 for one in results]).median,
            "p99_us": Spread.of([one.p99 for one in results]).median,
            "goal": "at least 0.7 times",
        }
        if not peers:
            report(name, rate, "puts/s", digits=0, **context)
        for peer in peers:
            theirs = found[peer.name][case]
            report(
                name,
                rate,
                "puts/s",
                peer=peer.name,
                peer_spread=Spread.of([one.rate for one in theirs]),
                digits=0,
                peer_version=peer.version,
                peer_p50_us=Spread.of([one.p50 for one in theirs]).median,
                peer_p99_us=Spread.of([one.p99 for one in theirs]).median,
                **context,
            )


def main() -> None:
    """Measure in rounds, each server alone on a new directory."""
    quick = arguments(__doc__).quick
    rounds, seconds = (1, 0.5) if quick else (4, 1.0)
    candidates = servers()
    found: dict[str, dict[Case, list[Result]]] = {one.name: defaultdict(list) for one in candidates}
    for number in range(rounds):
        note(f"round {number + 1} of {rounds}")
        with scratch() as directory:
            for place, candidate in enumerate(candidates):
                with candidate.start(directory / f"server-{place}") as server:
                    _client.put(server, in_flight=16, seconds=0.3, connections=4)
                    for case, result in measure(server, seconds).items():
                        found[candidate.name][case].append(result)
    report_all(candidates, found)


if __name__ == "__main__":
    main()
