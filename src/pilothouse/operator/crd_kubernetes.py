"""Kubernetes' own types as schemas of definitions, from the table of its types."""

from __future__ import annotations

from typing import Any, Final

from pilothouse.kinds.schema import Schema
from pilothouse.kinds.structs import Struct
from pilothouse.kinds.table import schema_named, type_names
from pilothouse.operator.crd_errors import DefinitionError

__all__ = ["INT_OR_STRING", "QUANTITY", "kubernetes_name", "kubernetes_schema"]

_PLACE: Final = "pilothouse.kinds.structs."
_META: Final = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_ROOTS: Final = {
    "meta": "io.k8s.apimachinery.pkg.apis.meta.v1",
    "apiextensions": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
    "apiregistration": "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1",
    "autoscaling": "io.k8s.api.autoscaling.v2",
    "autoscaling_v1": "io.k8s.api.autoscaling.v1",
}
_SHARED: Final = "io.k8s.api.core.v1", _ROOTS["meta"]
"""Where types are that modules have of other groups."""
_NUMBER: Final = r"([0-9]+(\.[0-9]*)?)|(\.[0-9]+)"

INT_OR_STRING: Final[dict[str, Any]] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
}
QUANTITY: Final[dict[str, Any]] = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "pattern": rf"^(\+|-)?({_NUMBER})(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?({_NUMBER})))?$",
    "x-kubernetes-int-or-string": True,
}
_WITH_FORMS: Final[dict[str, dict[str, Any]]] = {"int-or-string": INT_OR_STRING, "quantity": QUANTITY}
_FORMATS: Final = {"micro-time": "date-time"}


def kubernetes_name(kind: type) -> str:
    """Return the full name of Kubernetes' own type that a struct is, empty for classes of others."""
    if not issubclass(kind, Struct) or not kind.__module__.startswith(_PLACE):
        return ""
    module = kind.__module__.removeprefix(_PLACE)
    own = _ROOTS.get(module) or f"io.k8s.api.{module.partition('_')[0]}.v1"
    for root in (own, *_SHARED):
        if (name := f"{root}.{kind.__name__}") in type_names():
            return name
    return ""


def kubernetes_schema(name: str) -> dict[str, Any]:
    """Return the schema of a type by its full name, whole objects as embedded ones.

    Raises DefinitionError without a place for a type that holds itself, which no structural schema can say.
    """
    schema = schema_named(name)
    whole = schema.fields.keys() >= {"apiVersion", "kind", "metadata"}
    made = _converted(schema, (), without="metadata" if whole else "")
    if whole:
        made["x-kubernetes-embedded-resource"] = True
        made["properties"]["metadata"] = {"type": "object"}
    return made


def _converted(schema: Schema, above: tuple[str, ...], *, without: str = "") -> dict[str, Any]:
    if schema.name and schema.name in above:
        raise DefinitionError(
            f"{_short(above[0])} of Kubernetes holds itself, through {_short(schema.name)}, and a schema cannot;"
            " take a Mapping[str, Any], which servers keep as it is"
        )
    below = (*above, schema.name) if schema.name else above
    if schema.format in _WITH_FORMS:
        return dict(_WITH_FORMS[schema.format])
    if schema.shape == "any":
        return {"x-kubernetes-preserve-unknown-fields": True}
    if schema.shape == "object":
        return _object(schema, below, without=without)
    if schema.shape == "map":
        return _atomic({"type": "object", "additionalProperties": _element(schema, below)}, schema)
    if schema.shape == "list":
        return _list(schema, below)
    made: dict[str, Any] = {"type": schema.shape}
    if schema.format:
        made["format"] = _FORMATS.get(schema.format, schema.format)
    return made


def _object(schema: Schema, above: tuple[str, ...], *, without: str) -> dict[str, Any]:
    fields = {name: part for name, part in schema.fields.items() if name != without}
    if not fields:
        return _atomic({"type": "object", "x-kubernetes-preserve-unknown-fields": True}, schema)
    made: dict[str, Any] = {"type": "object"}
    if schema.required:
        made["required"] = sorted(schema.required)
    made["properties"] = {name: _converted(fields[name], above) for name in sorted(fields)}
    if schema.name == _META:
        # Go programs write it as null.
        made["properties"]["creationTimestamp"]["nullable"] = True
    return _atomic(made, schema)


def _list(schema: Schema, above: tuple[str, ...]) -> dict[str, Any]:
    items = _element(schema, above)
    made: dict[str, Any] = {"type": "array", "items": items}
    if schema.list_type == "map" and schema.element is not None:
        missing = [name for name in schema.list_keys if name not in schema.element.required]
        for name in missing:
            # A key wants a default or to be required; Go's zero value is what an absent one reads as.
            part, known = items["properties"][name], schema.element.fields[name]
            part["default"] = known.default if known.has_default else ""
        made["x-kubernetes-list-map-keys"] = list(schema.list_keys)
    if schema.list_type != "atomic":
        made["x-kubernetes-list-type"] = schema.list_type
    return made


def _element(schema: Schema, above: tuple[str, ...]) -> dict[str, Any]:
    if schema.element is None:
        return {"x-kubernetes-preserve-unknown-fields": True}
    return _converted(schema.element, above)


def _atomic(made: dict[str, Any], schema: Schema) -> dict[str, Any]:
    return made | ({"x-kubernetes-map-type": "atomic"} if schema.map_type == "atomic" else {})


def _short(name: str) -> str:
    return name.rpartition(".")[2]
