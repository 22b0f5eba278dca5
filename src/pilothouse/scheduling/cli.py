"""`pilothouse scheduler`: what kube-scheduler does, against any Kubernetes API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pilothouse.foundation import logs
from pilothouse.foundation.terminal import CommandError, ExitCode, examples

if TYPE_CHECKING:
    from pilothouse.client import Client

__all__ = ["scheduler"]


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
    from pilothouse.operator import LeaderElection, Manager
    from pilothouse.operator.running import run_manager

    from .configuration import load
    from .errors import ConfigurationError
    from .reconcilers import PodScheduler

    try:
        configuration = load(Path(config)) if config else None
    except OSError as error:
        raise CommandError(f"--config {config}: {error.strerror}", code=ExitCode.USAGE) from error
    except ConfigurationError as error:
        raise CommandError(f"{config}: {error}", code=ExitCode.USAGE) from error
    logs.configure(log_level, "console")

    def make(client: Client) -> Manager:
        election = LeaderElection(name="pilothouse-scheduler", namespace="kube-system") if leader_elect else None
        manager = Manager(client, leader_election=election, health_address=health)
        PodScheduler(manager, configuration)
        return manager

    try:
        run_manager(make, kubeconfig=kubeconfig)
    except ConfigurationError as error:
        raise CommandError(f"{config}: {error}", code=ExitCode.USAGE) from error
