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

__all__ = ["Connection", "ProcessSession"]

_LIMIT = 64 << 10


class _TerminalTransport(asyncio.ReadTransport):
    """Reads a terminal's master side; that its program closed it, which is an error to the kernel, is the end here."""

    def __init__(self, fd: int, reader: asyncio.StreamReader) -> None:
        super().__init__()
        self._fd = fd
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._ended = False
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)

    def pause_reading(self) -> None:
        self._loop.remove_reader(self._fd)

    def resume_reading(self) -> None:
        if not self._ended:
            self._loop.add_reader(self._fd, self._read)

    def is_closing(self) -> bool:
        return self._ended

    def close(self) -> None:
        if not self._ended:
            self._ended = True
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._reader.feed_eof()

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _LIMIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._reader.feed_data(data)
        else:
            self.close()


class _Writing:
    """Writes to a pipe or terminal, and waits where it is full.

    Not a transport of the event loop's: some of them read what they write to, and a terminal answers.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._room: asyncio.Future[None] | None = None
        os.set_blocking(fd, False)

    async def write(self, data: bytes) -> None:
        """Write all; raises `BrokenPipeError` where nobody reads."""
        rest = memoryview(data)
        while rest:
            if self._fd < 0:
                raise BrokenPipeError("the command's standard input is closed")
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await self._wait()

    def close(self) -> None:
        """Close it; who waits for room gets a `BrokenPipeError`."""
        if self._fd < 0:
            return
        self._loop.remove_writer(self._fd)
        os.close(self._fd)
        self._fd = -1
        self._made_room()

    async def _wait(self) -> None:
        self._room = self._loop.create_future()
        self._loop.add_writer(self._fd, self._made_room)
        try:
            await self._room
        finally:
            if self._fd >= 0:
                self._loop.remove_writer(self._fd)

    def _made_room(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


async def _reader_of(fd: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    reader = asyncio.StreamReader(limit=_LIMIT)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(fd, "rb", 0)
    )
    return reader, transport


def _terminal_reader(fd: int) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    reader = asyncio.StreamReader(limit=_LIMIT)
    transport = _TerminalTransport(fd, reader)
    reader.set_transport(transport)
    return reader, transport


class ProcessSession(Session):
    """A session over descriptors. `code` waits for the exit code, `end` is what closing does beside the streams."""

    def __init__(self, code: Callable[[], Awaitable[int]], end: Callable[[], Awaitable[None]]) -> None:
        self.stdout = asyncio.StreamReader()
        self.stderr = asyncio.StreamReader()
        self._code = code
        self._end = end
        self._writer: _Writing | None = None
        self._transports: list[asyncio.BaseTransport] = []
        self._terminal = -1
        self._resize: Callable[[int, int], Awaitable[None]] | None = None

    async def connect(self, stdin: int, stdout: int, stderr: int, *, terminal: bool = False) -> None:
        """Take over these descriptors, -1 for none."""
        if terminal:
            self._terminal = os.dup(stdout)
            self.stdout, transport = _terminal_reader(stdout)
            self._transports.append(transport)
        elif stdout >= 0:
            self.stdout, transport = await _reader_of(stdout)
            self._transports.append(transport)
        if stderr >= 0:
            self.stderr, transport = await _reader_of(stderr)
            self._transports.append(transport)
        else:
            self.stderr.feed_eof()
        if stdin >= 0:
            self._writer = _Writing(stdin)

    def resize_by(self, resize: Callable[[int, int], Awaitable[None]]) -> None:
        """Set who changes the terminal's size, where it is not ours."""
        self._resize = resize

    async def write(self, data: bytes) -> None:
        if self._writer is None:
            raise BrokenPipeError("the command's standard input is closed")
        await self._writer.write(data)

    async def close_stdin(self) -> None:
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        if self._terminal >= 0:
            # A terminal has no end of its own: what programs read is the character for it.
            with contextlib.suppress(OSError):
                await writer.write(b"\x04")
        writer.close()

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
