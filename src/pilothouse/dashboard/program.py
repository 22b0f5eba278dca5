"""The dashboard as a program: its certificate, its address and the time it runs."""

from __future__ import annotations

import asyncio
import gc
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pilothouse.apiserver.http import HttpLimits, HttpServer
from pilothouse.client.config import ClientConfig
from pilothouse.foundation import tls
from pilothouse.foundation.certificates import kept_certificate
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """What a dashboard is told. host, port: where it listens. tls: its certificate. said: called with its address.

    numbers, compares: see `Dashboard`.
    """

    config: ClientConfig = field(repr=False)
    host: str
    port: int
    tls: ssl.SSLContext
    numbers: Numbers | None = None
    compares: bool = False
    said: Callable[[str], object]


def certificate_in(directory: Path, host: str, pki: Path | None = None) -> ssl.SSLContext:
    """Return a context with the certificate that is kept in a directory; it is made, or made anew, where needed.

    pki: a directory with `ca.crt` and `ca.key` of the cluster, which sign it; where they are not, an authority of its
    own does, `dashboard-ca.crt`, which browsers can be told to trust. Raises TlsError, and OSError.
    """
    return tls.server_context(*kept_certificate(directory, "dashboard", host, pki))


async def serve(options: ServeOptions, lifeline: Lifeline | None = None) -> None:
    """Serve until SIGTERM, SIGINT or the end of who supervises it. Raises OSError where the address cannot be had."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    async with Dashboard(options.config, numbers=options.numbers, compares=options.compares) as dashboard:
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
