"""The dashboard as a program: its certificate, its address and the time it runs."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pilothouse.apiserver.http import HttpLimits, HttpServer
from pilothouse.client.config import ClientConfig
from pilothouse.foundation import tls
from pilothouse.foundation.addresses import own_addresses
from pilothouse.foundation.lifeline import Lifeline

from .numbers import Numbers
from .server import Dashboard

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

__all__ = ["ServeOptions", "certificate_in", "serve"]

_LIMITS: Final = HttpLimits(
    http2=True, max_connections=512, max_body_bytes=128 << 10, max_head_bytes=32 << 10, body_seconds=15.0
)
_DAYS: Final = 365
_RENEW_SECONDS: Final = 300 * 86_400.0
_FILES: Final = ("dashboard.crt", "dashboard.key")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What a dashboard is told. host, port: where it listens. tls: its certificate. said: called with its address."""

    config: ClientConfig = field(repr=False)
    host: str
    port: int
    tls: ssl.SSLContext
    numbers: Numbers | None = None
    said: Callable[[str], object]


def certificate_in(directory: Path, host: str, pki: Path | None = None) -> ssl.SSLContext:
    """Return a context with the certificate that is kept in a directory; it is made, or made anew, where needed.

    pki: a directory with `ca.crt` and `ca.key` of the cluster, which sign it; where they are not, an authority of its
    own does, `dashboard-ca.crt`, which browsers can be told to trust. Raises TlsError, and OSError.
    """
    certificate, key = (str(directory / name) for name in _FILES)
    stamp = directory / "dashboard.hosts"
    hosts = sorted({"localhost", "127.0.0.1", "::1", *own_addresses(), *([host] if host not in {"", "::"} else [])})
    hosts = [each for each in hosts if each != "0.0.0.0"]  # noqa: S104  # left out
    known = stamp.read_text(encoding="utf-8").split() if stamp.is_file() and Path(key).is_file() else []
    if known != hosts or not _is_young(Path(certificate)):
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = _authority(directory, pki)
        issued = tls.issue(authority, "pilothouse-dashboard", hosts=hosts, server=True, days=_DAYS)
        chained = tls.Credentials(issued.certificate + authority.certificate, issued.key)
        tls.write(chained, certificate, key)
        stamp.write_text("\n".join(hosts), encoding="utf-8")
    return tls.server_context(certificate, key)


def _is_young(path: Path) -> bool:
    import time  # noqa: PLC0415  # a file's age is the machine's time

    try:
        return time.time() - path.stat().st_mtime < _RENEW_SECONDS
    except OSError:
        return False


def _authority(directory: Path, pki: Path | None) -> tls.Credentials:
    own = directory / "dashboard-ca.crt", directory / "dashboard-ca.key"
    given = (pki / "ca.crt", pki / "ca.key") if pki is not None else own
    pair = given if all(os.access(each, os.R_OK) for each in given) else own
    if pair == own and not all(each.is_file() for each in own):
        tls.write(tls.make_ca("pilothouse-dashboard-ca"), str(own[0]), str(own[1]))
    return tls.Credentials(pair[0].read_bytes(), pair[1].read_bytes())


async def serve(options: ServeOptions, lifeline: Lifeline | None = None) -> None:
    """Serve until SIGTERM, SIGINT or the end of who supervises it. Raises OSError where the address cannot be had."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with Dashboard(options.config, numbers=options.numbers) as dashboard:
        server = HttpServer(dashboard.handle, tls=options.tls, limits=_LIMITS)
        _, port = await server.start(options.host, options.port)
        shown = f"[{options.host}]" if ":" in options.host else options.host
        url = f"https://{shown}:{port}"
        options.said(url)
        gc.freeze()
        if lifeline is not None:
            lifeline.watch(ended.set)
            lifeline.ready(dashboard=url)
        await ended.wait()
        await server.close(0.5)
