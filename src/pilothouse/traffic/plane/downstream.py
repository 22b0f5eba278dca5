"""The side of a client, as one request sees it, whatever version of HTTP it speaks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pilothouse.traffic.plane.bodies import Sink, Source
from pilothouse.traffic.plane.connections import Peer
from pilothouse.traffic.plane.http import Response
from pilothouse.traffic.plane.tunnels import End
from pilothouse.traffic.plane.wires import Buffer, Wire

__all__ = ["Carried", "Downstream"]


class Carried(Protocol):
    """What a client's stream carries, and tells of its events: a request's exchange, or one end of a tunnel."""

    def on_client_readable(self) -> bool:
        """Read from the client's side; return whether what is there was wanted."""

    def on_client_writable(self) -> None:
        """Write to the client's side."""

    def client_gone(self) -> None:
        """Act on that the client's side is over."""

    def on_deadline(self, now: float) -> None:
        """Look at the deadlines that are past."""

    def next_deadline(self) -> float:
        """Return when to look next."""


class Downstream(Protocol):
    """The side of the client, of one request."""

    peer: Peer
    wire: Wire

    def body(self) -> Source:
        """Return where the request's body comes from."""

    def send_head(self, response: Response, pieces: Sequence[Buffer], is_whole: bool) -> None:
        """Write a response's head, with the first or all of its body. Raises Gone."""

    def send_interim(self, response: Response) -> None:
        """Write an interim response. Raises Gone."""

    def sink(self, response: Response) -> Sink:
        """Return where the rest of the body goes."""

    def is_encoded_for(self, response: Response) -> bool:
        """Return whether this side frames the body on its own, so that it wants the bytes without framing."""

    def watch(self, when: float) -> None:
        """Look at the request's deadlines then."""

    def finish(self, is_clean: bool) -> None:
        """Go on after the request; not clean: it ended in the middle of its response."""

    def upgraded(self, upstream: End) -> None:
        """From now on bytes are passed both ways."""
