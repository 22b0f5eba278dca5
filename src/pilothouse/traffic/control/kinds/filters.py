"""Filters of rules: what is done with requests and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pilothouse.kinds.structs import Struct
from pilothouse.operator import ListType, Maximum, MaxLength, Minimum, MinLength, Pattern, Rule

from .common import BackendReference, HeaderFilter, HeaderName, LocalReference, Port, PreciseHostname

__all__ = [
    "Cors",
    "Filters",
    "GrpcFilter",
    "GrpcFilters",
    "Mirror",
    "PathModifier",
    "Redirect",
    "RouteFilter",
    "UrlRewrite",
]


@Rule("self.type != 'ReplaceFullPath' || has(self.replaceFullPath)", message="replaceFullPath must be specified")
@Rule("!has(self.replaceFullPath) || self.type == 'ReplaceFullPath'", message="type must be 'ReplaceFullPath'")
@Rule(
    "self.type != 'ReplacePrefixMatch' || has(self.replacePrefixMatch)", message="replacePrefixMatch must be specified"
)
@Rule("!has(self.replacePrefixMatch) || self.type == 'ReplacePrefixMatch'", message="type must be 'ReplacePrefixMatch'")
class PathModifier(Struct):
    """Another path: whole, or instead of the prefix that matched."""

    type: Literal["ReplaceFullPath", "ReplacePrefixMatch"]
    replace_full_path: Annotated[str | None, MaxLength(1024)] = None
    replace_prefix_match: Annotated[str | None, MaxLength(1024)] = None


class Redirect(Struct):
    """Where clients are sent to."""

    scheme: Literal["http", "https"] | None = None
    hostname: PreciseHostname | None = None
    path: PathModifier | None = None
    port: Port | None = None
    status_code: Literal[301, 302, 303, 307, 308] = 302


class UrlRewrite(Struct):
    """What backends see instead."""

    hostname: PreciseHostname | None = None
    path: PathModifier | None = None


@Rule("self.numerator <= self.denominator", message="numerator must be less than or equal to denominator")
class Fraction(Struct):
    """Some of so many."""

    numerator: Annotated[int, Minimum(0)]
    denominator: Annotated[int, Minimum(1)] = 100


@Rule("!(has(self.percent) && has(self.fraction))", message="Only one of percent or fraction may be specified")
class Mirror(Struct):
    """Where copies of requests go."""

    backend_ref: BackendReference
    percent: Annotated[int | None, Minimum(0), Maximum(100)] = None
    fraction: Fraction | None = None


_ALONE: Final = "!('*' in self && self.size() > 1)"
Origin = Annotated[
    str,
    MinLength(1),
    MaxLength(253),
    Pattern(
        r"(^\*$)|(^([a-zA-Z][a-zA-Z0-9+\-.]*):\/\/(((\*\.)?([a-zA-Z0-9\-]+\.)*[a-zA-Z0-9-]+|\*)(:([0-9]{1,5}))?)$)"
    ),
]


class Cors(Struct):
    """Which pages of others may ask."""

    allow_origins: Annotated[
        Sequence[Origin], ListType("set"), MaxLength(64), Rule(_ALONE, message="'*' cannot stand beside other origins")
    ] = ()
    allow_credentials: bool | None = None
    allow_methods: Annotated[
        Sequence[Literal["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"]],
        ListType("set"),
        MaxLength(9),
        Rule(_ALONE, message="'*' cannot stand beside other methods"),
    ] = ()
    allow_headers: Annotated[
        Sequence[HeaderName],
        ListType("set"),
        MaxLength(64),
        Rule(_ALONE, message="'*' cannot stand beside other headers"),
    ] = ()
    expose_headers: Annotated[Sequence[HeaderName], ListType("set"), MaxLength(64)] = ()
    max_age: Annotated[int, Minimum(1)] = 5


def _union(kinds: dict[str, str]) -> Rule:
    each = [f"(self.type == '{kind}') == has(self.{name})" for kind, name in kinds.items()]
    return Rule(" && ".join(each), message="exactly the field that type names must be specified")


_OF_ALL: Final = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestMirror": "requestMirror",
    "ExtensionRef": "extensionRef",
}


@_union({**_OF_ALL, "RequestRedirect": "requestRedirect", "URLRewrite": "urlRewrite", "CORS": "cors"})
class RouteFilter(Struct):
    """One thing that is done with requests or answers."""

    type: Literal[
        "RequestHeaderModifier",
        "ResponseHeaderModifier",
        "RequestMirror",
        "RequestRedirect",
        "URLRewrite",
        "ExtensionRef",
        "CORS",
    ]
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: Mirror | None = None
    request_redirect: Redirect | None = None
    url_rewrite: UrlRewrite | None = None
    cors: Cors | None = None
    extension_ref: LocalReference | None = None


@_union(_OF_ALL)
class GrpcFilter(Struct):
    """One thing that is done with calls or answers."""

    type: Literal["RequestHeaderModifier", "ResponseHeaderModifier", "RequestMirror", "ExtensionRef"]
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: Mirror | None = None
    extension_ref: LocalReference | None = None


def _once(*kinds: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(f"self.filter(one, one.type == '{kind}').size() <= 1", message=f"{kind} filter cannot be repeated")
        for kind in kinds
    )


Filters = Annotated[
    Sequence[RouteFilter],
    ListType("atomic"),
    MaxLength(16),
    Rule(
        "!(self.exists(one, one.type == 'RequestRedirect') && self.exists(one, one.type == 'URLRewrite'))",
        message="May specify either RequestRedirect or URLRewrite, but not both",
    ),
    *_once("CORS", "RequestHeaderModifier", "ResponseHeaderModifier", "RequestRedirect", "URLRewrite"),
]
GrpcFilters = Annotated[
    Sequence[GrpcFilter],
    ListType("atomic"),
    MaxLength(16),
    *_once("RequestHeaderModifier", "ResponseHeaderModifier"),
]
