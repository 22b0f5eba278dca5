"""Files and directories that change: told by the kernel (inotify), never asked for."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Self

from pilothouse.foundation.clock import Clock, SystemClock

__all__ = ["FileWatch"]

_CLOSE_WRITE, _MOVED, _CREATED, _DELETED, _GONE = 0x8, 0xC0, 0x100, 0x200, 0xC00
_MASK: Final = _CLOSE_WRITE | _MOVED | _CREATED | _DELETED | _GONE
_FLAGS: Final = os.O_NONBLOCK | os.O_CLOEXEC
_SETTLE_SECONDS: Final = 0.02


class FileWatch:
    """Says when any of some paths has changed. Directories are watched themselves, files by the directory they are in.

    A file that is put in another's place, as editors and mounted ConfigMaps do, counts. `poke` counts as a change too,
    for SIGHUP. Raises OSError where the kernel watches no more.
    """

    def __init__(self, paths: Iterable[str | Path], clock: Clock | None = None) -> None:
        self._clock: Final[Clock] = clock or SystemClock()
        self._changed = asyncio.Event()
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(_FLAGS)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "files cannot be watched; raise fs.inotify.max_user_instances")
        for folder in {path if path.is_dir() else path.parent for path in map(Path, paths)}:
            if libc.inotify_add_watch(self._fd, os.fsencode(folder), _MASK) < 0:
                number = ctypes.get_errno()
                os.close(self._fd)
                raise OSError(number, f"{folder}: cannot be watched: {os.strerror(number)}")

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._fd, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def poke(self) -> None:
        """Count as a change."""
        self._changed.set()

    async def changed(self) -> None:
        """Wait for a change, and until what belongs to it has been told too."""
        await self._changed.wait()
        await self._clock.sleep(_SETTLE_SECONDS)
        self._changed.clear()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 65536):
                self._changed.set()
