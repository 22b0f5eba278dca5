"""Connections for upgrades: dial a server, send the request's head, read the answer's, then bytes both ways."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from pilothouse.apiserver.model import Answer, Duplex, Response, UpgradeResponse
from pilothouse.kinds.status import ServiceUnavailable, Unknown

__all__ = ["Dialed", "dial", "dial_error", "send_upgrade"]

CONNECT_SECONDS: Final = 30.0
_HEAD_SECONDS: Final = 30.0
_REFUSAL_SECONDS: Final = 10.0
_MAX_HEAD: Final = 1 << 16
_MAX_REFUSAL: Final = 1 << 20
_CHUNK: Final = 1 << 16
_OWN: Final = frozenset({"content-length", "date", "transfer-encoding", "connection", "content-type", "keep-alive"})


def dial_error(host: str, port: int, error: BaseException) -> str:
    """Say why a server could not be reached, as Go says it."""
    where = f"dial tcp {f'[{host}]' if ':' in host else host}:{port}"
    if isinstance(error, ConnectionRefusedError):
        return f"{where}: connect: connection refused"
    if isinstance(error, TimeoutError):
        return f"{where}: i/o timeout"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"tls: failed to verify certificate: x509: {error.verify_message}"
    return f"{where}: {error}" if str(error) else f"{where}: {type(error).__name__}"


@dataclass(slots=True)
class Dialed:
    """A connection whose answer's head is read."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    head: bytes = b""

    async def splice(self, duplex: Duplex) -> None:
        """Carry bytes both ways until either side ends."""
        tasks = [asyncio.create_task(self._up(duplex)), asyncio.create_task(self._down(duplex))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self.writer.close()

    async def _up(self, duplex: Duplex) -> None:
        while data := await duplex.read():
            self.writer.write(data)
            await self.writer.drain()

    async def _down(self, duplex: Duplex) -> None:
        while data := await self.reader.read(_CHUNK):
            duplex.write(data)
            await duplex.drain()


async def dial(
    host: str, port: int, tls: ssl.SSLContext | None, server_name: str, *, seconds: float = CONNECT_SECONDS
) -> Dialed:
    """Connect. Raises ServiceUnavailable with Kubernetes' text."""
    name = (server_name or host) if tls is not None else None
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_connection(host, port, ssl=tls, server_hostname=name, limit=_MAX_HEAD)
    except (OSError, TimeoutError) as error:
        raise Unknown(f"error dialing backend: {dial_error(host, port, error)}", code=500) from error
    return Dialed(reader, writer)


async def request_upgrade(dialed: Dialed, method: str, path: str, headers: Sequence[tuple[str, str]]) -> None:
    """Send the request's head and read the answer's. Raises a Status where there is none that can be read."""
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
    if any("\r" in line or "\n" in line for line in lines):
        raise Unknown("error sending request: a header with a line end", code=500)
    try:
        dialed.writer.write("\r\n".join(lines).encode("latin-1", "replace"))
        async with asyncio.timeout(_HEAD_SECONDS):
            await dialed.writer.drain()
            dialed.head = await dialed.reader.readuntil(b"\r\n\r\n")
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        dialed.writer.close()
        raise Unknown(
            f"error dialing backend: no answer to the upgrade: {str(error) or 'timeout'}", code=500
        ) from error
    import httptools  # noqa: PLC0415 - idle servers parse no answers

    collected = _Collected()
    parser = httptools.HttpResponseParser(collected)
    try:
        parser.feed_data(dialed.head)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        raise Unknown(f"invalid upgrade response: {error}", code=500) from error
    dialed.status = parser.get_status_code()
    dialed.headers = collected.headers


async def send_upgrade(dialed: Dialed, method: str, path: str, headers: Sequence[tuple[str, str]]) -> Answer:
    """Ask for the upgrade; the answer carries the connection where it was granted, else what the server said."""
    granted = False
    try:
        await request_upgrade(dialed, method, path, headers)
        if dialed.status == 101:
            granted = True
            return UpgradeResponse(dialed.splice, [pair for pair in dialed.headers if pair[0].lower() != "date"])
        if dialed.status < 400:
            raise Unknown(f"invalid upgrade response: status code {dialed.status}", code=500)
        return await read_refusal(dialed)
    finally:
        if not granted:
            dialed.writer.close()


async def read_refusal(dialed: Dialed) -> Response:
    """Read the rest of an answer that refuses the upgrade; one that is long is cut."""
    import httptools  # noqa: PLC0415 - idle servers parse no answers

    collected = _Collected()
    parser = httptools.HttpResponseParser(collected)
    try:
        parser.feed_data(dialed.head)
        async with asyncio.timeout(_REFUSAL_SECONDS):
            while not collected.complete and collected.size < _MAX_REFUSAL:
                data = await dialed.reader.read(_CHUNK)
                if not data:
                    break
                parser.feed_data(data)
    except (OSError, TimeoutError, httptools.HttpParserError) as error:
        raise ServiceUnavailable(f"error trying to reach service: {str(error) or 'timeout'}") from error
    kind = next((value for name, value in dialed.headers if name.lower() == "content-type"), "text/plain")
    headers = [(name, value) for name, value in dialed.headers if name.lower() not in _OWN]
    return Response(dialed.status, b"".join(collected.body), headers, kind)


class _Collected:
    """What httptools tells of one answer."""

    def __init__(self) -> None:
        self.headers: list[tuple[str, str]] = []
        self.body: list[bytes] = []
        self.size = 0
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self.headers.append((name.decode("latin-1"), value.decode("latin-1")))

    def on_body(self, data: bytes) -> None:
        """Take part of the body."""
        self.body.append(data)
        self.size += len(data)

    def on_message_complete(self) -> None:
        """Take note of the end."""
        self.complete = True
