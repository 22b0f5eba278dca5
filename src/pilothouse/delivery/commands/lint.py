"""Commands about rollouts that need no rollout in a cluster: `lint` and `install`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pilothouse.foundation.terminal import CommandError, ExitCode, emit, examples, output_option

from .reaching import Reach, asked, reaching

if TYPE_CHECKING:
    from pilothouse.client import Client
    from pilothouse.kinds.structs import Resource

__all__ = ["install", "lint"]

_SUFFIXES = (".yaml", ".yml", ".json")
_MAX_BYTES = 16 << 20


@click.command(
    epilog=examples(
        "pilothouse rollout lint -f rollout.yaml",
        "# with what it names: services, routes, analysis templates",
        "pilothouse rollout lint -f rollout.yaml -f services.yaml -f analysis/",
    )
)
@click.option(
    "-f", "--filename", "paths", multiple=True, required=True, type=click.Path(exists=True, path_type=Path),
    help="A file or directory of manifests; repeatable.",
)  # fmt: skip
@output_option
def lint(paths: tuple[Path, ...], output: str) -> None:
    """Check rollouts in files, without a server.

    What is wrong is named with its field and the way out.

    What a rollout names is looked for in these files; what is not there may be in the cluster, and is no error.
    """
    from pilothouse.delivery.gitops.errors import ManifestError
    from pilothouse.delivery.gitops.manifests import read_manifests
    from pilothouse.delivery.rollouts.linting import lint as found_in

    manifests = []
    try:
        for path in _files(paths):
            if path.stat().st_size > _MAX_BYTES:
                raise CommandError(f"{path}: it is larger than {_MAX_BYTES >> 20} MiB", code=ExitCode.USAGE)
            manifests += read_manifests(str(path), path.read_bytes())
    except ManifestError as error:
        raise CommandError(str(error)) from error
    count = sum(one.object["kind"] == "Rollout" for one in manifests)
    if not count:
        raise CommandError(f"{', '.join(map(str, paths))}: there is no Rollout in it", code=ExitCode.USAGE)
    found = found_in(manifests)
    errors = sum(one.is_error for one in found)
    if output != "table":
        emit(found, output)
    for one in found if output == "table" else ():
        word = "error" if one.is_error else "note"
        click.echo(f"{one.file} (document {one.document}): {one.object}: {word}: {one.message}")
    if errors:
        raise CommandError(f"{errors} problem{'s' if errors > 1 else ''} in {count} rollout{'s' if count > 1 else ''}")
    if output == "table":
        click.echo(f"{count} rollout{'s' if count > 1 else ''}: nothing is wrong")


def _files(paths: tuple[Path, ...]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        listed = sorted(one for one in path.rglob("*") if one.suffix in _SUFFIXES and one.is_file())
        found |= dict.fromkeys(listed if path.is_dir() else [path])
    return [*found]


@click.command(epilog=examples("pilothouse rollout install", "pilothouse rollout install --print | kubectl apply -f -"))
@click.option("--print", "printed", is_flag=True, help="Print the definitions instead, as a list in JSON.")
@reaching
def install(printed: bool, reach: Reach) -> None:
    """Put the kinds of delivery into a cluster.

    Argo's own definitions, where they are there, are used as they are.
    """
    from pilothouse.delivery.gitops import GITOPS_KINDS
    from pilothouse.delivery.resources.installing import ROLLOUT_KINDS, definitions, install_kinds
    from pilothouse.delivery.resources.servicelevels import ServiceLevel
    from pilothouse.operator.errors import OperatorError

    kinds: list[type[Resource]] = [*ROLLOUT_KINDS, *GITOPS_KINDS, ServiceLevel]
    made = definitions(kinds)
    if printed:
        click.echo(json.dumps({"apiVersion": "v1", "kind": "List", "items": made}, indent=1))
        return

    async def work(client: Client) -> list[str]:
        return await install_kinds(client, kinds)

    try:
        others = asked(reach, work)
    except OperatorError as error:
        raise CommandError(str(error), code=ExitCode.UNAVAILABLE) from error
    for one in made:
        name = one["metadata"]["name"]
        click.echo(f"{'there already' if name in others else 'installed'}: {name}")
