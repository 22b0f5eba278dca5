"""Kubernetes' types as JSON schemas, in the forms that OpenAPI 2 and 3 have for them.

The tables hold facts and no prose, so descriptions are made of names, values and defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Final, Literal, TypeAlias

from pilothouse.kinds.registry import builtin
from pilothouse.kinds.schema import Schema
from pilothouse.kinds.table import kinds, schema_named

__all__ = ["OBJECT_META", "Form", "definition", "group_version_kinds", "reachable", "reference", "to_form_2"]

Form: TypeAlias = Literal[2, 3]
"""The major version of OpenAPI."""

OBJECT_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_PREFIXES: Final[dict[Form, str]] = {2: "#/definitions/", 3: "#/components/schemas/"}
_OBJECTS: Final = frozenset(
    (
        "io.k8s.apimachinery.pkg.runtime.RawExtension",
        "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1",
        "io.k8s.apimachinery.pkg.apis.meta.v1.Patch",
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceSubresourceStatus",
    )
)
"""Types without fields in the tables that are objects all the same."""
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])s?|[A-Z]?[a-z0-9]+|[0-9]+")
_INITIALS: Final = frozenset(
    ("api", "cidr", "cpu", "csi", "dns", "gid", "http", "id", "ip", "tls", "uid", "uri", "url")
)
_DROPPED: Final = frozenset(("anyOf", "allOf", "oneOf", "not", "nullable", "x-kubernetes-validations"))
"""Keywords of structural schemas that OpenAPI 2 does not have."""


def reference(name: str, form: Form) -> dict[str, Any]:
    """Return the reference to a type by its full name."""
    return {"$ref": _PREFIXES[form] + name}


@cache
def _kinds_of() -> Mapping[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    everywhere = [(group, version) for group in builtin().groups() for version in builtin().versions(group)]
    for (group, version, kind), name in kinds().items():
        places = everywhere if group == "*" else [(group, version)]
        for place in places:
            found.setdefault(name, []).append({"group": place[0], "kind": kind, "version": place[1]})
    return found


def group_version_kinds(name: str) -> list[dict[str, str]]:
    """Return the kinds of a type, empty for one that is part of others."""
    return _kinds_of().get(name, [])


def reachable(names: Iterable[str]) -> list[str]:
    """Return all types that these types have in them, themselves included, in the order of their names."""
    found = set(names)
    waiting = list(found)
    while waiting:
        for inner in _referred(schema_named(waiting.pop())):
            if inner not in found:
                found.add(inner)
                waiting.append(inner)
    return sorted(found)


def _referred(schema: Schema) -> Iterable[str]:
    for field in schema.fields.values() if schema.shape == "object" else ():
        inner: Schema | None = field
        while inner is not None and not inner.name:
            inner = inner.element
        if inner is not None:
            yield inner.name


def _words(name: str) -> str:
    """Write a name in camel case as words, abbreviations as they are."""
    words = [word if word.isupper() and len(word) > 1 else word.lower() for word in _WORD.findall(name)]
    words = [word.upper() if word in _INITIALS else word for word in words]
    text = " ".join(words) or name
    return text[0].upper() + text[1:]


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _described(name: str, schema: Schema) -> str:
    text = f"{_words(name)}."
    if schema.enum:
        text += f" One of {', '.join(map(_value, schema.enum))}."
    if schema.has_default and schema.default not in ("", {}, [], None):
        text += f" Defaults to {_value(schema.default)}."
    return text


def _plain(schema: Schema, form: Form) -> dict[str, Any]:
    """Return a value's shape, without what its place adds."""
    if schema.name:
        return reference(schema.name, form)
    if schema.shape == "list":
        return {"type": "array", "items": _plain(schema.element, form) if schema.element else {}}
    if schema.shape == "map":
        return {"type": "object", "additionalProperties": _plain(schema.element, form) if schema.element else {}}
    if schema.shape == "any":
        return {}
    return _scalar(schema, form)


def _scalar(schema: Schema, form: Form) -> dict[str, Any]:
    if schema.format == "int-or-string" and form == 3:
        return {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}
    if schema.format == "quantity":
        return {"oneOf": [{"type": "string"}, {"type": "number"}]} if form == 3 else {"type": "string"}
    made: dict[str, Any] = {"type": schema.shape}
    if schema.format:
        made["format"] = "date-time" if schema.format == "micro-time" else schema.format
    return made


def _place(schema: Schema) -> dict[str, Any]:
    """Return what the place of a value adds: how it merges, its values and default."""
    made: dict[str, Any] = {}
    if schema.enum:
        made["enum"] = list(schema.enum)
    if schema.has_default:
        made["default"] = schema.default
    if schema.shape == "list" and (schema.list_type != "atomic" or not schema.patch_strategy):
        made["x-kubernetes-list-type"] = schema.list_type
    if schema.list_keys:
        made["x-kubernetes-list-map-keys"] = list(schema.list_keys)
    if schema.map_type == "atomic":
        made["x-kubernetes-map-type"] = "atomic"
    if schema.patch_strategy:
        made["x-kubernetes-patch-strategy"] = ",".join(schema.patch_strategy)
    if schema.patch_merge_key:
        made["x-kubernetes-patch-merge-key"] = schema.patch_merge_key
    return made


def _property(name: str, schema: Schema, form: Form) -> dict[str, Any]:
    plain = _plain(schema, form)
    added = {"description": _described(name, schema), **_place(schema)}
    # beside a reference OpenAPI 3 lets nothing count
    return {"allOf": [plain], **added} if form == 3 and "$ref" in plain else {**plain, **added}


def definition(name: str, form: Form) -> dict[str, Any]:
    """Return the schema of a type by its full name. Raises UnknownType."""
    schema = schema_named(name)
    short = name.rpartition(".")[2]
    made: dict[str, Any] = {"description": f"{_words(short)}."}
    if schema.shape == "object" and schema.fields:
        made["properties"] = {field: _property(field, inner, form) for field, inner in sorted(schema.fields.items())}
        if schema.required:
            made["required"] = list(schema.required)
        made["type"] = "object"
    elif name in _OBJECTS or schema.shape == "object":
        made["type"] = "object"
    elif schema.shape != "any":
        made |= _scalar(schema, form)
    if told := group_version_kinds(name):
        made["x-kubernetes-group-version-kind"] = told
    if schema.map_type == "atomic":
        made["x-kubernetes-map-type"] = "atomic"
    return made


def to_form_2(schema: Any) -> Any:
    """Return what OpenAPI 2 can say of a structural schema; references are turned as well."""
    if not isinstance(schema, dict):
        return schema
    made = {word: value for word, value in schema.items() if word not in _DROPPED}
    if "$ref" in made:
        return reference(made["$ref"].removeprefix(_PREFIXES[3]), 2)
    wrapped = schema.get("allOf")
    if wrapped and "$ref" in wrapped[0]:
        made |= to_form_2(wrapped[0])
    if schema.get("nullable") or schema.get("x-kubernetes-int-or-string"):
        # null, or one of two types, is nothing that it has words for
        return {word: value for word, value in made.items() if word == "description" or word.startswith("x-")}
    if schema.get("x-kubernetes-preserve-unknown-fields") and "properties" in made and "$ref" not in made:
        del made["properties"]
    for word in ("items", "additionalProperties"):
        if isinstance(made.get(word), dict):
            made[word] = to_form_2(made[word])
    if "properties" in made:
        made["properties"] = {name: to_form_2(inner) for name, inner in made["properties"].items()}
    return made
