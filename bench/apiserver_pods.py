"""Pods over TLS: GET, durable POST with 1, 16 and 64 connections, LIST of 20,000, and the memory they take.

The load is wrk's, on the same two cores. A pod has 2 KB as sent. Goals: GET 20,000/s; POST 600, 2,500 and 2,500/s;
LIST within 0.2 s; 400 MB resident with 20,000 pods. The peer is the kube-apiserver with its etcd, both counted.
"""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import urlsplit

from _apiserver import PODS, TOKEN, Server, creating, pod, prepare, serving, unverified, wrk
from _kit import Spread, arguments, note, report, scratch
from _kube import against, peer

COUNT = 20_000
CONNECTIONS = (1, 16, 64)


def fill(server: Server, count: int) -> None:
    """Create pods until there are so many, by one connection after another."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=unverified())
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    have = len(json.loads(server.call("GET", PODS)[1])["items"])
    note(f"{have:,} pods; creating {max(count - have, 0):,} more")
    for number in range(have, count):
        connection.request("POST", PODS, json.dumps(pod(f"fill-{number}")), headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 201:
            raise SystemExit(f"a pod was refused: {answer.status}")
    connection.close()


def list_seconds(server: Server) -> tuple[float, int]:
    """List all pods once; return the seconds until the last byte, and the bytes."""
    parts = urlsplit(server.url)
    connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, context=unverified())
    connection.request("GET", "/version")
    connection.getresponse().read()
    begun, size = time.perf_counter(), 0
    connection.request("GET", PODS, headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    buffer = bytearray(1 << 20)
    while read := answer.readinto(buffer):
        size += read
    connection.close()
    return time.perf_counter() - begun, size


def measure_calls(server: Server, *, quick: bool) -> list[Spread]:
    """Return requests a second: of GET, then of POST by each number of connections."""
    seconds, rounds = (1, 1) if quick else (8, 3)
    prepare(server)
    if server.call("POST", PODS, pod("one"))[0] != 201:
        raise SystemExit("the first pod was refused")
    wrk(server, f"{PODS}/one", connections=64, seconds=1)
    found = [Spread.of([wrk(server, f"{PODS}/one", connections=64, seconds=seconds) for _ in range(rounds)])]
    for connections in CONNECTIONS:
        length = max(seconds // 4, 1)
        rates = [
            wrk(server, PODS, connections=connections, seconds=length, script=creating(f"p{connections}x{each}"))
            for each in range(rounds)
        ]
        found.append(Spread.of(rates))
    code, body = server.call("DELETE", PODS)
    if code != 200:
        raise SystemExit(f"the pods were not deleted: {code} {body[:200]!r}")
    return found


def measure_many(server: Server, count: int, *, quick: bool) -> tuple[Spread, float]:
    """Return the seconds of a list of many pods, and the megabytes that the server then has."""
    prepare(server)
    fill(server, count)
    times = [list_seconds(server) for _ in range(3 if quick else 8)][2:]
    note(f"a list has {times[0][1] / 1e6:.0f} MB")
    return Spread.of([each for each, _ in times]), server.megabytes


def main() -> None:
    """Measure servers from empty to full: ours, then the peer."""
    quick = arguments(__doc__).quick
    count, other = 500 if quick else COUNT, peer(build=not quick)
    calls: list[list[Spread]] = []
    many: list[tuple[Spread, float]] = []
    with scratch() as directory:
        for number, start in enumerate((serving, other)):
            if start is None:
                continue
            with start(directory / f"{number}-calls") as server:
                calls.append(measure_calls(server, quick=quick))
            with start(directory / f"{number}-many") as server:
                many.append(measure_many(server, count, quick=quick))
    names = ["GET one pod, 64 connections"]
    names += [f"POST a pod, durable, {connections} connections" for connections in CONNECTIONS]
    for place, (name, goal) in enumerate(zip(names, (20_000, 600, 2_500, 2_500), strict=True)):
        theirs = calls[1][place] if other is not None else None
        report(f"apiserver {name}", calls[0][place], "1/s", **against(theirs), digits=0, goal=goal)
    (listing, memory), (their_listing, their_memory) = many[0], many[1] if other is not None else (None, None)
    report(f"apiserver LIST {count:,} pods", listing, "s", **against(their_listing), digits=3, goal=0.2)
    report(f"apiserver memory, {count:,} pods", memory, "MB", **against(their_memory), digits=0, goal=400)


if __name__ == "__main__":
    main()
