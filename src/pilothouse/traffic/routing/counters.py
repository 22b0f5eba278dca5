"""Counters that all workers share, so that shares hold over all of them together and not only within each."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import Final, Protocol

__all__ = ["Counters", "LocalCounters", "SharedCounters"]

_SIZE: Final = 8
_COUNT: Final = struct.Struct("<Q")


class Counters(Protocol):
    """Counts by key."""

    def next(self, key: str) -> int:
        """Return how often this key was asked for before, by all workers."""


class LocalCounters:
    """Counters of one process, for tests and where there is one worker."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def next(self, key: str) -> int:
        """Return how often this key was asked for before."""
        count = self._counts.get(key, 0)
        self._counts[key] = count + 1
        return count


class SharedCounters:
    """Counters in memory that processes share; `slots` bounds how many keys are exact.

    descriptor: of that memory, as another process has it (`descriptor` there); made anew where it is negative. A key
    has the slot that `assign` says, which the parent tells with the configuration, so that all agree. Keys without a
    slot are counted by each process for itself. A slot is locked while it is counted, until then or its process's end.
    """

    def __init__(self, slots: int = 4096, descriptor: int = -1) -> None:
        self.slots: Final = slots
        self.descriptor: Final = os.memfd_create("pilothouse-shares") if descriptor < 0 else descriptor
        if descriptor < 0:
            os.ftruncate(self.descriptor, slots * _SIZE)
        self._memory = mmap.mmap(self.descriptor, slots * _SIZE)
        self._of_key: dict[str, int] = {}
        self._own = LocalCounters()

    def close(self) -> None:
        """Give the memory up."""
        self._memory.close()
        os.close(self.descriptor)

    def assign(self, slots: dict[str, int]) -> None:
        """Take which key has which slot. Raises ValueError for a slot that is not there."""
        if any(not 0 <= slot < self.slots for slot in slots.values()):
            raise ValueError(f"there are {self.slots} slots")
        self._of_key = dict(slots)

    def clear(self, slot: int) -> None:
        """Begin a slot anew, before another key has it."""
        _COUNT.pack_into(self._memory, slot * _SIZE, 0)

    def next(self, key: str) -> int:
        """Return how often this key was asked for before, by all processes."""
        slot = self._of_key.get(key)
        if slot is None:
            return self._own.next(key)
        place = slot * _SIZE
        fcntl.lockf(self.descriptor, fcntl.LOCK_EX, _SIZE, place)
        try:
            count: int = _COUNT.unpack_from(self._memory, place)[0]
            _COUNT.pack_into(self._memory, place, count + 1)
        finally:
            fcntl.lockf(self.descriptor, fcntl.LOCK_UN, _SIZE, place)
        return count


class Slots:
    """Which key has which slot, over configurations: the parent's side. One that stays keeps its slot and its count."""

    def __init__(self, counters: SharedCounters) -> None:
        self._counters = counters
        self._of_key: dict[str, int] = {}

    def take(self, keys: list[str]) -> dict[str, int]:
        """Return the slots of these keys; others' are given up. Keys beyond the slots that there are get none."""
        kept = {key: slot for key, slot in self._of_key.items() if key in set(keys)}
        taken = set(kept.values())
        free = (slot for slot in range(self._counters.slots) if slot not in taken)
        for key in dict.fromkeys(keys):
            if key not in kept:
                slot = next(free, None)
                if slot is None:
                    break
                self._counters.clear(slot)
                kept[key] = slot
        self._of_key = kept
        return dict(kept)
