"""A client's connection that speaks HTTP/2: framing by libnghttp2, an exchange for each stream (RFC 9113).

What a client may make us hold is bounded: bodies by the connection's window, which grows only as they move on; answers
by what waits for its windows. Resets, pings and settings that come too often end the connection.
"""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Final

from ngh2 import (
    Configuration,
    Connection,
    ConnectionClosed,
    DataReceived,
    ErrorCode,
    Event,
    NGH2Error,
    PingReceived,
    RequestReceived,
    Role,
    Setting,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)

from pilothouse.traffic.plane.balancing import Allowance
from pilothouse.traffic.plane.bodies2 import StreamBodies, Turns
from pilothouse.traffic.plane.connections import Peer
from pilothouse.traffic.plane.exchange import Exchange
from pilothouse.traffic.plane.frames2 import FrameRules
from pilothouse.traffic.plane.http import Refused, Request
from pilothouse.traffic.plane.outlets2 import Outlet
from pilothouse.traffic.plane.reactor import HANGUP, IN, OUT, Timed
from pilothouse.traffic.plane.requests2 import read_request
from pilothouse.traffic.plane.streams2 import Stream2
from pilothouse.traffic.plane.wires import Gone, Wire

if TYPE_CHECKING:
    from pilothouse.traffic.plane.worker import Worker

__all__ = ["Client2"]

_STREAM_WINDOW: Final = 256 << 10
_CONNECTION_WINDOW: Final = 1 << 20
_READS: Final = 4
_RESETS: Final = (100, 20.0)
_PINGS: Final = (100, 10.0)
_SETTINGS: Final = (20, 1.0)

_FAREWELL: Final = b"GOAWAY: invalid last_stream_id"
"""What the engine says of clients, such as grpc-go, that leave with the largest number instead of a stream's."""


