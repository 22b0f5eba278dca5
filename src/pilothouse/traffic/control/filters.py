"""Filters, matches, timeouts and retries of routes, as the data plane is told them."""

from __future__ import annotations

import hashlib
import math
import re
from typing import TYPE_CHECKING, Final, Protocol

from pilothouse.traffic import config

from .certificates import Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .kinds.common import BackendReference, HeaderFilter
    from .kinds.filters import Cors, GrpcFilter, Mirror, PathModifier, Redirect, RouteFilter, UrlRewrite
    from .kinds.routes import GrpcMatch, HttpMatch, Retry, SessionPersistence, Timeouts

__all__ = [
    "Unsupported",
    "filters_of",
    "grpc_match",
    "http_match",
    "retry_of",
    "seconds",
    "stickiness_of",
    "timeouts_of",
]

_PART: Final = re.compile("([0-9]+)(h|ms|m|s)")
_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class Unsupported(ValueError):
    """A route says something that cannot be done."""


class ResolveMirror(Protocol):
    """Gives the backend of a mirror. Raises Problem."""

    def __call__(self, ref: BackendReference) -> str: ...


def seconds(duration: str | None) -> float:
    """Return a duration of Gateway API (`1h30m`, `500ms`) in seconds; 0 for none."""
    return round(sum(int(amount) * _UNITS[unit] for amount, unit in _PART.findall(duration or "")), 3)


def filters_of(
    filters: Sequence[RouteFilter] | Sequence[GrpcFilter], mirror: ResolveMirror, *, of_backend: bool = False
) -> tuple[tuple[config.Filter, ...], list[Problem]]:
    """Return filters, without those of our own kinds, and what is wrong with the backends of mirrors.

    of_backend: of one backend of a rule, where not all make sense. Raises Unsupported.
    """
    made: list[config.Filter] = []
    problems: list[Problem] = []
    for each in filters:
        if each.type == "ExtensionRef":
            if of_backend:
                raise Unsupported("filter ExtensionRef of a backend is not supported; put it into the rule's filters")
            continue
        if of_backend and each.type in {"RequestRedirect", "CORS", "RequestMirror"}:
            raise Unsupported(f"filter {each.type} of a backend is not supported; put it into the rule's filters")
        try:
            made.append(_filter(each, mirror))
        except Problem as problem:
            problems.append(problem)
    return tuple(made), problems


def _filter(each: RouteFilter | GrpcFilter, mirror: ResolveMirror) -> config.Filter:
    makers: dict[str, Callable[[], config.Filter | None]] = {
        "RequestHeaderModifier": lambda: _headers(config.RequestHeaders, each.request_header_modifier),
        "ResponseHeaderModifier": lambda: _headers(config.ResponseHeaders, each.response_header_modifier),
        "RequestMirror": lambda: None if each.request_mirror is None else _mirror(each.request_mirror, mirror),
        "RequestRedirect": lambda: _maybe(_redirect, getattr(each, "request_redirect", None)),
        "URLRewrite": lambda: _maybe(_rewrite, getattr(each, "url_rewrite", None)),
        "CORS": lambda: _maybe(_cors, getattr(each, "cors", None)),
    }
    made = makers[each.type]() if each.type in makers else None
    if made is None:
        raise Unsupported(f"filter {each.type} is not supported, or its field is empty")
    return made


def _maybe(make: Callable[..., config.Filter], given: object) -> config.Filter | None:
    return None if given is None else make(given)


def _headers(
    kind: type[config.RequestHeaders | config.ResponseHeaders], given: HeaderFilter | None
) -> config.Filter | None:
    if given is None:
        return None
    change = config.HeaderChange(
        set=tuple((each.name, each.value) for each in given.set),
        add=tuple((each.name, each.value) for each in given.add),
        remove=tuple(given.remove),
    )
    return kind(change=change)


def _mirror(given: Mirror, resolve: ResolveMirror) -> config.Mirror:
    numerator, of = 100, 100
    if given.percent is not None:
        numerator = given.percent
    elif given.fraction is not None:
        numerator, of = given.fraction.numerator, given.fraction.denominator
    return config.Mirror(backend=resolve(given.backend_ref), numerator=numerator, of=of)


