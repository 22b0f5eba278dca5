"""Streams of HTTP/2 connections as ends of tunnels: WebSockets by extended CONNECT (RFC 8441)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from pilothouse.traffic.plane.bodies import Pump
from pilothouse.traffic.plane.http import Refused, Response
from pilothouse.traffic.plane.upstream import Upstream

if TYPE_CHECKING:
    from pilothouse.traffic.plane.serverstreams2 import ServerStream2
    from pilothouse.traffic.plane.streams2 import Stream2

__all__ = ["ServerStreamEnd", "StreamEnd"]


class StreamEnd:
    """A client's stream. It is what the stream carries instead of an exchange."""

    __slots__ = ("_abort", "_into", "_out_of", "sink", "source")

    def __init__(self, stream: Stream2) -> None:
        self.source = self.sink = stream

    def begin(self, into: Pump, out_of: Pump, abort: Callable[[], object]) -> None:
        self._into, self._out_of, self._abort = into, out_of, abort

    def close(self, is_clean: bool) -> None:
        self.source.leave(is_clean)

    def on_client_readable(self) -> bool:
        """Pass on what the client sends."""
        self._out_of.run()
        return True

    def on_client_writable(self) -> None:
        """Go on with what the client gets."""
        self._into.run()

    def client_gone(self) -> None:
        """Act on that the stream is over, which may be so before all that it sent has moved on."""
        if not (self.source.has_ended and self._into.is_over):
            self._abort()

    def on_deadline(self, now: float) -> None:
        """Do nothing: the tunnel has its own."""

    def next_deadline(self) -> float:
        """Return that there is none."""
        return math.inf


class ServerStreamEnd:
    """A stream to a backend. It is what the stream tells of its events instead of an exchange."""

    __slots__ = ("_abort", "_into", "_out_of", "sink", "source")

    def __init__(self, stream: ServerStream2) -> None:
        self.source = self.sink = stream

    def begin(self, into: Pump, out_of: Pump, abort: Callable[[], object]) -> None:
        self._into, self._out_of, self._abort = into, out_of, abort

    def close(self, is_clean: bool) -> None:
        if is_clean:
            self.source.finish(is_reusable=True)
        else:
            self.source.abort()

    def on_readable(self) -> None:
        self._out_of.run()

    def on_writable(self) -> None:
        self._into.run()

    def on_lost(self, upstream: Upstream, reason: str, is_untouched: bool) -> None:
        del upstream, reason, is_untouched
        if not self._into.is_over:
            self._abort()

    # What only requests are told

    def on_response(self, response: Response, rest: bytes) -> None:
        """Do nothing: what was answered stays answered."""

    def on_connected(self, upstream: Upstream) -> None:
        raise NotImplementedError

    def on_unreachable(self, upstream: Upstream, reason: str) -> None:
        raise NotImplementedError

    def on_bad_response(self, error: Refused, *, is_endpoints: bool = True) -> None:
        raise NotImplementedError
