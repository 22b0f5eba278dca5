"""Where the platform of a user is kept, for all commands that are about it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["data_dir_option", "default_home"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def default_home() -> Path:
    """Return where the platform keeps its data: `pilothouse` in the user's data directory (XDG base directories)."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "pilothouse"


def data_dir_option(text: str = "Of the platform.") -> Callable[[_Command], _Command]:
    """Return the option that names the platform's directory; the command receives a Path, or None where not given."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        envvar="PILOTHOUSE_DATA_DIR",
        help=f"{text}  [default: user data directory]",
    )
