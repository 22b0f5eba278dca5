"""How a strategic merge patch changes an object, or how it is folded into another patch.

Applied to an object, directives act and nulls remove. Folded into a patch (`folding`), directives and nulls are kept,
since the result is a patch again. Containers are copied where they change and shared where not.
"""

from __future__ import annotations

from typing import Any, Final

from pilothouse.kinds._gotext import string_verb, type_name, value_text
from pilothouse.kinds._strategicorder import (
    DIRECTIVE,
    SET_ORDER,
    arrange,
    check_order,
    element_type,
    needed_key,
    scalar_key,
)
from pilothouse.kinds._strategicplan import FieldPlan, Plan
from pilothouse.kinds.mergepatch import equal
from pilothouse.kinds.patcherrors import BadRequest, Unmergeable

__all__ = ["DELETE_FROM", "RETAIN_KEYS", "merge_map"]

RETAIN_KEYS: Final = "$retainKeys"
DELETE_FROM: Final = "$deleteFromPrimitiveList"

_NOTHING: Final = object()


def merge_map(original: dict[str, Any], patch: dict[str, Any], plan: Plan, *, folding: bool = False) -> dict[str, Any]:
    """Return an object with a patch merged into it.

    Raises BadRequest, Invalid or Unmergeable as kube-apiserver does for what it refuses.
    """
    directive = patch.get(DIRECTIVE, _NOTHING)
    if directive is not _NOTHING:
        return _replace_or_delete(directive, patch)
    merged = dict(original)
    if RETAIN_KEYS in patch:
        patch = _retain_keys(merged, patch, folding)
    for key in patch:
        if key.startswith(SET_ORDER):
            patch = _set_orders(merged, patch, plan, folding)
            break
    for key, value in patch.items():
        _merge_field(merged, key, value, plan, folding)
    return merged


def _merge_field(merged: dict[str, Any], key: str, value: Any, plan: Plan, folding: bool) -> None:
    deleting = key.startswith(DELETE_FROM)
    if deleting:
        if folding:
            merged[key] = value
            return
        key = _listed_field(key, DELETE_FROM, "invalid patch format of primitive list")
    if value is None:
        if folding:
            merged[key] = None
        else:
            merged.pop(key, None)
        return
    present: Any = merged.get(key)
    kind = type(value)
    if type(present) is not kind or (kind is not dict and kind is not list):
        if deleting:
            return
        added = value if kind is not dict and kind is not list else _plain(value, folding)
        if added is _NOTHING:
            merged.pop(key, None)
        else:
            merged[key] = added
        return
    if kind is list:
        merged[key] = _merge_lists(present, value, plan.list_field(key), folding, deleting)
        return
    field = plan.field(key)
    if field.strategy == "replace":
        merged[key] = value if folding else _without_nulls(value)
    else:
        merged[key] = merge_map(present, value, field.value, folding=folding)


def _replace_or_delete(directive: Any, patch: dict[str, Any]) -> dict[str, Any]:
    if directive == "replace":
        return {key: _without_nulls(value) for key, value in patch.items() if key != DIRECTIVE and value is not None}
    if directive == "delete":
        return {}
    raise Unmergeable(f"unknown patch type: {string_verb(directive)} in map: {value_text(patch)}")


def _plain(value: Any, folding: bool) -> Any:
    """Return a value that is new to the object without what only a patch has; the nothing mark if nothing is left."""
    if type(value) is dict:
        if DIRECTIVE in value:
            return _NOTHING
        fields = ((key, _plain(item, folding)) for key, item in value.items() if item is not None or folding)
        return {key: item for key, item in fields if item is not _NOTHING}
    if type(value) is list:
        return [item for item in (_plain(item, folding) for item in value) if item is not _NOTHING]
    return value


def _without_nulls(value: Any) -> Any:
    """Leave null fields out, as decoding into a type does with what a patch replaces as it is."""
    if type(value) is dict:
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if type(value) is list:
        return [_without_nulls(item) for item in value]
    return value


def _new_element(element: dict[str, Any], key: str) -> dict[str, Any]:
    """Leave null fields out of an element, save its merge key, by which it is still to be put in order."""
    cleaned: dict[str, Any] = _without_nulls(element)
    if key in element and element[key] is None:
        cleaned[key] = None
    return cleaned


def _retain_keys(merged: dict[str, Any], patch: dict[str, Any], folding: bool) -> dict[str, Any]:
    """Drop the fields that the directive does not name; return the patch without it."""
    retained = patch[RETAIN_KEYS]
    rest = {key: value for key, value in patch.items() if key != RETAIN_KEYS}
    if folding:
        if RETAIN_KEYS in merged and not equal(merged[RETAIN_KEYS], retained):
            raise Unmergeable(
                f"{value_text(merged[RETAIN_KEYS])} and {value_text(retained)} are not deep equal: "
                "this may happen when calculating the 3-way diff patch"
            )
        merged[RETAIN_KEYS] = retained
        return rest
    if type(retained) is not list:
        raise BadRequest("invalid patch format of retainKeys")
    names = {name for name in retained if type(name) is str}
    for key, value in rest.items():
        if value is not None and key not in names and not key.startswith((DELETE_FROM, SET_ORDER)):
            raise BadRequest("invalid patch format of retainKeys")
    for key in [key for key in merged if key not in names]:
        del merged[key]
    return rest


