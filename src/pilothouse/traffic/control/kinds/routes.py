"""HTTPRoute, GRPCRoute, TLSRoute and TCPRoute as Gateway API 1.6 has them, with the experimental parts we support."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pilothouse.kinds.structs import Resource, Struct, field
from pilothouse.operator import (
    ListType,
    Maximum,
    MaxLength,
    Minimum,
    MinLength,
    PrinterColumn,
    Rule,
    custom_resource,
)
from pilothouse.operator.crd_markers import Default

from .common import (
    GROUP,
    Duration,
    Group,
    HeaderName,
    Hostname,
    Kind,
    Name,
    Namespace,
    ParentReference,
    Port,
    RouteStatus,
    SectionName,
)
from .filters import Filters, GrpcFilters

__all__ = [
    "BackendRef",
    "GRPCRoute",
    "HTTPRoute",
    "HttpBackendRef",
    "HttpMatch",
    "HttpRule",
    "Retry",
    "SessionPersistence",
    "TCPRoute",
    "TLSRoute",
    "Timeouts",
]

_HOSTNAMES: Final = PrinterColumn("Hostnames", ".spec.hostnames", type="string")
_AGE: Final = PrinterColumn("Age", ".metadata.creationTimestamp")
_PATH: Final = "^(?:[-A-Za-z0-9/._~!$&'()*+,;=:@]|[%][0-9a-fA-F]{2})+$"
_PLAIN: Final = "self.type in ['Exact', 'PathPrefix']"

ParentRefs = Annotated[
    Sequence[ParentReference],
    ListType("atomic"),
    MaxLength(32),
    Rule(
        "self.all(one, self.exists_one(other, one.group == other.group && one.kind == other.kind && "
        "one.name == other.name && (has(one.__namespace__) ? one.__namespace__ : '') == "
        "(has(other.__namespace__) ? other.__namespace__ : '') && "
        "(has(one.sectionName) ? one.sectionName : '') == (has(other.sectionName) ? other.sectionName : '')"
        " && (has(one.port) ? one.port : 0) == (has(other.port) ? other.port : 0)))",
        message="sectionName or port must be unique when parentRefs includes 2 or more references to the same parent",
    ),
]
Hostnames = Annotated[Sequence[Hostname], ListType("atomic"), MaxLength(16)]


# Backends

_PORT_RULE: Final = Rule(
    "self.kind != 'Service' || self.group != '' || has(self.port)", message="Must have port for Service reference"
)


@_PORT_RULE
class BackendRef(Struct):
    """A backend and its weight."""

    group: Annotated[Group, Default("")] = ""
    kind: Kind = "Service"
    name: Name
    namespace: Namespace | None = None
    port: Port | None = None
    weight: Annotated[int, Minimum(0), Maximum(1_000_000)] = 1


@_PORT_RULE
class HttpBackendRef(Struct):
    """A backend, its weight, and filters of what goes there."""

    group: Annotated[Group, Default("")] = ""
    kind: Kind = "Service"
    name: Name
    namespace: Namespace | None = None
    port: Port | None = None
    weight: Annotated[int, Minimum(0), Maximum(1_000_000)] = 1
    filters: Filters = ()


@_PORT_RULE
class GrpcBackendRef(Struct):
    """A backend, its weight, and filters of what goes there."""

    group: Annotated[Group, Default("")] = ""
    kind: Kind = "Service"
    name: Name
    namespace: Namespace | None = None
    port: Port | None = None
    weight: Annotated[int, Minimum(0), Maximum(1_000_000)] = 1
    filters: GrpcFilters = ()


BackendRefs = Annotated[Sequence[BackendRef], ListType("atomic"), MinLength(1), MaxLength(16)]


# What a request has to be


def _never(part: str, test: str) -> Rule:
    return Rule(
        f"!({_PLAIN}) || !self.value.{test}('{part}')",
        message=f"must not {'end with' if test == 'endsWith' else 'contain'} '{part}' when type is Exact or PathPrefix",
    )


_PATH_RULES: Final = (
    Rule(f"!({_PLAIN}) || self.value.startsWith('/')", message="value must be an absolute path and start with '/'"),
    *(_never(part, "contains") for part in ("//", "/./", "/../", "%2f", "%2F", "#")),
    *(_never(part, "endsWith") for part in ("/..", "/.")),
    Rule(
        f'!({_PLAIN}) || self.value.matches(r"""{_PATH}""")',
        message="value must only contain characters of paths when type is Exact or PathPrefix",
    ),
)


class PathMatch(Struct):
    """A path: whole, by its first elements, or by a regular expression."""

    type: Literal["Exact", "PathPrefix", "RegularExpression"] = "PathPrefix"
    value: Annotated[str, MaxLength(1024)] = "/"


class HeaderMatch(Struct):
    """A header."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[str, MinLength(1), MaxLength(4096)]


