"""Answers requests for OpenAPI: documents built in a thread when first asked for, and kept compressed."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import operator
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, Final

import msgspec

from pilothouse.apiserver.discovery.version import version_info
from pilothouse.apiserver.model import Request, Response
from pilothouse.apiserver.openapi import gnostic
from pilothouse.apiserver.openapi.documents import CustomSchemas, Pieces, document_2, document_3, pieces
from pilothouse.foundation.clock import Clock
from pilothouse.kinds.registry import Registry, Resource, builtin

__all__ = ["OpenApi"]

_KEPT: Final = 256
"""Documents kept; one of a custom group takes some kilobytes compressed."""
_KEPT_INDEXES: Final = 4
_KEPT_FACTS: Final = 4096
_LEVEL: Final = 6
_LASTING: Final = timedelta(days=365)
_V2: Final = "/openapi/v2"
_V3: Final = "/openapi/v3"
_JSON: Final = "application/json"
_PROTOBUF: Final = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_PROTOBUF_NAMES: Final = frozenset((_PROTOBUF, "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"))
_NOT_ACCEPTABLE: Final = 406


@dataclass(frozen=True, slots=True)
class _Index:
    """What there is for one registry: the hash of each document of form 3, and of the one of form 2."""

    registry: Registry
    hashes: dict[str, str]
    whole: str
    encoded: bytes


def _hash(data: bytes) -> str:
    return hashlib.sha512(data).hexdigest().upper()


def _versions(key: str) -> tuple[str, str] | None:
    """Return the group and version of `api/v1` or `apis/GROUP/VERSION`."""
    parts = key.split("/")
    if parts[0] == "api" and len(parts) == 2:
        return "", parts[1]
    return (parts[1], parts[2]) if parts[0] == "apis" and len(parts) == 3 else None


class OpenApi:
    """Answers `/openapi/v2` and `/openapi/v3`.

    clock: tells when a document that never changes may be forgotten. custom_schemas: gives the schemas of custom
    resources, a new object when one changes. version: of the program, part of every document and hash.
    """

    def __init__(self, clock: Clock, custom_schemas: CustomSchemas | None = None, *, version: str = "") -> None:
        self._clock: Final = clock
        self._custom: Final = custom_schemas
        self._version: Final = version or version_info()["gitVersion"]
        self._documents: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._indexes: dict[tuple[int, int], _Index] = {}
        self._facts: dict[tuple[str, str], tuple[list[Resource], list[Mapping[str, Any] | None], str]] = {}
        self._building: Final = threading.Lock()
        self._guard: Final = threading.Lock()
        """Held for moments only, while the documents are looked at; the other one while one is built."""

    def answer(self, request: Request, registry: Registry, revision: int = 0) -> Response | Awaitable[Response] | None:
        """Answer a request for OpenAPI; None where it asks for something else or for what there is not.

        revision: grows when a schema of a custom resource changes while the registry does not.
        """
        path = request.path.rstrip("/")
        if not path.startswith("/openapi/v") or request.method not in ("GET", "HEAD"):
            return None
        index = self._index(registry, revision)
        if path == _V3:
            return _cached(request, index.encoded, _hash(index.encoded), _JSON, compressed=False)
        if path == _V2:
            return self._answer_2(request, index)
        key = path.removeprefix(f"{_V3}/")
        if key not in index.hashes:
            return None
        return self._answer_3(request, index, key)

    def _answer_3(self, request: Request, index: _Index, key: str) -> Response | Awaitable[Response]:
        tag, asked = index.hashes[key], request.param("hash")
        if asked and asked != tag:
            return Response(301, b"", [("Location", f"{_V3}/{key}?hash={tag}")], "text/html; charset=utf-8")
        if not _accepts(request, _JSON):
            return Response(_NOT_ACCEPTABLE, b"", (), "text/plain; charset=utf-8")
        lasting: list[tuple[str, str]] = []
        if asked:
            expires = self._clock.now() + _LASTING
            lasting = [("Cache-Control", "public, immutable"), ("Expires", format_datetime(expires, usegmt=True))]

        def build() -> bytes:
            return document_3(self._pieces_3(index.registry, key), self._version)

        return self._serve(request, (key, tag), _JSON, build, lasting)

    def _pieces_3(self, registry: Registry, key: str) -> Pieces:
        found = _versions(key)
        if found is None:
            return pieces(registry, (), 3, plain=(key,))
        return pieces(registry, (found,), 3, self._custom)

    def _answer_2(self, request: Request, index: _Index) -> Response | Awaitable[Response]:
        kind = _preferred(request)
        if not kind:
            return Response(_NOT_ACCEPTABLE, b"", [("Vary", "Accept")], "text/plain; charset=utf-8")
        write = document_2 if kind == _JSON else gnostic.document

        def build() -> bytes:
            keys = list(index.hashes)
            found = [version for version in map(_versions, keys) if version is not None]
            plain = [key for key in keys if _versions(key) is None]
            return write(pieces(index.registry, found, 2, self._custom, plain), self._version)

        return self._serve(request, (kind, index.whole), kind, build, [("Vary", "Accept")])

    def _serve(
        self,
        request: Request,
        key: tuple[str, str],
        kind: str,
        build: Callable[[], bytes],
        headers: list[tuple[str, str]],
    ) -> Response | Awaitable[Response]:
        kept = self._kept(key)
        if kept is not None:
            return _cached(request, kept, key[1], kind, headers)
        if _unchanged(request, key[1]):
            return _cached(request, b"", key[1], kind, headers)

        async def built() -> Response:
            found = await asyncio.to_thread(self._build, key, build)
            return _cached(request, found, key[1], kind, headers)

        return built()

    def _kept(self, key: tuple[str, str]) -> bytes | None:
        with self._guard:
            found = self._documents.get(key)
            if found is not None:
                self._documents.move_to_end(key)
            return found

    def _keep(self, key: tuple[str, str], data: bytes) -> None:
        with self._guard:
            for old in [other for other in self._documents if other[0] == key[0]]:
                del self._documents[old]
            while len(self._documents) >= _KEPT:
                self._documents.popitem(last=False)
            self._documents[key] = data

    def _build(self, key: tuple[str, str], build: Callable[[], bytes]) -> bytes:
        """Build a document, each only once and one at a time. Runs in a thread."""
        with self._building:
            found = self._kept(key)
            if found is None:
                found = gzip.compress(build(), _LEVEL, mtime=0)
                self._keep(key, found)
            return found

    def _index(self, registry: Registry, revision: int) -> _Index:
        key = id(registry), revision
        found = self._indexes.get(key)
        if found is None:
            while len(self._indexes) >= _KEPT_INDEXES:
                del self._indexes[next(iter(self._indexes))]
            found = self._indexes[key] = self._make_index(registry)
        return found

    def _make_index(self, registry: Registry) -> _Index:
        hashes = {"api": "", "apis": "", "version": ""}
        for group in registry.groups():
            if group and builtin().versions(group):
                hashes[f"apis/{group}"] = ""
            for version in registry.versions(group):
                key = f"apis/{group}/{version}" if group else f"api/{version}"
                hashes[key] = self._custom_facts(registry, group, version)
        hashes = {key: _hash(f"{self._version} {key} {hashes[key]}".encode()) for key in sorted(hashes)}
        paths = {key: {"serverRelativeURL": f"{_V3}/{key}?hash={tag}"} for key, tag in hashes.items()}
        whole = _hash("".join(hashes.values()).encode())
        return _Index(registry, hashes, whole, msgspec.json.encode({"paths": paths}))

    def _custom_facts(self, registry: Registry, group: str, version: str) -> str:
        """Return a hash of what the document of a group and version depends on, besides the program."""
        found = [resource for resource in registry.resources(group, version) if resource.custom]
        if not found:
            return ""
        schemas = [self._custom(resource) if self._custom else None for resource in found]
        known = self._facts.get((group, version))
        if known is not None and known[0] == found and all(map(operator.is_, known[1], schemas)):
            return known[2]
        told = repr(found).encode() + msgspec.json.encode(schemas, order="deterministic")
        while len(self._facts) >= _KEPT_FACTS:
            del self._facts[next(iter(self._facts))]
        self._facts[group, version] = found, schemas, _hash(told)
        return self._facts[group, version][2]


def _accepted(request: Request) -> list[str]:
    """Return the media types that the client takes, the preferred ones first."""
    listed: list[tuple[float, str]] = []
    for part in (request.headers.get("accept") or "*/*").split(","):
        name, _, rest = part.partition(";")
        quality = 1.0
        for piece in rest.split(";"):
            word, _, value = piece.strip().partition("=")
            if word == "q":
                try:
                    quality = float(value)
                except ValueError:
                    quality = 1.0
        listed.append((quality, name.strip()))
    return [name for _, name in sorted(listed, key=lambda one: -one[0])]


def _accepts(request: Request, kind: str) -> bool:
    return any(name in ("*/*", "application/*", kind) for name in _accepted(request))


def _preferred(request: Request) -> str:
    """Return the form of the document of form 2 that the client likes best, empty where it takes neither."""
    for name in _accepted(request):
        if name in ("*/*", "application/*", _JSON):
            return _JSON
        if name in _PROTOBUF_NAMES:
            return _PROTOBUF
    return ""


def _unchanged(request: Request, tag: str) -> bool:
    known = request.headers.get("if-none-match", "")
    return known == "*" or f'"{tag}"' in known


def _cached(
    request: Request,
    data: bytes,
    tag: str,
    kind: str,
    headers: list[tuple[str, str]] | None = None,
    *,
    compressed: bool = True,
) -> Response:
    """Answer with a document, or with the word that the client has it already."""
    told = [("ETag", f'"{tag}"'), *(headers or ())]
    if _unchanged(request, tag):
        return Response(304, b"", told, kind)
    if not compressed:
        return Response(200, data, told, kind)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(200, data, [*told, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")], kind)
    return Response(200, gzip.decompress(data), told, kind)
