"""How fast and how far an autoscaler may go: bounds, policies, and the windows in which it rather waits. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pilothouse.kinds.structs.autoscaling import HorizontalPodAutoscalerSpec, HPAScalingRules

__all__ = ["DOWN_WINDOW_SECONDS", "Change", "History", "Limited", "limited"]

DOWN_WINDOW_SECONDS: Final = 300.0
_UP_FACTOR: Final = 2
_UP_LEAST: Final = 4
_WITHIN: Final = ("DesiredWithinRange", "the desired count is within the acceptable range")
_TOO_FAST: Final = ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate")
_TOO_MANY: Final = ("TooManyReplicas", "the desired replica count is more than the maximum replica count")
_TOO_FAST_DOWN: Final = ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate")
_TOO_FEW: Final = ("TooFewReplicas", "the desired replica count is less than the minimum replica count")
_WAITS_DOWN: Final = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
)
_WAITS_UP: Final = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
)
_READY: Final = ("ReadyForNewScale", "recommended size matches current size")

Why = tuple[str, str]
"""A reason and a message."""


class Change(NamedTuple):
    """By how many replicas a target was changed, or what was recommended; at: seconds of a clock."""

    number: int
    at: float


@dataclass(slots=True)
class History:
    """What was recommended and done for one autoscaler. Bounded by the windows of its rules."""

    recommended: list[Change] = field(default_factory=list)
    ups: list[Change] = field(default_factory=list)
    downs: list[Change] = field(default_factory=list)

    def begin(self, current: int, now: float) -> None:
        """Take the present size for the first recommendation."""
        if not self.recommended:
            self.recommended.append(Change(current, now))

    def recommend(self, number: int, now: float, keep: float) -> None:
        """Add a recommendation; drop those older than `keep` seconds."""
        self.recommended = [*_since(self.recommended, now - keep), Change(number, now)]

    def scaled(self, spec: HorizontalPodAutoscalerSpec, before: int, after: int, now: float) -> None:
        """Note that the target was scaled; drop what no policy looks back to."""
        behavior = spec.behavior
        if behavior is None:
            return
        if after > before:
            self.ups = [*_since(self.ups, now - _longest(behavior.scale_up)), Change(after - before, now)]
        else:
            self.downs = [*_since(self.downs, now - _longest(behavior.scale_down)), Change(before - after, now)]


class Limited(NamedTuple):
    """replicas that there shall be. able: why it may scale or waits. is_limited, why: whether a bound keeps it."""

    replicas: int
    able: Why
    is_limited: bool
    why: Why


def limited(
    spec: HorizontalPodAutoscalerSpec, history: History, current: int, wanted: int, minimum: int, now: float
) -> Limited:
    """Bring what metrics ask for within the bounds, and remember it. now: seconds of the history's clock."""
    if spec.behavior is None:
        stable = max([wanted, *(found.number for found in _since(history.recommended, now - DOWN_WINDOW_SECONDS))])
        history.recommend(wanted, now, DOWN_WINDOW_SECONDS)
        waits = _WAITS_DOWN
        replicas, why = _bounded(spec, current, stable, minimum)
    else:
        up, down = spec.behavior.scale_up or HPAScalingRules(), spec.behavior.scale_down or HPAScalingRules()
        stable = _stabilized(history, up, down, current, wanted, now)
        waits = _WAITS_UP if wanted >= current else _WAITS_DOWN
        replicas, why = _by_policies(spec, history, current, stable, minimum, now)
    able = _READY if stable == wanted else waits
    return Limited(replicas, able, replicas != stable, why)


def _bounded(spec: HorizontalPodAutoscalerSpec, current: int, wanted: int, minimum: int) -> tuple[int, Why]:
    rate = max(_UP_FACTOR * current, _UP_LEAST)
    most, why = (rate, _TOO_FAST) if spec.max_replicas > rate else (spec.max_replicas, _TOO_MANY)
    if wanted < minimum:
        return minimum, _TOO_FEW
    return (most, why) if wanted > most else (wanted, _WITHIN)


def _stabilized(
    history: History, up: HPAScalingRules, down: HPAScalingRules, current: int, wanted: int, now: float
) -> int:
    up_window = float(up.stabilization_window_seconds or 0)
    window = down.stabilization_window_seconds
    down_window = DOWN_WINDOW_SECONDS if window is None else float(window)
    lowest = min([wanted, *(found.number for found in history.recommended if found.at > now - up_window)])
    highest = max([wanted, *(found.number for found in history.recommended if found.at > now - down_window)])
    history.recommend(wanted, now, max(up_window, down_window))
    return min(max(current, lowest), highest)


def _by_policies(
    spec: HorizontalPodAutoscalerSpec, history: History, current: int, wanted: int, minimum: int, now: float
) -> tuple[int, Why]:
    behavior = spec.behavior
    if behavior is None or wanted == current:
        return wanted, _WITHIN
    if wanted > current:
        rate = max(current, _up_limit(behavior.scale_up or HPAScalingRules(), history, current, now))
        most, why = (rate, _TOO_FAST) if spec.max_replicas > rate else (spec.max_replicas, _TOO_MANY)
        return (most, why) if wanted > most else (wanted, _WITHIN)
    rate = min(current, _down_limit(behavior.scale_down or HPAScalingRules(), history, current, now))
    least, why = (rate, _TOO_FAST_DOWN) if minimum < rate else (minimum, _TOO_FEW)
    return (least, why) if wanted < least else (wanted, _WITHIN)


def _up_limit(rules: HPAScalingRules, history: History, current: int, now: float) -> int:
    if rules.select_policy == "Disabled":
        return current
    limits = []
    for policy in rules.policies:
        before = _before(history, current, now - policy.period_seconds)
        by_percent = math.ceil(before * (1 + policy.value / 100))
        limits.append(before + policy.value if policy.type == "Pods" else by_percent)
    return (min if rules.select_policy == "Min" else max)(limits, default=current)


def _down_limit(rules: HPAScalingRules, history: History, current: int, now: float) -> int:
    if rules.select_policy == "Disabled":
        return current
    limits = []
    for policy in rules.policies:
        before = _before(history, current, now - policy.period_seconds)
        by_percent = int(before * (1 - policy.value / 100))
        limits.append(before - policy.value if policy.type == "Pods" else by_percent)
    return (max if rules.select_policy == "Min" else min)(limits, default=current)


def _before(history: History, current: int, since: float) -> int:
    """Return how many replicas there were at the beginning of a period."""
    ups = sum(found.number for found in history.ups if found.at > since)
    downs = sum(found.number for found in history.downs if found.at > since)
    return current - ups + downs


def _since(changes: Sequence[Change], since: float) -> Iterable[Change]:
    return [found for found in changes if found.at >= since]


def _longest(rules: HPAScalingRules | None) -> float:
    return float(max((policy.period_seconds for policy in (rules.policies if rules else ())), default=0))
