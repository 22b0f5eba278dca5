"""What is to be done with a request, as the router decides it, and what its filters change and answer."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from pilothouse.traffic.config import (
    Cors,
    Filter,
    HttpRule,
    Mirror,
    Redirect,
    RequestHeaders,
    ResponseHeaders,
    Rewrite,
)
from pilothouse.traffic.plane.connections import Peer
from pilothouse.traffic.plane.fields import changed
from pilothouse.traffic.plane.http import FieldList, Request, Response
from pilothouse.traffic.plane.sessions import Session

__all__ = ["Decision", "altered_response", "prepared"]

_REASONS: Final = {204: b"No Content", 301: b"Moved Permanently", 302: b"Found", 303: b"See Other"}
_REASONS_TOO: Final = {307: b"Temporary Redirect", 308: b"Permanent Redirect"}
_SCHEME_PORTS: Final = {"http": 80, "https": 443}


class Decision:
    """Where one request goes. target, authority, fields: as the backend gets them. session: of a client that stays."""

    __slots__ = (
        "authority",
        "backend",
        "changes_response",
        "fields",
        "filters",
        "is_grpc",
        "mirrors",
        "prefix",
        "region",
        "route",
        "rule",
        "rule_name",
        "session",
        "target",
        "version",
    )

    def __init__(self, route: str, rule: HttpRule, rule_name: str, request: Request) -> None:
        self.route = route
        self.rule = rule
        self.rule_name = rule_name
        self.backend = ""
        self.version = ""
        self.region = ""
        self.session: Session | None = None
        self.prefix = ""
        self.is_grpc = False
        self.filters: tuple[Filter, ...] = rule.filters
        self.mirrors: tuple[Mirror, ...] = ()
        self.changes_response = False
        self.target = request.target
        self.authority = request.authority
        self.fields: FieldList = request.fields


def prepared(decision: Decision, peer: Peer, request: Request) -> Response | None:
    """Apply the filters to the request; return the answer where they give one themselves."""
    decision.changes_response = decision.session is not None
    for each in decision.filters:
        if isinstance(each, RequestHeaders):
            _change_request(decision, each)
        elif isinstance(each, Rewrite):
            _rewrite(decision, request, each)
        elif isinstance(each, Redirect):
            return _redirected(decision, peer, request, each)
        elif isinstance(each, Cors):
            answer = _preflight(request, each)
            if answer is not None:
                return answer
            decision.changes_response = True
        elif isinstance(each, Mirror):
            decision.mirrors += (each,)
        else:
            decision.changes_response = True
    return None


def _change_request(decision: Decision, each: RequestHeaders) -> None:
    decision.fields = changed(decision.fields, each.change)
    hosts = [value for name, value in decision.fields if name == b"host"]
    if hosts:
        decision.authority = hosts[-1]
        decision.fields = [field for field in decision.fields if field[0] != b"host"]


def _new_path(decision: Decision, request: Request, path: str | None, prefix: str | None) -> str:
    """Return the path of a rewrite or redirect, percent-encoded as it has to be."""
    old = request.path
    if path is not None:
        return quote(path, safe="/%:@!$&'()*+,;=-._~")
    if prefix is None:
        return old
    rest = old[len(decision.prefix.rstrip("/")) :].lstrip("/")
    new = quote(prefix, safe="/%:@!$&'()*+,;=-._~").rstrip("/")
    if not rest and not old.endswith("/"):
        return new or "/"
    return f"{new}/{rest}"


def _rewrite(decision: Decision, request: Request, each: Rewrite) -> None:
    if each.hostname:
        decision.authority = each.hostname.encode()
    if each.path is not None or each.prefix is not None:
        path = _new_path(decision, request, each.path, each.prefix)
        decision.target = (f"{path}?{request.query}" if request.query else path).encode("latin-1")


def _redirected(decision: Decision, peer: Peer, request: Request, each: Redirect) -> Response:
    scheme = each.scheme or peer.scheme
    host = each.hostname or request.host
    port = each.port
    if not port:
        port = _SCHEME_PORTS.get(scheme, 0) if each.scheme else peer.local_port
    path = _new_path(decision, request, each.path, each.prefix)
    where = f"{scheme}://{host}"
    if port and port != _SCHEME_PORTS.get(scheme):
        where += f":{port}"
    where += path + (f"?{request.query}" if request.query else "")
    reason = _REASONS.get(each.status) or _REASONS_TOO.get(each.status, b"Redirect")
    return Response(each.status, reason, [(b"location", where.encode("latin-1"))])


def _allowed(cors: Cors, origin: str) -> bool:
    for each in cors.origins:
        if each in {"*", origin}:
            return True
        if "*" in each:
            head, _, tail = each.partition("*")
            if len(origin) >= len(head) + len(tail) and origin.startswith(head) and origin.endswith(tail):
                return True
    return False


def _origin_fields(cors: Cors, origin: bytes) -> FieldList:
    is_any = "*" in cors.origins and not cors.has_credentials
    fields = [(b"access-control-allow-origin", b"*" if is_any else origin)]
    if cors.has_credentials:
        fields.append((b"access-control-allow-credentials", b"true"))
    if not is_any:
        fields.append((b"vary", b"Origin"))
    if cors.expose:
        fields.append((b"access-control-expose-headers", b", ".join(name.encode() for name in cors.expose)))
    return fields


def _preflight(request: Request, cors: Cors) -> Response | None:
    origin = request.field(b"origin")
    wanted = request.field(b"access-control-request-method")
    if request.method != b"OPTIONS" or origin is None or wanted is None:
        return None
    response = Response(204, b"No Content", [])
    if not _allowed(cors, origin.decode("latin-1")):
        return response
    fields = response.fields = _origin_fields(cors, origin)
    methods = b", ".join(each.encode() for each in cors.methods)
    if methods == b"*" and cors.has_credentials:
        methods = wanted
    fields.append((b"access-control-allow-methods", methods))
    headers = b", ".join(each.encode() for each in cors.headers)
    if headers == b"*" and cors.has_credentials:
        headers = request.field(b"access-control-request-headers") or b""
    if headers:
        fields.append((b"access-control-allow-headers", headers))
    fields.append((b"access-control-max-age", b"%d" % cors.max_age))
    return response


def altered_response(decision: Decision, peer: Peer, request: Request, response: Response, address: str) -> None:
    """Change a backend's answer as the filters have it. address: of the endpoint that gave it."""
    response.lines = None
    for each in decision.filters:
        if isinstance(each, ResponseHeaders):
            response.fields = changed(response.fields, each.change)
        elif isinstance(each, Cors):
            origin = request.field(b"origin")
            if origin is not None and _allowed(each, origin.decode("latin-1")):
                kept = [field for field in response.fields if not field[0].startswith(b"access-control-")]
                response.fields = kept + _origin_fields(each, origin)
    if decision.session is not None:
        told = decision.session.told(address, is_secure=peer.scheme == "https")
        if told is not None:
            response.fields.append(told)
