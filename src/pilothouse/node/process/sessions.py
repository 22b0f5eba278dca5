"""Streams of commands and containers: pipes and terminals whose other ends the pod's processes hold themselves."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Awaitable, Callable

from pilothouse.node.runtime import Session

__all__ = ["Connection", "ProcessSession", "reader_of", "writer_of"]

_LIMIT = 64 << 10


class _Reading(asyncio.StreamReaderProtocol):
    """A terminal that is closed by its program ends with an error; here that is the end like any other."""

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(None)


async def reader_of(fd: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    """Return a reader of a descriptor, which is the transport's from now on."""
    reader = asyncio.StreamReader(limit=_LIMIT)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: _Reading(reader), os.fdopen(fd, "rb", 0))
    return reader, transport


async def writer_of(fd: int) -> asyncio.StreamWriter:
    """Return a writer to a descriptor, which is its from now on."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, protocol = await loop.connect_write_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "wb", 0)
    )
    return asyncio.StreamWriter(transport, protocol, None, loop)


class ProcessSession(Session):
    """A session over descriptors. `code` waits for the exit code, `end` is what closing does beside the streams."""

    def __init__(self, code: Callable[[], Awaitable[int]], end: Callable[[], Awaitable[None]]) -> None:
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self._code = code
        self._end = end
        self._writer: asyncio.StreamWriter | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._terminal = -1
        self._resize: Callable[[int, int], Awaitable[None]] | None = None

    async def connect(self, stdin: int, stdout: int, stderr: int, *, terminal: bool = False) -> None:
        """Take over these descriptors, -1 for none."""
        if terminal:
            self._terminal = os.dup(stdout)
        if stdout >= 0:
            self.stdout, transport = await reader_of(stdout)
            self._transports.append(transport)
        if stderr >= 0:
            self.stderr, transport = await reader_of(stderr)
            self._transports.append(transport)
        else:
            self.stderr.feed_eof()
        if stdin >= 0:
            self._writer = await writer_of(stdin)

    def resize_by(self, resize: Callable[[int, int], Awaitable[None]]) -> None:
        """Set who changes the terminal's size, where it is not ours."""
        self._resize = resize

    async def write(self, data: bytes) -> None:
        if self._writer is None or self._writer.is_closing():
            raise BrokenPipeError("the command's standard input is closed")
        self._writer.write(data)
        await self._writer.drain()

    async def close_stdin(self) -> None:
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        if self._terminal >= 0:
            # A terminal has no end of its own: what programs read is the character for it.
            writer.write(b"\x04")
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def resize(self, columns: int, rows: int) -> None:
        if self._resize is not None:
            await self._resize(columns, rows)
        elif self._terminal >= 0:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("=HHHH", rows, columns, 0, 0))

    async def wait(self) -> int:
        return await self._code()

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        for transport in self._transports:
            transport.close()
        self._transports.clear()
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        await self._end()


class Connection:
    """A connection into a pod's network."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, sock: socket.socket, address: str, port: int) -> Connection:
        """Connect a socket of the pod's network; raises `OSError` and closes it then."""
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            reader, writer = await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        return cls(reader, writer)
