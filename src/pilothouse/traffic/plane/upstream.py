"""The side of a backend, as one request sees it, whatever version of HTTP it speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pilothouse.traffic.plane.balancing import EndpointState
from pilothouse.traffic.plane.bodies import Sink, Source
from pilothouse.traffic.plane.http import FieldList, Refused, Request, Response
from pilothouse.traffic.plane.tunnels import End
from pilothouse.traffic.plane.wires import Buffer, Wire

__all__ = ["Answered", "Outgoing", "Upstream", "UpstreamBody", "Waiting"]


class Outgoing:
    """A request's head as a backend gets it."""

    __slots__ = ("authority", "fields", "request", "target")

    def __init__(self, request: Request, target: bytes, authority: bytes, fields: FieldList) -> None:
        self.request = request
        self.target = target
        self.authority = authority
        self.fields = fields


class UpstreamBody(Source, Protocol):
    """A response's body. beyond: what came after its end. is_decoded: whether its coding is taken off.

    is_all: whether its last byte has come already.
    """

    beyond: bytes
    is_decoded: bool

    @property
    def is_all(self) -> bool: ...


class Upstream(Protocol):
    """A connection, or a stream of one, that a request has for itself. served: requests of the connection so far."""

    endpoint: EndpointState

    @property
    def served(self) -> int: ...

    @property
    def wire(self) -> Wire: ...

    @property
    def is_busy(self) -> bool:
        """Whether the request is on its way."""

    def open(self, exchange: Answered) -> None:
        """Connect; the exchange is told `on_connected` or `on_unreachable`, maybe before this returns."""

    def forsake(self) -> None:
        """Go on connecting without the request."""

    def begin(
        self, exchange: Answered, outgoing: Outgoing, pieces: Sequence[Buffer], trailers: FieldList | None
    ) -> None:
        """Send a head with what there is of its body; trailers: behind it, None where more of it comes. Raises Gone."""

    def sink(self, request: Request) -> Sink:
        """Return where the rest of the request's body goes."""

    def source(self, response: Response, rest: bytes) -> UpstreamBody:
        """Return where the response's body comes from."""

    def has_spoken(self) -> bool:
        """Return whether the backend has said something that was not read."""

    def finish(self, is_reusable: bool) -> None:
        """Let go after a response."""

    def abort(self) -> None:
        """Let go in the middle."""

    def tunnelled(self, rest: bytes) -> End:
        """Give the connection, or stream, to a tunnel. rest: what came behind the head."""


class Answered(Protocol):
    """Who is told of what happens with a request (`exchange`)."""

    def on_connected(self, upstream: Upstream) -> None: ...

    def on_unreachable(self, upstream: Upstream, reason: str) -> None: ...

    def on_response(self, response: Response, rest: bytes) -> None: ...

    def on_lost(self, upstream: Upstream, reason: str, is_untouched: bool) -> None: ...

    def on_bad_response(self, error: Refused, *, is_endpoints: bool = True) -> None:
        """Act on a response that cannot be passed on. is_endpoints: whether that is its endpoint's failure."""

    def on_readable(self) -> None: ...

    def on_writable(self) -> None: ...


class Waiting(Answered, Protocol):
    """A request that has no connection yet."""

    def on_room(self) -> None:
        """Try again: there is room for a connection."""
