"""How many pods of which kind are on each node and in each domain, kept up to date pod by pod.

A `Count` has a number for each row, and for each topology key that was asked for a number for each of the key's values.
There are counts of pods that a predicate takes, and of pods that carry a term of affinity. Neither is ever rebuilt
while it is in use: pods that come and go, and nodes whose labels change, alter the numbers concerned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .columns import Column, Ints
from .podterms import PodTerm, Predicate
from .shapes import PodShape

__all__ = ["Carried", "Count", "Counters", "Placement"]

_LOG: Final = 1024
_MOST: Final = 1024
"""Counts of predicates that are kept; of more, those not used for longest are dropped."""


class Carried(NamedTuple):
    """A term that pods on nodes have, which pods to come have to reckon with."""

    kind: Literal["affinity", "anti-affinity", "preferred"]
    term: PodTerm
    weight: int = 1


class Placement(Protocol):
    """A pod on a row."""

    @property
    def row(self) -> int: ...

    @property
    def shape(self) -> PodShape: ...

    @property
    def terminating(self) -> bool: ...


class Count:
    """Numbers of pods: by row, and by the value of topology keys."""

    __slots__ = ("_column", "base", "by_key", "log", "rows", "total", "used")

    def __init__(self, capacity: int, column: Callable[[str], Column]) -> None:
        self._column = column
        self.rows: NDArray[np.int32] = np.zeros(capacity, np.int32)
        self.total = 0
        self.by_key: dict[str, Ints] = {}
        self.log: list[tuple[int, int]] = []
        """Rows and what was added to them, from position `base` on."""
        self.base = 0
        self.used = 0

    @property
    def position(self) -> int:
        """How many changes there were so far."""
        return self.base + len(self.log)

    def add(self, row: int, number: int) -> None:
        """Count pods on a row, or fewer of them."""
        self.rows[row] += number
        self.total += number
        if len(self.log) >= _LOG:
            self.base += len(self.log)
            self.log.clear()
        self.log.append((row, number))
        for key, domains in self.by_key.items():
            self._fitting(key, domains)[self._column(key).ids[row]] += number

    def domains(self, key: str) -> Ints:
        """Give the number of pods by the id of the key's value; index 0 is of nodes without the key."""
        found = self.by_key.get(key)
        if found is None:
            column = self._column(key)
            found = np.bincount(column.ids, weights=self.rows, minlength=column.width).astype(np.int64)
            self.by_key[key] = found
        return self._fitting(key, found)

    def relabel(self, row: int, key: str, old: int, new: int) -> None:
        """Move a row's pods to another domain."""
        domains = self.by_key.get(key)
        number = int(self.rows[row])
        if domains is not None and number:
            domains = self._fitting(key, domains)
            domains[old] -= number
            domains[new] += number

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        self.rows = np.concatenate([self.rows, np.zeros(capacity - len(self.rows), np.int32)])

    def _fitting(self, key: str, domains: Ints) -> Ints:
        width = self._column(key).width
        if len(domains) < width:
            domains = np.concatenate([domains, np.zeros(max(width, 2 * len(domains)) - len(domains), np.int64)])
            self.by_key[key] = domains
        return domains


class Counters:
    """All counts over the pods on nodes."""

    def __init__(
        self,
        capacity: int,
        column: Callable[[str], Column],
        placements: Callable[[], Iterator[Placement]],
        namespace_labels: Callable[[str], Mapping[str, str]],
    ) -> None:
        self._capacity = capacity
        self._column = column
        self._placements = placements
        self._namespace_labels = namespace_labels
        self._matching: dict[Predicate, Count] = {}
        self._carried: dict[Carried, Count] = {}
        self._generation = 0
        self._clock = 0
        self.carried_generation = 0
        """Changes when a term is carried by the first pod or by none any more."""

    def matching(self, predicate: Predicate) -> Count:
        """Give the count of the pods that a predicate takes; made from all pods the first time."""
        found = self._matching.get(predicate)
        if found is None:
            found = self._make(predicate)
        self._clock += 1
        found.used = self._clock
        return found

    def carried(self) -> Mapping[Carried, Count]:
        """Give the terms that pods on nodes carry, each with the count of these pods."""
        return self._carried

    def place(self, placement: Placement, sign: int) -> None:
        """Count a pod that came to its row (1) or leaves it (-1)."""
        shape = placement.shape
        for predicate, count in self._matched(shape):
            if predicate.terminating or not placement.terminating:
                count.add(placement.row, sign)
        for carried in _carried_by(shape):
            count = self._carried.get(carried) or self._carry(carried)
            count.add(placement.row, sign)
            if not count.total:
                del self._carried[carried]
                self.carried_generation += 1

    def relabel(self, row: int, key: str, old: int, new: int) -> None:
        """Note that a row has another value of a key."""
        for counts in (self._matching, self._carried):
            for count in counts.values():
                count.relabel(row, key, old, new)

    def forget_key(self, key: str) -> None:
        """Count the domains of a key anew when they are asked for: its values have other ids."""
        for counts in (self._matching, self._carried):
            for count in counts.values():
                count.by_key.pop(key, None)

    def namespaces_changed(self) -> None:
        """Count anew where namespaces are selected by labels, which have changed."""
        for predicate in [one for one in self._matching if one.selects_namespaces]:
            del self._matching[predicate]
        self._generation += 1
        self.carried_generation += 1

    def grow(self, capacity: int) -> None:
        """Make room for more rows."""
        self._capacity = capacity
        for counts in (self._matching, self._carried):
            for count in counts.values():
                count.grow(capacity)

    def takes(self, predicate: Predicate, shape: PodShape) -> bool:
        """Say whether a predicate takes pods of a shape."""
        return predicate.takes(shape.namespace, shape.labels, self._namespace_labels(shape.namespace))

    def _make(self, predicate: Predicate) -> Count:
        if len(self._matching) >= _MOST:
            oldest = sorted(self._matching, key=lambda one: self._matching[one].used)[: _MOST // 2]
            for one in oldest:
                del self._matching[one]
        count = self._matching[predicate] = Count(self._capacity, self._column)
        taken: dict[PodShape, bool] = {}
        for placement in self._placements():
            shape = placement.shape
            if shape not in taken:
                taken[shape] = self.takes(predicate, shape)
            if taken[shape] and (predicate.terminating or not placement.terminating):
                count.rows[placement.row] += 1
                count.total += 1
        self._generation += 1
        return count

    def _carry(self, carried: Carried) -> Count:
        self.carried_generation += 1
        found = self._carried[carried] = Count(self._capacity, self._column)
        return found

    def _matched(self, shape: PodShape) -> list[tuple[Predicate, Count]]:
        known = shape.memo.get(Counters)
        if known is None or known[0] != self._generation:
            found = [(one, count) for one, count in self._matching.items() if self.takes(one, shape)]
            known = shape.memo[Counters] = (self._generation, found)
        matched: list[tuple[Predicate, Count]] = known[1]
        return matched


def _carried_by(shape: PodShape) -> tuple[Carried, ...]:
    found: tuple[Carried, ...] | None = shape.memo.get(Carried)
    if found is None:
        found = (
            *(Carried("affinity", term) for term in shape.affinity),
            *(Carried("anti-affinity", term) for term in shape.anti_affinity),
            *(Carried("preferred", one.term, one.weight) for one in shape.preferred),
        )
        shape.memo[Carried] = found
    return found
