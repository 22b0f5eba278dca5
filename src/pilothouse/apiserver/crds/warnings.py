"""What users are warned of though it is taken: finalizers without a domain, formats that nothing checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pilothouse.apiserver.crds.structural import STRING_FORMATS
from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import quote

__all__ = ["definition_warnings", "finalizer_warnings"]

_STANDARD = frozenset({"orphan", "foregroundDeletion", "kubernetes"})
_MAX_NODES = 100_000
_NESTED = ("items", "additionalProperties", "not")
_LISTS = ("allOf", "anyOf", "oneOf")


def finalizer_warnings(obj: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[str]:
    """Return warnings for the finalizers that a custom resource gets."""
    found = (obj.get("metadata") or {}).get("finalizers") or ()
    if not found:
        return []
    before = ((old or {}).get("metadata") or {}).get("finalizers") or ()
    warnings: list[str] = []
    for name in sorted(set(found) - set(before)):
        at = f"metadata.finalizers: {quote(name)}: "
        warnings += [at + message for message in names.label_key(name)]
        if "/" not in name and name not in _STANDARD:
            path = " including a path (/)" if "." in name else ""
            text = f"prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other finalizer"
            warnings.append(f"{at}{text} writers")
    return warnings


def definition_warnings(crd: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> list[str]:
    """Return warnings for formats in the schemas of a definition that are not checked; of an update, for new ones."""
    before = set(_unknown_formats(old)) if old is not None else set()
    return [f"unrecognized format {quote(each)}" for each in _unknown_formats(crd) if each not in before]


def _unknown_formats(crd: Mapping[str, Any]) -> Iterator[str]:
    seen = 0
    for version in (crd.get("spec") or {}).get("versions") or ():
        pending = [(version.get("schema") or {}).get("openAPIV3Schema")]
        while pending and seen < _MAX_NODES:
            schema = pending.pop()
            seen += 1
            if not isinstance(schema, Mapping):
                continue
            form = schema.get("format")
            if isinstance(form, str) and form and not _known(form, schema.get("type") or ""):
                yield form
            pending += [schema.get(name) for name in _NESTED]
            for name in _LISTS:
                pending += schema.get(name) or ()
            pending += (schema.get("properties") or {}).values()


def _known(form: str, kind: str) -> bool:
    match kind:
        case "" | "string":
            return form.replace("-", "") in STRING_FORMATS
        case "integer":
            return form in {"int32", "int64"}
        case "number":
            return form in {"float", "double"}
    return False
