"""The commands of `pilothouse gateway`, each from its own module."""

from __future__ import annotations

import click

from .control.cli import check, install, run

__all__ = ["gateway"]


@click.group()
def gateway() -> None:
    """Run the gateway, by a cluster's objects or by files, and see what it does."""


gateway.add_command(check)
gateway.add_command(install)
gateway.add_command(run)
