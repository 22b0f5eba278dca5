"""Commands that say what a gateway does: run it by a cluster or by files, install its kinds, check files."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from pilothouse.foundation import logs
from pilothouse.foundation.home import data_dir_option
from pilothouse.foundation.terminal import CommandError, ExitCode, examples

if TYPE_CHECKING:
    from pilothouse.client import Client
    from pilothouse.operator import Manager

__all__ = ["check", "install", "run"]

_KUBECONFIG = click.option(
    "--kubeconfig", type=click.Path(), help="How the server is reached; as kubectl finds it by default."
)
_OTHER_SOCKET = "give each gateway an --admin-socket of its own, or none"
_LEVELS = click.Choice(["debug", "info", "warning", "error"])


@click.command(
    epilog=examples(
        "# by files, without a cluster; they are taken up again when they change, and at SIGHUP",
        "pilothouse gateway run --config routes.yaml --config certificates/",
        "# by the Gateways, routes and Ingresses of a cluster, each Gateway with an address of its own",
        "pilothouse gateway run --kubeconfig ~/.kube/config --address 127.90.0.0/24 --install",
    )
)
@click.option("--config", "paths", multiple=True, type=click.Path(exists=True), help="A file or directory; repeatable.")
@_KUBECONFIG
@click.option(
    "--address", "networks", multiple=True, metavar="CIDR", help="Addresses of Gateways, one each; all by default."
)
@click.option("--publish", multiple=True, metavar="IP", help="What statuses say where Gateways share all addresses.")
@click.option("--install", "with_definitions", is_flag=True, help="Put the definitions into the cluster first.")
@click.option("--workers", type=click.IntRange(0), default=0, help="Processes; one a core by default.")
@click.option(
    "--session-key",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with the key that seals sessions, made if missing; gateways that know each other's sessions share it."
    "  [default: DIR/gateway/session.key of --data-dir]",
)
@click.option(
    "--admin-socket",
    metavar="PATH",
    help="Where it answers `gateway routes|backends|top`, or none.  [default: DIR/run/gateway.sock of --data-dir]",
)
@data_dir_option("Where its admin socket is.")
@click.option("--log-level", type=_LEVELS, default="info", show_default=True)
def run(  # noqa: PLR0913  options of a command
    paths: tuple[str, ...],
    kubeconfig: str | None,
    networks: tuple[str, ...],
    publish: tuple[str, ...],
    with_definitions: bool,
    workers: int,
    session_key: Path | None,
    admin_socket: str | None,
    data_dir: Path | None,
    log_level: Literal["debug", "info", "warning", "error"],
) -> None:
    """Run a gateway until SIGTERM or SIGINT: by files, or by the objects of a cluster."""
    from pilothouse.traffic.control.addresses import Addresses
    from pilothouse.traffic.gateway import Gateway, GatewayOptions

    logs.configure(log_level, "console")
    if paths and (kubeconfig or with_definitions):
        raise CommandError("--config is for a gateway without a cluster; leave out one of both", code=ExitCode.USAGE)
    addresses = Addresses(networks, publish)
    socket = _admin_socket(admin_socket, data_dir)
    key = _session_key(session_key, data_dir)
    options = GatewayOptions(workers=workers, session_key=key, admin_socket=socket, needs_admin_socket=False)
    if paths:
        asyncio.run(_by_files(paths, Gateway(options), addresses))
        return
    from pilothouse.operator import Manager as MakeManager
    from pilothouse.operator.loop import LoopOptions
    from pilothouse.operator.running import run_manager

    from .controller import add_gateway

    def make(client: Client) -> Manager:
        manager = MakeManager(client, loop=LoopOptions(rounds=0))
        add_gateway(manager, Gateway(options), addresses, with_definitions=with_definitions)
        return manager

    run_manager(make, kubeconfig=kubeconfig)


def _session_key(asked: Path | None, data_dir: Path | None) -> bytes:
    """Return the key of sessions; one that was asked for and cannot be had ends the command at once."""
    from pilothouse.foundation.home import default_home
    from pilothouse.traffic.sessionkeys import kept_session_key, session_key

    if asked is None:
        try:
            return kept_session_key((data_dir or default_home()) / "gateway" / "session.key")
        except RuntimeError:
            return b""  # a user without a home
    try:
        return session_key(asked)
    except (OSError, ValueError) as error:
        raise CommandError(f"--session-key: {error}", code=ExitCode.USAGE) from error


def _admin_socket(asked: str | None, data_dir: Path | None) -> Path | None:
    """Return where the admin socket is to be; one that was asked for and cannot be had ends the command at once."""
    from pilothouse.traffic.admin.sockets import AdminSocketError, OwnedSocket, default_socket

    if asked is None:
        try:
            return default_socket(data_dir)
        except RuntimeError:
            return None  # a user without a home
    if asked == "none":
        return None
    path = Path(asked).absolute()
    try:
        OwnedSocket(path).close()
    except AdminSocketError as error:
        raise CommandError(str(error), hint=_OTHER_SOCKET, code=ExitCode.CONFLICT) from error
    return path


async def _by_files(paths: tuple[str, ...], gateway: Any, addresses: Any) -> None:
    from .files import FileError
    from .serving import FileSource
    from .translate import Options
    from .watching import FileWatch

    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    source = FileSource(paths, gateway, Options(addresses=addresses))

    def watched(watch: FileWatch) -> None:
        loop.add_signal_handler(signal.SIGHUP, watch.poke)

    await gateway.start()
    try:
        await source.load()
        if gateway.admin_socket is not None:
            click.echo(f"admin socket {gateway.admin_socket}")
        for each in source.configuration.listeners:
            host = each.hostname or "*"
            click.echo(f"{each.protocol} on {each.address or '*'}:{each.port} for {host}")
        following = asyncio.create_task(source.follow(watched))
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait([following, waiting], return_when=asyncio.FIRST_COMPLETED)
        following.cancel()
        waiting.cancel()
        await asyncio.wait([following])
    except (FileError, ValueError) as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    finally:
        await gateway.stop()


@click.command(epilog=examples("pilothouse gateway install", "pilothouse gateway install --print | kubectl apply -f -"))
@_KUBECONFIG
@click.option("--print", "printed", is_flag=True, help="Print the definitions and classes instead, as a list in JSON.")
def install(kubeconfig: str | None, printed: bool) -> None:
    """Put Gateway API's definitions, our own kinds, and the classes `pilothouse` into a cluster."""
    from pilothouse.client import Client, ClientError
    from pilothouse.kinds.status import ApiStatus
    from pilothouse.operator.errors import OperatorError
    from pilothouse.traffic.control.kinds import definitions

    from .install import classes
    from .install import install as put

    if printed:
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": [*definitions(), *classes()]}, indent=1))
        return

    async def work() -> None:
        async with Client.from_kubeconfig(kubeconfig) if kubeconfig else Client.from_environment() as client:
            await put(client)

    try:
        asyncio.run(work())
    except (ClientError, ApiStatus, OperatorError, OSError) as error:
        raise CommandError(str(error), code=ExitCode.UNAVAILABLE) from error
    click.echo("\n".join(f"installed: {each['metadata']['name']}" for each in (*definitions(), *classes())))


@click.command(epilog=examples("pilothouse gateway check routes.yaml certificates/"))
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True))
def check(paths: tuple[str, ...]) -> None:
    """Read files as `run --config` does, say what is wrong with each object, and run nothing."""
    from pilothouse.traffic.routing import BadRoute, Router

    from .files import FileError, problems, read_files
    from .translate import Options, translate

    try:
        made = translate(read_files(paths), Options(may_leave=True))
        Router(made.configuration)
    except (FileError, BadRoute) as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    told = made.configuration
    click.echo(
        f"{len(told.listeners)} listeners, {len(told.routes) + len(told.streams)} routes, {len(told.backends)} backends"
    )
    found = problems(made)
    for each in found:
        click.echo(each, err=True)
    if found:
        raise CommandError(f"{len(found)} objects cannot be used as they are", code=ExitCode.FAILED)
