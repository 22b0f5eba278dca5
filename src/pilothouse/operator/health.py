"""The operator's own small HTTP server: /healthz, /readyz and /metrics, for probes and Prometheus."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from pilothouse.foundation.logs import get_logger

from .errors import OperatorError

__all__ = ["Check", "HealthServer", "Page", "run_checks"]

Check = Callable[[], str]
"""Says what is wrong; empty if nothing is."""

_MAX_HEAD: Final = 8_192
_HEAD_SECONDS: Final = 5.0
_MAX_CONNECTIONS: Final = 64
_REASONS: Final = {
    200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 500: "Internal Server Error",
}  # fmt: skip

_log = get_logger("pilothouse.operator.health")


class Page(NamedTuple):
    """An answer."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"


def run_checks(name: str, checks: Mapping[str, Check], *, verbose: bool = False) -> Page:
    """Run checks and say, as Kubernetes' own servers do, which of them fail. One that raises fails."""
    found = {check: _problem(function) for check, function in checks.items()}
    failed = any(found.values())
    if not failed and not verbose:
        return Page(200, b"ok")
    lines = [f"[-]{check} failed: {problem}" if problem else f"[+]{check} ok" for check, problem in found.items()]
    lines.append(f"{name} check {'failed' if failed else 'passed'}")
    return Page(500 if failed else 200, "\n".join(lines).encode() + b"\n")


def _problem(check: Check) -> str:
    try:
        return check()
    except Exception as error:  # noqa: BLE001  a check that cannot be run is one that fails
        return repr(error)


class HealthServer:
    """Serves pages by path to GET requests, one a connection.

    address: HOST:PORT; port 0 takes a free one, see `port`. tls: for any host that is not loopback; plain text is
    refused there. Raises ValueError for an address that is none or wants TLS; OperatorError where it cannot listen.
    """

    def __init__(
        self, address: str, pages: Mapping[str, Callable[[bool], Page]], tls: ssl.SSLContext | None = None
    ) -> None:
        host, _, port = address.rpartition(":")
        self.host: Final = host.strip("[]")
        if not self.host or not port.isdecimal() or int(port) > 65_535:
            raise ValueError(f"health address {address!r}: want HOST:PORT, such as 127.0.0.1:8081")
        if tls is None and not _is_loopback(self.host):
            raise ValueError(
                f"health address {address}: plain text is for loopback only; pass `health_tls`, an SSL context made by "
                "pilothouse.foundation.tls, or listen on 127.0.0.1"
            )
        self.port = int(port)
        self._pages = pages
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Begin to listen."""
        try:
            self._server = await asyncio.start_server(self._serve, self.host, self.port, ssl=self._tls, limit=_MAX_HEAD)
        except OSError as error:
            raise OperatorError(
                f"health address {self.host}:{self.port}: cannot listen there ({error}); choose another one"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End the listening and all connections at once."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        for writer in list(self._open):
            writer.transport.abort()
        await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= _MAX_CONNECTIONS:
            writer.transport.abort()
            return
        self._open.add(writer)
        try:
            async with asyncio.timeout(_HEAD_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
                page = self._answer(head)
                writer.write(
                    f"HTTP/1.1 {page.status} {_REASONS[page.status]}\r\ncontent-type: {page.content_type}\r\n"
                    f"content-length: {len(page.body)}\r\nconnection: close\r\n\r\n".encode()
                )
                writer.write(b"" if head.startswith(b"HEAD ") else page.body)
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            writer.transport.abort()
        finally:
            self._open.discard(writer)

    def _answer(self, head: bytes) -> Page:
        parts = head.partition(b"\r\n")[0].split(b" ")
        if len(parts) != 3 or not parts[2].startswith(b"HTTP/1."):
            return Page(400, b"not an HTTP request\n")
        if parts[0] not in {b"GET", b"HEAD"}:
            return Page(405, b"GET and HEAD are answered here\n")
        path, _, query = parts[1].decode("latin-1").partition("?")
        page = self._pages.get(path)
        if page is None:
            return Page(404, f"there are: {' '.join(self._pages)}\n".encode())
        try:
            return page("verbose" in query)
        except Exception as error:  # noqa: BLE001  the next request may go well
            _log.error("page failed", path=path, error=repr(error))
            return Page(500, b"this page failed; the log says why\n")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
