"""The canary: what its status becomes, one transition at a time."""

from __future__ import annotations

from typing import Final

from pilothouse.delivery.resources.rollouts import RolloutAnalysis, StepPluginStatus
from pilothouse.kinds import durations
from pilothouse.kinds.structs import replace

from .conditions import PROMOTION_WATCH, condition, counted, has_timed_out, with_condition
from .counts import is_far_enough
from .experimentsteps import experiment_verdict, named_experiment
from .names import CANARY_PAUSE, INCONCLUSIVE_EXPERIMENT, INCONCLUSIVE_RUN, JUDGEMENT_PLUGIN, WATCH_AFTER
from .routed import routed
from .runs import BACKGROUND, STEP, Role, current, is_bad, pause_text, refreshed, started, without
from .situation import Situation, available, hash_label
from .statuses import Next, aborted, begun, paused, promoted, resumed, settled_pauses, skips_all, template_changed
from .steps import is_complete, pause_left, step_text
from .traffic import SETTLE_SECONDS, may_take, wanted_split
from .weights import Split, region_config

__all__ = ["analyses", "canary_next", "effective_split", "watch_seconds"]

_WATCH_SECONDS: Final = 120.0
"""How long our own judgement goes on with all traffic at the new version, unless the annotation says otherwise."""


def canary_next(sit: Situation) -> Next:
    """Return what a canary's status becomes, but for weights and conditions."""
    if template_changed(sit):
        made = begun(sit)
        made.status = counted(sit, made.status)
        return made
    was = sit
    made = Next(counted(sit, refreshed(sit)))
    if skips_all(sit.at(made.status)):
        made.status = replace(
            resumed(made.status), abort=None, aborted_at=None, current_step_index=len(sit.steps) if sit.steps else None
        )
    sit = sit.at(made.status)
    if (why := _promotion(sit, made)) is not None:
        promoted(sit, made, why)
    elif sit.is_aborted:
        aborted(sit, made)
    else:
        _go_on(was, made)
        if not made.status.abort and sit.spec.progress_deadline_abort and has_timed_out(was, made.status):
            aborted(sit.at(made.status), made, f'ReplicaSet "{hash_label(sit.new)}" has timed out progressing')
    return made


# The traffic


def effective_split(sit: Situation, *, selects_canary: bool) -> tuple[Split | None, float | None]:
    """Return the split to bring about now, None where routes are left as they are, and when to look again.

    selects_canary: whether the canary service selects the new pods, or will before routes are written.
    """
    split = wanted_split(sit)
    if sit.is_aborted or sit.is_first:
        return split, None
    if sit.is_promoted:
        return _after_promotion(sit, split)
    if available(sit.new) and not may_take(sit, split):
        return None, None
    if split.shows_canary and not selects_canary:
        return Split(split.total, additional=split.additional), None
    return split, None


def _after_promotion(sit: Situation, split: Split) -> tuple[Split | None, float | None]:
    """Leave routes until the stable service, which they go back to, has the pods that were the canary's."""
    weights = sit.status.canary.weights
    stable, stable_hash = sit.services[0], hash_label(sit.stable)
    if weights is None or not weights.canary.weight or weights.canary.pod_template_hash != stable_hash:
        return split, None
    if sit.selected(stable) != stable_hash:
        return None, None
    completed = condition(sit.status, "Completed")
    left = SETTLE_SECONDS - sit.since(None if completed is None else completed.last_transition_time)
    return (None, left) if left > 0 else (split, None)


def _is_routed(sit: Situation) -> bool:
    """Whether routes say what they are to say now."""
    if not sit.is_routed:
        return True
    split, _ = effective_split(sit, selects_canary=sit.selected(sit.services[1]) == hash_label(sit.new))
    return split is not None and split == wanted_split(sit) and routed(sit, split).is_done


# Promotion


