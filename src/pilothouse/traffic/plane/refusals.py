"""What a client is told that gets no answer of a backend: a status and a short text, or gRPC's status."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from pilothouse.traffic.plane.http import Refused, Request, Response

__all__ = ["refusal"]

_GRPC: Final = {400: 13, 401: 16, 403: 7, 404: 12, 408: 4, 413: 8, 429: 8, 431: 8, 502: 14, 503: 14, 504: 14}
_EXTRA: Final = {499: "Client Closed Request"}


def refusal(error: Refused, *, is_grpc: bool = False, request: Request | None = None) -> tuple[Response, bytes]:
    """Return the response and its body."""
    if is_grpc and request is not None and (request.field(b"content-type") or b"").startswith(b"application/grpc"):
        fields = [
            (b"content-type", b"application/grpc"),
            (b"grpc-status", b"%d" % _GRPC.get(error.status, 2)),
            (b"grpc-message", quote(str(error)).encode()),
        ]
        return Response(200, b"OK", fields), b""
    try:
        reason = HTTPStatus(error.status).phrase
    except ValueError:
        reason = _EXTRA.get(error.status, "Refused")
    fields = [(b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff")]
    if error.status == 429:
        fields.append((b"retry-after", b"1"))
    return Response(error.status, reason.encode(), fields), f"{error.status} {reason}: {error}\n".encode()
