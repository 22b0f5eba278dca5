"""Why no node took a pod, in the words that people know from kube-scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .evaluation import Evaluation, Found
from .framework import Cycle

__all__ = ["Diagnosis", "diagnose", "fit_message"]


@dataclass(slots=True)
class Diagnosis:
    """What kept a pod off the nodes. `open_rows` are those from which other pods would have to go."""

    nodes: int
    reasons: dict[str, int] = field(default_factory=dict)
    plugins: set[str] = field(default_factory=set)
    open_rows: NDArray[np.intp] = field(default_factory=lambda: np.zeros(0, np.intp))
    of_all: str = ""
    """The reason that holds for all nodes, found before any was looked at."""

    @property
    def message(self) -> str:
        """The text without what came of preemption."""
        return fit_message(self.nodes, self.reasons, self.of_all)


def fit_message(nodes: int, reasons: Mapping[str, int], of_all: str = "") -> str:
    """Give the text, as `0/5 nodes are available: 2 Insufficient cpu, 3 node(s) were unschedulable.` is one."""
    begin = f"0/{nodes} nodes are available:"
    if of_all:
        return f"{begin} {of_all}."
    listed = sorted(f"{number} {reason}" for reason, number in reasons.items())
    return f"{begin} {', '.join(listed)}." if listed else begin


def diagnose(cycle: Cycle, evaluation: Evaluation, found: Found) -> Diagnosis:
    """Count for each reason the nodes that it holds for: that of the first filter that refused, as upstream."""
    table = cycle.table
    if found.reject is not None:
        rows = np.flatnonzero(table.valid[: table.size])
        open_rows = rows if not found.reject.final else rows[:0]
        return Diagnosis(len(table), {}, {found.rejected_by}, open_rows, found.reject.reason)
    result = Diagnosis(len(table))
    left = table.valid[: table.size].copy()
    if evaluation.narrowed:
        _leave_out(cycle, evaluation, left, result)
    still_open = np.zeros(table.size, np.bool_)
    for plugin, codes in evaluation.codes(cycle):
        refused = left & (codes != 0)
        if not refused.any():
            continue
        result.plugins.add(plugin.name)
        _explain(cycle, plugin, codes, refused, still_open, result)
        left &= ~refused
    result.open_rows = np.flatnonzero(still_open)
    return result


def _explain(
    cycle: Cycle,
    plugin: Any,
    codes: NDArray[np.int64],
    refused: NDArray[np.bool_],
    still_open: NDArray[np.bool_],
    result: Diagnosis,
) -> None:
    for code, number in zip(*np.unique(codes[refused], return_counts=True), strict=True):
        refusal = plugin.explain(cycle, int(code))
        for reason in refusal.reasons:
            result.reasons[reason] = result.reasons.get(reason, 0) + int(number)
        if not refusal.final:
            still_open |= refused & (codes == code)


def _leave_out(cycle: Cycle, evaluation: Evaluation, left: NDArray[np.bool_], result: Diagnosis) -> None:
    names = frozenset.intersection(*evaluation.narrowed.values())
    looked_at = cycle.nodes.mark((cycle.table.row_of[one] for one in names if one in cycle.table.row_of), 1) == 1
    absent = int(np.count_nonzero(left & ~looked_at))
    plugins = " ".join(sorted(evaluation.narrowed))
    if absent:
        result.reasons[f"node(s) didn't satisfy plugin(s) [{plugins}]"] = absent
    result.plugins.update(evaluation.narrowed)
    left &= looked_at
