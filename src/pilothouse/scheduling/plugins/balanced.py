"""NodeResourcesBalancedAllocation: does the pod make the use of CPU and memory on the node more even."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from pilothouse.scheduling.columns import Bools, Ints
from pilothouse.scheduling.config_args import BalancedArgs
from pilothouse.scheduling.framework import MAX_NODE_SCORE, SKIP, Cycle, Nodes, Scope, Skip

from .fit import ScoredResource, resource_usage, scored_resources

__all__ = ["NodeResourcesBalancedAllocation"]

_HALF = MAX_NODE_SCORE // 2


class NodeResourcesBalancedAllocation:
    """Scores by how much more even the parts in use are with the pod than without."""

    name: ClassVar[str] = "NodeResourcesBalancedAllocation"
    score_scope: ClassVar[Scope] = Scope.ROW
    nameless: ClassVar[bool] = True

    def __init__(self, args: BalancedArgs) -> None:
        self._resources = args.resources

    def pre_score(self, cycle: Cycle, feasible: Bools) -> Skip | None:
        del feasible
        found = cycle.local[self.name] = scored_resources(cycle, self._resources, defaults=False)
        return None if any(one.adds for one in found) else SKIP

    def score(self, cycle: Cycle, nodes: Nodes) -> Ints:
        resources: tuple[ScoredResource, ...] = cycle.local[self.name]
        usage = [(one.adds, *resource_usage(nodes, one)) for one in resources]
        better = _evenness([(has, used + adds) for adds, has, used in usage])
        change = _HALF + better - _evenness([(has, used) for _, has, used in usage])
        # Whole numbers, rounded towards zero.
        score: Ints = _HALF + np.sign(change) * (np.abs(change) // 2)
        return score

    def score_row(self, cycle: Cycle, row: int) -> int:
        table = cycle.table
        before, after = [], []
        for column, _, adds, _ in cycle.local[self.name]:
            has = table.allocatable.item(row, column)
            if has:
                used = table.requested.item(row, column)
                before.append(min(used / has, 1.0))
                after.append(min((used + adds) / has, 1.0))
        change = _HALF + _even(after) - _even(before)
        return _HALF + (change // 2 if change >= 0 else -(-change // 2))


def _even(parts: list[float]) -> int:
    deviation = 0.0
    if len(parts) == 2:
        deviation = abs((parts[0] - parts[1]) / 2)
    elif len(parts) > 2:
        total = 0.0
        for part in parts:
            total += part
        mean, squares = total / len(parts), 0.0
        for part in parts:
            squares += (part - mean) * (part - mean)
        deviation = math.sqrt(squares / len(parts))
    return int((1 - deviation) * MAX_NODE_SCORE)


def _evenness(usage: list[tuple[Ints, Ints]]) -> Ints:
    """Give 100 less the standard deviation of the parts in use, of the resources that each node has."""
    size = len(usage[0][0])
    number = np.zeros(size, np.int64)
    total = np.zeros(size)
    parts: list[tuple[NDArray[np.bool_], NDArray[np.float64]]] = []
    for has, used in usage:
        there = has != 0
        part = np.minimum(used / np.where(there, has, 1), 1.0)
        total += np.where(there, part, 0.0)
        number += there
        parts.append((there, part))
    mean = total / np.maximum(number, 1)
    squares = np.zeros(size)
    for there, part in parts:
        squares += np.where(there, (part - mean) * (part - mean), 0.0)
    deviation = np.sqrt(squares / np.maximum(number, 1))
    if len(parts) > 1:
        # Of two it is half their difference, without the square root's last digit.
        pairs = [np.where(there, part, 0.0) for there, part in parts]
        signs = [*range(len(pairs))]
        if len(signs) == 2:
            deviation = np.where(number == 2, np.abs((pairs[0] - pairs[1]) / 2), deviation)
        else:
            deviation = _of_pairs(parts, number, deviation)
    deviation = np.where(number < 2, 0.0, deviation)
    return ((1 - deviation) * MAX_NODE_SCORE).astype(np.int64)


def _of_pairs(
    parts: list[tuple[NDArray[np.bool_], NDArray[np.float64]]], number: Ints, deviation: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Redo nodes that have two of more resources."""
    for position in np.flatnonzero(number == 2).tolist():
        first, second = (float(part[position]) for there, part in parts if there[position])
        deviation[position] = abs((first - second) / 2)
    return deviation
