"""From a change to its reconcile, at 1,000 changes a second of 1,000 objects: p50, p99 and p99.9 in ms.

Goal: p99 of 10 ms. Changes are due at a constant rate, whatever happens: each one's time counts from when it was due,
so that a client or server that stalls pays for all that should have happened meanwhile. Twice: with canned changes of
pods of 2 KB over plain HTTP, which leaves out what a server takes; and with our API server over TLS, where a program
with 16 connections patches ConfigMaps of 1 KB. There it is from when the write was due, and from when it was
acknowledged, which may be after the reconcile and counts as 0 then. All of it shares the same two cores, and each such
write takes some 0.6 ms of them before a client sees it; how long writes took is said on stderr.

Ours is a manager with a controller; what the others do stands in `operator_events`. A change that was merged with a
later one of the same object is seen when that one is. One that nobody saw before the time was up is taken as seen at
its end: a client that cannot keep up shows seconds that only say how long it was watched.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from _apiserver import TOKEN, Server, serving, unverified
from _canned import canned
from _clients import write_config
from _followers import MARK, OURS, Followed, follow, installed, say
from _kit import Spread, arguments, fraction, note, report, run, scratch
from pilothouse.client import Client
from pilothouse.kinds.structs import ConfigMap, ObjectMeta

OBJECTS, RATE, SECONDS, LIMIT = 1_000, 1_000, 6, 10
_CONNECTIONS = 16
_MAPS = "/api/v1/namespaces/default/configmaps"
_PARTS = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
_TURNS = 10_000_000
"""Numbers of one client's changes, so that none is taken for another's."""


class Written(NamedTuple):
    """When changes were due and acknowledged, on the system's monotonic clock."""

    due: list[float]
    acknowledged: list[float]


class Measured(NamedTuple):
    """The sorted seconds of all changes from when they were due, and from when they were acknowledged."""

    due: list[float]
    acknowledged: list[float]
    followed: Followed


def seconds_from(starts: Sequence[float], followed: Followed, objects: int, base: int) -> list[float]:
    """Return, sorted, the seconds from each change's start until it, or a later one of the same object, was seen."""
    first: dict[int, float] = {}
    for number, when in followed.seen:
        first.setdefault(number - base, when)
    found, after = [], dict.fromkeys(range(objects), followed.ended)
    for number in range(len(starts) - 1, -1, -1):
        which = number % objects
        after[which] = min(after[which], first.get(number, followed.ended))
        found.append(max(0.0, after[which] - starts[number]))
    return sorted(found)


async def create(config: str, objects: int) -> None:
    """Create the ConfigMaps that are changed."""
    async with Client.from_kubeconfig(config) as client:
        for number in range(objects):
            await client.create(ConfigMap(metadata=ObjectMeta(name=f"map-{number}"), data={"text": "t" * 600}))


async def writing(url: str, base: int, objects: int, changes: int, rate: float) -> Written:
    """Patch ConfigMaps in turn, each when it is due, or as soon as a connection is free."""
    parts, due = urlsplit(url), asyncio.Queue[int]()
    streams = [await asyncio.open_connection(parts.hostname, parts.port, ssl=unverified()) for _ in range(_CONNECTIONS)]
    acknowledged = [0.0] * changes
    begun = time.monotonic() + 0.5

    async def patch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            number = await due.get()
            body = b'{"metadata":{"annotations":{"%b":"%d"}}}' % (MARK.encode(), base + number)
            writer.write(
                f"PATCH {_MAPS}/map-{number % objects} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
                f"Content-Type: application/merge-patch+json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"a change was refused: {head.decode()}")
            acknowledged[number] = time.monotonic()
            due.task_done()

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(patch(*stream)) for stream in streams]
        for number in range(changes):
            await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
            due.put_nowait(number)
        await due.join()
        for task in tasks:
            task.cancel()
    return Written([begun + number / rate for number in range(changes)], acknowledged)


