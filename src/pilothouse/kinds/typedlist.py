"""List-maps and sets: lists whose items are known by key fields or by value, and merge one by one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pilothouse.kinds.fieldset import (
    LEAF,
    FieldSet,
    Path,
    element_order,
    insert,
    is_member,
    key_element,
    path_text,
    value_element,
)
from pilothouse.kinds.typednode import EMPTIED, Comparison, TypedError, TypeNode, fault, with_self

__all__ = ["AssociativeList"]


class AssociativeList(TypeNode):
    """A list whose items are known by key fields (list-map) or by value (set)."""

    __slots__ = ("_defaults", "_element", "_keys")
    leaf = False

    def __init__(self, element: TypeNode, keys: Iterable[str], defaults: Mapping[str, Any]) -> None:
        self._element = element
        self._keys = tuple(sorted(keys))
        self._defaults = defaults

    def item_element(self, item: Any) -> str:
        """Return the path element of an item; raise TypedError where it has none."""
        if not self._keys:
            if isinstance(item, list):
                raise TypedError(["not supported: associative list with lists as elements"])
            if item is None or isinstance(item, dict):
                kind = "an explicit null" if item is None else "a map type"
                raise TypedError([f"associative list without keys has an element that's {kind}"])
            return value_element(item)
        if not isinstance(item, dict):
            what = "a null element" if item is None else "non-map elements"
            raise TypedError([f"associative list with keys may not have {what}"])
        pairs = [
            (n, item[n] if n in item else self._defaults[n]) for n in self._keys if n in item or n in self._defaults
        ]
        if not pairs:
            names = " ".join(f'"{name}"' for name in self._keys)
            problem = f"associative list with keys has an element that omits all key fields [{names}]"
            raise TypedError([f"{problem} (and doesn't have default values for any key fields)"])
        try:
            return key_element(pairs)
        except TypeError:
            # Not scalars, which the element's own check refuses by this path.
            return "k:" + msgspec.json.encode(dict(pairs)).decode()

    def _group(self, items: Any) -> dict[str, list[Any]]:
        groups: dict[str, list[Any]] = {}
        for item in items if isinstance(items, list) else ():
            groups.setdefault(self.item_element(item), []).append(item)
        return groups

    def _in_order(self, groups: dict[str, list[Any]]) -> Iterable[str]:
        return sorted(groups, key=element_order) if len(groups) > 1 else groups

    def every(self, value: Any) -> FieldSet:
        if not value or not isinstance(value, list):
            return LEAF
        groups = self._group(value)
        out: FieldSet = {".": LEAF}
        for element in self._in_order(groups):
            items = groups[element]
            out[element] = self._element.every(items[0]) if len(items) == 1 else LEAF
        return out

    def shape(self, value: Any) -> Any:
        if not value or not isinstance(value, list):
            return None if value is None else ()
        element, key = self._element, self.item_element
        return tuple([(key(item), element.shape(item)) for item in value])

    def owned(self, value: Any) -> FieldSet | None:
        if not isinstance(value, list):
            return LEAF
        if not value:
            return None
        groups = self._group(value)
        out: FieldSet = {}
        for element in self._in_order(groups):
            items = groups[element]
            single = self._element.owned(items[0]) if len(items) == 1 and not self._element.leaf else None
            out[element] = with_self(single)
        return out

    def diff(self, old: Any, new: Any, path: Path, found: Comparison) -> None:
        if not old and not new:
            insert(found.modified, path)
            return
        before, after = self._group(old), self._group(new)
        for element in {**before, **after}:
            mine, theirs = before.get(element, ()), after.get(element, ())
            if mine != theirs:
                self._diff_items(mine, theirs, (*path, element), found)

    def _diff_items(self, mine: Any, theirs: Any, path: Path, found: Comparison) -> None:
        # Items that share a key are one thing: they change together and are owned together.
        many_before, many_after = len(mine) > 1, len(theirs) > 1
        if many_before and many_after:
            insert(found.modified, path)
        elif len(mine) == len(theirs) == 1:
            self._element.diff(mine[0], theirs[0], path, found)
        else:
            if theirs:
                insert(found.added, path, LEAF if many_after else self._element.every(theirs[0]))
            if mine:
                insert(found.removed, path, LEAF if many_before else self._element.every(mine[0]))

    def merge(self, live: Any, applied: Any) -> Any:
        if not live or not applied:
            return live or applied
        theirs: dict[str, Any] = {}
        for item in applied:
            element = self.item_element(item)
            if element in theirs:
                raise TypedError([f"duplicate entries for key {path_text((element,))}"])
            theirs[element] = item
        own = [self.item_element(item) for item in live]
        mine: dict[str, Any] = {}
        for element, item in zip(own, live, strict=True):
            mine[element] = None if element in mine else item
        if own == list(theirs):
            return [self._both(mine, theirs, element) for element in own]
        return self._interleave(own, live, mine, theirs)

    def _both(self, mine: dict[str, Any], theirs: dict[str, Any], element: str) -> Any:
        live = mine.get(element)
        return theirs[element] if live is None else self._element.merge(live, theirs[element])

    def _interleave(self, own: list[str], live: list[Any], mine: dict[str, Any], theirs: dict[str, Any]) -> list[Any]:
        # Items of both keep the applied order; live ones that were not applied stay behind what they followed.
        order = list(theirs)
        shared = [element for element in order if element in mine]
        done: set[str] = set()
        out: list[Any] = []
        left = right = turn = 0
        while left < len(own) or right < len(order):
            following = shared[turn] if turn < len(shared) else None
            element = own[left] if left < len(own) else None
            if element is not None and (right >= len(order) or element != order[right]):
                if element in theirs and right < len(order) and following not in {None, element}:
                    left += 1
                    continue
                if element not in theirs:
                    out.append(live[left])
                    left += 1
                    continue
                if element in done:
                    left += 1
            if right < len(order):
                taken = order[right]
                left += taken == element
                right += 1
                turn += taken == following
                done.add(taken)
                out.append(self._both(mine, theirs, taken))
        return out

    def remove(self, value: Any, items: FieldSet) -> Any:
        if not isinstance(value, list) or not value:
            return EMPTIED
        out = []
        for item in value:
            node = items.get(self.item_element(item))
            if node is None:
                out.append(item)
            elif not is_member(node):
                out.append(self._element.remove(item, node))
        return out or EMPTIED

    def check(self, value: Any) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, list):
            return [fault("list", value)]
        faults: list[str] = []
        seen: set[str] = set()
        for index, item in enumerate(value):
            try:
                element = self.item_element(item)
            except TypedError as error:
                return [*faults, *(f": element {index}: {found}" for found in error.errors)]
            shown = path_text((element,))
            if element in seen:
                faults.append(f": duplicate entries for key {shown}")
            seen.add(element)
            faults += [shown + found for found in self._element.check(item)]
        return faults

    def named(self, items: FieldSet) -> FieldSet:
        return {e: self._element.named(n) if n and e[:2] == "k:" else n for e, n in items.items()}

    def reconcile(self, items: FieldSet) -> FieldSet:
        return {e: self._element.reconcile(n) if n and e != "." else n for e, n in items.items()}
