"""A rollout's analysis runs: which are to be there, what they say, and which are done with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.rollouts import RolloutAnalysis, RolloutStatus, RunStatus
from pilothouse.kinds.structs import ObjectMeta, replace
from pilothouse.operator.owners import owner_reference

from .actions import Action, DeleteRun, StartRun, StopRun
from .analysisruns import given_arguments, metadata_of, run_spec
from .names import HASH, INCONCLUSIVE_RUN, INSTANCE, REVISION, RUN_TYPE, STEP_INDEX
from .situation import Situation, hash_label

__all__ = [
    "BACKGROUND",
    "DONE",
    "POST",
    "PRE",
    "STEP",
    "Role",
    "current",
    "find_run",
    "is_bad",
    "pause_text",
    "refreshed",
    "run_actions",
    "started",
    "without",
]

DONE: Final = frozenset({"Successful", "Failed", "Error", "Inconclusive"})
_BAD: Final = frozenset({"Failed", "Error"})
_KEPT: Final = 5


@dataclass(frozen=True, slots=True)
class Role:
    """A place that one analysis run has in a rollout. field: of the status. told: how users know it."""

    label: str
    field: str
    told: str


STEP: Final = Role("Step", "canary__current_step_analysis_run_status", "Step-based analysis")
BACKGROUND: Final = Role("Background", "canary__current_background_analysis_run_status", "Background analysis")
PRE: Final = Role("PrePromotion", "blue_green__pre_promotion_analysis_run_status", "Pre-promotion analysis")
POST: Final = Role("PostPromotion", "blue_green__post_promotion_analysis_run_status", "Post-promotion analysis")
_ROLES: Final = (STEP, BACKGROUND, PRE, POST)


def current(status: RolloutStatus, role: Role) -> RunStatus | None:
    """Return the run that has a role now."""
    group, _, name = role.field.partition("__")
    found: RunStatus | None = getattr(getattr(status, group), name)
    return found


def without(status: RolloutStatus, *roles: Role) -> RolloutStatus:
    """Return a status in which nobody has these roles."""
    return replace(status, **{role.field: None for role in roles if current(status, role) is not None})


def find_run(sit: Situation, name: str) -> AnalysisRun | None:
    """Return a run of the rollout by its name."""
    return next((run for run in sit.view.runs if run.metadata.name == name), None)


def refreshed(sit: Situation) -> RolloutStatus:
    """Return the status with what its runs say by now.

    A run that ended does not go back: what one view has of it another, older one may not have yet.
    """
    status = sit.status
    for role in _ROLES:
        there = current(status, role)
        run = None if there is None else find_run(sit, there.name)
        if there is None or run is None or there.status in DONE:
            continue
        phase = run.status.phase or there.status
        made = RunStatus(name=there.name, status=phase, message=run.status.message or None)
        if made != there:
            status = replace(status, **{role.field: made})
    return status


def pause_text(status: RolloutStatus) -> str:
    """Return why a rollout is paused, before all that an analysis cannot tell, and what it says."""
    reasons = [one.reason for one in status.pause_conditions]
    if INCONCLUSIVE_RUN not in reasons:
        return reasons[0]
    found = [run for role in _ROLES if (run := current(status, role)) is not None and run.status == "Inconclusive"]
    return ": ".join(filter(None, [INCONCLUSIVE_RUN, found[0].message if found else ""]))


def is_bad(found: RunStatus | None) -> bool:
    """Whether a run says that the version is to be taken back."""
    return found is not None and found.status in _BAD


def started(sit: Situation, status: RolloutStatus, role: Role) -> RolloutStatus:
    """Return a status that names a new run for a role; that it is named makes it be made."""
    infix = {STEP: str(sit.index), PRE: "pre", POST: "post"}.get(role)
    base = "-".join([sit.name, sit.hash, str(sit.revision), *([infix] if infix else [])])
    taken = {run.metadata.name for run in sit.view.runs}
    if (there := current(status, role)) is not None:
        taken.add(there.name)
    name = next(name for name in _numbered(base) if name not in taken)
    return replace(status, **{role.field: RunStatus(name=name, status="Pending")})


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 0
    while True:
        number += 1
        yield f"{base}.{number}"


# What there is to do


def run_actions(sit: Situation, analyses: Mapping[Role, RolloutAnalysis | None], *, is_over: bool) -> list[Action]:
    """Return what makes runs those that the status names. is_over: none is needed any more. Raises AnalysisInvalid."""
    named = {role: found for role in _ROLES if (found := current(sit.status, role)) is not None}
    made: list[Action] = []
    for role, there in named.items():
        analysis = analyses.get(role)
        if find_run(sit, there.name) is None and there.status not in DONE and analysis is not None and not is_over:
            made.append(StartRun(_run(sit, role, there.name, analysis)))
    kept = {there.name for there in named.values()}
    left = [run for run in sit.view.runs if run.metadata.name not in kept]
    unneeded = [run for run in (sit.view.runs if is_over else left) if run.metadata.deletion_timestamp is None]
    unneeded = [run for run in unneeded if run.status.phase not in DONE and not run.spec.terminate]
    made += [StopRun(run.metadata.name) for run in unneeded]
    return [*made, *(DeleteRun(run) for run in _superfluous(sit, left))]


def _superfluous(sit: Situation, left: Iterable[AnalysisRun]) -> list[AnalysisRun]:
    """Return the runs beyond the history's limits, and those of versions that are gone."""
    limits = sit.spec.analysis
    good = _limit(None if limits is None else limits.successful_run_history_limit)
    bad = _limit(None if limits is None else limits.unsuccessful_run_history_limit)
    ended = [run for run in left if run.status.phase in DONE and run.metadata.deletion_timestamp is None]
    ended.sort(key=lambda run: (run.metadata.creation_timestamp or "", run.metadata.name), reverse=True)
    there = {hash_label(found) for found in sit.sets}
    kept = [run for run in ended if run.metadata.labels.get(HASH, "") in there]
    well = [run for run in kept if run.status.phase == "Successful"]
    ill = [run for run in kept if run.status.phase != "Successful"]
    return [*(run for run in ended if run not in kept), *well[good:], *ill[bad:]]


def _limit(given: int | None) -> int:
    return _KEPT if given is None else given


def _run(sit: Situation, role: Role, name: str, analysis: RolloutAnalysis) -> AnalysisRun:
    hashes = {"Latest": sit.hash, "Stable": sit.status.stable_rs or ""}
    given = given_arguments(analysis.args, sit.rollout, hashes)
    extra = metadata_of(analysis.analysis_run_metadata)
    labels = {HASH: sit.hash, RUN_TYPE: role.label}
    if role is STEP:
        labels[STEP_INDEX] = str(sit.index)
    if instance := sit.rollout.metadata.labels.get(INSTANCE):
        labels[INSTANCE] = instance
    return AnalysisRun(
        metadata=ObjectMeta(
            name=name,
            namespace=sit.namespace,
            labels={**labels, **extra.labels, **sit.selector.match_labels},
            annotations={REVISION: str(sit.revision), **extra.annotations},
            owner_references=(owner_reference(sit.rollout),),
        ),
        spec=run_spec(analysis.templates, sit.view.templates, given, analysis.dry_run, analysis.measurement_retention),
    )
