"""1,000 watches of one resource over TLS from one asyncio program; 1 KB events. Goal: 60,000 delivered a second.

The client only counts the bytes it gets; it runs in a process of its own on the same two cores.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from _apiserver import TOKEN, Server, Serving, serving, unverified
from _kit import Spread, arguments, note, report, scratch
from _kube import against, peer

WATCHERS = 1_000
MAPS = "/api/v1/namespaces/default/configmaps"


class _Counting(asyncio.Protocol):
    """One watch: counts events by their type's name, which stands in each once."""

    def __init__(self, request: bytes, total: list[int]) -> None:
        self._request = request
        self._total = total

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._total[0] += data.count(b'{"type":"')


async def watching(url: str, seconds: float) -> None:
    """Open all watches, say so, count for some time, and print events per second."""
    parts = urlsplit(url)
    total = [0]
    loop = asyncio.get_running_loop()
    head = f"GET {MAPS}?watch=true&resourceVersion=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    context = unverified()
    for start in range(0, WATCHERS, 50):
        await asyncio.gather(
            *(
                loop.create_connection(
                    lambda: _Counting(head.encode(), total), parts.hostname or "", parts.port or 0, ssl=context
                )
                for _ in range(min(50, WATCHERS - start))
            )
        )
    print("open", flush=True)
    await asyncio.sleep(2)
    first, begun = total[0], time.perf_counter()
    await asyncio.sleep(seconds)
    print((total[0] - first) / (time.perf_counter() - begun), flush=True)


async def writing(server: Server, stop: asyncio.Event) -> int:
    """Write the same object over and over until told to stop, four requests at a time; return how often."""
    parts = urlsplit(server.url)
    count = 0
    data = "d" * 600

    async def one(name: str) -> None:
        nonlocal count
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=unverified())
        number = 0
        while not stop.is_set():
            number += 1
            body = json.dumps({"metadata": {"name": name}, "data": {"n": str(number), "d": data}}).encode()
            method, path = ("POST", MAPS) if number == 1 else ("PUT", f"{MAPS}/{name}")
            writer.write(
                f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            count += 1
        writer.close()

    await asyncio.gather(*(one(f"m{each}") for each in range(4)))
    return count


async def measure(server: Server, seconds: float) -> float:
    """Return events delivered per second to all watchers together."""
    command = [sys.executable, __file__, "--client", server.url, str(seconds)]
    client = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert client.stdout is not None
    await client.stdout.readline()
    stop = asyncio.Event()
    writer = asyncio.create_task(writing(server, stop))
    rate = float((await client.stdout.readline()).decode())
    stop.set()
    note(f"{await writer:,} writes, {rate:,.0f} events/s delivered")
    await client.wait()
    return rate


def measured(start: Serving, directory: Path, *, quick: bool) -> Spread:
    """Watch one server several times."""
    with start(directory) as server:
        return Spread.of([asyncio.run(measure(server, 1 if quick else 5)) for _ in range(1 if quick else 3)])


def main() -> None:
    """Measure our server, then the peer; or be the client."""
    if sys.argv[1:2] == ["--client"]:
        import uvloop

        uvloop.run(watching(sys.argv[2], float(sys.argv[3])))
        return
    quick = arguments(__doc__).quick
    other = peer(build=not quick)
    with scratch() as directory:
        ours = measured(serving, directory / "ours", quick=quick)
        theirs = measured(other, directory / "theirs", quick=quick) if other is not None else None
    name = "apiserver WATCH, 1,000 watchers, 1 KB events delivered"
    report(name, ours, "1/s", **against(theirs), digits=0, goal=60_000)


if __name__ == "__main__":
    main()
