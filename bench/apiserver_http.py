"""The HTTP server of the API server over TLS: answers of 4 KiB a second, and pieces of 1 KiB to 1,000 streams a second.

Each server runs in a process of its own on one event loop, its client in another: wrk (Debian's package) for answers,
a reader on uvloop for streams. The peer of the answers is aiohttp's server under the same load. A piece goes to all
streams at once, as an event does to the watches of a resource; the next one goes as soon as the peers took the last
but a few.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from _kit import Spread, arguments, note, report, run
from pilothouse.apiserver.http import HttpServer
from pilothouse.apiserver.model import Answer, Piece, Request, Response, Sink, StreamingResponse
from pilothouse.foundation.tls import client_context, issue, make_ca, server_context, write

_BODY = b"x" * 4096
_PIECE_BYTES = 1024
_STREAMS = 1000
_HEADERS = [
    ("Audit-Id", "8a9c8a3e-6a6d-4f0c-9c58-16dbb9ad2c43"),
    ("Cache-Control", "no-cache, private"),
    ("X-Kubernetes-Pf-Flowschema-Uid", "3b2a1d7e-4f7d-4c0b-8a4e-2f6d8f0f9e11"),
    ("X-Kubernetes-Pf-Prioritylevel-Uid", "6c1d2b3a-9e8f-4a7b-b6c5-d4e3f2a1b0c9"),
]
_AHEAD_BYTES = 64 << 10
"""What a stream may have buffered when the next piece is made."""


def _context(directory: Path) -> ssl.SSLContext:
    paths = [str(directory / name) for name in ("ca.crt", "ca.key", "server.crt", "server.key")]
    ca = make_ca("bench")
    write(ca, paths[0], paths[1])
    write(issue(ca, "server", hosts=["127.0.0.1"], server=True), paths[2], paths[3])
    return server_context(paths[2], paths[3], client_ca=paths[0], client_required=False)


async def _serve_own(directory: Path) -> None:
    sinks: list[Sink] = []

    async def stream(sink: Sink) -> None:
        sinks.append(sink)
        try:
            await asyncio.Event().wait()
        finally:
            sinks.remove(sink)

    def handler(request: Request) -> Answer:
        return StreamingResponse(stream) if request.path == "/stream" else Response(200, _BODY, _HEADERS)

    server = HttpServer(handler, tls=_context(directory))
    print((await server.start("127.0.0.1", 0))[1], flush=True)
    while True:
        if len(sinks) < _STREAMS or max(sink.buffered for sink in sinks) > _AHEAD_BYTES:
            await asyncio.sleep(0.001)
            continue
        piece = Piece(bytes(_PIECE_BYTES))
        for sink in sinks:
            sink.write_piece(piece)
        await asyncio.sleep(0)


async def _serve_peer(directory: Path) -> None:
    from aiohttp import web

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=_BODY, headers=_HEADERS, content_type="application/json")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=_context(directory))
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@contextlib.contextmanager
def _server(kind: str) -> Iterator[tuple[int, Path]]:
    """Run one of the servers in a process of its own; yield its port and the directory of its certificates."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, __file__, "--serve", kind, directory]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                yield int(process.stdout.readline()), Path(directory)
            finally:
                process.kill()


def _wrk(port: int, seconds: float) -> float:
    """Return answers a second."""
    command = ["wrk", "-t1", "-c64", f"-d{max(1, round(seconds))}", f"https://127.0.0.1:{port}/api/v1/pods/a"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"Requests/sec:\s+([0-9.]+)", output)
    if found is None or "Non-2xx" in output:
        raise RuntimeError(f"wrk says: {output}")
    return float(found[1])


class _Reader(asyncio.Protocol):
    """Counts what comes."""

    received = 0

    def __init__(self) -> None:
        self.begun: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport) or hasattr(transport, "write")
        transport.write(b"GET /stream HTTP/1.1\r\nHost: bench\r\n\r\n")

    def data_received(self, data: bytes) -> None:
        _Reader.received += len(data)
        if not self.begun.done():
            self.begun.set_result(None)


async def _read_streams(port: int, directory: Path, seconds: float) -> float:
    """Return pieces a second over all streams."""
    loop = asyncio.get_running_loop()
    context = client_context(ca=str(directory / "ca.crt"))
    readers = []
    for _ in range(_STREAMS):
        _, reader = await loop.create_connection(_Reader, "127.0.0.1", port, ssl=context)
        readers.append(reader)
    await asyncio.gather(*(reader.begun for reader in readers))
    await asyncio.sleep(seconds / 2)
    begun, before = time.perf_counter(), _Reader.received
    await asyncio.sleep(seconds)
    received, took = _Reader.received - before, time.perf_counter() - begun
    return received / len(Piece(bytes(_PIECE_BYTES)).chunk) / took


def _answers(runs: int, seconds: float) -> None:
    if shutil.which("wrk") is None:
        note("wrk is not installed: answers a second are left out; install Debian's wrk")
        return
    own, peer = [], []
    with _server("own") as (own_port, _), _server("peer") as (peer_port, _):
        for _ in range(runs):
            own.append(_wrk(own_port, seconds))
            peer.append(_wrk(peer_port, seconds))
    report(
        "apiserver_http_get",
        Spread.of(own),
        "answers/s",
        peer=f"aiohttp {importlib.metadata.version('aiohttp')}",
        peer_spread=Spread.of(peer),
        digits=0,
        connections=64,
        answer_bytes=len(_BODY),
        tls="1.3",
    )


def _streams(runs: int, seconds: float) -> None:
    rates = []
    for _ in range(runs):
        with _server("own") as (port, directory):
            rates.append(run(_read_streams(port, directory, seconds)))
    report(
        "apiserver_http_streams",
        Spread.of(rates),
        "pieces/s",
        digits=0,
        streams=_STREAMS,
        piece_bytes=_PIECE_BYTES,
        tls="1.3",
    )


def main() -> None:
    """Print both figures."""
    if sys.argv[1:2] == ["--serve"]:
        directory = Path(sys.argv[3])
        run(_serve_own(directory) if sys.argv[2] == "own" else _serve_peer(directory))
        return
    options = arguments(__doc__)
    runs, seconds = (1, 1.0) if options.quick else (3, 4.0)
    _answers(runs, seconds)
    _streams(runs, seconds)


if __name__ == "__main__":
    main()
