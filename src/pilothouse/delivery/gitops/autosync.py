"""Whether an application is synced by itself now, or when, or why not. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pilothouse.delivery.resources.applications import Application, Backoff, OperationState, Retry
from pilothouse.kinds import times
from pilothouse.kinds.durations import parse as parse_duration

__all__ = ["DEFAULT_RETRY", "Decision", "Situation", "automated", "decide", "heal_pause", "retry_pause"]

DEFAULT_RETRY: Final = Retry(limit=5, backoff=Backoff(duration="5s", factor=2, max_duration="3m"))
_HEAL_FIRST: Final = 2.0
_HEAL_FACTOR: Final = 3.0
_HEAL_MOST: Final = 300.0


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision looks at. revisions: that the application shall have. only_prune: all that differs is to go."""

    now: datetime
    revisions: Sequence[str]
    out_of_sync: bool
    only_prune: bool = False
    empty: bool = False
    window: str = ""
    waiting_for: str = ""
    source_changed: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done. begin: a sync now. later: seconds after which to look again. condition: type and message."""

    begin: bool = False
    later: float | None = None
    heal_attempts: int = 0
    condition: tuple[str, str] | None = None


def automated(app: Application) -> bool:
    """Whether an application is synced by itself at all."""
    policy = app.spec.sync_policy
    return policy is not None and policy.automated is not None and policy.automated.enabled is not False


def decide(app: Application, state: OperationState | None, seen: Situation) -> Decision:
    """Return whether to begin a sync: for a new revision once, for drift with growing pauses."""
    policy = app.spec.sync_policy
    if not automated(app) or policy is None or policy.automated is None or not seen.out_of_sync:
        return Decision()
    if seen.empty and not policy.automated.allow_empty:
        return Decision(
            condition=("SyncError", "the source has no objects at all; say allowEmpty to delete everything")
        )
    if seen.only_prune and not policy.automated.prune:
        return Decision()
    if seen.waiting_for:
        return Decision(condition=("WaitingForDependencies", f"not synced before {seen.waiting_for} is"))
    if seen.window:
        return Decision(later=60.0, condition=("SyncWindow", seen.window))
    if state is None or not _is_of(state, seen.revisions) or seen.source_changed:
        return Decision(begin=True)
    if state.phase != "Succeeded":
        text = f"Failed sync attempt to {', '.join(seen.revisions)}: {state.message}"
        return Decision(condition=("SyncError", text))
    if not policy.automated.self_heal:
        return Decision()
    return _heal(state, seen)


def _is_of(state: OperationState, revisions: Sequence[str]) -> bool:
    result = state.sync_result
    if result is None:
        return False
    return list(revisions) == (list(result.revisions) or [result.revision])


def _heal(state: OperationState, seen: Situation) -> Decision:
    sync = state.operation.sync
    attempts = (sync.self_heal_attempts_count or 0) if sync is not None else 0
    finished = times.parse(state.finished_at) if state.finished_at else seen.now
    since = (seen.now - finished).total_seconds()
    if since > 2 * _HEAL_MOST:
        attempts = 0
    pause = heal_pause(attempts)
    if since < pause:
        return Decision(later=pause - since)
    return Decision(begin=True, heal_attempts=attempts + 1)


def heal_pause(attempts: int) -> float:
    """Return the seconds between a sync and the next self-heal: none at first, then 2, 6, 18, ... up to 300."""
    return 0.0 if attempts == 0 else min(_HEAL_FIRST * _HEAL_FACTOR ** min(attempts - 1, 20), _HEAL_MOST)


def _seconds(text: str, otherwise: float) -> float:
    if not text:
        return otherwise
    if text.isdigit():
        return float(text)
    try:
        return max(parse_duration(text) / 1e9, 0.0)
    except ValueError:
        return otherwise


def retry_pause(retry: Retry, count: int) -> float | None:
    """Return the seconds before a failed sync is tried again, None where it is not. count: how often it was already."""
    limit = retry.limit or 0
    if limit >= 0 and count >= limit:
        return None
    backoff = retry.backoff or Backoff()
    first, most = _seconds(backoff.duration, 5.0), _seconds(backoff.max_duration, 180.0)
    factor = max(backoff.factor or 2, 1)
    return float(min(first * factor ** min(count, 30), most))
