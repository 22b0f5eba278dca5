"""JSON merge patch: an object of what changes, where null removes.

RFC 7386, with kube-apiserver's reading of two things: the patch is an object, and nulls inside the objects of a list
that the patch sets are left out too, unless the list takes the place of an object. Nothing given is changed; what the
patch leaves alone is shared with the result.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pilothouse.kinds._gotext import JSON_NAMES
from pilothouse.kinds.patcherrors import BadRequest

__all__ = ["apply", "diff", "equal", "merge", "same"]

_encode = msgspec.json.Encoder().encode


def apply(target: dict[str, Any], patch: Any) -> dict[str, Any]:
    """Return an object with a merge patch applied, as kube-apiserver does.

    Raises BadRequest: the patch is not an object, or is nested too deeply.
    """
    if type(patch) is not dict:
        if patch is None:
            raise BadRequest("Invalid JSON Patch")
        raise BadRequest(
            f"error decoding patch: json: cannot unmarshal {JSON_NAMES[type(patch)]} into Go value of type "
            "map[string]interface {}"
        )
    try:
        return _merge_objects(target, patch)
    except RecursionError:
        raise BadRequest("error decoding patch: exceeded max depth") from None


def merge(target: Any, patch: Any) -> Any:
    """Return any JSON value with a merge patch of any form applied (RFC 7386, section 2)."""
    if type(patch) is not dict:
        return _without_nulls(patch)
    return _merge_objects(target if type(target) is dict else {}, patch)


def diff(original: dict[str, Any], modified: dict[str, Any]) -> dict[str, Any]:
    """Return the merge patch that makes one object of another.

    A null field of the modified object cannot be told from a removed one; neither can one in a list's objects.
    """
    patch: dict[str, Any] = {}
    for key, new in modified.items():
        if key not in original:
            if new is not None:
                patch[key] = new
            continue
        old = original[key]
        if type(old) is dict and type(new) is dict:
            changes = diff(old, new)
            if changes:
                patch[key] = changes
        elif not equal(old, new):
            patch[key] = new
    for key in original:
        if key not in modified:
            patch[key] = None
    return patch


def equal(left: Any, right: Any) -> bool:
    """Tell whether two JSON values are the same; unlike `==`, 1, 1.0 and true differ."""
    if left is right:
        return True
    kind = type(left)
    if kind is not type(right):
        return False
    if kind is dict:
        return len(left) == len(right) and all(key in right and equal(left[key], right[key]) for key in left)
    if kind is list:
        return len(left) == len(right) and all(map(equal, left, right))
    return bool(left == right)


def same(left: Any, right: Any) -> bool:
    """Tell the same as `equal`, fast where the fields stand in the same order or the values differ."""
    if left is right:
        return True
    return bool(left == right) and (_encode(left) == _encode(right) or equal(left, right))


def _merge_objects(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    merged = dict(target)
    for key, value in patch.items():
        kind = type(value)
        if value is None:
            merged.pop(key, None)
        elif kind is dict:
            present = merged.get(key)
            merged[key] = _merge_objects(present, value) if type(present) is dict else _without_nulls(value)
        elif kind is list:
            merged[key] = value if type(merged.get(key)) is dict else _without_nulls(value)
        else:
            merged[key] = value
    return merged


def _without_nulls(value: Any) -> Any:
    """Leave null fields out of all objects in a value; null items of lists stay."""
    if type(value) is dict:
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if type(value) is list:
        return [_without_nulls(item) for item in value]
    return value
