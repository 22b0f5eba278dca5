"""What a client wants to upgrade to: WebSocket or SPDY, and which of the protocols over it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pilothouse.apiserver.model import Request, Response, refusal
from pilothouse.kinds.status import BadRequest

__all__ = [
    "SPDY",
    "Handshake",
    "is_upgrade",
    "is_websocket",
    "offered_protocols",
    "plain",
    "spdy_handshake",
    "websocket_handshake",
]

SPDY: Final = "SPDY/3.1"
_VERSION_HEADER: Final = "X-Stream-Protocol-Version"
_ACCEPTED_HEADER: Final = "X-Accepted-Stream-Protocol-Versions"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_LENGTH: Final = 16
_MAX_OFFERS: Final = 64


@dataclass(frozen=True, slots=True)
class Handshake:
    """The protocol agreed on, empty where the client named none, and the headers of the 101 that say so."""

    protocol: str
    headers: Sequence[tuple[str, str]]


def plain(status: int, text: str, headers: Sequence[tuple[str, str]] = ()) -> Response:
    """Return a refusal as text, as node and tunnel write theirs."""
    return Response(
        status, f"{text}\n".encode(), [*headers, ("X-Content-Type-Options", "nosniff")], "text/plain; charset=utf-8"
    )


def is_upgrade(request: Request) -> bool:
    """Whether the client wants another protocol."""
    values = request.all_headers("connection") or [request.headers.get("connection", "")]
    return any("upgrade" in value.lower() for value in values)


def is_websocket(request: Request) -> bool:
    """Whether the client wants WebSocket."""
    return is_upgrade(request) and request.headers.get("upgrade", "").strip().lower() == "websocket"


def _listed(request: Request, name: str) -> list[str]:
    values = request.all_headers(name) or [request.headers.get(name, "")]
    return [part for value in values for text in value.split(",") if (part := text.strip())][:_MAX_OFFERS]


def offered_protocols(request: Request) -> list[str]:
    """Return the WebSocket subprotocols that the client offers, without the one that carries a bearer token."""
    return [
        offer
        for offer in _listed(request, "sec-websocket-protocol")
        if not offer.startswith("base64url.bearer.authorization.k8s.io.")
    ]


def websocket_handshake(request: Request, supported: Sequence[str]) -> Handshake | Response:
    """Answer a WebSocket handshake (RFC 6455); `supported` holds "" where a client may name no subprotocol."""
    key = request.headers.get("sec-websocket-key", "").strip()
    try:
        right_key = len(base64.b64decode(key, validate=True)) == _KEY_LENGTH
    except (binascii.Error, ValueError):
        right_key = False
    if request.method != "GET" or not right_key:
        return plain(400, "Bad Request: a WebSocket handshake is a GET with a Sec-WebSocket-Key of 16 bytes in base64")
    if request.headers.get("sec-websocket-version", "").strip() != "13":
        return plain(426, "Upgrade Required: only version 13 of WebSocket is spoken", [("Sec-WebSocket-Version", "13")])
    offers = offered_protocols(request) or [""]
    chosen = next((offer for offer in offers if offer in supported), None)
    if chosen is None:
        return plain(403, f"requested protocol(s) are not supported: {_go(offers)}; supports {_go(supported)}")
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
    headers = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)]
    if chosen:
        headers.append(("Sec-WebSocket-Protocol", chosen))
    return Handshake(chosen, headers)


def spdy_handshake(request: Request, supported: Sequence[str]) -> Handshake | Response:
    """Answer an upgrade to SPDY/3.1 and agree on a protocol, the client's first that is supported."""
    if not is_upgrade(request):
        return refusal(BadRequest("Upgrade request required"))
    if request.headers.get("upgrade", "").strip().lower() != SPDY.lower():
        found = request.headers.get("upgrade", "")
        return plain(400, f"unable to upgrade: missing upgrade headers in request: Upgrade is {found!r}")
    if "x-stream-protocol-version" not in request.headers:
        count = len(request.headers)
        return plain(400, f"unable to upgrade: header {_VERSION_HEADER} does not exist in request with {count} headers")
    offers = _listed(request, "x-stream-protocol-version")
    if not offers:
        return plain(400, f"unable to upgrade: header {_VERSION_HEADER} contains [], but no valid protocols")
    chosen = next((offer for offer in offers if offer in supported), None)
    if chosen is None:
        text = (
            "unable to upgrade: unable to negotiate protocol: "
            f"client supports {_go(offers)}, server accepts {_go(supported)}"
        )
        return plain(403, text, [(_ACCEPTED_HEADER, protocol) for protocol in supported])
    headers = [("Upgrade", SPDY), ("Connection", "Upgrade"), (_VERSION_HEADER, chosen)]
    return Handshake(chosen, headers)


def _go(texts: Sequence[str]) -> str:
    return f"[{' '.join(texts)}]"
