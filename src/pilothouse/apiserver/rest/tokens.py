"""Continue tokens: where a list goes on, and as of which resource version. The format is Kubernetes' own."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

import msgspec

from pilothouse.apiserver.rest.gojson import syntax_error
from pilothouse.kinds.status import BadRequest

__all__ = ["NOW", "Token", "decode_token", "encode_token"]

NOW = -1
"""The version of a token that goes on with what is there now."""
_VERSION = "meta.k8s.io/v1"


@dataclass(frozen=True, slots=True)
class Token:
    """version: as of which the list is read, NOW for the present. start: the first key, within the resource."""

    version: int
    start: str


class _Wire(msgspec.Struct):
    v: str
    rv: int
    start: str


def encode_token(token: Token) -> str:
    """Return the text of a token."""
    data = msgspec.json.encode(_Wire(_VERSION, token.version, token.start))
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode_token(text: str) -> Token:
    """Read a token. Raises BadRequest."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise _bad("continue key is not valid: illegal base64 data at input byte 0") from None
    try:
        found = msgspec.json.decode(data, type=_Wire)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"continue key is not valid: {syntax_error(data) or error}") from None
    if found.v != _VERSION:
        raise _bad(f"continue key is not valid: server does not recognize this encoded version {found.v!r}")
    if found.rv == 0 or found.rv < NOW or not found.start:
        raise _bad("continue key is not valid: incorrect encoded start resourceVersion or key (version meta.k8s.io/v1)")
    if ".." in found.start.split("/"):
        raise _bad("continue key is not valid: it contains a relative path")
    return Token(found.rv, found.start)


def _bad(why: str) -> BadRequest:
    return BadRequest(f"invalid continue token: {why}")
