"""Answers requests for discovery, each document built when first asked for and kept encoded."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from pilothouse.apiserver.discovery import aggregated, legacy
from pilothouse.apiserver.discovery.legacy import AggregatedVersion
from pilothouse.apiserver.discovery.version import version_info
from pilothouse.apiserver.model import Request, Response, refusal
from pilothouse.apiserver.negotiation import NO_KINDS, negotiate, wants_pretty
from pilothouse.kinds.registry import Registry
from pilothouse.kinds.status import ApiStatus, NotAcceptable, generic

__all__ = ["Discovery", "Documents"]

_KEPT: Final = 4
"""Registries whose documents are kept: requests that began before a change still ask for the one before it."""
_GROUP_PARTS: Final = 2
_VERSION_PARTS: Final = 3
_METHOD_NOT_ALLOWED: Final = 405


class Documents:
    """All documents for one registry and one set of groups that other servers serve.

    server_address: host and port where clients reach this server.
    """

    def __init__(
        self, registry: Registry, elsewhere: tuple[AggregatedVersion, ...] = (), server_address: str = ""
    ) -> None:
        self.registry: Final = registry
        self.elsewhere: Final = elsewhere
        self._server_address: Final = server_address
        self.groups: Final = legacy.groups(registry, elsewhere)
        self._by_name: Final = {group.name: group for group in self.groups}
        self._encoded: dict[str, bytes] = {}
        self._aggregated: dict[tuple[str, str], tuple[bytes, str]] = {}

    def document(self, path: str) -> dict[str, Any] | None:
        """Return the document of a path without trailing slash, or None where there is none.

        There is none for versions that other servers serve: those are asked themselves.
        """
        parts = path.split("/")[1:]
        if path == "/api":
            return legacy.api_versions(self.registry, self._server_address)
        if path == "/apis":
            return legacy.group_list(self.groups)
        if parts[0] == "api" and len(parts) == _GROUP_PARTS:
            return self._version("", parts[1])
        if parts[0] != "apis" or not parts[1]:
            return None
        if len(parts) == _GROUP_PARTS:
            group = self._by_name.get(parts[1])
            return legacy.group_document(group) if group else None
        return self._version(parts[1], parts[2]) if len(parts) == _VERSION_PARTS else None

    def _version(self, group: str, version: str) -> dict[str, Any] | None:
        if version not in self.registry.versions(group):
            return None
        return legacy.resource_list(self.registry, group, version)

    def encoded(self, path: str) -> bytes | None:
        """Return the document of a path as JSON."""
        found = self._encoded.get(path)
        if found is None:
            document = self.document(path)
            if document is None:
                return None
            found = self._encoded[path] = msgspec.json.encode(document) + b"\n"
        return found

    def aggregated(self, path: str, version: str) -> tuple[bytes, str]:
        """Return the aggregated document of `/api` or `/apis` as JSON, and the quoted tag of its content."""
        found = self._aggregated.get((path, version))
        if found is None:
            if path == "/api":
                document = aggregated.aggregated_core(self.registry, version)
            else:
                document = aggregated.aggregated_groups(self.registry, self.groups, version)
            data = msgspec.json.encode(document) + b"\n"
            tag = hashlib.sha512(data).hexdigest().upper()
            found = self._aggregated[path, version] = data, f'"{tag}"'
        return found


class Discovery:
    """Answers what is asked about the server itself.

    version: the document of `/version`. server_address: host and port where clients reach this server.
    root_paths: further paths that `GET /` lists (`/healthz`, `/openapi/v3`, ...).
    """

    def __init__(
        self, *, version: dict[str, str] | None = None, server_address: str = "", root_paths: Iterable[str] = ()
    ) -> None:
        self._server_address: Final = server_address
        self._root_paths: Final = tuple(root_paths)
        self._version: Final = msgspec.json.format(msgspec.json.encode(version or version_info()), indent=2)
        self._documents: dict[tuple[int, tuple[AggregatedVersion, ...]], Documents] = {}

    def documents(self, registry: Registry, elsewhere: Sequence[AggregatedVersion] = ()) -> Documents:
        """Return the documents for a registry, kept while it is among those asked for last."""
        key = id(registry), tuple(elsewhere)
        found = self._documents.get(key)
        # an entry keeps its registry alive, so the identity cannot be another's
        if found is None:
            while len(self._documents) >= _KEPT:
                del self._documents[next(iter(self._documents))]
            found = self._documents[key] = Documents(registry, key[1], self._server_address)
        return found

    def answer(
        self, request: Request, registry: Registry, elsewhere: Sequence[AggregatedVersion] = ()
    ) -> Response | None:
        """Answer a request for discovery, `/version` or `/`; None where it asks for something else."""
        path = request.path.rstrip("/") or "/"
        if path == "/version":
            return Response(body=self._version) if request.method in ("GET", "HEAD") else _not_allowed()
        if path == "/":
            return Response(body=self._root(self.documents(registry, elsewhere)))
        if path not in ("/api", "/apis") and not path.startswith(("/api/", "/apis/")):
            return None
        if path.count("/") > _VERSION_PARTS:
            return None
        documents = self.documents(registry, elsewhere)
        if path in ("/api", "/apis"):
            combined = _combined(request, path, documents)
            if combined is not None:
                return combined
        data = documents.encoded(path)
        if data is None:
            return None
        if request.method not in ("GET", "HEAD"):
            return _not_allowed()
        try:
            return _plain(request, data)
        except ApiStatus as error:
            return refusal(error)

    def _root(self, documents: Documents) -> bytes:
        paths = {"/.well-known/openid-configuration", "/api", "/apis", "/version", *self._root_paths}
        paths |= {f"/api/{version}" for version in documents.registry.versions("")}
        for group in documents.groups:
            paths |= {f"/apis/{group.name}", *(f"/apis/{group.name}/{version}" for version in group.versions)}
        return msgspec.json.format(msgspec.json.encode({"paths": sorted(paths)}), indent=2)


def _not_allowed() -> Response:
    return refusal(generic(_METHOD_NOT_ALLOWED))


def _combined(request: Request, path: str, documents: Documents) -> Response | None:
    """Answer in one document where that is what the client prefers."""
    accept = request.headers.get("accept", "")
    if aggregated.LIST_KIND not in accept:
        return None
    try:
        asked = negotiate(accept, kinds=aggregated.AGGREGATED_KINDS)
    except NotAcceptable:
        return None
    if not asked.as_ or asked.media_type != "json":
        return None
    data, tag = documents.aggregated(path, asked.version)
    headers = [("ETag", tag), ("Vary", "Accept"), ("Cache-Control", "public")]
    kind = aggregated.media_type(asked.version)
    if request.headers.get("if-none-match") == tag:
        return Response(304, b"", headers, kind)
    return Response(200, data, headers, kind)


def _yaml(data: bytes) -> bytes:
    import yaml  # noqa: PLC0415 - hardly anybody asks for it

    text: str = yaml.safe_dump(msgspec.json.decode(data), default_flow_style=False, allow_unicode=True)
    return text.encode()


def _plain(request: Request, data: bytes) -> Response:
    asked = negotiate(request.headers.get("accept", ""), kinds=NO_KINDS, offered=("json", "yaml"))
    if asked.media_type == "yaml":
        return Response(200, _yaml(data), (), asked.content_type)
    if asked.pretty or wants_pretty(request):
        return Response(200, msgspec.json.format(data, indent=2))
    return Response(200, data)
