"""`pilothouse controllers`: what kube-controller-manager does, against any Kubernetes API."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Literal

import click

from pilothouse.foundation import logs
from pilothouse.foundation.clock import SystemClock
from pilothouse.foundation.files import OsFileSystem
from pilothouse.foundation.lifeline import Lifeline
from pilothouse.foundation.terminal import CommandError, ExitCode, examples

if TYPE_CHECKING:
    from pilothouse.client import Client

__all__ = ["controllers"]

_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.02


@click.command(
    epilog=examples(
        "pilothouse controllers --kubeconfig ~/.kube/config",
        "# all but some, and only while this copy has the lease",
        "pilothouse controllers --without cronjob-controller,job-controller --leader-elect",
        "# which there are",
        "pilothouse controllers --list",
    )
)
@click.option("--kubeconfig", type=click.Path(), help="How the server is reached; as kubectl finds it by default.")
@click.option("--without", default="", help="Controllers to leave out, by name, separated by commas.")
@click.option("--list", "listed", is_flag=True, help="Print the names of all controllers.")
@click.option("--leader-elect", is_flag=True, help="Work only while this copy has the lease pilothouse-controllers.")
@click.option("--health", metavar="HOST:PORT", default="", help="Serve /healthz, /readyz and /metrics there.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What to log to standard error.",
)
def controllers(
    kubeconfig: str | None,
    without: str,
    listed: bool,
    leader_elect: bool,
    health: str,
    log_level: Literal["debug", "info", "warning", "error"],
) -> None:
    """Run the controllers of workloads, services, quotas and volumes until SIGTERM or SIGINT.

    `pilothouse up` has them; this is for a server that runs by itself. Do not run them beside a
    kube-controller-manager of the same cluster.
    """
    from pilothouse.workloads.controllers import CONTROLLERS

    if listed:
        click.echo("\n".join(CONTROLLERS))
        return
    names = [name.strip() for name in without.split(",") if name.strip()]
    if unknown := [name for name in names if name not in CONTROLLERS]:
        raise CommandError(
            f"--without {','.join(unknown)}: there is no such controller",
            hint="pilothouse controllers --list names them all",
            code=ExitCode.USAGE,
        )
    logs.configure(log_level, "console")
    _run(kubeconfig, names, leader_elect=leader_elect, health=health)


def _run(kubeconfig: str | None, without: list[str], *, leader_elect: bool, health: str) -> None:
    import uvloop

    from pilothouse.client.errors import ClientError, ConfigError
    from pilothouse.client.factory import CacheSyncError
    from pilothouse.client.leaderelection import LeadershipLostError
    from pilothouse.operator.errors import OperatorError

    try:
        uvloop.run(_work(kubeconfig, without, leader_elect=leader_elect, health=health))
    except (CacheSyncError, LeadershipLostError) as error:
        raise CommandError(str(error), code=ExitCode.UNAVAILABLE) from error
    except ConfigError as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    except (OperatorError, ClientError, ValueError) as error:
        raise CommandError(str(error)) from error


async def _work(kubeconfig: str | None, without: list[str], *, leader_elect: bool, health: str) -> None:
    from pilothouse.client import Client
    from pilothouse.operator import LeaderElection, Manager
    from pilothouse.workloads.controllers import add_controllers

    lifeline = Lifeline.from_environment()
    if lifeline is not None and kubeconfig:
        await _until_there(kubeconfig)
    async with Client.from_kubeconfig(kubeconfig) if kubeconfig else Client.from_environment() as client:
        if lifeline is not None:
            await _until_served(client)
        election = LeaderElection(name="pilothouse-controllers", namespace="kube-system") if leader_elect else None
        manager = Manager(client, leader_election=election, health_address=health)
        add_controllers(manager, without)
        running = asyncio.create_task(manager.run(signals=True))
        if lifeline is not None:
            lifeline.watch(manager.stop)
            started = asyncio.create_task(manager.wait_started())
            await asyncio.wait([running, started], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                lifeline.ready()
        with contextlib.suppress(asyncio.CancelledError):  # a second signal
            await running


async def _until_there(path: str) -> None:
    """Wait for the kubeconfig that the server of a new platform writes first."""
    clock = SystemClock()
    end = clock.monotonic() + _PATIENCE_SECONDS
    while not OsFileSystem().exists(path) and clock.monotonic() < end:
        await clock.sleep(_PAUSE_SECONDS)


async def _until_served(client: Client) -> None:
    """Wait for the server, which starts at the same time; what cannot be waited for shows when caches are filled."""
    from pilothouse.client.errors import ClientError
    from pilothouse.foundation.retry import Backoff, RetriesExhausted, retry
    from pilothouse.kinds.status import ApiStatus

    soon = Backoff(base=_PAUSE_SECONDS, factor=1.1, cap=1.0, attempts=None, deadline=_PATIENCE_SECONDS)
    with contextlib.suppress(RetriesExhausted):
        await retry(client.version, soon, retryable=(OSError, ApiStatus, ClientError))
