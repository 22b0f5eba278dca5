"""What a method and path ask for: Kubernetes' rules from URL to verb, resource and name."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import parse_qs

from pilothouse.apiserver.model import RequestInfo
from pilothouse.kinds import fields

__all__ = ["parse"]

_VERBS = {
    "POST": "create",
    "GET": "get",
    "HEAD": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
_MEMO = 8192
_MEMO_LENGTH = 512


def parse(method: str, path: str, query: str = "") -> RequestInfo:
    """Return what is asked for. Never fails: what is no path of a resource is a plain one.

    path: decoded. query: as sent; it decides between get, list and watch, and may name the one object of a list.
    """
    if len(path) + len(query) <= _MEMO_LENGTH:
        return _remembered(method, path, query)
    return _parse(method, path, query)


def _plain(method: str, path: str) -> RequestInfo:
    return RequestInfo(is_resource=False, verb=method.lower(), path=path)


def _parse(method: str, path: str, query: str) -> RequestInfo:
    parts = path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return _plain(method, path)
    verb = _VERBS.get(method, method.lower())
    if rest[0] == "watch" and len(rest) > 1:
        # The form of Kubernetes before 1.2, which some clients still use.
        verb, rest = "watch", rest[1:]
    namespace, rest = _namespace(rest)
    resource, name, subresource = [*rest, "", ""][:3]
    tail = ""
    if subresource == "proxy":
        _, _, tail = path.partition(f"/{name}/proxy")
    elif len(rest) > 3:
        # No resource has anything below a subresource but proxies.
        subresource = "/".join(rest[2:])
    selector = ""
    if not name:
        verb, name, selector = _collection(verb, query)
    return RequestInfo(True, verb, path, group, version, namespace, resource, subresource, name, tail, selector)


def _namespace(parts: list[str]) -> tuple[str, list[str]]:
    """Split what comes before the resource: `namespaces/x`, unless the namespace itself is meant."""
    if parts[0] != "namespaces" or len(parts) == 1:
        return "", parts
    if len(parts) == 2 or parts[2] in _NAMESPACE_SUBRESOURCES:
        return parts[1], parts
    return parts[1], parts[2:]


_remembered = lru_cache(maxsize=_MEMO)(_parse)


def _collection(verb: str, query: str) -> tuple[str, str, str]:
    """Return the verb on a whole collection, the one name that a field selector leaves, and that selector."""
    if verb == "delete":
        verb = "deletecollection"
    if verb not in {"get", "watch", "deletecollection"}:
        return verb, "", ""
    asked: dict[str, list[str]] = {}
    if query:
        try:
            asked = parse_qs(query, keep_blank_values=True, max_num_fields=1000)
        except ValueError:
            asked = {}
    if verb == "get":
        wanted = asked.get("watch", ["false"])[0]
        verb = "list" if wanted in {"false", "0", "f", "F", "FALSE", "False"} else "watch"
    name = ""
    if selector := asked.get("fieldSelector", [""])[0]:
        try:
            name = fields.parse(selector).exact("metadata.name") or ""
        except fields.FieldSelectorError:
            name = ""
    return verb, name, selector
