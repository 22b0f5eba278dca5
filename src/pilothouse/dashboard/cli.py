"""`pilothouse dashboard`: serve the dashboard beside any cluster."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from pilothouse.foundation.home import data_dir_option, default_home
from pilothouse.foundation.terminal import CommandError, ExitCode, examples, listen_address

if TYPE_CHECKING:
    import ssl

    from pilothouse.client import ClientConfig
    from pilothouse.foundation.lifeline import Lifeline

    from .program import ServeOptions

__all__ = ["dashboard"]


@click.command(
    epilog=examples(
        "pilothouse dashboard",
        "# beside a cluster elsewhere; only its address and authority are taken of the file",
        "pilothouse dashboard --kubeconfig ~/.kube/config --listen 0.0.0.0:8888",
        "# what to log in with, for a day",
        "kubectl create token my-account --duration 24h",
    )
)
@data_dir_option()
@click.option("--kubeconfig", type=click.Path(), help="Of a cluster, instead of the platform's on this machine.")
@click.option("--context", default=None, help="Of the kubeconfig, instead of its current one.")
@click.option("--listen", default="127.0.0.1:8888", show_default=True, metavar="HOST:PORT", help="Where it is served.")
@click.option("--certificate", type=click.Path(path_type=Path), help="PEM; by default one is made.")
@click.option("--key", type=click.Path(path_type=Path), help="The certificate's private key, PEM.")
@click.option(
    "--admin-socket",
    type=click.Path(path_type=Path),
    help="Of the gateway whose live numbers are shown; by default that of the platform on this machine.",
)
@click.option(
    "--compare/--no-compare",
    default=None,
    help="Whether git is run here to show differences of applications field by field; by default beside the platform.",
)
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
def dashboard(  # noqa: PLR0913  # as many as there are options
    data_dir: Path | None,
    kubeconfig: str | None,
    context: str | None,
    listen: str,
    certificate: Path | None,
    key: Path | None,
    admin_socket: Path | None,
    compare: bool | None,
    log_level: Literal["debug", "info", "warning", "error"],
) -> None:
    """Serve the dashboard over TLS until SIGTERM or SIGINT.

    It has no rights of its own: people log in with a token (kubectl create token ...) or by pasting a kubeconfig, and
    see and do what that user may.
    """
    from pilothouse.client import ConfigError
    from pilothouse.foundation import logs
    from pilothouse.foundation.lifeline import Lifeline
    from pilothouse.foundation.tls import TlsError

    from .gatewaynumbers import GatewayNumbers
    from .program import ServeOptions

    logs.configure(log_level, "console")
    if (certificate is None) != (key is None):
        raise click.UsageError("--certificate and --key: want both or neither")
    pair = (certificate, key) if certificate is not None and key is not None else None
    home = (data_dir or default_home()).absolute()
    host, port = listen_address("--listen", listen)
    is_own = kubeconfig is None or Path(kubeconfig).absolute().parent == home
    socket = admin_socket or (home / "run" / "gateway.sock" if is_own else None)
    lifeline = Lifeline.from_environment()
    try:
        options = ServeOptions(
            config=asyncio.run(_config(home, kubeconfig, context, is_supervised=lifeline is not None)),
            host=host,
            port=port,
            tls=_tls(home, host, pair, is_own=is_own),
            numbers=GatewayNumbers(socket) if socket is not None else None,
            compares=is_own if compare is None else compare,
            said=lambda url: None if lifeline is not None else click.echo(f"dashboard: {url}"),
        )
        _run(options, lifeline)
    except (ConfigError, TlsError) as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    except OSError as error:
        raise CommandError(f"--listen {listen}: {error.strerror or error}", code=ExitCode.CONFLICT) from error


async def _config(home: Path, kubeconfig: str | None, context: str | None, *, is_supervised: bool) -> ClientConfig:
    """Return where the API server is; a supervised process waits for the file, which the server writes first."""
    from pilothouse.client.kubeconfig import load_kubeconfig
    from pilothouse.operator.running import until_there

    path = kubeconfig or str(home / "admin.kubeconfig")
    if is_supervised:
        await until_there(path)
    return load_kubeconfig(path, context=context)


def _tls(home: Path, host: str, pair: tuple[Path, Path] | None, *, is_own: bool) -> ssl.SSLContext:
    from pilothouse.foundation.tls import server_context

    from .program import certificate_in

    if pair is not None:
        return server_context(str(pair[0]), str(pair[1]))
    return certificate_in(home / "dashboard", host, home / "pki" if is_own else None)


def _run(options: ServeOptions, lifeline: Lifeline | None) -> None:
    from .program import serve

    try:
        import uvloop
    except ImportError:
        asyncio.run(serve(options, lifeline))
    else:
        uvloop.run(serve(options, lifeline))
