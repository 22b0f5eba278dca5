"""What became of each version of a rollout, told from the rollout's status alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.resources.servicelevels import Deploy
from pilothouse.kinds import times
from pilothouse.kinds.structs import replace

from .figures import ROLLED_BACK, SUCCEEDED

__all__ = ["COMMITTED", "OVERTAKEN", "REVISION", "attributed", "followed"]

OVERTAKEN: Final = "Overtaken"
REVISION: Final = "pilothouse.dev/git-revision"
COMMITTED: Final = "pilothouse.dev/git-committed-at"
"""Annotations of a rollout, where it came out of git."""
_KEPT: Final = 500


def followed(deploys: Sequence[Deploy], rollout: Rollout, now: datetime) -> Sequence[Deploy]:
    """Return the deploys with what a rollout says now; the very same ones where it says nothing new.

    The first version of a rollout is no deploy over another one: it counts once it is healthy, as all do. A template
    that goes back to the stable version is the end of a rollback and no deploy.
    """
    version, stable = rollout.status.current_pod_hash, rollout.status.stable_rs
    if not version:
        return deploys
    last = deploys[-1] if deploys else None
    if last is None or last.version != version:
        if version == stable and last is not None:
            return _ended(deploys, rollout, now) if not last.outcome else deploys
        before = [*deploys[:-1], _closed(last, OVERTAKEN, now)] if last is not None and not last.outcome else deploys
        deploys = [*before, _begun(rollout, version, now)][-_KEPT:]
    return _ended(deploys, rollout, now)


def _begun(rollout: Rollout, version: str, now: datetime) -> Deploy:
    annotations = rollout.metadata.annotations
    return Deploy(
        version=version,
        started_at=times.format_micros(now),
        revision=annotations.get(REVISION),
        committed_at=annotations.get(COMMITTED),
    )


def attributed(deploys: Sequence[Deploy], revision: str, committed_at: str | None) -> Sequence[Deploy]:
    """Return the deploys with the commit that brought the last one.

    Its time counts for lead time where the commit is new: not for the first version, whose repository may be as old as
    one likes, and not for a commit that was deployed before.
    """
    *earlier, last = deploys
    is_new = bool(earlier) and revision not in {each.revision for each in earlier}
    counts = is_new and committed_at is not None and times.parse(committed_at) <= times.parse(last.started_at)
    return [*earlier, replace(last, revision=revision, committed_at=committed_at if counts else None)]


def _ended(deploys: Sequence[Deploy], rollout: Rollout, now: datetime) -> Sequence[Deploy]:
    last, status = deploys[-1], rollout.status
    if status.abort or status.current_pod_hash != last.version:
        changed = last if last.decided_at else replace(last, decided_at=_decided(rollout, now), message=status.message)
        weights = status.canary.weights
        if changed.restored_at is None and (weights is None or weights.canary.weight == 0):
            changed = replace(_closed(changed, ROLLED_BACK, now), restored_at=times.format_micros(now))
    elif status.phase == "Healthy" and status.stable_rs == last.version and not last.outcome:
        changed = _closed(last, SUCCEEDED, now)
    else:
        return deploys
    return deploys if changed == last else [*deploys[:-1], changed]


def _decided(rollout: Rollout, now: datetime) -> str:
    return rollout.status.aborted_at or times.format_micros(now)


def _closed(deploy: Deploy, outcome: str, now: datetime) -> Deploy:
    return replace(deploy, outcome=outcome, ended_at=times.format_micros(now))
