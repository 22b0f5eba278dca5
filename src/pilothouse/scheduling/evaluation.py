"""Which nodes a pod may run on and how good they are, kept for all pods of a shape from try to try.

Answers that depend on a node and the pods on it are asked for again only for rows that changed since the last try: in
a run of pods from one controller that is the one row that the pod before went to. What depends on the whole cluster
is asked for each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from .columns import Bools, Ints
from .framework import SKIP, Cycle, Narrow, Nodes, Reject, Scope
from .table import NodeTable, Placed

__all__ = ["Evaluation", "Found"]

_FULL_SHARE: Final = 8
"""With more than one row in so many changed, all are asked for at once: vectors are cheaper than row by row."""


@dataclass(slots=True)
class _Part:
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
    version: Callable[[Cycle], object] | None = None
    normalize: Callable[[Cycle, Ints, Bools], Ints] | None = None

    @property
    def local(self) -> bool:
        return self.scope is not Scope.CLUSTER


@dataclass(slots=True)
class Found:
    """What came of a try. `total` has each node's score, -1 where the pod cannot run; `reject` is of all nodes."""

    total: Ints
    reject: Reject | None = None
    rejected_by: str = ""


class Evaluation:
    """The answers of a profile's filters and scores for one shape of pods."""

    def __init__(self, filters: Iterable[Any], scores: Iterable[tuple[Any, int]]) -> None:
        self.state: Final[dict[str, Any]] = {}
        self._filters: Final = [
            _Part(one, one.scope, by_row=getattr(one, "filter_row", None), version=getattr(one, "version", None))
            for one in filters
        ]
        self._scores: Final = [
            _Part(
                one,
                one.score_scope,
                weight,
                by_row=getattr(one, "score_row", None),
                version=getattr(one, "score_version", None),
                normalize=getattr(one, "normalize", None),
            )
            for one, weight in scores
        ]
        self._position = 0
        self._epoch = -1
        self._ok: Bools = np.zeros(0, np.bool_)
        self._base: Ints = np.zeros(0, np.int64)
        self._masked: Ints = np.zeros(0, np.int64)
        self._narrowed: dict[str, frozenset[str]] = {}

    @property
    def narrowed(self) -> dict[str, frozenset[str]]:
        """The names of the only nodes worth looking at, by the plugins that say so."""
        return self._narrowed

    def run(self, cycle: Cycle) -> Found:
        """Ask what is not known yet and give each node's score."""
        reject = self._start(cycle)
        if reject is not None:
            return Found(np.zeros(0, np.int64), *reject)
        table = cycle.table
        self._sync(cycle, table)
        size = table.size
        feasible = self._cluster_filters(cycle, self._ok[:size])
        varied = [
            (one, one.normalize)
            for one in self._scores
            if one.local and one.normalize is not None and not one.skipped and not one.uniform
        ]
        spanning = [one for one in self._scores if not one.local]
        if feasible is None and not varied and not self._active(cycle, spanning, self._ok[:size]):
            return Found(self._masked[:size])
        if feasible is None:
            feasible = self._ok[:size]
        total = self._base[:size].copy()
        for one, normalize in varied:
            total += one.weight * normalize(cycle, one.values[:size], feasible)
        for one in self._active(cycle, spanning, feasible):
            scores = one.plugin.score(cycle, cycle.nodes)
            total += one.weight * (one.normalize(cycle, scores, feasible) if one.normalize else scores)
        return Found(np.where(feasible, total, -1))

    def codes(self, cycle: Cycle) -> list[tuple[Any, Ints]]:
        """Give each filter that was asked in the last try with its codes for all nodes, in their order."""
        size = cycle.table.size
        return [(one.plugin, one.values[:size]) for one in self._filters if not one.skipped]

    def check_row(self, cycle: Cycle, row: int) -> tuple[Any, int] | None:
        """Ask all filters about one row as the table is now; give the first that refuses, with its code."""
        own = cycle.pod.metadata.uid
        waiting = self._nominees(cycle, row, own)
        if waiting:
            with cycle.table.supposing(waiting, []):
                refused = self._ask_row(cycle, row)
            if refused is not None:
                return refused
        return self._ask_row(cycle, row)

    def _ask_row(self, cycle: Cycle, row: int) -> tuple[Any, int] | None:
        for one in self._filters:
            if one.skipped and one.local:
                continue
            if not one.local:
                answer = one.plugin.pre_filter(cycle) if hasattr(one.plugin, "pre_filter") else None
                if answer is SKIP:
                    continue
                if isinstance(answer, Reject):
                    return one.plugin, -1
            code = self._one(one, cycle, row)
            if code:
                return one.plugin, code
        return None

    def _start(self, cycle: Cycle) -> tuple[Reject, str] | None:
        """Have plugins look at the pod, those that may find anything new."""
        soft: tuple[Reject, str] | None = None
        for one in self._filters:
            plugin = one.plugin
            token = one.version(cycle) if one.version else None
            if one.local and one.started and token == one.token:
                continue
            answer = plugin.pre_filter(cycle) if hasattr(plugin, "pre_filter") else None
            if isinstance(answer, Reject):
                one.started = False
                if answer.final:
                    return answer, plugin.name
                soft = answer, plugin.name
                continue
            one.skipped = answer is SKIP
            self._narrowed.pop(plugin.name, None)
            if isinstance(answer, Narrow):
                self._narrowed[plugin.name] = answer.names
            if one.local:
                one.started, one.token = True, token
                self._epoch = -1
        if soft is None and self._narrowed and not frozenset.intersection(*self._narrowed.values()):
            names = sorted(self._narrowed)
            told = f"plugin {names[0]}" if len(names) == 1 else f"plugin(s) [{' '.join(names)}] simultaneously"
            return Reject(f"node(s) didn't satisfy {told}"), names[0]
        return soft

    def _sync(self, cycle: Cycle, table: NodeTable) -> None:
        """Bring the answers that depend on single nodes up to date."""
        stale = [
            one
            for one in self._scores
            if one.local and (not one.started or (one.version is not None and one.version(cycle) != one.token))
        ]
        changes = table.changes.since(self._position)
        self._position = table.changes.position
        if self._epoch != table.epoch or changes is None or stale:
            self._sync_all(cycle, table)
            return
        if not changes:
            return
        rows: dict[int, bool] = {}
        for row, node in changes:
            rows[row] = rows.get(row, False) or node
        if len(rows) * _FULL_SHARE > table.size and len(rows) > 1:
            self._sync_all(cycle, table)
            return
        for row, node in rows.items():
            self._sync_row(cycle, table, row, node)

    def _sync_all(self, cycle: Cycle, table: NodeTable) -> None:
        self._epoch = table.epoch
        size, capacity, nodes = table.size, table.capacity, cycle.nodes
        ok = table.valid[:size].copy()
        for one in self._filters:
            if one.local and not one.skipped:
                one.values = np.zeros(capacity, np.int64)
                one.values[:size] = one.plugin.filter(cycle, nodes)
                if one.scope is Scope.ROW:
                    for row in table.nominated:
                        one.values[row] = self._with_nominees(one, cycle, row, int(one.values[row]))
                ok &= one.values[:size] == 0
        for names in self._narrowed.values():
            ok &= nodes.mark((table.row_of[name] for name in names if name in table.row_of), 1) == 1
        self._ok = np.zeros(capacity, np.bool_)
        self._ok[:size] = ok
        self._base = np.zeros(capacity, np.int64)
        for one in self._scores:
            if one.local:
                self._score_all(one, cycle, nodes, capacity)
        self._masked = np.where(self._ok, self._base, -1)

    def _score_all(self, one: _Part, cycle: Cycle, nodes: Nodes, capacity: int) -> None:
        one.started, one.token = True, one.version(cycle) if one.version else None
        size = cycle.table.size
        answer = one.plugin.pre_score(cycle, self._ok[:size]) if hasattr(one.plugin, "pre_score") else None
        one.skipped = answer is SKIP
        if one.skipped:
            return
        one.values = np.zeros(capacity, np.int64)
        one.values[:size] = one.plugin.score(cycle, nodes)
        if one.normalize is None:
            self._base += one.weight * one.values
            return
        one.uniform = not one.values[:size].any()
        if one.uniform:
            self._base += one.weight * self._constant(one, cycle)

    @staticmethod
    def _constant(one: _Part, cycle: Cycle) -> int:
        return 0 if one.normalize is None else int(one.normalize(cycle, np.zeros(1, np.int64), np.ones(1, np.bool_))[0])

    def _sync_row(self, cycle: Cycle, table: NodeTable, row: int, node: bool) -> None:
        ok = bool(table.valid[row])
        for one in self._filters:
            if not one.local or one.skipped:
                continue
            if node or one.scope is Scope.ROW:
                code = self._one(one, cycle, row)
                if one.scope is Scope.ROW and row in table.nominated:
                    code = self._with_nominees(one, cycle, row, code)
                one.values[row] = code
            elif ok:
                code = int(one.values[row])
            else:
                continue
            ok = ok and not code
        if ok and self._narrowed:
            ok = all(table.name(row) in names for names in self._narrowed.values())
        self._ok[row] = ok
        self._sync_scores(cycle, row, node)
        self._masked[row] = self._base[row] if ok else -1

    def _sync_scores(self, cycle: Cycle, row: int, node: bool) -> None:
        base = 0
        for one in self._scores:
            if not one.local or one.skipped:
                continue
            if node or one.scope is Scope.ROW:
                score = one.by_row(cycle, row) if one.by_row else int(one.plugin.score(cycle, _row(cycle, row))[0])
                one.values[row] = score
                if one.normalize and one.uniform and score:
                    one.uniform = False
                    # What was the same for all is not any more, so it is no part of the base of any row.
                    self._base -= one.weight * self._constant(one, cycle)
                    self._masked = np.where(self._ok, self._base, -1)
            if one.normalize is None:
                base += one.weight * int(one.values[row])
            elif one.uniform:
                base += one.weight * self._constant(one, cycle)
        self._base[row] = base

    def _cluster_filters(self, cycle: Cycle, ok: Bools) -> Bools | None:
        """Ask the filters that look at the whole cluster; None if none of them has anything to say."""
        active = [one for one in self._filters if not one.local and not one.skipped]
        if not active:
            return None
        feasible = ok.copy()
        for one in active:
            one.values = one.plugin.filter(cycle, cycle.nodes)
            feasible &= one.values == 0
        own = cycle.pod.metadata.uid
        for row in [one for one in cycle.table.nominated if feasible[one]]:
            waiting = self._nominees(cycle, row, own)
            if not waiting:
                continue
            for one in active:
                with cycle.table.supposing(waiting, []):
                    if one.plugin.pre_filter(cycle) is SKIP:
                        continue
                    one.values[row] = int(one.plugin.filter(cycle, _row(cycle, row))[0])
                one.plugin.pre_filter(cycle)
                feasible[row] &= not one.values[row]
        return feasible

    def _active(self, cycle: Cycle, scores: list[_Part], feasible: Bools) -> list[_Part]:
        found = []
        for one in scores:
            one.skipped = hasattr(one.plugin, "pre_score") and one.plugin.pre_score(cycle, feasible) is SKIP
            if not one.skipped:
                found.append(one)
        return found

    def _one(self, one: _Part, cycle: Cycle, row: int) -> int:
        if one.by_row is not None:
            return one.by_row(cycle, row)
        return int(one.plugin.filter(cycle, _row(cycle, row))[0])

    def _with_nominees(self, one: _Part, cycle: Cycle, row: int, code: int) -> int:
        """Count pods that wait for room on the node as if they were there; both with and without has to fit.

        The pod itself is no exception, for what comes of it is kept for its like; its own node it tries first.
        """
        waiting = self._nominees(cycle, row, "")
        if code or not waiting:
            return code
        with cycle.table.supposing(waiting, []):
            return self._one(one, cycle, row)

    @staticmethod
    def _nominees(cycle: Cycle, row: int, own: str) -> list[Placed]:
        return [
            Placed(uid, shape.pod, shape, "", row, terminating=False)
            for uid, shape in cycle.table.nominated.get(row, {}).items()
            if uid != own and shape.priority >= cycle.shape.priority
        ]


def _row(cycle: Cycle, row: int) -> Nodes:
    rows: NDArray[np.intp] = np.array([row], np.intp)
    return Nodes(cycle.table, rows)
