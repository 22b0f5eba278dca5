"""Blue-green: what its status becomes, and which version the active service selects."""

from __future__ import annotations

from pilothouse.delivery.resources.rollouts import RolloutAnalysis
from pilothouse.kinds.structs import replace

from .actions import SelectService
from .conditions import counted, has_timed_out
from .names import BLUE_GREEN_PAUSE, INCONCLUSIVE_RUN
from .runs import POST, PRE, Role, current, is_bad, pause_text, refreshed, started
from .situation import Situation, available, deadline_of, hash_label, size
from .statuses import Next, aborted, begun, paused, promoted, resumed, settled_pauses, skips_all, template_changed

__all__ = ["analyses", "blue_green_next", "blue_green_selections", "preview_count"]


def blue_green_next(sit: Situation) -> Next:
    """Return what a blue-green rollout's status becomes, but for conditions."""
    if template_changed(sit):
        made = begun(sit)
        made.status = counted(sit, _observed(sit, made).status)
        return made
    was = sit
    made = _observed(sit, Next(counted(sit, refreshed(sit))))
    if skips_all(sit.at(made.status)):
        made.status = replace(resumed(made.status), abort=None, aborted_at=None)
    sit = sit.at(made.status)
    if sit.is_aborted and not sit.is_promoted:
        aborted(sit, made)
        return made
    if made.status.aborted_at or made.status.abort:  # it is tried again, or there is nothing to abort
        made.status = replace(
            made.status,
            abort=None,
            aborted_at=None,
            blue_green__pre_promotion_analysis_run_status=None,
            blue_green__post_promotion_analysis_run_status=None,
        )
        return made
    if _judge(was, made):
        return made
    sit = was.at(made.status)
    _pause(sit, made)
    sit = was.at(made.status)
    if (why := _promotion(sit)) is not None:
        promoted(sit, made, why)
    else:
        _check_point(sit, made)
        if sit.spec.progress_deadline_abort and has_timed_out(was, made.status):
            aborted(sit, made, f'ReplicaSet "{hash_label(sit.new)}" has timed out progressing')
    if _active(sit) == sit.hash:
        # Until then that somebody promoted is what makes the switch: it must not be forgotten before it is made.
        made.status = settled_pauses(made.status)
    return made


def _observed(sit: Situation, made: Next) -> Next:
    strategy = sit.blue_green
    if strategy is not None:
        made.status = replace(
            made.status,
            blue_green__active_selector=sit.selected(strategy.active_service) or None,
            blue_green__preview_selector=sit.selected(strategy.preview_service or "") or None,
        )
    return made


# What is there already


def _active(sit: Situation) -> str:
    return "" if sit.blue_green is None else sit.selected(sit.blue_green.active_service)


def preview_count(sit: Situation) -> int:
    """Return how many pods the new set is to have now."""
    strategy = sit.blue_green
    if strategy is None or strategy.preview_replica_count is None or sit.status.promote_full:
        return sit.replicas
    active = sit.set_of(_active(sit))
    if active is None or active is sit.new:
        return sit.replicas
    goes_on = not sit.spec.paused and not sit.status.pause_conditions
    if goes_on and sit.status.blue_green.scale_up_preview_check_point:
        return sit.replicas
    return strategy.preview_replica_count


def _is_ready(sit: Situation) -> bool:
    """Whether the new set has all the pods that it is to have now."""
    wanted = preview_count(sit)
    return sit.new is not None and size(sit.new) == wanted == available(sit.new)


def _is_saturated(sit: Situation) -> bool:
    return sit.new is not None and size(sit.new) == sit.replicas == available(sit.new)


def _is_back(sit: Situation) -> bool:
    """Whether the present template is an older one whose pods are still there, so that nothing has to be proven."""
    new, stable = sit.new, sit.stable
    if new is None or stable is None:
        return False
    if sit.status.stable_rs == sit.hash or sit.is_back_within_window:
        return True
    older = (new.metadata.creation_timestamp or "") < (stable.metadata.creation_timestamp or "")
    deadline = deadline_of(new)
    return older and deadline is not None and deadline > sit.now


def _is_fast(sit: Situation) -> bool:
    """Whether nothing is waited for before the active service is switched."""
    return _is_back(sit) or bool(sit.status.promote_full) or _active(sit) in {"", sit.hash}


def _has_passed_analysis(sit: Situation) -> bool:
    strategy, run = sit.blue_green, current(sit.status, PRE)
    if strategy is None or strategy.pre_promotion_analysis is None or not strategy.pre_promotion_analysis.templates:
        return True
    return run is not None and run.status == "Successful"


# The pause


def _pause(sit: Situation, made: Next) -> None:
    """Wait before the switch where somebody, or a time, is to decide."""
    if not _is_ready(sit) or sit.is_halted:
        return
    there, strategy = sit.pause(BLUE_GREEN_PAUSE), sit.blue_green
    waits = strategy is not None and (strategy.auto_promotion_enabled is False or strategy.auto_promotion_seconds)
    passed = sit.status.blue_green.scale_up_preview_check_point
    if _is_fast(sit) or passed or not waits:
        made.status = resumed(made.status, BLUE_GREEN_PAUSE) if there is not None else made.status
        return
    if not _has_passed_analysis(sit):
        return
    if there is None and not sit.status.controller_pause:
        made.status = paused(sit, made.status, BLUE_GREEN_PAUSE)
        made.tell("RolloutPaused", f"Rollout is paused ({BLUE_GREEN_PAUSE})")
    left = _pause_left(sit.at(made.status))
    if left is not None and left > 0:
        made.again.append(left)


