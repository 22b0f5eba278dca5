"""`pilothouse up`: start the platform on this machine and stay."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from pilothouse.apiserver.cli import run, server_options
from pilothouse.foundation.terminal import examples

__all__ = ["default_home", "up"]


def default_home() -> Path:
    """Return where the platform keeps its data: `pilothouse` in the user's data directory (XDG base directories)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pilothouse"


@click.command(
    epilog=examples(
        "pilothouse up",
        "pilothouse up --data-dir ./try --listen 127.0.0.1:16443",
        "kubectl --kubeconfig ./try/admin.kubeconfig apply -f app.yaml",
    )
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where everything is kept; made if missing.  [default: user data directory]",
)
@server_options
def up(data_dir: Path | None, **settings: Any) -> None:
    """Start the platform on this machine and stay until SIGTERM or SIGINT.

    Today that is the API server with garbage collection, namespace deletion, default service accounts and the signing
    of approved certificates. It prints one line when it is ready, and writes DIR/admin.kubeconfig.
    """
    directory = data_dir or default_home()
    if data_dir is None:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    run(str(directory), lifecycle=True, **settings)
