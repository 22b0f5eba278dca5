"""`pilothouse down`: end the platform on this machine, its pods, and what they left of themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from pilothouse.foundation.terminal import CommandError, ExitCode, emit, examples, output_option

from .home import data_dir_option, default_home, seconds

if TYPE_CHECKING:
    from pilothouse.platform.ending import Ended

__all__ = ["down"]


@click.command(
    epilog=examples(
        "pilothouse down",
        "# only the platform: pods run on, and the next start takes them over",
        "pilothouse down --keep-pods",
        "pilothouse down --data-dir ./try --timeout 5s",
    )
)
@data_dir_option()
@click.option("--keep-pods", is_flag=True, help="End the platform alone, as Ctrl-C does.")
@click.option(
    "--timeout", type=seconds, default="30s", show_default=True, help="What each pod has at most to end by itself."
)
@output_option
def down(data_dir: Path | None, keep_pods: bool, timeout: float, output: str) -> None:
    """End the platform on this machine, then its pods, and remove what they made of the machine.

    Data stays: the next `pilothouse up` has all objects, images and volumes again. Also ends pods whose platform is
    gone already. Nothing to end is no error.
    """
    directory = (data_dir or default_home()).absolute()
    ended = _down(str(directory), keep_pods, timeout)
    if output == "table":
        _show(ended, directory)
    else:
        emit(ended, output)
    if ended.problems:
        raise SystemExit(int(ExitCode.FAILED))


def _down(directory: str, keep_pods: bool, timeout: float) -> Ended:
    import asyncio

    from pilothouse.platform.ending import EndError, end_pods, end_supervisor
    from pilothouse.platform.state import InUse

    try:
        ended = end_supervisor(directory, timeout)
        if keep_pods:
            return ended
        cleared = asyncio.run(end_pods(directory, timeout))
    except EndError as error:
        raise CommandError(str(error), hint=error.hint, code=ExitCode.CONFLICT) from error
    except InUse as error:
        raise CommandError(f"{error}: it was started at this moment", code=ExitCode.CONFLICT) from error
    except OSError as error:
        raise CommandError(f"{error.filename or directory}: {error.strerror}") from error
    return msgspec.structs.replace(ended, pods=cleared.pods, removed=cleared.removed, problems=cleared.problems)


def _show(ended: Ended, directory: Path) -> None:
    took = f" after {ended.seconds:.1f} s" if ended.pid else ""
    click.echo(f"platform: {ended.how}{took}")
    click.echo("pods: left to run" if ended.pods is None else f"pods: {ended.pods} ended")
    for text in ended.removed:
        click.echo(f"removed: {text}")
    for text in ended.problems:
        click.echo(f"problem: {text}")
    if ended.pid:
        click.echo(f"data stays in {directory}")
