"""Whether a schema is structural: every part typed, and conditions that only restrict what is said outside of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilothouse.apiserver.cel.regex import PatternError, compile_pattern
from pilothouse.kinds.fielderrors import ErrorList, Path

__all__ = ["check_structural"]

Raw = Mapping[str, Any]
_MISSING = {
    "root": "must not be empty at the root",
    "item": "must not be empty for specified array items",
    "field": "must not be empty for specified object fields",
}
_INT_OR_STRING = [{"type": "integer"}, {"type": "string"}]
_METADATA = "must not specify anything other than name and generateName, but metadata is implicitly specified"
_NESTED_EMPTY = (
    ("type", "must be empty to be structural"),
    ("additionalProperties", "must be undefined to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
)


def check_structural(schema: Raw, at: Path) -> ErrorList:
    """Return what keeps a schema from being structural, sorted as Kubernetes sorts it."""
    errors = ErrorList()
    _invariants(errors, schema, "root", at)
    _complete(errors, schema, schema, at)
    errors.sort(key=str)
    return errors


def _schemas(schema: Raw, name: str) -> Mapping[str, Raw]:
    found = schema.get(name)
    return found if isinstance(found, Mapping) else {}


def _invariants(errors: ErrorList, schema: Raw, level: str, at: Path) -> None:
    kind, items = schema.get("type") or "", schema.get("items")
    if kind == "array" and items is None:
        errors.required(at.child("items"), "must be specified")
    if isinstance(items, Mapping):
        _invariants(errors, items, "item", at.child("items"))
    for name, part in _schemas(schema, "properties").items():
        _invariants(errors, part, "field", at.child("properties").key(name))
    additional = schema.get("additionalProperties")
    if additional is not None:
        if level == "root":
            errors.forbidden(at.child("additionalProperties"), "must not be used at the root")
        if isinstance(additional, Mapping):
            _invariants(errors, additional, "field", at.child("additionalProperties"))
    _extensions(errors, schema, at)
    skip_any = schema.get("anyOf") == _INT_OR_STRING
    all_of = schema.get("allOf") or []
    skip_first = bool(all_of) and all_of[0].get("anyOf") == _INT_OR_STRING
    _conditions(errors, schema, at, skip_any=skip_any, skip_first=skip_first)
    _types(errors, schema, level, at)
    _metadata(errors, schema, level, at)


def _extensions(errors: ErrorList, schema: Raw, at: Path) -> None:
    if not schema.get("x-kubernetes-int-or-string"):
        return
    for name in ("x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"):
        if schema.get(name):
            errors.invalid(at.child(name), True, "must be false if x-kubernetes-int-or-string is true")


def _types(errors: ErrorList, schema: Raw, level: str, at: Path) -> None:
    kind, embedded = schema.get("type") or "", bool(schema.get("x-kubernetes-embedded-resource"))
    untyped = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    if embedded and kind != "object":
        text = "must be object if x-kubernetes-embedded-resource is true"
        if kind:
            errors.invalid(at.child("type"), kind, text)
        else:
            errors.required(at.child("type"), text)
    elif not kind and not untyped:
        errors.required(at.child("type"), _MISSING[level])
    if embedded and schema.get("additionalProperties") is not None:
        text = "must not be used if x-kubernetes-embedded-resource is set"
        errors.forbidden(at.child("additionalProperties"), text)
    if level == "root" and kind and kind != "object":
        errors.invalid(at.child("type"), kind, "must be object at the root")
    preserve = schema.get("x-kubernetes-preserve-unknown-fields")
    if embedded and not preserve and not schema.get("properties"):
        text = "x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"
        errors.required(at.child("properties"), f"must not be empty if {text}")


def _metadata(errors: ErrorList, schema: Raw, level: str, at: Path) -> None:
    properties = _schemas(schema, "properties")
    checked = level == "root" or bool(schema.get("x-kubernetes-embedded-resource"))
    for name in ("kind", "apiVersion"):
        if checked and name in properties and properties[name].get("type") != "string":
            place = at.child("properties").key(name).child("type")
            errors.invalid(place, properties[name].get("type") or "", "must be string")
    metadata = properties.get("metadata")
    if metadata is None:
        return
    place = at.child("properties").key("metadata")
    if checked and metadata.get("type") != "object":
        errors.invalid(place.child("type"), metadata.get("type") or "", "must be object")
    if level == "root":
        inner = set(_schemas(metadata, "properties"))
        others = {name for name, value in metadata.items() if value and name not in {"type", "default", "properties"}}
        if (inner and not inner <= {"name", "generateName"}) or others:
            errors.forbidden(place, _METADATA)


def _conditions(errors: ErrorList, schema: Raw, at: Path, *, skip_any: bool, skip_first: bool) -> None:
    if not skip_any:
        for position, part in enumerate(schema.get("anyOf") or ()):
            _nested(errors, part, at.child("anyOf").index(position))
    for position, part in enumerate(schema.get("allOf") or ()):
        _nested(errors, part, at.child("allOf").index(position), skip_any=skip_first and position == 0)
    for position, part in enumerate(schema.get("oneOf") or ()):
        _nested(errors, part, at.child("oneOf").index(position))
    if isinstance(schema.get("not"), Mapping):
        _nested(errors, schema["not"], at.child("not"))
    if pattern := schema.get("pattern"):
        try:
            compile_pattern(pattern)
        except PatternError as error:
            text = f"must be a valid regular expression, but isn't: {error}"
            errors.invalid(at.child("pattern"), pattern, text)


def _nested(errors: ErrorList, schema: Raw, at: Path, *, skip_any: bool = False) -> None:
    _conditions(errors, schema, at, skip_any=skip_any, skip_first=False)
    if isinstance(schema.get("items"), Mapping):
        _nested(errors, schema["items"], at.child("items"))
    for name, part in _schemas(schema, "properties").items():
        _nested(errors, part, at.child("properties").key(name))
    for name, text in _NESTED_EMPTY:
        value = schema.get(name)
        if value or (name == "additionalProperties" and value is not None) or (name == "default" and value is not None):
            errors.forbidden(at.child(name), text)
    if "metadata" in _schemas(schema, "properties"):
        errors.forbidden(at.child("properties").key("metadata"), "must not be specified in a nested context")


def _complete(errors: ErrorList, schema: Raw, spine: Raw, at: Path) -> None:
    """Want that conditions name only what the schema itself has."""
    for name in ("allOf", "anyOf", "oneOf"):
        for position, part in enumerate(schema.get(name) or ()):
            _on_spine(errors, part, spine, at.child(name).index(position), Path(at.text))
    if isinstance(schema.get("not"), Mapping):
        _on_spine(errors, schema["not"], spine, at.child("not"), Path(at.text))
    if isinstance(schema.get("items"), Mapping):
        _complete(errors, schema["items"], schema["items"], at.child("items"))
    for name, part in _schemas(schema, "properties").items():
        _complete(errors, part, part, at.child("properties").key(name))
    if isinstance(schema.get("additionalProperties"), Mapping):
        _complete(
            errors, schema["additionalProperties"], schema["additionalProperties"], at.child("additionalProperties")
        )


def _on_spine(errors: ErrorList, schema: Raw, spine: Raw, at: Path, spine_at: Path) -> None:
    for name in ("allOf", "anyOf", "oneOf"):
        for position, part in enumerate(schema.get(name) or ()):
            _on_spine(errors, part, spine, at.child(name).index(position), spine_at)
    if isinstance(schema.get("not"), Mapping):
        _on_spine(errors, schema["not"], spine, at.child("not"), spine_at)
    if isinstance(schema.get("items"), Mapping):
        place = spine_at.child("items")
        if not isinstance(spine.get("items"), Mapping):
            errors.required(place, f"because it is defined in {at.child('items')}")
        else:
            _on_spine(errors, schema["items"], spine["items"], at.child("items"), place)
    known = _schemas(spine, "properties")
    for name, part in _schemas(schema, "properties").items():
        place, inner = spine_at.child("properties").key(name), at.child("properties").key(name)
        if name not in known:
            errors.required(place, f"because it is defined in {inner}")
        else:
            _on_spine(errors, part, known[name], inner, place)
