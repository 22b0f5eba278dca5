"""How a body moves from one connection to the other.

By splice through a pipe where it is large and neither side needs the bytes, else by way of the worker's buffer.
Nothing is read that the other side has no room for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from pilothouse.traffic.plane.chunks import ChunkScanner
from pilothouse.traffic.plane.http import UNKNOWN, Body, FieldList, Refused
from pilothouse.traffic.plane.reactor import Reactor
from pilothouse.traffic.plane.wires import Buffer, Gone, Pipe, Pipes, Wire

__all__ = ["ENDLESS", "Http1Sink", "Http1Source", "Pump", "Sink", "Source", "Truncated", "WireSink"]

_TURNS: Final = 16
"""Of one body in a round, then others have theirs."""

ENDLESS: Final = 1 << 40
"""What is left of a body that ends with its connection."""


class Truncated(Exception):
    """A body ended before its end."""


class Source(Protocol):
    """Where a body comes from. done: whether all of it was taken. trailers: known at the end."""

    done: bool

    @property
    def wire(self) -> Wire: ...

    def read(self) -> Sequence[Buffer] | None:
        """Return pieces of the body, None for nothing yet. Raises Truncated, Gone, Refused."""

    def raw(self) -> int:
        """Return how many of the next bytes on the descriptor are the body's, 0 where they have to be read."""

    def took(self, count: int) -> None:
        """Take note of bytes that left the descriptor another way; 0 stands for its end. Raises Truncated."""

    @property
    def has_more(self) -> bool:
        """Whether something can be read without asking the connection."""

    def trailers(self) -> FieldList:
        """Return what came behind the body."""

    def pause(self) -> None:
        """Have the connection not say that there is something."""

    def resume(self) -> None:
        """Have the connection say when there is something."""


class Sink(Protocol):
    """Where a body goes."""

    @property
    def wire(self) -> Wire: ...

    def write(self, pieces: Sequence[Buffer]) -> None:
        """Write pieces, or keep them. Raises Gone."""

    def takes(self, count: int) -> int:
        """Return how many of `count` bytes that come next it takes out of a pipe, 0 where they have to be written."""

    def put(self, pipe: Pipe, *, is_last: bool) -> None:
        """Take all that a pipe holds, now or by `flush`; is_last: nothing comes behind it. Raises Gone."""

    def flush(self) -> bool:
        """Write what was kept; return whether there is room, and the pipe is empty. Raises Gone."""

    def wait(self) -> None:
        """Have the connection say when there is room."""

    def finish_body(self, trailers: FieldList) -> None:
        """End the body. Raises Gone."""


class Http1Source:
    """A body on an HTTP/1.1 connection. inbox: what was read of it with the head. beyond: what came after its end.

    is_decoded: whether the chunked coding is taken off. status: of refusals.
    """

    __slots__ = ("_inbox", "_is_partial", "beyond", "done", "is_decoded", "kind", "left", "moved", "scanner", "wire")

    def __init__(self, wire: Wire, kind: Body, length: int, inbox: bytes, status: int = 400) -> None:
        self.wire = wire
        self.kind = kind
        self.left = ENDLESS if length == UNKNOWN else length
        self.scanner = ChunkScanner(status) if kind is Body.CHUNKED else None
        self.is_decoded = False
        self.beyond = b""
        self.moved = 0
        self._inbox: bytes = inbox
        self._is_partial = False
        self.done = kind is Body.NONE
        if self.done:
            self.beyond, self._inbox = inbox, b""

    def read(self) -> Sequence[Buffer] | None:
        inbox, self._inbox = self._inbox, b""
        data: Buffer = inbox
        if not inbox or self._is_partial:
            came = self.wire.receive()
            if came is None:
                self._inbox = inbox
                return None
            if not came:
                return self._ended()
            data = inbox + came if inbox else came
            self._is_partial = False
        return self._chunked(data) if self.scanner is not None else self._sized(data)

    def _sized(self, data: Buffer) -> Sequence[Buffer]:
        if len(data) > self.left:
            self.beyond = bytes(data[self.left :])
            data = data[: self.left]
        self.left -= len(data)
        self.moved += len(data)
        self.done = self.left == 0
        return (data,)

    def _chunked(self, data: Buffer) -> Sequence[Buffer]:
        scanner = self.scanner
        assert scanner is not None  # noqa: S101
        payload: list[memoryview] | None = [] if self.is_decoded else None
        count = scanner.feed(data, payload)
        self.moved += count
        self.done = scanner.done
        if self.done:
            self.beyond = bytes(data[count:])
        elif count < len(data):
            self._inbox, self._is_partial = bytes(data[count:]), True
        return payload if payload is not None else (data[:count],)

    @property
    def has_more(self) -> bool:
        """Whether something of the body can be read without the connection."""
        return bool(self._inbox) and not self._is_partial

    @property
    def is_all(self) -> bool:
        """Whether the last byte has come, as far as that is known without reading."""
        return self.done

    def _ended(self) -> Sequence[Buffer]:
        if self.kind is not Body.CLOSE:
            raise Truncated
        self.done = True
        return ()

    def raw(self) -> int:
        if self._inbox or not self.wire.is_raw:
            return 0
        return self.left if self.scanner is None else self.scanner.left

    def took(self, count: int) -> None:
        if count == 0:
            self._ended()
        elif self.scanner is not None:
            self.scanner.skip(count)
        else:
            self.left -= count
            self.done = self.left == 0
        self.moved += count

    def trailers(self) -> FieldList:
        return self.scanner.trailers if self.scanner is not None else []

    def pause(self) -> None:
        self.wire.pause()

    def resume(self) -> None:
        self.wire.want_read(True)


