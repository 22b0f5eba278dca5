"""How long a job waits before it replaces failed pods: twice as long each time, up to ten minutes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from pilothouse.kinds import times
from pilothouse.kinds.structs import Pod
from pilothouse.kinds.structs.core_pod_status import ContainerStatus

from .jobs_indexes import all_failures
from .pods import condition_of

__all__ = ["NO_FAILURES", "Failures", "finished_at", "index_wait", "wait"]

_FIRST_SECONDS: Final = 10.0
_MAX_SECONDS: Final = 600.0
_EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Failures(NamedTuple):
    """How many pods failed since the last one that succeeded, and when the last of them did."""

    number: int = 0
    last: datetime | None = None

    def after(self, succeeded: Sequence[Pod], failed: Sequence[Pod]) -> Failures:
        """Return what it is after some more pods ended."""
        ends = sorted(map(finished_at, failed))
        if not succeeded:
            return Failures(self.number + len(ends), ends[-1]) if ends else self
        last_success = max(map(finished_at, succeeded))
        later = [end for end in ends if end > last_success]
        return Failures(len(later), later[-1]) if later else NO_FAILURES


NO_FAILURES: Final = Failures()


def wait(failures: Failures, now: datetime) -> float:
    """Return in how many seconds the next pod may be made, 0 for at once."""
    if not failures.number or failures.last is None:
        return 0.0
    pause = min(_FIRST_SECONDS * 2.0 ** min(failures.number - 1, 16), _MAX_SECONDS)
    return max(0.0, pause - (now - failures.last).total_seconds())


def index_wait(replaced: Pod | None, now: datetime) -> float:
    """Return in how many seconds an index may have its next pod. replaced: its last failed pod, if there was one."""
    if replaced is None:
        return 0.0
    return wait(Failures(all_failures(replaced) + 1, finished_at(replaced)), now)


def finished_at(pod: Pod) -> datetime:
    """Return when a pod ended: as its containers say, else when it got unready, was to be deleted, or was made."""
    ended = _containers_ended(pod)
    if ended is not None:
        return ended
    ready = condition_of(pod, "Ready")
    if ready is not None and ready.status == "False" and ready.last_transition_time:
        return times.parse(ready.last_transition_time)
    metadata = pod.metadata
    if metadata.deletion_timestamp is not None:
        grace = timedelta(seconds=metadata.deletion_grace_period_seconds or 0)
        return times.parse(metadata.deletion_timestamp) - grace
    return _EVER if metadata.creation_timestamp is None else times.parse(metadata.creation_timestamp)


def _containers_ended(pod: Pod) -> datetime | None:
    sidecars = {one.name for one in pod.spec.init_containers if one.restart_policy == "Always"}
    beside = [one for one in pod.status.init_container_statuses if one.name in sidecars]
    own = _ends(pod.status.container_statuses)
    late = _ends(beside)
    if own is None or late is None:
        return None
    return max([*own, *late], default=None)


def _ends(statuses: Iterable[ContainerStatus]) -> list[datetime] | None:
    """Return when containers ended, None where one has not."""
    found = []
    for status in statuses:
        ended = status.state.terminated
        if ended is None or not ended.finished_at:
            return None
        found.append(times.parse(ended.finished_at))
    return found
