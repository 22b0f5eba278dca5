"""`pilothouse demo`: the platform runs an ordinary application, and what happens to it in half a minute is shown."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Final, Literal

import click

from pilothouse.client import Client, ClientError
from pilothouse.foundation.clock import SystemClock
from pilothouse.foundation.retry import Backoff, retry
from pilothouse.foundation.terminal import CommandError, emit, examples, output_option
from pilothouse.kinds.status import ApiStatus

from .demo_guestbook import Guestbook, Object, manifests, of_version, processes_of, restarts, with_greeting
from .demo_load import Load, Tally
from .demo_platform import Platform, cancelled_by_signals, claimed_share
from .demo_report import ROLL_OUT, WITHOUT_SERVER, Report
from .shopdemo.command import shop

__all__ = ["demo"]

_GREETING: Final = "Fair winds, and come back."


@click.group(
    invoke_without_command=True,
    epilog=examples("pilothouse demo", "# figures for a program", "pilothouse demo -o json", "pilothouse demo shop"),
)
@output_option
@click.pass_context
def demo(ctx: click.Context, output: Literal["table", "json", "yaml"]) -> None:
    """Start a platform, run a guestbook of two tiers on it, roll it over under load, kill parts of it, and clear up.

    It has processes, ports, addresses and a directory of its own, and leaves nothing behind; other platforms of this
    machine are not touched. Exit code 1 says that a request failed in the roll-out or an entry was lost.
    """
    if ctx.invoked_subcommand is not None:
        return
    report = Report()
    try:
        asyncio.run(_run(report))
    except asyncio.CancelledError:
        raise click.Abort from None
    except (ClientError, ApiStatus, OSError) as error:
        raise CommandError(str(error)) from error
    _show(report, output)


demo.add_command(shop)


def _show(report: Report, output: str) -> None:
    if output == "table":
        emit(report.moments)
        click.echo()
        emit(report.phases)
        click.echo()
        click.echo(report.summary())
    else:
        emit({"timeline": report.moments, "load": report.phases, "figures": report.figures}, output)
    if problems := report.problems():
        raise CommandError("; ".join(problems), hint="\n".join(report.reasons))


async def _run(report: Report) -> None:
    with claimed_share() as share, cancelled_by_signals() as ending:
        platform = Platform(share)
        try:
            report.doing("starting the platform: API server, controllers, scheduler and this machine's node")
            await platform.start()
            report.moment("platform ready", "API server, controllers and scheduler, node")
            async with Client.from_kubeconfig(str(platform.kubeconfig)) as client:
                await _play(platform, Guestbook(client), report)
        finally:
            ending.set()
            report.doing("taking everything down")
            await platform.remove()
            report.moment("everything down", "no process, volume or rule is left")


async def _play(platform: Platform, guestbook: Guestbook, report: Report) -> None:
    objects = manifests()
    report.doing("applying the manifests of examples/guestbook")
    await guestbook.apply(objects)
    report.moment("manifests applied", ", ".join(sorted({each["kind"] for each in objects})))
    await guestbook.until_running()
    report.moment("first pod running")
    await guestbook.until_ready()
    url = await guestbook.url()
    report.moment("application ready", "front: 2 pods, store: 1 pod with a volume")
    async with Load(url) as load:
        found = await load.version()
        report.figures["store_found_by"] = found["store_found_by"]
        told = f"version {found['version']} at {url}; it finds the store by its {found['store_found_by']}"
        report.moment("it answers", told)
        await _roll_out(guestbook, load, report, of_version(objects, "2"))
        await _kill_front(guestbook, load, report)
        await _kill_store(guestbook, load, report)
        await _kill_server(platform, guestbook, load, report, objects)


async def _roll_out(guestbook: Guestbook, load: Load, report: Report, wanted: dict[str, object]) -> None:
    report.doing("rolling it over to version 2 under load")
    tally = report.phase(ROLL_OUT, await load.phase())
    await guestbook.apply([wanted])
    count = await guestbook.until_rolled_out("2")
    if (version := (await load.version())["version"]) != "2":
        raise CommandError(f"version 2 is rolled out, but version {version} answers")
    report.moment("version 2 rolled out", f"{count} pods; {_told(tally)}")


async def _kill_front(guestbook: Guestbook, load: Load, report: Report) -> None:
    pod = (await guestbook.pods("front"))[0]
    name = pod["metadata"]["name"]
    report.doing(f"killing the process of {name}")
    tally = report.phase("a front was killed", await load.phase())
    _kill(name, "front.py")
    report.moment("a front killed with SIGKILL", name)
    pod = await guestbook.until_restarted(pod)
    report.moment("the front healed", f"restarts: {restarts(pod)}; {_told(tally)}")


async def _kill_store(guestbook: Guestbook, load: Load, report: Report) -> None:
    (pod,) = await guestbook.pods("store")
    report.doing("killing the process of the store while entries are written")
    tally = report.phase("the store was killed", await load.phase())
    _kill(pod["metadata"]["name"], "storage.py")
    report.moment("the store killed with SIGKILL", f"{len(load.signed)} entries were acknowledged")
    pod = await guestbook.until_restarted(pod)
    signed = set(load.signed)
    report.entries(signed, await load.entries())
    report.moment(
        "the store healed", f"restarts: {restarts(pod)}; {len(signed)} entries, {report.figures['entries_lost']} lost; "
        f"{_told(tally)}",
    )  # fmt: skip


async def _kill_server(
    platform: Platform, guestbook: Guestbook, load: Load, report: Report, objects: Sequence[Object]
) -> None:
    """Kill the API server. That all is back shows by a change that goes through it and the node to the page."""
    report.doing("killing the API server, and changing the greeting as soon as it is back")
    tally = report.phase(WITHOUT_SERVER, await load.phase())
    os.kill(platform.process_of("apiserver"), signal.SIGKILL)
    report.moment("the API server killed with SIGKILL", "pods are served on")
    again = Backoff(base=0.02, cap=0.1, attempts=600)
    await retry(lambda: guestbook.apply([with_greeting(objects, _GREETING)]), again, SystemClock(), ClientError)
    report.moment("the API server back", "it has taken a changed config map")
    await retry(lambda: _greeted(load), again, SystemClock(), LookupError)
    report.moment("the page shows the change", _told(tally))


async def _greeted(load: Load) -> None:
    if (await load.version())["greeting"] != _GREETING:
        raise LookupError(_GREETING)


def _kill(pod: str, program: str) -> None:
    found = processes_of(pod, program)
    if not found:
        raise CommandError(f"there is no process of {program} in pod {pod}")
    for process in found:
        os.kill(process, signal.SIGKILL)


def _told(tally: Tally) -> str:
    return f"{tally.requests} requests, {tally.failures} failed"
