"""Deployments: which replica sets to make, to scale and to remove, and what the status says. Pure.

`plan` is given the deployment and its replica sets and returns writes in the order in which they are to be made. One
plan takes one step of a rollout; what its writes change brings about the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pilothouse.kinds.structs import Deployment, ReplicaSet, replace
from pilothouse.kinds.structs.apps import DeploymentStatus
from pilothouse.workloads import deployment_sets as sets_

from .deployment_sets import active, by_age, revision_of, size, total_size, wanted_replicas
from .deployment_status import (
    counted,
    found_or_created,
    has_deadline,
    is_complete,
    next_progress_check,
    paused_or_resumed,
    rollout_status,
    with_condition,
)

__all__ = ["Create", "Delete", "Event", "Plan", "Update", "collided", "plan", "refused"]


@dataclass(frozen=True, slots=True)
class Create:
    """Make a replica set."""

    wanted: ReplicaSet


@dataclass(frozen=True, slots=True)
class Update:
    """Change a replica set; scaled says so to users, empty where it is no scaling."""

    wanted: ReplicaSet
    scaled: str = ""

    @property
    def name(self) -> str:
        """The name of the set."""
        return self.wanted.metadata.name


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove a replica set that history does not keep."""

    found: ReplicaSet


@dataclass(frozen=True, slots=True)
class Event:
    """Tell something about the deployment."""

    reason: str
    message: str
    warning: bool = False


@dataclass(slots=True)
class Plan:
    """What to write: `writes` in order, then the deployment itself where its status or annotations are others.

    rolled_back: whether its specification is another one as well. again: seconds after which to look again.
    """

    deployment: Deployment
    writes: list[Create | Update | Delete | Event] = field(default_factory=list)
    rolled_back: bool = False
    again: float | None = None


def plan(
    deployment: Deployment, sets: Sequence[ReplicaSet], has_old_pods: Callable[[ReplicaSet | None], bool], now: datetime
) -> Plan:
    """Return the next step of a deployment.

    sets: those that the deployment controls. has_old_pods: whether pods of other sets than the given one still run,
    which the strategy Recreate waits for.
    """
    return _Planner(deployment, sets, has_old_pods, now).plan()


def collided(deployment: Deployment) -> Deployment:
    """Return a deployment whose next set gets another name, as something else has that one."""
    return replace(deployment, status__collision_count=(deployment.status.collision_count or 0) + 1)


def refused(deployment: Deployment, message: str, now: datetime) -> Deployment:
    """Return a deployment that says why its set could not be made."""
    if not has_deadline(deployment):
        return deployment
    conditions = deployment.status.conditions
    made = with_condition(conditions, "Progressing", "False", "ReplicaSetCreateError", message, now)
    return replace(deployment, status__conditions=made)


