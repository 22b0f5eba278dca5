"""What strategic merge patch makes one object of another."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from pilothouse.kinds._gotext import value_text
from pilothouse.kinds._strategicmerge import DELETE_FROM, RETAIN_KEYS
from pilothouse.kinds._strategicorder import (
    DIRECTIVE,
    SET_ORDER,
    element_type,
    in_order,
    needed_key,
    ranks_of,
    scalar_key,
)
from pilothouse.kinds._strategicplan import FieldPlan, Plan
from pilothouse.kinds.mergepatch import equal
from pilothouse.kinds.patcherrors import Unmergeable

__all__ = ["DiffOptions", "diff_maps"]


@dataclass(frozen=True, slots=True)
class DiffOptions:
    """What a patch is to say: changes and additions, deletions; and of the map at hand, which keys stay."""

    changes: bool = True
    deletions: bool = True
    retain_keys: bool = False


def diff_maps(original: dict[str, Any], modified: dict[str, Any], plan: Plan, options: DiffOptions) -> dict[str, Any]:
    """Return the patch from one object to another; empty if there is nothing to change.

    Raises Invalid or Unmergeable: the objects contradict the type where they differ.
    """
    patch: dict[str, Any] = {}
    for key, new in modified.items():
        if key not in original:
            if options.changes:
                patch[key] = new
            continue
        old = original[key]
        kind = type(new)
        if key == DIRECTIVE and (type(old) is not str or kind is not str):
            raise Unmergeable(f"invalid value for special key: {DIRECTIVE}")
        if kind is dict and type(old) is dict:
            _diff_field(key, old, new, patch, plan, options)
        elif kind is list and type(old) is list:
            _diff_list(key, old, new, patch, plan, options)
        elif options.changes and not equal(old, new):
            patch[key] = new
    if options.deletions:
        patch.update((key, None) for key in original if key not in modified)
    if options.retain_keys:
        _say_retained(original, modified, patch)
    return patch


def _say_retained(original: dict[str, Any], modified: dict[str, Any], patch: dict[str, Any]) -> None:
    retained = sorted(key for key, value in modified.items() if value is not None)
    cleared = any(value is not None and key not in modified for key, value in original.items())
    if retained and (patch or cleared):
        patch[RETAIN_KEYS] = retained


def _diff_field(
    key: str, old: dict[str, Any], new: dict[str, Any], patch: dict[str, Any], plan: Plan, options: DiffOptions
) -> None:
    if equal(old, new):
        return
    field = plan.field(key)
    if field.strategy == "replace":
        if options.changes:
            patch[key] = new
        return
    changes = diff_maps(old, new, field.value, replace(options, retain_keys=field.retain_keys))
    if changes:
        patch[key] = changes


def _diff_list(
    key: str, old: list[Any], new: list[Any], patch: dict[str, Any], plan: Plan, options: DiffOptions
) -> None:
    if equal(old, new):
        return
    field = plan.list_field(key)
    if field.strategy != "merge":
        if options.changes:
            patch[key] = new
        return
    if not old:
        if options.changes:
            patch[key] = new
        return
    kind = element_type(old, new)
    if kind is dict:
        changes, order_matters = _diff_elements(old, new, field, replace(options, retain_keys=field.retain_keys))
        wanted = [{field.merge_key: element[field.merge_key]} for element in new]
    else:
        changes, removed = _diff_scalars(old, new, options)
        if removed:
            patch[f"{DELETE_FROM}/{key}"] = removed
        order_matters = options.changes or bool(removed)
        wanted = new
    if changes:
        patch[key] = changes
    if order_matters and wanted:
        patch[f"{SET_ORDER}/{key}"] = wanted


def _diff_elements(old: list[Any], new: list[Any], field: FieldPlan, options: DiffOptions) -> tuple[list[Any], bool]:
    """Return the list of the patch, deletions last, and whether the order is to be said."""
    key = field.merge_key
    # Elements with equal keys are compared in the order in which they stand.
    former: dict[Any, list[Any]] = {}
    for element in old:
        former.setdefault(value_text(needed_key(element, key)), []).append(element)
    changes: list[Any] = []
    for element in new:
        waiting = former.get(value_text(needed_key(element, key)))
        if waiting:
            changed = diff_maps(waiting.pop(0), element, field.element, options)
            if changed:
                changes.append({**changed, key: element[key]})
        elif options.changes:
            changes.append(element)
    same_order = [scalar_key(element[key]) for element in old] == [scalar_key(element[key]) for element in new]
    if options.deletions:
        changes.extend({key: element[key], DIRECTIVE: "delete"} for text in sorted(former) for element in former[text])
    order_matters = bool(changes) or (options.changes and not same_order)
    return in_order(changes, ranks_of(new, key, dict), key, dict), order_matters


def _diff_scalars(old: list[Any], new: list[Any], options: DiffOptions) -> tuple[list[Any], list[Any]]:
    """Return what is to be added, in the new order, and what is to be removed, sorted by its text."""
    former = {scalar_key(item): item for item in old}
    wanted = {scalar_key(item): item for item in new}
    added = [item for identity, item in wanted.items() if identity not in former] if options.changes else []
    removed = [item for identity, item in former.items() if identity not in wanted] if options.deletions else []
    return added, sorted(removed, key=value_text)
