"""Elements of lists that merge: what tells them apart, and how two orders of them become one."""

from __future__ import annotations

from typing import Any, Final

from pilothouse.kinds._gotext import type_name, value_text
from pilothouse.kinds.patcherrors import Invalid, Unmergeable

__all__ = [
    "DIRECTIVE",
    "SET_ORDER",
    "arrange",
    "check_order",
    "element_type",
    "in_order",
    "needed_key",
    "ranks_of",
    "scalar_key",
]

DIRECTIVE: Final = "$patch"
SET_ORDER: Final = "$setElementOrder"

_NOTHING: Final = object()


def arrange(content: list[Any], order: list[Any], former: list[Any], key: str, kind: type) -> list[Any]:
    """Put a merged list in order: first what the order says, then the former order, both kept as far as they agree."""
    by_order = ranks_of(order, key, kind)
    by_former = ranks_of(former, key, kind)
    named: list[Any] = []
    others: list[Any] = []
    for item in content:
        (named if _identity(item, key, kind) in by_order else others).append(item)
    named = in_order(named, by_order, key, kind)
    others = in_order(others, by_former, key, kind)
    if not others or not named:
        return named or others
    arranged: list[Any] = []
    following = iter(named)
    upcoming = next(following, _NOTHING)
    for item in others:
        rank = by_former.get(_identity(item, key, kind))
        while upcoming is not _NOTHING:
            other = by_former.get(_identity(upcoming, key, kind))
            if rank is not None and other is not None and rank < other:
                break
            arranged.append(upcoming)
            upcoming = next(following, _NOTHING)
        arranged.append(item)
    if upcoming is not _NOTHING:
        arranged.append(upcoming)
        arranged.extend(following)
    return arranged


def in_order(items: list[Any], ranks: dict[Any, int], key: str, kind: type) -> list[Any]:
    """Sort a list by ranks; those without one come last, and after these the deletions."""
    last = len(ranks) + len(items)

    def rank(item: Any) -> int:
        if kind is dict and item.get(DIRECTIVE) == "delete":
            return last + 1
        return ranks.get(_identity(item, key, kind), last)

    return sorted(items, key=rank)


def ranks_of(order: list[Any], key: str, kind: type) -> dict[Any, int]:
    ranks: dict[Any, int] = {}
    for place, item in enumerate(order):
        ranks.setdefault(_identity(item, key, kind), place)
    return ranks


def _identity(item: Any, key: str, kind: type) -> Any:
    return scalar_key(needed_key(item, key) if kind is dict else item)


def check_order(patch: list[Any], order: list[Any], key: str) -> None:
    """Refuse a patch whose elements are not in the order that it sets."""
    if not order or not patch:
        return
    kind = dict if key else str
    waiting = patch
    if key:
        for element in patch:
            _check_object(element)
        waiting = [element for element in patch if element.get(DIRECTIVE) != "delete"]
    place = 0
    for item in order:
        # Directives are passed over only as long as the order goes on, so one at the end is refused too.
        while place < len(waiting) and key and DIRECTIVE in waiting[place]:
            place += 1
        if place < len(waiting) and _identity(waiting[place], key, kind) == _identity(item, key, kind):
            place += 1
    if place < len(waiting):
        raise Unmergeable(
            f"The order in patch list:\n{value_text(patch)}\n doesn't match {SET_ORDER} list:\n{value_text(order)}\n"
        )


def _check_object(value: Any) -> None:
    if type(value) is not dict:
        raise Unmergeable(f"expected a map[string]interface {{}}, but received a {type_name(value)}")


def element_type(*lists: list[Any]) -> type:
    """Return the one type of all elements. Raises Invalid for lists, Unmergeable for several types or no element."""
    found: type | None = None
    for items in lists:
        for item in items:
            if found is None:
                found = type(item)
                if found is list:
                    raise Invalid("lists of lists are not supported")
            elif type(item) is not found:
                texts = " ".join(value_text(items) for items in lists)
                raise Unmergeable(f"list element types are not identical: [{texts}]")
    if found is None:
        raise Unmergeable("no elements in any of the given slices")
    return found


def needed_key(element: Any, key: str) -> Any:
    """Return the value of an element's merge key. Raises Unmergeable without one."""
    _check_object(element)
    if key not in element:
        raise Unmergeable(f"map: {value_text(element)} does not contain declared merge key: {key}")
    return element[key]


def scalar_key(value: Any) -> Any:
    """Return what tells scalars apart: 1, 1.0 and true are three. Raises Unmergeable for a list or an object."""
    kind = type(value)
    if kind is str:
        return value
    if kind is dict or kind is list:
        raise Unmergeable(f"expected a string, but received a {type_name(value)}")
    return kind, value
