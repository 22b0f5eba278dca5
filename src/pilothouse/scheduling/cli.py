"""`pilothouse scheduler`: what kube-scheduler does, against any Kubernetes API."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pilothouse.foundation import logs
from pilothouse.foundation.terminal import CommandError, ExitCode, examples

if TYPE_CHECKING:
    from pilothouse.client import Client

    from .configuration import Configuration

__all__ = ["scheduler"]

_PATIENCE_SECONDS = 30.0
_PAUSE_SECONDS = 0.02


@click.command(
    epilog=examples(
        "pilothouse scheduler --kubeconfig ~/.kube/config",
        "# with a file for kube-scheduler, and only while this copy has the lease",
        "pilothouse scheduler --config scheduler.yaml --leader-elect",
    )
)
@click.option("--kubeconfig", type=click.Path(), help="How the server is reached; as kubectl finds it by default.")
@click.option("--config", type=click.Path(), help="A KubeSchedulerConfiguration of kubescheduler.config.k8s.io/v1.")
@click.option("--leader-elect", is_flag=True, help="Work only while this copy has the lease pilothouse-scheduler.")
@click.option("--health", metavar="HOST:PORT", default="", help="Serve /healthz, /readyz and /metrics there.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What to log to standard error.",
)
def scheduler(
    kubeconfig: str | None,
    config: str | None,
    leader_elect: bool,
    health: str,
    log_level: Literal["debug", "info", "warning", "error"],
) -> None:
    """Bind pods to nodes until SIGTERM or SIGINT.

    `pilothouse up` has it; this is for a server that runs by itself. Beside a kube-scheduler of the same cluster, give
    the profiles names of their own.
    """
    from .configuration import load
    from .errors import ConfigurationError

    try:
        configuration = load(Path(config)) if config else None
    except OSError as error:
        raise CommandError(f"--config {config}: {error.strerror}", code=ExitCode.USAGE) from error
    except ConfigurationError as error:
        raise CommandError(f"{config}: {error}", code=ExitCode.USAGE) from error
    logs.configure(log_level, "console")
    _run(kubeconfig, configuration, leader_elect=leader_elect, health=health)


def _run(kubeconfig: str | None, configuration: Configuration | None, *, leader_elect: bool, health: str) -> None:
    import uvloop

    from pilothouse.client.errors import ClientError, ConfigError
    from pilothouse.client.factory import CacheSyncError
    from pilothouse.client.leaderelection import LeadershipLostError
    from pilothouse.operator.errors import OperatorError

    from .errors import ConfigurationError

    try:
        uvloop.run(_work(kubeconfig, configuration, leader_elect=leader_elect, health=health))
    except (CacheSyncError, LeadershipLostError) as error:
        raise CommandError(str(error), code=ExitCode.UNAVAILABLE) from error
    except (ConfigError, ConfigurationError) as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    except (OperatorError, ClientError, ValueError) as error:
        raise CommandError(str(error)) from error


async def _work(
    kubeconfig: str | None, configuration: Configuration | None, *, leader_elect: bool, health: str
) -> None:
    from pilothouse.client import Client
    from pilothouse.foundation.lifeline import Lifeline
    from pilothouse.operator import LeaderElection, Manager

    from .reconcilers import PodScheduler

    lifeline = Lifeline.from_environment()
    if lifeline is not None and kubeconfig:
        await _until_there(Path(kubeconfig))
    async with Client.from_kubeconfig(kubeconfig) if kubeconfig else Client.from_environment() as client:
        if lifeline is not None:
            await _until_served(client)
        election = LeaderElection(name="pilothouse-scheduler", namespace="kube-system") if leader_elect else None
        manager = Manager(client, leader_election=election, health_address=health)
        PodScheduler(manager, configuration)
        running = asyncio.create_task(manager.run(signals=True))
        if lifeline is not None:
            lifeline.watch(manager.stop)
            started = asyncio.create_task(manager.wait_started())
            await asyncio.wait([running, started], return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                lifeline.ready()
        with contextlib.suppress(asyncio.CancelledError):  # a second signal
            await running


async def _until_there(path: Path) -> None:
    """Wait for the kubeconfig that the server of a new platform writes first."""
    from pilothouse.foundation.clock import SystemClock
    from pilothouse.foundation.files import OsFileSystem

    clock, files = SystemClock(), OsFileSystem()
    end = clock.monotonic() + _PATIENCE_SECONDS
    while not files.exists(str(path)) and clock.monotonic() < end:
        await clock.sleep(_PAUSE_SECONDS)


async def _until_served(client: Client) -> None:
    """Wait for the server, which starts at the same time; what cannot be waited for shows when caches are filled."""
    from pilothouse.client.errors import ClientError
    from pilothouse.foundation.retry import Backoff, RetriesExhausted, retry
    from pilothouse.kinds.status import ApiStatus

    soon = Backoff(base=_PAUSE_SECONDS, factor=1.1, cap=1.0, attempts=None, deadline=_PATIENCE_SECONDS)
    with contextlib.suppress(RetriesExhausted):
        await retry(client.version, soon, retryable=(OSError, ApiStatus, ClientError))
