"""`pilothouse demo shop`: starts a platform, plays the story, and tells it in a table and a page."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import click

from pilothouse.cli.demo_platform import Platform, cancelled_by_signals, claimed_share, free_port
from pilothouse.client import Client, ClientError
from pilothouse.foundation.processes import ProcessError
from pilothouse.foundation.terminal import CommandError, emit, examples, output_option
from pilothouse.kinds.status import ApiStatus

from .cluster import ShopCluster
from .report import page
from .story import faulty_of, play
from .telling import Story

__all__ = ["shop"]

_REPORT: Final = "shop-demo.html"


@click.command(
    epilog=examples(
        "pilothouse demo shop",
        "# only the version that is slow; everything stays to be looked at",
        "pilothouse demo shop --fault slow --keep",
    )
)
@click.option(
    "--fault",
    type=click.Choice(["both", "errors", "slow"]),
    default="both",
    show_default=True,
    help="What is wrong: 2 % of the answers fail, 10 % of them take 1.2 s, or one version of each.",
)
@click.option("--keep", is_flag=True, help="Leave everything up, and say where it is.")
@click.option(
    "--report",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=_REPORT,
    show_default=True,
    help="Where the page with the plots is written.",
)
@output_option
def shop(fault: str, keep: bool, path: Path, output: Literal["table", "json", "yaml"]) -> None:
    """Deliver a shop out of git to clients of three regions: a good version, and bad ones that are taken back.

    It has processes, ports, addresses and a directory of its own, and leaves nothing behind but the report; other
    platforms of this machine are not touched. Exit code 1 says that a request failed that should not have, or that a
    bad version was not taken back in time.
    """
    began = time.monotonic()
    story = Story(faulty_of(fault), lambda what: click.echo(f"{time.monotonic() - began:5.1f} s  {what}", err=True))
    try:
        asyncio.run(_run(story, keep=keep, path=path))
    except asyncio.CancelledError:
        raise click.Abort from None
    except (ClientError, ApiStatus, OSError, ProcessError) as error:
        raise CommandError(str(error)) from error
    _show(story, path, output)


async def _run(story: Story, *, keep: bool, path: Path) -> None:
    with claimed_share() as share, cancelled_by_signals() as ending:
        platform = Platform(share)
        stays = False
        try:
            story.doing("starting the platform")
            dashboard = f"127.0.0.1:{free_port()}" if keep else ""
            options = [f"--dashboard={dashboard}"] if dashboard else []
            await platform.start(f"--gateway-address={share.gateways}", *options)
            stays = keep  # also where something goes wrong from now on, so that it can be looked at
            story.moment("note", "the platform is ready")
            async with Client.from_kubeconfig(str(platform.kubeconfig)) as client:
                await play(platform, ShopCluster(client), story)
        except asyncio.CancelledError:
            stays = False
            raise
        finally:
            ending.set()
            if story.rows:
                await asyncio.to_thread(path.write_text, page(story.recording), "utf-8")
            if stays:
                _say_where(platform, story, dashboard)
            else:
                story.doing("taking everything down")
                await platform.remove()


def _say_where(platform: Platform, story: Story, dashboard: str) -> None:
    for name, value in (
        ("shop", story.url),
        ("dashboard", f"https://{dashboard}/, where the kubeconfig below logs you in"),
        ("git repository", platform.directory / "shop"),
        ("kubeconfig", platform.kubeconfig),
        ("take it down", f"pilothouse down --data-dir {platform.data} && rm -r {platform.directory}"),
    ):
        click.echo(f"         {name}: {value}", err=True)


def _show(story: Story, path: Path, output: str) -> None:
    timeline = [
        {"at_seconds": round(each.at - story.began, 1), "event": each.event, "detail": each.detail}
        for each in story.moments
    ]
    figures = story.figures()
    if output == "table":
        emit(timeline)
        click.echo()
        emit([_row_of(each) for each in figures["bad_versions"]])
        click.echo()
        click.echo(
            f"{figures['requests']} requests in all, {figures['failed_of_other_versions']} failed of all other "
            f"versions, {figures['orders_lost']} of {figures['orders']} orders are lost; the plots are in {path}"
        )
    else:
        emit({"timeline": timeline, "figures": figures, "report": str(path)}, output)
    if story.problems:
        raise CommandError("; ".join(story.problems))


def _row_of(bad: Mapping[str, Any]) -> dict[str, object]:
    """Return what a bad version did, for people."""

    def seconds(name: str) -> str:
        return f"{bad[name]:.2f} s" if name in bad else "-"

    return {
        "version": bad["version"],
        "fault": bad["fault"],
        "first bad answer to decision": seconds("first_bad_to_decision_seconds"),
        "to last request": seconds("decision_to_last_request_seconds"),
        "users hit": f"{bad['users_hit']} of {bad['users']}",
        "share": f"{100 * bad['users_hit_share']:.2f} %",
    }
