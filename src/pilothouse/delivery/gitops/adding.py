"""GitOps on a manager: the kinds, the reconcilers and what they share."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pilothouse.client import Client
from pilothouse.client.objects import key_of
from pilothouse.client.workqueue import LOW_PRIORITY
from pilothouse.delivery.resources.applications import Application, ApplicationSet, AppProject
from pilothouse.delivery.resources.installing import install_kinds
from pilothouse.kinds.structs import Resource
from pilothouse.operator import Controller, Manager, Request, controller

from .applications import DEPENDS_ON, ApplicationReconciler, dependencies_of
from .appsets.reconciler import ApplicationSetReconciler
from .charts import Charts
from .commits import Commits
from .comparing import Drift
from .evaluation import Evaluator
from .live import LiveObjects
from .metrics import Figures
from .mirrors import Limits, Mirror
from .operating import Operator
from .rendering import Renderer
from .repositories import Polling, Repositories, User
from .settings import Settings
from .signatures import Signatures
from .targets import Key, split_instance
from .webhooks import WebhookReceiver

__all__ = ["GITOPS_KINDS", "Gitops", "GitopsOptions", "add_gitops", "install_gitops_kinds"]

GITOPS_KINDS: Final[tuple[type[Resource], ...]] = (Application, AppProject, ApplicationSet)


@dataclass(frozen=True, slots=True, kw_only=True)
class GitopsOptions:
    """How GitOps runs.

    directory: of mirrors, only ours. namespace: of projects, credentials and applications, as Argo CD's own;
    applications elsewhere are served where their project's sourceNamespaces allows it. programs: directories to look
    in for helm and kustomize, before PATH. plain_http: repositories by http on other machines. concurrency: of
    applications.
    """

    directory: str
    namespace: str = "argocd"
    polling: Polling = field(default_factory=Polling)
    limits: Limits = field(default_factory=Limits)
    programs: str = ""
    plain_http: bool = False
    concurrency: int = 8


class Gitops:
    """What `add_gitops` returns: the parts, for a webhook, for figures, and to be closed."""

    def __init__(
        self,
        repositories: Repositories[User],
        evaluator: Evaluator,
        operator: Operator,
        applications: Controller[Application],
        webhook: WebhookReceiver,
        figures: Figures,
        commits: Commits,
    ) -> None:
        self.commits: Final = commits
        self.figures: Final = figures
        self.webhook: Final = webhook
        self.repositories: Final = repositories
        self.evaluator: Final = evaluator
        self.operator: Final = operator
        self.applications: Final = applications

    def drift(self, app: Application) -> list[tuple[Key, Drift]]:
        """Return the fields in which an application's objects differ from git, as they were last compared.

        What is missing or to go is not among them: the status says that. Values of Secrets are hidden.
        """
        found = self.evaluator.last(app)
        return [(state.key, drift) for state in (found.states if found else ()) for drift in state.drift]

    async def aclose(self) -> None:
        """End what is under way beside the reconciles."""
        await self.repositories.aclose()


async def install_gitops_kinds(client: Client) -> list[str]:
    """Install the definitions of Application, AppProject and ApplicationSet where a cluster has none of its own.

    Returns the names of those that another one made, which are used as they are. Raises OperatorError and ApiStatus.
    """
    return await install_kinds(client, GITOPS_KINDS)


def add_gitops(manager: Manager, options: GitopsOptions, *, source: random.Random | None = None) -> Gitops:
    """Add the controllers of applications and their sets to a manager; call it before it runs.

    source: of jitter. Raises BuildError.
    """
    directory = os.path.abspath(options.directory)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    for kind in GITOPS_KINDS:
        manager.scheme.register(kind)
    settings = Settings(manager, options.namespace)

    def request(instance: str) -> Request:
        return Request(*split_instance(instance, options.namespace))

    live = LiveObjects(manager.client, request)
    repositories: Repositories[User] = Repositories(
        directory,
        access=settings.access,
        changed=lambda mirror, users: _changed(mirror, users, evaluator, made, sets),
        active=lambda: manager.is_leading,
        clock=manager.clock,
        polling=options.polling,
        limits=options.limits,
        source=source,
        plain_http=options.plain_http,
    )
    renderer = Renderer(limits=options.limits, programs=options.programs, plain_http=options.plain_http)
    place = os.path.join(directory, "charts")
    charts = Charts(place, manager.clock, programs=options.programs, plain_http=options.plain_http)
    signatures = Signatures(settings)
    evaluator = Evaluator(repositories, renderer, live, settings, signatures, charts, options.namespace)
    operator = Operator(live, settings)
    manager.index(Application, DEPENDS_ON, _dependency_keys)
    reconciler = ApplicationReconciler(evaluator, operator, options.namespace)
    made: Controller[Application] = (
        controller(manager, "gitops")
        .for_(Application)
        .watches(AppProject, _Members(manager, options.namespace))
        .watches(Application, _Dependents(manager))
        .with_options(concurrency=options.concurrency)
        .build(reconciler)
    )
    live.attach(made)
    settings.on_change(lambda: _all(manager, made, repositories))
    sets: Controller[ApplicationSet] = (
        controller(manager, "gitops-sets").for_(ApplicationSet).build(ApplicationSetReconciler(repositories, settings))
    )
    listed = manager.cached(Application).indexer.list
    figures = Figures(listed, repositories, evaluator, reconciler.syncs, manager.metrics)
    indexer = manager.cached(Application).indexer
    commits = Commits(repositories, lambda instance: indexer.get("/".join(split_instance(instance, options.namespace))))
    webhook = WebhookReceiver(repositories, settings)
    return Gitops(repositories, evaluator, operator, made, webhook, figures, commits)


async def _changed(
    mirror: Mirror,
    users: list[User],
    evaluator: Evaluator,
    applications: Controller[Application],
    sets: Controller[ApplicationSet],
) -> None:
    """Have whoever uses a repository look at it: first those for whom something has changed."""
    for user in users:
        if user.kind != "application":
            sets.queue.add(user.request)
    requests = [user.request for user in users if user.kind == "application"]
    untouched = await evaluator.untouched(mirror, requests)
    for request in requests:
        applications.queue.add(request, priority=LOW_PRIORITY if request in untouched else 0)


def _dependency_keys(app: Application) -> list[str]:
    return [f"{app.metadata.namespace}/{name}" for name in dependencies_of(app)]


def _all(manager: Manager, made: Controller[Application], repositories: Repositories[User]) -> None:
    if not manager.is_leading:
        return
    repositories.retry()
    for app in manager.cached(Application).indexer.list():
        made.queue.add(Request.of(app))


class _Members:
    """Whose requests a changed project means: all its applications."""

    def __init__(self, manager: Manager, namespace: str) -> None:
        self._manager = manager
        self._namespace = namespace

    def __call__(self, project: AppProject) -> Iterable[Request]:
        if project.metadata.namespace != self._namespace:
            return []
        listed = self._manager.cached(Application).indexer.list()
        return [Request.of(app) for app in listed if (app.spec.project or "default") == project.metadata.name]


class _Dependents:
    """Whose requests a changed application means: those that wait for it."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def __call__(self, app: Application) -> Iterable[Request]:
        listed = self._manager.cached(Application).indexer.by_index(DEPENDS_ON, key_of(app))
        return [Request.of(each) for each in listed]
