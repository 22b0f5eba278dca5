"""A connection to a backend that speaks HTTP/2: one for many requests, each a stream (RFC 9113)."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Final

from ngh2 import (
    Configuration,
    Connection,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
    InformationalResponseReceived,
    NGH2Error,
    ResponseReceived,
    Role,
    Setting,
    SettingsReceived,
    StreamClosed,
    TrailersReceived,
)

from pilothouse.traffic.plane.balancing import EndpointState
from pilothouse.traffic.plane.bodies2 import StreamBodies, Turns
from pilothouse.traffic.plane.http import Refused, Response
from pilothouse.traffic.plane.outlets2 import Outlet
from pilothouse.traffic.plane.reactor import HANGUP, IN, OUT, Reactor, Timed
from pilothouse.traffic.plane.server1 import Server1
from pilothouse.traffic.plane.serverstreams2 import ServerStream2
from pilothouse.traffic.plane.upstream import Upstream
from pilothouse.traffic.plane.wires import Gone, Wire

if TYPE_CHECKING:
    from pilothouse.traffic.plane.pools import Pool

__all__ = ["Server2"]

_STREAM_WINDOW: Final = 256 << 10
_CONNECTION_WINDOW: Final = 4 << 20
_READS: Final = 4
_STREAMS: Final = 100
_MAX_CONCURRENT: Final = 3


class Server2(Timed):
    """One connection: its engine, its streams, and those that wait until it is open."""

    __slots__ = (
        "_held",
        "_is_flushing",
        "_is_gone",
        "_is_leaving",
        "_opening",
        "_pending",
        "_pool",
        "_reactor",
        "_streams",
        "_waiting",
        "endpoint",
        "engine",
        "outlet",
        "served",
        "wire",
    )

    def __init__(self, reactor: Reactor, pool: Pool, state: EndpointState, opening: Server1) -> None:
        super().__init__()
        self._reactor, self._pool, self._opening = reactor, pool, opening
        self.endpoint = state
        self.wire: Wire = opening.wire
        self.engine = Connection(
            Role.CLIENT, Configuration(auto_window_update=False, peer_max_concurrent_streams=_STREAMS)
        )
        self.outlet = Outlet(self.engine, self.wire)
        self.served = 0
        self._streams: dict[int, ServerStream2] = {}
        self._pending: list[ServerStream2] | None = []
        self._held: list[ServerStream2] | None = []
        self._waiting = Turns()
        self._is_flushing = self._is_leaving = self._is_gone = False

    # Streams

    def stream(self) -> ServerStream2:
        """Return a stream for a request."""
        return ServerStream2(self, self._pool.tls is not None)

    @property
    def is_opening(self) -> bool:
        """Whether further streams may wait for the connection to be open."""
        return self._pending is not None and len(self._pending) < _STREAMS and not self._is_gone

    @property
    def has_room(self) -> bool:
        """Whether a stream can begin now."""
        if self._pending is not None or self._is_leaving or self._is_gone or not self.engine.can_send_request:
            return False
        return len(self._streams) < min(_STREAMS, self.engine.remote_settings.get(_MAX_CONCURRENT, _STREAMS))

    @property
    def load(self) -> int:
        """Streams that there are."""
        return len(self._streams)

    def open(self, stream: ServerStream2) -> None:
        """Tell a stream once the connection is open."""
        pending = self._pending
        if pending is None:
            stream.opened()
            return
        pending.append(stream)
        if len(pending) == 1 and self.served == 0 and not self._reactor.has(self.wire.fd):
            self._opening.open(self)

    @property
    def takes_tunnels(self) -> bool:
        """Whether the backend has said that it takes extended CONNECT."""
        return bool(self.engine.remote_settings.get(Setting.ENABLE_CONNECT_PROTOCOL, 0))

    def hold(self, stream: ServerStream2) -> bool:
        """Have a stream wait for the backend's settings; return False where they are known."""
        if self._held is None:
            return False
        self._held.append(stream)
        self.served += 1
        self._reactor.arm(self, self._reactor.now + self._pool.config.connect_timeout)
        return True

    def _let_go(self) -> None:
        held, self._held = self._held, None
        self.served -= len(held or ())
        for stream in held or ():
            stream.let_go()

    def forsake(self, stream: ServerStream2) -> None:
        """Wait no more on behalf of a stream."""
        if self._held is not None and stream in self._held:
            self._held.remove(stream)
        if self._pending is not None and stream in self._pending:
            self._pending.remove(stream)

    def began(self, stream_id: int, stream: ServerStream2) -> None:
        """Take note of a request."""
        self.served += 1
        if not self._held:
            self.deadline = math.inf
        self._streams[stream_id] = stream
        self.flush_soon()

    # Opening

    def on_connected(self, upstream: Upstream) -> None:
        del upstream
        self.wire = self._opening.detach()
        self._pool.connections += 1
        self.endpoint.connections += 1
        self.wire.attach(self)
        self.engine.initiate_connection(
            {Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW, Setting.ENABLE_PUSH: 0, Setting.MAX_CONCURRENT_STREAMS: 0}
        )
        self.engine.set_local_window_size(_CONNECTION_WINDOW)
        pending, self._pending = self._pending or [], None
        for stream in pending:
            stream.opened()
        self.flush()
        if not self._streams:
            self._rest()

    def on_unreachable(self, upstream: Upstream, reason: str) -> None:
        del upstream
        self._is_gone = True
        if self in self.endpoint.idle:
            self.endpoint.idle.remove(self)
        pending, self._pending = self._pending or [], []
        for stream in pending:
            stream.unreachable(reason)

    def on_response(self, response: Response, rest: bytes) -> None:
        raise NotImplementedError

    def on_lost(self, upstream: Upstream, reason: str, is_untouched: bool) -> None:
        del is_untouched
        self.on_unreachable(upstream, reason)

    def on_bad_response(self, error: Refused, *, is_endpoints: bool = True) -> None:
        raise NotImplementedError

    def on_readable(self) -> None:
        raise NotImplementedError

    def on_writable(self) -> None:
        raise NotImplementedError

    # Events

    def on_event(self, events: int) -> None:
        if events & OUT:
            self.flush()
        if events & (IN | HANGUP) and not self._is_gone:
            self._read()

    def _read(self) -> None:
        for _ in range(_READS):
            if self._is_gone:
                return
            try:
                came = self.wire.receive()
            except Gone as error:
                self._gone(str(error))
                return
            if came is None:
                return
            if not came:
                self._gone("closed by the backend")
                return
            try:
                self.engine.receive_data(came)
            except NGH2Error as error:
                self._handle()
                self._gone(f"the backend breaks HTTP/2: {error}")
                return
            self._handle()
            self.flush()
        if self.wire.pending:
            self._reactor.soon(self._read)

    def _handle(self) -> None:
        for event in self.engine.events():
            if isinstance(event, GoAwayReceived):
                self._is_leaving = True
            elif isinstance(event, SettingsReceived):
                if self._held is not None:
                    self._let_go()
            elif isinstance(
                event, ResponseReceived | InformationalResponseReceived | DataReceived | TrailersReceived | StreamClosed
            ):
                self._of_stream(event)

    def _of_stream(self, event: Event) -> None:
        stream_id: int = event.stream_id  # type: ignore[attr-defined]
        stream = self._streams.get(stream_id)
        if isinstance(event, DataReceived):
            if stream is None:
                self.consumed(stream_id, len(event.data))
            else:
                stream.came(event.data, event.end_stream)
        elif stream is None:
            return
        elif isinstance(event, ResponseReceived):
            stream.answered(event.headers, event.end_stream)
        elif isinstance(event, InformationalResponseReceived):
            stream.informed(event.headers)
        elif isinstance(event, TrailersReceived):
            stream.ended([(name, value) for name, value in event.headers if name[:1] != b":"])
        elif isinstance(event, StreamClosed):
            del self._streams[stream_id]
            self._waiting.leave(stream)
            self.outlet.forget(stream_id)
            stream.closed(event.error_code)
            if not self._streams:
                self._rest()

    def _rest(self) -> None:
        if self._held:
            return  # they wait for no longer than a connection may take
        if self._is_leaving or self._pool.is_gone or self.endpoint.endpoint.is_draining:
            self._reactor.soon(self.abort_if_idle)
        else:
            self._reactor.arm(self, self._reactor.now + self._pool.config.idle_timeout)
        self._pool.wake()

    # What streams ask

    def consumed(self, stream_id: int, size: int) -> None:
        """Let the backend send as much again."""
        if size and not self._is_gone:
            with contextlib.suppress(NGH2Error):
                self.engine.acknowledge_received_data(size, stream_id)
            self.flush_soon()

    def reset(self, stream_id: int) -> None:
        """Take a request back."""
        if not self._is_gone:
            with contextlib.suppress(NGH2Error):
                self.engine.reset_stream(stream_id, ErrorCode.CANCEL)
            self.flush_soon()

    def wait(self, stream: StreamBodies) -> None:
        """Tell a stream once there is room."""
        self._waiting.wait(stream)

    def flush_soon(self) -> None:
        """Write at the end of the round."""
        if not self._is_flushing:
            self._is_flushing = True
            self._reactor.soon(self.flush)

    def flush(self) -> None:
        """Write what the windows and the connection allow."""
        self._is_flushing = False
        if self._is_gone or self._pending is not None:
            return
        try:
            self.outlet.flush()
        except (Gone, NGH2Error) as error:
            self._gone(str(error))
            return
        self._handle()
        for stream in self._waiting.ready():
            self._reactor.soon(stream.writable)
        if not (self.engine.want_read or self.engine.want_write or self.outlet.is_blocked):
            self._gone("the backend does not keep to HTTP/2, or said goodbye")

    # Ends

    def on_deadline(self) -> None:
        if self._held:
            self._gone("the backend sent no settings")
        else:
            self.abort_if_idle()

    def on_crash(self) -> None:
        self._gone("internal error")

    def abort_if_idle(self) -> None:
        """Close if no request is on its way."""
        if not self._streams and not self._pending and not self._held:
            self.abort()

    def abort(self) -> None:
        """Close; streams that are on their way are lost, so the pool asks it of idle connections only."""
        if self._streams:
            self._is_leaving = True
            return
        self._gone("closed")

    def _gone(self, reason: str) -> None:
        if self._is_gone:
            return
        self._is_gone = True
        self.deadline = math.inf
        streams, self._streams = self._streams, {}
        self._waiting.clear()
        self.outlet.close()
        self.wire.close()
        self._pool.forget(self)
        held, self._held = self._held or [], []
        for stream in (*streams.values(), *held):
            stream.lost(reason)
