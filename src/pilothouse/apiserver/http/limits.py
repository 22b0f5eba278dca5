"""What peers of the HTTP server may cost: sizes, times and numbers, each with its default."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["HttpLimits"]


@dataclass(frozen=True, slots=True)
class HttpLimits:
    """Bounds of one server; sizes in bytes, times in seconds. Times are kept to within a second."""

    http2: bool = False
    """Whether HTTP/2 is offered to peers that speak TLS."""
    max_connections: int = 10_000
    """Those over it are closed as soon as they come."""
    max_head_bytes: int = 64 << 10
    """Of the request line and headers together: 431 over it."""
    max_target_bytes: int = 32 << 10
    """Of path and query: 414 over it."""
    max_body_bytes: int = 3 << 20
    """413 over it."""
    handshake_seconds: float = 10.0
    head_seconds: float = 10.0
    """From the first byte of a request (or the connection's beginning) to the end of its headers."""
    body_seconds: float = 60.0
    """From the end of the headers to the end of the body."""
    idle_seconds: float = 90.0
    """Between two requests of a connection; also for a peer that does not take its answer."""
    linger_seconds: float = 2.0
    """How long what a refused peer still sends is thrown away, so that it gets to read the refusal."""
    max_pipelined_bytes: int = 64 << 10
    """Of requests that wait for the answer of one before them; the peer is not read from over it."""
    write_high_bytes: int = 64 << 10
    """Of answers a peer has not taken, from which on streams wait in `drain` and no further request is begun."""
