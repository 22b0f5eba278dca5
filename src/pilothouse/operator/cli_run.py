"""`pilothouse operator`: run an operator from a module."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import ModuleType

import click

from pilothouse.client import Client, ClientError, ConfigError
from pilothouse.client.factory import CacheSyncError
from pilothouse.client.leaderelection import LeadershipLostError
from pilothouse.foundation.terminal import CommandError, ExitCode, examples
from pilothouse.operator.cli_crd import load_module
from pilothouse.operator.errors import OperatorError
from pilothouse.operator.manager import LeaderElection, Manager

__all__ = ["operator"]


@click.group(epilog=examples("pilothouse operator run ./website.py", "pilothouse operator run --help"))
def operator() -> None:
    """Run operators written in Python."""


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
@click.option("-n", "--namespace", default="*", show_default=True, help="What caches follow; * is all namespaces.")
@click.option(
    "--leader-elect", metavar="LEASE", default="", help="Work only while this copy has the lease of that name."
)
@click.option("--health", metavar="HOST:PORT", default="", help="Serve /healthz, /readyz and /metrics there.")
def run(
    module: str, kubeconfig: str | None, context: str | None, namespace: str, leader_elect: str, health: str
) -> None:
    """Run the operator that FUNCTION of MODULE describes until SIGINT or SIGTERM.

    MODULE is a module's name or the path of a .py file, FUNCTION is called with the manager and builds controllers on
    it; it is called `build` where none is named. The definitions of its kinds have to be there already.
    """
    name, _, function = module.partition(":")
    build = _build_of(load_module(name), function or "build")
    election = LeaderElection(name=leader_elect) if leader_elect else None

    async def operate() -> None:
        if kubeconfig or context:
            client = Client.from_kubeconfig(kubeconfig, context=context)
        else:
            client = Client.from_environment()
        async with client:
            manager = Manager(client, namespace=namespace, leader_election=election, health_address=health)
            build(manager)
            if not manager.controllers:
                raise CommandError(
                    f"{module}: it built no controllers", hint="say controller(manager).for_(...).build(...)"
                )
            with contextlib.suppress(asyncio.CancelledError):  # a second signal
                await manager.run(signals=True)

    try:
        asyncio.run(operate())
    except (CacheSyncError, LeadershipLostError) as error:
        raise CommandError(str(error), code=ExitCode.UNAVAILABLE) from error
    except ConfigError as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    except (OperatorError, ClientError, ValueError) as error:
        raise CommandError(str(error)) from error


def _build_of(module: ModuleType, name: str) -> Callable[[Manager], object]:
    found = getattr(module, name, None)
    if not callable(found):
        raise CommandError(
            f"{module.__name__}: it has no function {name}",
            hint=f"write `def {name}(manager):`, which builds controllers, or name another one: MODULE:FUNCTION",
            code=ExitCode.USAGE,
        )
    return found  # type: ignore[no-any-return]
