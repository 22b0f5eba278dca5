"""Tells what stood at a place of an object before an update, so that what did not change is not held against it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilothouse.apiserver.crds.structural import Node
from pilothouse.apiserver.crds.values import same
from pilothouse.kinds.fielderrors import json_text

__all__ = ["Correlated", "list_map_key"]


class Correlated:
    """The new and the old value at one place. Whether they are equal is found out once."""

    __slots__ = ("_index", "_unchanged", "new", "old")

    def __init__(self, new: Any, old: Any) -> None:
        self.new = new
        self.old = old
        self._unchanged: bool | None = None
        self._index: dict[str, Any] | None = None

    @property
    def unchanged(self) -> bool:
        """Whether the new value is the old one."""
        if self._unchanged is None:
            self._unchanged = same(self.new, self.old)
        return self._unchanged

    def key(self, name: str) -> Correlated | None:
        """Return what stood at a field; None where there was none."""
        if type(self.old) is not dict or type(self.new) is not dict or name not in self.old or name not in self.new:
            return None
        return Correlated(self.new[name], self.old[name])

    def index(self, node: Node, at: int) -> Correlated | None:
        """Return the item of a list map with the same key; None in other lists, whose items cannot be told apart."""
        if node.list_type != "map" or type(self.old) is not list or type(self.new) is not list:
            return None
        if self._index is None:
            self._index = {}
            for item in self.old:
                if (found := list_map_key(node.list_keys, item)) is not None:
                    self._index.setdefault(found, item)
        key = list_map_key(node.list_keys, self.new[at])
        return Correlated(self.new[at], self._index[key]) if key is not None and key in self._index else None


def list_map_key(keys: Sequence[str], item: Any) -> str | None:
    """Return the key of a list map's item as text; None for what is no object."""
    if type(item) is not dict:
        return None
    if len(keys) == 1:
        found = item.get(keys[0])
        return found if type(found) is str else json_text(found)
    return json_text({name: item.get(name) for name in keys})
