"""Connections of a worker: plain or TLS, non-blocking, with what could not be written yet, and the pipes for splice."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import ssl
from collections.abc import Sequence
from typing import Final, Protocol, TypeAlias, cast

from pilothouse.traffic.plane.reactor import IN, OUT, Handler, Reactor

__all__ = ["SPLICE_LEAST", "Buffer", "Counters", "Gone", "Pipe", "Pipes", "Wire", "ktls_reason"]

Buffer: TypeAlias = bytes | bytearray | memoryview

SPLICE_LEAST: Final = 64 << 10
"""Bytes of a body that still come, from which on it is spliced: see the figures in docs/traffic-plane.md."""

_SET_PIPE_SIZE: Final = 1031
_PIPE_BYTES: Final = (1 << 20, 256 << 10)
_PIPES_KEPT: Final = 64
_MOVE: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_MORE: Final = _MOVE | os.SPLICE_F_MORE


class Gone(Exception):
    """The other side is not there any more, or breaks TLS."""


class Counters:
    """How bytes moved in this worker."""

    __slots__ = (
        "buffers_reused",
        "bytes_copied",
        "bytes_spliced",
        "pipes_made",
        "pipes_reused",
        "vectored_writes",
        "writes",
    )

    def __init__(self) -> None:
        self.bytes_spliced = 0
        self.bytes_copied = 0
        self.vectored_writes = 0
        self.writes = 0
        self.buffers_reused = 0
        self.pipes_made = 0
        self.pipes_reused = 0


class Countable(Protocol):
    """Counts open connections."""

    open: int


class Pipe:
    """Where the kernel keeps pages on their way. held: bytes in it.

    is_lent: whether a connection has yet to write what it holds, however its body ends; it calls `settle` then.
    """

    __slots__ = ("_home", "_is_given", "held", "is_lent", "reading", "size", "writing")

    def __init__(self, home: Pipes) -> None:
        self.reading, self.writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._home = home
        self._is_given = False
        self.is_lent = False
        self.held = 0
        self.size = 65_536
        for size in _PIPE_BYTES:
            try:
                self.size = fcntl.fcntl(self.writing, _SET_PIPE_SIZE, size)
            except OSError:
                continue  # an ordinary user's pipes have a common limit
            break

    def settle(self) -> None:
        """End the loan; whoever took the pipe may have given it back meanwhile."""
        if self.is_lent:
            self.is_lent = False
            if self._is_given:
                self._home.give(self)

    def give(self) -> bool:
        """Take note that it is given back; return whether it is free."""
        self._is_given = self.is_lent
        return not self.is_lent

    def close(self) -> None:
        """Give both ends back."""
        os.close(self.reading)
        os.close(self.writing)


class Pipes:
    """Pipes that are used again. least: bytes of a body from which on one is taken. taken: how many somebody has."""

    def __init__(self, counters: Counters, least: int = SPLICE_LEAST) -> None:
        self.least = least
        self.taken = 0
        self._counters = counters
        self._free: list[Pipe] = []

    def take(self) -> Pipe:
        """Return an empty pipe. Raises OSError where there are no descriptors left."""
        if self._free:
            self._counters.pipes_reused += 1
            pipe = self._free.pop()
        else:
            pipe = Pipe(self)
            self._counters.pipes_made += 1
        self.taken += 1
        return pipe

    def give(self, pipe: Pipe) -> None:
        """Take a pipe back, once it is not lent any more; one that still holds bytes is closed."""
        if not pipe.give():
            return
        self.taken -= 1
        if pipe.held or len(self._free) >= _PIPES_KEPT:
            pipe.close()
        else:
            self._free.append(pipe)

    def close(self) -> None:
        """Close those that are free."""
        for pipe in self._free:
            pipe.close()
        self._free.clear()


class Wire:
    """One connection in the reactor. is_raw: whether its descriptor carries the bytes themselves (no TLS).

    What `send` cannot write at once is kept, so whoever sends asks `blocked` first and stops reading elsewhere.
    """

    __slots__ = (
        "_crowd",
        "_is_paused",
        "_kept",
        "counters",
        "fd",
        "is_closed",
        "is_raw",
        "mask",
        "reactor",
        "received",
        "sent",
        "sock",
    )

    def __init__(self, reactor: Reactor, sock: socket.socket, counters: Counters) -> None:
        self.reactor = reactor
        self.sock = sock
        self.fd = sock.fileno()
        self.counters = counters
        self.is_raw = not isinstance(sock, ssl.SSLSocket)
        self.is_closed = False
        self._crowd: Countable | None = None
        self.mask = 0
        self._is_paused = False
        self._kept: bytes = b""
        self.received = 0
        self.sent = 0

    def join(self, crowd: Countable) -> None:
        """Be counted as open until it is closed."""
        crowd.open += 1
        self._crowd = crowd

    def attach(self, handler: Handler, events: int = IN) -> None:
        """Have a handler told of the connection's events."""
        self.mask = events
        self.reactor.register(self.fd, handler, events)

    def secure(self, sock: socket.socket) -> None:
        """Go on by TLS over the same descriptor."""
        self.sock = sock
        self.is_raw = False

    def want(self, events: int) -> None:
        """Be told of these events and no others, but always of that the connection is broken."""
        if self.is_closed:
            return
        if self._is_paused:
            self._is_paused = False
            self.reactor.resume(self.fd, events)
        elif events != self.mask:
            self.reactor.modify(self.fd, events)
        self.mask = events

    def pause(self) -> None:
        """Be told of nothing to read, and not of that the connection is broken either: it would be told for ever."""
        mask = self.mask & ~IN
        if mask:
            self.want(mask)
        elif not self._is_paused and not self.is_closed:
            self._is_paused = True
            self.mask = 0
            self.reactor.suspend(self.fd)

    def want_read(self, is_wanted: bool) -> None:
        """Be told, or not, when there is something to read."""
        mask = self.mask | IN if is_wanted else self.mask & ~IN
        if mask != self.mask or self._is_paused:
            self.want(mask)

    def want_write(self, is_wanted: bool) -> None:
        """Be told, or not, when there is room to write."""
        mask = self.mask | OUT if is_wanted else self.mask & ~OUT
        if mask != self.mask:
            self.want(mask)

    def receive(self, scratch: memoryview | None = None) -> memoryview | None:
        """Return what came, in the reactor's buffer until the next read; empty at the end, None for nothing yet.

        scratch: the part of the buffer to fill, where not all of it. Raises Gone.
        """
        scratch = scratch or self.reactor.scratch
        try:
            count = self.sock.recv_into(scratch)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except (OSError, ValueError) as error:
            raise Gone(str(error)) from None
        self.received += count
        self.counters.buffers_reused += 1
        return scratch[:count]

    @property
    def pending(self) -> bool:
        """Whether there is something to read of which the kernel does not tell, because TLS has it."""
        return not self.is_raw and cast("ssl.SSLSocket", self.sock).pending() > 0

    def has_ended(self) -> bool:
        """Return whether the other side says nothing more, as far as that can be seen past TLS."""
        try:
            return self.is_raw and not self.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return False

    @property
    def blocked(self) -> bool:
        """Whether there is something that could not be written yet."""
        return bool(self._kept)

    def send(self, pieces: Sequence[Buffer]) -> None:
        """Write by one call what the connection takes, and keep the rest. Raises Gone."""
        if self._kept:
            self._kept = b"".join([self._kept, *pieces])
            return
        try:
            if len(pieces) == 1:
                count = self.sock.send(pieces[0])
            elif self.is_raw:
                count = self.sock.sendmsg(pieces)
                self.counters.vectored_writes += 1
            else:
                pieces = (b"".join(pieces),)
                count = self.sock.send(pieces[0])
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            count = 0
        except (OSError, ValueError) as error:
            raise Gone(str(error)) from None
        self.counters.writes += 1
        self.sent += count
        if len(pieces) == 1 and count == len(pieces[0]):
            return
        whole = b"".join(pieces)
        if count < len(whole):
            self._kept = whole[count:]
            self.want_write(True)

    def flush(self) -> bool:
        """Write what was kept; return whether nothing is left. Raises Gone."""
        while self._kept:
            try:
                count = self.sock.send(self._kept)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            except (OSError, ValueError) as error:
                raise Gone(str(error)) from None
            self.sent += count
            self._kept = self._kept[count:]
        self.want_write(False)
        return True

    def fill(self, pipe: Pipe, most: int) -> int:
        """Move at most so many bytes into a pipe; return how many, 0 at the end, -1 for nothing yet. Raises Gone."""
        try:
            count = os.splice(self.fd, pipe.writing, min(most, pipe.size), flags=_MOVE)
        except BlockingIOError:
            return -1
        except OSError as error:
            raise Gone(str(error)) from None
        pipe.held += count
        self.received += count
        return count

    def drain(self, pipe: Pipe, most: int, is_more: bool = False, header: bytes = b"") -> int:
        """Write a header and then so many bytes of a pipe, as far as the connection takes them. Raises Gone.

        Returns how many bytes of both it took. is_more: whether something is written right after them, so that the
        kernel waits for it.
        """
        counters, moved, count = self.counters, 0, 0
        try:
            if header:
                count = self.sock.send(header, socket.MSG_MORE)
                counters.writes += 1
            if count == len(header):
                flags = _MORE if is_more else _MOVE
                while moved < most:
                    moved += os.splice(pipe.reading, self.fd, most - moved, flags=flags)
        except BlockingIOError:
            pass
        except OSError as error:
            raise Gone(str(error)) from None
        pipe.held -= moved
        counters.bytes_spliced += moved
        count += moved
        self.sent += count
        return count

    def put(self, data: Buffer, is_more: bool = False) -> int:
        """Write what the connection takes; return how many bytes. is_more: as of `drain`. Raises Gone."""
        sock = self.sock
        try:
            count = sock.send(data, socket.MSG_MORE) if is_more and self.is_raw else sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except (OSError, ValueError) as error:
            raise Gone(str(error)) from None
        self.counters.writes += 1
        self.sent += count
        return count

    def end_writing(self) -> None:
        """Say that nothing more comes, and go on reading."""
        self._end_tls()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self.sock, socket.SHUT_WR)  # TLS's own would go on reading without TLS

    def _end_tls(self) -> None:
        if not self.is_raw:
            with contextlib.suppress(OSError, ValueError):
                cast("ssl.SSLSocket", self.sock).unwrap()

    def close(self) -> None:
        """Close at the end of the round."""
        if not self.is_closed:
            self._end_tls()
            self._retire()

    def _retire(self) -> None:
        self.is_closed = True
        if self._crowd is not None:
            self._crowd.open -= 1
        self.reactor.retire(self.fd, self.sock)

    def abort(self) -> None:
        """Close so that the other side sees that it did not end well."""
        if not self.is_closed:
            with contextlib.suppress(OSError):
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            self._retire()


def ktls_reason() -> str:
    """Return why the kernel does no TLS records for us, empty where it could."""
    try:
        with open("/proc/sys/net/ipv4/tcp_available_ulp", encoding="ascii") as file:
            known = file.read().split()
    except OSError:
        return "the kernel does not say which protocols it has above TCP"
    if "tls" not in known:
        return "the kernel has no tls module loaded (modprobe tls)"
    if not hasattr(ssl, "OP_ENABLE_KTLS"):
        return "this Python does not know OP_ENABLE_KTLS (3.12 does)"
    return ""
