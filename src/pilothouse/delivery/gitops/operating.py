"""Operations of an application: one sync, begun, carried on over many reconciles and restarts, ended, tried again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

from pilothouse.delivery.resources.applications import (
    Application,
    AppProject,
    Operation,
    OperationState,
    Retry,
    Source,
)
from pilothouse.kinds import times
from pilothouse.kinds.structs import to_dict

from .autosync import retry_pause
from .evaluation import Evaluation, State
from .executing import Executor, Options
from .health import health_of
from .hooks import APPROVED, annotations_of, options_of
from .keeping import planned_claims
from .live import LiveObjects
from .projects import refused
from .settings import Settings
from .syncing import Plan, Result, ResultKey, Task, advance, make_tasks
from .targets import Key, Target

__all__ = ["Operator", "begun", "results_of", "retry_at", "sources_in"]


class Step(NamedTuple):
    """How an operation is by now, as the status has it. again: whether more can be done at once."""

    state: dict[str, Any]
    again: bool


def begun(app: Application, operation: Operation, evaluation: Evaluation, now: datetime) -> dict[str, Any]:
    """Return the state of an operation that begins now."""
    result: dict[str, Any] = {"revision": evaluation.revisions[0], "resources": []}
    if app.spec.sources:
        result = {"revision": "", "revisions": [*evaluation.revisions], "resources": []}
        result["sources"] = [to_dict(source) for source in evaluation.sources]
    else:
        result["source"] = to_dict(evaluation.sources[0])
    return {
        "operation": to_dict(operation),
        "phase": "Running",
        "message": "waiting to start",
        "startedAt": times.format_seconds(now),
        "syncResult": result,
    }


def sources_in(app: Application, state: OperationState) -> tuple[tuple[Source, ...], tuple[str, ...]]:
    """Return the sources and revisions that an operation is about."""
    result = state.sync_result
    if result is None:
        return (), ()
    if result.sources:
        return tuple(result.sources), tuple(result.revisions)
    source = result.source or app.spec.source
    return ((source,) if source is not None else ()), (result.revision,)


def results_of(state: OperationState) -> dict[ResultKey, Result]:
    """Return what an operation did so far."""
    found = {}
    for each in state.sync_result.resources if state.sync_result is not None else ():
        key = Key(each.group, each.kind, each.namespace, each.name)
        found[key, each.sync_phase] = Result(each.status, each.hook_phase, each.message, each.hook_type)
    return found


def _written(results: Mapping[ResultKey, Result], versions: Mapping[Key, str]) -> list[dict[str, Any]]:
    made = []
    for (key, phase), result in results.items():
        one = {
            "group": key.group,
            "version": versions.get(key, "").rpartition("/")[2],
            "kind": key.kind,
            "namespace": key.namespace,
            "name": key.name,
            "status": result.status,
            "message": result.message,
            "hookType": result.hook,
            "hookPhase": result.state,
            "syncPhase": phase,
        }
        required = {"group", "kind", "name", "namespace", "version"}
        made.append({name: value for name, value in one.items() if value or name in required})
    return made


def _forbidden(tasks: Sequence[Task], options: Options) -> dict[ResultKey, Result]:
    """Return what the project does not allow: then nothing of the sync is done."""
    denied = options.denied or {}
    return {
        (task.key, task.phase): Result("SyncFailed", "Failed", denied[task.key], task.phase if task.is_hook else "")
        for task in tasks
        if task.key in options.forbidden
    }


class Operator:
    """Carries operations on."""

    def __init__(self, live: LiveObjects, settings: Settings) -> None:
        self._live = live
        self._settings = settings
        self.executor: Final = Executor(live)

    async def step(
        self, app: Application, project: AppProject, state: OperationState, evaluation: Evaluation, now: datetime
    ) -> Step:
        """Do what is to be done next; call it again with the state that it returns, once that is kept."""
        options = self._options(app, project, state, evaluation)
        tasks = self._tasks(app, state, evaluation, options)
        results = results_of(state)
        if not results:
            results = _forbidden(tasks, options) or await self._tried(tasks, options)
        plan = advance(tasks, results, self._look(tasks), self._health)
        if plan.phase != "Running":
            return await self._ended(tasks, plan, state, now)
        if not plan.run:
            return Step(self._state(state, plan.message, plan.results, tasks), again=False)
        done = await self.executor.run(plan.run, options)
        known = {**plan.results, **done}
        return Step(self._state(state, plan.message, known, tasks), again=bool(done))

    async def _tried(self, tasks: Sequence[Task], options: Options) -> dict[ResultKey, Result]:
        changing = [task for task in tasks if task.target is not None and not task.in_sync and not task.is_hook]
        if len(changing) < 2 or options.has("Validate=false"):
            return {}
        later = {task.key.name for task in changing if task.key.kind == "Namespace"}
        for task in changing:
            if task.key.kind == "CustomResourceDefinition" and task.target is not None:
                later.add(str(task.target.object.get("spec", {}).get("names", {}).get("kind", "")))
        return await self.executor.try_out(changing, options, frozenset(later))

    def _health(self, obj: Mapping[str, Any]) -> Any:
        group = str(obj["apiVersion"]).rpartition("/")[0]
        return health_of(obj, self._settings.health_rules(group, obj["kind"]))

    def _look(self, tasks: Sequence[Task]) -> Any:
        versions = {task.key: task.target.api_version for task in tasks if task.target is not None}
        return lambda key: self._live.get(key, versions.get(key, ""))

    def _options(self, app: Application, project: AppProject, state: OperationState, evaluation: Evaluation) -> Options:
        policy = app.spec.sync_policy
        sync = state.operation.sync
        said = [*(policy.sync_options if policy is not None else ()), *(sync.sync_options if sync is not None else ())]
        denied, forbidden = {}, set()
        for target in evaluation.targets:
            namespaced = self._live.is_namespaced(target.api_version, target.key.kind)
            why = refused(project, app.spec.destination, target.key, namespaced=namespaced)
            if why:
                denied[target.key] = why
                forbidden.add(target.key)
        for each in evaluation.states:
            if each.problem and each.target is not None:
                denied[each.key] = each.problem
        strategy = (sync.sync_strategy or {}) if sync is not None else {}
        force = any(bool((strategy.get(name) or {}).get("force")) for name in ("apply", "hook"))
        planned = planned_claims(evaluation.targets)
        ignored, keys = app.spec.ignore_differences, frozenset(forbidden)
        return Options(frozenset(said), state.started_at, ignored, denied, force, planned, keys)

    def _tasks(self, app: Application, state: OperationState, evaluation: Evaluation, options: Options) -> list[Task]:
        sync = state.operation.sync
        chosen = [_selector(each) for each in (sync.resources if sync is not None else ())]
        strategy = (sync.sync_strategy or {}) if sync is not None else {}
        hooks = not chosen and "apply" not in strategy
        targets = [each for each in evaluation.targets if each.is_hook or _is_chosen(each.key, chosen)]
        pruned = [
            (each.key, each.live)
            for each in evaluation.states
            if each.is_extra and each.live is not None and not each.synced and _is_chosen(each.key, chosen)
        ]
        prune = sync is not None and bool(sync.prune)
        last = options.has("PruneLast=true") or any("PruneLast=true" in options_of(obj) for _, obj in pruned)
        approved = bool(annotations_of(to_dict(app)).get(APPROVED))
        may_go = [pair for pair in pruned if prune and (approved or "Prune=confirm" not in options_of(pair[1]))]

        def in_sync(key: Key) -> bool:
            found: State | None = evaluation.by_key.get(key)
            return found is not None and found.synced and found.live is not None

        started = "".join(each for each in state.started_at if each.isdigit())
        suffix = f"{evaluation.revisions[0][:7]}-{started}"
        tasks = make_tasks(targets, may_go, self._live.get, in_sync, prune_last=last, hooks=hooks, suffix=suffix)
        namespace = None if chosen else self._namespace(app, evaluation, options)
        return [namespace, *tasks] if namespace is not None else tasks

    def _namespace(self, app: Application, evaluation: Evaluation, options: Options) -> Task | None:
        """Return what makes the destination's namespace, before all else."""
        name = app.spec.destination.namespace
        if not name or not options.has("CreateNamespace=true"):
            return None
        key = Key("", "Namespace", "", name)
        if any(target.key == key for target in evaluation.targets):
            return None
        wanted = (app.spec.sync_policy.managed_namespace_metadata if app.spec.sync_policy is not None else None) or {}
        metadata: dict[str, Any] = {"name": name}
        metadata |= {part: dict(wanted[part]) for part in ("labels", "annotations") if wanted.get(part)}
        live = self._live.get(key, "v1")
        there = live is not None and all(
            dict(live["metadata"].get(part) or {}).items() >= dict(wanted.get(part) or {}).items()
            for part in ("labels", "annotations")
        )
        return _namespace_task(key, metadata, live, in_sync=there)

    def _state(
        self, state: OperationState, message: str, results: Mapping[ResultKey, Result], tasks: Sequence[Task]
    ) -> dict[str, Any]:
        tree: dict[str, Any] = to_dict(state)
        versions = {task.key: _version_of(task) for task in tasks}
        result = {**tree.get("syncResult", {}), "resources": _written(results, versions)}
        return {**tree, "message": message, "syncResult": result}

    async def _ended(self, tasks: Sequence[Task], plan: Plan, state: OperationState, now: datetime) -> Step:
        """Tidy up hooks, and end the operation or have it tried again."""
        await self._delete_hooks(tasks, plan)
        made = self._state(state, plan.message, plan.results, tasks)
        made["finishedAt"] = times.format_seconds(now)
        if plan.phase == "Succeeded":
            return Step({**made, "phase": "Succeeded"}, again=False)
        return Step(failed(made, state.operation.retry, state.retry_count or 0, now), again=False)

    async def _delete_hooks(self, tasks: Sequence[Task], plan: Plan) -> None:
        for task in tasks:
            result = plan.results.get((task.key, task.phase))
            target = task.target
            if target is None or not target.is_hook or result is None:
                continue
            gone = ("HookSucceeded" in target.policies and result.state == "Succeeded") or (
                "HookFailed" in target.policies and result.state == "Failed"
            )
            live = self._live.get(task.key, target.api_version)
            if gone and live is not None:
                await self.executor.delete(task.key, live)


