"""Unary gRPC calls per second: this project's server beside grpc.aio's, under the same client program.

Each server runs in a process of its own on one event loop; the client keeps a fixed number of calls open over its
connections. The handler takes 300 bytes and answers 24. Client and server together use two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.metadata
import subprocess
import sys
import time
from collections.abc import Iterator

from _kit import Spread, arguments, report, run
from pilothouse.foundation.grpc import GrpcChannel, GrpcServer, ServerCall

_PATH = "/bench.Echo/Put"
_REQUEST = bytes(300)
_ANSWER = bytes(24)


async def _serve_own() -> None:
    server = GrpcServer()

    def put(_: bytes, __: ServerCall) -> bytes:
        return _ANSWER

    server.unary(_PATH, put)
    _, port = await server.listen_tcp("127.0.0.1", 0)
    print(port, flush=True)
    await asyncio.Event().wait()


async def _serve_peer() -> None:
    import grpc

    async def put(_: bytes, __: object) -> bytes:
        return _ANSWER

    server = grpc.aio.server()
    handlers = {"Put": grpc.unary_unary_rpc_method_handler(put)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bench.Echo", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


async def _load(port: int, connections: int, calls: int, seconds: float) -> float:
    """Return answers a second with `calls` open calls over `connections` connections."""
    channels = [GrpcChannel("127.0.0.1", port) for _ in range(connections)]
    for channel in channels:
        await channel.connect()
    answers = 0
    stopped = False
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    running = calls

    def start(channel: GrpcChannel) -> None:
        channel.unary_future(_PATH, _REQUEST).add_done_callback(lambda future: ended(channel, future))

    def ended(channel: GrpcChannel, future: asyncio.Future[bytes]) -> None:
        nonlocal answers, running
        future.result()
        answers += 1
        if not stopped:
            start(channel)
            return
        running -= 1
        if not running:
            done.set_result(None)

    for number in range(calls):
        start(channels[number % connections])
    await asyncio.sleep(seconds / 5)
    answers, began = 0, time.perf_counter()
    await asyncio.sleep(seconds)
    rate = answers / (time.perf_counter() - began)
    stopped = True
    await done
    for channel in channels:
        await channel.close()
    return rate


@contextlib.contextmanager
def _server(kind: str) -> Iterator[int]:
    """Run one of the servers in a process of its own; yield its port."""
    command = [sys.executable, __file__, "--serve", kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield int(process.stdout.readline())
        finally:
            process.kill()


def _measure(connections: int, calls: int, runs: int, seconds: float) -> tuple[Spread, Spread]:
    """Return answers a second of both servers; their runs alternate, so that both see the same machine."""
    own, peer = [], []
    with _server("own") as own_port, _server("peer") as peer_port:
        for _ in range(runs):
            own.append(run(_load(own_port, connections, calls, seconds)))
            peer.append(run(_load(peer_port, connections, calls, seconds)))
    return Spread.of(own), Spread.of(peer)


def main() -> None:
    """Print one figure."""
    if sys.argv[1:2] == ["--serve"]:
        run(_serve_own() if sys.argv[2] == "own" else _serve_peer())
        return
    options = arguments(__doc__)
    runs, seconds = (1, 0.5) if options.quick else (3, 2.0)
    own, peer = _measure(8, 256, runs, seconds)
    own_single, peer_single = _measure(64, 64, runs, seconds)
    report(
        "grpc_unary",
        own,
        "calls/s",
        peer=f"grpc.aio {importlib.metadata.version('grpcio')}",
        peer_spread=peer,
        digits=0,
        connections=8,
        calls=256,
        request_bytes=len(_REQUEST),
        one_call_on_each_of_64_connections=own_single.median,
        peer_one_call_on_each_of_64_connections=peer_single.median,
    )


if __name__ == "__main__":
    main()
