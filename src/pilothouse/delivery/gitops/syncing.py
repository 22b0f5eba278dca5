"""One sync as a state machine: phases, waves and hooks; from what there is and what was done to what is to be done now.

Pure. All that it remembers are the results by object and phase, which stand in the application's status, so a sync goes
on where it was when the controller is begun anew. Order: phase, wave, kind, name; what is pruned goes in the
opposite order of waves, and last with PruneLast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from .health import Verdict
from .hooks import wave_of
from .targets import Key, Target

__all__ = ["KIND_ORDER", "PHASES", "Plan", "Result", "ResultKey", "Task", "advance", "make_tasks", "ordered"]

PHASES: Final = ("PreSync", "Sync", "PostSync", "SyncFail")
_KINDS: Final = """
    Namespace NetworkPolicy ResourceQuota LimitRange PodSecurityPolicy PodDisruptionBudget ServiceAccount Secret
    SecretList ConfigMap StorageClass PersistentVolume PersistentVolumeClaim CustomResourceDefinition ClusterRole
    ClusterRoleList ClusterRoleBinding ClusterRoleBindingList Role RoleList RoleBinding RoleBindingList Service
    DaemonSet Pod ReplicationController ReplicaSet Deployment HorizontalPodAutoscaler StatefulSet Job CronJob
    IngressClass Ingress APIService
"""
KIND_ORDER: Final = {kind: number - 100 for number, kind in enumerate(_KINDS.split())}
"""Kinds that are not named come last."""


class Task(NamedTuple):
    """One object in one phase. target: what it shall be, None where it is pruned. in_sync: nothing differs."""

    key: Key
    phase: str
    wave: int
    target: Target | None
    live: Mapping[str, Any] | None
    in_sync: bool = False

    @property
    def is_hook(self) -> bool:
        """Whether it is a hook."""
        return self.target is not None and self.target.is_hook


class Result(NamedTuple):
    """What became of a task. status: Synced, SyncFailed, Pruned, PruneSkipped. state: Running, Succeeded, Failed."""

    status: str
    state: str
    message: str = ""
    hook: str = ""


ResultKey = tuple[Key, str]
"""An object and a phase."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done now. phase: of the operation, Running until it is over. run: tasks, all at once."""

    phase: str
    message: str
    run: tuple[Task, ...] = ()
    results: Mapping[ResultKey, Result] = field(default_factory=dict)
    waiting: tuple[Key, ...] = ()


def make_tasks(
    targets: Iterable[Target],
    pruned: Iterable[tuple[Key, Mapping[str, Any]]],
    live: Callable[[Key], Mapping[str, Any] | None],
    in_sync: Callable[[Key], bool],
    *,
    prune_last: bool = False,
    hooks: bool = True,
    suffix: str = "",
) -> list[Task]:
    """Return the tasks of a sync in order. suffix: of names of hooks that have generateName."""
    found: list[Task] = []
    for target in targets:
        if not target.is_hook:
            found.append(Task(target.key, "Sync", target.wave, target, live(target.key), in_sync(target.key)))
            continue
        for phase in target.phases if hooks else ():
            if phase in PHASES:
                name = target.key.name or f"{target.generate_name}{suffix}-{phase.lower()}"[:253]
                key = target.key._replace(name=name)
                found.append(Task(key, phase, target.wave, target, live(key)))
    last = max((task.wave for task in found if task.phase == "Sync"), default=0) + 1
    gone = [(key, obj, wave_of(obj)) for key, obj in pruned]
    waves = sorted({wave for _, _, wave in gone})
    mirrored = dict(zip(waves, reversed(waves), strict=True))
    found += [Task(key, "Sync", last if prune_last else mirrored[wave], None, obj) for key, obj, wave in gone]
    return ordered(found)


def ordered(tasks: Iterable[Task]) -> list[Task]:
    """Return tasks in the order in which they are done."""
    return sorted(
        tasks,
        key=lambda task: (
            PHASES.index(task.phase),
            task.wave,
            KIND_ORDER.get(task.key.kind, 0) * (1 if task.target is not None else -1),
            task.key.name,
            task.key,
        ),
    )