def failed(made: dict[str, Any], retry: Retry | None, count: int, now: datetime) -> dict[str, Any]:
    """Return the state of an operation that failed: tried again later where its retry says so, else over."""
    pause = retry_pause(retry, count) if retry is not None else None
    made = {**made, "finishedAt": times.format_seconds(now)}
    if pause is None:
        return {**made, "phase": "Failed"}
    at = times.format_seconds(now + timedelta(seconds=pause))
    message = f"{made.get('message', '')} Retrying attempt #{count + 1} at {at}."
    # As in Argo CD: still running, with the time at which it failed.
    return {**made, "phase": "Running", "retryCount": count + 1, "message": message}


def retry_at(state: OperationState) -> datetime | None:
    """Return when a failed operation is tried again, None for one that goes on."""
    if state.phase != "Running" or not state.finished_at:
        return None
    pause = retry_pause(state.operation.retry or Retry(), max((state.retry_count or 1) - 1, 0))
    return times.parse(state.finished_at) + timedelta(seconds=pause or 0.0)


def _selector(found: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return found.get("group", ""), found.get("kind", ""), found.get("namespace", ""), found.get("name", "")


def _is_chosen(key: Key, chosen: Sequence[tuple[str, str, str, str]]) -> bool:
    return not chosen or any(
        key.group == group and key.kind == kind and key.name == name and namespace in {"", key.namespace}
        for group, kind, namespace, name in chosen
    )


def _version_of(task: Task) -> str:
    if task.target is not None:
        return task.target.api_version
    return str(task.live["apiVersion"]) if task.live is not None else ""


def _namespace_task(key: Key, metadata: Mapping[str, Any], live: Mapping[str, Any] | None, *, in_sync: bool) -> Task:
    data = msgspec.json.encode({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    target = Target(key=key, api_version="v1", file="", data=data, digest=b"", wave=-(2**31))
    return Task(key, "PreSync", -(2**31), target, live, in_sync)
