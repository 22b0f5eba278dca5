"""The documents of OpenAPI: one per group and version in form 3, one for everything in form 2.

They are made of pieces that are encoded one by one, so that no document is ever in memory as objects.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from pilothouse.apiserver.openapi.operations import (
    DELETE_OPTIONS,
    PATCH_TYPE,
    Operation,
    friendly_name,
    operations,
)
from pilothouse.apiserver.openapi.parameters import parameters
from pilothouse.apiserver.openapi.schemas import OBJECT_META, Form, definition, reachable, reference, to_form_2
from pilothouse.kinds.registry import Registry, Resource
from pilothouse.kinds.table import kinds

__all__ = ["CustomSchemas", "Pieces", "document_2", "document_3", "pieces", "plain_operations"]

CustomSchemas: TypeAlias = Callable[[Resource], Mapping[str, Any] | None]
"""Gives the schema of a custom resource's objects in form 3, None where it has none."""

_LIST_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
_VARIABLE: Final = re.compile(r"\{(\w+)\}")
_JSON: Final = "application/json"
_MEDIA: Final = (_JSON, "application/vnd.kubernetes.protobuf", "application/yaml")
_STREAMS: Final = ("application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch")
_PATCHES: Final = (
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)
_MEANINGS: Final = {"200": "OK", "201": "Created", "202": "Accepted"}
_REFUSED: Final = {"401": {"description": "Unauthorized"}}


