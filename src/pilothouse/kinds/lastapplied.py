"""The annotation of client-side apply: what it lets kubectl take over, and how server-side apply renews it.

Specification: `kubectl.kubernetes.io/last-applied-configuration`, as kube-apiserver treats it for the field manager
`kubectl`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pilothouse.kinds.fieldset import FieldSet, difference
from pilothouse.kinds.typed import Comparison, TypedError, TypeNode, check_typed

__all__ = ["ANNOTATION", "fields_of", "renew"]

ANNOTATION = "kubectl.kubernetes.io/last-applied-configuration"

_MAX_ANNOTATIONS = 256 * 1024
"""Bytes that all annotations of an object may have together, keys included."""

_ESCAPES = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def fields_of(node: TypeNode, live: Mapping[str, Any], api_version: str) -> FieldSet | None:
    """Return the fields that client-side apply put there and that still have its values.

    None when there is no annotation, or none that can be used with this version.
    """
    text = (live.get("metadata", {}).get("annotations") or {}).get(ANNOTATION)
    if not text:
        return None
    try:
        last = msgspec.json.decode(text, type=dict[str, Any])
        check_typed(node, last)
    except (msgspec.DecodeError, TypedError):
        return None
    if last.get("apiVersion") != api_version:
        return None
    found = Comparison()
    if last != live:
        node.diff(last, live, (), found)
    fields = node.owned(last) or {}
    return difference(difference(difference(fields, found.modified), found.added), found.removed)


def renew(obj: dict[str, Any], applied: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object with the applied configuration in its annotation, where it has one that is not empty.

    An annotation that would be too large is dropped.
    """
    metadata = obj.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    if not annotations.get(ANNOTATION):
        return obj
    own = dict(applied)
    if given := (applied.get("metadata") or {}).get("annotations"):
        rest = {name: value for name, value in given.items() if name != ANNOTATION}
        own["metadata"] = {**applied["metadata"], "annotations": rest}
        if not rest:
            del own["metadata"]["annotations"]
    text = msgspec.json.encode(own, order="sorted").decode().translate(_ESCAPES) + "\n"
    renewed = {**annotations, ANNOTATION: text}
    if sum(len(k.encode()) + len(v.encode()) for k, v in renewed.items()) > _MAX_ANNOTATIONS:
        del renewed[ANNOTATION]
    return {**obj, "metadata": {**metadata, "annotations": renewed}}
