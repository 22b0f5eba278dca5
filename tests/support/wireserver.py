"""TCP servers that answer clients byte by byte as a test says, also wrongly, slowly or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

__all__ = ["Asked", "Conversation", "WireServer", "answer_of", "wire_server"]


@dataclass
class Asked:
    """A request as it came."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for found, value in self.headers if found == name), "")


def answer_of(status: int, body: bytes = b"{}", *, content_type: str = "application/json", **headers: str) -> bytes:
    """Write an answer with its length."""
    more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


class Conversation:
    """One connection, seen from the server."""

    def __init__(self, server: WireServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server, self.reader, self.writer = server, reader, writer

    async def request(self) -> Asked | None:
        """Read a request; None at the end."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = [(line.partition(": ")[0].lower(), line.partition(": ")[2]) for line in lines if line]
        asked = Asked(method, target, headers, b"")
        if length := int(asked.header("content-length") or 0):
            asked.body = await self.reader.readexactly(length)
        self.server.requests.append(asked)
        return asked

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def chunk(self, data: bytes) -> None:
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))

    async def silence(self) -> None:
        """Say nothing, until the client goes."""
        while await self.reader.read(65536):
            pass
        self.server.gone.set()


@dataclass
class WireServer:
    """What reached the server."""

    port: int = 0
    scheme: str = "http"
    connections: int = 0
    requests: list[Asked] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def wire_server(
    converse: Callable[[Conversation], Awaitable[object]], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[WireServer]:
    """Have `converse` called with each connection, which ends when it returns."""
    found = WireServer(scheme="https" if tls else "http")
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        found.connections += 1
        try:
            await converse(Conversation(found, reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.sleep(0)