def _promotion(sit: Situation, made: Next) -> str | None:
    """Return why the present template becomes the stable one now, None where it does not yet."""
    if sit.is_first:
        return "Initial deploy"
    if sit.is_promoted:
        return "Fast rollback"
    enough = available(sit.new) >= sit.replicas or is_far_enough(sit, sit.new, sit.replicas)
    if sit.is_aborted or not enough:
        return None
    if sit.stable is None:
        return "Initial deploy"
    if sit.status.promote_full:
        return "Full promotion requested"
    return None if sit.is_halted else _completion(sit, made)


def _completion(sit: Situation, made: Next) -> str | None:
    """Return why a version is done that has all its pods."""
    if sit.is_back_within_window:
        return "Rollback within window"
    if not sit.is_past_steps or (sit.steps and not _is_routed(sit)) or _is_watched(sit, made):
        return None
    return f"Completed all {len(sit.steps)} canary steps"


def watch_seconds(sit: Situation) -> float:
    """Return how long background analysis goes on with all traffic at the new version before that is the stable one.

    The annotation says it; without one it is 120 s where our own judgement measures, and nothing otherwise, as with
    Argo. Raises DurationError.
    """
    background = None if sit.canary is None else sit.canary.analysis
    if background is None or not background.templates or not sit.steps:
        return 0.0
    text = sit.rollout.metadata.annotations.get(WATCH_AFTER)
    if text is not None:
        return float(text) if text.isdecimal() else durations.parse(text) / 1e9
    metrics = [metric for spec in sit.view.templates.values() for metric in spec.metrics]
    ours = any(JUDGEMENT_PLUGIN in (metric.provider.plugin or {}) for metric in metrics)
    return _WATCH_SECONDS if ours else 0.0


def _is_watched(sit: Situation, made: Next) -> bool:
    """Whether the time of watching is not over; it begins when all traffic has come."""
    seconds = watch_seconds(sit)
    if seconds <= 0 or current(sit.status, BACKGROUND) is None:
        return False
    there = condition(made.status, PROMOTION_WATCH)
    if there is None:
        message = f"all traffic is at revision {sit.revision}; its analysis goes on for {seconds:g} s"
        made.status = with_condition(sit, made.status, PROMOTION_WATCH, "True", "Watching", message)
        made.again.append(seconds)
        return True
    left = seconds - sit.since(there.last_transition_time)
    made.again.append(left)
    return left > 0


# The steps


def _go_on(was: Situation, made: Next) -> None:
    """Take the verdicts, then the next step if the present one is done."""
    if made.status.aborted_at:  # it is tried again
        made.status = replace(made.status, aborted_at=None)
    if made.status.promote_full:
        made.status = replace(without(made.status, STEP, BACKGROUND), canary__current_experiment=None)
        return
    _judge(was, made)
    if made.status.abort:
        return
    sit = was.at(made.status)
    if is_complete(sit, is_routed=_is_routed(sit)):
        _complete(sit, made)
    elif sit.step is not None and sit.step.pause is not None:
        _pause(sit, made)
    elif sit.step is not None and region_config(sit.step) is not None:
        _note_plugin(sit, made, "Running")
    if not sit.spec.paused:  # until then that somebody ended a pause must not be forgotten: nothing has come of it yet
        made.status = settled_pauses(made.status)


def _complete(sit: Situation, made: Next) -> None:
    step, index = sit.step, sit.index or 0
    if step is None:
        return
    if step.plugin is not None:
        _note_plugin(sit, made, "Successful")
    status = without(resumed(made.status, CANARY_PAUSE, INCONCLUSIVE_EXPERIMENT), STEP)
    made.status = replace(status, current_step_index=index + 1, canary__current_experiment=None)
    made.tell("RolloutStepCompleted", f"Rollout step {index + 1}/{len(sit.steps)} completed ({step_text(step)})")


def _pause(sit: Situation, made: Next) -> None:
    if sit.spec.paused:
        return
    if sit.pause(CANARY_PAUSE) is None:
        made.status = paused(sit, made.status, CANARY_PAUSE)
        made.tell("RolloutPaused", f"Rollout is paused ({CANARY_PAUSE})")
    left = pause_left(sit.at(made.status))
    if left is not None:
        made.again.append(left)


