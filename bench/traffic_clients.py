"""The gateway with many clients: latency at half of what one worker can do, and memory with 10,000 idle connections.

Goals: p99 <= 5 ms at half load over HTTP/1.1, 10,000 idle connections <= 150 MB (parent and worker together). Load is
h2load's with a fixed rate over 32 connections, after a run that says what the worker can do; each idle connection has
asked once and is kept. nginx and HAProxy stand beside it where they are installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from _kit import arguments, fraction, note, report, resident_bytes, run
from _peers import free_port
from traffic_http1 import Proxy, nginx, own, peers, running

_CLIENTS = 32
_IDLE = 10_000
_HOLDER = """
import socket, sys
port, count = map(int, sys.argv[1:])
held = []
for _ in range(count):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(b"GET /small HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    sock.recv(4096)
    held.append(sock)
print("held", flush=True)
sys.stdin.read()
"""


def _can_do(proxy: Proxy, seconds: int) -> float:
    """Return the requests a second that a proxy answers when it is asked as fast as it goes."""
    command = ["h2load", "--h1", f"-c{_CLIENTS}", "-m1", f"-D{seconds}", f"http://127.0.0.1:{proxy.port}/small"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r", ([\d.]+) req/s", said)
    if found is None:
        raise RuntimeError(f"{proxy.name}: h2load says:\n{said}")
    return float(found[1])


def _latencies(proxy: Proxy, rate: float, seconds: int, log: Path) -> list[float]:
    """Return how long requests took, in seconds, sorted, at this many a second."""
    each = max(1, round(rate / _CLIENTS))
    command = ["h2load", "--h1", f"-c{_CLIENTS}", "-m1", f"-D{seconds}", f"--rps={each}", f"--log-file={log}"]
    subprocess.run([*command, f"http://127.0.0.1:{proxy.port}/small"], capture_output=True, check=True)
    return sorted(int(line.split("\t")[2]) / 1e6 for line in log.read_text().splitlines())


def _half_load(proxy: Proxy, seconds: int, directory: Path) -> None:
    most = _can_do(proxy, seconds)
    log = directory / "latencies"
    log.unlink(missing_ok=True)
    took = _latencies(proxy, most / 2, seconds, log)
    report(
        "traffic clients p99 at half load",
        fraction(took, 0.99) * 1e3,
        "ms",
        digits=2,
        p50=fraction(took, 0.5) * 1e3,
        rate=len(took) / seconds,
        most=most,
        proxy=proxy.name,
    )


def _idle(proxy: Proxy, pids: list[int], count: int) -> None:
    before = sum(resident_bytes(pid) for pid in pids)
    command = [sys.executable, "-c", _HOLDER, str(proxy.port), str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        if holder.stdout.readline() != b"held\n":
            raise RuntimeError("connections could not be held: ulimit -n?")
        after = sum(resident_bytes(pid) for pid in pids)
        holder.communicate(b"")
    grown = (after - before) / count
    report("traffic clients idle", after / 1e6, "MB", connections=count, bytes_each=grown, before_mb=before / 1e6)


async def measure(quick: bool, seconds: int) -> None:
    """Measure the gateway, then the peers' latency."""
    missing = [name for name in ("nginx", "h2load") if shutil.which(name) is None]
    if missing:
        note(f"{' and '.join(missing)} is not installed: apt-get install nginx nghttp2-client")
        return
    seconds, idle = (1, 500) if quick else (seconds, _IDLE)
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        origin = free_port()
        server = 'server { listen 127.0.0.1:PORT; location /small { return 200 "hello, world"; } }'
        stack.enter_context(running(nginx(directory, origin, server), origin))
        ours = await stack.enter_async_context(own(origin))
        for proxy in (ours, *peers(stack, directory, origin)):
            await asyncio.to_thread(_half_load, proxy, seconds, directory)
        await asyncio.to_thread(_idle, ours, [os.getpid(), ours.pid], idle)


if __name__ == "__main__":
    options = arguments(__doc__, seconds=5)
    run(measure(options.quick, options.seconds))
