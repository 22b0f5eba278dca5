"""Which nodes a pod may run on and how good they are, kept for all pods of a shape from try to try.

Answers that depend on a node and the pods on it are asked for again only for rows that changed since the last try: in
a run of pods from one controller that is the one row that the pod before went to. What depends on the whole cluster
is asked for each time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from .answers import (
    Best,
    Part,
    code_of,
    constant,
    filter_part,
    named,
    nominees,
    normalized,
    score_of,
    score_part,
    with_nominees,
)
from .columns import Bools, Ints
from .framework import SKIP, Cycle, Narrow, Nodes, Reject, Scope
from .shapes import PodShape
from .table import NodeTable

__all__ = ["Evaluation", "Found"]

_STATES: Final = 64
_FULL_SHARE: Final = 8
"""With more than one row in so many changed, all are asked for at once: vectors are cheaper than row by row."""


@dataclass(slots=True)
class Found:
    """What came of a try. `total` has each node's score, -1 where the pod cannot run; `reject` is of all nodes."""

    total: Ints
    reject: Reject | None = None
    rejected_by: str = ""
    ties: list[int] | None = None
    """The best rows, where they are known already."""


class Evaluation:
    """The answers of a profile's filters and scores for one shape of pods."""

    def __init__(self, filters: Iterable[Any], scores: Iterable[tuple[Any, int]]) -> None:
        self.local: Final[dict[str, Any]] = {}
        self._states: OrderedDict[PodShape, dict[str, Any]] = OrderedDict()
        self._filters: Final = [filter_part(one) for one in filters]
        self._scores: Final = [score_part(one, weight) for one, weight in scores]
        self._spanning: Final = [one for one in self._scores if one.scope is Scope.CLUSTER]
        self._to_start: list[Part] = [*self._filters]
        """Filters that look at the pod anew for each try, and those that have not yet."""
        self._by_node: list[Part] = []
        self._by_row: list[Part] = []
        self._wide: list[Part] = []
        """The filters that have something to say for these pods, by scope."""
        self._scored_rows: list[Part] = []
        self._varied: list[Part] = []
        self._versioned: list[Part] = []
        self._position = 0
        self._epoch = -1
        self._node_ok: Bools = np.zeros(0, np.bool_)
        self._ok: Bools = np.zeros(0, np.bool_)
        self._fixed: Ints = np.zeros(0, np.int64)
        """The part of the scores that changes with nodes only."""
        self._base: Ints = np.zeros(0, np.int64)
        self._masked: Ints = np.zeros(0, np.int64)
        self._best: Best = Best()
        self._narrow: list[Part] = []
        """Filters that name the only nodes worth looking at."""

    def state_of(self, shape: PodShape) -> dict[str, Any]:
        """Give what plugins keep for the pods of a shape; for as many shapes as are in use."""
        found = self._states.get(shape)
        if found is None:
            found = self._states[shape] = {}
            if len(self._states) > _STATES:
                self._states.popitem(last=False)
        else:
            self._states.move_to_end(shape)
        return found

    @property
    def narrowed(self) -> dict[str, frozenset[str]]:
        """The names of the only nodes worth looking at, by the plugins that say so."""
        return {one.plugin.name: one.narrow for one in self._filters if one.narrow is not None and not one.skipped}

    def run(self, cycle: Cycle) -> Found:
        """Ask what is not known yet and give each node's score."""
        reject = self._start(cycle)
        if reject is not None:
            return Found(np.zeros(0, np.int64), *reject)
        table = cycle.table
        self._sync(cycle, table)
        size = table.size
        ok = self._ok[:size]
        feasible = self._wide_filters(cycle, ok) if self._wide else None
        spanning = self._active(cycle, ok if feasible is None else feasible)
        if feasible is None and not spanning and not self._varied:
            masked = self._masked[:size]
            return Found(masked, ties=self._best.of(masked))
        if feasible is None:
            feasible = ok
        total = self._base[:size].copy()
        for one in self._varied:
            total += one.weight * normalized(one, cycle, one.values[:size], feasible)
        for one in spanning:
            total += one.weight * normalized(one, cycle, one.plugin.score(cycle, cycle.nodes), feasible)
        total[~feasible] = -1
        return Found(total)

    def codes(self, cycle: Cycle) -> list[tuple[Any, Ints]]:
        """Give each filter that was asked in the last try with its codes for all nodes, in their order."""
        size = cycle.table.size
        return [(one.plugin, one.values[:size]) for one in self._filters if not one.skipped]

    def check_row(self, cycle: Cycle, row: int) -> tuple[Any, int] | None:
        """Ask all filters about one row as the table is now; give the first that refuses, with its code."""
        waiting = nominees(cycle, row, cycle.pod.metadata.uid)
        if waiting:
            with cycle.table.supposing(waiting, []):
                refused = self._ask_row(cycle, row)
            if refused is not None:
                return refused
        return self._ask_row(cycle, row)

    def _ask_row(self, cycle: Cycle, row: int) -> tuple[Any, int] | None:
        for one in self._filters:
            if one.scope is Scope.CLUSTER:
                answer = one.before(cycle) if one.before else None
                if answer is SKIP:
                    continue
                if isinstance(answer, Reject):
                    return one.plugin, -1
            elif one.skipped:
                continue
            code = code_of(one, cycle, row)
            if code:
                return one.plugin, code
        return None

    def _start(self, cycle: Cycle) -> tuple[Reject, str] | None:
        """Have plugins look at the pod, those that may find anything new."""
        soft: tuple[Reject, str] | None = None
        changed = any_narrow = False
        for one in self._to_start:
            wide = one.scope is Scope.CLUSTER
            token = one.version(cycle) if one.version else None
            if one.started and not wide and token == one.token:
                continue
            answer = one.before(cycle) if one.before else None
            if isinstance(answer, Reject):
                one.started = False
                if answer.final:
                    return answer, one.plugin.name
                soft = answer, one.plugin.name
                continue
            changed = changed or not wide or one.skipped != (answer is SKIP) or not one.started
            one.skipped, one.started, one.token = answer is SKIP, True, token
            narrow = answer.names if isinstance(answer, Narrow) else None
            any_narrow = any_narrow or narrow is not None or one.narrow is not None
            one.narrow = narrow
            if not wide:
                self._epoch = -1
        if changed:
            self._sort_filters()
        self._narrow = [one for one in self._filters if one.narrow is not None] if any_narrow else self._narrow
        if soft is None and self._narrow and not frozenset.intersection(*self.narrowed.values()):
            names = sorted(self.narrowed)
            told = f"plugin {names[0]}" if len(names) == 1 else f"plugin(s) [{' '.join(names)}] simultaneously"
            return Reject(f"node(s) didn't satisfy {told}"), names[0]
        return soft

    def _sort_filters(self) -> None:
        asked = [one for one in self._filters if not one.skipped]
        self._by_node = [one for one in asked if one.scope is Scope.NODE]
        self._by_row = [one for one in asked if one.scope is Scope.ROW]
        self._wide = [one for one in asked if one.scope is Scope.CLUSTER]
        # Those whose answer to a pod of this shape cannot change are not bothered again.
        self._to_start = [
            one
            for one in self._filters
            if not one.started or one.token is not None or (one.scope is Scope.CLUSTER and one.before)
        ]

    def _sync(self, cycle: Cycle, table: NodeTable) -> None:
        """Bring the answers that depend on single nodes up to date."""
        position, self._position = self._position, table.changes.position
        stale = any(one.version is not None and one.version(cycle) != one.token for one in self._versioned)
        changes = table.changes.since(position)
        if self._epoch != table.epoch or changes is None or stale:
            self._sync_all(cycle, table)
            return
        if len(changes) == 1:
            self._sync_row(cycle, table, *changes[0])
            return
        rows: dict[int, bool] = {}
        for row, node in changes:
            rows[row] = rows.get(row, False) or node
        if len(rows) * _FULL_SHARE > table.size:
            self._sync_all(cycle, table)
            return
        for row, node in rows.items():
            self._sync_row(cycle, table, row, node)

    def _sync_all(self, cycle: Cycle, table: NodeTable) -> None:
        self._epoch = table.epoch
        size, capacity, nodes = table.size, table.capacity, cycle.nodes
        ok = table.valid[:size].copy()
        for one in self._by_node:
            one.values = np.zeros(capacity, np.int64)
            one.values[:size] = one.plugin.filter(cycle, nodes)
            ok &= one.values[:size] == 0
        for one in self._narrow:
            if one.scope is not Scope.CLUSTER:
                ok &= named(one, nodes)
        self._node_ok = np.zeros(capacity, np.bool_)
        self._node_ok[:size] = ok
        for one in self._by_row:
            one.values = np.zeros(capacity, np.int64)
            one.values[:size] = one.plugin.filter(cycle, nodes)
            for row in table.nominated:
                one.values[row] = with_nominees(one, cycle, row, int(one.values[row]))
            ok = ok & (one.values[:size] == 0)
        self._ok = np.zeros(capacity, np.bool_)
        self._ok[:size] = ok
        self._score_all(cycle, nodes, capacity)

    def _score_all(self, cycle: Cycle, nodes: Nodes, capacity: int) -> None:
        size = cycle.table.size
        self._fixed = np.zeros(capacity, np.int64)
        self._scored_rows, self._varied, self._versioned = [], [], []
        for one in self._scores:
            if one.scope is Scope.CLUSTER:
                continue
            if one.version is not None:
                one.token = one.version(cycle)
                self._versioned.append(one)
            one.skipped = one.before is not None and one.before(cycle, self._ok[:size]) is SKIP
            if one.skipped:
                continue
            one.values = np.zeros(capacity, np.int64)
            one.values[:size] = one.plugin.score(cycle, nodes)
            one.uniform = one.normalize is not None and not one.values[:size].any()
            if one.uniform:
                self._fixed += one.weight * constant(one, cycle)
            elif one.normalize is not None:
                self._varied.append(one)
            elif one.scope is Scope.ROW:
                self._scored_rows.append(one)
            else:
                self._fixed += one.weight * one.values
        self._base = self._fixed.copy()
        for one in self._scored_rows:
            self._base += one.weight * one.values
        self._masked = np.where(self._ok, self._base, -1)
        self._best.forget()

    def _sync_row(self, cycle: Cycle, table: NodeTable, row: int, node: bool) -> None:
        if node:
            self._sync_node(cycle, table, row)
        ok = bool(self._node_ok[row])
        for one in self._by_row:
            code = code_of(one, cycle, row)
            if row in table.nominated:
                code = with_nominees(one, cycle, row, code)
            one.values[row] = code
            ok = ok and not code
        self._ok[row] = ok
        base = int(self._fixed[row])
        for one in self._scored_rows:
            base += one.weight * score_of(one, cycle, row)
        self._base[row] = base
        for one in self._varied:
            if one.scope is Scope.ROW:
                one.values[row] = score_of(one, cycle, row)
        now = base if ok else -1
        self._best.change(row, now)
        self._masked[row] = now

    def _sync_node(self, cycle: Cycle, table: NodeTable, row: int) -> None:
        ok = bool(table.valid[row])
        for one in self._by_node:
            one.values[row] = code = code_of(one, cycle, row)
            ok = ok and not code
        narrow = [one.narrow for one in self._narrow if one.scope is not Scope.CLUSTER and one.narrow is not None]
        self._node_ok[row] = ok and all(table.name(row) in names for names in narrow)
        fixed = 0
        for one in self._scores:
            if one.scope is Scope.CLUSTER or one.skipped or one in self._scored_rows:
                continue
            score = score_of(one, cycle, row)
            one.values[row] = score
            if one.uniform and score:
                # What was the same for all is not any more; begin anew.
                self._epoch = -1
            if one.uniform:
                fixed += one.weight * constant(one, cycle)
            elif one.normalize is None:
                fixed += one.weight * score
        self._fixed[row] = fixed
        if self._epoch < 0:
            self._sync_all(cycle, table)

    def _wide_filters(self, cycle: Cycle, ok: Bools) -> Bools:
        """Ask the filters that look at the whole cluster."""
        feasible = ok
        for one in self._wide:
            one.values = one.plugin.filter(cycle, cycle.nodes)
            feasible = feasible & (one.values == 0)
            if one.narrow is not None:
                feasible = feasible & named(one, cycle.nodes)
        for row in [one for one in cycle.table.nominated if feasible[one]]:
            waiting = nominees(cycle, row, cycle.pod.metadata.uid)
            for one in self._wide if waiting else ():
                with cycle.table.supposing(waiting, []):
                    if one.before is None or one.before(cycle) is not SKIP:
                        one.values[row] = code_of(one, cycle, row)
                if one.before is not None:
                    one.before(cycle)
                feasible[row] &= not one.values[row]
        return feasible

    def _active(self, cycle: Cycle, feasible: Bools) -> list[Part]:
        return [one for one in self._spanning if one.before is None or one.before(cycle, feasible) is not SKIP]