def _pause_left(sit: Situation) -> float | None:
    """Return the seconds until the promotion comes by itself; None where it does not."""
    strategy, there = sit.blue_green, sit.pause(BLUE_GREEN_PAUSE)
    if strategy is None or there is None or strategy.auto_promotion_enabled is False:
        return None
    return (strategy.auto_promotion_seconds or 0) - sit.since(there.start_time)


def _may_switch(sit: Situation) -> bool:
    """Whether the pause before the switch is over, by a person or by time."""
    strategy = sit.blue_green
    if strategy is None:
        return False
    if sit.status.blue_green.scale_up_preview_check_point:
        return True
    if strategy.auto_promotion_enabled is not False:
        if not strategy.auto_promotion_seconds:
            return True
        left = _pause_left(sit)
        if left is not None:
            return left <= 0
    return bool(sit.status.controller_pause) and sit.pause(BLUE_GREEN_PAUSE) is None


def _check_point(sit: Situation, made: Next) -> None:
    """Note, once and for this template, that the preview was enough and the rest of its pods may come."""
    strategy = sit.blue_green
    if strategy is None or strategy.preview_replica_count is None or sit.is_promoted:
        return
    if sit.status.blue_green.scale_up_preview_check_point or not _has_passed_analysis(sit) or not _may_switch(sit):
        return
    if available(sit.new) == strategy.preview_replica_count:
        made.status = replace(resumed(made.status, BLUE_GREEN_PAUSE), blue_green__scale_up_preview_check_point=True)


def _promotion(sit: Situation) -> str | None:
    strategy, active = sit.blue_green, sit.status.blue_green.active_selector
    if sit.stable is None or (not active and not sit.has_stable):
        return "Initial deploy"
    if active != sit.hash or strategy is None:
        return None
    if sit.status.promote_full:
        return "Full promotion requested"
    if _is_back(sit):
        return "Rollback within window" if sit.is_back_within_window else "Fast rollback"
    if strategy.post_promotion_analysis is not None and strategy.post_promotion_analysis.templates:
        run = current(sit.status, POST)
        if run is None or run.status != "Successful":
            return None
    return "Completed blue-green update"


# The verdicts


def analyses(sit: Situation) -> dict[Role, RolloutAnalysis | None]:
    """Return what the runs of a blue-green rollout measure."""
    strategy = sit.blue_green
    if strategy is None:
        return {}
    return {PRE: strategy.pre_promotion_analysis, POST: strategy.post_promotion_analysis}


def _judge(was: Situation, made: Next) -> bool:
    """Begin what is to be measured now, and pause or abort by what was; whether it aborted."""
    sit = was.at(made.status)
    if sit.is_promoted or sit.is_first or sit.status.promote_full or _is_back(sit):
        return False
    active = _active(sit)
    before_switch = bool(active) and active != sit.hash
    for role, is_due in ((PRE, before_switch), (POST, active == sit.hash)):
        analysis = analyses(sit).get(role)
        if analysis is None or not analysis.templates:
            continue
        run, before = current(made.status, role), current(was.rollout.status, role)
        if run is None:
            if is_due and _is_ready(sit) and (role is PRE or _is_saturated(sit)) and not sit.is_halted:
                made.status = started(sit, made.status, role)
        elif is_bad(run):
            told = f"Blue/green {role.told[0].lower()}{role.told[1:]} phase error/failed"
            aborted(sit, made, told + (f": {run.message}" if run.message else ""))
            return True
        elif run.status == "Inconclusive" and sit.pause(INCONCLUSIVE_RUN) is None and is_due:
            resumed_by_hand = sit.status.controller_pause and sit.pause(BLUE_GREEN_PAUSE) is None
            if before is not None and before.status == "Inconclusive" and resumed_by_hand:
                made.status = started(sit, replace(made.status, controller_pause=None), role)
            else:
                made.status = paused(sit, made.status, INCONCLUSIVE_RUN)
                made.tell("RolloutPaused", f"Rollout is paused ({pause_text(made.status)})", warning=True)
    return False


# The services


def blue_green_selections(sit: Situation) -> tuple[list[SelectService], bool]:
    """Return which services are to select other pods now, and whether that takes users back to the stable version."""
    strategy = sit.blue_green
    if strategy is None or sit.new is None:
        return [], False
    found: list[SelectService] = []
    active = _active(sit)
    wanted, is_back = _wanted_active(sit, active)
    if wanted and wanted != active:
        found.append(SelectService(strategy.active_service, wanted, active))
    preview = strategy.preview_service
    if preview and preview in sit.view.services and not sit.is_halted and sit.selected(preview) != sit.hash:
        found.append(SelectService(preview, sit.hash, sit.selected(preview)))
    return found, is_back and bool(found)


def _wanted_active(sit: Situation, active: str) -> tuple[str, bool]:
    if sit.is_aborted:
        # Its pods may be anything by now: those of the stable version are what is left.
        back = hash_label(sit.stable)
        return (back, True) if back else (active, False)
    if sit.is_promoted and active not in {"", sit.hash}:
        return sit.hash, True  # the stable template was set again
    if not active and sit.has_stable:
        # A service that knows no version yet, as after another strategy, does not begin with one that proves itself.
        return hash_label(sit.stable), False
    if sit.is_halted or not _is_ready(sit) or not _is_saturated(sit):
        return active, False
    if _is_fast(sit) or (_may_switch(sit) and _has_passed_analysis(sit)):
        return sit.hash, False
    return active, False
