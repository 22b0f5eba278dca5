"""The nodes' labels and names as columns of numbers: each distinct value of a key has an id, and 0 means none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["NAME_FIELD", "Bools", "Column", "Columns", "Ids", "Ints"]

Bools = NDArray[np.bool_]
Ids = NDArray[np.int32]
Ints = NDArray[np.int64]

NAME_FIELD: Final = "\0metadata.name"
"""The key under which the nodes' names are a column."""


_SPARE: Final = 4
_MANY: Final = 1024
"""Values that a column may have: so many for each row, and so many more."""


def _integer(text: str) -> int | None:
    digits = text.lstrip("+-")
    if len(text) - len(digits) > 1 or not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        return None
    number = int(text)
    return number if -(2**63) <= number < 2**63 else None


class Column:
    """The values of one key, one id a row."""

    __slots__ = ("ids", "values")

    def __init__(self, capacity: int) -> None:
        self.ids: Ids = np.zeros(capacity, np.int32)
        self.values: dict[str, int] = {}

    @property
    def width(self) -> int:
        """One more than the largest id: the length of an array with a place for each value and for none."""
        return len(self.values) + 1

    def intern(self, value: str) -> int:
        """Give the id of a value."""
        return self.values.setdefault(value, len(self.values) + 1)

    def forget_unused(self, rows: int) -> None:
        """Give new ids to the values that rows have, and forget the others."""
        used = {*np.unique(self.ids[:rows]).tolist()}
        kept = [value for value, number in self.values.items() if number in used]
        ids = np.zeros(self.width, np.int32)
        for new, value in enumerate(kept, 1):
            ids[self.values[value]] = new
        self.ids = ids[self.ids]
        self.values = {value: number for number, value in enumerate(kept, 1)}

    def taking(self, operator: str, wanted: Sequence[str]) -> Bools:
        """Say of each id whether a node selector's requirement takes it; of one that is invalid, none."""
        taken = np.zeros(self.width, np.bool_)
        match operator:
            case "In":
                taken[[self.values[one] for one in wanted if one in self.values]] = True
            case "NotIn":
                taken[:] = True
                taken[[self.values[one] for one in wanted if one in self.values]] = False
            case "Exists":
                taken[1:] = True
            case "DoesNotExist":
                taken[0] = True
            case "Gt" | "Lt":
                bound = _integer(wanted[0]) if len(wanted) == 1 else None
                for value, number in self.values.items():
                    found = _integer(value)
                    if bound is not None and found is not None:
                        taken[number] = found > bound if operator == "Gt" else found < bound
        return taken


class Columns:
    """The columns that someone asked for; others are not kept. Rows are filled in as nodes come and change."""

    def __init__(self, capacity: int, labels_of: Callable[[int], Mapping[str, str] | None]) -> None:
        self._capacity = capacity
        self._labels_of = labels_of
        self._columns: Final[dict[str, Column]] = {}

    def of(self, key: str, rows: int) -> Column:
        """Give the column of a key; the first time, it is filled for `rows` rows."""
        found = self._columns.get(key)
        if found is None:
            found = self._columns[key] = Column(self._capacity)
            for row in range(rows):
                labels = self._labels_of(row)
                if labels is not None and key in labels:
                    found.ids[row] = found.intern(labels[key])
        return found

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        self._capacity = capacity
        for column in self._columns.values():
            column.ids = np.concatenate([column.ids, np.zeros(capacity - len(column.ids), np.int32)])

    def tidy(self, rows: int) -> list[str]:
        """Forget values that no node has any more, where there are many; give the keys whose ids have changed."""
        grown = [key for key, column in self._columns.items() if column.width > _SPARE * rows + _MANY]
        for key in grown:
            self._columns[key].forget_unused(rows)
        return grown

    def fill(self, row: int, labels: Mapping[str, str]) -> list[tuple[str, int, int]]:
        """Set a row's values; give the keys that changed, each with the id before and the id now."""
        changed = []
        for key, column in self._columns.items():
            value = labels.get(key)
            new = 0 if value is None else column.intern(value)
            old = int(column.ids[row])
            if old != new:
                column.ids[row] = new
                changed.append((key, old, new))
        return changed
