"""Functions on lists and sets: those of Kubernetes, cel-go's lists in version 3, and its sets."""

from __future__ import annotations

import itertools
from typing import Any

from pilothouse.apiserver.cel.declarations import Functions
from pilothouse.apiserver.cel.errors import CelError, CostExceededError
from pilothouse.apiserver.cel.sizes import list_cost, search_cost, weight
from pilothouse.apiserver.cel.standard import contains
from pilothouse.apiserver.cel.values import INT_MAX, INT_MIN, UINT_MAX, Duration, Timestamp, Uint, equal, type_name

__all__ = ["LISTS", "sorted_by"]

LISTS = Functions()
_COMPARABLE = ("int", "uint", "double", "bool", "duration", "timestamp", "string", "bytes")
_SUMMABLE = {"int": 0, "uint": Uint(0), "double": 0.0, "duration": Duration(0)}
_MAX_RANGE = 100_000


def _is_sorted(found: list[Any]) -> bool:
    return all(not later < earlier for earlier, later in itertools.pairwise(found))


def _total(zero: Any) -> Any:
    def run(found: list[Any]) -> Any:
        if isinstance(zero, Duration):
            return Duration(sum(each.ns for each in found))
        total = sum(found, start=zero)
        if isinstance(zero, Uint):
            if total > UINT_MAX:
                raise CelError("unsigned integer overflow")
            return Uint(total)
        if isinstance(zero, int) and not INT_MIN <= total <= INT_MAX:
            raise CelError("integer overflow")
        return total

    return run


def _least(found: list[Any]) -> Any:
    if not found:
        raise CelError("min called on empty list")
    return min(found)


def _greatest(found: list[Any]) -> Any:
    if not found:
        raise CelError("max called on empty list")
    return max(found)


def _index_of(found: list[Any], value: Any) -> int:
    return next((at for at, each in enumerate(found) if equal(each, value)), -1)


def _last_index_of(found: list[Any], value: Any) -> int:
    return next((at for at in range(len(found) - 1, -1, -1) if equal(found[at], value)), -1)


def _slice(found: list[Any], start: int, end: int) -> list[Any]:
    if start < 0 or end < 0:
        raise CelError(f"cannot slice({start}, {end}), negative indexes not supported")
    if start > end:
        raise CelError(f"cannot slice({start}, {end}), start index must be less than or equal to end index")
    if end > len(found):
        raise CelError(f"cannot slice({start}, {end}), list is length {len(found)}")
    return list(found[start:end])


def _flatten(found: list[Any], levels: int = 1) -> list[Any]:
    if levels < 0:
        raise CelError("level must be non-negative")
    made: list[Any] = []
    for each in found:
        if isinstance(each, (list, tuple)):
            made.extend(_flatten(list(each), levels - 1) if levels > 1 else each)
        else:
            made.append(each)
    return list(found) if levels == 0 else made


def _distinct(found: list[Any]) -> list[Any]:
    made: list[Any] = []
    seen: set[tuple[str, Any]] = set()
    for each in found:
        if isinstance(each, (list, dict)):
            if not contains(each, made):
                made.append(each)
            continue
        key = ("number" if isinstance(each, (int, float)) and not isinstance(each, bool) else type_name(each), each)
        if key not in seen:
            seen.add(key)
            made.append(each)
    return made


def _distinct_cost(found: list[Any]) -> int:
    nested = [each for each in found if isinstance(each, (list, dict))]
    return len(found) + len(nested) * (len(nested) + weight(nested) // 3)


def _sortable(keys: list[Any]) -> None:
    kinds = {type(key) for key in keys}
    if kinds - {int, Uint, float, bool, str, bytes, Timestamp, Duration}:
        raise CelError("list elements must be comparable")
    if len(kinds) > 1:
        raise CelError("list elements must have the same type")


def _sort(found: list[Any]) -> list[Any]:
    _sortable(found)
    return sorted(found)


def sorted_by(found: list[Any], keys: list[Any]) -> list[Any]:
    """Return a list in the order of keys, one for each element. Raises CelError for keys without an order."""
    _sortable(keys)
    return [found[at] for at in sorted(range(len(found)), key=keys.__getitem__)]


def _range(count: int) -> list[int]:
    if count > _MAX_RANGE:
        raise CostExceededError
    return list(range(count))


def _all_in(these: list[Any], found: list[Any]) -> bool:
    return all(contains(each, found) for each in these)


def _search_cost(found: list[Any], value: Any) -> int:
    return list_cost(found) + search_cost(value, found) - len(found)


for _kind in _COMPARABLE:
    LISTS.add("isSorted", _is_sorted, f"list({_kind}) @ -> bool", cost=list_cost)
    LISTS.add("min", _least, f"list({_kind}) @ -> {_kind}", cost=list_cost)
    LISTS.add("max", _greatest, f"list({_kind}) @ -> {_kind}", cost=list_cost)
    LISTS.add("sort", _sort, f"list({_kind}) @ -> list({_kind})", cost=lambda found: 1 + 2 * list_cost(found))
for _kind, _zero in _SUMMABLE.items():
    LISTS.add("sum", _total(_zero), f"list({_kind}) @ -> {_kind}", cost=list_cost)
LISTS.add("indexOf", _index_of, "list(A) @ A -> int", cost=_search_cost)
LISTS.add("lastIndexOf", _last_index_of, "list(A) @ A -> int", cost=_search_cost)
LISTS.add("includes", lambda found, value: contains(value, found), "list(A) @ A -> bool", cost=_search_cost)
LISTS.add("slice", _slice, "list(A) @ int, int -> list(A)", cost=lambda found, *_: len(found))
LISTS.add("flatten", _flatten, "list(list(A)) @ -> list(A)", cost=lambda found: sum(_wide(each) for each in found))
LISTS.add("flatten", _flatten, "list(dyn) @ int -> list(dyn)", cost=lambda found, *_: _deep(found))
LISTS.add("distinct", _distinct, "list(A) @ -> list(A)", cost=_distinct_cost)
LISTS.add("reverse", lambda found: list(reversed(found)), "list(A) @ -> list(A)", cost=len)
LISTS.add("lists.range", _range, "int -> list(int)", cost=lambda count: min(max(count, 1), _MAX_RANGE))


def _wide(value: Any) -> int:
    return len(value) if isinstance(value, (list, tuple)) else 1


def _deep(value: Any) -> int:
    return 1 + sum(map(_deep, value)) if isinstance(value, (list, tuple)) else 1


def _pairs_cost(left: list[Any], right: list[Any]) -> int:
    if any(isinstance(each, (list, dict)) for each in left):
        return 1 + len(left) * len(right) + weight(left) * len(right) // 3
    return 1 + len(left) * len(right)


LISTS.add("sets.contains", lambda a, b: _all_in(b, a), "list(A), list(A) -> bool", cost=_pairs_cost)
LISTS.add(
    "sets.equivalent",
    lambda a, b: _all_in(b, a) and _all_in(a, b),
    "list(A), list(A) -> bool",
    cost=lambda a, b: 2 * _pairs_cost(a, b),
)
LISTS.add(
    "sets.intersects", lambda a, b: any(contains(each, b) for each in a), "list(A), list(A) -> bool", cost=_pairs_cost
)
