"""DefaultPreemption: which pods of lower priority have to go so that a pod fits, and on which node it costs least.

On each node that might do, all pods of lower priority are thought away; then they are let stay one by one, the more
important first and those whose disruption budget would be broken before the others, as long as the pod still fits.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilothouse.kinds import times
from pilothouse.kinds.structs import Pod
from pilothouse.scheduling.config_args import PreemptionArgs
from pilothouse.scheduling.evaluation import Evaluation
from pilothouse.scheduling.framework import Cycle, PostFiltered, Scope
from pilothouse.scheduling.messages import fit_message
from pilothouse.scheduling.requests import PODS
from pilothouse.scheduling.rows import Placed
from pilothouse.scheduling.shapes import PodShape

from .fit import NodeResourcesFit

__all__ = ["Candidate", "DefaultPreemption", "start_time"]

_NO_VICTIMS: Final = "No preemption victims found for incoming pod"
_NOT_HELPFUL: Final = "Preemption is not helpful for scheduling"
_HALF_RANGE: Final = 1 << 31


@lru_cache(maxsize=16384)
def _seconds(text: str) -> float:
    return times.parse(text).timestamp()


def start_time(pod: Pod) -> float:
    """Give the second at which a pod was started; infinity where it has not been."""
    return _seconds(pod.status.start_time) if pod.status.start_time else float("inf")


class Candidate(NamedTuple):
    """A node on which the pod would fit without some others, the more important of them first."""

    row: int
    victims: tuple[Placed, ...]
    violations: int
    cost: tuple[int, int, int, int, float]
    """What is compared: the lower the better."""


@dataclass(slots=True, frozen=True)
class _Kept:
    """What was found out for a row, for as long as nothing on it changes."""

    version: int
    budgets: int
    result: Candidate | tuple[str, ...]


_COST: Final = operator.attrgetter("cost")


def _importance(placed: Placed) -> tuple[int, float]:
    return -placed.shape.priority, start_time(placed.pod)


class DefaultPreemption:
    """Makes room for a pod by having pods of lower priority deleted."""

    name: ClassVar[str] = "DefaultPreemption"

    def __init__(self, args: PreemptionArgs) -> None:
        self._percentage = args.min_candidate_nodes_percentage
        self._absolute = args.min_candidate_nodes_absolute

    def post_filter(self, cycle: Cycle, open_rows: NDArray[np.intp], profile: Any) -> PostFiltered:
        evaluation: Evaluation = profile
        if reason := self._ineligible(cycle, open_rows):
            return PostFiltered(None, message=f"preemption: {reason}", keep_nomination=True)
        candidates, reasons = self._candidates(cycle, open_rows, evaluation)
        if not candidates:
            nodes = len(cycle.table)
            absent = nodes - sum(number for _, number in reasons.values())
            counted = {reason: number for reason, (number, _) in reasons.items()}
            if absent:
                counted[_NOT_HELPFUL] = absent
            return PostFiltered("", message=f"preemption: {fit_message(nodes, counted)}")
        best = min(candidates, key=_COST)
        victims = tuple(placed.pod for placed in best.victims)
        return PostFiltered(cycle.table.name(best.row), victims)

    @staticmethod
    def _ineligible(cycle: Cycle, open_rows: NDArray[np.intp]) -> str:
        if cycle.pod.spec.preemption_policy == "Never":
            return "not eligible due to preemptionPolicy=Never."
        row = cycle.table.row_of.get(cycle.pod.status.nominated_node_name, -1)
        if row >= 0 and row in open_rows:
            for placed in cycle.table.pods[row].values():
                if placed.shape.priority < cycle.shape.priority and _being_preempted(placed.pod):
                    return "not eligible due to a terminating pod on the nominated node."
        return ""

    def _candidates(
        self, cycle: Cycle, open_rows: NDArray[np.intp], evaluation: Evaluation
    ) -> tuple[list[Candidate], dict[str, tuple[int, int]]]:
        """Look for victims on enough nodes, from a random one on.

        Also gives reasons why others do not do: how many nodes each holds for, and how many it is the first one of.
        """
        rows: list[int] = open_rows.tolist()
        if not rows:
            return [], {}
        wanted = min(len(rows), max(len(rows) * self._percentage // 100, self._absolute))
        offset = cycle.random.randrange(len(rows))
        kept: dict[int, _Kept] = cycle.local.setdefault(self.name, {})
        only = _only_resources(cycle, evaluation)
        # What is kept is for all pods of the shape, so not where the pod itself makes a difference.
        own = {row for row, pods in cycle.table.nominated.items() if cycle.pod.metadata.uid in pods}
        found: list[Candidate] = []
        clean = 0
        reasons: dict[str, tuple[int, int]] = {}
        for row in (*rows[offset:], *rows[:offset]):
            result = self._on_row(cycle, row, evaluation, None if row in own else only, kept)
            if isinstance(result, Candidate):
                found.append(result)
                clean += not result.violations
                if clean and len(found) >= wanted:
                    break
                continue
            for position, reason in enumerate(result):
                number, first = reasons.get(reason, (0, 0))
                reasons[reason] = (number + 1, first + (position == 0))
        # Nodes without broken budgets come first, as upstream lists them.
        return sorted(found, key=lambda one: one.violations > 0), reasons

    def _on_row(
        self,
        cycle: Cycle,
        row: int,
        evaluation: Evaluation,
        quick: NodeResourcesFit | None,
        kept: dict[int, _Kept],
    ) -> Candidate | tuple[str, ...]:
        version, budgets = cycle.table.versions[row], cycle.cluster.budgets_version
        known = kept.get(row)
        if quick is not None and known is not None and (known.version, known.budgets) == (version, budgets):
            return known.result
        lower = [one for one in cycle.table.pods[row].values() if one.shape.priority < cycle.shape.priority]
        if not lower:
            result: Candidate | tuple[str, ...] = (_NO_VICTIMS,)
        elif quick is not None:
            result = _by_resources(cycle, row, sorted(lower, key=_importance), quick)
        else:
            result = _by_trial(cycle, row, sorted(lower, key=_importance), evaluation)
        if quick is not None:
            kept[row] = _Kept(version, budgets, result)
        return result


def _being_preempted(pod: Pod) -> bool:
    if pod.metadata.deletion_timestamp is None:
        return False
    return any(
        one.type == "DisruptionTarget" and one.status == "True" and one.reason == "PreemptionByScheduler"
        for one in pod.status.conditions
    )


def _cost(victims: Sequence[Placed], violations: int) -> tuple[int, int, int, int, float]:
    """Say what a node's victims cost.

    Broken budgets; then the priority of the most important victim; the sum of priorities; the number of victims; how
    early the first of the most important ones started.
    """
    highest = victims[0].shape.priority
    starts = [start_time(placed.pod) for placed in victims if placed.shape.priority == highest]
    total = sum(placed.shape.priority + _HALF_RANGE for placed in victims)
    return violations, highest, total, len(victims), -min(starts)


def _only_resources(cycle: Cycle, evaluation: Evaluation) -> NodeResourcesFit | None:
    """Give the plugin that checks resources if it is the only one for which it matters which pods there are."""
    asked = [
        plugin for plugin, codes in evaluation.codes(cycle) if plugin.scope is not Scope.NODE or _hopeful(plugin, codes)
    ]
    return asked[0] if len(asked) == 1 and type(asked[0]) is NodeResourcesFit else None


def _hopeful(plugin: Any, codes: NDArray[np.int64]) -> bool:
    """Whether a filter by nodes alone refuses some, yet not for good: no plugin of ours does."""
    return not type(plugin).__module__.startswith("pilothouse.scheduling.") and bool(codes.any())


def _split(cycle: Cycle, pods: Iterable[Placed]) -> tuple[list[Placed], list[Placed]]:
    """Part pods whose going would break a disruption budget from the others."""
    budgets = [(budget, selector) for budget, selector in cycle.cluster.budgets.values() if not selector.empty]
    allowed = [budget.status.disruptions_allowed for budget, _ in budgets]
    breaking: list[Placed] = []
    others: list[Placed] = []
    for placed in pods:
        meta = placed.pod.metadata
        breaks = False
        for position, (budget, selector) in enumerate(budgets):
            if budget.metadata.namespace != meta.namespace or not meta.labels or not selector.matches(meta.labels):
                continue
            if meta.name in budget.status.disrupted_pods:
                continue
            allowed[position] -= 1
            breaks = breaks or allowed[position] < 0
        (breaking if breaks else others).append(placed)
    return breaking, others


def _candidate(row: int, victims: list[Placed], breaking: list[Placed], others: list[Placed]) -> Candidate:
    violations = sum(one in victims for one in breaking)
    ordered = sorted(victims, key=_importance) if breaking and others else victims
    return Candidate(row, tuple(ordered), violations, _cost(ordered, violations))


def _by_resources(cycle: Cycle, row: int, lower: list[Placed], fit: NodeResourcesFit) -> Candidate | tuple[str, ...]:
    """Find the victims by arithmetic alone."""
    table = cycle.table
    columns = [(column, value) for _, column, value in fit.wanted(cycle)]
    pods_column = table.resources[PODS]
    columns.append((pods_column, 1))
    has, used = table.allocatable[row].tolist(), table.requested[row].tolist()
    for shape in table.nominated.get(row, {}).values():
        if shape.priority >= cycle.shape.priority:
            for column, _ in columns:
                used[column] += _uses(cycle, shape, column)
    free = [has[column] - used[column] - value for column, value in columns]
    needs = [[_uses(cycle, placed.shape, column) for column, _ in columns] for placed in lower]
    for need in needs:
        free = [left + part for left, part in zip(free, need, strict=True)]
    if min(free) < 0:
        code = 0
        for position, left in enumerate(free[:-1]):
            code |= (1 << (1 + 2 * position)) if left < 0 else 0
        return fit.explain(cycle, code | (free[-1] < 0)).reasons
    breaking, others = _split(cycle, lower)
    need_of = {placed.uid: need for placed, need in zip(lower, needs, strict=True)}
    victims: list[Placed] = []
    for placed in (*breaking, *others):
        left = [have - part for have, part in zip(free, need_of[placed.uid], strict=True)]
        if min(left) < 0:
            victims.append(placed)
        else:
            free = left
    if not victims:
        return ()
    return _candidate(row, victims, breaking, others)


def _uses(cycle: Cycle, shape: PodShape, column: int) -> int:
    used: list[int] = shape.memo.get("uses") or cycle.table.uses(shape)
    shape.memo["uses"] = used
    return used[column] if column < len(used) else 0


def _by_trial(cycle: Cycle, row: int, lower: list[Placed], evaluation: Evaluation) -> Candidate | tuple[str, ...]:
    """Find the victims by asking all filters, with pods gone and back again."""
    table = cycle.table

    def refused(gone: list[Placed]) -> tuple[Any, int] | None:
        with table.supposing([], gone):
            return evaluation.check_row(cycle, row)

    with table.supposing([], lower):
        found = evaluation.check_row(cycle, row)
        if found is not None:
            plugin, code = found
            reasons: tuple[str, ...] = plugin.explain(cycle, code).reasons if code > 0 else ()
            return reasons
    breaking, others = _split(cycle, lower)
    gone = [*lower]
    for placed in (*breaking, *others):
        without = [one for one in gone if one is not placed]
        if refused(without) is None:
            gone = without
    if not gone:
        return ()
    victims = [one for one in (*breaking, *others) if one in gone]
    return _candidate(row, victims, breaking, others)
