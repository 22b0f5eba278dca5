"""Commands that change rollouts: promote, abort, retry, undo, pause, resume, restart, set image."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from pilothouse.foundation.terminal import CommandError, ExitCode, examples

from .reaching import Reach, asked, name_of, named, reaching

if TYPE_CHECKING:
    from pilothouse.client import Client
    from pilothouse.delivery.resources.rollouts import Rollout
    from pilothouse.delivery.rollouts.verbs import Change

__all__ = ["abort", "pause", "promote", "restart", "resume", "retry", "set_group", "undo"]

_NAMES = click.argument("names", metavar="ROLLOUT...", nargs=-1, required=True)
_NAME = click.argument("name", metavar="ROLLOUT")


def _changed(
    reach: Reach, names: Sequence[str], making: Callable[[Client, Rollout], Awaitable[Change]]
) -> list[Rollout]:
    """Change rollouts one after the other; return them as they were before. Raises CommandError."""
    from pilothouse.delivery.resources.rollouts import Rollout

    async def work(client: Client) -> list[Rollout]:
        found = []
        for name in names:
            rollout = await named(client, Rollout, name_of("rollout", name))
            await _apply(client, rollout, await making(client, rollout))
            found.append(rollout)
        return found

    return asked(reach, work)


async def _apply(client: Client, rollout: Rollout, change: Change) -> None:
    """Write a change: the status first, as Argo's plugin does, so that what follows meets it."""
    kind, name, namespace = type(rollout), rollout.metadata.name, rollout.metadata.namespace
    if change.status:
        await client.patch(kind, name, dict(change.status), namespace, subresource="status")
    if change.spec:
        await client.patch(kind, name, dict(change.spec), namespace)
    if not change.json:
        return
    patch = [dict(one) for one in change.json]
    ref = rollout.spec.workload_ref
    if change.workload and ref is not None:
        handle = client.dynamic(ref.api_version or "apps/v1", ref.kind or "Deployment")
        await handle.patch(ref.name or "", patch, namespace)
    else:
        await client.patch(kind, name, patch, namespace)


def _simple(verb: str, reach: Reach, names: Sequence[str], done: str, **options: Any) -> None:
    """Do a verb that needs the rollout alone, and say so for each."""

    async def making(client: Client, rollout: Rollout) -> Change:
        from pilothouse.delivery.rollouts import verbs

        del client
        made: Change = getattr(verbs, verb)(rollout, **options)
        return made

    for rollout in _changed(reach, names, making):
        click.echo(f"rollout '{rollout.metadata.name}' {done}")


@click.command(
    epilog=examples(
        "# end a pause, or go past what the present step waits for",
        "pilothouse rollout promote shop",
        "# past all steps, pauses and analyses",
        "pilothouse rollout promote shop --full",
    )
)
@_NAME
@click.option("--full", is_flag=True, help="Skip all steps, pauses and analyses that are left.")
@click.option("--skip-current-step", is_flag=True, help="Skip the present step, whatever it is.")
@reaching
def promote(name: str, full: bool, skip_current_step: bool, reach: Reach) -> None:
    """Let a rollout go on.

    That ends its pause, or goes past its step; with --full past all of them.
    """
    if full and skip_current_step:
        raise CommandError("--full and --skip-current-step exclude each other; leave out one", code=ExitCode.USAGE)

    async def making(client: Client, rollout: Rollout) -> Change:
        from pilothouse.delivery.rollouts import verbs
        from pilothouse.delivery.rollouts.tree import phase_now

        del client
        if phase_now(rollout)[0] == "Healthy" and not rollout.spec.paused:
            raise verbs.VerbError(f"rollout {rollout.metadata.name}: it is Healthy, so there is nothing to promote")
        if rollout.status.abort:
            way = f"`pilothouse rollout retry rollout {rollout.metadata.name}` tries it again"
            raise verbs.VerbError(f"rollout {rollout.metadata.name}: it is aborted; {way}")
        return verbs.promote(rollout, full=full, skip_current_step=skip_current_step)

    _changed(reach, [name], making)
    click.echo(f"rollout '{name_of('rollout', name)}' {'fully promoted' if full else 'promoted'}")


