"""The commands of `pilothouse gateway`, each from its own module."""

from __future__ import annotations

import click

from .admin.cli import backends, routes, top
from .control.cli import check, install, run

__all__ = ["gateway"]


@click.group()
def gateway() -> None:
    """Run the gateway, by a cluster's objects or by files, and see what it does."""


for command in (backends, check, install, routes, run, top):
    gateway.add_command(command)
