"""The controller that deletes finished jobs when their time to live is over."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pilothouse.client import ignore_not_found
from pilothouse.kinds import times
from pilothouse.kinds.structs import Job
from pilothouse.operator import Context, Manager, Reconciler, Result, controller
from pilothouse.operator.predicates import Predicate
from pilothouse.workloads.jobs_status import finish_of

__all__ = ["TtlReconciler", "add_ttl", "seconds_to_live"]

_CONCURRENCY: Final = 5


def seconds_to_live(job: Job, now: datetime) -> float | None:
    """Return in how many seconds a job is to be deleted, 0 for now, None for one that stays or goes already."""
    finish, ttl = finish_of(job), job.spec.ttl_seconds_after_finished
    if job.metadata.deletion_timestamp is not None or ttl is None or finish is None:
        return None
    if finish.last_transition_time is None:
        return None
    return max(0.0, ttl - (now - times.parse(finish.last_transition_time)).total_seconds())


class TtlReconciler(Reconciler[Job]):
    """Deletes jobs, after their pods."""

    async def reconcile(self, obj: Job, context: Context) -> Result | None:
        """Delete a job whose time is over, by what the server says of it now."""
        left = seconds_to_live(obj, context.clock.now())
        if left == 0.0:
            fresh = await ignore_not_found(context.client.get(Job, obj.metadata.name, obj.metadata.namespace))
            left = None if fresh is None else seconds_to_live(fresh, context.clock.now())
            if fresh is not None and left == 0.0:
                await context.delete(fresh, propagation="Foreground")
                return None
        return Result(requeue_after=left)


class _Expires(Predicate[Job]):
    """Jobs that have a time to live and ended."""

    def create(self, obj: Job) -> bool:
        return obj.spec.ttl_seconds_after_finished is not None and finish_of(obj) is not None

    def update(self, old: Job, new: Job) -> bool:
        return self.create(new)

    def delete(self, obj: Job) -> bool:
        return False


def add_ttl(manager: Manager) -> None:
    """Add the controller of the time to live of finished jobs."""
    (
        controller(manager, "ttl-after-finished-controller")
        .for_(Job, _Expires())
        .with_options(concurrency=_CONCURRENCY)
        .build(TtlReconciler())
    )
