"""How many pods each set of a rollout gets, which sets go, and what sets carry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pilothouse.delivery.resources.rollouts import PodMetadata
from pilothouse.kinds.structs import ObjectMeta, ReplicaSet, from_dict, replace, to_dict
from pilothouse.kinds.structs.apps import ReplicaSetSpec
from pilothouse.operator.owners import owner_reference

from .actions import Action, DeleteSet, MarkPod, Plan, UpdateSet
from .bluegreen import preview_count
from .counts import counts
from .names import DEADLINE, DESIRED_REPLICAS, HASH, INCONCLUSIVE_RUN, REVISION
from .runs import POST, current
from .situation import Situation, available, deadline_of, hash_label, revision_of, size
from .templates import hash_of, marked, marks_of, with_anti_affinity

__all__ = ["history_actions", "mark_actions", "new_set", "set_actions"]

_HISTORY: Final = 10
_NOT_COPIED: Final = (
    "kubectl.kubernetes.io/",
    "rollout.argoproj.io/",
    "deployment.kubernetes.io/",
)


def new_set(sit: Situation) -> ReplicaSet:
    """Return the set of the present template, without pods as yet."""
    named = hash_of(sit.template, sit.status.collision_count)
    stable = (sit.status.stable_rs or "") if sit.status.stable_rs != named else ""
    strategy = sit.canary or sit.blue_green
    anti_affinity = None if strategy is None else strategy.anti_affinity
    template: dict[str, Any] = to_dict(with_anti_affinity(sit.template, anti_affinity, stable, sit.namespace))
    metadata = template.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), HASH: named}
    selector: dict[str, Any] = to_dict(sit.selector)
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), HASH: named}
    spec = {
        "replicas": 0,
        "minReadySeconds": sit.spec.min_ready_seconds or 0,
        "selector": selector,
        "template": template,
    }
    made = ReplicaSet(
        metadata=ObjectMeta(
            name=f"{sit.name}-{named}",
            namespace=sit.namespace,
            labels=metadata["labels"],
            annotations={
                **_copied(sit.rollout.metadata.annotations),
                REVISION: str(sit.revision),
                DESIRED_REPLICAS: str(sit.replicas),
            },
            owner_references=(owner_reference(sit.rollout),),
        ),
        spec=from_dict(spec, ReplicaSetSpec),
    )
    return marked(made, _marks(sit, is_stable=not stable))


def _copied(annotations: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in annotations.items() if not name.startswith(_NOT_COPIED)}


class _Changes:
    """What sets become: each is written once, with all that changes about it."""

    def __init__(self, sit: Situation) -> None:
        self.sit = sit
        self.now = {found.metadata.name: found for found in sit.sets}
        self.told: dict[str, str] = {}
        self.has_scaled = False

    def annotate(self, found: ReplicaSet, **notes: str | None) -> None:
        """Set annotations, or remove those that are None. notes: by the names of this module's constants."""
        names = {"deadline": DEADLINE, "revision": REVISION, "desired": DESIRED_REPLICAS}
        there = self.now[found.metadata.name]
        made = dict(there.metadata.annotations)
        for key, value in notes.items():
            if value is None:
                made.pop(names[key], None)
            else:
                made[names[key]] = value
        if made != there.metadata.annotations:
            self.now[found.metadata.name] = replace(there, metadata__annotations=made)

    def scale(self, found: ReplicaSet, count: int) -> bool:
        """Give a set another size; whether it is another."""
        before = size(found)
        if before == count:
            return False
        self.now[found.metadata.name] = replace(self.now[found.metadata.name], spec__replicas=count)
        way = "up" if before < count else "down"
        name = found.metadata.name
        self.told[name] = f"Scaled {way} ReplicaSet {name} (revision {revision_of(found)}) from {before} to {count}"
        self.has_scaled = True
        return True

    def actions(self, order: Iterable[ReplicaSet | None]) -> list[Action]:
        """Return what changed, in an order."""
        made: dict[str, Action] = {}
        for found in order:
            if found is None or found.metadata.name in made:
                continue
            wanted = self.now[found.metadata.name]
            if wanted != found:
                made[found.metadata.name] = UpdateSet(wanted, self.told.get(found.metadata.name, ""))
        return [*made.values()]


def set_actions(sit: Situation, plan: Plan) -> list[Action]:
    """Return the changes of sets: the stable one before the new one, others last; canaries scale one at a time."""
    changes = _Changes(sit)
    _tend_new(sit, changes)
    if not sit.is_halted:
        _forget_deadlines(sit, changes)
        if sit.blue_green is not None:
            _scale_blue_green(sit, changes, plan)
        else:
            _scale_canary(sit, changes, plan)
    return changes.actions([sit.stable, sit.new, *sit.others])


