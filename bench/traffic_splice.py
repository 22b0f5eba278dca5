"""Which bodies are worth splicing: processor seconds of the gateway per GiB, spliced and copied, by size and transport.

One worker is between nginx and a client that throws away what it gets. It is run twice: spliced from the first byte
on, whatever the threshold, and never. Bodies come over HTTP/1.1 on one connection, and over HTTP/2 (h2c) on one
connection, four streams at a time, with frames of 16, 64 and 256 KiB. What counts is the worker's own processor time,
because a rate by the second depends on what else a machine does; runs of both alternate. `scripts/plot-splice`
draws the figures.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from _kit import Spread, arguments, note, report
from _peers import free_port
from traffic_http1 import nginx, processor_seconds, reachable, running

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_SIZES = (4 * _KIB, 16 * _KIB, 64 * _KIB, 128 * _KIB, 256 * _KIB, _MIB, 4 * _MIB, 64 * _MIB)
_FRAMES = (0, 16 * _KIB, 64 * _KIB, 256 * _KIB)
"""Of HTTP/2; 0 stands for HTTP/1.1."""
_NEVER = 1 << 50
_MOST_BYTES, _MOST_REQUESTS = 256 * _MIB, 2000
"""Of one run, so that it takes about a second."""

_WORKER = """
import socket, sys
from pilothouse.traffic.config import Backend, Configuration, Endpoint, HttpRoute, HttpRule, Listener, Weighted
from pilothouse.traffic.plane import bodies2
from pilothouse.traffic.plane.worker import Worker
port, origin, least = map(int, sys.argv[1:])
bodies2._LEAST_BYTES = 0, 0
worker = Worker(seed=1, told=lambda event, facts: None, splice_least=least)
worker.listen(socket.create_server(("127.0.0.1", port)), "127.0.0.1", port)
worker.take(Configuration(
    generation=1,
    listeners=(Listener(name="web", port=port, protocol="HTTP", address="127.0.0.1"),),
    routes=(HttpRoute(name="bench/r", listeners=("web",), rules=(HttpRule(backends=(Weighted(backend="b"),)),)),),
    backends={"b": Backend(endpoints=(Endpoint(address="127.0.0.1", port=origin),))},
))
worker.reactor.run()
"""
_CLIENT1 = """
import socket, sys
port, size, times = map(int, sys.argv[1:])
nowhere = bytearray(1 << 20)
with socket.create_connection(("127.0.0.1", port)) as sock:
    for _ in range(times):
        sock.sendall(f"GET /{size} HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n".encode())
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            head += sock.recv(4096)
        left = size - len(head.partition(b"\\r\\n\\r\\n")[2])
        while left:
            came = sock.recv_into(nowhere, min(left, len(nowhere)), socket.MSG_TRUNC)
            if not came:
                raise ConnectionError(f"{left} bytes are missing")
            left -= came
"""
_CLIENT2 = """
import socket, struct, sys
port, size, times, most = map(int, sys.argv[1:])
ALL = (1 << 31) - 1
def frame(kind, flags, stream, payload):
    return struct.pack(">HBBBI", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload
path = b"/%d" % size
head = b"\\x82\\x86\\x41\\x01a\\x04" + bytes([len(path)]) + path  # GET, http, authority, path; see RFC 7541
with socket.create_connection(("127.0.0.1", port)) as sock:
    settings = frame(4, 0, 0, struct.pack(">HIHI", 4, ALL, 5, most)) + frame(4, 1, 0, b"")
    window = frame(8, 0, 0, struct.pack(">I", ALL - 65_535))
    sock.sendall(b"PRI * HTTP/2.0\\r\\n\\r\\nSM\\r\\n\\r\\n" + settings + window)
    asked = done = total = credit = skip = 0
    buffer = bytearray(1 << 20)
    view, held = memoryview(buffer), 0
    while done < times:
        while asked < times and asked - done < 4:
            sock.sendall(frame(1, 5, 2 * asked + 1, head))
            asked += 1
        came = sock.recv_into(view[held:])
        if not came:
            raise ConnectionError(f"{times - done} bodies are missing")
        end, at = held + came, 0
        while True:
            taken = min(skip, end - at)
            at, skip = at + taken, skip - taken
            if skip or end - at < 9:
                break
            high, low, kind, flags, stream = struct.unpack_from(">HBBBI", buffer, at)
            at, skip = at + 9, high << 8 | low
            if kind == 0:
                total, credit = total + skip, credit + skip
            if kind in (3, 7):
                raise ConnectionError("reset")
            done += kind in (0, 1) and flags & 1
        view[: end - at] = bytes(view[at:end])
        held = end - at
        if credit > 1 << 28:
            sock.sendall(frame(8, 0, 0, struct.pack(">I", credit)))
            credit = 0
    if total != size * times:
        raise ConnectionError(f"{total} bytes came")
"""


class Proxy(NamedTuple):
    """A worker. pid: of its process."""

    port: int
    pid: int


@contextlib.contextmanager
def worker(origin: int, least: int) -> Iterator[Proxy]:
    """Run a worker that splices from so many bytes on."""
    port = free_port()
    command = [sys.executable, "-c", _WORKER, str(port), str(origin), str(least)]
    with running(command, port) as process:
        yield Proxy(port, process.pid)


def cost(proxy: Proxy, size: int, frame: int, most: int) -> float:
    """Return the worker's processor seconds per GiB of bodies of a size. most: bytes of the run."""
    times = max(4, min(most // size, _MOST_REQUESTS))
    client = [_CLIENT2, str(proxy.port), str(size), str(times), str(frame)] if frame else []
    client = client or [_CLIENT1, str(proxy.port), str(size), str(times)]
    before = processor_seconds(proxy.pid)
    subprocess.run([sys.executable, "-c", *client], check=True, timeout=60)
    return (processor_seconds(proxy.pid) - before) / (size * times / _GIB)


def _measure(spliced: Proxy, copied: Proxy, rounds: int, most: int) -> None:
    for frame in _FRAMES:
        for size in _SIZES:
            found: dict[Proxy, list[float]] = {spliced: [], copied: []}
            for _ in range(rounds):
                for proxy, costs in found.items():
                    costs.append(cost(proxy, size, frame, most))
            transport = f"http2 frames of {frame // _KIB} KiB" if frame else "http1"
            report(
                f"traffic splice {transport} bodies of {size // _KIB} KiB",
                Spread.of(found[spliced]),
                "processor s/GiB",
                peer="copied",
                peer_spread=Spread.of(found[copied]),
                digits=3,
                frame_bytes=frame,
                body_bytes=size,
            )


def measure(quick: bool, rounds: int) -> None:
    """Run both in turns."""
    if shutil.which("nginx") is None:
        note("nginx is not installed: apt-get install nginx")
        return
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for size in _SIZES:
            with (directory / str(size)).open("wb") as file:
                file.truncate(size)
        origin = free_port()
        server = f"server {{ listen 127.0.0.1:PORT; root {directory}; keepalive_requests 10000000; }}"
        stack.enter_context(running(nginx(directory, origin, server), origin))
        reachable(origin)
        spliced, copied = (stack.enter_context(worker(origin, least)) for least in (1, _NEVER))
        for proxy in (spliced, copied):
            cost(proxy, _MIB, 0, 16 * _MIB)  # its first connection to the backend is made
        _measure(spliced, copied, 1 if quick else rounds, 32 * _MIB if quick else _MOST_BYTES)


if __name__ == "__main__":
    options = arguments(__doc__, rounds=3)
    measure(options.quick, options.rounds)
