"""Changes of a rollout's status that canary and blue-green share: begin, pause, abort, promote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pilothouse.delivery.resources.rollouts import (
    BlueGreenStatus,
    CanaryStatus,
    PauseCondition,
    RolloutDuration,
    RolloutStatus,
)
from pilothouse.kinds.structs import replace

from .actions import Tell
from .conditions import PROMOTION_WATCH, without_condition
from .runs import BACKGROUND, POST, PRE, STEP, without
from .situation import Situation

__all__ = [
    "Next",
    "aborted",
    "begun",
    "paused",
    "promoted",
    "resumed",
    "settled_pauses",
    "skips_all",
    "template_changed",
    "timed",
]


@dataclass(slots=True)
class Next:
    """What a status becomes. tells: what users are told. abort_message: why it was aborted, where it is so just now.

    again: seconds after which to look again.
    """

    status: RolloutStatus
    tells: list[Tell] = field(default_factory=list)
    abort_message: str = ""
    again: list[float] = field(default_factory=list)

    def tell(self, reason: str, message: str, *, warning: bool = False) -> None:
        """Tell users something."""
        self.tells.append(Tell(reason, message, warning))


def template_changed(sit: Situation) -> bool:
    """Whether the template or the steps are others than those that the status is about."""
    status = sit.status
    if status.current_pod_hash is None:
        return True
    return status.current_pod_hash != sit.hash or (status.current_step_hash or "") != sit.step_hash


def skips_all(sit: Situation) -> bool:
    """Whether steps, pauses and aborts do not count any more: somebody promotes in full, or goes back a little.

    Where somebody aborts and promotes before either was seen, nothing tells which came first; the abort counts.
    """
    if sit.status.promote_full:
        return not sit.status.abort or bool(sit.status.aborted_at)
    return sit.is_back_within_window and not sit.status.abort


def begun(sit: Situation) -> Next:
    """Begin with the present template and steps: nothing is paused or measured, and the first step is next.

    The stable template, or one that the rollback window has, skips the steps. A version that was aborted stays so where
    only the steps are others.
    """
    is_same = sit.status.current_pod_hash == sit.hash and bool(sit.status.abort)
    status = without(sit.status, STEP, BACKGROUND, PRE, POST)
    status = without_condition(status, PROMOTION_WATCH)
    first = sit.status.current_pod_hash is None
    made = Next(
        replace(
            status,
            current_pod_hash=sit.hash,
            current_step_hash=sit.step_hash or None,
            current_step_index=0 if sit.steps else None,
            pause_conditions=(),
            controller_pause=None,
            abort=is_same or None,
            aborted_at=sit.status.aborted_at if is_same else None,
            promote_full=None,
            restarted_at=sit.spec.restart_at,
            blue_green=BlueGreenStatus() if sit.blue_green is None else status.blue_green,
            # What routes were split by is remembered until they are not any more.
            canary=status.canary if sit.blue_green is None else CanaryStatus(weights=status.canary.weights),
        )
    )
    cleared = {"canary__current_experiment": None, "canary__step_plugin_statuses": ()}
    made.status = replace(made.status, blue_green__scale_up_preview_check_point=None, **cleared)
    if first or not sit.steps:
        return made
    if status.stable_rs == sit.hash:
        made.tell("SkipSteps", "Rollback to stable ReplicaSets")
        made.status = replace(made.status, current_step_index=len(sit.steps))
    elif sit.is_back_within_window and sit.new is not None and sit.new.spec.replicas:
        made.tell("SkipSteps", "Rollback to active ReplicaSets within RollbackWindow")
        made.status = replace(made.status, current_step_index=len(sit.steps))
    return made


def paused(sit: Situation, status: RolloutStatus, reason: str) -> RolloutStatus:
    """Return a status with a pause; one of this reason that is there already goes on."""
    if any(one.reason == reason for one in status.pause_conditions):
        return status
    pauses = (*status.pause_conditions, PauseCondition(reason=reason, start_time=sit.stamp))
    return replace(status, pause_conditions=pauses, controller_pause=True)


def resumed(status: RolloutStatus, *reasons: str) -> RolloutStatus:
    """Return a status without the pauses of some reasons, or of any where none is named."""
    left = tuple(one for one in status.pause_conditions if reasons and one.reason not in reasons)
    return replace(status, pause_conditions=left, controller_pause=status.controller_pause if left else None)


def settled_pauses(status: RolloutStatus) -> RolloutStatus:
    """Return a status that does not say any more that it paused where nothing pauses it."""
    return status if status.pause_conditions or not status.controller_pause else replace(status, controller_pause=None)


def aborted(sit: Situation, made: Next, message: str = "") -> None:
    """Abort, or go on being aborted: nothing is paused or measured, and the steps are to begin anew."""
    status = without(resumed(made.status), STEP, BACKGROUND)
    if not made.status.aborted_at:
        made.abort_message = message
        made.tell(
            "RolloutAborted",
            f"Rollout aborted update to revision {sit.revision}" + (f": {message}" if message else ""),
            warning=True,
        )
    made.status = replace(
        without_condition(status, PROMOTION_WATCH),
        abort=True,
        aborted_at=made.status.aborted_at or sit.exact_stamp,
        current_step_index=0 if sit.steps else None,
        promote_full=None,
        canary__current_experiment=None,
        canary__step_plugin_statuses=(),
        blue_green__scale_up_preview_check_point=None,
    )


def promoted(sit: Situation, made: Next, why: str) -> None:
    """Make the present template the stable one."""
    status = without(resumed(made.status), STEP, BACKGROUND)
    before = status.stable_rs
    status = replace(
        without_condition(status, PROMOTION_WATCH),
        stable_rs=sit.hash,
        abort=None,
        aborted_at=None,
        promote_full=None,
        current_step_index=len(sit.steps) if sit.steps else None,
        canary__current_experiment=None,
        blue_green__scale_up_preview_check_point=None,
    )
    if before != sit.hash:
        if sit.canary is not None and sit.canary.ping_pong is not None:
            turn = "pong" if status.canary.stable_ping_pong == "ping" else "ping"
            status = replace(status, canary__stable_ping_pong=turn)
        made.tell("RolloutCompleted", f"Rollout completed update to revision {sit.revision} ({sit.hash}): {why}")
    made.status = status


# How long it took


def timed(sit: Situation, status: RolloutStatus, pauses: Sequence[PauseCondition]) -> RolloutStatus:
    """Return a status that says when the update began, how it ended, and how long people had it wait."""
    before, found = sit.rollout.status, status.duration
    is_new = before.current_pod_hash != status.current_pod_hash or (bool(before.abort) and not status.abort)
    if is_new and (before.current_pod_hash or not before.stable_rs):
        return replace(status, duration=RolloutDuration(rollout_started_at=sit.stamp))
    if found is None or found.finished_at is not None or found.rollout_started_at is None:
        return status
    waits = bool(sit.spec.paused) or any(sit.needs_somebody(one) for one in pauses)
    if waits and found.manual_pause_started_at is None:
        found = replace(found, manual_pause_started_at=sit.stamp)
    elif not waits and found.manual_pause_started_at is not None:
        total = (found.total_manual_pause_duration_seconds or 0) + int(sit.since(found.manual_pause_started_at))
        found = replace(found, manual_pause_started_at=None, total_manual_pause_duration_seconds=total)
    ended = _ending(sit, status)
    if ended:
        found = replace(found, finished_at=sit.stamp, completion_status=ended, manual_pause_started_at=None)
    return status if found == status.duration else replace(status, duration=found)


def _ending(sit: Situation, status: RolloutStatus) -> str:
    if status.abort:
        return "Aborted"
    if status.stable_rs != status.current_pod_hash or (status.available_replicas or 0) < sit.replicas:
        return ""
    if sit.rollout.status.promote_full:
        return "FastPromoted"
    return "Promoted"
