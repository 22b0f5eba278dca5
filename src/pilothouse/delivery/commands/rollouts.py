"""Commands that look at rollouts: `get`, `list` and `status`."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import click

from pilothouse.foundation.terminal import CommandError, emit, examples, output_option

from .reaching import ALL, Reach, asked, client_of, name_of, named, reaching, refusals_told, sorted_by_name

if TYPE_CHECKING:
    from pilothouse.client import Client
    from pilothouse.delivery.resources.rollouts import Rollout
    from pilothouse.delivery.rollouts.tree import RolloutView

__all__ = ["get", "listed", "status"]

_EVERY_SECONDS: Final = 1.0
_ENDS: Final = frozenset({"Healthy", "Degraded"})


@click.command(
    epilog=examples(
        "pilothouse rollout get shop",
        "# in place, as it moves on; Ctrl-C ends it",
        "pilothouse rollout get shop -w",
        "pilothouse rollout get shop -n production -o json",
    )
)
@click.argument("name", metavar="ROLLOUT")
@click.option("-w", "--watch", is_flag=True, help="Show it again each second, in place on a terminal.")
@output_option
@reaching
def get(name: str, watch: bool, output: str, reach: Reach) -> None:
    """Show a rollout, and the tree of its revisions.

    Status, step, weights, images; replica sets, pods, analysis runs and experiments.
    """
    name = name_of("rollout", name)
    if watch and output == "table":
        _watched(name, reach)
        return
    view, now = asked(reach, lambda client: _view(client, name))
    if output == "table":
        click.echo("\n".join(_page(view, now)))
    else:
        emit(view, output)


async def _view(client: Client, name: str) -> tuple[RolloutView, datetime]:
    from pilothouse.delivery.resources.rollouts import Rollout

    from .gathering import shown

    rollout = await named(client, Rollout, name)
    now = datetime.now(UTC)
    return await shown(client, rollout, now), now


def _page(view: RolloutView, now: datetime) -> list[str]:
    from pilothouse.delivery.rollouts.treelines import page_of

    return page_of(view, now)


def _watched(name: str, reach: Reach) -> None:
    """Show it until the user ends it; what goes wrong after the first time is shown in its place."""
    from pilothouse.foundation.refreshing import refresh

    with asyncio.Runner() as runner:

        async def opened() -> Client:
            return client_of(reach)

        client = refusals_told(lambda: runner.run(opened()))
        first = [refusals_told(lambda: runner.run(_view(client, name)))]

        def frame() -> list[str]:
            try:
                return _page(*(first.pop() if first else refusals_told(lambda: runner.run(_view(client, name)))))
            except CommandError as error:
                return [f"error: {error.message}", "trying again each second; Ctrl-C ends it"]

        try:
            refresh(frame, _EVERY_SECONDS)
        finally:
            runner.run(client.aclose())


@click.command(
    "list", epilog=examples("pilothouse rollout list", "pilothouse rollout list -A", "pilothouse rollout list -o yaml")
)
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@output_option
@reaching
def listed(all_namespaces: bool, output: str, reach: Reach) -> None:
    """List rollouts, with status, step and weight."""
    from pilothouse.delivery.resources.rollouts import Rollout
    from pilothouse.delivery.rollouts.tree import view_of
    from pilothouse.delivery.rollouts.treelines import LIST_COLUMNS, row_of
    from pilothouse.delivery.rollouts.view import View

    async def work(client: Client) -> list[Rollout]:
        return sorted_by_name(await client.list_all(Rollout, ALL if all_namespaces else None))

    now = datetime.now(UTC)
    views = [view_of(View(rollout), (), now) for rollout in asked(reach, work)]
    if output != "table":
        emit([row_of(view) for view in views], output)
    elif not views:
        click.echo("no rollouts" + ("" if all_namespaces else "; -A looks in all namespaces"), err=True)
    else:
        emit([row_of(view) for view in views], columns=LIST_COLUMNS[0 if all_namespaces else 1 :])


@click.command(
    epilog=examples(
        "# wait until it is Healthy (exit status 0) or Degraded (exit status 1)",
        "pilothouse rollout status shop --timeout 10m",
        "# only say how it is now",
        "pilothouse rollout status shop --no-watch",
    )
)
@click.argument("name", metavar="ROLLOUT")
@click.option(
    "--timeout", "timeout", default="", metavar="TIME", help="How long to wait, such as 90s; for ever by default."
)
@click.option("--watch/--no-watch", default=True, help="Wait until it is Healthy or Degraded.", show_default=True)
@reaching
def status(name: str, timeout: str, watch: bool, reach: Reach) -> None:
    """Wait until a rollout is Healthy or Degraded.

    Meanwhile it is said how it goes on.

    Ends with status 0 for Healthy, 1 for Degraded or when the time is over.
    """
    from .times import seconds_of

    name = name_of("rollout", name)
    limit = seconds_of("--timeout", timeout) if timeout else None
    phase, message = asked(reach, lambda client: _ended(client, name, limit, wait=watch))
    if phase == "Degraded":
        raise CommandError(f"rollout {name} is Degraded{f': {message}' if message else ''}")


async def _ended(client: Client, name: str, limit: float | None, *, wait: bool) -> tuple[str, str]:
    """Follow a rollout to its end, telling each change. Raises CommandError where it is deleted or takes too long."""
    from pilothouse.delivery.resources.rollouts import Rollout
    from pilothouse.delivery.rollouts.tree import phase_now

    first = await named(client, Rollout, name)
    told = _told(first, "")
    if not wait or phase_now(first)[0] in _ENDS:
        return phase_now(first)
    since = first.metadata.resource_version or ""
    changes = client.watch(Rollout, fields=f"metadata.name={name}", since=since, resume=True)
    try:
        async with asyncio.timeout(limit) as limited, aclosing(changes) as events:
            async for event in events:
                if event.type == "DELETED":
                    break
                told = _told(event.object, told)
                if phase_now(event.object)[0] in _ENDS:
                    return phase_now(event.object)
    except TimeoutError:
        if not limited.expired():
            raise
        raise CommandError(f"rollout {name}: neither Healthy nor Degraded within {limit:g} s") from None
    raise CommandError(f"rollout {name} was deleted")


def _told(rollout: Rollout, before: str) -> str:
    """Print how a rollout is where that is new; return what was printed last."""
    from pilothouse.delivery.rollouts.tree import progress_of

    text = progress_of(rollout)
    if text != before:
        click.echo(text)
    return text
