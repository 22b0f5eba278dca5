"""Reconciles applications: looks what git says and what there is, carries the operation on, writes the status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.resources.applications import (
    Application,
    AppProject,
    Operation,
    OperationState,
    OperationSync,
    Source,
)
from pilothouse.kinds import mergepatch, times
from pilothouse.kinds.structs import from_dict, to_dict
from pilothouse.operator import Context, Reconciler, Request, Result

from .autosync import DEFAULT_RETRY, Situation, automated, decide
from .conditions import conditions_of
from .deleting import delete_application
from .errors import SourceError
from .evaluation import Evaluation, Evaluator, sources_of
from .operating import Operator, begun, failed, retry_at, sources_in
from .projects import DEFAULT_PROJECT, IN_CLUSTER, default_project, is_here, problems_of
from .rejections import Rejection, digest_of, last_good, read_rejections, rejection_of, write_rejections
from .repositories import User
from .status import history_with, status_of, status_without
from .windows import Windowed, WindowError, may_sync

__all__ = ["DEPENDS_ON", "REFRESH", "ApplicationReconciler", "dependencies_of"]

REFRESH: Final = "argocd.argoproj.io/refresh"
DEPENDS_ON: Final = "pilothouse.dev/depends-on"
_STEPS: Final = 200
_LOOK_AGAIN_SECONDS: Final = 600.0


def dependencies_of(app: Application) -> list[str]:
    """Return the applications of the same namespace that an application waits for."""
    text = (app.metadata.annotations or {}).get(DEPENDS_ON, "")
    return [name for part in text.split(",") if (name := part.strip())]


@dataclass
class _Turn:
    """One reconcile. conditions: type and message. revision that is kept instead of a rejected one: kept."""

    app: Application
    context: Context
    project: AppProject
    conditions: list[tuple[str, str]]
    again: float = _LOOK_AGAIN_SECONDS
    blocked: str = ""

    @property
    def now(self) -> datetime:
        return self.context.clock.now()

    @property
    def now_text(self) -> str:
        return times.format_seconds(self.now)

    def later(self, seconds: float) -> None:
        """Come again after so many seconds at the latest."""
        self.again = min(self.again, max(seconds, 0.05))


class ApplicationReconciler(Reconciler[Application]):
    """Keeps applications as git says."""

    def __init__(self, evaluator: Evaluator, operator: Operator, namespace: str) -> None:
        self._evaluator = evaluator
        self._operator = operator
        self._namespace = namespace
        self.syncs: Final[Counter[str]] = Counter()
        """Syncs that ended, by phase."""

    async def removed(self, request: Request, context: Context) -> Result | None:
        self._evaluator.repositories.use(User("application", request), [])
        return None

    async def reconcile(self, obj: Application, context: Context) -> Result | None:
        sources = sources_of(obj)
        urls = [source.repo_url for source in sources if source.repo_url and not source.chart]
        self._evaluator.repositories.use(User("application", Request.of(obj)), urls, obj.spec.project)
        if obj.metadata.deletion_timestamp is not None:
            return await delete_application(obj, context, self._evaluator, self._operator.executor)
        turn = _Turn(obj, context, self._project(obj, context), [])
        refreshed = await self._refresh(turn, urls)
        problems = self._problems(turn, sources)
        if problems:
            turn.conditions += [("InvalidSpecError", text) for text in problems]
            await self._write(turn, status_without(obj, **self._parts(turn)))
            return None
        try:
            evaluation = await self._evaluation(turn, sources)
        except (SourceError, DeliveryError) as error:
            await self._uncompared(turn, error, refreshed=refreshed)
            return Result(turn.again)
        await self._carry_on(turn, evaluation, refreshed=refreshed)
        return Result(turn.again)

    # What it shall have

    def _project(self, app: Application, context: Context) -> AppProject:
        name = app.spec.project or DEFAULT_PROJECT
        found = context.get(AppProject, name, self._namespace)
        return found if found is not None else default_project(self._namespace)

    def _problems(self, turn: _Turn, sources: Sequence[Source]) -> list[str]:
        app = turn.app
        name = app.spec.project or DEFAULT_PROJECT
        if name != turn.project.metadata.name:
            return [
                f"project {name} does not exist in namespace {self._namespace}: make it, or say spec.project: default"
            ]
        found = problems_of(app, turn.project, sources, self._namespace)
        if not is_here(app.spec.destination):
            where = app.spec.destination.name or app.spec.destination.server
            found.append(f"destination {where}: only this cluster is served; say name: {IN_CLUSTER}")
        if not sources:
            found.append("spec.source and spec.sources are empty; say where the manifests are")
        return found

    async def _refresh(self, turn: _Turn, urls: Iterable[str]) -> bool:
        """Ask the repositories anew where an annotation wants it, and take it away."""
        wanted = (turn.app.metadata.annotations or {}).get(REFRESH)
        if not wanted:
            return False
        for url in urls:
            try:
                self._evaluator.repositories.mirror(url, turn.app.spec.project).stale()
            except SourceError:
                continue  # told below
        if wanted == "hard":
            self._evaluator.renderer.forget()
        turn.app = await turn.context.patch(turn.app, {"metadata": {"annotations": {REFRESH: None}}})
        return True

    async def _evaluation(self, turn: _Turn, sources: Sequence[Source]) -> Evaluation:
        """Return the evaluation of what the application shall have: of the last good revision where one is rejected."""
        app, listed = turn.app, read_rejections(turn.app)
        evaluator = self._evaluator
        if _creates_namespace(app):
            await evaluator.live.ensure([("v1", "Namespace")])
        ats = await evaluator.resolve(app, turn.project, sources)
        rendered = await evaluator.render(app, turn.project, sources, ats)
        if not listed:
            return await evaluator.compared_with(app, sources, ats, rendered)
        revisions, digest = [at.commit for at in ats], digest_of(rendered)
        bad = rejection_of(listed, revisions, digest)
        if bad is None:
            return await evaluator.compared_with(app, sources, ats, rendered)
        if not bad.digest:
            await self._learn(turn, listed, bad, digest)
        good = last_good(app, listed)
        because = f": {bad.reason}" if bad.reason else ""
        if good is None:
            turn.blocked = f"revision {bad.revision} is rejected{because}, and no sync before it went well"
            turn.conditions.append(("RevisionRejected", turn.blocked))
            return await evaluator.compared_with(app, sources, ats, rendered)
        kept = tuple(good.sources) or ((good.source,) if good.source is not None else tuple(sources))
        before = [*good.revisions] or [good.revision]
        text = f"revision {bad.revision} is rejected{because}; kept at {', '.join(each[:12] for each in before)}"
        turn.conditions.append(("RevisionRejected", text))
        return await evaluator.evaluate(app, turn.project, kept, before)

    async def _learn(self, turn: _Turn, listed: Sequence[Rejection], bad: Rejection, digest: str) -> None:
        known = [
            Rejection(revision=each.revision, reason=each.reason, at=each.at, digest=digest) if each is bad else each
            for each in listed
        ]
        turn.app = await turn.context.patch(turn.app, write_rejections(known))

    async def _uncompared(self, turn: _Turn, error: DeliveryError, *, refreshed: bool) -> None:
        turn.conditions.append(("ComparisonError", str(error)))
        turn.later(60.0)
        state = turn.app.status.operation_state
        operation = to_dict(state) if state is not None else None
        if turn.app.operation is not None and (state is None or state.phase != "Running"):
            operation = self._refused_operation(turn, turn.app.operation, str(error))
        elif state is not None and state.phase == "Running" and retry_at(state) is None:
            operation = failed(
                {**to_dict(state), "message": str(error)}, state.operation.retry, state.retry_count or 0, turn.now
            )
        parts = self._parts(turn) | {"operation": operation}
        drop = operation is not None and operation.get("phase") != "Running"
        await self._write(turn, status_without(turn.app, **parts, refreshed=refreshed), drop_operation=drop)

    def _refused_operation(self, turn: _Turn, operation: Operation, message: str) -> dict[str, Any]:
        return {
            "operation": to_dict(operation),
            "phase": "Error",
            "message": message,
            "startedAt": turn.now_text,
            "finishedAt": turn.now_text,
        }

    # Operations

    async def _carry_on(self, turn: _Turn, evaluation: Evaluation, *, refreshed: bool) -> None:
        """Go on with the operation or begin one, step by step, each kept before the next."""
        for number in range(_STEPS):
            state = turn.app.status.operation_state
            running = state is not None and state.phase in {"Running", "Terminating"}
            if running and state is not None and not self._overtaken(turn, state, evaluation):
                more = await self._go_on(turn, state, evaluation)
            else:
                more = await self._maybe_begin(turn, evaluation)
            if not more:
                break
            turn.conditions = [each for each in turn.conditions if each[0] == "RevisionRejected"]
            evaluation = await self._again(turn, evaluation)
            refreshed = refreshed and number == 0
        await self._settle(turn, evaluation, refreshed=refreshed)

    async def _again(self, turn: _Turn, evaluation: Evaluation) -> Evaluation:
        """Compare with the cluster anew; nothing is fetched or rendered again."""
        return await self._evaluator.evaluate(turn.app, turn.project, evaluation.sources, evaluation.revisions)

    def _overtaken(self, turn: _Turn, state: OperationState, evaluation: Evaluation) -> bool:
        """Whether a newer revision goes before an operation that fails or waits; hooks that run are let end."""
        sync = state.operation.sync
        if not automated(turn.app) or not state.operation.initiated_by.automated or sync is None:
            return False
        result = state.sync_result
        before = tuple(result.revisions) or (result.revision,) if result is not None else ()
        if before == evaluation.revisions or turn.blocked:
            return False
        if retry_at(state) is not None:
            return True
        resources = result.resources if result is not None else ()
        hooks = any(each.hook_type and each.hook_phase == "Running" for each in resources)
        waits = any(each.hook_phase == "Running" for each in resources)
        return waits and not hooks

    async def _go_on(self, turn: _Turn, state: OperationState, evaluation: Evaluation) -> bool:
        if state.phase == "Terminating":
            made = {**to_dict(state), "phase": "Failed", "message": "Operation terminated", "finishedAt": turn.now_text}
            await self._keep(turn, made, evaluation)
            return False
        due = retry_at(state)
        if due is not None:
            if turn.now < due:
                turn.later((due - turn.now).total_seconds())
                return False
            made = {name: value for name, value in to_dict(state).items() if name != "finishedAt"}
            made["syncResult"] = {**made.get("syncResult", {}), "resources": []}
            state = from_dict(made, OperationState)
        sources, revisions = sources_in(turn.app, state)
        own = evaluation
        if revisions != evaluation.revisions or _plain(sources) != _plain(evaluation.sources):
            try:
                own = await self._evaluator.evaluate(turn.app, turn.project, sources, revisions)
            except DeliveryError as error:
                made = failed(
                    {**to_dict(state), "message": str(error)}, state.operation.retry, state.retry_count or 0, turn.now
                )
                await self._keep(turn, made, evaluation)
                return False
        step = await self._operator.step(turn.app, turn.project, state, own, turn.now)
        await self._keep(turn, step.state, evaluation)
        return step.again

    async def _maybe_begin(self, turn: _Turn, evaluation: Evaluation) -> bool:
        app = turn.app
        operation = app.operation
        if operation is not None and operation.sync is not None:
            return await self._begin_asked(turn, operation, operation.sync, evaluation)
        if turn.blocked:
            return False
        window = self._window(turn, manual=False)
        seen = Situation(
            now=turn.now,
            revisions=evaluation.revisions,
            out_of_sync=evaluation.to_do,
            only_prune=evaluation.only_prune,
            empty=not evaluation.targets and bool(evaluation.states),
            window=window,
            waiting_for=self._waiting_for(turn),
            source_changed=self._source_changed(app, evaluation),
        )
        choice = decide(app, app.status.operation_state, seen)
        if choice.condition is not None:
            turn.conditions.append(choice.condition)
        if choice.later is not None:
            turn.later(choice.later)
        if not choice.begin or app.spec.sync_policy is None or app.spec.sync_policy.automated is None:
            return False
        tree = {
            "sync": {
                **_revisions(app, evaluation),
                "prune": bool(app.spec.sync_policy.automated.prune),
                "selfHealAttemptsCount": choice.heal_attempts or None,
            },
            "initiatedBy": {"automated": True},
            "retry": to_dict(app.spec.sync_policy.retry or DEFAULT_RETRY),
        }
        tree["sync"] = {name: value for name, value in tree["sync"].items() if value is not None}
        turn.context.recorder.normal(app, "OperationStarted", f"Initiated automated sync to {evaluation.revisions[0]}")
        await self._keep(turn, begun(app, from_dict(tree, Operation), evaluation, turn.now), evaluation)
        return True

    async def _begin_asked(
        self, turn: _Turn, operation: Operation, sync: OperationSync, evaluation: Evaluation
    ) -> bool:
        """Begin a sync that somebody asked for, at the revision that was asked for."""
        app = turn.app
        sources = tuple(sync.sources) or ((sync.source,) if sync.source is not None else evaluation.sources)
        revisions = tuple(sync.revisions) or ((sync.revision,) if sync.revision else ())
        own = evaluation
        window = self._window(turn, manual=True)
        if window:
            await self._keep(turn, self._refused_operation(turn, operation, f"cannot sync: {window}"), evaluation)
            return False
        try:
            if revisions or _plain(sources) != _plain(evaluation.sources):
                own = await self._evaluator.evaluate(app, turn.project, sources, revisions)
        except DeliveryError as error:
            made = self._refused_operation(turn, operation, str(error))
            await self._keep(turn, made, evaluation)
            return False
        turn.context.recorder.normal(app, "OperationStarted", f"Initiated sync to {own.revisions[0]}")
        await self._keep(turn, begun(app, operation, own, turn.now), evaluation)
        return True

    def _window(self, turn: _Turn, *, manual: bool) -> str:
        app = turn.app
        what = Windowed(app.metadata.name, app.spec.destination.namespace, IN_CLUSTER)
        try:
            return may_sync(turn.project.spec.sync_windows, what, turn.now, manual=manual)
        except WindowError as error:
            return str(error)

    def _waiting_for(self, turn: _Turn) -> str:
        for name in dependencies_of(turn.app):
            found = turn.context.get(Application, name, turn.app.metadata.namespace)
            if found is None:
                return f"application {name} is there"
            status = found.status
            if status.sync.status != "Synced" or status.health.status != "Healthy":
                return f"application {name} is synced and healthy (now {status.sync.status}, {status.health.status})"
        return ""

    def _source_changed(self, app: Application, evaluation: Evaluation) -> bool:
        """Whether the application says something else of its sources than what was synced last."""
        state = app.status.operation_state
        if state is None or state.sync_result is None:
            return False
        return _plain(sources_in(app, state)[0]) != _plain(evaluation.sources)

    # Writing

    def _parts(self, turn: _Turn) -> dict[str, Any]:
        state = turn.app.status.operation_state
        return {
            "operation": to_dict(state) if state is not None else None,
            "conditions": conditions_of(turn.conditions, turn.app.status.conditions, turn.now_text),
            "now": turn.now_text,
        }

    async def _keep(self, turn: _Turn, operation: Mapping[str, Any], evaluation: Evaluation) -> None:
        """Write how the operation is, before anything else is done."""
        app = turn.app
        ended = operation.get("phase") not in {"Running", "Terminating"}
        history = to_dict(app.status).get("history", ())
        if operation.get("phase") == "Succeeded" and _is_deployment(operation):
            history = history_with(app, from_dict(dict(operation), OperationState), turn.now_text)
        if ended:
            self._record_end(turn, operation)
            evaluation = await self._again(turn, evaluation)
        parts = {**self._parts(turn), "operation": operation}
        made = status_of(app, evaluation, **parts, history=history, refreshed=False)
        await self._write(turn, made, drop_operation=ended and app.operation is not None)

    def _record_end(self, turn: _Turn, operation: Mapping[str, Any]) -> None:
        self.syncs[str(operation.get("phase"))] += 1
        recorder, message = turn.context.recorder, str(operation.get("message", ""))[:900]
        if operation.get("phase") == "Succeeded":
            recorder.normal(turn.app, "OperationCompleted", message)
        else:
            recorder.warning(turn.app, "OperationCompleted", f"Sync operation failed: {message}")

    async def _settle(self, turn: _Turn, evaluation: Evaluation, *, refreshed: bool) -> None:
        turn.conditions += evaluation.problems
        history = to_dict(turn.app.status).get("history", ())
        made = status_of(turn.app, evaluation, **self._parts(turn), history=history, refreshed=refreshed)
        await self._write(turn, made)

    async def _write(self, turn: _Turn, status: dict[str, Any], *, drop_operation: bool = False) -> None:
        """Write what of the status has changed."""
        app = turn.app
        before: dict[str, Any] = to_dict(app.status)
        patch: dict[str, Any] = {}
        if before != status:
            patch["status"] = mergepatch.diff(before, status)
        if drop_operation and app.operation is not None:
            patch["operation"] = None
            # One that somebody asks for at this moment must not be lost.
            patch["metadata"] = {"resourceVersion": app.metadata.resource_version}
        if patch:
            turn.app = await turn.context.patch(app, patch)


def _plain(sources: Iterable[Source]) -> list[Any]:
    return [to_dict(source) for source in sources]


def _revisions(app: Application, evaluation: Evaluation) -> dict[str, Any]:
    if app.spec.sources:
        return {"revisions": [*evaluation.revisions]}
    return {"revision": evaluation.revisions[0]}


def _is_deployment(operation: Mapping[str, Any]) -> bool:
    """Whether a sync is one to go back to: not what only healed drift, or was of chosen objects."""
    sync = operation.get("operation", {}).get("sync", {})
    return not sync.get("selfHealAttemptsCount") and not sync.get("resources")


def _creates_namespace(app: Application) -> bool:
    policy = app.spec.sync_policy
    return policy is not None and "CreateNamespace=true" in policy.sync_options