class WireSink:
    """What goes into a connection as it is."""

    __slots__ = ("_pipe", "wire")

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self._pipe: Pipe | None = None

    def write(self, pieces: Sequence[Buffer]) -> None:
        size = sum(map(len, pieces))
        if size:
            self.wire.counters.bytes_copied += size
            self.wire.send(pieces)

    def takes(self, count: int) -> int:
        return count if self.wire.is_raw else 0

    def put(self, pipe: Pipe, *, is_last: bool) -> None:
        del is_last
        self._pipe = pipe

    def flush(self) -> bool:
        wire, pipe = self.wire, self._pipe
        if wire.blocked and not wire.flush():
            return False
        if pipe is not None:
            wire.drain(pipe, pipe.held)
            if pipe.held:
                return False
            self._pipe = None
            wire.want_write(False)
        return True

    def wait(self) -> None:
        self.wire.want_write(True)


class Http1Sink(WireSink):
    """A body on an HTTP/1.1 connection. is_encoded: whether the chunked coding is put on."""

    __slots__ = ("is_encoded",)

    def __init__(self, wire: Wire, is_encoded: bool = False) -> None:
        super().__init__(wire)
        self.is_encoded = is_encoded

    def write(self, pieces: Sequence[Buffer]) -> None:
        size = sum(map(len, pieces))
        if not size:
            return
        self.wire.counters.bytes_copied += size
        self.wire.send([b"%x\r\n" % size, *pieces, b"\r\n"] if self.is_encoded else pieces)

    def takes(self, count: int) -> int:
        return count if self.wire.is_raw and not self.is_encoded else 0

    def finish_body(self, trailers: FieldList) -> None:
        if self.is_encoded:
            self.wire.send([b"0\r\n", *[b"%b: %b\r\n" % field for field in trailers], b"\r\n"])


class Pump:
    """Moves one body. on_done: called once with None, or with what went wrong and whether it was the source's side.

    is_stuck: whether it waits for the sink. most: bytes it moves at most, 0 for any number.
    """

    __slots__ = ("_on_done", "_pipe", "_pipes", "_reactor", "is_over", "is_stuck", "most", "moved", "sink", "source")

    def __init__(
        self,
        reactor: Reactor,
        pipes: Pipes,
        source: Source,
        sink: Sink,
        on_done: Callable[[Exception | None, bool], object],
    ) -> None:
        self._reactor = reactor
        self._pipes = pipes
        self._pipe: Pipe | None = None
        self._on_done = on_done
        self.source = source
        self.sink = sink
        self.is_over = False
        self.is_stuck = False
        self.moved = 0
        self.most = 0

    def run(self) -> None:
        """Move what can be moved now, and ask to be told when more can."""
        if self.is_over:
            return
        is_sources = True
        try:
            for _ in range(_TURNS):
                is_sources = False
                if not self.sink.flush():
                    self.is_stuck = True
                    self.source.pause()
                    self.sink.wait()
                    return
                is_sources, self.is_stuck = True, False
                if self.source.done:
                    is_sources = False
                    self.sink.finish_body(self.source.trailers())
                    self._end(None, False)
                    return
                if not self._step():
                    self.source.resume()
                    return
        except (Gone, Truncated, Refused) as error:
            self._end(error, is_sources)
            return
        self._reactor.soon(self.run)

    @property
    def passed(self) -> int:
        """Bytes that were moved and are not in the pipe."""
        return self.moved - self._pipe.held if self._pipe is not None else self.moved

    def stop(self) -> None:
        """Move no more."""
        self.is_over = True
        if self._pipe is not None:
            self._pipes.give(self._pipe)
            self._pipe = None

    def _end(self, error: Exception | None, is_sources: bool) -> None:
        self.stop()
        self._on_done(error, is_sources)

    def _step(self) -> bool:
        """Take once from the source; return whether there was anything."""
        source = self.source
        size = source.raw()
        if size >= self._pipes.least or (size and self._pipe is not None):
            size = self.sink.takes(size)
            if size and (pipe := self._taken()) is not None:
                return self._splice(pipe, size)
        pieces = source.read()
        if pieces is None:
            return False
        self._count(sum(map(len, pieces)))
        self.sink.write(pieces)
        return True

    def _taken(self) -> Pipe | None:
        if self._pipe is None:
            with contextlib.suppress(OSError):  # without descriptors bodies are copied
                self._pipe = self._pipes.take()
        return self._pipe

    def _splice(self, pipe: Pipe, size: int) -> bool:
        source = self.source
        count = source.wire.fill(pipe, size)
        if count < 0:
            return False
        self._count(count)
        source.took(count)
        if count:
            self.sink.put(pipe, is_last=source.done and not source.trailers())
        return True

    def _count(self, size: int) -> None:
        self.moved += size
        if self.most and self.moved > self.most:
            raise Refused(413, "body", "the request's body is too large")
