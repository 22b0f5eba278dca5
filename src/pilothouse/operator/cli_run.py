"""`pilothouse operator run`: run an operator from a module."""

from __future__ import annotations

import os
import ssl
import tempfile
from collections.abc import Callable
from types import ModuleType
from urllib.parse import urlsplit

import click

from pilothouse.client import Client
from pilothouse.foundation import tls
from pilothouse.foundation.terminal import CommandError, ExitCode, examples
from pilothouse.operator.cli_crd import load_module
from pilothouse.operator.deployment import HEALTH, LEADER_ELECT, NAMESPACE, WEBHOOKS, name_of
from pilothouse.operator.manager import LeaderElection, Manager
from pilothouse.operator.running import run_manager
from pilothouse.operator.webhook_options import WebhookOptions

__all__ = ["build_controllers", "build_of", "operator", "webhook_options"]


@click.group(
    epilog=examples(
        "pilothouse operator new website-operator",
        "pilothouse operator run website_operator",
        "pilothouse operator manifests website_operator --image registry.example.com/website-operator:0.1.0",
    )
)
def operator() -> None:
    """Begin, run and install operators written in Python."""


@operator.command(
    epilog=examples(
        "pilothouse operator run ./website.py --kubeconfig ~/.kube/config",
        "# several copies of which one works, with health and metrics",
        "pilothouse operator run shop.operator --leader-elect website --health 127.0.0.1:8081",
    )
)
@click.argument("module", metavar="MODULE[:FUNCTION]")
@click.option(
    "--kubeconfig", metavar="FILE", help="Which cluster; by default the pod's own, KUBECONFIG or ~/.kube/config."
)
@click.option("--context", metavar="NAME", help="Of the kubeconfig, instead of its current one.")
@click.option(
    "-n",
    "--namespace",
    default="*",
    show_default=True,
    envvar=NAMESPACE,
    show_envvar=True,
    help="What caches follow; * is all namespaces.",
)
@click.option(
    "--leader-elect",
    metavar="LEASE",
    default="",
    envvar=LEADER_ELECT,
    show_envvar=True,
    help="Work only while this copy has the lease of that name.",
)
@click.option(
    "--health",
    metavar="HOST:PORT",
    default="",
    envvar=HEALTH,
    show_envvar=True,
    help="Serve /healthz, /readyz and /metrics there; over TLS where that is not loopback.",
)
@click.option(
    "--webhooks",
    metavar="NAMESPACE/SERVICE",
    default="",
    envvar=WEBHOOKS,
    show_envvar=True,
    help="Serve webhooks, which servers reach by that Service, or by a URL: https://HOST:PORT.",
)
def run(
    module: str,
    kubeconfig: str | None,
    context: str | None,
    namespace: str,
    leader_elect: str,
    health: str,
    webhooks: str,
) -> None:
    """Run the operator that FUNCTION of MODULE describes until SIGINT or SIGTERM.

    MODULE is a module's name or the path of a .py file, FUNCTION is called with the manager and builds controllers on
    it; it is called `build` where none is named. The definitions of its kinds have to be there already.
    """
    name, _, function = module.partition(":")
    build = build_of(load_module(name), function or "build")
    election = LeaderElection(name=leader_elect) if leader_elect else None

    def make(client: Client) -> Manager:
        manager = Manager(
            client,
            namespace=namespace,
            leader_election=election,
            health_address=health,
            health_tls=_health_tls(health),
            webhooks=webhook_options(webhooks, name_of(name)) if webhooks else None,
        )
        build_controllers(module, build, manager)
        return manager

    run_manager(make, kubeconfig=kubeconfig, context=context)


def build_controllers(module: str, build: Callable[[Manager], object], manager: Manager) -> None:
    """Have a module build controllers or webhooks on a manager. Raises CommandError where there are none then."""
    build(manager)
    webhooks = manager.webhooks
    if not manager.controllers and (webhooks is None or not (webhooks.hooks or webhooks.conversions)):
        raise CommandError(f"{module}: it built no controllers", hint="say controller(manager).for_(...).build(...)")


def webhook_options(place: str, name: str = "") -> WebhookOptions:
    """Return how webhooks are served that servers reach by `NAMESPACE/SERVICE`, or by a URL. Raises BuildError.

    All that is made for them has the name of the Service, or of the operator.
    """
    if "://" in place:
        return WebhookOptions(name=f"{name}-webhooks", url=place, address=f"0.0.0.0:{urlsplit(place).port or 443}")
    return WebhookOptions(name=place.rpartition("/")[2], service=place, secret=place)


def _health_tls(address: str) -> ssl.SSLContext | None:
    """Make a certificate of this run's own for probes over the network; kubelets do not look at who issued it."""
    host = address.rpartition(":")[0].strip("[]")
    if not host or host in {"localhost", "::1"} or host.startswith("127."):
        return None
    credentials = tls.issue(tls.make_ca("pilothouse operator"), host, hosts=[host], server=True)
    with tempfile.TemporaryDirectory() as place:
        certificate, key = os.path.join(place, "tls.crt"), os.path.join(place, "tls.key")
        tls.write(credentials, certificate, key)
        return tls.server_context(certificate, key)


def build_of(module: ModuleType, name: str) -> Callable[[Manager], object]:
    """Return the function of a module that builds controllers. Raises CommandError where there is none."""
    found = getattr(module, name, None)
    if not callable(found):
        raise CommandError(
            f"{module.__name__}: it has no function {name}",
            hint=f"write `def {name}(manager):`, which builds controllers, or name another one: MODULE:FUNCTION",
            code=ExitCode.USAGE,
        )
    return found  # type: ignore[no-any-return]