def advance(
    tasks: Sequence[Task],
    results: Mapping[ResultKey, Result],
    live: Callable[[Key], Mapping[str, Any] | None],
    health: Callable[[Mapping[str, Any]], Verdict | None],
) -> Plan:
    """Return what a sync does next, with the results as they are by now."""
    known = dict(results)
    main = [task for task in tasks if task.phase != "SyncFail"]
    pending = [task for task in main if (task.key, task.phase) not in known]
    for task in tasks:
        place = task.key, task.phase
        before = known.get(place)
        if before is not None and before.state == "Running" and (task.is_hook or pending):
            known[place] = _looked(task, before, live(task.key), health)
    waiting = _waiting(tasks, known, pending)
    if waiting:
        return Plan("Running", _waiting_for(waiting), results=known, waiting=tuple(task.key for task in waiting))
    failed = [(key, result) for (key, phase), result in known.items() if _is_failed(result) and phase != "SyncFail"]
    if failed:
        return _failing(tasks, known, failed)
    if not pending:
        return Plan("Succeeded", "successfully synced (all tasks run)", results=known)
    first = pending[0].phase, pending[0].wave
    run = tuple(task for task in pending if (task.phase, task.wave) == first)
    return Plan("Running", f"running {first[0]} wave {first[1]}", run=run, results=known)


def _looked(
    task: Task,
    before: Result,
    live: Mapping[str, Any] | None,
    health: Callable[[Mapping[str, Any]], Verdict | None],
) -> Result:
    """Return how a task that runs is by now."""
    if task.target is None:
        return before._replace(state="Succeeded")
    if live is None:
        return before._replace(state="Failed", message="it was deleted before it was done")
    verdict = health(live)
    if verdict is None or (task.is_hook and task.key.kind not in {"Job", "Pod", "Workflow"}):
        return before._replace(state="Succeeded", message=before.message)
    if verdict.status == "Healthy":
        return before._replace(state="Succeeded", message=verdict.message or before.message)
    if verdict.status == "Degraded":
        return before._replace(state="Failed", message=verdict.message or "it is degraded")
    return before._replace(message=verdict.message or before.message)


def _waiting(tasks: Sequence[Task], known: Mapping[ResultKey, Result], pending: Sequence[Task]) -> list[Task]:
    """Return the tasks that must be done before anything else: hooks always, others where something comes after."""
    running = [task for task in tasks if (r := known.get((task.key, task.phase))) is not None and r.state == "Running"]
    return [task for task in running if task.is_hook or pending]


def _waiting_for(tasks: Sequence[Task]) -> str:
    first = tasks[0]
    what = "completion of hook" if first.is_hook else "healthy state of"
    more = f" and {len(tasks) - 1} more {'hooks' if first.is_hook else 'resources'}" if len(tasks) > 1 else ""
    return f"waiting for {what} {first.key.group}/{first.key.kind}/{first.key.name}{more}"


def _is_failed(result: Result) -> bool:
    return result.state == "Failed" or result.status == "SyncFailed"


def _failing(tasks: Sequence[Task], known: dict[ResultKey, Result], failed: Sequence[tuple[Key, Result]]) -> Plan:
    """Run what is for failures, then end."""
    rest = [task for task in tasks if task.phase == "SyncFail" and (task.key, task.phase) not in known]
    reason = "; ".join(f"{key}: {result.message}" for key, result in failed[:3])
    if rest:
        run = tuple(task for task in rest if task.wave == rest[0].wave)
        return Plan("Running", f"running SyncFail hooks: {reason}", run=run, results=known)
    hooks = any(result.hook for _, result in failed)
    what = (
        "one or more synchronization tasks completed unsuccessfully" if hooks else "one or more objects failed to apply"
    )
    return Plan("Failed", f"{what}, reason: {reason}"[:2000], results=known)
