"""The gateway over HTTP/1.1: small requests a second of one core, and large bodies, beside HAProxy, nginx and asyncio.

Each proxy is one process on one core that forwards to the same nginx; wrk asks for 12 bytes over 32 connections, with
heads that are all the same and with heads that all differ, and a client that throws away what it gets asks for bodies
of 1 MiB and 1 GiB over one connection. A rate by the second depends on what else a machine does, so a core's is given
as requests by second of the proxy's own processor time; so is the work of a GiB. Runs alternate between proxies; what
is not installed is left out with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from _kit import Spread, arguments, note, report, run
from _peers import free_port
from pilothouse.traffic.config import Backend, Configuration, Endpoint, HttpRoute, HttpRule, Listener, Weighted
from pilothouse.traffic.gateway import Gateway, GatewayOptions
from pilothouse.traffic.plane.wires import SPLICE_LEAST

_SMALL = "hello, world"
_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_NEVER = 1 << 50
_VARIED = """local n = 0
request = function()
  n = n + 1
  return wrk.format("GET", "/small?" .. n, {["X-Request-Id"] = "r" .. n, ["Cookie"] = "s=" .. n, ["Accept"] = "*/*"})
end
"""
_CLIENT = """
import socket, sys, time
port, size, times = map(int, sys.argv[1:])
nowhere = bytearray(1 << 20)
with socket.create_connection(("127.0.0.1", port)) as sock:
    begun = time.perf_counter()
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
    print(time.perf_counter() - begun)
