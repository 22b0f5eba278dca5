"""The platform's gateway and delivery: `python -m pilothouse.platform.gateway`, started when one of them is wanted.

The gateway follows Gateways, routes and Ingresses as a user of its own, and has workers below it that end with it. As
root it listens at all addresses of the machine, where networks are given each Gateway has an address of its own. Who
delivers is another user beside it, and reads what the gateway has counted out of the same memory.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from pilothouse.client import Client
from pilothouse.foundation import logs
from pilothouse.foundation.lifeline import VARIABLE
from pilothouse.foundation.rights import NET_BIND_SERVICE, effective
from pilothouse.foundation.terminal import CommandError, ExitCode, listen_address
from pilothouse.operator import Manager
from pilothouse.operator.loop import LoopOptions
from pilothouse.operator.running import Beside, run_manager, until_there
from pilothouse.traffic.control.addresses import Addresses
from pilothouse.traffic.control.controller import add_gateway
from pilothouse.traffic.control.ingresses import PORTS
from pilothouse.traffic.gateway import Gateway, GatewayOptions
from pilothouse.traffic.sessionkeys import kept_session_key

if TYPE_CHECKING:
    from .delivery import Hooks

__all__ = ["ingress_ports", "main", "worker_count"]

_PORTS_WITHOUT_RIGHTS: Final = (8080, 8443)
_FIRST_FREE: Final = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
_MOST_WORKERS: Final = 4
"""By default; each takes some 35 MB, and one forwards more than most machines' pods answer."""
_DRAIN_SECONDS: Final = 2.0
"""The platform as a whole ends within 5 s."""


def ingress_ports() -> tuple[int, int]:
    """Return the ports of ingresses: 80 and 443 where this process may listen there, else 8080 and 8443."""
    if effective() >> NET_BIND_SERVICE & 1:
        return PORTS
    try:
        with open(_FIRST_FREE, encoding="ascii") as file:
            first = int(file.read())
    except (OSError, ValueError):
        return _PORTS_WITHOUT_RIGHTS
    return PORTS if first <= min(PORTS) else _PORTS_WITHOUT_RIGHTS


def worker_count(wanted: int) -> int:
    """Return how many workers there are; 0 asks for one a core, of a few."""
    return wanted or min(_MOST_WORKERS, len(os.sched_getaffinity(0)))


@click.command()
@click.option("--kubeconfig", default="", help="The gateway's user; without one there is no gateway.")
@click.option("--address", "networks", multiple=True, metavar="CIDR", help="Of Gateways, one each; all by default.")
@click.option("--publish", multiple=True, metavar="IP", help="What statuses say where Gateways share all addresses.")
@click.option("--workers", type=click.IntRange(0), default=0)
@click.option("--metrics", "metrics_address", default="", metavar="HOST:PORT", help="Where figures are served.")
@click.option("--admin-socket", type=click.Path(path_type=Path), help="Where its owner asks what it does.")
@click.option("--session-key", type=click.Path(path_type=Path), help="Where the key is that seals clients' sessions.")
@click.option("--delivery-kubeconfig", default="", help="The user of delivery; without one there is none.")
@click.option("--delivery-dir", type=click.Path(path_type=Path), help="Where delivery keeps its mirrors.")
@click.option("--webhook", default="", metavar="HOST:PORT", help="Where delivery takes webhooks of git.")
@click.option("--webhook-certificate", type=click.Path(path_type=Path), help="PEM; by default one is made.")
@click.option("--webhook-key", type=click.Path(path_type=Path), help="The certificate's private key, PEM.")
@click.option("--webhook-dir", type=click.Path(path_type=Path), help="Where a certificate that is made is kept.")
@click.option("--pki", type=click.Path(path_type=Path), help="Of the cluster, whose authority signs it.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info")
def main(  # noqa: PLR0913  options of a command
    kubeconfig: str,
    networks: tuple[str, ...],
    publish: tuple[str, ...],
    workers: int,
    metrics_address: str,
    admin_socket: Path | None,
    delivery_kubeconfig: str,
    delivery_dir: Path | None,
    session_key: Path | None,
    webhook: str,
    webhook_certificate: Path | None,
    webhook_key: Path | None,
    webhook_dir: Path | None,
    pki: Path | None,
    log_level: Literal["debug", "info", "warning", "error"],
) -> None:
    """Run the gateway, delivery, or both until told to stop."""
    from pilothouse.foundation.metrics import PROGRAM  # noqa: PLC0415  # loads the library

    logs.configure(log_level, "console")
    options = GatewayOptions(
        workers=worker_count(workers),
        drain_seconds=_DRAIN_SECONDS,
        session_key=kept_session_key(session_key) if session_key is not None else b"",
        registry=PROGRAM.registry,
        admin_socket=admin_socket,
        needs_admin_socket=False,
    )

    gateway = Gateway(options)
    given = (webhook_certificate, webhook_key) if webhook_certificate is not None and webhook_key is not None else None
    hooks = _hooks(webhook, given, webhook_dir, pki, delivery_kubeconfig) if webhook else None

    def make(client: Client) -> Manager:
        manager = Manager(client, loop=LoopOptions(rounds=0), health_address=metrics_address)
        add_gateway(manager, gateway, Addresses(networks, publish), ingress_ports=ingress_ports())
        return manager

    def deliver(client: Client) -> Manager:
        from .delivery import make_delivery  # noqa: PLC0415  # only what is wanted

        seen = (gateway.windows, gateway.samples) if kubeconfig else (None, None)
        return make_delivery(client, delivery_dir or Path("delivery"), *seen, hooks=hooks)

    wanted = [Beside(each, path) for each, path in ((make, kubeconfig), (deliver, delivery_kubeconfig)) if path]
    told = {"webhook": _webhook_url(webhook, hooks)} if hooks is not None else {}
    run_manager(wanted[0].make, kubeconfig=wanted[0].kubeconfig, beside=wanted[1:], told=told)


def _hooks(
    address: str, given: tuple[Path, Path] | None, directory: Path | None, pki: Path | None, there: str
) -> Hooks:
    """Listen where webhooks are taken; a certificate is made once the server, which makes its authority, is there."""
    from pilothouse.delivery.gitops.hookserver import listening  # noqa: PLC0415  # only what is wanted
    from pilothouse.foundation.certificates import kept_certificate  # noqa: PLC0415
    from pilothouse.foundation.tls import ReloadingContext, TlsError  # noqa: PLC0415

    from .delivery import Hooks  # noqa: PLC0415

    host, port = listen_address("--webhook", address)
    try:
        bound = listening(host, port)
    except OSError as error:
        raise CommandError(f"--webhook {address}: {error.strerror or error}", code=ExitCode.CONFLICT) from error
    try:
        if given is not None:
            return Hooks(bound, ReloadingContext(*map(str, given)))
        if VARIABLE in os.environ:
            asyncio.run(until_there(there))
        renew = partial(kept_certificate, directory or Path("webhook"), "webhook", host, pki)
        return Hooks(bound, ReloadingContext(*renew()), renew)
    except TlsError as error:
        raise CommandError(f"--webhook: {error}", code=ExitCode.USAGE) from error


def _webhook_url(address: str, hooks: Hooks) -> str:
    from pilothouse.delivery.gitops.webhooks import PATH  # noqa: PLC0415  # only what is wanted

    host, _ = listen_address("--webhook", address)
    shown = f"[{host}]" if ":" in host else host
    return f"https://{shown}:{hooks.bound.getsockname()[1]}{PATH}"


if __name__ == "__main__":
    main()