def _set_orders(merged: dict[str, Any], patch: dict[str, Any], plan: Plan, folding: bool) -> dict[str, Any]:
    """Merge the lists whose order the patch sets; return the patch without them."""
    rest = dict(patch)
    for directive, order in patch.items():
        if not directive.startswith(SET_ORDER):
            continue
        del rest[directive]
        if folding:
            if directive in merged and not equal(merged[directive], order):
                raise BadRequest(_BAD_ORDER)
            merged[directive] = order
        if type(order) is not list:
            raise Unmergeable(f"expected a []interface {{}}, but received a {type_name(order)}")
        key = _listed_field(directive, SET_ORDER, _BAD_ORDER)
        present = _list_or_nothing(merged, key)
        added = _list_or_nothing(rest, key)
        rest.pop(key, None)
        field = plan.list_field(key)
        check_order(added or [], order, field.merge_key)
        if present is not None or added is not None:
            merged[key] = _ordered_list(present, added, order, field, folding)
    return rest


_BAD_ORDER: Final = "invalid patch format of setElementOrder list"


def _ordered_list(
    present: list[Any] | None, added: list[Any] | None, order: list[Any], field: FieldPlan, folding: bool
) -> list[Any]:
    if added is None:
        content = present or []
        if not content:
            return content
    elif present is None:
        content = _plain(added, folding)
    else:
        content = _merge_lists(present, added, field, folding, False)
    kind = element_type(present or [], added or [])
    former = present or []
    if present and added and kind is dict and field.strategy == "merge":
        former = _former_order(present, added, field.merge_key)
    return arrange(content, order, former, field.merge_key, kind)


def _former_order(present: list[Any], added: list[Any], key: str) -> list[Any]:
    """Return the order in which the server's own elements count as before or after others.

    In kube-apiserver the places that deletions free at the end are taken by new elements, which then count as the last.
    """
    gone = {scalar_key(element[key]) for element in added if element.get(DIRECTIVE) == "delete"}
    kept = [element for element in present if scalar_key(needed_key(element, key)) not in gone]
    freed = len(present) - len(kept)
    if not freed or any(element.get(DIRECTIVE) == "replace" for element in added):
        return kept
    known = {scalar_key(element[key]) for element in kept}
    new = [element for element in added if DIRECTIVE not in element and scalar_key(element[key]) not in known]
    return kept + new[:freed]


def _merge_lists(original: list[Any], patch: list[Any], field: FieldPlan, folding: bool, deleting: bool) -> list[Any]:
    if field.strategy != "merge" and not deleting:
        return patch if folding else [_without_nulls(item) for item in patch]
    if not original and not patch:
        return original
    kind = element_type(original, patch)
    key = field.merge_key
    if kind is not dict:
        if deleting:
            gone = {scalar_key(item) for item in patch}
            return [item for item in original if scalar_key(item) not in gone]
        unique = {scalar_key(item): item for item in original}
        for item in patch:
            unique.setdefault(scalar_key(item), item)
        return arrange(list(unique.values()), patch, original, key, kind)
    if not key:
        raise Unmergeable(f"cannot merge lists without merge key for {field.element.kind}")
    original, patch = _act_on_elements(original, patch, key)
    merged = _merge_elements(original, patch, field, folding)
    return arrange(merged, patch, original, key, kind)


def _act_on_elements(original: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any]]:
    """Carry out the directives among a patch's elements; return both lists without what these took away."""
    if not any(DIRECTIVE in element for element in patch):
        return original, patch
    rest = []
    gone = set()
    replacing = False
    for element in patch:
        directive = element.get(DIRECTIVE, _NOTHING)
        if directive is _NOTHING:
            rest.append(element)
        elif directive == "delete":
            gone.add(scalar_key(needed_key(element, key)))
        elif directive == "replace":
            replacing = True
        elif directive == "merge":
            raise Unmergeable("merging lists cannot yet be specified in the patch")
        else:
            raise Unmergeable(f"unknown patch type: {string_verb(directive)} in map: {value_text(element)}")
    if replacing:
        return [_new_element(element, key) for element in rest], []
    return [element for element in original if key not in element or scalar_key(element[key]) not in gone], rest


def _merge_elements(original: list[Any], patch: list[Any], field: FieldPlan, folding: bool) -> list[Any]:
    key = field.merge_key
    plan = field.element
    merged = list(original)
    places: dict[Any, int] = {}
    for place, element in enumerate(original):
        if key in element:
            places.setdefault(scalar_key(element[key]), place)
    for element in patch:
        identity = scalar_key(needed_key(element, key))
        found = places.get(identity)
        if found is None:
            places[identity] = len(merged)
            merged.append(element if folding else _new_element(element, key))
        else:
            merged[found] = merge_map(merged[found], element, plan, folding=folding)
    return merged


def _list_or_nothing(fields: dict[str, Any], key: str) -> list[Any] | None:
    if key not in fields:
        return None
    value = fields[key]
    if type(value) is not list:
        raise Unmergeable(f"expected a []interface {{}}, but received a {type_name(value)}")
    return value


def _listed_field(directive: str, prefix: str, otherwise: str) -> str:
    """Return the field that `$directive/field` is about."""
    start, _, field = directive.partition("/")
    if start != prefix or len(start) == len(directive):
        raise BadRequest(otherwise)
    return field
