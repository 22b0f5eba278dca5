"""Heads of HTTP/1.1 messages: httptools reads them, and what they say of bodies and connections is decided here.

Whatever two readers could understand differently is refused: several lengths, a length beside a transfer coding, bare
line feeds, folded lines, control characters, a target that contradicts `Host`. Follows RFC 9110 and 9112.
"""

from __future__ import annotations

import re
from typing import Any, Final, TypeVar

import httptools

from pilothouse.traffic.plane.http import UNKNOWN, Body, FieldList, Refused, Request, Response

__all__ = ["HEAD_END", "HeadReader", "host_of"]

HEAD_END: Final = b"\r\n\r\n"

_HOP_BY_HOP: Final = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"te", b"upgrade"})
_SPECIAL: Final = _HOP_BY_HOP | {b"content-length", b"transfer-encoding", b"host", b"expect"}
_NEVER_BY_CONNECTION: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"cookie", b"authorization"})
"""What `Connection` may name without that it is taken out: requests without them would mean something else."""

_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
_AUTHORITY: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[0-9A-Za-z_.~-]{1,253})(?::([0-9]{0,5}))?")
_ABSOLUTE: Final = re.compile(rb"(https?)://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_TARGET: Final = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_HOSTS_KEPT: Final = 4096
_HEADS_KEPT: Final = 1024
_KEPT_BYTES: Final = 1024


class _Seen:
    """What the parser calls."""

    __slots__ = ("fields", "finished", "status", "target")

    def __init__(self) -> None:
        self.fields: FieldList = []
        self.target = b""
        self.status = b""
        self.finished = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_status(self, status: bytes) -> None:
        self.status += status

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.finished = True


_hosts: dict[bytes, str] = {}


def host_of(authority: bytes) -> str:
    """Return the host of an authority, in lower case and without port or final dot. Raises Refused."""
    known = _hosts.get(authority)
    if known is not None:
        return known
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise Refused(400, "host", "bad Host")
    host = found[1].decode("ascii").lower().removesuffix(".")
    if len(_hosts) >= _HOSTS_KEPT:
        _hosts.clear()
    _hosts[authority] = host
    return host


_Head = TypeVar("_Head", Request, Response)


def _keep(kept: dict[bytes, _Head], head: bytes, message: _Head) -> None:
    if len(kept) >= _HEADS_KEPT:
        kept.clear()
    kept[head] = message


class HeadReader:
    """Reads heads one after the other; one serves all connections of a process. most: how many fields a head has.

    Heads that come again, to the byte, are not read again: clients and backends repeat them on their connections.
    """

    def __init__(self, most: int = 128) -> None:
        self.most = most
        self._seen = _Seen()
        self._kept: Any = None
        self._requests: dict[bytes, Request] = {}
        self._responses: dict[bytes, Response] = {}

    def take_most(self, most: int) -> None:
        """Go on with another number of fields that a head may have."""
        self.most = most
        self._requests.clear()

    def request(self, head: bytes) -> Request:
        """Read a request's head, from its first byte to its empty line. Raises Refused."""
        known = self._requests.get(head)
        if known is not None:
            return known.copy()
        request = self._read_request(head)
        if request.body is Body.NONE and len(head) <= _KEPT_BYTES:
            _keep(self._requests, head, request.copy())
        return request

    def _read_request(self, head: bytes) -> Request:
        seen = self._seen
        seen.fields, seen.target, seen.finished = [], b"", False
        parser, self._kept = self._kept or httptools.HttpRequestParser(seen), None
        is_clean = True
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            is_clean = False
        except httptools.HttpParserInvalidMethodError:
            raise Refused(501, "method", "unknown method") from None
        except httptools.HttpParserError as error:
            raise Refused(400, "head", str(error) or "malformed head") from None
        request = self._request(parser.get_method(), parser.get_http_version(), head)
        if is_clean and seen.finished and request.persistent and request.minor:
            self._kept = parser  # it stands before the next head
        return request

    def _request(self, method: bytes, version: str, head: bytes) -> Request:
        seen = self._seen
        if version not in {"1.1", "1.0"}:
            raise Refused(505, "version", f"HTTP version {version} is not spoken here")
        if not head.startswith(b"%b %b HTTP/" % (method, seen.target)):
            raise Refused(400, "head", "malformed request line")
        if len(seen.fields) > self.most:
            raise Refused(431, "fields", "too many header fields")
        if method == b"CONNECT":
            raise Refused(405, "method", "no tunnels are opened here")
        minor = 1 if version == "1.1" else 0
        facts = _Facts(seen.fields, minor)
        authority, target = _aim(method, seen.target, facts.hosts, minor)
        request = Request(method, target, authority, host_of(authority) if authority else "", facts.fields)
        request.minor = minor
        request.persistent = facts.persistent
        if facts.length is not None:
            request.body, request.length = (Body.LENGTH if facts.length else Body.NONE), facts.length
        elif facts.chunked:
            request.body, request.length = Body.CHUNKED, UNKNOWN
        if facts.expect is not None:
            request.expects = _expects(facts.expect, minor)
        request.trailers = facts.trailers
        if facts.upgrade and request.body is Body.NONE and minor:
            request.upgrade = facts.upgrade
        return request

    def response(self, head: bytes, method: bytes) -> Response:
        """Read the head of a response to a request of `method`. Raises Refused (502)."""
        is_plain = method != b"HEAD"
        known = self._responses.get(head) if is_plain else None
        if known is not None:
            return known.copy()
        response = self._read_response(head, method)
        if is_plain and len(head) <= _KEPT_BYTES:
            response.lines = b"".join([b"%b: %b\r\n" % field for field in response.fields])
            _keep(self._responses, head, response.copy())
        return response

    def _read_response(self, head: bytes, method: bytes) -> Response:
        seen = self._seen
        seen.fields, seen.status, seen.finished = [], b"", False
        parser = httptools.HttpResponseParser(seen)
        try:
            parser.feed_data(head)
        except httptools.HttpParserUpgrade:
            pass
        except httptools.HttpParserError as error:
            raise Refused(502, "backend head", f"the backend's answer is malformed: {error}") from None
        version, status = parser.get_http_version(), parser.get_status_code()
        if version not in {"1.1", "1.0"} or not 100 <= status <= 599:
            raise Refused(502, "backend head", "the backend's answer has no usable status line")
        minor = 1 if version == "1.1" else 0
        try:
            facts = _Facts(seen.fields, minor)
        except Refused as error:
            raise Refused(502, "backend head", f"the backend's answer: {error}") from None
        response = Response(status, seen.status, facts.fields)
        response.minor, response.persistent = minor, facts.persistent
        _frame(response, facts, method)
        return response


class _Facts:
    """What fields say of a message: its framing and connection, and which fields remain."""

    __slots__ = ("chunked", "expect", "fields", "hosts", "length", "persistent", "trailers", "upgrade")

    def __init__(self, fields: FieldList, minor: int) -> None:
        self.length: int | None = None
        self.chunked = False
        self.expect: bytes | None = None
        self.hosts: list[bytes] = []
        self.persistent = minor == 1
        self.upgrade = b""
        self.trailers = False
        self.fields: FieldList = []
        self._special(fields, minor)

    def _special(self, fields: FieldList, minor: int) -> None:
        kept = self.fields
        tokens: list[bytes] = []
        upgrade = b""
        for field in fields:
            name, value = field
            if name not in _SPECIAL:
                kept.append(field)
            elif name == b"host":
                self.hosts.append(value)
            elif name == b"content-length":
                self._sized(value)
            elif name == b"transfer-encoding":
                self._coded(value, minor)
            elif name == b"connection":
                tokens += [token.strip().lower() for token in value.split(b",")]
            elif name == b"upgrade":
                upgrade = value if not upgrade else b"several"
            else:
                self._other(name, value)
        if self.chunked and self.length is not None:
            raise Refused(400, "smuggling", "both Content-Length and Transfer-Encoding")
        if tokens:
            self._connection(tokens, upgrade, minor)

    def _other(self, name: bytes, value: bytes) -> None:
        if name == b"te":
            self.trailers = b"trailers" in value.lower()
        elif name == b"expect":
            self.expect = value

    def _sized(self, value: bytes) -> None:
        if self.length is not None:
            raise Refused(400, "smuggling", "several Content-Length")
        if not _LENGTH.fullmatch(value):
            raise Refused(400, "smuggling", "bad Content-Length")
        self.length = int(value)

    def _coded(self, value: bytes, minor: int) -> None:
        if self.chunked or not minor:
            raise Refused(400, "smuggling", "Transfer-Encoding given twice, or in HTTP/1.0")
        if value.lower() != b"chunked":
            raise Refused(501, "coding", "transfer codings other than chunked are not read")
        self.chunked = True

    def _connection(self, tokens: list[bytes], upgrade: bytes, minor: int) -> None:
        if b"close" in tokens:
            self.persistent = False
        elif not minor and b"keep-alive" in tokens:
            self.persistent = True
        if b"upgrade" in tokens and upgrade.lower() not in {b"h2c", b"several"}:
            self.upgrade = upgrade
        named = {token for token in tokens if token not in _NEVER_BY_CONNECTION}
        if not named <= {b"close", b"keep-alive", b"upgrade"}:
            self.fields = [field for field in self.fields if field[0] not in named]


def _aim(method: bytes, target: bytes, hosts: list[bytes], minor: int) -> tuple[bytes, bytes]:
    """Return the authority and the target in origin form."""
    if len(hosts) > 1 or (minor and not hosts):
        raise Refused(400, "host", "want Host once")
    authority = hosts[0] if hosts else b""
    if not target.startswith(b"/"):
        if target == b"*" and method == b"OPTIONS":
            return authority, target
        found = _ABSOLUTE.fullmatch(target)
        if found is None:
            raise Refused(400, "target", "bad target")
        if (authority and found[2].lower() != authority.lower()) or not found[2]:
            raise Refused(400, "host", "Host contradicts the target")
        authority, target = found[2], found[3] if found[3].startswith(b"/") else b"/" + found[3]
    if not _TARGET.fullmatch(target):
        raise Refused(400, "target", "bad target")
    return authority, target


def _expects(value: bytes, minor: int) -> bool:
    if value.lower() != b"100-continue":
        raise Refused(417, "expect", "unknown expectation")
    return minor == 1


def _frame(response: Response, facts: _Facts, method: bytes) -> None:
    """Say how the body ends (RFC 9112, 6.3)."""
    status = response.status
    if status < 200:
        if status == 101:
            response.upgrade = facts.upgrade
        return
    if method == b"HEAD" or status in {204, 304}:
        # what a body would have been is told on, but none comes
        if facts.length is not None and status != 204:
            response.fields.append((b"content-length", b"%d" % facts.length))
        return
    if facts.chunked:
        response.body, response.length = Body.CHUNKED, UNKNOWN
    elif facts.length is None:
        response.body, response.length, response.persistent = Body.CLOSE, UNKNOWN, False
    elif facts.length:
        response.body, response.length = Body.LENGTH, facts.length
