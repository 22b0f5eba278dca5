"""An HTTP server on a free port, and peers that speak to it byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pilothouse.apiserver.http import HttpLimits, HttpServer
from pilothouse.apiserver.model import Answer, Handler, Request, Response
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.tls import issue, make_ca, server_context, write

__all__ = ["Authority", "Client", "Recorder", "Wire", "serving"]


@dataclass
class Recorder:
    """A handler that answers with what it was asked, and remembers."""

    requests: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Answer:
        self.requests.append(request)
        return Response(200, f"{request.method} {request.path} {len(request.body)}".encode(), content_type="text/plain")


@contextlib.asynccontextmanager
async def serving(
    handler: Handler,
    *,
    limits: HttpLimits | None = None,
    clock: Clock | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[tuple[HttpServer, int]]:
    """Run a server; yield it with its port."""
    server = HttpServer(handler, tls=tls, limits=limits, clock=clock)
    _, port = await server.start("127.0.0.1", 0)
    try:
        yield server, port
    finally:
        await server.close(0)


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, port: int, **options: Any) -> Client:
        return cls(*await asyncio.open_connection("127.0.0.1", port, **options))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of an answer."""
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.partition(": ") for line in lines[1:] if line)
        return int(lines[0].split(" ")[1]), {name.lower(): value for name, _, value in pairs}

    async def answer(self, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
        """Read a whole answer with a length or in chunks."""
        status, headers = await self.head()
        if method == "HEAD" or status in {204, 304}:
            return status, headers, b""
        if "content-length" in headers:
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))
        body = b""
        while piece := await self.chunk():
            body += piece
        return status, headers, body

    async def chunk(self) -> bytes:
        """Read one chunk; the last one is empty."""
        size = int((await self.reader.readuntil(b"\r\n"))[:-2], 16)
        return (await self.reader.readexactly(size + 2))[:-2]

    async def get(self, path: str = "/") -> tuple[int, dict[str, str], bytes]:
        await self.send(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        return await self.answer()

    async def rest(self) -> bytes:
        """Read until the connection ends, however it does."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


class Authority:
    """A CA with a server's and a client's certificate, as files."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.ca = make_ca("test ca")
        self.ca_path = str(directory / "ca.crt")
        write(self.ca, self.ca_path, str(directory / "ca.key"))
        self.client = self.issue("ann", client=True)
        self.server = self.issue("server", server=True)

    def issue(self, name: str, *, client: bool = False, server: bool = False) -> tuple[str, str]:
        paths = str(self.directory / f"{name}.crt"), str(self.directory / f"{name}.key")
        hosts = ["127.0.0.1", "localhost"] if server else []
        write(issue(self.ca, name, hosts=hosts, server=server, client=client), *paths)
        return paths

    def context(self) -> ssl.SSLContext:
        """Return a server's context that takes client certificates where they are shown."""
        return server_context(*self.server, client_ca=self.ca_path, client_required=False)


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def can_write_eof(self) -> bool:
        return False
