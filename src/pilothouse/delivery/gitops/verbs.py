"""What users' verbs change of applications: the operation that is asked for, as Argo CD's own command sets it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilothouse.delivery.errors import DeliveryError
from pilothouse.delivery.resources.applications import Application, History
from pilothouse.kinds.structs import to_dict

from .autosync import automated
from .showing import operation_ended, state_of

__all__ = ["AppVerbError", "rollback", "sync"]


class AppVerbError(DeliveryError):
    """A verb that makes no sense for an application as it is."""


def sync(
    app: Application,
    *,
    revision: str = "",
    prune: bool = False,
    dry_run: bool = False,
    resources: Sequence[Mapping[str, str]] = (),
    options: Sequence[str] = (),
    user: str = "",
) -> dict[str, Any]:
    """Return the patch that asks for a sync. resources: only these. Raises AppVerbError while another goes on."""
    _check_free(app)
    policy = app.spec.sync_policy
    wanted: dict[str, Any] = {"revision": revision} if revision else {}
    if prune:
        wanted["prune"] = True
    if dry_run:
        wanted["dryRun"] = True
    if resources:
        wanted["resources"] = [dict(one) for one in resources]
    if options:
        wanted["syncOptions"] = [*options]
    operation: dict[str, Any] = {"sync": wanted, "initiatedBy": {"username": user}}
    if policy is not None and policy.retry is not None:
        operation["retry"] = to_dict(policy.retry)
    return {"operation": operation}


def rollback(app: Application, number: int | None = None, *, prune: bool = False, user: str = "") -> dict[str, Any]:
    """Return the patch that asks for a sync of the history again. number: its id; the one before by default.

    Raises AppVerbError for an application that is synced by itself, which would undo it.
    """
    name = app.metadata.name
    if automated(app):
        raise AppVerbError(
            f"application {name}: it is synced by itself, which would undo a rollback; revert the commit, or "
            f"say --reject, which keeps it at the last revision that is not rejected"
        )
    _check_free(app)
    found = _entry(app, number)
    wanted: dict[str, Any] = {"prune": prune, "revision": found.revision}
    if found.sources:
        wanted["sources"] = [to_dict(one) for one in found.sources]
        wanted["revisions"] = [*found.revisions]
    elif found.source is not None:
        wanted["source"] = to_dict(found.source)
    return {"operation": {"sync": wanted, "initiatedBy": {"username": user}}}


def _entry(app: Application, number: int | None) -> History:
    history = app.status.history
    if number is None:
        found = history[-2] if len(history) > 1 else None
    else:
        found = next((one for one in history if one.id == number), None)
    if found is None:
        there = ", ".join(str(one.id) for one in history) or "none"
        raise AppVerbError(
            f"application {app.metadata.name}: its history has no "
            f"{'sync before the last' if number is None else f'id {number}'}; there is {there}"
        )
    return found


def _check_free(app: Application) -> None:
    if not operation_ended(app):
        raise AppVerbError(
            f"application {app.metadata.name}: another operation goes on ({state_of(app)}); "
            f"`pilothouse app wait {app.metadata.name} --operation` waits for its end"
        )