def _tend_new(sit: Situation, changes: _Changes) -> None:
    """Keep the revision, what pods carry and minReadySeconds up to date."""
    new, stable = sit.new, sit.stable
    if new is None:
        return
    changes.annotate(new, revision=str(sit.revision))
    there = changes.now[new.metadata.name]
    if (there.spec.min_ready_seconds or 0) != (sit.spec.min_ready_seconds or 0):
        there = replace(there, spec__min_ready_seconds=sit.spec.min_ready_seconds or 0)
    changes.now[new.metadata.name] = marked(there, _marks(sit, is_stable=sit.is_promoted or sit.is_first))
    if stable is not None and stable is not new:
        changes.now[stable.metadata.name] = marked(stable, _marks(sit, is_stable=True))


def _forget_deadlines(sit: Situation, changes: _Changes) -> None:
    for found in (sit.new, sit.stable):
        keeps = found is sit.new and found is not sit.stable and _keeps_aborted(sit)
        if found is not None and not keeps:
            changes.annotate(found, deadline=None)


# Canary


def _scale_canary(sit: Situation, changes: _Changes, plan: Plan) -> None:
    new, wanted = sit.new, counts(sit, sit.status.canary.weights)
    desired = str(sit.replicas)
    if sit.has_stable and sit.stable is not None:
        changes.annotate(sit.stable, desired=desired)
        if changes.scale(sit.stable, wanted.stable):
            return
    if new is not None:
        changes.annotate(new, desired=desired)
        count = _aborted_size(sit, changes, plan) if _keeps_aborted(sit) else wanted.canary
        if changes.scale(new, count):
            return
    _scale_others(sit, changes, plan)


def _keeps_aborted(sit: Situation) -> bool:
    """Whether an aborted version keeps its pods for a while, or for ever."""
    if not sit.is_aborted or not sit.has_stable or (sit.canary is not None and not sit.is_routed):
        return False
    return not sit.is_dynamic or sit.has_own_abort_delay or sit.abort_delay is None


def _aborted_size(sit: Situation, changes: _Changes, plan: Plan) -> int:
    new = sit.new
    if new is None or sit.abort_delay is None:
        return size(new)
    deadline = deadline_of(new)
    if deadline is None:
        if size(new) and available(sit.stable) >= sit.replicas:
            changes.annotate(new, deadline=sit.stamp_in(sit.abort_delay))
            plan.wait(sit.abort_delay)
        return size(new)
    left = (deadline - sit.now).total_seconds()
    if left <= 0:
        return 0
    plan.wait(left)
    return size(new)


def _scale_others(sit: Situation, changes: _Changes, plan: Plan) -> None:
    """Take the pods of replaced sets, the unhealthy first, as many as may be missing."""
    others = [found for found in sit.others if size(found) > 0]
    sizes = {found.metadata.name: min(size(found), available(found)) for found in others}
    spare = sum(available(found) for found in sit.sets) - (sit.replicas - sit.max_unavailable)
    kept = 0
    for found in sorted(others, key=revision_of, reverse=True):
        count = sizes[found.metadata.name]
        if spare <= 0 or (sit.is_routed and _is_referenced(sit, found)):
            changes.scale(found, count)
            continue
        if not sit.is_routed:
            wanted = max(count - spare, 0)
        elif (sit.is_promoted and not sit.is_dynamic) or (deadline_of(found) is not None and not sit.is_dynamic):
            kept, wanted = _delayed(sit, changes, plan, found, (kept, count))
        else:
            wanted = 0
        spare -= count - wanted
        if changes.scale(found, wanted) and not wanted:
            changes.annotate(found, deadline=None)


def _delayed(
    sit: Situation, changes: _Changes, plan: Plan, found: ReplicaSet, counted: tuple[int, int]
) -> tuple[int, int]:
    """Return how many sets keep their pods with this one, and its size. counted: how many before it, and its size."""
    kept, count = counted
    deadline = deadline_of(found)
    if kept >= sit.scale_down_limit or not sit.scale_down_delay:
        return kept, 0
    if deadline is None:
        changes.annotate(found, deadline=sit.stamp_in(sit.scale_down_delay))
        plan.wait(sit.scale_down_delay)
        return kept + 1, count
    left = (deadline - sit.now).total_seconds()
    if left <= 0:
        return kept + 1, 0
    plan.wait(left)
    return kept + 1, count


