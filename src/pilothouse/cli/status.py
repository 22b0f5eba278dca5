"""`pilothouse status`: how the platform on this machine is, at a glance, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from pilothouse.foundation.terminal import CommandError, ExitCode, emit, examples, output_option
from pilothouse.platform.survey import Survey

from .home import age, data_dir_option, default_home, seconds

__all__ = ["status"]

_PAUSE_SECONDS = 0.2


@click.command(
    epilog=examples(
        "pilothouse status",
        "pilothouse status --data-dir ./try -o json",
        "# in a script, after `pilothouse up &`",
        "pilothouse status --wait 60s",
    )
)
@data_dir_option()
@click.option("--wait", type=seconds, default="0s", help="Wait until all is well, so long at most, such as 60s.")
@output_option
def status(data_dir: Path | None, wait: float, output: str) -> None:
    """Show how the platform on this machine is: its parts, nodes, pods, and what is wrong.

    Exits with 0 only where all is well, with 1 where something is wrong, with 3 where no platform runs.
    """
    directory = (data_dir or default_home()).absolute()
    try:
        found = _look(str(directory), wait)
    except OSError as error:
        raise CommandError(f"{error.filename or directory}: {error.strerror}") from error
    if output == "table":
        _show(found)
    else:
        emit(found, output)
    if not found.is_running:
        raise SystemExit(int(ExitCode.UNAVAILABLE))
    if found.problems:
        raise SystemExit(int(ExitCode.FAILED))


def _look(directory: str, wait: float) -> Survey:
    import asyncio
    import time

    from pilothouse.platform.survey import survey

    end = time.monotonic() + wait
    while (found := asyncio.run(survey(directory))).problems and time.monotonic() < end:
        time.sleep(min(_PAUSE_SECONDS, max(0.0, end - time.monotonic())))
    return found


def _show(found: Survey) -> None:
    platform = found.platform
    if not found.is_running:
        click.echo(f"not running: {platform.data_dir}")
        for problem in found.problems:
            click.echo(f"  {problem}")
        click.echo(f"start it: pilothouse up --data-dir {platform.data_dir}")
        return
    emit(_whole(found))
    if found.parts:
        click.echo()
        emit([_part(found, number) for number in range(len(found.parts))])
    if found.nodes:
        click.echo()
        emit(found.nodes)
    if found.pods:
        click.echo(f"\npods: {', '.join(f'{count} {phase}' for phase, count in found.pods.items())}")
    click.echo("\nall is well" if not found.problems else "\nproblems:")
    for problem in found.problems:
        click.echo(f"  {problem}")


def _whole(found: Survey) -> dict[str, str]:
    platform, api = found.platform, found.api
    service = f", {platform.service}" if platform.service else ""
    rows = {
        "platform": f"{platform.state}, {age(platform.uptime_seconds)}, version {platform.program}{service}",
        "API": ", ".join(filter(None, (api.url, api.state, api.version))),
        "data": platform.data_dir,
        "kubeconfig": platform.kubeconfig,
        "dashboard": platform.dashboard,
        "webhook": platform.webhook,
    }
    return {name: value for name, value in rows.items() if value}


def _part(found: Survey, number: int) -> dict[str, object]:
    part = found.parts[number]
    memory = "" if part.memory_bytes is None else f"{part.memory_bytes / (1 << 20):.0f} MiB"
    plain: dict[str, object] = msgspec.to_builtins(part)
    shown = {name: plain[name] for name in ("name", "state", "restarts", "pid")}
    return shown | {"memory": memory, "uptime": age(part.uptime_seconds)}
