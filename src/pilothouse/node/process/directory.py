"""A runtime's directory: which process has it, and with what options, so that others can take away what it made."""

from __future__ import annotations

import fcntl
import os

from pilothouse.node.errors import RuntimeUnavailable

from .options import Options
from .spec import read_file, write_file

__all__ = ["lock", "store_options", "stored_options"]

_OPTIONS = "options.json"


def lock(root: str) -> int:
    """Take a runtime's directory for this process. Raises `RuntimeUnavailable` where another one has it."""
    fd = os.open(f"{root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise RuntimeUnavailable(f'"{root}" is used by another agent; end it, or choose another directory') from None
    return fd


def store_options(options: Options) -> None:
    """Write down what a runtime makes things by, before it makes any. Raises `OSError`."""
    write_file(f"{options.root}/{_OPTIONS}", options)


def stored_options(root: str) -> Options | None:
    """Return the options of the last runtime in a directory, as if it were where it is now; None for none."""
    try:
        found = read_file(f"{root}/{_OPTIONS}", Options)
    except (FileNotFoundError, ValueError):
        return None
    return Options(**{name: getattr(found, name) for name in Options.__struct_fields__} | {"root": root})
