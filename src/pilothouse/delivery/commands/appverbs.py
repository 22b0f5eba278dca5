"""Commands of `pilothouse app` that change applications: `sync` and `rollback`."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pilothouse.foundation.terminal import CommandError, ExitCode, examples

from .applications import application, in_argocd
from .following import followed
from .reaching import Reach, asked
from .times import seconds_of

if TYPE_CHECKING:
    from typing import Any

    from pilothouse.client import Client
    from pilothouse.delivery.resources.applications import Application

__all__ = ["rollback", "sync"]

_WAIT = click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until the operation has ended.")
_TIMEOUT = click.option("--timeout", default="", metavar="TIME", help="How long to wait; for ever by default.")
_PRUNE = click.option("--prune", is_flag=True, help="Delete what git has no more.")


@click.command(
    epilog=examples(
        "pilothouse app sync shop",
        "pilothouse app sync shop --revision v1.4.0 --prune",
        "# one object alone",
        "pilothouse app sync shop --resource apps:Deployment:web",
    )
)
@click.argument("name", metavar="APP")
@click.option("--revision", default="", help="Instead of the one that the application names.")
@_PRUNE
@click.option("--dry-run", is_flag=True, help="Only try whether the server would take it.")
@click.option("--resource", "resources", multiple=True, metavar="GROUP:KIND:NAME", help="Only this; repeatable.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="A sync option, such as Replace=true.")
@_WAIT
@_TIMEOUT
@in_argocd
def sync(  # noqa: PLR0913  options of a command
    name: str,
    revision: str,
    prune: bool,
    dry_run: bool,
    resources: tuple[str, ...],
    options: tuple[str, ...],
    wait: bool,
    timeout: str,
    reach: Reach,
) -> None:
    """Bring the cluster to what git says.

    Waits until that is done; exit status 1 where it fails.
    """
    from pilothouse.delivery.gitops import verbs

    chosen = [_resource(text) for text in resources]
    limit = seconds_of("--timeout", timeout) if timeout else None

    def patch(app: Application) -> dict[str, Any]:
        return verbs.sync(
            app, revision=revision, prune=prune, dry_run=dry_run, resources=chosen, options=options, user=_user()
        )

    _operate(name, patch, "sync", limit, reach, wait=wait)


def _resource(text: str) -> dict[str, str]:
    parts = text.split(":")
    if len(parts) != 3 or not parts[1] or not parts[2]:
        raise click.BadParameter(
            f"{text!r}: want GROUP:KIND:NAME, such as apps:Deployment:web", param_hint="--resource"
        )
    namespace, _, name = parts[2].rpartition("/")
    made = {"group": parts[0], "kind": parts[1], "name": name}
    return {**made, "namespace": namespace} if namespace else made


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _operate(name: str, patch: Any, word: str, limit: float | None, reach: Reach, *, wait: bool) -> None:
    """Ask for an operation and wait for its end. Raises CommandError where it fails."""
    from pilothouse.delivery.gitops.showing import operation_ended, state_of

    async def work(client: Client) -> Application:
        found = await application(client, name)
        made = patch(found)
        # Two people who ask at the same moment: one of them is told, and nobody's operation is lost.
        made["metadata"] = {"resourceVersion": found.metadata.resource_version}
        asked_for = await client.patch(type(found), found.metadata.name, made, found.metadata.namespace)
        if not wait:
            return asked_for
        hint = "does its controller run? `pilothouse up` has it"
        return await followed(client, asked_for, operation_ended, limit, tells=True, hint=hint)

    app = asked(reach, work)
    if not wait:
        click.echo(f"application '{app.metadata.name}': a {word} was asked for")
        return
    state = app.status.operation_state
    if state is None or state.phase != "Succeeded":
        raise CommandError(f"application {app.metadata.name}: the {word} failed: {state_of(app)}")


@click.command(
    epilog=examples(
        "# to the sync before the last one, or to one of `pilothouse app history shop`",
        "pilothouse app rollback shop",
        "pilothouse app rollback shop 3",
        "# one that is synced by itself: its present revision is not to come again",
        "pilothouse app rollback shop --reject 'checkout fails'",
    )
)
@click.argument("name", metavar="APP")
@click.argument("number", metavar="[ID]", type=int, required=False)
@_PRUNE
@click.option("--reject", default=None, metavar="REASON", help="Reject the revision that was synced last instead.")
@_WAIT
@_TIMEOUT
@in_argocd
def rollback(
    name: str, number: int | None, prune: bool, reject: str | None, wait: bool, timeout: str, reach: Reach
) -> None:
    """Go back to an earlier sync.

    An application that is synced by itself rejects its revision instead (--reject).
    """
    from pilothouse.delivery.gitops import reject_revision, verbs

    limit = seconds_of("--timeout", timeout) if timeout else None
    if reject is None:
        _operate(
            name,
            lambda app: verbs.rollback(app, number, prune=prune, user=_user()),
            "rollback",
            limit,
            reach,
            wait=wait,
        )
        return
    if number is not None:
        raise CommandError(
            "--reject goes back to the last sync that is not rejected; leave out ID", code=ExitCode.USAGE
        )

    async def work(client: Client) -> str:
        found = await application(client, name)
        now = datetime.now(UTC)
        return await reject_revision(client, found.metadata.namespace, found.metadata.name, reason=reject, now=now)

    click.echo(f"application '{name}': revision {asked(reach, work)} is rejected")
