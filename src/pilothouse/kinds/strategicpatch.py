"""Strategic merge patch: a merge patch that knows the type, merging lists by key and reading directives.

Kubernetes' own format. `$patch: delete|replace` in a map or a list's element, `$retainKeys`, `$setElementOrder/<field>`
and `$deleteFromPrimitiveList/<field>` are directives; `$patch: merge` is refused, as kube-apiserver does. How a field
merges stands in its schema (`patch_strategy`, `patch_merge_key`). Nothing given is changed, and what a patch leaves
alone is shared with the result. Directives other than `$patch` inside of a field that is new to the object end up there
as unknown fields, as with kube-apiserver.
"""

from __future__ import annotations

from typing import Any

from pilothouse.kinds._gotext import JSON_NAMES
from pilothouse.kinds._strategicdiff import DiffOptions, diff_maps
from pilothouse.kinds._strategicmerge import merge_map
from pilothouse.kinds._strategicplan import Plan, plan_of
from pilothouse.kinds.patcherrors import BadRequest, UnsupportedMediaType
from pilothouse.kinds.schema import Schema

__all__ = ["apply", "create_three_way", "create_two_way"]

_TOO_DEEP = "exceeded max depth"


def apply(target: dict[str, Any], patch: Any, schema: Schema | None) -> dict[str, Any]:
    """Return an object with a strategic merge patch applied.

    schema: of the object's type; None or an opaque one, as a custom resource has, is refused.
    Raises UnsupportedMediaType, BadRequest, Invalid or Unmergeable, with kube-apiserver's texts.
    """
    plan = _plan(schema)
    if patch is None:
        return target
    if type(patch) is not dict:
        raise BadRequest(
            f"json: cannot unmarshal {JSON_NAMES[type(patch)]} into Go value of type map[string]interface {{}}"
        )
    try:
        return merge_map(target, patch, plan)
    except RecursionError:
        raise BadRequest(_TOO_DEEP) from None


def create_two_way(original: dict[str, Any], modified: dict[str, Any], schema: Schema | None) -> dict[str, Any]:
    """Return the strategic merge patch that makes one object of another; empty if they are equal.

    Raises UnsupportedMediaType, Invalid or Unmergeable: the type cannot be patched so, or the objects contradict it.
    """
    try:
        return diff_maps(original, modified, _plan(schema), DiffOptions())
    except RecursionError:
        raise BadRequest(_TOO_DEEP) from None


def create_three_way(
    original: dict[str, Any], modified: dict[str, Any], current: dict[str, Any], schema: Schema | None
) -> dict[str, Any]:
    """Return the patch that `kubectl apply` sends: what the current object lacks, and what was taken away since.

    original: as last applied. modified: as wanted now. current: as the server has it; its own fields stay.
    Raises UnsupportedMediaType, Invalid or Unmergeable: the type cannot be patched so, or the objects contradict it.
    """
    plan = _plan(schema)
    try:
        wanted = diff_maps(current, modified, plan, DiffOptions(deletions=False))
        removed = diff_maps(original, modified, plan, DiffOptions(changes=False))
        return merge_map(removed, wanted, plan, folding=True)
    except RecursionError:
        raise BadRequest(_TOO_DEEP) from None


def _plan(schema: Schema | None) -> Plan:
    if schema is None or schema.shape != "object":
        raise UnsupportedMediaType
    return plan_of(schema)