def _note_plugin(sit: Situation, made: Next, phase: str) -> None:
    step, index = sit.step, sit.index or 0
    if step is None or step.plugin is None:
        return
    found = [one for one in made.status.canary.step_plugin_statuses if one.index != index]
    before = next((one for one in made.status.canary.step_plugin_statuses if one.index == index), None)
    one = StepPluginStatus(
        index=index,
        name=step.plugin.name,
        operation="Run",
        phase=phase,
        started_at=sit.stamp if before is None else before.started_at,
        finished_at=sit.stamp if phase == "Successful" else None,
        status=dict(step.plugin.config or {}),
    )
    made.status = replace(made.status, canary__step_plugin_statuses=(*found, one))


# The verdicts


def analyses(sit: Situation) -> dict[Role, RolloutAnalysis | None]:
    """Return what the runs of a canary measure."""
    step = sit.step
    return {
        STEP: None if step is None else step.analysis,
        BACKGROUND: None if sit.canary is None else sit.canary.analysis,
    }


def _judge(was: Situation, made: Next) -> None:
    """Begin what is to be measured now, and pause or abort by what was."""
    for role, is_due in ((STEP, _step_is_measured(was.at(made.status))), (BACKGROUND, _background_is_due(was))):
        if not is_due:
            made.status = without(made.status, role)
            continue
        _judge_run(was, made, role)
        if made.status.abort:
            return
    _judge_experiment(was, made)


def _judge_run(was: Situation, made: Next, role: Role) -> None:
    sit, before = was.at(made.status), current(was.rollout.status, role)
    run = current(made.status, role)
    if run is None:
        if not (role is STEP and made.status.pause_conditions) and not sit.is_halted:
            made.status = started(sit, made.status, role)
        return
    if is_bad(run):
        aborted(sit, made, f"{role.told} phase error/failed" + (f": {run.message}" if run.message else ""))
    elif run.status == "Inconclusive" and sit.pause(INCONCLUSIVE_RUN) is None:
        if before is not None and before.status == "Inconclusive" and _is_resumed(sit):
            made.status = started(sit, made.status, role)
        else:
            made.status = paused(sit, made.status, INCONCLUSIVE_RUN)
            made.tell("RolloutPaused", f"Rollout is paused ({pause_text(made.status)})", warning=True)


def _is_resumed(sit: Situation) -> bool:
    """Whether somebody has ended a pause."""
    return bool(sit.status.controller_pause) and sit.pause(CANARY_PAUSE) is None


def _step_is_measured(sit: Situation) -> bool:
    """Whether the present step is an analysis, and no run of an earlier one has its place."""
    step, run = sit.step, current(sit.status, STEP)
    if step is None or step.analysis is None or not step.analysis.templates:
        return False
    own = f"{sit.name}-{sit.hash}-{sit.revision}-{sit.index}"
    return run is None or run.name == own or run.name.startswith(f"{own}.")


def _background_is_due(sit: Situation) -> bool:
    background = None if sit.canary is None else sit.canary.analysis
    if background is None or not background.templates or sit.is_promoted or sit.is_first:
        return False
    return background.starting_step is None or sit.index is None or sit.index >= background.starting_step


def _judge_experiment(was: Situation, made: Next) -> None:
    sit = was.at(made.status)
    if sit.step is None or sit.step.experiment is None:
        if made.status.canary.current_experiment:
            made.status = replace(made.status, canary__current_experiment=None)
        return
    if not made.status.canary.current_experiment:
        if sit.stable is not None and sit.new is not None and not sit.is_halted:
            made.status = replace(made.status, canary__current_experiment=named_experiment(sit))
        return
    verdict, message = experiment_verdict(sit)
    if verdict == "abort":
        aborted(sit, made, message)
    elif verdict == "pause" and sit.pause(INCONCLUSIVE_EXPERIMENT) is None and not made.status.controller_pause:
        made.status = paused(sit, made.status, INCONCLUSIVE_EXPERIMENT)
        made.tell("RolloutPaused", f"Rollout is paused ({INCONCLUSIVE_EXPERIMENT})", warning=True)
