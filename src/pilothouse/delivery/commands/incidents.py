"""The command `rollout incidents`: what was rolled back by itself, with its evidence."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pilothouse.foundation.terminal import emit, examples, output_option

from .reaching import ALL, Reach, asked, name_of, named, reaching, sorted_by_name

if TYPE_CHECKING:
    from pilothouse.client import Client
    from pilothouse.delivery.resources.incidents import Incident

__all__ = ["incidents"]


@click.command(
    epilog=examples(
        "pilothouse rollout incidents",
        "# one with its evidence, samples of bad requests, and the timeline",
        "pilothouse rollout incidents shop-6f9c",
        "pilothouse rollout incidents -A -o json",
    )
)
@click.argument("name", metavar="INCIDENT", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@output_option
@reaching
def incidents(name: str | None, all_namespaces: bool, output: str, reach: Reach) -> None:
    """Show incidents, the newest first: versions that were taken back by analysis, an experiment or a deadline.

    Of one: why, what was measured, some of the requests that went badly, and what happened when.
    """
    from pilothouse.delivery.notices.showing import COLUMNS, page_of, row_of, view_of
    from pilothouse.delivery.resources.incidents import Incident

    now = datetime.now(UTC)

    async def one(client: Client) -> Incident:
        return await named(client, Incident, name_of("incident", name or ""))

    async def every(client: Client) -> list[Incident]:
        return sorted_by_name(await client.list_all(Incident, ALL if all_namespaces else None))

    if name:
        view = view_of(asked(reach, one))
        if output == "table":
            click.echo("\n".join(page_of(view, now)))
        else:
            emit(view, output)
        return
    views = sorted(map(view_of, asked(reach, every)), key=lambda view: view.decided_at, reverse=True)
    if output != "table":
        emit(views, output)
    elif not views:
        click.echo("no incidents: no version was taken back by itself", err=True)
    else:
        emit([row_of(view, now) for view in views], columns=COLUMNS[0 if all_namespaces else 1 :])
