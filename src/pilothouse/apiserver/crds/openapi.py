"""Schemas of custom resources as OpenAPI publishes them, in version 3 and, with less, in version 2."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

__all__ = ["model_name", "openapi_v2", "openapi_v3"]

Schema = dict[str, Any]

_CONVENTIONS = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_TYPE_META = {
    "apiVersion": {
        "description": "APIVersion defines the versioned schema of this representation of an object. Servers should"
        " convert recognized schemas to the latest internal value, and may reject unrecognized values. More info:"
        f" {_CONVENTIONS}#resources",
        "type": "string",
    },
    "kind": {
        "description": "Kind is a string value representing the REST resource this object represents. Servers may infer"
        " this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info:"
        f" {_CONVENTIONS}#types-kinds",
        "type": "string",
    },
}
_EMBEDDED_META = {
    "apiVersion": {
        "description": "apiVersion defines the versioned schema of this representation of an object. More info:"
        f" {_CONVENTIONS}#resources",
        "type": "string",
    },
    "kind": {
        "description": "kind is a string value representing the type of this object. In CamelCase. More info:"
        f" {_CONVENTIONS}#types-kinds",
        "type": "string",
    },
}
_METADATA = f"Standard object's metadata. More info: {_CONVENTIONS}#metadata"
_LIST_METADATA = f"Standard list metadata. More info: {_CONVENTIONS}#types-kinds"
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_V2_DROPPED = ("allOf", "oneOf", "anyOf", "not")


def model_name(group: str, version: str, kind: str) -> str:
    """Return the name of a kind's schema: `com.example.v1.Widget`."""
    return ".".join([*reversed(group.split(".")), version, kind])


def openapi_v3(crd: Mapping[str, Any], version: str) -> dict[str, Schema]:
    """Return the schemas of one version, the kind's and its list's, by name, with references as OpenAPI v3 has them."""
    return _schemas(crd, version, "#/components/schemas/", v2=False)


def openapi_v2(crd: Mapping[str, Any], version: str) -> dict[str, Schema]:
    """Return the same for OpenAPI v2, without what kubectl cannot take: nullable, conditions, fields beside unknown."""
    return _schemas(crd, version, "#/definitions/", v2=True)


def _schemas(crd: Mapping[str, Any], version: str, prefix: str, *, v2: bool) -> dict[str, Schema]:
    spec = crd["spec"]
    found = next(each for each in spec["versions"] if each["name"] == version)
    kind = spec["names"]["kind"]
    list_kind = spec["names"].get("listKind") or f"{kind}List"
    name = model_name(spec["group"], version, kind)
    schema = deepcopy((found.get("schema") or {}).get("openAPIV3Schema"))
    preserve = bool(spec.get("preserveUnknownFields"))
    made = _resource(schema, prefix, v2=v2, preserve=preserve)
    made["x-kubernetes-group-version-kind"] = [{"group": spec["group"], "kind": kind, "version": version}]
    if selectable := found.get("selectableFields"):
        made["x-kubernetes-selectable-fields"] = [
            {"fieldPath": each["jsonPath"].removeprefix(".")} for each in selectable
        ]
    return {name: made, model_name(spec["group"], version, list_kind): _list(spec, version, name, list_kind, prefix)}


def _ref(name: str, description: str, prefix: str) -> Schema:
    if prefix.startswith("#/components"):
        return {"description": description, "allOf": [{"$ref": f"{prefix}{name}"}]}
    return {"description": description, "$ref": f"{prefix}{name}"}


def _resource(schema: Schema | None, prefix: str, *, v2: bool, preserve: bool) -> Schema:
    if schema is None or (v2 and (preserve or schema.get(_PRESERVE))):
        return {"type": "object"}
    if v2:
        _downgrade(schema)
    _embed(schema, prefix, v2=v2)
    metadata = _ref(f"{_META}.ObjectMeta", _METADATA, prefix)
    schema["properties"] = {**(schema.get("properties") or {}), **deepcopy(_TYPE_META), "metadata": metadata}
    return schema


def _inner(schema: Schema) -> list[Schema]:
    found = [part for part in (schema.get("properties") or {}).values() if isinstance(part, dict)]
    found += [schema[name] for name in ("items", "additionalProperties") if isinstance(schema.get(name), dict)]
    return found


def _embed(schema: Schema, prefix: str, *, v2: bool) -> None:
    for part in _inner(schema):
        _embed(part, prefix, v2=v2)
    if not schema.get("x-kubernetes-embedded-resource") or (v2 and schema.get(_PRESERVE)):
        return
    metadata = _ref(f"{_META}.ObjectMeta", _METADATA, prefix)
    schema["properties"] = {**(schema.get("properties") or {}), **deepcopy(_EMBEDDED_META), "metadata": metadata}
    required = list(schema.get("required") or ())
    schema["required"] = required + [name for name in ("kind", "apiVersion") if name not in required]


def _downgrade(schema: Schema) -> None:
    for name in _V2_DROPPED:
        schema.pop(name, None)
    nullable = [name for name, part in (schema.get("properties") or {}).items() if part.get("nullable")]
    dropped = ["type", "items", "properties"] if schema.pop("nullable", False) else []
    if schema.get(_PRESERVE):
        dropped += ["items", "properties", *(["type"] if schema.get("type") == "object" else [])]
    for name in dropped:
        schema.pop(name, None)
    if schema.get("type") == "array" and "items" not in schema:
        del schema["type"]
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict) and additional.get("nullable"):
        schema.pop("required", None)
    if "required" in schema:
        schema["required"] = [name for name in schema["required"] if name not in nullable]
        if not schema["required"]:
            del schema["required"]
    for part in _inner(schema):
        _downgrade(part)


def _list(spec: Mapping[str, Any], version: str, name: str, list_kind: str, prefix: str) -> Schema:
    plural = spec["names"]["plural"]
    items = {
        "description": f"List of {plural}. More info: {_CONVENTIONS}",
        "type": "array",
        "items": {"$ref": f"{prefix}{name}"},
    }
    return {
        "description": f"{list_kind} is a list of {spec['names']['kind']}",
        "type": "object",
        "required": ["items"],
        "properties": {
            **deepcopy(_TYPE_META),
            "items": items,
            "metadata": _ref(f"{_META}.ListMeta", _LIST_METADATA, prefix),
        },
        "x-kubernetes-group-version-kind": [{"group": spec["group"], "kind": list_kind, "version": version}],
    }
