"""Pods over TLS: GET, durable POST with 1, 16 and 64 connections, LIST of 20,000, and the memory they take.

The load is wrk's, on the same two cores. A pod has 2 KB as sent. Goals: GET 20,000/s; POST 600, 2,500 and 2,500/s;
LIST within 0.2 s; 400 MB resident with 20,000 pods. The kube-apiserver with etcd had 4,480/s; 418, 1,016 and 1,136/s;
1.2 to 1.8 s; 2,170 MB on such a machine.
"""

from __future__ import annotations

import http.client
import json
import time
from urllib.parse import urlsplit

from _apiserver import PODS, TOKEN, Server, creating, pod, prepare, serving, unverified, wrk
from _kit import Spread, arguments, note, report, resident_bytes, scratch

COUNT = 20_000


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


def main() -> None:
    """Measure one server from empty to full."""
    quick = arguments(__doc__).quick
    seconds, rounds, count = (1, 1, 500) if quick else (8, 3, COUNT)
    with scratch() as directory, serving(directory) as server:
        prepare(server)
        if server.call("POST", PODS, pod("one"))[0] != 201:
            raise SystemExit("the first pod was refused")
        wrk(server, f"{PODS}/one", connections=64, seconds=1)
        rates = [wrk(server, f"{PODS}/one", connections=64, seconds=seconds) for _ in range(rounds)]
        report("apiserver GET one pod, 64 connections", Spread.of(rates), "1/s", digits=0, goal=20_000)
        for connections, goal in ((1, 600), (16, 2_500), (64, 2_500)):
            rates = [
                wrk(
                    server,
                    PODS,
                    connections=connections,
                    seconds=max(seconds // 4, 1),
                    script=creating(f"p{connections}x{each}"),
                )
                for each in range(rounds)
            ]
            name = f"apiserver POST a pod, durable, {connections} connections"
            report(name, Spread.of(rates), "1/s", digits=0, goal=goal)
        code, body = server.call("DELETE", PODS)
        if code != 200:
            raise SystemExit(f"the pods were not deleted: {code} {body[:200]!r}")
    with scratch() as directory, serving(directory) as server:
        prepare(server)
        fill(server, count)
        times = [list_seconds(server) for _ in range(2 + rounds * 2)][2:]
        note(f"a list has {times[0][1] / 1e6:.0f} MB")
        report(f"apiserver LIST {count:,} pods", Spread.of([each for each, _ in times]), "s", digits=3, goal=0.2)
        report(f"apiserver memory, {count:,} pods", resident_bytes(server.pid) / 1e6, "MB", digits=0, goal=400)


if __name__ == "__main__":
    main()
