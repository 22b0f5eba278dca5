"""`pilothouse up`: start the platform on this machine and stay."""

from __future__ import annotations

import os
from pathlib import Path

import click

from pilothouse.foundation.terminal import CommandError, ExitCode, examples
from pilothouse.store.cli_serve import serve

__all__ = ["up"]


def default_home() -> Path:
    """Return where the platform keeps its data: `pilothouse` in the user's data directory (XDG base directories)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pilothouse"


@click.command(epilog=examples("pilothouse up", "pilothouse up --home ./try --listen 127.0.0.1:12379"))
@click.option(
    "--home", type=click.Path(path_type=Path), help="Where everything is kept.  [default: user data directory]"
)
@click.option("--listen", default="127.0.0.1:2379", show_default=True, help="Address of the store for etcd's clients.")
@click.pass_context
def up(context: click.Context, home: Path | None, listen: str) -> None:
    """Start the platform on this machine and stay until SIGTERM or SIGINT.

    Today that is the store, with an hour of history kept.
    """
    directory = (home or default_home()) / "store"
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(
            f"--home {directory.parent}: {error.strerror}", hint="name another directory", code=ExitCode.USAGE
        ) from error
    arguments = ["--data-dir", str(directory), "--listen", listen, "--auto-compaction-retention", "1h"]
    with serve.make_context("up", arguments, parent=context.parent) as prepared:
        serve.invoke(prepared)
