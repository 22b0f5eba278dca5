"""The command `slo`: service levels, their error budgets, and what became of deploys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from pilothouse.foundation.terminal import emit, examples, output_option

from .reaching import ALL, Reach, asked, name_of, named, reaching, sorted_by_name

if TYPE_CHECKING:
    from pilothouse.client import Client
    from pilothouse.delivery.resources.servicelevels import ServiceLevel

__all__ = ["slo"]


@click.command(
    epilog=examples(
        "pilothouse slo",
        "# one with its days and its last deploys",
        "pilothouse slo shop",
        "pilothouse slo -A --days",
        "pilothouse slo shop -o json",
    )
)
@click.argument("name", required=False)
@click.option("-A", "--all-namespaces", is_flag=True, help="Of all namespaces.")
@click.option("--days", is_flag=True, help="A line of days: low where a day used up its share of the budget.")
@output_option
@reaching
def slo(name: str | None, all_namespaces: bool, days: bool, output: str, reach: Reach) -> None:
    """Show service levels: objective and what is attained, the error budget, burn rates, and how deploys went.

    A burn rate of 1 spends the budget exactly within the window. Lead time and time to restore are medians.
    """
    from pilothouse.delivery.reliability.showing import COLUMNS, days_line, page_of, row_of, view_of
    from pilothouse.delivery.resources.servicelevels import ServiceLevel

    now = datetime.now(UTC)

    async def one(client: Client) -> ServiceLevel:
        return await named(client, ServiceLevel, name_of("servicelevel", name or ""))

    async def every(client: Client) -> list[ServiceLevel]:
        return sorted_by_name(await client.list_all(ServiceLevel, ALL if all_namespaces else None))

    if name:
        view = view_of(asked(reach, one), now)
        if output == "table":
            click.echo("\n".join(page_of(view, now)))
        else:
            emit(view, output)
        return
    views = [view_of(level, now) for level in asked(reach, every)]
    if output != "table":
        emit(views, output)
    elif not views:
        click.echo("no service levels; a ServiceLevel names a rollout, its routes and an objective", err=True)
    else:
        shown = [*COLUMNS[0 if all_namespaces else 1 :], *(["days"] if days else [])]
        emit([{**row_of(view), "days": days_line(view)} for view in views], columns=shown)
