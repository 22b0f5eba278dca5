"""Counters in memory that workers share though they are programs of their own: a file in memory, and its locks.

A lock goes with the process that holds it, so a worker that is killed stops nobody.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from collections.abc import Mapping
from typing import Final

__all__ = ["FileCounters"]

_SIZE: Final = 8
_COUNT: Final = struct.Struct("<Q")


class FileCounters:
    """Counts by key, for all who have the file. Keys without a slot are counted by each process on its own."""

    def __init__(self, fd: int = -1, slots: int = 4096) -> None:
        self.fd = fd if fd >= 0 else os.memfd_create("pilothouse-counters", os.MFD_CLOEXEC)
        if fd < 0:
            os.ftruncate(self.fd, slots * _SIZE)
        self.slots: Final = os.fstat(self.fd).st_size // _SIZE
        self._memory = mmap.mmap(self.fd, self.slots * _SIZE)
        self._of_key: dict[str, int] = {}
        self._own: dict[str, int] = {}

    def assign(self, slots: Mapping[str, int]) -> None:
        """Take which key has which slot."""
        self._of_key = dict(slots)

    def clear(self, slot: int) -> None:
        """Begin a slot anew, before another key has it."""
        _COUNT.pack_into(self._memory, slot * _SIZE, 0)

    def next(self, key: str) -> int:
        """Return how often this key was asked for before, by all processes."""
        slot = self._of_key.get(key)
        if slot is None:
            own = self._own.get(key, 0)
            self._own[key] = own + 1
            return own
        at = slot * _SIZE
        fcntl.lockf(self.fd, fcntl.LOCK_EX, _SIZE, at)
        try:
            (count,) = _COUNT.unpack_from(self._memory, at)
            _COUNT.pack_into(self._memory, at, count + 1)
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, _SIZE, at)
        return int(count)

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()
        os.close(self.fd)
