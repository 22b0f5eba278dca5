"""The commands of delivery: `pilothouse rollout`, `pilothouse app` and `pilothouse slo`."""

from __future__ import annotations

import click

from .commands import applications, appverbs
from .commands.incidents import incidents
from .commands.levels import slo
from .commands.lint import install, lint
from .commands.rollouts import get, listed, status
from .commands.verbs import abort, pause, promote, restart, resume, retry, set_group, undo

__all__ = ["app", "rollout", "slo"]


@click.group()
def rollout() -> None:
    """Bring new versions step by step: see how far they are, let them go on, take them back.

    ROLLOUT is a name, or rollout/NAME.
    """


for command in (
    abort, get, incidents, install, lint, listed, pause, promote, restart, resume, retry, set_group, status, undo,
):  # fmt: skip
    rollout.add_command(command)


@click.group()
def app() -> None:
    """Keep the cluster as git says: see applications, sync them, go back.

    APP is a name, or app/NAME. Applications are in the namespace argocd unless -n names another.
    """


for command in (
    applications.diff, applications.get, applications.history, applications.listed, applications.wait,
    appverbs.rollback, appverbs.sync,
):  # fmt: skip
    app.add_command(command)
