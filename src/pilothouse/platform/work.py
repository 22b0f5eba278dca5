"""The platform's own controllers in one process: `python -m pilothouse.platform.work`, which the supervisor starts.

They share one client, one cache a kind and one loop, beside the API server's process.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import click

from pilothouse.client import Client
from pilothouse.foundation import logs
from pilothouse.foundation.lifeline import Lifeline
from pilothouse.operator import Manager
from pilothouse.operator.loop import LoopOptions
from pilothouse.operator.running import run_manager

from . import CONTROL

__all__ = ["main"]


@click.command()
@click.option("--kubeconfig", required=True)
@click.option("--part", "parts", multiple=True, type=click.Choice(CONTROL))
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
@click.option("--dns-address", default="", help="Of the cluster's DNS, for the part dns.")
@click.option("--cluster-cidr", default="", help="Addresses of pods, of which nodes get ranges; none where empty.")
def main(
    kubeconfig: str,
    parts: tuple[str, ...],
    log_level: Literal["debug", "info", "warning", "error"],
    dns_address: str,
    cluster_cidr: str,
) -> None:
    """Run parts of the platform until told to stop."""
    logs.configure(log_level, "console")

    def make(client: Client) -> Manager:
        manager = Manager(client, loop=LoopOptions(rounds=0))
        if "controllers" in parts:
            from pilothouse.workloads.controllers import NODE_IPAM, add_controllers  # noqa: PLC0415  # what is wanted
            from pilothouse.workloads.reconcilers.nodeipam import add_nodeipam  # noqa: PLC0415

            add_controllers(manager, without={NODE_IPAM})
            if cluster_cidr:
                add_nodeipam(manager, cluster_cidr)
        if "scheduler" in parts:
            from pilothouse.scheduling.reconcilers import PodScheduler  # noqa: PLC0415  # only what is wanted

            PodScheduler(manager)
        if "load-balancers" in parts:
            from pilothouse.node.services.loadbalancers import add_load_balancers  # noqa: PLC0415  # only what is wanted

            add_load_balancers(manager)
        if "dns" in parts and dns_address:
            from .dnsservice import add_dns_service  # noqa: PLC0415  # only what is wanted

            add_dns_service(manager, dns_address)
        if asked := {"gateway", "delivery"}.intersection(parts):
            from .gatewaywatch import add_gateway_watch  # noqa: PLC0415  # only what is wanted

            lifeline = Lifeline.from_environment()
            if lifeline is not None:
                add_gateway_watch(manager, partial(lifeline.want, max(asked)), asked)
        return manager

    run_manager(make, kubeconfig=kubeconfig)


if __name__ == "__main__":
    main()