def _is_referenced(sit: Situation, found: ReplicaSet) -> bool:
    """Whether anything still leads to a set: the status, or a service as it is now."""
    named, weights = hash_label(found), sit.status.canary.weights
    if not named:
        return False  # adopted, and not made by a rollout
    references = {sit.status.stable_rs, sit.status.current_pod_hash}
    if weights is not None:
        references |= {weights.canary.pod_template_hash, weights.stable.pod_template_hash}
    return named in references or any(sit.selected(name) == named for name in _services(sit))


def _services(sit: Situation) -> list[str]:
    """Return the services that may have users: of two that take turns the idle one keeps the version that it had."""
    takes_turns = sit.canary is not None and sit.canary.ping_pong is not None
    return [name for name in sit.view.services if not (takes_turns and sit.is_promoted and name == sit.services[1])]


# Blue-green


def _scale_blue_green(sit: Situation, changes: _Changes, plan: Plan) -> None:
    new, desired = sit.new, str(sit.replicas)
    if sit.has_stable and sit.stable is not None:
        changes.annotate(sit.stable, desired=desired)
        changes.scale(sit.stable, sit.replicas)
    if new is not None:
        changes.annotate(new, desired=desired)
        changes.scale(new, _aborted_size(sit, changes, plan) if _keeps_aborted(sit) else preview_count(sit))
    if sit.pause(INCONCLUSIVE_RUN) is not None or _awaits_analysis(sit):
        return
    kept = 0
    for found in sorted(sit.others, key=revision_of, reverse=True):
        if not size(found) or _is_referenced(sit, found):
            continue
        kept, count = _delayed(sit, changes, plan, found, (kept, size(found)))
        if changes.scale(found, count) and not count:
            changes.annotate(found, deadline=None)


def _awaits_analysis(sit: Situation) -> bool:
    """Whether replaced sets stay until the analysis after the switch is done, as no delay is said."""
    strategy, run = sit.blue_green, current(sit.status, POST)
    if strategy is None or strategy.post_promotion_analysis is None or strategy.scale_down_delay_seconds is not None:
        return False
    if sit.is_promoted or sit.status.blue_green.active_selector != sit.hash:
        return False
    return run is None or run.status != "Successful"


# History


def history_actions(sit: Situation) -> list[Action]:
    """Return which old sets go: the oldest that have no pods, beyond `revisionHistoryLimit`."""
    limit = sit.spec.revision_history_limit
    alive = [found for found in sit.others if found.metadata.deletion_timestamp is None]
    surplus = alive[: max(len(alive) - (_HISTORY if limit is None else limit), 0)]
    return [DeleteSet(found) for found in surplus if _is_empty(found) and not _is_referenced(sit, found)]


def _is_empty(found: ReplicaSet) -> bool:
    seen = (found.metadata.generation or 0) <= found.status.observed_generation
    return not size(found) and not found.status.replicas and seen


# What pods carry while their set has a part


def _marks(sit: Situation, *, is_stable: bool) -> PodMetadata:
    if sit.canary is not None:
        found = sit.canary.stable_metadata if is_stable else sit.canary.canary_metadata
    elif sit.blue_green is not None:
        found = sit.blue_green.active_metadata if is_stable else sit.blue_green.preview_metadata
    else:
        found = None
    return found or PodMetadata()


def mark_actions(sit: Situation) -> list[Action]:
    """Return what gives pods that are there the labels and annotations that new ones of their set get."""
    made: list[Action] = []
    for found, is_stable in ((sit.new, sit.is_promoted or sit.is_first), (sit.stable, True)):
        if found is None or (found is sit.new and found is sit.stable and not is_stable):
            continue
        marks, before = _marks(sit, is_stable=is_stable), marks_of(found)
        if marks == before == PodMetadata():
            continue
        for pod in sit.view.pods:
            if pod.metadata.deletion_timestamp is not None or pod.metadata.labels.get(HASH) != hash_label(found):
                continue
            labels = _difference(pod.metadata.labels, before.labels, marks.labels)
            notes = _difference(pod.metadata.annotations, before.annotations, marks.annotations)
            if labels or notes:
                made.append(MarkPod(pod, labels, notes))
    return made


def _difference(
    present: Mapping[str, str], before: Mapping[str, str], wanted: Mapping[str, str]
) -> dict[str, str | None]:
    made: dict[str, str | None] = {name: value for name, value in wanted.items() if present.get(name) != value}
    return made | {name: None for name in before if name in present and name not in wanted}
