"""What people and tools ask of applications: to sync, to look again, to go back, to stop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pilothouse.client import Client
from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.resources.applications import Application
from pilothouse.kinds.structs import to_dict

from .applications import REFRESH
from .autosync import automated

__all__ = ["request_refresh", "request_sync", "rollback", "terminate"]


async def request_sync(
    client: Client,
    namespace: str,
    name: str,
    *,
    revision: str = "",
    prune: bool = False,
    options: Sequence[str] = (),
    by: str = "",
) -> None:
    """Have an application synced. revision: instead of its own. options: such as `Force=true`. by: a user's name.

    Raises NotFound, and DeliveryError where an operation is going on.
    """
    app = await client.get(Application, name, namespace)
    _check_free(app)
    sync: dict[str, Any] = {"revision": revision, "prune": prune, "syncOptions": [*options]}
    await _begin(client, app, {name: value for name, value in sync.items() if value}, by)


async def request_refresh(client: Client, namespace: str, name: str, *, hard: bool = False) -> None:
    """Have an application's repositories looked at now. hard: render everything anew. Raises NotFound."""
    patch = {"metadata": {"annotations": {REFRESH: "hard" if hard else "normal"}}}
    await client.patch(Application, name, patch, namespace)


async def rollback(
    client: Client, namespace: str, name: str, deployment: int, *, prune: bool = False, by: str = ""
) -> None:
    """Have an application synced to what a deployment of its history was, by id.

    Raises NotFound, and DeliveryError where there is no such deployment, an operation is going on, or the application
    is synced by itself, which would undo it: see `reject_revision` for that.
    """
    app = await client.get(Application, name, namespace)
    _check_free(app)
    if automated(app):
        raise DeliveryError(
            f"application {namespace}/{name}: syncPolicy.automated would undo it; take that out, or reject the revision"
        )
    found = next((each for each in app.status.history if each.id == deployment), None)
    if found is None:
        known = ", ".join(str(each.id) for each in app.status.history) or "none"
        raise DeliveryError(
            f"application {namespace}/{name}: no deployment {deployment} in its history; there is {known}"
        )
    entry: dict[str, Any] = to_dict(found)
    sync = {part: entry[part] for part in ("revision", "revisions", "source", "sources") if entry.get(part)}
    await _begin(client, app, sync | ({"prune": True} if prune else {}), by)


async def terminate(client: Client, namespace: str, name: str) -> None:
    """Have an application's operation ended. Raises NotFound, and DeliveryError where there is none."""
    app = await client.get(Application, name, namespace)
    state = app.status.operation_state
    if state is None or state.phase != "Running":
        raise DeliveryError(f"application {namespace}/{name}: no operation is going on")
    await client.patch(Application, name, {"status": {"operationState": {"phase": "Terminating"}}}, namespace)


def _check_free(app: Application) -> None:
    state = app.status.operation_state
    if app.operation is not None or (state is not None and state.phase in {"Running", "Terminating"}):
        where = f"{app.metadata.namespace}/{app.metadata.name}"
        raise DeliveryError(f"application {where}: another operation is going on; wait for it, or terminate it")


async def _begin(client: Client, app: Application, sync: dict[str, Any], by: str) -> None:
    operation: dict[str, Any] = {"sync": sync, "initiatedBy": {"username": by} if by else {}}
    metadata = {"resourceVersion": app.metadata.resource_version}
    await client.patch(
        Application, app.metadata.name, {"operation": operation, "metadata": metadata}, app.metadata.namespace
    )
