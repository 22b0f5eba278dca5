"""Lines of the access log: one JSON object a request, without queries and credentials."""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec

from pilothouse.traffic.plane.decisions import Decision

__all__ = ["MOST", "line_of"]

MOST: Final = 20_000
"""Lines that wait for the next second; more are counted only."""

_encode = msgspec.json.Encoder().encode


class _Line(msgspec.Struct):
    time: float
    method: str
    host: str
    path: str
    status: int
    seconds: float
    bytes_in: int
    bytes_out: int
    client: str
    route: str
    backend: str
    endpoint: str
    version: str
    region: str
    http: str


def line_of(exchange: Any, decision: Decision | None, seconds: float) -> bytes:
    """Return the line of a request that is over."""
    request = exchange.request
    return _encode(
        _Line(
            round(time.time() - seconds, 6),
            request.method.decode("latin-1"),
            request.host,
            request.path,
            exchange.status,
            round(seconds, 6),
            exchange.bytes_in,
            exchange.bytes_out,
            exchange.client_address,
            decision.route if decision else "",
            decision.backend if decision else "",
            exchange.endpoint_address,
            decision.version if decision else "",
            exchange.region,
            "2" if request.minor == 2 else f"1.{request.minor}",
        )
    )
