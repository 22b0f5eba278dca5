"""What there is to tell of a rollout as it is now. Pure.

Argo tells by events; this tells by the objects, so that a restart loses nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.incidents import Incident
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds.structs import to_dict

__all__ = ["OCCASIONS", "Occasion", "occasions"]

_REVISION: Final = "rollout.argoproj.io/revision"
_RUNS: Final[Mapping[str, str]] = {
    "Failed": "on-analysis-run-failed",
    "Error": "on-analysis-run-error",
    "Inconclusive": "on-analysis-run-inconclusive",
}
_OWN: Final = ("updated", "step-completed", "paused", "completed", "aborted")
_INCIDENT: Final = "on-incident-recorded"
OCCASIONS: Final = frozenset({*(f"on-rollout-{name}" for name in _OWN), *_RUNS.values(), _INCIDENT})
"""The triggers that are told by what a rollout is at, not by a condition of theirs alone."""


@dataclass(frozen=True, slots=True)
class Occasion:
    """Something to tell once. key: the same for the same; values: what templates see besides the object."""

    trigger: str
    key: str
    values: Mapping[str, Any] = field(default_factory=dict)


def occasions(rollout: Rollout, runs: Sequence[AnalysisRun] = (), incidents: Sequence[Incident] = ()) -> list[Occasion]:
    """Return what a rollout, its analysis runs and its incidents give to tell, told before or not, as long as it holds.

    A step that is over before anybody looked is told with the next one.
    """
    status, version = rollout.status, rollout.status.current_pod_hash
    if not version:
        return []
    made = [Occasion("on-rollout-updated", f"{rollout.metadata.annotations.get(_REVISION, '')}.{version}")]
    began = _began(rollout)
    if status.abort:
        made.append(Occasion("on-rollout-aborted", f"{version}.{status.aborted_at or ''}"))
    else:
        if status.current_step_index and status.stable_rs != version:
            made.append(Occasion("on-rollout-step-completed", f"{version}.{began}.{status.current_step_index}"))
        made += _pauses(rollout, version)
        if status.stable_rs == version and status.phase == "Healthy":
            made.append(Occasion("on-rollout-completed", f"{version}.{began}"))
    return [*made, *_runs(runs), *_incidents(rollout, incidents)]


def _began(rollout: Rollout) -> str:
    duration = rollout.status.duration
    return (duration.rollout_started_at if duration is not None else None) or ""


def _pauses(rollout: Rollout, version: str) -> Iterable[Occasion]:
    for one in rollout.status.pause_conditions:
        yield Occasion("on-rollout-paused", f"{version}.{one.reason}.{one.start_time}")
    if rollout.spec.paused and not rollout.status.pause_conditions:
        yield Occasion("on-rollout-paused", f"{version}.spec.{rollout.metadata.generation}")


def _runs(runs: Sequence[AnalysisRun]) -> Iterable[Occasion]:
    for run in sorted(runs, key=lambda each: each.metadata.name):
        trigger = _RUNS.get(run.status.phase)
        if trigger is not None:
            yield Occasion(trigger, run.metadata.uid or run.metadata.name, {"analysisRun": to_dict(run)})


def _incidents(rollout: Rollout, incidents: Sequence[Incident]) -> Iterable[Occasion]:
    """Give the incidents of the present version; one of which nothing is filled in yet is none."""
    for one in sorted(incidents, key=lambda each: each.metadata.name):
        is_of = (one.spec.rollout_uid, one.spec.version) == (rollout.metadata.uid, rollout.status.current_pod_hash)
        if is_of and one.status.phase is not None:
            yield Occasion(_INCIDENT, one.metadata.uid or one.metadata.name, {"incident": to_dict(one)})
