"""Whether HTTP/2 pays for the client: GETs of one pod by our HTTP/1.1 transport and by a bare loop of libnghttp2.

The loop has no pool, no time limits, no credentials and no cancelling, so it shows HTTP/2 at its best. Both against our
server, 1, 16 and 64 at once; the client's own processor time a call is in `client_us` and `peer_client_us`.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from _apiserver import PODS, TOKEN, Server, pod, prepare, serving, unverified
from _clients import write_config
from _kit import arguments, report, run, scratch

TARGET = f"{PODS}/one"


class Http2(asyncio.Protocol):
    """One connection, many requests at once."""

    def __init__(self) -> None:
        from ngh2 import Configuration, Connection, Role, Setting

        self.engine = Connection(Role.CLIENT, Configuration(auto_window_update=True))
        self.engine.initiate_connection({Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: 1 << 20})
        self.waiting: dict[int, tuple[asyncio.Future[bytes], list[bytes]]] = {}
        self.loop = asyncio.get_running_loop()
        self.flushing = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.flush()

    def flush(self) -> None:
        self.flushing = False
        if data := self.engine.data_to_send():
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        from ngh2 import DataReceived, StreamClosed

        self.engine.receive_data(data)
        for event in self.engine.events():
            if isinstance(event, DataReceived):
                self.waiting[event.stream_id][1].append(event.data)
            elif isinstance(event, StreamClosed):
                future, parts = self.waiting.pop(event.stream_id)
                future.set_result(b"".join(parts))
        self.flush()

    async def get(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        future: asyncio.Future[bytes] = self.loop.create_future()
        stream_id = self.engine.send_request(headers, end_stream=True)
        self.waiting[stream_id] = future, []
        if not self.flushing:
            self.flushing = True
            self.loop.call_soon(self.flush)
        return await future


async def load(get: Callable[[], Awaitable[bytes]], workers: int, seconds: float) -> tuple[float, float]:
    """Return calls a second and µs of our processor time a call."""
    done = 0
    gc.collect()
    spent, begun = time.process_time(), time.perf_counter()
    end = begun + seconds

    async def work() -> None:
        nonlocal done
        while time.perf_counter() < end:
            if len(await get()) < 1000:
                raise SystemExit("no pod came back")
            done += 1

    await asyncio.gather(*(work() for _ in range(workers)))
    return done / (time.perf_counter() - begun), (time.process_time() - spent) / done * 1e6


async def measure(server: Server, *, quick: bool) -> None:
    """Measure both in turn."""
    from pilothouse.client import Client

    parts = urlsplit(server.url)
    context = unverified()
    context.set_alpn_protocols(["h2"])
    loop = asyncio.get_running_loop()
    _, http2 = await loop.create_connection(Http2, parts.hostname or "", parts.port or 443, ssl=context)
    headers = [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":authority", parts.netloc.encode()),
        (b":path", TARGET.encode()),
        (b"accept", b"application/json"),
        (b"authorization", f"Bearer {TOKEN}".encode()),
    ]
    async with Client.from_kubeconfig(write_config(server)) as client:
        for workers in (1, 16, 64):
            seconds = 0.3 if quick else 4.0
            await load(lambda: client.request("GET", TARGET), workers, 0.3)
            ours, our_cost = await load(lambda: client.request("GET", TARGET), workers, seconds)
            theirs, their_cost = await load(lambda: http2.get(headers), workers, seconds)
            report(
                f"client.http1_{workers}",
                ours,
                "1/s",
                peer="bare HTTP/2",
                peer_spread=theirs,
                client_us=our_cost,
                peer_client_us=their_cost,
            )
    http2.transport.abort()


def main() -> None:
    """Start a server and call it both ways."""
    quick = arguments(__doc__).quick
    with scratch() as directory, serving(directory) as server:
        prepare(server)
        server.call("POST", PODS, pod("one"))
        run(measure(server, quick=quick))


if __name__ == "__main__":
    main()
