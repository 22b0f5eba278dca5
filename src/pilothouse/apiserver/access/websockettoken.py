"""A bearer token that a browser hides among the subprotocols of a WebSocket, as it can send no Authorization."""

from __future__ import annotations

import base64
import binascii
from typing import Final

from pilothouse.apiserver.model import Request

__all__ = ["WebSocketTokenError", "websocket_token"]

_PREFIX: Final = "base64url.bearer.authorization.k8s.io."
_HEADER: Final = "sec-websocket-protocol"


class WebSocketTokenError(Exception):
    """The subprotocols do not carry a token as they should."""


def websocket_token(request: Request) -> str:
    """Return the token among the subprotocols, and take it out of the headers; empty where there is none.

    Raises WebSocketTokenError.
    """
    headers = request.headers
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in headers.get("connection", "").lower():
        return ""
    lists = request.all_headers(_HEADER) or [headers[_HEADER]]
    protocols = [protocol.strip() for text in lists for protocol in text.split(",")]
    carriers = [protocol for protocol in protocols if protocol.startswith(_PREFIX)]
    others = [protocol for protocol in protocols if not protocol.startswith(_PREFIX)]
    if not carriers:
        return ""
    if len(carriers) > 1:
        raise WebSocketTokenError("multiple base64.bearer.authorization tokens specified")
    token = _decoded(carriers[0][len(_PREFIX) :])
    if token and not others:
        raise WebSocketTokenError("missing additional subprotocol")
    headers[_HEADER] = ",".join(others)
    request.header_list = [
        *((name, value) for name, value in request.header_list if name != _HEADER),
        (_HEADER, headers[_HEADER]),
    ]
    return token


def _decoded(text: str) -> str:
    if "=" in text:
        raise WebSocketTokenError("invalid base64.bearer.authorization token encoding")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise WebSocketTokenError("invalid base64.bearer.authorization token encoding") from error
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise WebSocketTokenError("invalid base64.bearer.authorization token") from error