class QueryMatch(Struct):
    """A parameter of the query."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    name: HeaderName
    value: Annotated[str, MinLength(1), MaxLength(1024)]


_EVERY: Final = {"type": "PathPrefix", "value": "/"}


class HttpMatch(Struct):
    """All that a request has to be."""

    path: Annotated[PathMatch, Default(_EVERY), *_PATH_RULES] = PathMatch()
    headers: Annotated[Sequence[HeaderMatch], ListType("map", keys=("name",)), MaxLength(16)] = ()
    query_params: Annotated[Sequence[QueryMatch], ListType("map", keys=("name",)), MaxLength(16)] = ()
    method: Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"] | None = None


@Rule(
    "!(has(self.request) && has(self.backendRequest) && duration(self.request) != duration('0s') && "
    "duration(self.backendRequest) > duration(self.request))",
    message="backendRequest timeout cannot be longer than request timeout",
)
class Timeouts(Struct):
    """How long a request may take, and each try of it."""

    request: Duration | None = None
    backend_request: Duration | None = None


class Retry(Struct):
    """How often, when and after which answers it is tried again."""

    codes: Annotated[Sequence[Annotated[int, Minimum(400), Maximum(599)]], ListType("set"), MaxLength(200)] = ()
    attempts: Annotated[int | None, Minimum(1)] = None
    backoff: Duration | None = None


class CookieConfig(Struct):
    """How long a cookie lives."""

    lifetime_type: Literal["Permanent", "Session"] = "Session"


@Rule(
    "!has(self.cookieConfig) || self.cookieConfig.lifetimeType != 'Permanent' || has(self.absoluteTimeout)",
    message="AbsoluteTimeout must be specified when cookie lifetimeType is Permanent",
)
@Rule("!has(self.cookieConfig) || self.type == 'Cookie'", message="cookieConfig can only be set with type Cookie")
class SessionPersistence(Struct):
    """Whether a client goes where it was before."""

    session_name: Annotated[str, MaxLength(128)] = ""
    absolute_timeout: Duration | None = None
    idle_timeout: Duration | None = None
    type: Literal["Cookie", "Header"] = "Cookie"
    cookie_config: CookieConfig | None = None


def _prefix_only(field_name: str, filters: str) -> str:
    return (
        f"!({filters}.exists(one, has(one.{field_name}) && has(one.{field_name}.path) && "
        f"one.{field_name}.path.type == 'ReplacePrefixMatch')) || "
        "(size(self.matches) == 1 && has(self.matches[0].path) && self.matches[0].path.type == 'PathPrefix')"
    )


def _prefix_rule(field_name: str) -> Rule:
    return Rule(
        f"!has(self.filters) || {_prefix_only(field_name, 'self.filters')}",
        message=f"{field_name} with replacePrefixMatch needs exactly one match, of type PathPrefix",
    )


@Rule(
    "!has(self.backendRefs) || size(self.backendRefs) == 0 || !has(self.filters) || "
    "self.filters.all(one, !has(one.requestRedirect))",
    message="RequestRedirect filter must not be used together with backendRefs",
)
@_prefix_rule("requestRedirect")
@_prefix_rule("urlRewrite")
@Rule(
    "!has(self.backendRefs) || self.backendRefs.all(backend, !has(backend.filters) || "
    f"{_prefix_only('urlRewrite', 'backend.filters')})",
    message="urlRewrite of a backend with replacePrefixMatch needs exactly one match, of type PathPrefix",
)
class HttpRule(Struct):
    """What is done with requests of some sorts."""

    name: SectionName | None = None
    matches: Annotated[Sequence[HttpMatch], ListType("atomic"), MaxLength(64), Default([{"path": _EVERY}])] = (
        HttpMatch(),
    )
    filters: Filters = ()
    backend_refs: Annotated[Sequence[HttpBackendRef], ListType("atomic"), MaxLength(16)] = ()
    timeouts: Timeouts | None = None
    retry: Retry | None = None
    session_persistence: SessionPersistence | None = None


_MANY: Final = Rule(
    " + ".join(
        f"(self.size() > {index} && has(self[{index}].matches) ? self[{index}].matches.size() : 0)"
        for index in range(16)
    )
    + " <= 128",
    message="the total number of matches across all rules in a route must be at most 128",
)
_NAMES: Final = Rule(
    "self.all(one, !has(one.name) || self.exists_one(other, has(other.name) && other.name == one.name))",
    message="Rule name must be unique within the route",
)


class HTTPRouteSpec(Struct):
    """`spec` of HTTPRoute."""

    parent_refs: ParentRefs = ()
    hostnames: Hostnames = ()
    rules: Annotated[
        Sequence[HttpRule],
        ListType("atomic"),
        MinLength(1),
        MaxLength(16),
        Default([{"matches": [{"path": _EVERY}]}]),
        _MANY,
        _NAMES,
    ] = (HttpRule(),)


@custom_resource(categories=["gateway-api"], columns=[_HOSTNAMES, _AGE])
class HTTPRoute(Resource, group=GROUP, version="v1", plural="httproutes"):
    """Where requests of some hosts go."""

    spec: HTTPRouteSpec
    status: RouteStatus = RouteStatus()


# Calls


@Rule("has(self.service) || has(self.method)", message="One or both of 'service' or 'method' must be specified")
@Rule(
    "self.type != 'Exact' || !has(self.service) || "
    r"self.service.matches(r'^(?i)\.?[a-z_][a-z_0-9]*(\.[a-z_][a-z_0-9]*)*$')",
    message="service must only contain valid characters",
)
@Rule(
    "self.type != 'Exact' || !has(self.method) || self.method.matches('^[A-Za-z_][A-Za-z_0-9]*$')",
    message="method must only contain valid characters",
)
class MethodMatch(Struct):
    """A service and a method of it."""

    type: Literal["Exact", "RegularExpression"] = "Exact"
    service: Annotated[str | None, MaxLength(1024)] = None
    method: Annotated[str | None, MaxLength(1024)] = None


class GrpcMatch(Struct):
    """All that a call has to be."""

    method: MethodMatch | None = None
    headers: Annotated[Sequence[HeaderMatch], ListType("map", keys=("name",)), MaxLength(16)] = ()


class GrpcRule(Struct):
    """What is done with calls of some sorts."""

    name: SectionName | None = None
    matches: Annotated[Sequence[GrpcMatch], ListType("atomic"), MaxLength(64)] = ()
    filters: GrpcFilters = ()
    backend_refs: Annotated[Sequence[GrpcBackendRef], ListType("atomic"), MaxLength(16)] = ()
    session_persistence: SessionPersistence | None = None


class GRPCRouteSpec(Struct):
    """`spec` of GRPCRoute."""

    parent_refs: ParentRefs = ()
    hostnames: Hostnames = ()
    rules: Annotated[Sequence[GrpcRule], ListType("atomic"), MaxLength(16), _MANY, _NAMES] = ()


@custom_resource(categories=["gateway-api"], columns=[_HOSTNAMES, _AGE])
class GRPCRoute(Resource, group=GROUP, version="v1", plural="grpcroutes"):
    """Where gRPC calls to some hosts go."""

    spec: GRPCRouteSpec = GRPCRouteSpec()
    status: RouteStatus = RouteStatus()


# Connections


class StreamRule(Struct):
    """Where connections go."""

    name: SectionName | None = None
    backend_refs: BackendRefs = field(default=())


Rules = Annotated[Sequence[StreamRule], ListType("atomic"), MinLength(1), MaxLength(1)]


class TLSRouteSpec(Struct):
    """`spec` of TLSRoute."""

    parent_refs: ParentRefs = ()
    hostnames: Annotated[
        Sequence[Hostname],
        ListType("atomic"),
        MinLength(1),
        MaxLength(1024),
        Rule("self.all(one, !isIP(one))", message="Hostnames cannot contain an IP"),
    ]
    rules: Rules


@custom_resource(categories=["gateway-api"], columns=[_HOSTNAMES, _AGE])
class TLSRoute(Resource, group=GROUP, version="v1", plural="tlsroutes"):
    """Where TLS connections to some hosts go, by the name in their greeting."""

    spec: TLSRouteSpec
    status: RouteStatus = RouteStatus()


class TCPRouteSpec(Struct):
    """`spec` of TCPRoute."""

    parent_refs: ParentRefs = ()
    rules: Rules


@custom_resource(categories=["gateway-api"], columns=[_AGE])
class TCPRoute(Resource, group=GROUP, version="v1", plural="tcproutes"):
    """Where connections to a port go."""

    spec: TCPRouteSpec
    status: RouteStatus = RouteStatus()
