"""Reconciles ApplicationSets: makes, changes and removes applications as generators and templates say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from pilothouse.client.errors import BadAnswer
from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.gitops.errors import TemplateError
from pilothouse.delivery.gitops.manifests import read_documents
from pilothouse.delivery.gitops.mirrors import Mirror
from pilothouse.delivery.gitops.projects import DEFAULT_PROJECT, allows_repository
from pilothouse.delivery.gitops.repositories import Repositories, User
from pilothouse.delivery.gitops.settings import Settings
from pilothouse.delivery.resources.applications import Application, ApplicationSet, AppProject
from pilothouse.kinds import mergepatch, times
from pilothouse.kinds.conditions import find
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import from_dict, to_dict
from pilothouse.operator import AlreadyOwned, Context, Reconciler, Request, Result

from .fasttemplate import fill, flattened
from .generators import Generated, Sources, generate
from .gotemplate import expand, expand_all
from .rolling import Turn, is_rolling, roll, steps_of

__all__ = ["ApplicationSetReconciler", "applications_of"]

_FINALIZER: Final = "resources-finalizer.argocd.argoproj.io"
_AGAIN_SECONDS: Final = 180.0
_MAX_REPORTED: Final = 100
_PRUNES: Final = "pilothouse.dev/rolling-prunes"
"""The annotation of an application whose template prunes automatically, while steps say when it is synced."""
_POLICIES: Final = {
    "create-only": (False, False),
    "create-update": (True, False),
    "create-delete": (False, True),
    "sync": (True, True),
}


async def applications_of(found: ApplicationSet, sources: Sources) -> list[dict[str, Any]]:
    """Return the applications that a set says, as JSON has them. Raises DeliveryError."""
    made: dict[str, dict[str, Any]] = {}
    for one in await generate(found.spec.generators, sources):
        tree = _filled(found, one, sources)
        name = (tree.get("metadata") or {}).get("name")
        if not name or not isinstance(name, str):
            raise TemplateError("template.metadata.name: it is empty for some parameters")
        if name in made:
            raise TemplateError(f"template.metadata.name: {name!r} is there twice; use parameters that tell them apart")
        made[name] = tree
    return list(made.values())


def _filled(found: ApplicationSet, one: Generated, sources: Sources) -> dict[str, Any]:
    template: Any = _plain(found.spec.template)
    if one.template:
        template = mergepatch.merge(template, _plain(one.template))
    if sources.go:
        tree = expand_all(template, one.parameters, strict=sources.strict)
    else:
        tree = fill(template, flattened(one.parameters))
    if found.spec.template_patch:
        text = found.spec.template_patch
        text = (
            expand(text, one.parameters, strict=sources.strict) if sources.go else fill(text, flattened(one.parameters))
        )
        for _, patch in read_documents("templatePatch", text.encode()):
            tree = mergepatch.merge(tree, patch)
    return dict(tree)


def _plain(value: Any) -> Any:
    return msgspec.to_builtins(value)


class ApplicationSetReconciler(Reconciler[ApplicationSet]):
    """Keeps the applications of sets. They are controlled by the set, and so go with it."""

    owned = (Application,)

    def __init__(self, repositories: Repositories[User], settings: Settings) -> None:
        self._repositories = repositories
        self._settings = settings

    async def removed(self, request: Request, context: Context) -> Result | None:
        self._repositories.use(User("set", request), [])
        return None

    async def reconcile(self, obj: ApplicationSet, context: Context) -> Result | None:
        if obj.metadata.deletion_timestamp is not None:
            return None
        try:
            wanted = await self._wanted(obj, context)
        except DeliveryError as error:
            # Nothing is removed where it is not known what there shall be.
            await self._report(obj, context, ("ApplicationGenerationFromParamsError", str(error)), [], None)
            return Result(_AGAIN_SECONDS)
        problem = await self._bring_about(obj, context, wanted)
        turns = await self._roll(obj, context, wanted) if is_rolling(obj.spec.strategy) else None
        await self._report(obj, context, problem, wanted, turns)
        return Result(_AGAIN_SECONDS)

    async def _wanted(self, obj: ApplicationSet, context: Context) -> list[Application]:
        urls: list[str] = []

        async def repository(url: str, revision: str) -> tuple[Mirror, str]:
            self._check_allowed(obj, context, url)
            urls.append(url)
            self._repositories.use(User("set", Request.of(obj)), urls)
            mirror = self._repositories.mirror(url)
            references, _ = await self._repositories.look(mirror)
            commit = references.resolve(revision)
            await self._repositories.fetched(mirror, commit)
            return mirror, commit

        strict = "missingkey=error" in obj.spec.go_template_options
        sources = Sources(repository, self._clusters(), bool(obj.spec.go_template), strict)
        if is_rolling(obj.spec.strategy):
            steps_of(obj.spec.strategy or {})
        trees = await applications_of(obj, sources)
        if not urls:
            self._repositories.use(User("set", Request.of(obj)), [])
        return [self._application(obj, tree) for tree in trees]

    def _check_allowed(self, obj: ApplicationSet, context: Context, url: str) -> None:
        """Refuse a repository that the project of the applications does not allow, where that is known beforehand."""
        name = str((obj.spec.template.get("spec") or {}).get("project") or DEFAULT_PROJECT)
        if "{{" in name:
            return
        project = context.get(AppProject, name, self._settings.namespace)
        if project is not None and not allows_repository(project, url):
            raise TemplateError(f"generator git: project {name} does not allow the repository {url}: sourceRepos")

    def _application(self, obj: ApplicationSet, tree: Mapping[str, Any]) -> Application:
        given = tree.get("metadata") or {}
        if given.get("namespace", obj.metadata.namespace) != obj.metadata.namespace:
            raise TemplateError(
                f"application {given['name']}: its namespace is that of the set, {obj.metadata.namespace}"
            )
        kept = {name: given[name] for name in ("name", "labels", "annotations", "finalizers") if given.get(name)}
        policy = obj.spec.sync_policy or {}
        if not policy.get("preserveResourcesOnDeletion"):
            kept["finalizers"] = list(dict.fromkeys([*(kept.get("finalizers") or ()), _FINALIZER]))
        metadata = {**kept, "namespace": obj.metadata.namespace}
        spec = dict(tree.get("spec") or {})
        automated = (spec.get("syncPolicy") or {}).get("automated")
        if automated is not None and is_rolling(obj.spec.strategy):
            # The steps say when it is synced; what it says of pruning is kept for then.
            spec["syncPolicy"] = {name: each for name, each in spec["syncPolicy"].items() if name != "automated"}
            prunes = {_PRUNES: "true"} if (automated or {}).get("prune") else {}
            metadata["annotations"] = {**(metadata.get("annotations") or {}), **prunes}
        try:
            return from_dict({"metadata": metadata, "spec": spec}, Application)
        except (BadAnswer, msgspec.ValidationError, ValueError) as error:
            raise TemplateError(f"application {given.get('name')}: {error}") from None

    def _clusters(self) -> list[dict[str, Any]]:
        return self._settings.clusters()

    async def _bring_about(
        self, obj: ApplicationSet, context: Context, wanted: Sequence[Application]
    ) -> tuple[str, str] | None:
        policy = (obj.spec.sync_policy or {}).get("applicationsSync", "sync")
        update, delete = _POLICIES.get(policy, (True, True))
        present = {app.metadata.name: app for app in context.owned(Application, obj)}
        problem: tuple[str, str] | None = None
        for app in wanted:
            if app.metadata.name in present and not update:
                continue
            try:
                await context.apply(app, obj)
            except (ApiStatus, AlreadyOwned, BadAnswer) as error:
                problem = problem or ("UpdateApplicationError", f"application {app.metadata.name}: {error}")
        names = {app.metadata.name for app in wanted}
        for name, app in present.items():
            if name not in names and delete and app.metadata.deletion_timestamp is None:
                await context.delete(app)
        return problem

    async def _roll(self, obj: ApplicationSet, context: Context, wanted: Sequence[Application]) -> list[Turn]:
        """Sync the applications whose turn it is; return how all stand."""
        there = [context.get(Application, app.metadata.name, app.metadata.namespace) for app in wanted]
        live = {app.metadata.name: app for app in there if app is not None and app.metadata.deletion_timestamp is None}
        now = times.format_seconds(context.clock.now())
        turns = roll(steps_of(obj.spec.strategy or {}), [*live.values()], obj.status.application_status, now)
        for turn in turns:
            if turn.sync:
                app = live[turn.entry["application"]]
                await context.patch(app, _operation(app))
        return turns

    async def _report(
        self,
        obj: ApplicationSet,
        context: Context,
        problem: tuple[str, str] | None,
        wanted: Sequence[Application],
        turns: Sequence[Turn] | None,
    ) -> None:
        now = times.format_seconds(context.clock.now())
        reason, message = problem or ("ApplicationSetUpToDate", "All applications have been generated successfully")
        bad, failed = problem is not None, problem is not None and not wanted
        generated = "ErrorOccurred" if failed else "ParametersGenerated"
        good = "Successfully generated parameters for all Applications"
        said = [
            ("ErrorOccurred", bad, reason, message if bad else good),
            ("ParametersGenerated", not failed, generated, message if failed else good),
            ("ResourcesUpToDate", not bad, reason, message),
        ]
        before = [dict(each) for each in obj.status.conditions]
        status: dict[str, Any] = {}
        if turns is not None:
            rest = [turn.entry["application"] for turn in turns if not turn.is_done]
            text = f"{len(rest)} of {len(turns)} applications are not done: {', '.join(rest[:5])}"
            reason, message = "ApplicationSetModified", text
            if not rest:
                reason, message = (
                    "ApplicationSetRolloutComplete",
                    "all applications of its steps are done",
                )
            said.append(("RolloutProgressing", bool(rest), reason, message))
            status["applicationStatus"] = [turn.entry for turn in turns]
        elif bad:
            status["applicationStatus"] = [dict(each) for each in obj.status.application_status]
        conditions = [_condition(before, now, *each) for each in said]
        resources = [_resource(context, app) for app in wanted[:_MAX_REPORTED]]
        if not wanted and bad:
            resources = [dict(each) for each in obj.status.resources]
        await context.apply_status(obj, {**status, "conditions": conditions, "resources": resources})


def _operation(app: Application) -> dict[str, Any]:
    """Return the patch by which an application is synced as its policy says."""
    policy = app.spec.sync_policy
    sync: dict[str, Any] = {"prune": True} if (app.metadata.annotations or {}).get(_PRUNES) == "true" else {}
    if policy is not None and policy.sync_options:
        sync["syncOptions"] = [*policy.sync_options]
    made: dict[str, Any] = {
        "sync": sync,
        "initiatedBy": {"username": "applicationset-controller", "automated": True},
        "info": [{"name": "Reason", "value": "its step of the ApplicationSet's RollingSync"}],
    }
    if policy is not None and policy.retry is not None:
        made["retry"] = to_dict(policy.retry)
    return {"operation": made}


def _condition(
    before: Sequence[dict[str, Any]], now: str, kind: str, holds: bool, reason: str, message: str
) -> dict[str, Any]:
    made = {"type": kind, "status": str(holds), "reason": reason, "message": message[:2000]}
    known = find(before, kind)
    same = known is not None and all(known.get(name) == value for name, value in made.items())
    return {**made, "lastTransitionTime": known["lastTransitionTime"] if same and known is not None else now}


def _resource(context: Context, app: Application) -> dict[str, Any]:
    live = context.get(Application, app.metadata.name, app.metadata.namespace) or app
    status = live.status
    made: dict[str, Any] = {
        "group": "argoproj.io",
        "version": "v1alpha1",
        "kind": "Application",
        "namespace": app.metadata.namespace,
        "name": app.metadata.name,
    }
    if status.sync.status:
        made["status"] = status.sync.status
    if status.health.status:
        made["health"] = {"status": status.health.status}
    return made