"""
_ASYNCIO = """
import asyncio, sys
import uvloop
async def relay(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()
async def serve(reader, writer):
    to_reader, to_writer = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(relay(reader, to_writer), relay(to_reader, writer), return_exceptions=True)
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
uvloop.run(main())
"""


_SIZES = (16 * _KIB, 32 * _KIB, 64 * _KIB, 128 * _KIB, 256 * _KIB, _MIB, 16 * _MIB)


class Proxy(NamedTuple):
    """A running proxy. pid: of the process that forwards."""

    name: str
    port: int
    pid: int


def processor_seconds(pid: int) -> float:
    """Return what a process has used, by the scheduler's count, which is finer than the clock's ticks."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def reachable(port: int) -> None:
    """Wait until somebody listens."""
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if time.monotonic() > end:
            raise TimeoutError(f"nobody listens at {port}")
        time.sleep(0.05)


@contextlib.contextmanager
def running(command: list[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            reachable(port)
            yield process
        finally:
            process.terminate()


def nginx(directory: Path, port: int, server: str) -> list[str]:
    """Return the command of an nginx of one process with this server."""
    file = directory / f"nginx-{port}.conf"
    file.write_text(
        f"daemon off; master_process off; pid {directory}/nginx-{port}.pid; error_log {directory}/error.log;\n"
        "events { worker_connections 4096; }\n"
        "http { access_log off; keepalive_requests 1000000000; client_max_body_size 0; sendfile on;\n"
        f"{server} }}\n".replace("PORT", str(port))
    )
    return ["nginx", "-c", str(file)]


def haproxy(directory: Path, port: int, origin: int) -> list[str]:
    """Return the command of a HAProxy of one thread that splices where it sees fit."""
    file = directory / "haproxy.cfg"
    file.write_text(
        "global\n nbthread 1\n maxconn 2000\ndefaults\n mode http\n timeout connect 5s\n timeout client 60s\n"
        " timeout server 60s\n option splice-auto\n option splice-request\n option splice-response\n"
        f"frontend f\n bind 127.0.0.1:{port}\n option forwardfor\n default_backend b\n"
        f"backend b\n http-reuse always\n server s 127.0.0.1:{origin}\n"
    )
    return ["haproxy", "-f", str(file)]


class Load(NamedTuple):
    """One run: requests or GiB by second, and by second of the proxy's processor time."""

    by_second: float
    by_core: float


def small(proxy: Proxy, seconds: float, script: Path | None = None) -> Load:
    """Ask for a few bytes, with wrk; script: makes each request another."""
    before = processor_seconds(proxy.pid)
    command = ["wrk", "-t1", "-c32", f"-d{seconds:g}s", f"http://127.0.0.1:{proxy.port}/small"]
    command += ["-s", str(script)] if script is not None else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    used = processor_seconds(proxy.pid) - before
    count = int(re.search(r"(\d+) requests in", done.stdout)[1])  # type: ignore[index]
    if "Non-2xx" in done.stdout:
        note(f"{proxy.name}: answers other than 200: {done.stdout}")
    return Load(count / seconds, count / used)


def large(proxy: Proxy, size: int, times: int) -> Load:
    """Ask for a large body a few times over one connection, in a process that throws it away in the kernel."""
    before = processor_seconds(proxy.pid)
    command = [sys.executable, "-c", _CLIENT, str(proxy.port), str(size), str(times)]
    seconds = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    used = processor_seconds(proxy.pid) - before
    gib = size * times / _GIB
    return Load(gib / seconds, gib / used)


@contextlib.asynccontextmanager
async def own(origin: int, splice_least: int = SPLICE_LEAST) -> AsyncIterator[Proxy]:
    """Run a gateway of one worker."""
    port = free_port()
    gateway = Gateway(GatewayOptions(workers=1, splice_least=splice_least))
    await gateway.start()
    await gateway.push(
        Configuration(
            generation=1,
            listeners=(Listener(name="web", port=port, protocol="HTTP", address="127.0.0.1"),),
            routes=(
                HttpRoute(name="bench/r", listeners=("web",), rules=(HttpRule(backends=(Weighted(backend="b"),)),)),
            ),
            backends={"b": Backend(endpoints=(Endpoint(address="127.0.0.1", port=origin),))},
        )
    )
    try:
        names = {SPLICE_LEAST: "pilothouse", _NEVER: "pilothouse, copied"}
        yield Proxy(names.get(splice_least, "pilothouse, spliced"), port, gateway.pids[0])
    finally:
        await gateway.stop(drain=False)


def _round(proxy: Proxy, seconds: float, varied: Path) -> list[tuple[str, Load]]:
    loads = [("1 MiB", large(proxy, _MIB, 256)), ("1 GiB", large(proxy, _GIB, 1))]
    if proxy.name != "pilothouse, copied":
        loads += [("small", small(proxy, seconds)), ("small, varied", small(proxy, seconds, varied))]
    return loads


async def measure(quick: bool, rounds: int) -> None:
    """Run all proxies in turns."""
    if shutil.which("nginx") is None or shutil.which("wrk") is None:
        note("nginx or wrk is not installed: apt-get install nginx wrk")
        return
    rounds, seconds = (1, 1.0) if quick else (rounds, 2.0)
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (directory / "varied.lua").write_text(_VARIED)
        for size in (*_SIZES, _GIB):
            _empty(directory / str(size), size)
        origin = free_port()
        answer = f'location /small {{ return 200 "{_SMALL}"; }}'
        server = f"server {{ listen 127.0.0.1:PORT; {answer} root {directory}; }}"
        stack.enter_context(running(nginx(directory, origin, server), origin))
        proxies = [await stack.enter_async_context(own(origin)), await stack.enter_async_context(own(origin, _NEVER))]
        proxies += peers(stack, directory, origin)
        figures: dict[tuple[str, str], list[Load]] = {}
        for _ in range(rounds):
            for proxy in proxies:
                for what, load in await asyncio.to_thread(_round, proxy, seconds, directory / "varied.lua"):
                    figures.setdefault((proxy.name, what), []).append(load)
        await _sizes(origin, rounds)
    for what, unit in (("small", "requests"), ("small, varied", "requests"), ("1 MiB", "GiB"), ("1 GiB", "GiB")):
        ours = figures["pilothouse", what]
        for name in [name for name, each in figures if each == what and name != "pilothouse"]:
            theirs = figures[name, what]
            for by in ("by_core", "by_second"):
                one, other = (Spread.of([getattr(each, by) for each in loads]) for loads in (ours, theirs))
                suffix = "/s of a core" if by == "by_core" else "/s"
                report(f"traffic http1 {what}", one, unit + suffix, peer=name, peer_spread=other, digits=2)


async def _sizes(origin: int, rounds: int) -> None:
    """Say from which size on splice is worth it."""
    async with own(origin, 1) as spliced, own(origin, _NEVER) as copied:
        for size in _SIZES:
            times = max(8, 64 * _MIB // size)
            found: dict[str, list[float]] = {}
            for _ in range(rounds):
                for proxy in (spliced, copied):
                    load = await asyncio.to_thread(large, proxy, size, times)
                    found.setdefault(proxy.name, []).append(load.by_core)
            one, other = (Spread.of(found[proxy.name]) for proxy in (spliced, copied))
            name = f"traffic http1 bodies of {size // _KIB} KiB"
            report(name, one, "GiB/s of a core", peer=copied.name, peer_spread=other, digits=2)


def _empty(path: Path, size: int) -> None:
    with path.open("wb") as file:
        file.truncate(size)


def peers(stack: contextlib.AsyncExitStack, directory: Path, origin: int) -> list[Proxy]:
    """Run nginx, HAProxy and a relay of asyncio streams, until the stack ends; what is not installed is left out."""
    found = []
    forward = (
        f"upstream u {{ server 127.0.0.1:{origin}; keepalive 64; }} server {{ listen 127.0.0.1:PORT;"
        " location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection '';"
        " proxy_set_header X-Forwarded-For $remote_addr; proxy_max_temp_file_size 0; } }"
    )
    commands: dict[str, Callable[[int], list[str]]] = {
        "nginx": lambda port: nginx(directory, port, forward),
        "haproxy": lambda port: haproxy(directory, port, origin),
    }
    for name, command in commands.items():
        if shutil.which(name) is None:
            note(f"{name} is left out: not installed (apt-get install {name})")
            continue
        port = free_port()
        process = stack.enter_context(running(command(port), port))
        found.append(Proxy(name, port, process.pid))
    port = free_port()
    process = stack.enter_context(running([sys.executable, "-c", _ASYNCIO, str(port), str(origin)], port))
    found.append(Proxy("asyncio streams on uvloop", port, process.pid))
    return found


if __name__ == "__main__":
    options = arguments(__doc__, rounds=5)
    run(measure(options.quick, options.rounds))
