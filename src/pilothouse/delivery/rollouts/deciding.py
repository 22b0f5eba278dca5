"""The rollout state machine: from objects as they are to the next writes. Pure; all state is in the objects.

Each decision is one transition of the status and everything that follows from the status it leads to, so that a
controller killed between any two writes comes to the same again. Traffic that leaves a version is written before all
else; traffic that comes to one after the status, whose write fails where somebody has decided otherwise meanwhile.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pilothouse.delivery.errors import RouteInvalid
from pilothouse.delivery.resources.rollouts import RolloutStatus
from pilothouse.kinds.structs import replace

from .actions import (
    Action,
    Annotate,
    CreateSet,
    Plan,
    ScaleWorkload,
    SelectService,
    Tell,
    UpdateSet,
    WriteRegions,
    WriteRoute,
    WriteStatus,
)
from .adopting import adoptions, releases
from .bluegreen import analyses as blue_green_analyses
from .bluegreen import blue_green_next, blue_green_selections
from .canary import analyses as canary_analyses
from .canary import canary_next, effective_split
from .conditions import condition, seconds_to_deadline, with_condition, with_conditions, without_condition
from .experimentsteps import experiment_actions
from .former import former_writes
from .names import REVISION, WORKLOAD_GENERATION
from .restarts import evictions, has_restarted
from .routed import Routed, routed
from .runs import BACKGROUND, POST, PRE, STEP, current, is_bad, refreshed, run_actions
from .scaling import history_actions, mark_actions, new_set, set_actions
from .selecting import canary_selections, selects
from .situation import Situation, hash_label, size
from .statuses import Next, timed
from .traffic import wanted_split
from .validation import not_acted_on, problems
from .view import View
from .weights import weights_of

__all__ = ["decide"]

_AGAIN_SECONDS: Final = 30.0
"""Until what is wrong is looked at again: not all that may put it right, such as a kind that is installed, is told."""
_IGNORED: Final = "NotActedOn"
"""The condition that names fields which are kept but change nothing. Ours."""


def decide(view: View, now: datetime) -> Plan:
    """Return what to do next about a rollout; nothing where it is as it is to be.

    Raises AnalysisInvalid and RouteInvalid for what only shows when it is needed; nothing is to be done then.
    """
    sit = Situation(view, now)
    if view.rollout.metadata.deletion_timestamp is not None:
        return Plan()
    found = problems(sit)
    if found:
        return _invalid(sit, found)
    adopted, released = adoptions(sit), releases(sit)
    if sit.new is None and adopted:
        return Plan(adopted)  # the set of the present template may be among them
    if sit.new is None:
        plan = _created(sit)
        plan.actions[:0] = released  # one of them may have the name
        return plan
    plan = _canary(sit) if sit.canary is not None else _blue_green(sit)
    plan.actions += [*adopted, *released]  # last: nothing that takes users back waits for it
    return plan


# Before it begins


def _invalid(sit: Situation, found: list[str]) -> Plan:
    """Say what is wrong and change nothing, but take users back from a version that is or was judged bad."""
    plan = Plan(again=_AGAIN_SECONDS)
    message = "; ".join(dict.fromkeys(found))
    status = replace(sit.status, observed_generation=str(sit.rollout.metadata.generation or 0))
    status = with_condition(sit, status, "InvalidSpec", "True", "InvalidSpec", message)
    status = replace(status, phase="Degraded", message=f"InvalidSpec: {message}")
    if (sit.is_aborted or _is_judged_bad(sit)) and not sit.is_promoted:
        status = replace(status, abort=True, aborted_at=sit.status.aborted_at or sit.exact_stamp, promote_full=None)
        plan.actions += _taken_back(sit.at(status))
    if status != sit.status:
        plan.actions.append(WriteStatus(status))
        if condition(sit.status, "InvalidSpec") is None:
            plan.actions.append(Tell("InvalidSpec", message, warning=True))
    return plan


def _is_judged_bad(sit: Situation) -> bool:
    """Whether a run that counts now has failed."""
    status = refreshed(sit)
    return any(is_bad(current(status, role)) for role in (STEP, BACKGROUND, PRE, POST))


def _taken_back(after: Situation) -> list[Action]:
    """Return what takes users back to the stable version, as far as routes and services are there for it."""
    if after.blue_green is not None:
        selections, is_back = blue_green_selections(after)
        return list(selections[:1]) if is_back and after.view.services.get(selections[0].name) else []
    if not after.is_routed or not all(after.services):
        return []
    try:
        return [each for each in routed(after, wanted_split(after)).writes if isinstance(each, WriteRoute)]
    except RouteInvalid:
        return []


def _created(sit: Situation) -> Plan:
    """Make the set of the present template."""
    made, revision = new_set(sit), sit.revision
    name = made.metadata.name
    status = without_condition(sit.status, "InvalidSpec")
    message = f'Created new replica set "{name}"'
    status = with_condition(sit, status, "Progressing", "True", "NewReplicaSetCreated", message, renew=True)
    plan = Plan([CreateSet(made), WriteStatus(status), *_annotations(sit)])
    plan.actions.append(Tell("NewReplicaSetCreated", f"Created ReplicaSet {name} (revision {revision})"))
    return plan


def _annotations(sit: Situation) -> list[Action]:
    wanted = {REVISION: str(sit.revision)}
    if sit.spec.workload_ref is not None and sit.view.workload is not None:
        wanted[WORKLOAD_GENERATION] = str((sit.view.workload.get("metadata") or {}).get("generation") or 0)
    missing = wanted.items() - sit.rollout.metadata.annotations.items()
    if not missing:
        return []
    told = dict(sorted(missing))
    made: list[Action] = [Annotate(told)]
    if REVISION in told:
        made.append(Tell("RolloutUpdated", f"Rollout updated to revision {told[REVISION]}"))
    return made


# Canary


def _canary(sit: Situation) -> Plan:
    made, plan = canary_next(sit), Plan()
    after = sit.at(made.status)
    traffic, selections = Routed(), canary_selections(after, is_drained=True)
    if after.is_routed:
        ready = selects(after, after.services[1], hash_label(after.new), selections)
        split, again = effective_split(after, selects_canary=ready)
        if again is not None:
            made.again.append(again)
        if split is not None:
            traffic = routed(after, split)
            before, weights = made.status.canary.weights, weights_of(after, split)
            if before != weights:
                made.status = replace(made.status, canary__weights=weights)
                if (before.canary.weight if before else 0) != weights.canary.weight:
                    was = "" if before is None else f"from {before.canary.weight} "
                    made.tell("TrafficWeightUpdated", f"Traffic weight updated {was}to {weights.canary.weight}")
        is_drained = split is not None and traffic.is_drained
        selections = canary_selections(after, is_drained=is_drained)
        former = []
    else:
        former = _left(sit, made)
    # Routes lead back to the stable service, so it has to select the stable pods before.
    stable_first = any(each.name == after.services[0] for each in selections)
    is_first = traffic.is_away and not stable_first
    writes: list[Action] = list(traffic.writes)
    late: list[Action] = [*selections, *([] if is_first else writes), *traffic.rest]
    return _planned(sit, made, plan, [*former, *(writes if is_first else [])], late)


def _left(sit: Situation, made: Next) -> list[Action]:
    """Return what takes users off routes that this strategy knows nothing of; the status forgets them then."""
    if made.status.canary.weights is not None:
        made.status = replace(made.status, canary__weights=None)
    return former_writes(sit)


def _blue_green(sit: Situation) -> Plan:
    made, plan = blue_green_next(sit), Plan()
    selections, is_back = blue_green_selections(sit.at(made.status))
    early: list[Action] = [*_left(sit, made), *(selections[:1] if is_back else ())]
    late: list[Action] = list(selections[1:]) if is_back else list(selections)
    return _planned(sit, made, plan, early, late)


# The plan


def _planned(sit: Situation, made: Next, plan: Plan, early: list[Action], late: list[Action]) -> Plan:
    """Put the writes in order. early: what takes users back; late: what may show them more."""
    status = _finished(sit, made)
    after = sit.at(status)
    evicted = evictions(after, plan)
    # What is available is not known any more where pods were just evicted.
    sets = [] if evicted else [*set_actions(after, plan), *history_actions(after)]
    plan.actions += early
    if status != sit.status or _shows_more(after, [*late, *sets]):
        plan.actions.append(WriteStatus(status))
    plan.actions += [*made.tells, *_annotations(sit), *late]
    analyses = canary_analyses(after) if after.canary is not None else blue_green_analyses(after)
    plan.actions += run_actions(after, analyses, is_over=_is_over(after))
    plan.actions += experiment_actions(after)
    plan.actions += [*mark_actions(after), *evicted, *sets, *_workload(after)]
    for seconds in made.again:
        plan.wait(seconds)
    left = seconds_to_deadline(after, status)
    if left is not None:
        plan.wait(left if left > 0 else 1.0)
    return plan


def _shows_more(sit: Situation, late: list[Action]) -> bool:
    """Whether users may see more of a version by writes: routes and services, and pods where those split traffic."""
    if any(isinstance(each, (WriteRoute, WriteRegions, SelectService)) for each in late):
        return True
    if sit.canary is None or sit.is_routed or sit.new is None:
        return False
    named, present = sit.new.metadata.name, size(sit.new)
    updates = [each.wanted for each in late if isinstance(each, UpdateSet)]
    return any(each.metadata.name == named and size(each) > present for each in updates)


def _is_over(sit: Situation) -> bool:
    """Whether nothing is measured any more."""
    return sit.is_aborted or sit.is_promoted or sit.is_first or bool(sit.status.promote_full)


def _finished(sit: Situation, made: Next) -> RolloutStatus:
    """Return the next status with what follows from the rest of it."""
    status = without_condition(made.status, "InvalidSpec")
    if has_restarted(sit.at(status)):
        status = replace(status, restarted_at=sit.spec.restart_at)
    ignored = not_acted_on(sit)
    if ignored:
        message = f"kept, but not acted on here: {', '.join(ignored)}"
        status = with_condition(sit, status, _IGNORED, "True", "Unsupported", message)
    else:
        status = without_condition(status, _IGNORED)
    status = timed(sit, status, status.pause_conditions)
    return with_conditions(sit, status, made.abort_message)


def _workload(sit: Situation) -> list[Action]:
    """Return what scales the workload that the rollout takes over from."""
    ref, workload = sit.spec.workload_ref, sit.view.workload
    if ref is None or workload is None or ref.kind != "Deployment" or sit.revision != 1:
        return []
    present = (workload.get("spec") or {}).get("replicas")
    present = 1 if present is None else int(present)
    ready = sit.status.ready_replicas or 0
    wanted = present
    if ref.scale_down == "onsuccess" and sit.status.phase == "Healthy":
        wanted = 0
    elif ref.scale_down == "progressively":
        wanted = 0 if sit.status.phase == "Healthy" else max(sit.replicas - ready, 0) if ready else present
    return [] if wanted == present else [ScaleWorkload(ref.name or "", wanted)]
