"""Commands of `pilothouse app` that look at applications: `list`, `get`, `history`, `diff`, `wait`."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

import click

from pilothouse.foundation.terminal import CommandError, emit, examples, output_option

from .following import followed
from .reaching import ALL, Reach, asked, name_of, named, reaching, sorted_by_name
from .times import seconds_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pilothouse.client import Client
    from pilothouse.delivery.gitops.evaluation import Evaluation
    from pilothouse.delivery.resources.applications import Application

__all__ = ["ARGOCD", "application", "diff", "get", "history", "in_argocd", "listed", "wait"]

ARGOCD = "argocd"
"""Where applications are, as Argo CD has them."""


def in_argocd(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add how the server is reached, with Argo CD's namespace where none is named."""
    return reaching(command, ARGOCD)


async def application(client: Client, name: str) -> Application:
    """Return an application. Raises CommandError where it is not there."""
    from pilothouse.delivery.resources.applications import Application

    return await named(client, Application, name_of("application", name))


@click.command("list", epilog=examples("pilothouse app list", "pilothouse app list -A -o json"))
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@output_option
@in_argocd
def listed(all_namespaces: bool, output: str, reach: Reach) -> None:
    """List applications, with sync and health."""
    from pilothouse.delivery.gitops.showing import LIST_COLUMNS, row_of, view_of
    from pilothouse.delivery.resources.applications import Application

    async def work(client: Client) -> list[Application]:
        return sorted_by_name(await client.list_all(Application, ALL if all_namespaces else None))

    apps = asked(reach, work)
    if output != "table":
        emit([view_of(app) for app in apps], output)
    elif not apps:
        click.echo("no applications" + ("" if all_namespaces else "; -A looks in all namespaces"), err=True)
    else:
        emit([row_of(app) for app in apps], columns=LIST_COLUMNS[0 if all_namespaces else 1 :])


@click.command(
    epilog=examples(
        "pilothouse app get shop",
        "# look at the repository anew first",
        "pilothouse app get shop --refresh",
        "pilothouse app get shop -o yaml",
    )
)
@click.argument("name", metavar="APP")
@click.option("--refresh", is_flag=True, help="Have the repository looked at first.")
@click.option("--hard-refresh", is_flag=True, help="And have everything rendered anew.")
@output_option
@in_argocd
def get(name: str, refresh: bool, hard_refresh: bool, output: str, reach: Reach) -> None:
    """Show an application and its objects.

    Source, sync, health, conditions, and its last operation.
    """
    from pilothouse.delivery.gitops.showing import page_of, view_of

    async def work(client: Client) -> Application:
        found = await application(client, name)
        return (
            await _refreshed(client, found, "hard" if hard_refresh else "normal") if refresh or hard_refresh else found
        )

    app = asked(reach, work)
    if output == "table":
        click.echo("\n".join(page_of(app)))
    else:
        emit(view_of(app), output)


_REFRESH_SECONDS = 60.0


async def _refreshed(client: Client, app: Application, how: str) -> Application:
    """Have the controller look at the repository; return the application as it is then."""
    from pilothouse.delivery.gitops.applications import REFRESH

    patch = {"metadata": {"annotations": {REFRESH: how}}}
    asked_for = await client.patch(type(app), app.metadata.name, patch, app.metadata.namespace)

    def is_done(found: Application) -> bool:
        return REFRESH not in (found.metadata.annotations or {})

    hint = "does its controller run? `pilothouse up` has it"
    return await followed(client, asked_for, is_done, _REFRESH_SECONDS, hint=hint)


@click.command(epilog=examples("pilothouse app history shop"))
@click.argument("name", metavar="APP")
@output_option
@in_argocd
def history(name: str, output: str, reach: Reach) -> None:
    """Show the syncs that went well.

    The newest is first; `rollback` takes their ids.
    """
    from pilothouse.delivery.gitops.showing import HISTORY_COLUMNS, history_rows

    rows = history_rows(asked(reach, lambda client: application(client, name)).status.history)
    if output == "table" and not rows:
        click.echo(f"application '{name}' was never synced", err=True)
    else:
        emit(rows, output, columns=HISTORY_COLUMNS)


@click.command(
    epilog=examples(
        "pilothouse app diff shop",
        "# field by field, worked out here by git",
        "pilothouse app diff shop --fields",
        "# what a sync to a tag would change",
        "pilothouse app diff shop --revision v1.4.0",
    )
)
@click.argument("name", metavar="APP")
@click.option("--fields", is_flag=True, help="Field by field: git is asked from here, nothing is written.")
@click.option("--revision", default="", help="Against another revision, field by field.")
@output_option
@in_argocd
def diff(name: str, fields: bool, revision: str, output: str, reach: Reach) -> None:
    """Show the objects that are not as git says.

    As they were last compared by the controller, or with --fields as they are now. Exit status 1 where there are any.
    """
    if fields or revision:
        _field_by_field(name, revision, output, reach)
        return
    from pilothouse.delivery.gitops.showing import differences_of

    app = asked(reach, lambda client: application(client, name))
    if app.status.sync.status not in {"Synced", "OutOfSync"}:
        why = "; ".join(f"{one.type}: {one.message}" for one in app.status.conditions) or "it was not compared yet"
        raise CommandError(f"application {app.metadata.name}: {why}")
    found = differences_of(app)
    if found or output != "table":
        emit(found, output, columns=("what", "kind", "namespace", "name", "message"))
    if found:
        raise CommandError(f"application {app.metadata.name}: {len(found)} of its objects are not as git says")


def _field_by_field(name: str, revision: str, output: str, reach: Reach) -> None:
    """Print what differs, worked out here. Raises CommandError where anything does."""
    from pilothouse.delivery.gitops.differing import evaluated
    from pilothouse.delivery.gitops.showing import fields_of, fields_page

    async def work(client: Client) -> Evaluation:
        found = await application(client, name)
        with tempfile.TemporaryDirectory(prefix="pilothouse-diff-") as directory:
            return await evaluated(client, found, directory, revisions=[revision] if revision else [])

    changes = fields_of(asked(reach, work))
    if output != "table":
        emit(changes, output)
    elif changes:
        click.echo("\n".join(fields_page(changes)))
    if changes:
        raise CommandError(f"application {name_of('application', name)}: {len(changes)} of its objects differ")


@click.command(
    epilog=examples(
        "# until it is as git says, and healthy",
        "pilothouse app wait shop --timeout 5m",
        "pilothouse app wait shop --health",
    )
)
@click.argument("name", metavar="APP")
@click.option("--sync", is_flag=True, help="Until it is as git says.")
@click.option("--health", is_flag=True, help="Until it is healthy.")
@click.option("--operation", is_flag=True, help="Until no operation goes on.")
@click.option("--timeout", default="", metavar="TIME", help="How long to wait, such as 90s; for ever by default.")
@in_argocd
def wait(name: str, sync: bool, health: bool, operation: bool, timeout: str, reach: Reach) -> None:
    """Wait until an application is as it should be.

    Synced and healthy, or what of both is asked for; each change is told.
    """
    from pilothouse.delivery.gitops.showing import is_settled

    limit = seconds_of("--timeout", timeout) if timeout else None
    every = not (sync or health or operation)

    async def work(client: Client) -> Application:
        found = await application(client, name)
        return await followed(
            client, found, lambda app: is_settled(app, sync=sync or every, health=health or every), limit, tells=True
        )

    asked(reach, work)
