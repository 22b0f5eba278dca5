"""Filters and scores with the answers that they gave, and how one answer is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Bools, Ints
from .framework import Cycle, Nodes, Scope
from .rows import Placed

__all__ = [
    "Best",
    "Part",
    "code_of",
    "constant",
    "filter_part",
    "named",
    "nominees",
    "normalized",
    "score_of",
    "score_part",
    "with_nominees",
]


@dataclass(slots=True, eq=False)
class Part:
    """A filter or score, and its answers."""

    plugin: Any
    scope: Scope
    weight: int = 0
    token: object = None
    skipped: bool = False
    started: bool = False
    values: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    uniform: bool = True
    """Whether raw scores are all zero, which normalizing makes one number for all nodes."""
    by_row: Callable[[Cycle, int], int] | None = None
    narrow: frozenset[str] | None = None
    version: Callable[[Cycle], object] | None = None
    before: Callable[..., Any] | None = None
    """What the plugin does first: `pre_filter` or `pre_score`."""
    normalize: Callable[[Cycle, Ints, Bools], Ints] | None = None


class Best:
    """The best rows, kept while single rows change."""

    __slots__ = ("_rows", "_score", "_where")

    def __init__(self) -> None:
        self._rows: list[int] = []
        self._where: dict[int, int] = {}
        self._score = -1

    def forget(self) -> None:
        """Look at all rows again."""
        self._rows, self._where = [], {}

    def of(self, masked: Ints) -> list[int]:
        """Give the rows with the highest score; none if it is -1."""
        if not self._rows:
            self._score = int(masked.max(initial=-1))
            if self._score < 0:
                return []
            self._rows = np.flatnonzero(masked == self._score).tolist()
            self._where = {row: place for place, row in enumerate(self._rows)}
        return self._rows

    def change(self, row: int, score: int) -> None:
        """Note a row's new score."""
        if not self._rows:
            return
        place = self._where.get(row)
        if place is not None:
            if score != self._score:
                self._drop(row, place)
        elif score == self._score:
            self._add(row)
        if score > self._score:
            self.forget()
            self._score = score
            self._add(row)

    def _add(self, row: int) -> None:
        self._where[row] = len(self._rows)
        self._rows.append(row)

    def _drop(self, row: int, place: int) -> None:
        last = self._rows.pop()
        del self._where[row]
        if last != row:
            self._rows[place] = last
            self._where[last] = place


def filter_part(plugin: Any) -> Part:
    """Make the part of a filter."""
    return Part(
        plugin,
        plugin.scope,
        by_row=getattr(plugin, "filter_row", None),
        version=getattr(plugin, "version", None),
        before=getattr(plugin, "pre_filter", None),
    )


def score_part(plugin: Any, weight: int) -> Part:
    """Make the part of a score with its weight."""
    return Part(
        plugin,
        plugin.score_scope,
        weight,
        by_row=getattr(plugin, "score_row", None),
        version=getattr(plugin, "score_version", None),
        before=getattr(plugin, "pre_score", None),
        normalize=getattr(plugin, "normalize", None),
    )


def named(one: Part, nodes: Nodes) -> Bools:
    """Say which nodes a filter names."""
    rows = nodes.table.row_of
    marked: Bools = nodes.mark((rows[name] for name in one.narrow or () if name in rows), 1) == 1
    return marked


def normalized(one: Part, cycle: Cycle, scores: Ints, feasible: Bools) -> Ints:
    """Give scores as they count, by the plugin's own scaling where it has one."""
    return scores if one.normalize is None else one.normalize(cycle, scores, feasible)


def constant(one: Part, cycle: Cycle) -> int:
    """Give the score of all nodes where the raw ones are all zero."""
    return int(normalized(one, cycle, np.zeros(1, np.int64), np.ones(1, np.bool_))[0])


def code_of(one: Part, cycle: Cycle, row: int) -> int:
    """Ask a filter about one row."""
    return one.by_row(cycle, row) if one.by_row else int(one.plugin.filter(cycle, one_row(cycle, row))[0])


def score_of(one: Part, cycle: Cycle, row: int) -> int:
    """Ask a score about one row."""
    return one.by_row(cycle, row) if one.by_row else int(one.plugin.score(cycle, one_row(cycle, row))[0])


def with_nominees(one: Part, cycle: Cycle, row: int, code: int) -> int:
    """Count pods that wait for room on the node as if they were there; both with and without has to fit.

    The pod itself is no exception, for what comes of it is kept for its like; its own node it tries first.
    """
    waiting = nominees(cycle, row, "")
    if code or not waiting:
        return code
    with cycle.table.supposing(waiting, []):
        return code_of(one, cycle, row)


def nominees(cycle: Cycle, row: int, own: str) -> list[Placed]:
    """Give the pods that wait for room on a row and are at least as important, without the one whose uid is `own`."""
    return [
        Placed(uid, shape.pod, shape, "", row, terminating=False)
        for uid, shape in cycle.table.nominated.get(row, {}).items()
        if uid != own and shape.priority >= cycle.shape.priority
    ]


def one_row(cycle: Cycle, row: int) -> Nodes:
    rows: NDArray[np.intp] = np.array([row], np.intp)
    return Nodes(cycle.table, rows)
