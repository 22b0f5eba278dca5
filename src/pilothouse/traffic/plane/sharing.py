"""What workers share though they are programs of their own, in a file in memory: counters of shares, rate limits.

A lock goes with the process that holds it, so a worker that is killed stops nobody.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
from typing import Final

from pilothouse.traffic.routing.counters import LocalCounters

__all__ = ["FileCounters"]

_SIZE: Final = 8
_COUNT: Final = struct.Struct("<Q")
_BUCKET: Final = struct.Struct("<Qd")
"""The key's hash, and when its bucket is full again."""
_BUCKETS: Final = 16_384
_GROUP: Final = 8
_CLOSE: Final = 1e-9


class FileCounters:
    """Counts by key, for all who have the file. Keys without a slot are counted by each process on its own."""

    def __init__(self, fd: int = -1, slots: int = 4096) -> None:
        self.fd = fd if fd >= 0 else os.memfd_create("pilothouse-shared", os.MFD_CLOEXEC)
        if fd < 0:
            os.ftruncate(self.fd, slots * _SIZE + _BUCKETS * _BUCKET.size)
        size = os.fstat(self.fd).st_size
        self.slots: Final = (size - _BUCKETS * _BUCKET.size) // _SIZE
        self._memory = mmap.mmap(self.fd, size)
        self._of_key: dict[str, int] = {}
        self._own = LocalCounters()

    @property
    def assigned(self) -> dict[str, int]:
        """Which key has which slot."""
        return self._of_key

    def assign(self, slots: dict[str, int]) -> None:
        """Take which key has which slot; the caller changes it no more."""
        self._of_key = slots

    def clear(self, slot: int) -> None:
        """Begin a slot anew, before another key has it."""
        _COUNT.pack_into(self._memory, slot * _SIZE, 0)

    def next(self, key: str) -> int:
        """Return how often this key was asked for before, by all processes."""
        slot = self._of_key.get(key)
        if slot is None:
            return self._own.next(key)
        at = slot * _SIZE
        fcntl.lockf(self.fd, fcntl.LOCK_EX, _SIZE, at)
        try:
            (count,) = _COUNT.unpack_from(self._memory, at)
            _COUNT.pack_into(self._memory, at, count + 1)
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, _SIZE, at)
        return int(count)

    def take_token(self, key: str, rate: float, burst: int, now: float) -> float:
        """Take a token of a key's bucket; return 0, or the seconds until there is one.

        rate: tokens a second; now: monotonic seconds, which all processes of a machine have alike. Where more keys
        than there is room for come in the time that a bucket takes to fill, the fullest is begun anew.
        """
        if rate <= 0:
            return 1.0
        digest = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest()
        number = int.from_bytes(digest, "little") | 1
        at = self.slots * _SIZE + number % (_BUCKETS // _GROUP) * _GROUP * _BUCKET.size
        fcntl.lockf(self.fd, fcntl.LOCK_EX, _GROUP * _BUCKET.size, at)
        try:
            places = range(at, at + _GROUP * _BUCKET.size, _BUCKET.size)
            found = [(*_BUCKET.unpack_from(self._memory, place), place) for place in places]
            mine = [each for each in found if each[0] == number]
            _, full_at, place = mine[0] if mine else (number, now, min(found, key=lambda each: float(each[1]))[2])
            full_at = max(full_at, now)
            wait = full_at - now - (max(burst, 1) - 1) / rate
            if wait > _CLOSE:
                return float(wait)
            _BUCKET.pack_into(self._memory, place, number, full_at + 1 / rate)
            return 0.0
        finally:
            fcntl.lockf(self.fd, fcntl.LOCK_UN, _GROUP * _BUCKET.size, at)

    def close(self) -> None:
        """Let go of the file."""
        self._memory.close()
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = -1
