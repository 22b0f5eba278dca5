"""Requests of HTTP/2: what their fields say, checked so that they mean the same in HTTP/1.1 (RFC 9113, 8.3)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

from pilothouse.traffic.plane.heads import host_of
from pilothouse.traffic.plane.http import UNKNOWN, Body, FieldList, Refused, Request
from pilothouse.traffic.plane.switching import WEBSOCKET

__all__ = ["read_request"]

_TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[^\x00-\x08\x0a-\x1f\x7f]*")
_TARGET: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_SPECIAL: Final = frozenset({b"host", b"te", b"expect", b"content-length", b"cookie"})
_NEVER: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})


def read_request(headers: Iterable[Any], *, is_whole: bool, most: int) -> Request:
    """Return a request. is_whole: whether no body comes; most: fields it may have. Raises Refused."""
    pseudo: dict[bytes, bytes] = {}
    fields: FieldList = []
    special: list[tuple[bytes, bytes]] = []
    for name, value in headers:
        if name[:1] == b":":
            pseudo[name] = value
        elif name in _NEVER or not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
            raise Refused(400, "smuggling", "a header field that HTTP/2 does not have")
        elif name in _SPECIAL:
            special.append((name, value))
        else:
            fields.append((name, value))
    if len(fields) + len(special) > most:
        raise Refused(431, "fields", "too many header fields")
    request = _request(pseudo, fields, special)
    request.minor = 2
    if not is_whole and not request.upgrade:
        request.body, request.length = Body.FRAMES, UNKNOWN
    _specials(request, special)
    return request


def _request(pseudo: dict[bytes, bytes], fields: FieldList, special: FieldList) -> Request:
    hosts = [value for name, value in special if name == b"host"]
    authority = pseudo.get(b":authority") or (hosts[0] if hosts else b"")
    if any(host.lower() != authority.lower() for host in hosts) or not authority:
        raise Refused(400, "host", "want :authority, and Host to be the same")
    method, target, upgrade = pseudo.get(b":method", b""), pseudo.get(b":path", b""), pseudo.get(b":protocol", b"")
    if method == b"CONNECT":
        if not upgrade:
            raise Refused(405, "method", "no tunnels are opened here")
        if upgrade.lower() != WEBSOCKET:
            raise Refused(501, "upgrade", "of protocols only websocket is spoken here")
        method = b"GET"  # as it is asked for in HTTP/1.1, and by the rules of routes
    if not _TOKEN.fullmatch(method):
        raise Refused(501, "method", "unknown method")
    if not _TARGET.fullmatch(target) and (method, target) != (b"OPTIONS", b"*"):
        raise Refused(400, "target", "bad target")
    request = Request(method, target, authority, host_of(authority), fields)
    request.upgrade = upgrade.lower()
    return request


def _specials(request: Request, special: list[tuple[bytes, bytes]]) -> None:
    cookies = [value for name, value in special if name == b"cookie"]
    if cookies:
        request.fields.append((b"cookie", b"; ".join(cookies)))
    for name, value in special:
        if name == b"te":
            request.trailers = value.lower() == b"trailers"
        elif name == b"expect":
            if value.lower() != b"100-continue":
                raise Refused(417, "expect", "unknown expectation")
            request.expects = request.body is not Body.NONE
        elif name == b"content-length" and request.body is not Body.NONE:
            if request.length != UNKNOWN or not value.isdigit() or len(value) > 18:
                raise Refused(400, "smuggling", "bad Content-Length")
            request.length = int(value)
            request.body = Body.LENGTH if request.length else Body.NONE
