"""Lists of custom resources that merge as sets or maps, as expressions see them: order does not count in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from pilothouse.apiserver.cel.values import equal
from pilothouse.kinds.fielderrors import json_text

__all__ = ["MapList", "SetList"]


class SetList(list[Any]):
    """A list with `x-kubernetes-list-type: set`: equal whatever the order; adding leaves out what is there."""

    __slots__ = ()

    def equals_list(self, other: list[Any]) -> bool:
        """Whether another list has the same elements."""
        return len(self) == len(other) and all(any(equal(each, one) for one in self) for each in other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and self.equals_list(other)

    __hash__ = None

    def plus(self, other: Iterable[Any]) -> list[Any]:
        """Return the elements of both."""
        made = list(self)
        for each in other:
            if not any(equal(each, one) for one in made):
                made.append(each)
        return SetList(made)


class MapList(list[Any]):
    """A list with `x-kubernetes-list-type: map`: equal whatever the order; adding replaces what has the same key."""

    __slots__ = ("keys",)

    def __init__(self, items: Iterable[Any], keys: Sequence[str]) -> None:
        super().__init__(items)
        self.keys = tuple(keys)

    def _key(self, item: Any) -> str:
        return json_text({name: str(item.get(name)) for name in self.keys} if isinstance(item, dict) else str(item))

    def equals_list(self, other: list[Any]) -> bool:
        """Whether another list has equal items for the same keys."""
        if len(self) != len(other):
            return False
        mine = {self._key(item): item for item in self}
        return all((key := self._key(item)) in mine and equal(mine[key], item) for item in other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, list) and self.equals_list(other)

    __hash__ = None

    def plus(self, other: Iterable[Any]) -> list[Any]:
        """Return the items of both, those of the other where both have one of a key."""
        made = {self._key(item): item for item in self}
        made.update({self._key(item): item for item in other})
        return MapList(made.values(), self.keys)
