"""`pilothouse backup`: the platform on this machine in one file."""

from __future__ import annotations

from pathlib import Path

import click

from pilothouse.foundation.terminal import CommandError, ExitCode, emit, examples, output_option

from .home import data_dir_option, default_home

__all__ = ["backup"]


@click.command(
    epilog=examples(
        "pilothouse backup /backups/pilothouse.tar",
        "pilothouse backup /backups/pilothouse.tar --volumes",
        "# what is in it, and whether it is whole: restoring it somewhere says so",
        "pilothouse restore /backups/pilothouse.tar --data-dir ./try",
    )
)
@click.argument("file", type=click.Path(dir_okay=False))
@data_dir_option()
@click.option("--volumes", is_flag=True, help="With the data of this machine's local volumes, as it is at the moment.")
@click.option(
    "--encryption-provider-config",
    "encryption",
    type=click.Path(dir_okay=False),
    default="",
    help="The file of this name that `up` was given, if it was; without it nobody could read the secrets.",
)
@output_option
def backup(file: str, data_dir: Path | None, volumes: bool, encryption: str, output: str) -> None:
    """Save all objects and keys to FILE (mode 0600), whole or not at all. FILE must not exist.

    A running platform is saved while it works, as of one moment. Whoever has FILE has the cluster: keep it safe. Data
    of volumes is left out unless it is asked for, images and logs always.
    """
    import asyncio

    from pilothouse.platform.backup import backup as save
    from pilothouse.platform.backupfile import BackupError

    directory = (data_dir or default_home()).absolute()
    try:
        saved = asyncio.run(save(str(directory), file, volumes=volumes, encryption=encryption))
    except BackupError as error:
        code = ExitCode.DAMAGED if error.is_damaged else ExitCode.FAILED
        raise CommandError(str(error), hint=error.hint, code=code) from error
    except OSError as error:
        raise CommandError(f"{error.filename or file}: {error.strerror or error}") from error
    emit(saved, output, ["file", "bytes", "how", "store", "volumes"])
    if saved.store != "embedded":
        click.echo("objects are in etcd and not in this file: save them with `etcdctl snapshot save`", err=True)
    for path in saved.changed:
        click.echo(f"changed while it was read: {path}", err=True)
