"""Validation of CustomResourceDefinitions: names, versions, and that schemas are structural."""

from __future__ import annotations

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items

__all__ = ["definition", "definition_update"]

_SCOPES = ("Cluster", "Namespaced")
_ROOT = "must not be empty at the root"
_FIELD = "must not be empty for specified object fields"
_ITEM = "must not be empty for specified array items"
_QUADRATIC = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"


def definition(errors: ErrorList, obj: Object) -> None:
    """Check a CustomResourceDefinition, the rules of metadata apart."""
    spec: Object = obj.get("spec") or {}
    kinds: Object = spec.get("names") or {}
    name = (obj.get("metadata") or {}).get("name") or ""
    group = spec.get("group") or ""
    if name and name != f"{kinds.get('plural') or ''}.{group}":
        errors.invalid(Path("metadata.name"), name, 'must be spec.names.plural+"."+spec.group')
    if not group:
        errors.required(SPEC.child("group"))
    elif messages := names.dns1123_subdomain(group):
        errors.invalid(SPEC.child("group"), group, ",".join(messages))
    elif "." not in group:
        errors.invalid(SPEC.child("group"), group, "should be a domain with at least one dot")
    checks.one_of(errors, SPEC, spec, "scope", _SCOPES)
    _versions(errors, spec)
    _names(errors, SPEC.child("names"), kinds)


def _names(errors: ErrorList, at: Path, kinds: Object) -> None:
    for field in ("plural", "singular", "kind", "listKind"):
        value = kinds.get(field) or ""
        if not value:
            errors.required(at.child(field))
        elif field in {"kind", "listKind"}:
            if messages := names.dns1035_label(value.lower()):
                text = f"may have mixed case, but should otherwise match: {','.join(messages)}"
                errors.invalid(at.child(field), value, text)
        elif messages := names.dns1035_label(value):
            errors.invalid(at.child(field), value, ",".join(messages))
    for field in ("shortNames", "categories"):
        for position, value in enumerate(items(kinds, field)):
            if messages := names.dns1035_label(value):
                errors.invalid(at.child(field).index(position), value, ",".join(messages))
    if kinds.get("kind") and kinds.get("kind") == kinds.get("listKind"):
        errors.invalid(at.child("listKind"), kinds["listKind"], "kind and listKind may not be the same")


def _versions(errors: ErrorList, spec: Object) -> None:
    at, versions = SPEC.child("versions"), items(spec, "versions")
    known = [version.get("name") for version in versions]
    if len(set(known)) != len(known):
        errors.invalid(at, list(versions), "must contain unique version names")
    if sum(bool(version.get("storage")) for version in versions) != 1:
        errors.invalid(at, list(versions), "must have exactly one version marked as storage version")
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") for version in versions]
    # Schemas that all versions share are kept, and reported, at the top.
    shared = bool(schemas) and schemas[0] is not None and all(schema == schemas[0] for schema in schemas)
    for position, version in enumerate(versions):
        place = at.index(position)
        if messages := names.dns1035_label(version.get("name") or ""):
            errors.invalid(place.child("name"), version.get("name") or "", ",".join(messages))
        schema = schemas[position]
        if schema is None:
            errors.required(place.child("schema", "openAPIV3Schema"))
        elif not shared:
            _root(errors, place.child("schema", "openAPIV3Schema"), schema)
    if shared and schemas[0] is not None:
        _root(errors, SPEC.child("validation", "openAPIV3Schema"), schemas[0])


def _root(errors: ErrorList, at: Path, schema: Object) -> None:
    kind = schema.get("type")
    if kind and kind != "object":
        errors.invalid(at.child("type"), kind, "must be object at the root")
    _structural(errors, at, schema, _ROOT)


def _structural(errors: ErrorList, at: Path, schema: Object, missing: str) -> None:
    """Check that a schema says a type wherever it names a field, item or value; nesting is bounded by decoding."""
    untyped = schema.get("x-kubernetes-int-or-string") or schema.get("x-kubernetes-preserve-unknown-fields")
    kind = schema.get("type")
    if not kind and not (untyped and missing is not _ROOT):
        errors.required(at.child("type"), missing)
    if schema.get("uniqueItems"):
        errors.forbidden(at.child("uniqueItems"), _QUADRATIC)
    if schema.get("$ref"):
        errors.forbidden(at.child("$ref"), "$ref is not supported")
    if kind == "array" and schema.get("items") is None:
        errors.required(at.child("items"), "must be specified")
    properties, others = schema.get("properties"), schema.get("additionalProperties")
    if properties and others is not None:
        errors.forbidden(at.child("additionalProperties"), "additionalProperties and properties are mutual exclusive")
    for name, inner in (properties or {}).items():
        _structural(errors, at.child("properties").key(name), inner or {}, _FIELD)
    if isinstance(others, dict):
        _structural(errors, at.child("additionalProperties"), others, _FIELD)
    if isinstance(schema.get("items"), dict):
        _structural(errors, at.child("items"), schema["items"], _ITEM)


def definition_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a definition that replaces another: what an established one serves keeps its name and scope."""
    definition(errors, new)
    spec: Object = new.get("spec") or {}
    before: Object = old.get("spec") or {}
    conditions = items(old.get("status") or {}, "conditions")
    if any(each.get("type") == "Established" and each.get("status") == "True" for each in conditions):
        checks.immutable(errors, SPEC.child("scope"), spec.get("scope"), before.get("scope"))
        kinds, previous = ((part.get("names") or {}).get("kind") for part in (spec, before))
        checks.immutable(errors, SPEC.child("names", "kind"), kinds, previous)
    checks.immutable(errors, SPEC.child("group"), spec.get("group"), before.get("group"))
    plural, previous = ((part.get("names") or {}).get("plural") for part in (spec, before))
    checks.immutable(errors, SPEC.child("names", "plural"), plural, previous)
