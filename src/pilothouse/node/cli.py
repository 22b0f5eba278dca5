"""`pilothouse node`: run the pods of this machine, or thousands of nodes that are only simulated."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

import click

from pilothouse.foundation import logs
from pilothouse.foundation.terminal import CommandError, ExitCode, examples

from .told import leave_when_told

if TYPE_CHECKING:
    from pilothouse.client import Client

__all__ = ["node"]

_KUBECONFIG = click.option("--kubeconfig", type=click.Path(), help="How the server is reached; as kubectl finds it.")
_DATA_DIR = click.option(
    "--data-dir", type=click.Path(), default="/var/lib/pilothouse/node", show_default=True, help="Where all is kept."
)
_LOG_LEVEL = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="What to log to standard error.",
)
_Level = Literal["debug", "info", "warning", "error"]


@click.group(epilog=examples("pilothouse node run --kubeconfig ~/.kube/config", "pilothouse node simulate --count 100"))
def node() -> None:
    """Run pods on this machine, or simulate nodes."""


@node.command(
    epilog=examples(
        "pilothouse node run --kubeconfig ~/.kube/config --name worker-1",
        "# with labels, and with 4 GiB kept from pods",
        "pilothouse node run --label disk=ssd --reserved-memory 4Gi",
    )
)
@_KUBECONFIG
@click.option("--name", default="", help="The node's name; this machine's by default.")
@_DATA_DIR
@click.option("--address", multiple=True, help="The node's addresses; found by default.")
@click.option("--label", multiple=True, metavar="NAME=VALUE", help="A label of the node; may be given again.")
@click.option("--max-pods", type=click.IntRange(min=1), default=110, show_default=True, help="How many pods at most.")
@click.option("--pod-cidr", default="", help="Addresses of this node's pods; by default what its Node says.")
@click.option(
    "--cluster-cidr", default="10.244.0.0/16", show_default=True, help="Addresses of all pods, also of other nodes."
)
@click.option("--bridge", default="pilothouse0", show_default=True, help="The bridge that pods are linked to.")
@click.option("--port", type=int, default=10250, show_default=True, help="Of the node's API; another one if taken.")
@click.option("--reserved-cpu", default="0", help="CPU that is kept from pods, as 500m.")
@click.option("--reserved-memory", default="0", help="Memory that is kept from pods, as 1Gi.")
@_LOG_LEVEL
def run(  # noqa: PLR0913  options of a command
    kubeconfig: str | None,
    name: str,
    data_dir: str,
    address: tuple[str, ...],
    label: tuple[str, ...],
    max_pods: int,
    pod_cidr: str,
    cluster_cidr: str,
    bridge: str,
    port: int,
    reserved_cpu: str,
    reserved_memory: str,
    log_level: _Level,
) -> None:
    """Run the pods of this node until SIGTERM or SIGINT; they run on, and the next agent takes them over."""
    click.get_current_context().call_on_close(leave_when_told())
    from pilothouse.kinds.quantity import QuantityError, parse

    from .agent.options import AgentOptions
    from .process.options import Options
    from .volumes.localdirs import ROOT as LOCAL_VOLUMES

    try:
        cpu, memory = parse(reserved_cpu).milli_value(), parse(reserved_memory).value()
    except QuantityError as error:
        raise CommandError(f"--reserved-cpu, --reserved-memory: {error}", code=ExitCode.USAGE) from error
    options = AgentOptions(
        name=name or socket.gethostname().lower(),
        root=os.path.join(data_dir, "agent"),
        addresses=address,
        labels=_labels(label),
        annotations={LOCAL_VOLUMES: os.path.join(data_dir, "volumes")},
        max_pods=max_pods,
        port=port,
        reserved_cpu=cpu,
        reserved_memory=memory,
    )
    logs.configure(log_level, "console")
    machine = Options(
        root=os.path.join(data_dir, "runtime"), pod_cidr=pod_cidr, cluster_cidr=cluster_cidr, bridge=bridge
    )

    async def work(client: Client) -> None:
        from .running import run_node

        await run_node(client, options, machine)

    os.makedirs(data_dir, mode=0o711, exist_ok=True)
    _serve(kubeconfig, work)


@node.command(
    epilog=examples(
        "pilothouse node clear",
        "# at once, whatever the pods would like",
        "pilothouse node clear --grace 0 --data-dir /srv/node",
    )
)
@_DATA_DIR
@click.option("--grace", type=click.FloatRange(min=0), help="Seconds from signal to kill; each pod's own by default.")
@click.option("--timeout", type=click.FloatRange(min=0), default=60.0, show_default=True, help="The most of that.")
def clear(data_dir: str, grace: float | None, timeout: float) -> None:
    """End all pods of this node and take away what it made of the machine.

    The agent has to be stopped. Images, logs, emptyDirs and persistent volumes stay.
    """
    from .clearing import clear_node
    from .errors import NodeError

    try:
        done = asyncio.run(clear_node(data_dir, grace=grace, at_most=timeout))
    except (NodeError, OSError) as error:
        raise CommandError(str(error)) from error
    for line in (f"{done.pods} pods", *done.removed):
        click.echo(f"removed: {line}")
    if done.problems:
        raise CommandError("; ".join(done.problems))


@node.command(
    epilog=examples("pilothouse node simulate --count 2000", "pilothouse node simulate --failure-rate 0.05 --remove")
)
@_KUBECONFIG
@click.option("--count", type=click.IntRange(min=1, max=50_000), default=10, show_default=True, help="How many nodes.")
@click.option("--prefix", default="sim", show_default=True, help="Of the nodes' names.")
@click.option("--cpu", default="8", show_default=True, help="CPU of each node.")
@click.option("--memory", default="32Gi", show_default=True, help="Memory of each node.")
@click.option("--max-pods", type=click.IntRange(min=1), default=110, show_default=True, help="Pods of each node.")
@click.option("--start-seconds", type=float, default=0.2, show_default=True, help="From bound to running.")
@click.option("--run-seconds", type=float, default=None, help="Until containers end by themselves; never by default.")
@click.option("--failure-rate", type=click.FloatRange(0, 1), default=0.0, show_default=True, help="Share of bad runs.")
@click.option("--jitter", type=float, default=0.2, show_default=True, help="By how much times vary.")
@click.option("--remove", is_flag=True, help="Remove the nodes at the end.")
@_LOG_LEVEL
def simulate(  # noqa: PLR0913  options of a command
    kubeconfig: str | None,
    count: int,
    prefix: str,
    cpu: str,
    memory: str,
    max_pods: int,
    start_seconds: float,
    run_seconds: float | None,
    failure_rate: float,
    jitter: float,
    remove: bool,
    log_level: _Level,
) -> None:
    """Simulate nodes until SIGTERM or SIGINT: pods live by rules, no process runs.

    Annotations of pods change the rules, such as simulated.pilothouse.dev/run-seconds.
    """
    click.get_current_context().call_on_close(leave_when_told())
    from .simulated.nodes import FleetOptions
    from .simulated.rules import Rules

    rules = Rules(start_seconds=start_seconds, run_seconds=run_seconds, failure_rate=failure_rate, jitter=jitter)
    options = FleetOptions(count=count, prefix=prefix, cpu=cpu, memory=memory, max_pods=max_pods, rules=rules)
    logs.configure(log_level, "console")

    async def work(client: Client) -> None:
        from .simulated.fleet import Fleet

        fleet = Fleet(client, options)
        try:
            await fleet.run()
        finally:
            if remove:
                await fleet.remove()

    _serve(kubeconfig, work)


def _labels(given: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given:
        name, sign, value = text.partition("=")
        if not sign or not name:
            raise CommandError(f"--label {text}: want NAME=VALUE", code=ExitCode.USAGE)
        found[name] = value
    return found


def _serve(kubeconfig: str | None, work: Callable[[Client], Awaitable[None]]) -> None:
    import uvloop

    from pilothouse.client.errors import ClientError, ConfigError
    from pilothouse.client.factory import CacheSyncError

    from .errors import NodeError
    from .told import until_told

    async def with_client() -> None:
        from pilothouse.client import Client

        options: dict[str, Any] = {"managed_fields": False}
        async with (
            Client.from_kubeconfig(kubeconfig, **options) if kubeconfig else Client.from_environment(**options)
        ) as client:
            await work(client)

    try:
        uvloop.run(until_told(with_client()))
    except CacheSyncError as error:
        raise CommandError(str(error), code=ExitCode.UNAVAILABLE) from error
    except ConfigError as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    except (NodeError, ClientError, OSError, ValueError) as error:
        raise CommandError(str(error)) from error
