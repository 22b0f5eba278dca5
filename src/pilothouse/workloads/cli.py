"""`pilothouse controllers`: what kube-controller-manager does, against any Kubernetes API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from pilothouse.foundation import logs
from pilothouse.foundation.terminal import CommandError, ExitCode, examples

if TYPE_CHECKING:
    from pilothouse.client import Client

__all__ = ["controllers"]


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
    from pilothouse.operator import LeaderElection, Manager
    from pilothouse.operator.loop import LoopOptions
    from pilothouse.operator.running import run_manager
    from pilothouse.workloads.controllers import CONTROLLERS, add_controllers

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

    def make(client: Client) -> Manager:
        election = LeaderElection(name="pilothouse-controllers", namespace="kube-system") if leader_elect else None
        loop = LoopOptions(rounds=0)  # a large set is reconciled for each of its pods
        manager = Manager(client, leader_election=election, health_address=health, loop=loop)
        add_controllers(manager, names)
        return manager

    run_manager(make, kubeconfig=kubeconfig)
