"""A connection of SPDY/3.1 without IO: streams, their windows and ends, as moby/spdystream uses them.

Bytes go in by `receive`, which gives events; what is to be sent comes out by `take`. Either side may be the server.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pilothouse.apiserver.streams import spdyframes
from pilothouse.apiserver.streams.spdyframes import SpdyError

__all__ = [
    "CANCEL",
    "Accepted",
    "Data",
    "Event",
    "GoneAway",
    "Opened",
    "Pong",
    "Reset",
    "SpdyConnection",
    "SpdyError",
    "WindowOpened",
]

PROTOCOL_ERROR: Final = 1
INVALID_STREAM: Final = 2
REFUSED_STREAM: Final = 3
CANCEL: Final = 5
FLOW_CONTROL_ERROR: Final = 7
STREAM_ALREADY_CLOSED: Final = 9

INITIAL_WINDOW: Final = 1 << 16
_MAX_WINDOW: Final = (1 << 31) - 1
_SETTINGS_INITIAL_WINDOW: Final = 7
RECEIVE_WINDOW: Final = 1 << 18
"""Bytes of a stream that a peer which keeps to windows may send before some are acknowledged."""
MAX_FRAME: Final = 1 << 16
"""Bytes of the longest DATA frame that is sent."""
MAX_STREAMS: Final = 256
"""Streams that the peer may have open at a time."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The peer opened a stream; accept or reset it."""

    stream: int
    headers: Mapping[str, tuple[str, ...]]
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """The peer accepted a stream of ours."""

    stream: int
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream; with `fin` the last ones. Acknowledge them when they are consumed."""

    stream: int
    data: bytes
    fin: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """The peer ended a stream at once, in both directions."""

    stream: int
    status: int


@dataclass(frozen=True, slots=True)
class WindowOpened:
    """The peer takes more bytes of a stream."""

    stream: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answered our ping."""

    number: int


@dataclass(frozen=True, slots=True)
class GoneAway:
    """The peer takes no more streams."""

    last: int


Event: TypeAlias = Opened | Accepted | Data | Reset | WindowOpened | Pong | GoneAway


@dataclass(slots=True)
class _Stream:
    window: int
    """Bytes that the peer takes; may be negative."""
    local_open: bool = True
    remote_open: bool = True
    taken: int = 0
    """Bytes consumed and not yet told to the peer."""
    waiting: deque[bytes] = field(default_factory=deque)
    waiting_bytes: int = 0
    fin_waiting: bool = False


