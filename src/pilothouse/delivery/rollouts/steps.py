"""The steps of a canary: what each is called, and when it is done. One row of the table a kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pilothouse.delivery.resources.rollouts import CanaryStep, Pause
from pilothouse.kinds import durations

from .counts import is_at_counts
from .names import CANARY_PAUSE, INCONCLUSIVE_EXPERIMENT, REGIONS_PLUGIN
from .runs import STEP, current
from .situation import Situation

__all__ = ["KINDS", "Kind", "is_complete", "kind_of", "pause_left", "pause_seconds", "step_text"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of steps. is_done: given the situation, and whether routes say what they are to say."""

    text: Callable[[Any], str]
    is_done: Callable[[Situation, bool], bool]


def _at_counts(sit: Situation, is_routed: bool) -> bool:
    return is_routed and is_at_counts(sit, sit.status.canary.weights)


def _is_routed(sit: Situation, is_routed: bool) -> bool:
    return is_routed


def _paused_enough(sit: Situation, _: bool) -> bool:
    if sit.pause(CANARY_PAUSE) is None:
        return bool(sit.status.controller_pause)
    left = pause_left(sit)
    return left is not None and left <= 0


def _measured(sit: Situation, _: bool) -> bool:
    step, run = sit.step, current(sit.status, STEP)
    if step is not None and step.analysis is not None and not step.analysis.templates:
        return True
    return run is not None and run.status == "Successful"


def _experimented(sit: Situation, _: bool) -> bool:
    name = sit.status.canary.current_experiment
    found = next((one for one in sit.view.experiments if one.metadata.name == name), None)
    if found is None or not name:
        return False
    if found.status.phase == "Inconclusive":  # whoever resumed it has decided
        return bool(sit.status.controller_pause) and sit.pause(INCONCLUSIVE_EXPERIMENT) is None
    return found.status.phase == "Successful"


def _scale_text(scale: Any) -> str:
    if scale.weight is not None:
        return f"setCanaryScale{{weight: {scale.weight}}}"
    if scale.match_traffic_weight:
        return "setCanaryScale{matchTrafficWeight: true}"
    return f"setCanaryScale{{replicas: {scale.replicas}}}"


def _plugin_text(plugin: Any) -> str:
    if plugin.name == REGIONS_PLUGIN:
        config = plugin.config or {}
        regions = config.get("regions")
        named = ", ".join(map(str, regions)) if isinstance(regions, list) else str(regions)
        return f"plugin: {plugin.name} ({named}: {config.get('weight')})"
    return f"plugin: {plugin.name}"


KINDS: Final[Mapping[str, Kind]] = {
    "set_weight": Kind(lambda weight: f"setWeight: {weight}", _at_counts),
    "pause": Kind(
        lambda pause: "pause" if pause.duration is None else f"pause: {pause.duration}",
        _paused_enough,
    ),
    "experiment": Kind(lambda _: "experiment", _experimented),
    "analysis": Kind(lambda _: "analysis", _measured),
    "set_canary_scale": Kind(_scale_text, _at_counts),
    "set_header_route": Kind(lambda route: f"setHeaderRoute: {route.name}", _is_routed),
    "set_mirror_route": Kind(lambda route: f"setMirrorRoute: {route.name}", _is_routed),
    "plugin": Kind(_plugin_text, _at_counts),
}
"""By the name of the field that says it."""


def kind_of(step: CanaryStep) -> str:
    """Return the field that says what a step is, empty where there is none."""
    return next((name for name in KINDS if getattr(step, name) is not None), "")


def step_text(step: CanaryStep) -> str:
    """Return a step as users read it."""
    name = kind_of(step)
    return KINDS[name].text(getattr(step, name)) if name else "invalid"


def is_complete(sit: Situation, *, is_routed: bool) -> bool:
    """Whether the present step is done. is_routed: whether routes say what they are to say."""
    if sit.step is None or sit.is_halted:
        return False
    name = kind_of(sit.step)
    return bool(name) and KINDS[name].is_done(sit, is_routed)


# Pauses


def pause_seconds(pause: Pause) -> float | None:
    """Return how long a pause is, None for one without end: a number, a number as text, or `10m`.

    Raises DurationError.
    """
    given = pause.duration
    if given is None:
        return None
    if isinstance(given, int):
        return float(given)
    return float(given) if given.isdecimal() else durations.parse(given) / 1e9


def pause_left(sit: Situation) -> float | None:
    """Return the seconds until the present pause ends, None where it does not end by itself."""
    step, there = sit.step, sit.pause(CANARY_PAUSE)
    if step is None or step.pause is None or there is None:
        return None
    seconds = pause_seconds(step.pause)
    return None if seconds is None else seconds - sit.since(there.start_time)