class Pieces:
    """The parts of a document, each built when it is its turn.

    paths: path and what can be done there. schemas: name and schema.
    """

    def __init__(
        self, listed: Iterable[Operation], form: Form, registry: Registry | None, custom: CustomSchemas | None
    ) -> None:
        self._form: Final = form
        self._by_path: Final[dict[str, list[Operation]]] = {}
        for operation in listed:
            self._by_path.setdefault(operation.path, []).append(operation)
        self._custom: Final = _custom_types(registry, custom) if registry else {}

    def paths(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give every path with its operations."""
        for path in sorted(self._by_path):
            made: dict[str, Any] = {one.method: _operation(one, self._form) for one in self._by_path[path]}
            if any(one.gvk for one in self._by_path[path]):
                variables = sorted(_VARIABLE.findall(path))
                pretty = not all(one.action == "connect" for one in self._by_path[path])
                made["parameters"] = parameters(variables, (), self._form, pretty=pretty)
            yield path, made

    def schemas(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Give every type that the operations deal with, and what those have in them."""
        used = {name for found in self._by_path.values() for one in found for name in (one.body, one.answer) if name}
        own = {name for name in used if name in self._custom}
        named = set(reachable([*(used - own), *([OBJECT_META, _LIST_META] if own else [])]))
        for name in sorted(named | own):
            if name not in own:
                yield name, definition(name, self._form)
            else:
                made = self._custom[name]()
                yield name, to_form_2(made) if self._form == 2 else made


def _custom_types(registry: Registry, custom: CustomSchemas | None) -> dict[str, Callable[[], dict[str, Any]]]:
    found: dict[str, Callable[[], dict[str, Any]]] = {}
    for resource in registry:
        if resource.custom and resource.gvk not in kinds():
            name = friendly_name(*resource.gvk)
            found[name] = _custom_object(resource, custom)
            found[friendly_name(resource.group, resource.version, resource.list_kind)] = _custom_list(resource, name)
    return found


def _kind_of(resource: Resource, kind: str) -> list[dict[str, str]]:
    return [{"group": resource.group, "kind": kind, "version": resource.version}]


def _head(metadata: str) -> dict[str, Any]:
    return {
        "apiVersion": {"type": "string", "description": "API version."},
        "kind": {"type": "string", "description": "Kind."},
        "metadata": {"allOf": [reference(metadata, 3)], "description": "Metadata."},
    }


def _custom_object(resource: Resource, custom: CustomSchemas | None) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        schema = custom(resource) if custom else None
        made: dict[str, Any] = dict(schema or {"x-kubernetes-preserve-unknown-fields": True})
        made["type"] = "object"
        # a schema may say less of the metadata than there is, and is not asked
        if "properties" in made or not made.get("x-kubernetes-preserve-unknown-fields"):
            made["properties"] = {**made.get("properties", {}), **_head(OBJECT_META)}
        made["x-kubernetes-group-version-kind"] = _kind_of(resource, resource.kind)
        return made

    return make


def _custom_list(resource: Resource, name: str) -> Callable[[], dict[str, Any]]:
    def make() -> dict[str, Any]:
        items = {"type": "array", "items": reference(name, 3), "description": "Items."}
        return {
            "description": f"{resource.list_kind}.",
            "type": "object",
            "required": ["items"],
            "properties": {**_head(_LIST_META), "items": items},
            "x-kubernetes-group-version-kind": _kind_of(resource, resource.list_kind),
        }

    return make


def _operation(one: Operation, form: Form) -> dict[str, Any]:
    made: dict[str, Any] = {"description": one.description, "operationId": one.id, "tags": [one.tag]}
    if form == 3:
        made |= _exchange_3(one)
    else:
        made |= _exchange_2(one)
    if one.action:
        made["x-kubernetes-action"] = one.action
    if one.gvk:
        made["x-kubernetes-group-version-kind"] = dict(zip(("group", "version", "kind"), one.gvk, strict=True))
    return made


def _bodies(one: Operation) -> Sequence[str]:
    if one.body == PATCH_TYPE:
        return _PATCHES[:-1] if one.custom else _PATCHES
    return (_JSON,) if one.body == DELETE_OPTIONS else ("*/*",)


def _exchange_3(one: Operation) -> dict[str, Any]:
    made: dict[str, Any] = {}
    if one.query:
        made["parameters"] = parameters((), one.query, 3)
    if one.body:
        made["requestBody"] = {"content": {kind: {"schema": reference(one.body, 3)} for kind in _bodies(one)}}
        if one.body != DELETE_OPTIONS:
            made["requestBody"]["required"] = True
    if one.answer:
        kinds_now = (*_MEDIA, *_STREAMS) if one.watches else _MEDIA
        content = {kind: {"schema": reference(one.answer, 3)} for kind in kinds_now}
    else:
        content = {"text/plain" if one.action == "get" else "*/*": {"schema": {"type": "string"}}}
    answers = {code: {"description": _MEANINGS[code], "content": content} for code in one.codes}
    return {**made, "responses": {**answers, **_REFUSED}}


def _exchange_2(one: Operation) -> dict[str, Any]:
    listed = parameters((), one.query, 2)
    consumes: Sequence[str] = ("*/*",)
    if one.body:
        body: dict[str, Any] = {"name": "body", "in": "body", "schema": reference(one.body, 2)}
        if one.body != DELETE_OPTIONS:
            body["required"] = True
        listed.insert(0, body)
        consumes = _bodies(one) if one.body == PATCH_TYPE else consumes
    produces = (*_MEDIA, *_STREAMS) if one.watches else _MEDIA if one.answer else ("*/*",)
    schema = reference(one.answer, 2) if one.answer else {"type": "string"}
    answers = {code: {"description": _MEANINGS[code], "schema": schema} for code in one.codes}
    made: dict[str, Any] = {"consumes": list(consumes), "produces": list(produces), "schemes": ["https"]}
    if listed:
        made["parameters"] = listed
    return {**made, "responses": {**answers, **_REFUSED}}


def plain_operations(key: str) -> tuple[Operation, ...]:
    """Return the operations of a path that is no group's version: `api`, `apis`, `apis/GROUP`, `version`."""
    meta = "io.k8s.apimachinery.pkg.apis.meta.v1."
    if key == "version":
        answer = "io.k8s.apimachinery.pkg.version.Info"
        return (Operation("/version/", "get", "getCodeVersion", "version", answer=answer),)
    if key == "api":
        return (Operation("/api/", "get", "getCoreAPIVersions", "core", answer=f"{meta}APIVersions"),)
    if key == "apis":
        return (Operation("/apis/", "get", "getAPIVersions", "apis", answer=f"{meta}APIGroupList"),)
    group = key.partition("/")[2]
    words = group.removesuffix(".k8s.io").split(".")
    name = "".join(word[:1].upper() + word[1:] for word in words)
    return (Operation(f"/{key}/", "get", f"get{name}APIGroup", name[:1].lower() + name[1:], answer=f"{meta}APIGroup"),)


def pieces(
    registry: Registry,
    versions: Iterable[tuple[str, str]],
    form: Form,
    custom: CustomSchemas | None = None,
    plain: Iterable[str] = (),
) -> Pieces:
    """Return the pieces of a document about some groups and versions and some plain paths."""
    listed = [one for key in plain for one in plain_operations(key)]
    for group, version in versions:
        listed += operations(group, version, registry.resources(group, version))
    return Pieces(listed, form, registry, custom)


def _raw(items: Iterable[tuple[str, dict[str, Any]]]) -> dict[str, msgspec.Raw]:
    return {name: msgspec.Raw(msgspec.json.encode(item)) for name, item in items}


def document_3(made: Pieces, version: str) -> bytes:
    """Encode a document of form 3. version: of the program."""
    return msgspec.json.encode(
        {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": version},
            "paths": _raw(made.paths()),
            "components": {
                "schemas": _raw(made.schemas()),
                "securitySchemes": {"BearerToken": _BEARER},
            },
        }
    )


_BEARER: Final = {
    "type": "apiKey",
    "name": "authorization",
    "in": "header",
    "description": "Bearer Token authentication",
}


def document_2(made: Pieces, version: str) -> bytes:
    """Encode a document of form 2. version: of the program."""
    return msgspec.json.encode(
        {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": version},
            "paths": _raw(made.paths()),
            "definitions": _raw(made.schemas()),
            "securityDefinitions": {"BearerToken": _BEARER},
            "security": [{"BearerToken": []}],
        }
    )
