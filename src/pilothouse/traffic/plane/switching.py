"""What the fields of a WebSocket's handshake become from one version of HTTP to the other (RFC 6455, 4; RFC 8441, 5).

HTTP/1.1 proves by a key and its answer that both sides mean it; in HTTP/2 there are neither, :protocol says so.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from pilothouse.traffic.plane.http import FieldList, Refused

__all__ = ["NONCE_BYTES", "WEBSOCKET", "accept_of", "answered", "asked"]

WEBSOCKET: Final = b"websocket"
NONCE_BYTES: Final = 16
_KEY: Final = b"sec-websocket-key"
_ACCEPT: Final = b"sec-websocket-accept"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def accept_of(key: bytes) -> bytes:
    """Return what a server answers to a key."""
    return base64.b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def _value(fields: FieldList, name: bytes) -> bytes:
    return next((value for each, value in fields if each == name), b"")


def _without(fields: FieldList, name: bytes) -> FieldList:
    return [field for field in fields if field[0] != name]


def asked(fields: FieldList, nonce: bytes, *, by_frames: bool, to_frames: bool) -> FieldList:
    """Return a request's fields for its backend.

    by_frames, to_frames: whether it came, and goes on, by HTTP/2. nonce: random bytes, of which the key is made that
    HTTP/1.1 needs. Raises Refused where the client's own key is none.
    """
    if by_frames and not to_frames:
        return [*_without(fields, _KEY), (_KEY, base64.b64encode(nonce))]
    if to_frames and not by_frames:
        try:
            is_key = len(base64.b64decode(_value(fields, _KEY), validate=True)) == NONCE_BYTES
        except binascii.Error:
            is_key = False
        if not is_key:
            raise Refused(400, "upgrade", "want Sec-WebSocket-Key, of 16 bytes")
    return _without(fields, _KEY) if to_frames else fields


def answered(fields: FieldList, sent: FieldList, came: FieldList, *, by_frames: bool, to_frames: bool) -> FieldList:
    """Return an answer's fields for the client. sent, came: the request's, as the backend got and the client sent them.

    Raises Refused where the backend did not answer to the key.
    """
    if by_frames and not to_frames and _value(fields, _ACCEPT) != accept_of(_value(sent, _KEY)):
        raise Refused(502, "upgrade", "the backend's Sec-WebSocket-Accept does not fit")
    if by_frames:
        return _without(fields, _ACCEPT)
    if to_frames:
        return [*_without(fields, _ACCEPT), (_ACCEPT, accept_of(_value(came, _KEY)))]
    return fields
