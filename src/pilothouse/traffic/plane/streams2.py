"""One stream of a client's HTTP/2 connection: a request's body out of frames, an answer into frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from ngh2 import ErrorCode, NGH2Error

from pilothouse.traffic.plane.bodies2 import StreamBodies
from pilothouse.traffic.plane.connections import Peer
from pilothouse.traffic.plane.downstream import Carried
from pilothouse.traffic.plane.exchange import Exchange
from pilothouse.traffic.plane.http import Body, FieldList, Refused, Request, Response
from pilothouse.traffic.plane.tunnels import End
from pilothouse.traffic.plane.tunnels2 import StreamEnd
from pilothouse.traffic.plane.wires import Buffer, Gone

if TYPE_CHECKING:
    from pilothouse.traffic.plane.client2 import Client2
    from pilothouse.traffic.plane.worker import Worker

__all__ = ["Stream2"]

_DISCARDED_BYTES: Final = 1 << 20
"""Of a body that nobody wants, before its stream is reset."""


class Stream2(StreamBodies):
    """A request and its answer: the client's side of an exchange, the source of its body, the sink of its answer."""

    __slots__ = (
        "_client",
        "_discarded",
        "_worker",
        "deadline",
        "exchange",
        "is_open",
        "peer",
        "refused",
        "request",
    )

    def __init__(self, client: Client2, worker: Worker, stream_id: int, request: Request, is_whole: bool) -> None:
        super().__init__(client, client.wire, stream_id, is_whole=is_whole)
        self._client, self._worker = client, worker
        self.request = request
        self.peer: Peer = client.peer
        self.exchange: Carried | None = None
        self.refused: Refused | None = None
        self.is_open = True
        self.deadline = math.inf
        self._discarded = 0

    def begin(self) -> None:
        """Carry the request, or say why not."""
        exchange = self.exchange
        if not isinstance(exchange, Exchange):
            return
        if self.refused is not None:
            exchange.refuse(self.refused)
        else:
            exchange.begin()

    # The request's body

    def came(self, data: bytes) -> None:
        """Take a piece of the body."""
        if self.exchange is None:
            self._discarded += len(data)
            self._client.consumed(self.id, len(data))
            if self._discarded > _DISCARDED_BYTES:
                self._client.reset(self.id, ErrorCode.NO_ERROR)
            return
        if data:
            self._pieces.append(data)
            self.exchange.on_client_readable()

    def ended(self, trailers: FieldList) -> None:
        """Take note of the body's end."""
        self.has_ended = True
        self._trailers = trailers
        if not self._pieces:
            self.done = True
        if self.exchange is not None:
            self.exchange.on_client_readable()

    # The client's side of the exchange

    def body(self) -> Stream2:
        """Return where the request's body comes from: here."""
        return self

    def sink(self, response: Response) -> Stream2:
        """Return where the answer's body goes: here."""
        del response
        return self

    def is_encoded_for(self, response: Response) -> bool:
        """Return whether the chunked coding has to be off: always."""
        return response.body is Body.CHUNKED

    def send_head(self, response: Response, pieces: Sequence[Buffer], is_whole: bool) -> None:
        """Queue a head, with the first or all of its body. Raises Gone."""
        is_tunnel = response.status == 101  # which HTTP/2 has no status for: it is accepted as other requests are
        fields = [(b":status", b"200" if is_tunnel else b"%d" % response.status), *response.fields]
        if response.body is Body.LENGTH:
            fields.append((b"content-length", b"%d" % response.length))
        engine = self._client.engine
        try:
            engine.send_response(self.id, fields, end_stream=is_whole and not pieces and not is_tunnel)
            if pieces:
                self._worker.counters.bytes_copied += sum(map(len, pieces))
                engine.send_data(self.id, b"".join(pieces), end_stream=is_whole)
        except NGH2Error as error:
            raise Gone(str(error)) from None
        self._client.flush_soon()

    def send_interim(self, response: Response) -> None:
        """Queue an interim head. Raises Gone."""
        try:
            fields = [(b":status", b"%d" % response.status), *response.fields]
            self._client.engine.send_informational_response(self.id, fields)
        except NGH2Error as error:
            raise Gone(str(error)) from None
        self._client.flush_soon()

    def watch(self, when: float) -> None:
        """Look at the exchange's deadlines then."""
        self.deadline = when
        self._client.watch(when)

    def look(self, now: float) -> None:
        """Look at the exchange's deadlines if one is past."""
        exchange = self.exchange
        if self.deadline <= now and exchange is not None:
            exchange.on_deadline(now)
            self.deadline = exchange.next_deadline() if self.exchange is exchange else math.inf

    def upgraded(self, upstream: End) -> None:
        """Pass bytes both ways from now on."""
        self.deadline = math.inf
        end = self.exchange = StreamEnd(self)
        self._worker.tunnel(self.peer.scope.limits, end, upstream)

    def leave(self, is_clean: bool) -> None:
        """Let the stream go after a tunnel. Not clean: reset it, as a connection would be (RFC 8441, 5)."""
        self.exchange = None
        self._discard()
        if not is_clean and self.is_open:
            self._client.reset(self.id, ErrorCode.CANCEL)

    def finish(self, is_clean: bool) -> None:
        """Let the stream end, or reset it."""
        self.exchange = None
        self.deadline = math.inf
        self._discard()
        if not is_clean and self.is_open:
            self._client.reset(self.id, ErrorCode.INTERNAL_ERROR)
        elif not self.has_ended and self.is_open:
            self._client.reset_when_sent(self.id)

    def closed(self) -> None:
        """Give up: the stream is over, or its connection."""
        self.is_open = False
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.client_gone()

    def writable(self) -> None:
        """Go on with the answer."""
        if self.exchange is not None:
            self.exchange.on_client_writable()
