"""One HTTP/2 connection: many requests at a time to the same handler, on nghttp2. There are no upgrades in it."""

from __future__ import annotations

import contextlib
import math
from typing import Any, Final

from ngh2 import (
    Configuration,
    Connection,
    DataReceived,
    ErrorCode,
    Event,
    GoAwayReceived,
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

from pilothouse.apiserver.http.answering import Shared, failed
from pilothouse.apiserver.http.h2answering import Http2Answering, Stream
from pilothouse.apiserver.http.heads import Malformed, split_target
from pilothouse.apiserver.model import (
    Peer,
    Request,
    Response,
    StreamingResponse,
    UpgradeResponse,
    refusal,
)
from pilothouse.foundation.grpc.connection import RateLimit
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.status import BadRequest, too_large

__all__ = ["Http2Connection"]

_log = get_logger(__name__)

_STREAM_WINDOW: Final = 256 << 10
_CONNECTION_WINDOW: Final = 4 << 20
_MAX_STREAMS: Final = 250
_MAX_BODIES_BYTES: Final = 32 << 20
"""Of bodies that are not whole yet, over all requests of a connection."""


def _engine(max_head_bytes: int) -> Connection:
    engine = Connection(
        Role.SERVER,
        Configuration(
            auto_window_update=False,
            max_inbound_header_list_size=max_head_bytes,
            stream_reset_rate_limit=(1 << 30, 1 << 30),  # counted here, to say so when it is over
        ),
    )
    engine.initiate_connection(
        {
            Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
            Setting.MAX_CONCURRENT_STREAMS: _MAX_STREAMS,
            Setting.MAX_HEADER_LIST_SIZE: max_head_bytes,
        }
    )
    engine.set_local_window_size(_CONNECTION_WINDOW)
    return engine


class Http2Connection(Http2Answering):
    """Answer the requests of one peer."""

    def __init__(self, shared: Shared) -> None:
        limits = shared.limits
        super().__init__(shared, _engine(limits.max_head_bytes))
        self._bodies = 0
        self._peer: Peer | None = None
        self.deadline = shared.monotonic() + limits.idle_seconds
        self._resets = RateLimit(_MAX_STREAMS, 100.0, shared.monotonic)
        self._pings = RateLimit(1000, 100.0, shared.monotonic)
        self._settings = RateLimit(100, 10.0, shared.monotonic)

    def begin(self, transport: Any, peer: Peer) -> None:
        """Take up a connection whose handshake is done."""
        self._peer = peer
        if self._shared.closing:
            transport.abort()
            return
        self.connection_made(transport)
        self._shared.connections.add(self)
        self.flush()

    # What Http2Protocol asks

    def lost(self, reason: str) -> None:
        del reason
        self._shared.leave(self)
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            self._forget(stream)

    def wants_keepalive(self) -> bool:
        return bool(self._streams)

    def flush(self) -> None:
        super().flush()
        transport, engine = self.transport, self.engine
        if transport is not None and not self.paused and not engine.want_read and not engine.want_write:
            transport.close()  # either side said goodbye, or the peer broke the protocol and was told

    def pause_writing(self) -> None:
        super().pause_writing()
        if self.transport is not None:
            self.transport.pause_reading()  # who does not read answers gets to ask nothing more

    def resume_writing(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.resume_reading()
        super().resume_writing()

    def handle(self, events: list[Event]) -> None:
        for event in events:
            if type(event) is RequestReceived:
                self._on_request(event)
            elif type(event) is DataReceived:
                self._on_data(event)
            elif type(event) is StreamClosed:
                self._on_closed(event.stream_id)
            elif not self._on_rare(event):
                return
        self._set_deadline()

    def _on_rare(self, event: Event) -> bool:
        """Act on an event off the hot path; return False when the peer overdid it and the connection ends."""
        if isinstance(event, StreamReset):
            return self._tolerate(self._resets, "stream resets")
        if isinstance(event, PingReceived):
            return self._tolerate(self._pings, "pings")
        if isinstance(event, SettingsReceived):
            return self._tolerate(self._settings, "settings")
        if isinstance(event, TrailersReceived):
            self._on_end(event.stream_id)
        elif isinstance(event, GoAwayReceived):
            self.closing = True
        return True

    def _tolerate(self, limit: RateLimit, what: str) -> bool:
        if limit.spend():
            return True
        _log.warning("connection ended", peer=self._peer.address if self._peer else "", reason=f"too many {what}")
        self.refuse(f"too many {what}")
        self.lost(what)
        return False

    def _set_deadline(self) -> None:
        """Say when the sweep has something to do here."""
        if not self._streams:
            self.deadline = self._shared.monotonic() + self._shared.limits.idle_seconds
        else:
            self.deadline = min(stream.deadline for stream in self._streams.values())

    # Requests

    def _on_request(self, event: RequestReceived) -> None:
        stream_id = event.stream_id
        method, target, pairs = _read(event.headers)
        try:
            path, query_text = _split(method, target, self._shared.limits.max_target_bytes)
        except Malformed as error:
            self._streams[stream_id] = stream = Stream(Request(method, "/", "/", "", {}))
            stream.ended = event.end_stream
            self._deliver(stream_id, stream, refusal(BadRequest(str(error), code=error.status)))
            return
        headers = dict(reversed(pairs))
        request = Request(method, target, path, query_text, headers, b"", self._peer, pairs)
        self._streams[stream_id] = stream = Stream(request)
        if event.end_stream:
            self._on_end(stream_id)
            return
        stream.deadline = self._shared.monotonic() + self._shared.limits.body_seconds
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:19]) > self._shared.limits.max_body_bytes:
            self._refuse_body(stream_id, stream)

    def _on_data(self, event: DataReceived) -> None:
        stream_id, data = event.stream_id, event.data
        if data:
            self.acknowledge(len(data), stream_id)
        stream = self._streams.get(stream_id)
        if stream is None or stream.ended:
            return
        stream.body.append(data)
        stream.size += len(data)
        self._bodies += len(data)
        if stream.size > self._shared.limits.max_body_bytes:
            self._refuse_body(stream_id, stream)
        elif event.end_stream:
            self._on_end(stream_id)
        elif self._bodies > _MAX_BODIES_BYTES:
            self._reset(stream_id, ErrorCode.ENHANCE_YOUR_CALM)

    def _drop_body(self, stream: Stream) -> bytes:
        body = b"".join(stream.body)
        self._bodies -= stream.size
        stream.body, stream.size = [], 0
        return body

    def _refuse_body(self, stream_id: int, stream: Stream) -> None:
        self._drop_body(stream)
        stream.ended = True
        self._deliver(stream_id, stream, refusal(too_large(f"limit is {self._shared.limits.max_body_bytes}")))
        self.reset_when_sent(stream_id)

    def _on_end(self, stream_id: int) -> None:
        """Answer a request that is whole."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.ended:
            return
        stream.ended = True
        stream.deadline = math.inf
        request = stream.request
        request.body = self._drop_body(stream)
        try:
            answer = self._shared.handler(request)
        except Exception as error:  # noqa: BLE001  # whatever it is, the peer gets an answer
            answer = failed(request.method, request.path, error)
        if isinstance(answer, Response | StreamingResponse | UpgradeResponse):
            self._deliver(stream_id, stream, answer)
        else:
            stream.task = self.loop.create_task(self._await(stream_id, stream, answer))

    def _on_closed(self, stream_id: int) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            self._forget(stream)
        if self._ending and not self._streams:
            self.loop.call_soon(self._terminate)

    def _forget(self, stream: Stream) -> None:
        self._drop_body(stream)
        if stream.sink is not None:
            stream.sink.closed = True
        if stream.task is not None and not stream.task.done():
            self.loop.call_soon(stream.task.cancel)  # once it has begun

    # What the server asks

    def expire(self, now: float) -> None:
        """Reset requests whose body does not come; close an idle connection."""
        if not self._streams:
            if self._ending or self.paused:
                self.abort()
                return
            self.deadline = now + self._shared.limits.linger_seconds
            self._ending = True
            self._terminate()
            return
        for stream_id, stream in list(self._streams.items()):
            if stream.deadline <= now:
                stream.deadline = math.inf
                self._reset(stream_id, ErrorCode.CANCEL)
        self._set_deadline()

    def shut_down(self) -> None:
        """Take no further requests; streams end now, what is begun is answered."""
        self._ending = True
        with contextlib.suppress(NGH2Error):
            self.engine.send_goaway(ErrorCode.NO_ERROR)
        for stream in self._streams.values():
            if stream.sink is not None and stream.task is not None:
                self.loop.call_soon(stream.task.cancel)
        self.flush()
        if not self._streams:
            self._terminate()

    def _terminate(self) -> None:
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        with contextlib.suppress(NGH2Error):
            self.engine.terminate_connection(ErrorCode.NO_ERROR)
        self.flush()
        transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self.transport is not None:
            self.transport.abort()


def _split(method: str, target: str, max_bytes: int) -> tuple[str, str]:
    """Return path and query. Raises Malformed."""
    if not target.startswith("/") and (target, method) != ("*", "OPTIONS"):
        raise Malformed("invalid URI for request")
    if len(target) > max_bytes:
        raise Malformed("request target too long", 414)
    return split_target(target)


def _read(headers: Any) -> tuple[str, str, list[tuple[str, str]]]:
    """Return method, target and the other fields, `:authority` as `host`."""
    method = target = ""
    pairs: list[tuple[str, str]] = []
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1")
        try:
            value = raw_value.decode()
        except UnicodeDecodeError:
            value = raw_value.decode("latin-1")
        if name == ":method":
            method = value
        elif name == ":path":
            target = value
        elif name == ":authority":
            pairs.append(("host", value))
        elif not name.startswith(":"):
            pairs.append((name, value))
    return method, target, pairs
