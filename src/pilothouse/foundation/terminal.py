"""What every command shares: exit codes, errors with a hint, `-o table|json|yaml` and examples in `--help`.

Rooms define their commands with this module alone, so a command looks and fails the same way in each of them.
Heavy libraries (rich, PyYAML) are imported only by the output that wants them.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click
import msgspec

__all__ = [
    "EXIT_CODES",
    "CommandError",
    "ExitCode",
    "emit",
    "examples",
    "listen_address",
    "output_option",
    "outputs_option",
    "printable",
    "table_lines",
]

_Command = TypeVar("_Command", bound=Callable[..., Any])
_MAX_CELL = 2_000


class ExitCode(enum.IntEnum):
    """What a command's exit status means."""

    OK = 0
    FAILED = 1
    USAGE = 2
    UNAVAILABLE = 3
    NOT_FOUND = 4
    CONFLICT = 5
    DAMAGED = 6
    INTERRUPTED = 130


EXIT_CODES: Mapping[ExitCode, str] = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "failed; the message says why",
    ExitCode.USAGE: "wrong usage: unknown command, option or value",
    ExitCode.UNAVAILABLE: "the server cannot be reached or does not serve now; trying again may help",
    ExitCode.NOT_FOUND: "what was asked for does not exist",
    ExitCode.CONFLICT: "it was changed by someone else, or is in use",
    ExitCode.DAMAGED: "data on disk is damaged; nothing was changed",
    ExitCode.INTERRUPTED: "interrupted",
}


class CommandError(click.ClickException):
    """End a command with `error: message`, an optional `hint: ...` and an exit code."""

    def __init__(self, message: str, *, hint: str = "", code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.exit_code = int(code)  # type: ignore[misc]  # click reads it from the instance

    def show(self, file: Any = None) -> None:
        """Print the error and its hint to stderr, or to `file`."""
        click.echo(f"error: {self.message}", err=True, file=file)
        if self.hint:
            click.echo(f"hint: {self.hint}", err=True, file=file)


def examples(*lines: str) -> str:
    """Return an examples section for `epilog=`; each line is a command, or a comment that starts with `#`."""
    shown = (f"  {line}" if line.startswith("#") else f"  $ {line}" for line in lines)
    return "\b\nExamples:\n" + "\n".join(shown)


def output_option(command: _Command) -> _Command:
    """Add `-o/--output table|json|yaml`; the command receives it as `output` and hands it to `emit`."""
    return outputs_option("table", "json", "yaml")(command)


def outputs_option(*choices: str) -> Callable[[_Command], _Command]:
    """Return the option `-o/--output` of a command with other outputs, such as wide; the first is the default."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(choices),
        default=choices[0],
        show_default=True,
        help="How to print the result.",
    )


def emit(data: Any, output: str = "table", columns: Sequence[str] | None = None) -> None:
    """Print a result to stdout as `output` says.

    `data` is one object (mapping, msgspec struct, dataclass) or a sequence of them. `columns` names the fields that
    a table shows, in order (default: all); JSON and YAML always hold every field. Bytes become base64 in all three,
    so decode what people should read before. A table is drawn by rich on a terminal and is plain aligned text
    elsewhere. Control characters are shown escaped in a table, because data must not steer the terminal.
    """
    plain = msgspec.to_builtins(data, str_keys=True, enc_hook=_exact)
    if output == "json":
        click.echo(msgspec.json.format(msgspec.json.encode(plain), indent=2))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(plain, sort_keys=False, allow_unicode=True), nl=False)
    else:
        _emit_table(plain, columns)


def _exact(value: Any) -> Any:
    """Return a text or number of a class derived from these, such as a default of a typed object, as a plain one."""
    plain: tuple[type[Any], ...] = (str, int, float, bytes)
    for kind in plain:
        if isinstance(value, kind):
            return kind(value)
    raise NotImplementedError(f"{type(value).__name__} is no data")


def printable(value: Any) -> str:
    """Return `value` as one bounded line without control characters."""
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif value is None:
        text = ""
    elif isinstance(value, str):
        text = value
    elif isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        text = ", ".join(str(item) for item in value)
    elif isinstance(value, list | dict):
        text = msgspec.json.encode(value).decode()
    else:
        text = str(value)
    if len(text) > _MAX_CELL:
        text = f"{text[:_MAX_CELL]}… ({len(text)} characters)"
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _emit_table(plain: Any, columns: Sequence[str] | None) -> None:
    if isinstance(plain, dict):
        fields = columns or list(plain)
        rows = [[name, printable(plain.get(name))] for name in fields]
        _draw([], rows)
        return
    if not isinstance(plain, list):
        click.echo(printable(plain))
        return
    objects: list[dict[str, Any]] = [item if isinstance(item, dict) else {"value": item} for item in plain]
    names = list(columns) if columns else list(dict.fromkeys(name for item in objects for name in item))
    _draw(names, [[printable(item.get(name)) for name in names] for item in objects])


def _draw(header: list[str], rows: list[list[str]]) -> None:
    titles = [name.replace("_", " ").upper() for name in header]
    if sys.stdout.isatty():
        _draw_rich(titles, rows)
        return
    for line in _aligned([titles, *rows] if titles else rows):
        click.echo(line)


def _aligned(lines: list[list[str]]) -> list[str]:
    if not lines:
        return []
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def table_lines(rows: Sequence[Mapping[str, object]], columns: Sequence[str]) -> list[str]:
    """Return a table of some fields as aligned lines, for what is shown in place; see `emit` for what cells say."""
    titles = [name.replace("_", " ").upper() for name in columns]
    return _aligned([titles, *([printable(row.get(name)) for name in columns] for row in rows)])


def _draw_rich(titles: list[str], rows: list[list[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_header=bool(titles), pad_edge=False)
    for title in titles or ["", ""]:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def listen_address(option: str, value: str) -> tuple[str, int]:
    """Read HOST:PORT of an option. Raises click.BadParameter, which names it."""
    try:
        parts = urlsplit(f"//{value}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port is None:
        raise click.BadParameter(f"{value!r}: want HOST:PORT, e.g. 127.0.0.1:2379 or [::1]:2379", param_hint=option)
    return host, port