class SpdyConnection:
    """One side of a connection.

    Windows: moby/spdystream neither keeps to them nor opens them, so ours towards the peer hold only once the peer
    has shown that it knows them, by WINDOW_UPDATE or an initial window in SETTINGS; until then the transport alone
    pushes back. We open ours as bytes are acknowledged. Raises SpdyError where the peer breaks the protocol; what
    `take` then gives tells it so.
    """

    def __init__(self, *, server: bool) -> None:
        self._reader = spdyframes.FrameReader()
        self._writer = spdyframes.FrameWriter()
        self._server = server
        self._next_stream = 2 if server else 1
        self._next_ping = 2 if server else 1
        self._last_seen = 0
        self._streams: dict[int, _Stream] = {}
        self._out: list[bytes] = []
        self._initial_window = INITIAL_WINDOW
        self._windows_hold = False
        self._connection_window = INITIAL_WINDOW
        self._connection_counts = False
        self.gone_away = False

    # -- in

    def receive(self, data: bytes) -> Iterator[Event]:
        """Take bytes of the peer and give what they mean. Raises SpdyError."""
        try:
            for frame in self._reader.feed(data):
                yield from self._handle(frame)
        except SpdyError:
            self._out.append(self._writer.go_away(self._last_seen, PROTOCOL_ERROR))
            raise

    def _handle(self, frame: spdyframes.Frame) -> Iterator[Event]:
        match frame:
            case spdyframes.DataPart():
                yield from self._on_data(frame)
            case spdyframes.SynStream():
                yield from self._on_open(frame)
            case spdyframes.Settings():
                yield from self._on_settings(frame)
            case spdyframes.WindowUpdate():
                yield from self._on_window(frame)
            case spdyframes.SynReply() | spdyframes.Headers():
                yield from self._on_headers(frame)
            case _:
                yield from self._on_notice(frame)

    def _on_headers(self, frame: spdyframes.SynReply | spdyframes.Headers) -> Iterator[Event]:
        stream = self._streams.get(frame.stream)
        if stream is None:
            return
        self._end_remote(frame.stream, stream, ended=frame.fin)
        if isinstance(frame, spdyframes.SynReply):
            yield Accepted(frame.stream, frame.fin)
        elif frame.fin:
            yield Data(frame.stream, b"", fin=True)

    def _on_notice(self, frame: spdyframes.Frame) -> Iterator[Event]:
        if isinstance(frame, spdyframes.Ping):
            if frame.number % 2 == self._next_ping % 2:
                yield Pong(frame.number)
            else:
                self._out.append(self._writer.ping(frame.number))
        elif isinstance(frame, spdyframes.RstStream):
            if self._streams.pop(frame.stream, None):
                yield Reset(frame.stream, frame.status)
        elif isinstance(frame, spdyframes.GoAway):
            self.gone_away = True
            yield GoneAway(frame.last)

    def _on_open(self, frame: spdyframes.SynStream) -> Iterator[Event]:
        number = frame.stream
        if number % 2 != self._server or number <= self._last_seen:
            self._out.append(self._writer.rst_stream(number, PROTOCOL_ERROR))
            return
        self._last_seen = number
        if len(self._streams) >= MAX_STREAMS:
            self._out.append(self._writer.rst_stream(number, REFUSED_STREAM))
            return
        self._streams[number] = _Stream(self._initial_window, remote_open=not frame.fin)
        yield Opened(number, frame.headers, frame.fin)

    def _on_data(self, frame: spdyframes.DataPart) -> Iterator[Event]:
        stream = self._streams.get(frame.stream)
        if stream is None:
            # The stream was ended while this was on its way.
            return
        if not stream.remote_open:
            self.reset(frame.stream, STREAM_ALREADY_CLOSED)
            yield Reset(frame.stream, STREAM_ALREADY_CLOSED)
            return
        self._end_remote(frame.stream, stream, ended=frame.fin)
        if frame.data or frame.fin:
            yield Data(frame.stream, frame.data, frame.fin)

    def _on_settings(self, frame: spdyframes.Settings) -> Iterator[Event]:
        window = frame.values.get(_SETTINGS_INITIAL_WINDOW)
        if window is None:
            return
        if window > _MAX_WINDOW:
            raise SpdyError(f"an initial window of {window} bytes")
        self._windows_hold = True
        grown, self._initial_window = window - self._initial_window, window
        for number, stream in list(self._streams.items()):
            stream.window += grown
            self._flush(number, stream)
            yield WindowOpened(number)

    def _on_window(self, frame: spdyframes.WindowUpdate) -> Iterator[Event]:
        self._windows_hold = True
        if not frame.stream:
            self._connection_counts = True
            self._connection_window = min(self._connection_window + frame.delta, _MAX_WINDOW)
            for number, stream in list(self._streams.items()):
                self._flush(number, stream)
                yield WindowOpened(number)
            return
        found = self._streams.get(frame.stream)
        if found is None:
            return
        found.window += frame.delta
        if found.window > _MAX_WINDOW:
            self.reset(frame.stream, FLOW_CONTROL_ERROR)
            yield Reset(frame.stream, FLOW_CONTROL_ERROR)
            return
        self._flush(frame.stream, found)
        yield WindowOpened(frame.stream)

    # -- out

    def take(self) -> bytes:
        """Return what is to be sent now."""
        data = b"".join(self._out)
        self._out.clear()
        return data

    def announce(self) -> None:
        """Tell the peer our windows, and by that, that we know them; moby/spdystream lets this pass."""
        self._out.append(self._writer.settings({_SETTINGS_INITIAL_WINDOW: RECEIVE_WINDOW}))

    def open(self, headers: Mapping[str, str], *, fin: bool = False) -> int:
        """Open a stream and return its number. Raises SpdyError where the peer takes none or there are too many."""
        if self.gone_away or len(self._streams) >= MAX_STREAMS:
            raise SpdyError("the peer takes no more streams" if self.gone_away else "too many streams are open")
        number = self._next_stream
        self._next_stream += 2
        self._streams[number] = _Stream(self._initial_window, local_open=not fin)
        self._out.append(self._writer.syn_stream(number, headers, fin=fin))
        return number

    def accept(self, number: int) -> None:
        """Accept a stream that the peer opened."""
        if number in self._streams:
            self._out.append(self._writer.syn_reply(number, {}))

    def send(self, number: int, data: bytes, *, fin: bool = False) -> None:
        """Send bytes on a stream, those beyond the peer's window later. On an ended stream it does nothing."""
        stream = self._streams.get(number)
        if stream is None or not stream.local_open or stream.fin_waiting:
            return
        if data:
            stream.waiting.append(data)
            stream.waiting_bytes += len(data)
        stream.fin_waiting = fin
        self._flush(number, stream)

    def acknowledge(self, number: int, count: int) -> None:
        """Let the peer send so many bytes more; told to it once half a window is consumed."""
        stream = self._streams.get(number)
        if stream is None or not stream.remote_open:
            return
        stream.taken += count
        if stream.taken >= INITIAL_WINDOW // 2:
            self._out.append(self._writer.window_update(number, stream.taken))
            stream.taken = 0

    def waiting(self, number: int) -> int:
        """Return how many bytes wait for the peer's window."""
        stream = self._streams.get(number)
        return stream.waiting_bytes if stream else 0

    def is_open(self, number: int) -> bool:
        """Whether either side may still send on a stream."""
        return number in self._streams

    def reset(self, number: int, status: int = CANCEL) -> None:
        """End a stream at once, in both directions; one that has ended stays so."""
        if self._streams.pop(number, None):
            self._out.append(self._writer.rst_stream(number, status))

    def ping(self) -> int:
        """Ask the peer for a sign of life; return the number that `Pong` will have."""
        number = self._next_ping
        self._next_ping += 2
        self._out.append(self._writer.ping(number))
        return number

    def go_away(self, status: int = 0) -> None:
        """Tell the peer that no more streams are taken."""
        self._out.append(self._writer.go_away(self._last_seen, status))

    def _room(self, stream: _Stream) -> int:
        if not self._windows_hold:
            return MAX_FRAME
        room = min(stream.window, MAX_FRAME)
        return min(room, self._connection_window) if self._connection_counts else room

    def _flush(self, number: int, stream: _Stream) -> None:
        waiting = stream.waiting
        while waiting and (room := self._room(stream)) > 0:
            data = waiting.popleft()
            if len(data) > room:
                waiting.appendleft(data[room:])
                data = data[:room]
            stream.window -= len(data)
            self._connection_window -= len(data)
            stream.waiting_bytes -= len(data)
            self._out.append(self._writer.data(number, data, fin=stream.fin_waiting and not waiting))
            if stream.fin_waiting and not waiting:
                self._end_local(number, stream)
                return
        if stream.fin_waiting and not waiting:
            self._out.append(self._writer.data(number, b"", fin=True))
            self._end_local(number, stream)

    def _end_local(self, number: int, stream: _Stream) -> None:
        stream.local_open = stream.fin_waiting = False
        if not stream.remote_open:
            self._streams.pop(number, None)

    def _end_remote(self, number: int, stream: _Stream, *, ended: bool) -> None:
        if not ended:
            return
        stream.remote_open = False
        if not stream.local_open:
            self._streams.pop(number, None)
