"""`pilothouse up`: start the platform on this machine and stay."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from pilothouse.apiserver.cli import server_options
from pilothouse.foundation.terminal import CommandError, ExitCode, examples
from pilothouse.platform import PARTS, Part, become_supervisor

__all__ = ["default_home", "up"]

_SIGNALS = 128
"""Codes from here on are of signals; those below are a program's own."""


def default_home() -> Path:
    """Return where the platform keeps its data: `pilothouse` in the user's data directory (XDG base directories)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pilothouse"


@click.command(
    epilog=examples(
        "pilothouse up",
        "pilothouse up --data-dir ./try --listen 127.0.0.1:16443",
        "kubectl --kubeconfig ./try/admin.kubeconfig apply -f app.yaml",
        "# only the API server, with garbage collection and what else belongs to it",
        "pilothouse up --without controllers,scheduler",
    )
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Where everything is kept; made if missing.  [default: user data directory]",
)
@click.option("--without", default="", help=f"Parts to leave out, separated by commas: {', '.join(PARTS)}.")
@server_options
@click.pass_context
def up(ctx: click.Context, /, data_dir: Path | None, without: str, **_: Any) -> None:
    """Start the platform on this machine and stay until SIGTERM or SIGINT.

    Today that is the API server with garbage collection, namespace deletion, default service accounts and the signing
    of approved certificates, and beside it the controllers and the scheduler. What ends unexpectedly is started again.
    It prints one line when it is ready, and writes DIR/admin.kubeconfig.
    """
    directory = data_dir or default_home()
    if data_dir is None:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    left_out = _left_out(without)
    server = _command("apiserver", "--data-dir", str(directory), "--lifecycle", *_given(ctx))
    parts = [Part("apiserver", server, range(1, _SIGNALS))]
    if working := [part for part in PARTS if part not in left_out]:
        command = [
            sys.executable,
            "-m",
            "pilothouse.platform.work",
            "--kubeconfig",
            str(directory / "admin.kubeconfig"),
        ]
        command += ["--log-level", ctx.params["log_level"], *(f"--part={part}" for part in working)]
        parts.append(Part("controllers", tuple(command), {ExitCode.USAGE}))
    become_supervisor(parts)


def _left_out(text: str) -> set[str]:
    names = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := sorted(names - set(PARTS)):
        raise CommandError(
            f"--without {','.join(unknown)}: there is no such part",
            hint=f"the parts are {', '.join(PARTS)}",
            code=ExitCode.USAGE,
        )
    return names


def _command(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "pilothouse", *arguments)


def _given(ctx: click.Context) -> Sequence[str]:
    """Return the server's options as they were given to this command."""
    ours = {"data_dir", "without"}
    found: list[str] = []
    for option in ctx.command.params:
        name = option.name or ""
        if name in ours or ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        values = ctx.params[name]
        for value in values if option.multiple else [values]:
            found += [option.opts[0], str(value)]
    return found