@click.command(epilog=examples("pilothouse rollout abort shop", "pilothouse rollout abort shop cart -n production"))
@_NAMES
@reaching
def abort(names: tuple[str, ...], reach: Reach) -> None:
    """Take the new version back, its traffic first.

    The template stays until somebody undoes it; `retry` tries it again.
    """
    _simple("abort", reach, names, "aborted")


@click.command(epilog=examples("pilothouse rollout retry rollout shop"))
@click.argument("words", metavar="rollout ROLLOUT...", nargs=-1, required=True)
@reaching
def retry(words: tuple[str, ...], reach: Reach) -> None:
    """Try an aborted version again.

    It begins with the first step.
    """
    names = words[1:] if words[0] in {"rollout", "rollouts", "ro"} and len(words) > 1 else words
    _simple("retry", reach, names, "retried")


@click.command(
    epilog=examples(
        "pilothouse rollout undo shop", "# the template of revision 3", "pilothouse rollout undo shop --to-revision 3"
    )
)
@_NAME
@click.option("--to-revision", type=click.IntRange(0), default=0, help="Which one; the one before by default.")
@reaching
def undo(name: str, to_revision: int, reach: Reach) -> None:
    """Set an earlier revision's template again.

    It comes by the same steps as any other change.
    """

    async def making(client: Client, rollout: Rollout) -> Change:
        from pilothouse.delivery.rollouts import verbs

        from .gathering import sets_of

        return verbs.undo(rollout, await sets_of(client, rollout), to_revision)

    _changed(reach, [name], making)
    where = f"revision {to_revision}" if to_revision else "the revision before"
    click.echo(f"rollout '{name_of('rollout', name)}' set to {where}")


@click.command(epilog=examples("pilothouse rollout pause shop"))
@_NAMES
@reaching
def pause(names: tuple[str, ...], reach: Reach) -> None:
    """Stop a rollout where it is.

    Nothing is scaled or switched until it is resumed or promoted.
    """
    _simple("pause", reach, names, "paused")


@click.command(epilog=examples("pilothouse rollout resume shop"))
@_NAMES
@reaching
def resume(names: tuple[str, ...], reach: Reach) -> None:
    """Go on after `pause`.

    Pauses of steps go on; `promote` ends them.
    """
    _simple("resume", reach, names, "resumed")


@click.command(
    epilog=examples("pilothouse rollout restart shop", "# in ten minutes", "pilothouse rollout restart shop --in 10m")
)
@_NAMES
@click.option("--in", "delay", default="0s", metavar="TIME", show_default=True, help="When, from now on.")
@reaching
def restart(names: tuple[str, ...], delay: str, reach: Reach) -> None:
    """Replace pods by new ones of the same version.

    A few at a time, within what may be unavailable.
    """
    from .times import seconds_of

    seconds = seconds_of("--in", delay)
    _simple(
        "restart",
        reach,
        names,
        f"restarts in {delay}" if seconds else "restarts",
        at=datetime.now(UTC) + timedelta(seconds=seconds),
    )


@click.group("set")
def set_group() -> None:
    """Change a part of a rollout: its images."""


@set_group.command(
    "image",
    epilog=examples(
        "pilothouse rollout set image shop web=registry.example/shop:2",
        "# in all containers",
        "pilothouse rollout set image shop '*=registry.example/shop:2'",
    ),
)
@_NAME
@click.argument("images", metavar="CONTAINER=IMAGE...", nargs=-1, required=True)
@reaching
def set_image(name: str, images: tuple[str, ...], reach: Reach) -> None:
    """Set the images of containers, which begins a new version."""
    wanted: dict[str, str] = {}
    for each in images:
        container, equals, image = each.partition("=")
        if not (container and equals and image):
            raise click.BadParameter(f"{each!r}: want CONTAINER=IMAGE", param_hint="CONTAINER=IMAGE")
        wanted[container] = image

    async def making(client: Client, rollout: Rollout) -> Change:
        from pilothouse.delivery.rollouts import verbs

        from .gathering import template_of, workload_of

        return verbs.set_image(rollout, wanted, template_of(await workload_of(client, rollout)))

    _changed(reach, [name], making)
    click.echo(f"rollout '{name_of('rollout', name)}' image updated")
