"""`pilothouse restore`: a platform from a backup, in a new directory."""

from __future__ import annotations

from pathlib import Path

import click

from pilothouse.foundation.terminal import CommandError, ExitCode, emit, examples, output_option

__all__ = ["restore"]


@click.command(
    epilog=examples(
        "pilothouse restore /backups/pilothouse.tar --data-dir /srv/pilothouse",
        "pilothouse up --data-dir /srv/pilothouse",
    )
)
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "--data-dir", required=True, type=click.Path(path_type=Path), help="The new directory; it must not hold anything."
)
@output_option
def restore(file: str, data_dir: Path, output: str) -> None:
    """Make a new data directory from FILE, which `pilothouse backup` wrote.

    All of FILE is verified before anything is made, and the directory appears whole or not at all. Start it with
    `pilothouse up --data-dir DIR` and the options of before; clients with its former kubeconfig find it again where it
    listens at the same address.
    """
    from pilothouse.platform.backupfile import BackupError
    from pilothouse.platform.restore import restore as make

    try:
        made = make(file, str(data_dir))
    except BackupError as error:
        code = ExitCode.DAMAGED if error.is_damaged else ExitCode.CONFLICT
        raise CommandError(str(error), hint=error.hint, code=code) from error
    except OSError as error:
        raise CommandError(f"{error.filename or file}: {error.strerror or error}") from error
    emit(made, output, ["data_dir", "made", "program", "store", "revision", "keys", "volumes"])
    if made.store != "embedded":
        click.echo("objects were in etcd and are not in the backup: restore them there", err=True)
    if made.moved is not None:
        now, before = made.moved
        click.echo(f"volumes are in {now}, and pods look for them in {before}: make that a link to it", err=True)