class Client2(Timed):
    """One connection: its engine, and its streams."""

    __slots__ = (
        "_count",
        "_is_condemned",
        "_is_flushing",
        "_is_leaving",
        "_pings",
        "_resets",
        "_rules",
        "_settings",
        "_streams",
        "_unwanted",
        "_waiting",
        "_worker",
        "engine",
        "outlet",
        "peer",
        "wire",
    )

    def __init__(self, worker: Worker, wire: Wire, peer: Peer) -> None:
        super().__init__()
        self._worker, self.wire, self.peer = worker, wire, peer
        limits, now = peer.scope.limits, worker.reactor.now
        self.engine = Connection(
            Role.SERVER,
            Configuration(
                auto_window_update=False,
                max_inbound_header_list_size=limits.head_bytes,
                max_inbound_header_count=2 * limits.headers + 16,
            ),
        )
        self.engine.initiate_connection(
            {
                Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
                Setting.MAX_CONCURRENT_STREAMS: limits.streams,
                Setting.MAX_HEADER_LIST_SIZE: limits.head_bytes,
                Setting.ENABLE_CONNECT_PROTOCOL: 1,
            }
        )
        self.engine.set_local_window_size(_CONNECTION_WINDOW)
        self.outlet = Outlet(self.engine, wire)
        self._streams: dict[int, Stream2] = {}
        self._waiting = Turns()
        self._resets = Allowance(*_RESETS, now)
        self._pings = Allowance(*_PINGS, now)
        self._settings = Allowance(*_SETTINGS, now)
        self._rules = FrameRules(limits.streams)
        self._is_flushing = False
        self._is_leaving = False
        self._is_condemned = False
        self._unwanted: set[int] = set()
        self._count = 0

    def begin(self, early: bytes = b"") -> None:
        """Take up the connection; early: what was read of it. Its wire tells us of its events already."""
        self._worker.clients.add(self)
        self._worker.reactor.arm(self, self._worker.reactor.now + self.peer.scope.limits.head_seconds)
        self.flush()
        if early:
            self._feed(early)
        elif self.wire.pending:
            self._worker.reactor.soon(self._read)

    # Events

    def on_event(self, events: int) -> None:
        if events & OUT:
            self.flush()
        if events & (IN | HANGUP) and not self.wire.is_closed:
            self._read()

    def _read(self) -> None:
        for _ in range(_READS):
            if self.wire.is_closed:
                return
            if self.outlet.is_blocked:
                self.wire.pause()  # who takes nothing gets to ask nothing more
                return
            try:
                came = self.wire.receive(self._worker.reactor.head_scratch)
            except Gone:
                self._gone()
                return
            if came is None:
                return
            if not came:
                self._gone()
                return
            self._feed(came)
        if self.wire.pending:
            self._worker.reactor.soon(self._read)

    def _feed(self, data: bytes | memoryview) -> None:
        failure: NGH2Error | None = None
        broken = self._rules.follow(data) if not self._is_condemned else None
        try:
            self.engine.receive_data(data if broken is None else data[: broken[0]])
        except NGH2Error as error:
            failure = error
        self._handle()
        if broken is not None and failure is None and not self.wire.is_closed:
            self._condemn(Refused(400, "http2", "frames of a stream that may have none"), broken[1])
        if failure is not None and not self.wire.is_closed:
            if not self._is_condemned:
                self._is_condemned = True
                self._worker.refused(Refused(400, "http2", str(failure) or type(failure).__name__), None)
            self._leave()
        if self._rules.is_full:
            self._rules.forget(self._streams)
        self.flush()

    def _handle(self) -> None:
        begun: list[Stream2] = []
        for event in self.engine.events():
            if type(event) is RequestReceived:
                begun.append(self._request(event))
            elif type(event) is DataReceived:
                self._data(event)
            elif type(event) is StreamClosed:
                self._closed(event.stream_id)
                if event.local_error is not None:
                    self._tolerate(self._resets, "stream errors")
            else:
                self._rare(event)
        for stream in begun:  # once it is known what of their bodies came at the same time
            if stream.is_open:
                stream.begin()

    def _rare(self, event: Event) -> None:
        if isinstance(event, TrailersReceived):
            stream = self._streams.get(event.stream_id)
            if stream is not None:
                stream.ended([(name, value) for name, value in event.headers if name[:1] != b":"])
        elif isinstance(event, StreamReset):
            self._tolerate(self._resets, "stream resets")
        elif isinstance(event, PingReceived):
            self._tolerate(self._pings, "pings")
        elif isinstance(event, SettingsReceived):
            self._tolerate(self._settings, "settings")
        elif isinstance(event, ConnectionClosed) and not (self._is_leaving or self._is_condemned):
            self._is_condemned = True
            if event.error_code and event.debug_data != _FAREWELL:  # else the client has said that it leaves
                self._worker.refused(Refused(400, "http2", "frames that HTTP/2 does not allow"), None)

    def _tolerate(self, allowance: Allowance, what: str) -> None:
        if not allowance.spend(self._worker.reactor.now):
            self._condemn(Refused(429, "http2 flood", f"too many {what}"), ErrorCode.ENHANCE_YOUR_CALM)

    def _condemn(self, error: Refused, code: int) -> None:
        """End the connection with an error, streams and all."""
        if self._is_condemned:
            return
        self._is_condemned = True
        self._worker.refused(error, None)
        with contextlib.suppress(NGH2Error):
            self.engine.terminate_connection(code)
        self._leave()

    def _request(self, event: RequestReceived) -> Stream2:
        worker, stream_id = self._worker, event.stream_id
        self._count += 1
        most = self.peer.scope.limits.requests_per_connection
        if most and self._count == most:
            self.drain()
        error: Refused | None = None
        try:
            request = read_request(event.headers, is_whole=event.end_stream, most=self.peer.scope.limits.headers)
        except Refused as refused:
            error, request = refused, Request(b"GET", b"/", b"", "", [])
        stream = self._streams[stream_id] = Stream2(self, worker, stream_id, request, event.end_stream)
        stream.exchange = Exchange(worker, stream, request)
        stream.refused = error
        self.deadline = math.inf
        return stream

    def _data(self, event: DataReceived) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:
            self.consumed(event.stream_id, len(event.data))
            return
        stream.came(event.data)
        if event.end_stream:
            stream.ended([])

    def _closed(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        self._unwanted.discard(stream_id)
        self.outlet.forget(stream_id)
        if stream is not None:
            self._waiting.leave(stream)
            stream.closed()
        if not self._streams:
            if self._is_leaving:
                self.flush()
                self._worker.reactor.soon(self._end)
            else:
                reactor = self._worker.reactor
                reactor.arm(self, reactor.now + self.peer.scope.limits.idle_seconds)

    # What streams ask

    def consumed(self, stream_id: int, size: int) -> None:
        """Let the client send as much again."""
        if size:
            with contextlib.suppress(NGH2Error):
                self.engine.acknowledge_received_data(size, stream_id)
            self.flush_soon()

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """End a stream before its end."""
        with contextlib.suppress(NGH2Error):
            self.engine.reset_stream(stream_id, code)
        self.flush_soon()

    def reset_when_sent(self, stream_id: int) -> None:
        """End a stream whose answer is queued whole, though its request is not."""
        self._unwanted.add(stream_id)
        self.flush_soon()

    @property
    def load(self) -> int:
        """Streams that there are."""
        return len(self._streams)

    def wait(self, stream: StreamBodies) -> None:
        """Tell a stream once there is room."""
        self._waiting.wait(stream)

    def watch(self, when: float) -> None:
        """Look at the streams' deadlines then."""
        self._worker.reactor.arm(self, min(self.deadline, when))

    def flush_soon(self) -> None:
        """Write at the end of the round, together with what else there is by then."""
        if not self._is_flushing:
            self._is_flushing = True
            self._worker.reactor.soon(self.flush)

    def flush(self) -> None:
        """Write what the windows and the connection allow."""
        self._is_flushing = False
        if self.wire.is_closed:
            return
        try:
            if self.outlet.flush() and self._unwanted:
                self._reset_unwanted()
                self.outlet.flush()
            if not self.outlet.is_blocked:
                self.wire.want_read(True)
        except (Gone, NGH2Error):
            self._gone()
            return
        self._handle()
        for stream in self._waiting.ready():
            self._worker.reactor.soon(stream.writable)
        if not (self.engine.want_read or self.engine.want_write or self.outlet.is_blocked):
            self._close()  # both have said goodbye

    def _reset_unwanted(self) -> None:
        for stream_id in [each for each in self._unwanted if not self.engine.queued_body_size(each)]:
            self._unwanted.discard(stream_id)
            with contextlib.suppress(NGH2Error):
                self.engine.reset_stream(stream_id, ErrorCode.NO_ERROR)

    # Ends

    def on_deadline(self) -> None:
        now = self._worker.reactor.now
        if not self._streams:
            self._leave()
            self.flush()
            self._end()
            return
        for stream in list(self._streams.values()):
            stream.look(now)
        deadline = min((stream.deadline for stream in self._streams.values()), default=math.inf)
        if deadline != math.inf:
            self._worker.reactor.arm(self, deadline)

    def on_crash(self) -> None:
        self._gone()

    def drain(self) -> None:
        """Take no more streams, and close after those that there are."""
        if self._is_leaving:
            return
        self._leave()
        self.flush()
        if not self._streams:
            self._end()

    def _leave(self) -> None:
        if not self._is_leaving:
            self._is_leaving = True
            with contextlib.suppress(NGH2Error):
                self.engine.send_goaway(ErrorCode.NO_ERROR)

    def _end(self) -> None:
        if not self.wire.is_closed and not self._streams:
            self.wire.end_writing()
            self._close()

    def _gone(self) -> None:
        streams, self._streams = self._streams, {}
        self._waiting.clear()
        for stream in streams.values():
            stream.closed()
        self._close()

    def _close(self) -> None:
        if self._streams:
            self._gone()
            return
        self.deadline = math.inf
        self._worker.clients.discard(self)
        self.outlet.close()
        self.wire.close()