def written(url: str, *numbers: float) -> Written:
    """Run `writing` in a process of its own."""
    command = [sys.executable, __file__, "--write", url, json.dumps(numbers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Written(*json.loads(done.stdout))


def with_canned(client: str, directory: Path, objects: int, changes: int, rate: float, limit: float) -> Measured | None:
    """Measure a client with canned changes."""
    with canned(directory, objects, changes, rate) as server:
        config = write_config(server.server)
        found = follow(client, config, objects, changes=changes, limit=limit, when_ready=server.go)
        if found is None:
            return None
        due = [server.begun + number / rate for number in range(changes)]
        return Measured(seconds_from(due, found, objects, 0), [], found)


def with_server(
    client: str, server: Server, turn: int, objects: int, changes: int, rate: float, limit: float
) -> Measured | None:
    """Measure a client with our API server."""
    base = turn * _TURNS
    times = Written([], [])

    def write() -> None:
        nonlocal times
        times = written(server.url, base, objects, changes, rate)

    config = write_config(server)
    found = follow(
        client, config, objects, changes=changes, base=base, limit=limit, plural="configmaps", when_ready=write
    )
    if found is None:
        return None
    due, acknowledged = (seconds_from(starts, found, objects, base) for starts in times)
    answered = sorted(ack - when for when, ack in zip(times.due, times.acknowledged, strict=True))
    note(
        f"writes acknowledged: p50 {fraction(answered, 0.5) * 1e3:.2f} ms, p99 {fraction(answered, 0.99) * 1e3:.2f} ms"
    )
    return Measured(due, acknowledged, found)


def tell(what: str, ours: Sequence[list[float]], theirs: dict[str, tuple[list[float], Followed]]) -> None:
    """Report what the percentiles of all clients are."""
    own = {part: Spread.of([fraction(times, share) * 1e3 for times in ours]) for part, share in _PARTS.items()}
    middle: dict[str, Any] = {"p50": own["p50"].median, "p99.9": own["p99.9"].median, "digits": 2, "goal": 10}
    report(f"operator latency p99, {what}", own["p99"], "ms", **middle)
    for client, (times, followed) in theirs.items():
        peers: dict[str, Any] = {f"peer_{part}": fraction(times, share) * 1e3 for part, share in _PARTS.items()}
        report(
            f"operator latency p99, {what}",
            own["p99"],
            "ms",
            peer=client,
            peer_spread=peers.pop("peer_p99"),
            peer_complete=followed.complete,
            peer_calls=followed.calls,
            **peers,
            **middle,
        )


def said(client: str, found: Measured | None) -> Measured | None:
    """Tell the person who waits."""
    if found is not None:
        shown = ", ".join(f"{part} {fraction(found.due, share) * 1e3:.2f} ms" for part, share in _PARTS.items())
        whole = "" if found.followed.complete else ", not all seen"
        note(f"{client}: {shown}, {found.followed.calls:,} calls, {found.followed.events_cpu:.2f} s of its own{whole}")
    return found


def main() -> None:
    """Measure every client, or be the program that writes."""
    if sys.argv[1:2] == ["--write"]:
        base, objects, changes, rate = json.loads(sys.argv[3])
        say(json.dumps(run(writing(sys.argv[2], int(base), int(objects), int(changes), rate))))
        return
    options = arguments(__doc__, objects=OBJECTS, rate=RATE, seconds=SECONDS)
    objects, rate, seconds = options.objects, float(options.rate), options.seconds
    if options.quick:
        objects, rate, seconds = min(objects, 100), min(rate, 300.0), 1
    changes, limit = int(rate * seconds), float(seconds + LIMIT)
    clients = [*[OURS] * (1 if options.quick else 3), *installed(build=not options.quick)]
    what = f"{rate:,.0f} changes/s of {objects:,}"
    with scratch() as directory:
        found = [
            (client, said(client, with_canned(client, directory, objects, changes, rate, limit))) for client in clients
        ]
        ours = [each.due for client, each in found if each is not None and client == OURS]
        theirs = {client: (each.due, each.followed) for client, each in found if each is not None and client != OURS}
        tell(f"{what} pods, canned", ours, theirs)
    with scratch() as directory, serving(directory) as server:
        asyncio.run(create(write_config(server), objects))
        found = [
            (client, said(client, with_server(client, server, turn, objects, changes, rate, limit)))
            for turn, client in enumerate(clients, 1)
        ]
        for since in ("due", "acknowledged"):
            ours = [getattr(each, since) for client, each in found if each is not None and client == OURS]
            theirs = {
                client: (getattr(each, since), each.followed)
                for client, each in found
                if each is not None and client != OURS
            }
            tell(f"{what} ConfigMaps, our server, from when the write was {since}", ours, theirs)


if __name__ == "__main__":
    main()
