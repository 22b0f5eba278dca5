"""One connection carried by this program: bytes go from socket to socket, in bulk within the kernel by `os.splice`."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
from collections.abc import Callable
from typing import Final

__all__ = ["Pipes", "Splice"]

_CHUNK: Final = 65_536
_PIPE_BYTES: Final = 1 << 18
_BULK: Final = 1 << 20
_FULL_READS: Final = 2
"""So many reads that fill the buffer make a transfer one in bulk, which is worth a pipe."""


class Pipes:
    """Pipes for reuse, for making one costs more than a small answer. At most `limit` are in use at a time."""

    def __init__(self, limit: int, keep: int = 32) -> None:
        self._free: list[tuple[int, int]] = []
        self._left = limit
        self._keep = keep

    def take(self) -> tuple[int, int] | None:
        """Return the reading and the writing end of an empty pipe, None where there are too many."""
        if self._left <= 0:
            return None
        if self._free:
            self._left -= 1
            return self._free.pop()
        try:
            ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None  # bytes go by memory then
        with contextlib.suppress(OSError):  # as large as the user may have them, else as they are
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._left -= 1
        return ends

    def give_back(self, ends: tuple[int, int], *, is_empty: bool) -> None:
        """Take a pipe back; one with bytes in it is closed."""
        self._left += 1
        if is_empty and len(self._free) < self._keep:
            self._free.append(ends)
        else:
            os.close(ends[0])
            os.close(ends[1])

    def close(self) -> None:
        """Close those that are not in use."""
        while self._free:
            for end in self._free.pop():
                os.close(end)


class _Direction:
    """Bytes from one socket to the other, until the first ends; then the other's writing side is shut."""

    def __init__(self, splice: Splice, source: socket.socket, sink: socket.socket) -> None:
        self._splice = splice
        self._loop = splice.loop
        self._source = source
        self._sink = sink
        self._waiting: bytes | memoryview = b""
        self._pipe: tuple[int, int] | None = None
        self._piped = 0
        self._full_reads = 0
        self.bytes = 0
        self.is_done = False

    def start(self) -> None:
        self._loop.add_reader(self._source, self._readable)

    def close(self) -> None:
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)
        self._let_pipe_go()
        self.is_done = True

    def _readable(self) -> None:
        try:
            is_open = self._by_pipe() if self._pipe is not None else self._by_memory()
        except BlockingIOError:
            return
        except OSError:
            self._splice.abort()
            return
        if not is_open:
            self._end()

    def _by_memory(self) -> bool:
        data = self._source.recv(_CHUNK)
        if not data:
            return False
        self._count(len(data))
        self._full_reads = self._full_reads + 1 if len(data) == _CHUNK else 0
        if self._full_reads >= _FULL_READS:
            self._pipe = self._splice.pipes.take()
            self._full_reads = 0
        sent = self._send(data)
        if sent < len(data):
            self._waiting = memoryview(data)[sent:]
            self._wait_for_sink()
        return True

    def _by_pipe(self) -> bool:
        assert self._pipe is not None  # noqa: S101  # the caller looked
        moved = os.splice(self._source.fileno(), self._pipe[1], _BULK, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK)
        if not moved:
            return False
        self._count(moved)
        self._piped += moved
        if not self._drain_pipe():
            self._wait_for_sink()
        return True

    def _drain_pipe(self) -> bool:
        assert self._pipe is not None  # noqa: S101  # the caller looked
        while self._piped:
            try:
                self._piped -= os.splice(
                    self._pipe[0], self._sink.fileno(), self._piped, flags=os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
                )
            except BlockingIOError:
                return False
        return True

    def _send(self, data: bytes | memoryview) -> int:
        try:
            return self._sink.send(data)
        except BlockingIOError:
            return 0

    def _wait_for_sink(self) -> None:
        # What is not read pushes back: the sender's window fills.
        self._loop.remove_reader(self._source)
        self._loop.add_writer(self._sink, self._writable)

    def _writable(self) -> None:
        try:
            if self._waiting:
                self._waiting = self._waiting[self._send(self._waiting) :]
            is_flushed = not self._waiting and (self._pipe is None or self._drain_pipe())
        except OSError:
            self._splice.abort()
            return
        self._splice.touch()
        if is_flushed:
            self._loop.remove_writer(self._sink)
            self._loop.add_reader(self._source, self._readable)

    def _end(self) -> None:
        self.is_done = True
        self._loop.remove_reader(self._source)
        self._let_pipe_go()
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        self._splice.ended()

    def _let_pipe_go(self) -> None:
        if self._pipe is not None:
            pipe, self._pipe = self._pipe, None
            self._splice.pipes.give_back(pipe, is_empty=not self._piped)

    def _count(self, number: int) -> None:
        self.bytes += number
        self._splice.touch()


class Splice:
    """A pair of connected sockets that are one connection to their users; owns and closes both.

    `moved_at` is when bytes moved last, by the loop's clock. `on_end` is called once, when both are closed.
    """

    def __init__(
        self, client: socket.socket, server: socket.socket, pipes: Pipes, on_end: Callable[[Splice], None]
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.pipes = pipes
        self.moved_at = self.loop.time()
        self._on_end = on_end
        self._sockets = (client, server)
        self._directions = (_Direction(self, client, server), _Direction(self, server, client))
        self._is_closed = False
        for each in self._directions:
            each.start()

    @property
    def bytes_in(self) -> int:
        """Bytes from the client."""
        return self._directions[0].bytes

    @property
    def bytes_out(self) -> int:
        """Bytes to the client."""
        return self._directions[1].bytes

    def touch(self) -> None:
        """Note that bytes moved."""
        self.moved_at = self.loop.time()

    def ended(self) -> None:
        """Note that one direction ended; the other may go on."""
        if all(each.is_done for each in self._directions):
            self._close()

    def abort(self) -> None:
        """Reset both ends."""
        if self._is_closed:
            return
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self._close()

    def _close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        for direction in self._directions:
            direction.close()
        for each in self._sockets:
            each.close()
        self._on_end(self)
