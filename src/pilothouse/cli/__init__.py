"""The command line: one group whose commands are imported only when they run.

`pilothouse --help` therefore stays quick whatever is installed, and a command whose extra is missing says which.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

from pilothouse.foundation.terminal import EXIT_CODES, CommandError, ExitCode, examples

__all__ = ["COMMANDS", "LazyCommand", "LazyGroup", "main"]


class LazyCommand(NamedTuple):
    """A command that is not imported yet: where it is, and one line of help."""

    name: str
    module: str
    attribute: str
    help: str


COMMANDS: tuple[LazyCommand, ...] = (
    LazyCommand("apiserver", "pilothouse.apiserver.cli", "apiserver", "Serve the Kubernetes API in one process."),
    LazyCommand("app", "pilothouse.delivery.cli", "app", "Keep the cluster as git says."),
    LazyCommand("backup", "pilothouse.cli.backup", "backup", "Save the platform on this machine to one file."),
    LazyCommand("controllers", "pilothouse.workloads.cli", "controllers", "Run the controllers against any server."),
    LazyCommand("crd", "pilothouse.operator.cli_crd", "crd", "Make definitions of custom resources."),
    LazyCommand("dashboard", "pilothouse.dashboard.cli", "dashboard", "Serve the dashboard beside a cluster."),
    LazyCommand("demo", "pilothouse.cli.demo", "demo", "See the main job at work in half a minute."),
    LazyCommand("doctor", "pilothouse.cli.doctor", "doctor", "Show what this machine allows and what is missing."),
    LazyCommand("down", "pilothouse.cli.down", "down", "End the platform on this machine, and its pods."),
    LazyCommand("gateway", "pilothouse.traffic.cli", "gateway", "Run the gateway, by a cluster's objects or files."),
    LazyCommand("keys", "pilothouse.apiserver.cli_keys", "keys", "Show and exchange the keys of an API server."),
    LazyCommand("node", "pilothouse.node.cli", "node", "Run pods on this machine, or simulate nodes."),
    LazyCommand("operator", "pilothouse.operator.cli", "operator", "Begin, run and install operators in Python."),
    LazyCommand("restore", "pilothouse.cli.restore", "restore", "Make a platform of a backup, in a new directory."),
    LazyCommand(
        "rollout", "pilothouse.delivery.cli", "rollout", "Bring new versions step by step, and take them back."
    ),
    LazyCommand("scheduler", "pilothouse.scheduling.cli", "scheduler", "Bind pods to nodes, against any server."),
    LazyCommand("slo", "pilothouse.delivery.cli", "slo", "Show how services keep what they promise."),
    LazyCommand("status", "pilothouse.cli.status", "status", "Show how the platform on this machine is."),
    LazyCommand("store", "pilothouse.store.cli", "store", "Serve, read, check and back up the store."),
    LazyCommand("token", "pilothouse.cli.token", "token", "Let machines join the platform on this one."),
    LazyCommand("up", "pilothouse.cli.up", "up", "Start the platform on this machine and stay."),
    LazyCommand("version", "pilothouse.cli.version", "version", "Show the versions of the program and its libraries."),
)

_EXTRA_OF_MODULE = {
    "aiohttp": "server",
    "cel_expr_python": "server",
    "google": "server",
    "jwt": "server",
    "wsproto": "server",
    "google_crc32c": "server",
    "ngh2": "server",
    "numpy": "server",
    "sortedcontainers": "server",
    "uvloop": "server",
}


class LazyGroup(click.Group):
    """A click group that knows its commands from a table and imports one when it is run."""

    def __init__(self, *, table: Sequence[LazyCommand], **settings: object) -> None:
        super().__init__(**settings)  # type: ignore[arg-type]  # click's own keyword arguments, passed through
        self._table = {entry.name: entry for entry in table}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands without importing any."""
        del ctx
        return sorted(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command; raise `CommandError` that names the extra where a library of it is missing."""
        del ctx
        entry = self._table.get(cmd_name)
        return None if entry is None else _load(entry)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands from the table."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._table[name].help) for name in sorted(self._table)])


def _load(entry: LazyCommand) -> click.Command:
    try:
        found = getattr(importlib.import_module(entry.module), entry.attribute)
    except ImportError as error:
        explained = _missing_extra(error)
        if explained is None:
            raise
        raise explained from error
    if not isinstance(found, click.Command):
        raise TypeError(f"{entry.module}:{entry.attribute} is a {type(found).__name__}, not a command")
    return found


def _missing_extra(error: ImportError) -> CommandError | None:
    """Say which extra brings the library that could not be imported, where it is one of an extra's."""
    extra = _EXTRA_OF_MODULE.get((error.name or "").partition(".")[0])
    if extra is None:
        return None
    return CommandError(
        f"this command needs pilothouse[{extra}]: the library '{error.name}' is not installed",
        hint=f"pip install 'pilothouse[{extra}]'",
        code=ExitCode.UNAVAILABLE,
    )


_EXIT_HELP = "\b\nExit codes:\n" + "\n".join(f"  {int(code):<4} {text}" for code, text in EXIT_CODES.items())

_root = LazyGroup(
    table=COMMANDS,
    name="pilothouse",
    help="The cloud-native stack in one Python program.",
    epilog=examples("pilothouse doctor", "pilothouse version -o json", "pilothouse store --help") + "\n\n" + _EXIT_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    no_args_is_help=True,
    params=[
        click.Option(
            ["--debug"],
            is_flag=True,
            envvar="PILOTHOUSE_DEBUG",
            help="Show the traceback of an error.",
        )
    ],
    callback=lambda debug: None,
)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line (`sys.argv` by default) and exit with an `ExitCode`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    sys.exit(_run(given))


def _run(arguments: list[str]) -> int:
    try:
        result = _root.main(args=arguments, prog_name="pilothouse", standalone_mode=False)
    except BrokenPipeError:
        # The reader went away (`| head`): there is no one to tell, and Python's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(ExitCode.FAILED)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return int(ExitCode.INTERRUPTED)
    except Exception as error:  # noqa: BLE001  # the last stop of every error: people get a sentence, not a traceback
        return _report(error, debug=_wants_debug(arguments))
    return result if isinstance(result, int) else int(ExitCode.OK)


def _wants_debug(arguments: list[str]) -> bool:
    options = [word for word in arguments if word.startswith("-")]
    return "--debug" in options or os.environ.get("PILOTHOUSE_DEBUG", "").lower() in {"1", "true", "yes", "on"}


def _report(error: Exception, *, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exception(error)
    if isinstance(error, NoArgsIsHelpError):
        click.echo(error.format_message(), err=True)
        return int(ExitCode.USAGE)
    if isinstance(error, ImportError):
        error = _missing_extra(error) or error
    if isinstance(error, CommandError):
        error.show()
        return error.exit_code
    if isinstance(error, click.ClickException):
        click.echo(f"error: {error.format_message()}", err=True)
        if isinstance(error, click.UsageError) and error.ctx is not None:
            click.echo(f"hint: {error.ctx.command_path} --help", err=True)
        return error.exit_code
    message = str(error) or type(error).__name__
    click.echo(f"error: {message}", err=True)
    if not debug:
        click.echo("hint: `pilothouse --debug ...` shows where it happened", err=True)
    return int(ExitCode.FAILED)
