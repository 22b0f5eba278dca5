"""The gateway over HTTP/2 in cleartext: small requests a second of a core, and large bodies, beside HAProxy and nginx.

Goals: 10,000 small requests/s of a core; for large bodies 0.9 of HAProxy's throughput and 1.2 of its processor time.
Clients are h2load with 8 connections of 32 streams each for small ones, and one stream for bodies; each proxy is one
process on one core and forwards to the same nginx over HTTP/1.1. Runs alternate between proxies.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from _kit import Spread, arguments, note, report, run
from _peers import free_port
from traffic_http1 import Load, Proxy, nginx, own, processor_seconds, running

_MIB, _GIB = 1 << 20, 1 << 30
_KINDS = (("small", "requests"), ("1 MiB", "GiB"), ("1 GiB", "GiB"))


def _h2load(proxy: Proxy, path: str, *how: str) -> tuple[int, float, float]:
    """Return the requests that were answered, the seconds, and the proxy's processor seconds."""
    before = processor_seconds(proxy.pid)
    command = ["h2load", *how, f"http://127.0.0.1:{proxy.port}/{path}"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = processor_seconds(proxy.pid) - before
    seconds = re.search(r"finished in ([\d.]+)(us|ms|s)", said)
    answered = re.search(r"(\d+) succeeded, (\d+) failed", said)
    if seconds is None or answered is None or int(answered[2]):
        raise RuntimeError(f"{proxy.name}: h2load says:\n{said}")
    return int(answered[1]), float(seconds[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[seconds[2]], used


def _small(proxy: Proxy, seconds: int) -> Load:
    count, took, used = _h2load(proxy, "small", "-c8", "-m32", f"-D{seconds}")
    return Load(count / took, count / used)


def _large(proxy: Proxy, size: int, times: int) -> Load:
    """Ask for bodies one after the other, with windows that do not hold the proxy up."""
    _, took, used = _h2load(proxy, str(size), "-c1", "-m1", f"-n{times}", "-w24", "-W24")
    gib = size * times / _GIB
    return Load(gib / took, gib / used)


def _round(proxy: Proxy, seconds: int) -> list[tuple[str, Load]]:
    return [("small", _small(proxy, seconds)), ("1 MiB", _large(proxy, _MIB, 256)), ("1 GiB", _large(proxy, _GIB, 1))]


def _haproxy(directory: Path, port: int, origin: int) -> list[str]:
    file = directory / "haproxy2.cfg"
    file.write_text(
        "global\n nbthread 1\n maxconn 2000\n"
        "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n option splice-auto\n"
        f"frontend f\n bind 127.0.0.1:{port} proto h2\n option forwardfor\n default_backend b\n"
        f"backend b\n http-reuse always\n server s 127.0.0.1:{origin}\n"
    )
    return ["haproxy", "-f", str(file)]


def _peers(stack: contextlib.AsyncExitStack, directory: Path, origin: int) -> list[Proxy]:
    found = []
    forward = (
        f"upstream u {{ server 127.0.0.1:{origin}; keepalive 64; }} server {{ listen 127.0.0.1:PORT http2;"
        " location / { proxy_pass http://u; proxy_http_version 1.1;"
        " proxy_set_header Connection ''; proxy_set_header X-Forwarded-For $remote_addr;"
        " proxy_max_temp_file_size 0; } }"
    )
    for name in ("nginx", "haproxy"):
        if shutil.which(name) is None:
            note(f"{name} is left out: not installed (apt-get install {name})")
            continue
        port = free_port()
        command = nginx(directory, port, forward) if name == "nginx" else _haproxy(directory, port, origin)
        found.append(Proxy(name, port, stack.enter_context(running(command, port)).pid))
    return found


async def measure(quick: bool, rounds: int) -> None:
    """Run all proxies in turns."""
    missing = [name for name in ("nginx", "h2load") if shutil.which(name) is None]
    if missing:
        note(f"{' and '.join(missing)} is not installed: apt-get install nginx nghttp2-client")
        return
    rounds, seconds = (1, 1) if quick else (rounds, 2)
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for size in (_MIB, _GIB):
            with (directory / str(size)).open("wb") as file:
                file.truncate(size)
        origin = free_port()
        server = (
            f'server {{ listen 127.0.0.1:PORT; location /small {{ return 200 "hello, world"; }} root {directory}; }}'
        )
        stack.enter_context(running(nginx(directory, origin, server), origin))
        proxies = [await stack.enter_async_context(own(origin)), *_peers(stack, directory, origin)]
        figures: dict[tuple[str, str], list[Load]] = {}
        for _ in range(rounds):
            for proxy in proxies:
                for what, load in await asyncio.to_thread(_round, proxy, seconds):
                    figures.setdefault((proxy.name, what), []).append(load)
    for what, unit in _KINDS:
        for name in [each.name for each in proxies[1:]] or [""]:
            for by, suffix in (("by_core", "/s of a core"), ("by_second", "/s")):
                ours, theirs = (
                    Spread.of([getattr(each, by) for each in figures[who, what]])
                    for who in ("pilothouse", name or "pilothouse")
                )
                report(f"traffic http2 {what}", ours, unit + suffix, peer=name or None, peer_spread=theirs, digits=2)


if __name__ == "__main__":
    options = arguments(__doc__, rounds=5)
    run(measure(options.quick, options.rounds))