class _Planner:
    """One plan in the making: what is planned counts as done for what follows."""

    def __init__(
        self,
        deployment: Deployment,
        sets: Sequence[ReplicaSet],
        has_old_pods: Callable[[ReplicaSet | None], bool],
        now: datetime,
    ) -> None:
        ordered = sorted(sets, key=by_age)
        self.deployment = deployment
        self.wanted = wanted_replicas(deployment)
        self.new = next((found for found in ordered if sets_.same_template(deployment, found)), None)
        self.old = [found for found in ordered if found is not self.new]
        self.has_old_pods = has_old_pods
        self.now = now
        self.made = Plan(deployment)

    @property
    def all(self) -> list[ReplicaSet]:
        return self.old if self.new is None else [*self.old, self.new]

    def plan(self) -> Plan:
        deployment = self.deployment
        if deployment.metadata.deletion_timestamp is not None:
            self._annotate_new()
            return self._done(counted(self.deployment, self.all, self.new, self.now))
        self._change(status__conditions=paused_or_resumed(deployment, self.now))
        if not deployment.spec.paused and _rollback_to(deployment) is not None:
            return self._rollback()
        if deployment.spec.paused or self._is_scaled():
            self._annotate_new()
            self._scale()
            if deployment.spec.paused:
                self._trim()
            return self._done(counted(self.deployment, self.all, self.new, self.now))
        if deployment.spec.strategy.type == "Recreate":
            self._recreate()
        else:
            self._roll()
        status = rollout_status(self.deployment, self.all, self.new, self.now)
        if status == deployment.status:
            self.made.again = next_progress_check(deployment, status, self.now)
        return self._done(status)

    def _done(self, status: DeploymentStatus) -> Plan:
        self._change(status=status)
        self.made.deployment = self.deployment
        return self.made

    def _change(self, **changes: object) -> None:
        self.deployment = replace(self.deployment, **changes)

    # The set of the present template

    def _revision(self) -> int:
        return max(map(revision_of, self.old), default=0) + 1

    def _annotate_new(self) -> None:
        """Give the present set its revision and the deployment's annotations, and the deployment the revision."""
        if self.new is None:
            return
        revision = self._revision()
        changed = sets_.annotated(self.deployment, self.new, revision)
        if changed.spec.min_ready_seconds != self.deployment.spec.min_ready_seconds:
            changed = replace(changed, spec__min_ready_seconds=self.deployment.spec.min_ready_seconds)
        if changed is not self.new:
            self._replace(changed)
        self._is_there(changed, created=False)

    def _ensure_new(self) -> ReplicaSet:
        """Return the set of the present template, made where there is none."""
        if self.new is None:
            self.new = self._created()
        else:
            self._annotate_new()
        return self.new

    def _created(self) -> ReplicaSet:
        made = sets_.new_set(self.deployment)
        revision = self._revision()
        count = self._room(total_size(self.old), 0)
        made = replace(made, spec__replicas=count)
        made = sets_.wanted_annotations(self.deployment, sets_.annotated(self.deployment, made, revision))
        self.made.writes.append(Create(made))
        if count:
            name = made.metadata.name
            self.made.writes.append(Event("ScalingReplicaSet", f"Scaled up replica set {name} from 0 to {count}"))
        self._is_there(made, created=True)
        return made

    def _is_there(self, new: ReplicaSet, *, created: bool) -> None:
        revision = new.metadata.annotations.get(sets_.REVISION, "")
        annotations = {**self.deployment.metadata.annotations, sets_.REVISION: revision}
        conditions = found_or_created(self.deployment, new, created=created, now=self.now)
        self._change(metadata__annotations=annotations, status__conditions=conditions)

    def _room(self, total: int, present: int) -> int:
        """Return how many pods the present set may have, if there are to be `total` of all sets now."""
        if self.deployment.spec.strategy.type == "Recreate":
            return self.wanted
        room = self.wanted + sets_.max_surge(self.deployment) - total
        return present if room <= 0 else present + min(room, self.wanted - present)

    # Rolling

    def _roll(self) -> None:
        new = self._ensure_new()
        if self._grow(new) or self._shrink_old():
            return
        if is_complete(self.made.deployment, self.made.deployment.status):
            self._trim()

    def _grow(self, new: ReplicaSet) -> bool:
        if size(new) == self.wanted:
            return False
        if size(new) > self.wanted:
            return self._scale_one(new, self.wanted)
        return self._scale_one(new, self._room(total_size(self.all), size(new)))

    def _shrink_old(self) -> bool:
        """Take away what the new pods that are available leave room for, the unhealthy first."""
        if not total_size(self.old):
            return False
        new = self.new or self._ensure_new()
        least = self.wanted - sets_.max_unavailable(self.deployment)
        unready = size(new) - new.status.available_replicas
        room = total_size(self.all) - least - unready
        if room <= 0:
            return False
        taken = self._take(room, lambda found: size(found) - found.status.available_replicas)
        spare = sum(found.status.available_replicas for found in self.all) - least
        return bool(taken + self._take(spare, size))

    def _take(self, room: int, may_go: Callable[[ReplicaSet], int]) -> int:
        taken = 0
        for found in [*self.old]:
            count = min(room - taken, may_go(found), size(found))
            if count > 0:
                self._scale_one(found, size(found) - count)
                taken += count
        return taken

    # Recreating

    def _recreate(self) -> None:
        self._annotate_new()
        shrunk = [self._scale_one(found, 0) for found in active(self.old)]
        running = any(found.status.replicas for found in self.old)
        if any(shrunk) or running or self.has_old_pods(self.new):
            return
        self._scale_one(self._ensure_new(), self.wanted)
        if is_complete(self.made.deployment, self.made.deployment.status):
            self._trim()

    # Scaling

    def _is_scaled(self) -> bool:
        """Whether somebody has changed the number of replicas since the sets were scaled last."""
        desired = [sets_.desired_when_scaled(found) for found in active(self.all)]
        return any(count is not None and count != self.wanted for count in desired)

    def _scale(self) -> None:
        live = active(self.all)
        if len(live) <= 1:
            latest = live[0] if live else self.new or (self.old[-1] if self.old else None)
            if latest is not None:
                self._scale_one(latest, self.wanted)
            return
        if self.new is not None and sets_.is_saturated(self.deployment, self.new):
            for found in active(self.old):
                self._scale_one(found, 0)
        elif self.deployment.spec.strategy.type == "RollingUpdate":
            self._scale_in_proportion(live)

    def _scale_in_proportion(self, live: Sequence[ReplicaSet]) -> None:
        allowed = self.wanted + sets_.max_surge(self.deployment) if self.wanted else 0
        to_add = allowed - total_size(live)
        newest_first = sorted(sorted(live, key=by_age, reverse=to_add >= 0), key=lambda found: -size(found))
        added, sizes = 0, list[int]()
        for found in newest_first:
            part = sets_.proportion(self.deployment, found, to_add, added)
            sizes.append(size(found) + part)
            added += part
        sizes[0] = max(0, sizes[0] + to_add - added)
        for found, count in zip(newest_first, sizes, strict=True):
            self._scale_one(found, count, always=True)

    def _scale_one(self, found: ReplicaSet, count: int, *, always: bool = False) -> bool:
        """Scale a set, where it is of another size; always: also tell it what the deployment wants now."""
        before = size(found)
        if before == count and not always:
            return False
        changed = sets_.wanted_annotations(self.deployment, found)
        scaled = ""
        if before != count:
            changed = replace(changed, spec__replicas=count)
            way = "up" if count > before else "down"
            scaled = f"Scaled {way} replica set {found.metadata.name} from {before} to {count}"
        if changed is not found:
            self._replace(changed, scaled)
        return before != count

    def _replace(self, changed: ReplicaSet, scaled: str = "") -> None:
        """Have a set changed; what was planned for it before goes along."""
        name = changed.metadata.name
        before = next((one for one in self.made.writes if isinstance(one, Update) and one.name == name), None)
        if before is not None:  # one write an object, so that it is of the version that is there
            self.made.writes.remove(before)
            scaled = scaled or before.scaled
        self.made.writes.append(Update(changed, scaled))
        if self.new is not None and self.new.metadata.name == name:
            self.new = changed
        self.old = [changed if found.metadata.name == name else found for found in self.old]

    # History

    def _trim(self) -> None:
        limit = self.deployment.spec.revision_history_limit
        if limit in (None, sets_.NO_LIMIT):
            return
        alive = [found for found in self.old if found.metadata.deletion_timestamp is None]
        surplus = sorted(alive, key=lambda found: (revision_of(found), by_age(found)))[
            : max(0, len(alive) - (limit or 0))
        ]
        for found in surplus:
            seen = found.metadata.generation <= found.status.observed_generation
            if not found.status.replicas and not size(found) and seen:
                self.made.writes.append(Delete(found))

    def _rollback(self) -> Plan:
        """Do what `kubectl rollout undo` of old versions asks for by an annotation: 0 is the revision before."""
        self._ensure_new()
        wanted = _rollback_to(self.deployment) or _last_revision(self.all)
        found = next((one for one in self.all if wanted and revision_of(one) == wanted), None)
        self._tell_rollback(found, wanted)
        annotations = {k: v for k, v in self.deployment.metadata.annotations.items() if k != sets_.ROLLBACK_TO}
        if found is not None and not sets_.same_template(self.deployment, found):
            annotations = {
                **sets_.kept_annotations(annotations),
                **sets_.copied_annotations(found.metadata.annotations),
            }
            self._change(spec__template=sets_.without_hash(found.spec.template))
        self._change(metadata__annotations=annotations)
        self.made.rolled_back = True
        self.made.deployment = self.deployment
        return self.made

    def _tell_rollback(self, found: ReplicaSet | None, wanted: int) -> None:
        name = self.deployment.metadata.name
        if found is None:
            what = "Unable to find the revision to rollback to." if wanted else "Unable to find last revision."
            event = Event("DeploymentRollbackRevisionNotFound", what, warning=True)
        elif sets_.same_template(self.deployment, found):
            what = f'The rollback revision contains the same template as current deployment "{name}"'
            event = Event("DeploymentRollbackTemplateUnchanged", what, warning=True)
        else:
            event = Event("DeploymentRollback", f'Rolled back deployment "{name}" to revision {wanted}')
        self.made.writes.append(event)


def _rollback_to(deployment: Deployment) -> int | None:
    text = deployment.metadata.annotations.get(sets_.ROLLBACK_TO, "")
    return int(text) if text.isascii() and text.isdigit() else None


def _last_revision(sets: Iterable[ReplicaSet]) -> int:
    """Return the revision before the newest, 0 where there is none."""
    revisions = sorted(map(revision_of, sets), reverse=True)
    return revisions[1] if len(revisions) > 1 else 0
