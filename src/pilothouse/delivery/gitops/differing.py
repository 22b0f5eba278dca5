"""What an application differs in from git, field by field, worked out by whoever asks; nothing is written.

It needs what the controller needs: git here, and the right to read applications, credentials and the objects.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any, Final

from pilothouse.client import Client
from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.resources.applications import Application, AppProject
from pilothouse.operator import Context, Manager, Reconciler, Request, Result, controller

from .charts import Charts
from .evaluation import Evaluation, Evaluator, sources_of
from .live import LiveObjects
from .mirrors import Mirror
from .projects import DEFAULT_PROJECT, default_project
from .rendering import Renderer
from .repositories import Repositories
from .settings import Settings
from .signatures import Signatures
from .targets import split_instance

__all__ = ["evaluated"]

_SECONDS: Final = 120.0


class _Reader(Reconciler[Application]):
    """Evaluates one application once."""

    def __init__(self, request: Request, evaluator: Evaluator, namespace: str, revisions: Sequence[str]) -> None:
        self._request, self._evaluator, self._namespace = request, evaluator, namespace
        self._revisions = revisions
        self.found: asyncio.Future[Evaluation] = asyncio.get_running_loop().create_future()

    async def reconcile(self, obj: Application, context: Context) -> Result | None:
        if Request.of(obj) != self._request or self.found.done():
            return None
        project = context.get(AppProject, obj.spec.project or DEFAULT_PROJECT, self._namespace)
        try:
            found = await self._evaluator.evaluate(
                obj, project or default_project(self._namespace), sources_of(obj), self._revisions
            )
        except (DeliveryError, OSError) as error:
            self.found.set_exception(error)
        else:
            self.found.set_result(found)
        return None


async def evaluated(
    client: Client, app: Application, directory: str, *, namespace: str = "argocd", revisions: Sequence[str] = ()
) -> Evaluation:
    """Return an application as git says at these revisions, or at its own, compared with the cluster.

    directory: for mirrors while it is worked out. namespace: of projects and credentials. Raises DeliveryError.
    """
    manager = Manager(client)
    manager.scheme.register(Application, AppProject)
    settings = Settings(manager, namespace)
    live = LiveObjects(client, lambda instance: Request(*split_instance(instance, namespace)))

    async def unheard(mirror: Mirror, users: list[Any]) -> None:
        del mirror, users

    repositories: Repositories[Any] = Repositories(
        directory, access=settings.access, changed=unheard, active=lambda: False, clock=manager.clock
    )
    charts = Charts(os.path.join(directory, "charts"), manager.clock)
    evaluator = Evaluator(repositories, Renderer(), live, settings, Signatures(settings), charts, namespace)
    reader = _Reader(Request.of(app), evaluator, namespace, revisions)
    made = controller(manager, "gitops-diff").for_(Application).watches(AppProject, lambda _: ()).build(reader)
    live.attach(made)
    os.makedirs(directory, mode=0o700, exist_ok=True)
    try:
        async with manager, asyncio.timeout(_SECONDS):
            return await reader.found
    except TimeoutError:
        name = app.metadata.name
        raise DeliveryError(
            f"application {name}: not compared within {_SECONDS:g} s; may you list its objects, and applications?"
        ) from None
    finally:
        await repositories.aclose()
