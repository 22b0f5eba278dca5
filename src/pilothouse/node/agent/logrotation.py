"""Container logs that do not grow for ever: rotated by size, all but the newest old one compressed, so many kept."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import shutil
from datetime import datetime

from pilothouse.node.errors import NodeError
from pilothouse.node.runtime import ContainerStatus, Runtime

__all__ = ["rotate"]

_SUFFIX = ".gz"


async def rotate(
    runtime: Runtime, container: ContainerStatus, now: datetime, *, max_bytes: int, max_files: int
) -> bool:
    """Rotate a running container's log if it is too large; return whether it was. Raises `OSError`, `NodeError`."""
    path = container.log_path
    try:
        if not path or os.stat(path).st_size < max_bytes:
            return False
    except FileNotFoundError:
        return False
    rotated = f"{path}.{now:%Y%m%d-%H%M%S}"
    await asyncio.to_thread(_make_room, path, max_files - 2)
    os.rename(path, rotated)
    try:
        await runtime.reopen_log(container.id)
    except NodeError:
        os.rename(rotated, path)
        raise
    return True


def _make_room(path: str, keep: int) -> None:
    """Compress what was rotated, and remove the oldest of it."""
    directory, name = os.path.split(path)
    old = sorted(each for each in os.listdir(directory) if each.startswith(f"{name}.") and not each.endswith(".tmp"))
    for each in old[: max(len(old) - keep, 0)]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{each}")
    for each in old[max(len(old) - keep, 0) :]:
        if not each.endswith(_SUFFIX):
            _compress(f"{directory}/{each}")


def _compress(path: str) -> None:
    with open(path, "rb") as source, gzip.open(f"{path}.tmp", "wb") as target:
        shutil.copyfileobj(source, target)
    os.rename(f"{path}.tmp", path + _SUFFIX)
    os.unlink(path)
