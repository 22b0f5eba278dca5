"""What the commands about the platform of a user share: its directory, durations, and who has it."""

from __future__ import annotations

import click

from pilothouse.foundation.home import data_dir_option, default_home
from pilothouse.foundation.terminal import CommandError, ExitCode

__all__ = ["age", "data_dir_option", "default_home", "in_use", "seconds"]


def seconds(text: str) -> float:
    """Read an option's duration: a number of seconds, or as Kubernetes writes it: 30s, 1m30s."""
    from pilothouse.kinds.durations import DurationError, parse

    try:
        found = float(text) if text.replace(".", "", 1).isdigit() else parse(text) / 1e9
    except DurationError:
        found = -1.0
    if found < 0:
        raise click.BadParameter(f"{text!r}: want a duration, such as 30s or 1m30s")
    return found


def age(passed: float) -> str:
    """Return how long ago something was, as kubectl shows it."""
    for unit, name, smaller, lesser in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if passed >= 2 * unit:
            whole, rest = divmod(int(passed), unit)
            return f"{whole}{name}{rest // smaller}{lesser}" if rest // smaller else f"{whole}{name}"
    return f"{int(passed)}s"


def in_use(directory: str, pid: int) -> CommandError:
    """Return the error of a directory that a platform has."""
    option = f"--data-dir {directory}"
    who = f"process {pid}" if pid else "another process"
    return CommandError(
        f"{directory}: a platform runs here already ({who})",
        hint=f"`pilothouse status {option}` shows it, `pilothouse down {option}` ends it; or name another one",
        code=ExitCode.CONFLICT,
    )
