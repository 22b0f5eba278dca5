"""Waits for what an object is to become, and tells how it goes on meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import TYPE_CHECKING

import click

from pilothouse.foundation.terminal import CommandError

if TYPE_CHECKING:
    from pilothouse.client import Client
    from pilothouse.delivery.resources.applications import Application

__all__ = ["followed"]


async def followed(
    client: Client,
    app: Application,
    is_done: Callable[[Application], bool],
    seconds: float | None,
    *,
    tells: bool = False,
    hint: str = "",
) -> Application:
    """Return an application once it is as it is to be. seconds: the most to wait. tells: print how it goes on.

    Raises CommandError where it takes too long, or is deleted.
    """
    told = _told(app, "") if tells else ""
    if is_done(app):
        return app
    name, namespace = app.metadata.name, app.metadata.namespace
    since = app.metadata.resource_version or ""
    changes = client.watch(type(app), namespace, fields=f"metadata.name={name}", since=since, resume=True)
    try:
        async with asyncio.timeout(seconds) as limited, aclosing(changes) as events:
            async for event in events:
                if event.type == "DELETED":
                    break
                told = _told(event.object, told) if tells else told
                if is_done(event.object):
                    return event.object
    except TimeoutError:
        if not limited.expired():
            raise
        raise CommandError(f"application {name}: not done within {seconds:g} s", hint=hint) from None
    raise CommandError(f"application {name} was deleted")


def _told(app: Application, before: str) -> str:
    from pilothouse.delivery.gitops.showing import state_of

    status = app.status
    operation = state_of(app)
    text = f"{status.sync.status or 'Unknown'}, {status.health.status or 'Unknown'}"
    text += f"; operation {operation}" if operation else ""
    if text != before:
        click.echo(text)
    return text