def _paths(given: PathModifier | None) -> tuple[str | None, str | None]:
    """Return the path and the prefix that are put in."""
    if given is None:
        return None, None
    if given.type == "ReplaceFullPath":
        return given.replace_full_path or "/", None
    return None, given.replace_prefix_match or ""


def _redirect(given: Redirect) -> config.Redirect:
    path, prefix = _paths(given.path)
    return config.Redirect(
        status=given.status_code,
        scheme=given.scheme or "",
        hostname=given.hostname or "",
        port=given.port or 0,
        path=path,
        prefix=prefix,
    )


def _rewrite(given: UrlRewrite) -> config.Rewrite:
    path, prefix = _paths(given.path)
    return config.Rewrite(hostname=given.hostname or "", path=path, prefix=prefix)


def _cors(given: Cors) -> config.Cors:
    return config.Cors(
        origins=tuple(given.allow_origins),
        methods=tuple(given.allow_methods),
        headers=tuple(given.allow_headers),
        expose=tuple(given.expose_headers),
        has_credentials=bool(given.allow_credentials),
        max_age=given.max_age,
    )


def http_match(given: HttpMatch) -> config.Match:
    """Return a match of an HTTPRoute."""
    return config.Match(
        path=config.PathMatch(type=given.path.type, value=given.path.value),
        method=given.method or "",
        headers=tuple(config.ValueMatch(name=e.name, value=e.value, type=e.type) for e in given.headers),
        queries=tuple(config.ValueMatch(name=e.name, value=e.value, type=e.type) for e in given.query_params),
    )


def grpc_match(given: GrpcMatch) -> config.Match:
    """Return a match of a GRPCRoute: a service is the first element of a path, a method the second."""
    return config.Match(
        path=_call_path(given),
        headers=tuple(config.ValueMatch(name=e.name, value=e.value, type=e.type) for e in given.headers),
    )


def _call_path(given: GrpcMatch) -> config.PathMatch:
    method = given.method
    if method is None or not (method.service or method.method):
        return config.PathMatch()
    if method.type == "Exact" and method.service:
        if method.method:
            return config.PathMatch(type="Exact", value=f"/{method.service}/{method.method}")
        return config.PathMatch(value=f"/{method.service}")
    if method.type == "Exact":
        return config.PathMatch(type="RegularExpression", value=f"/[^/]+/{re.escape(method.method or '')}")
    service, name = method.service or "[^/]+", method.method or "[^/]+"
    return config.PathMatch(type="RegularExpression", value=f"/(?:{service})/(?:{name})")


def timeouts_of(given: Timeouts | None) -> config.Timeouts:
    """Return the timeouts of a rule."""
    if given is None:
        return config.Timeouts()
    return config.Timeouts(request=seconds(given.request), backend=seconds(given.backend_request))


def retry_of(given: Retry | None) -> config.Retry | None:
    """Return when a rule's requests are tried again."""
    if given is None:
        return None
    return config.Retry(
        attempts=given.attempts or 1, codes=tuple(given.codes), backoff=seconds(given.backoff) or config.Retry().backoff
    )


def stickiness_of(given: SessionPersistence | None, rule: str) -> config.Stickiness | None:
    """Return how clients of a rule stay where they were. rule: by which a session without a name is told apart."""
    if given is None:
        return None
    is_lasting = given.cookie_config is not None and given.cookie_config.lifetime_type == "Permanent"
    return config.Stickiness(
        type="Token" if given.type == "Header" else "Cookie",
        name=given.session_name or f"pilothouse-{hashlib.blake2b(rule.encode(), digest_size=4).hexdigest()}",
        seconds=math.ceil(seconds(given.absolute_timeout)),
        idle_seconds=math.ceil(seconds(given.idle_timeout)),
        is_session=not is_lasting,
        is_endpoint=True,
        keeps=True,
    )
