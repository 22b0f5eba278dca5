"""The headers of a proxied request and of its answer: what goes no further, what is added."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import urlsplit

from pilothouse.apiserver.model import Request, User

__all__ = ["Pairs", "answer_headers", "forwarded", "remote_user", "request_headers", "rewrite_location"]

Pairs = list[tuple[str, str]]

_HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# What told this server who asks must not reach the next one.
_OURS: Final = frozenset({"authorization", "content-length", "expect", "host"})
_OURS_PREFIXES: Final = ("impersonate-", "x-remote-")
_CORS: Final = frozenset(
    {
        "access-control-allow-credentials",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
    }
)
_TRANSPORTS: Final = frozenset({"content-length", "date", "content-type"})
_BEARER: Final = "base64url.bearer.authorization.k8s.io."
_TOKEN: Final = frozenset("!#$&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def _named(pairs: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Return what `Connection` names: headers of this hop alone."""
    named = (value for name, value in pairs if name.lower() == "connection")
    return frozenset(part.strip().lower() for value in named for part in value.split(","))


def request_headers(request: Request, *, upgrade: bool = False) -> Pairs:
    """Return the headers to send on; for an upgrade with those that ask for it."""
    pairs = list(request.header_list) or list(request.headers.items())
    dropped = _HOP_BY_HOP | _OURS | _named(pairs)
    kept = [
        (name, value)
        for name, value in pairs
        if name.lower() not in dropped and not name.lower().startswith(_OURS_PREFIXES)
    ]
    if not upgrade:
        return kept
    kept = [(name, _without_bearer(value) if name == "sec-websocket-protocol" else value) for name, value in kept]
    return [*kept, ("Connection", "Upgrade"), ("Upgrade", request.headers.get("upgrade", ""))]


def _without_bearer(value: str) -> str:
    return ", ".join(part for text in value.split(",") if not (part := text.strip()).startswith(_BEARER))


def forwarded(request: Request, prefix: str, path: str) -> Pairs:
    """Return the X-Forwarded headers; `X-Forwarded-For` goes on where the client sent one."""
    pairs = [("X-Forwarded-Uri", f"{prefix}{path}")]
    if host := request.headers.get("host"):
        pairs.append(("X-Forwarded-Host", host))
    if request.peer is not None:
        pairs.append(("X-Forwarded-Proto", "https" if request.peer.secure else "http"))
        if request.peer.address:
            before = request.headers.get("x-forwarded-for")
            pairs.append(("X-Forwarded-For", f"{before}, {request.peer.address}" if before else request.peer.address))
    return pairs


def replace(pairs: Sequence[tuple[str, str]], new: Sequence[tuple[str, str]]) -> Pairs:
    """Return the headers with those of the same names replaced."""
    names = {name.lower() for name, _ in new}
    return [*((name, value) for name, value in pairs if name.lower() not in names), *new]


def answer_headers(pairs: Iterable[tuple[str, str]], *, keep_cors: bool = False) -> Pairs:
    """Return the headers of an answer to send on, without those that the transport writes itself."""
    listed = list(pairs)
    dropped = _HOP_BY_HOP | _TRANSPORTS | _named(listed) | (frozenset() if keep_cors else _CORS)
    return [(name, value) for name, value in listed if name.lower() not in dropped]


def rewrite_location(location: str, prefix: str, hosts: Iterable[str]) -> str:
    """Rewrite a redirect within the server behind, so that it leads through this one again."""
    try:
        url = urlsplit(location)
    except ValueError:
        return location
    if (url.netloc and url.netloc not in hosts) or not url.path.startswith("/"):
        return location
    path = url.path if prefix and url.path.startswith(prefix) else prefix + url.path
    # An address of another host would lead there: "//evil".
    path = "/" + path.lstrip("/")
    return path + (f"?{url.query}" if url.query else "") + (f"#{url.fragment}" if url.fragment else "")


def _escaped(key: str) -> str:
    return "".join(
        chr(byte) if chr(byte) in _TOKEN else f"%{byte:02X}" for byte in key.encode("utf-8", "surrogatepass")
    )


def remote_user(user: User) -> Pairs:
    """Return the headers that tell an aggregated server who asks."""
    pairs = [("X-Remote-User", user.name)]
    if user.uid:
        pairs.append(("X-Remote-Uid", user.uid))
    pairs += [("X-Remote-Group", group) for group in user.groups]
    pairs += [(f"X-Remote-Extra-{_escaped(key)}", value) for key, values in user.extra.items() for value in values]
    return pairs
