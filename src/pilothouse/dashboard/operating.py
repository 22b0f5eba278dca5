"""Buttons of applications: sync, refresh, roll back, reject, as the user, and what differs from git field by field."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from .rights import APPLICATION_RIGHTS
from .steering import Options, SteeringError

if TYPE_CHECKING:
    from pilothouse.client import Client
    from pilothouse.delivery.resources.applications import Application

__all__ = ["Comparing", "operate"]

_SECONDS: Final = 45.0
_AT_ONCE: Final = 2
_MOST_OBJECTS: Final = 200
_MOST_FIELDS: Final = 200
_MOST_TEXT: Final = 4_000
_VERBS: Final = tuple(verb for verb in APPLICATION_RIGHTS if verb != "compare")


async def operate(
    client: Client, namespace: str, name: str, verb: str, options: Options, user: str, now: datetime
) -> None:
    """Do what a verb says to an application. Raises SteeringError, and what the API server refuses as ApiStatus."""
    from pilothouse.delivery.errors import DeliveryError  # noqa: PLC0415  # only once a button is used
    from pilothouse.delivery.gitops import reject_revision, verbs  # noqa: PLC0415

    if verb not in _VERBS:
        raise SteeringError(f"{verb}: want one of {', '.join(_VERBS)}")
    app = await _application(client, namespace, name)
    try:
        if verb == "reject":
            await reject_revision(client, namespace, name, reason=options.reason or f"rejected by {user}", now=now)
            return
        if verb == "refresh":
            patch: dict[str, Any] = {"metadata": {"annotations": {_refresh(): "hard" if options.hard else "normal"}}}
        elif verb == "sync":
            patch = verbs.sync(app, prune=options.prune, user=user)
        else:
            patch = verbs.rollback(app, options.number, prune=options.prune, user=user)
    except DeliveryError as error:
        raise SteeringError(str(error)) from error
    if verb != "refresh":
        # two people who ask at the same moment: one of them is told, and nobody's operation is lost
        patch["metadata"] = {"resourceVersion": app.metadata.resource_version}
    await client.dynamic("argoproj.io/v1alpha1", "Application").patch(name, patch, namespace)


async def _application(client: Client, namespace: str, name: str) -> Application:
    from pilothouse.delivery.resources.applications import Application  # noqa: PLC0415
    from pilothouse.kinds.structs import StructError, from_dict  # noqa: PLC0415

    try:
        return from_dict(await client.dynamic("argoproj.io/v1alpha1", "Application").get(name, namespace), Application)
    except StructError as error:
        raise SteeringError(f"application {name}: {error}") from error


def _refresh() -> str:
    from pilothouse.delivery.gitops.applications import REFRESH  # noqa: PLC0415

    return REFRESH


class Comparing:
    """Compares applications with git, a few at a time, each with its user's rights and within 45 s.

    It runs git here, with what the cluster knows of repositories. is_offered: where that is wanted.
    """

    def __init__(self, *, is_offered: bool) -> None:
        self.is_offered: Final = is_offered
        self._free = asyncio.Semaphore(_AT_ONCE)

    async def differences(self, client: Client, namespace: str, name: str) -> list[dict[str, Any]]:
        """Return what a sync would change, object by object. Raises SteeringError and ApiStatus."""
        if not self.is_offered:
            raise SteeringError("comparing is off here; `pilothouse app diff --fields` does it")
        if self._free.locked():
            raise SteeringError("as many comparisons as may be are under way; try again in a moment")
        from pilothouse.delivery.errors import DeliveryError  # noqa: PLC0415
        from pilothouse.delivery.gitops.differing import evaluated  # noqa: PLC0415
        from pilothouse.delivery.gitops.showing import fields_of  # noqa: PLC0415

        async with self._free:
            app = await _application(client, namespace, name)
            directory = await asyncio.to_thread(tempfile.mkdtemp, prefix="pilothouse-dashboard-")
            try:
                async with asyncio.timeout(_SECONDS):
                    found = await evaluated(client, app, directory)
            except DeliveryError as error:
                raise SteeringError(str(error)) from error
            except TimeoutError:
                text = f"application {name}: not compared within {_SECONDS:g} s; may you list all of its objects?"
                raise SteeringError(text) from None
            finally:
                await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
        return [_shown(each) for each in fields_of(found)[:_MOST_OBJECTS]]


def _shown(change: Any) -> dict[str, Any]:
    fields = [
        {"path": each.path, "wanted": _text(each.wanted), "live": _text(each.live)}
        for each in change.fields[:_MOST_FIELDS]
    ]
    return {"what": change.what, "object": change.object, "problem": change.problem, "fields": fields}


def _text(value: Any) -> str | None:
    """Return a value as a text of bounded length; None where there is none."""
    if value is None:
        return None
    is_tree = isinstance(value, Mapping | Sequence) and not isinstance(value, str)
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str) if is_tree else str(value)
    return text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}…"
