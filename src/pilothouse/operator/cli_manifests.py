"""`pilothouse operator manifests`: what installs an operator, derived from its module without asking any server."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

import click

from pilothouse.client import Client, ClientError
from pilothouse.foundation.files import OsFileSystem, write_whole
from pilothouse.foundation.terminal import CommandError, ExitCode, examples

from .cli_crd import load_module, manifest_text
from .cli_run import build_controllers, build_of, webhook_options
from .deployment import Installation, manifests_of, name_of
from .errors import OperatorError
from .manager import Manager

__all__ = ["manifests"]

_FILE_MODE: Final = 0o644
_FILES: Final[Mapping[str, str]] = {
    "Namespace": "00-namespace",
    "CustomResourceDefinition": "10-definitions",
    "ServiceAccount": "20-rights",
    "ClusterRole": "20-rights",
    "ClusterRoleBinding": "20-rights",
    "Role": "20-rights",
    "RoleBinding": "20-rights",
    "Deployment": "30-deployment",
}
"""Where each kind is written; `kubectl apply -f DIRECTORY` takes files in the order of their names."""
_OTHERS: Final = "40-webhooks"


def _words(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: {error}; quote it as in a shell") from error


@click.command(
    epilog=examples(
        "pilothouse operator manifests shop.operator --image registry.example.com/shop:1.4",
        "# straight to a cluster",
        "pilothouse operator manifests ./website.py --image IMAGE | kubectl apply --server-side -f -",
        "# rights in one namespace only, three copies of which one works, files for kustomize or Argo CD",
        "pilothouse operator manifests shop.operator -n shop --watch-namespace shop --replicas 3 --output-dir shop/",
    )
)
@click.argument("module", metavar="MODULE[:FUNCTION]")
@click.option("--image", metavar="IMAGE", help="What the Deployment runs.  [default: NAME:latest]")
@click.option("--name", metavar="NAME", help="Of all objects, the lease included.  [default: the module's]")
@click.option("-n", "--namespace", metavar="NAMESPACE", default="", help="Where it runs.  [default: NAME]")
@click.option(
    "--watch-namespace",
    metavar="NAMESPACE",
    default="*",
    show_default=True,
    help="What it looks at; rights are granted in this one alone.",
)
@click.option("--replicas", type=click.IntRange(0), default=1, show_default=True, help="Copies, of which one works.")
@click.option(
    "--command",
    metavar="COMMAND",
    default="",
    callback=_words,
    help="What the container runs, instead of the image's own.",
)
@click.option("--leader-elect/--no-leader-elect", default=True, show_default=True, help="Work only while leading.")
@click.option("--crds/--no-crds", "definitions", default=True, show_default=True, help="Print its definitions.")
@click.option(
    "-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="How to write them."
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write files there, in the order of their names; it is made where it is missing.",
)
def manifests(  # noqa: PLR0913  # the words of an installation
    module: str,
    image: str | None,
    name: str | None,
    namespace: str,
    watch_namespace: str,
    replicas: int,
    command: Sequence[str],
    leader_elect: bool,
    definitions: bool,
    output: str,
    output_dir: Path | None,
) -> None:
    """Print what installs the operator that FUNCTION of MODULE describes, as `pilothouse operator run` runs it.

    These are a namespace, the definitions of its kinds, a service account, roles and bindings, a Deployment, and for
    webhooks a Service and their configurations.
    FUNCTION, `build` by default, is called with a manager that reaches no server. The rights follow from the
    controllers it builds; what a reconciler does besides is said by @needs above it.
    """
    place, _, function = module.partition(":")
    build = build_of(load_module(place), function or "build")
    called = name or name_of(place)
    try:
        wanted = Installation(
            name=called,
            image=image or f"{called}:latest",
            namespace=namespace,
            replicas=replicas,
            command=command,
            leader_election=leader_elect,
            definitions=definitions,
        )
        made = asyncio.run(_describe(module, build, wanted, watch_namespace))
    except (OperatorError, ClientError, ValueError) as error:
        raise CommandError(str(error), code=ExitCode.USAGE) from error
    if output_dir is None:
        click.echo(manifest_text(made, output), nl=False)
        return
    _write(output_dir, made, output)


async def _describe(
    module: str, build: Callable[[Manager], object], wanted: Installation, followed: str
) -> list[dict[str, Any]]:
    async with Client.for_transport(_NoServer(), namespace=wanted.home) as client:
        manager = Manager(client, namespace=followed, webhooks=webhook_options(f"{wanted.home}/{wanted.name}-webhooks"))
        build_controllers(module, build, manager)
        return manifests_of(manager, wanted, build)


class _NoServer:
    """A transport to nowhere: whoever uses it wants something of a server that is not asked here."""

    async def request(self, method: str, target: str, *_: object, **__: object) -> NoReturn:
        raise ClientError(f"{method} {target}: manifests are made without a server; ask it from a reconciler instead")

    async def aclose(self) -> None:
        """End nothing."""


def _write(directory: Path, made: Sequence[dict[str, Any]], output: str) -> None:
    files: dict[str, list[dict[str, Any]]] = {}
    for each in made:
        files.setdefault(_FILES.get(each["kind"], _OTHERS), []).append(each)
    directory.mkdir(parents=True, exist_ok=True)
    for name, objects in sorted(files.items()):
        path = directory / f"{name}.{output}"
        write_whole(OsFileSystem(), str(path), manifest_text(objects, output).encode(), _FILE_MODE)
        click.echo(str(path))
