"""Counters that all workers share, so that shares hold over all of them together and not only within each."""

from __future__ import annotations

import mmap
import multiprocessing
import struct
from typing import Final, Protocol

__all__ = ["Counters", "LocalCounters", "SharedCounters"]

_SIZE: Final = 8
_WAIT_SECONDS: Final = 0.05
"""Whoever holds the lock so long was killed with it; counting goes on without."""


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
    """Counters in memory that forks share. Make them before the workers; `slots` bounds how many keys are exact.

    A key has the slot of its number in `assign`, which the parent tells with the configuration, so that all workers
    agree. Keys without a slot are counted by each process for itself.
    """

    def __init__(self, slots: int = 4096) -> None:
        self._memory = mmap.mmap(-1, slots * _SIZE)
        self._lock = multiprocessing.get_context("fork").Lock()
        self._slots = slots
        self._of_key: dict[str, int] = {}
        self._own = LocalCounters()

    @property
    def slots(self) -> int:
        """How many keys can be counted together."""
        return self._slots

    def assign(self, slots: dict[str, int]) -> None:
        """Take which key has which slot. Raises ValueError for a slot that is not there."""
        if any(not 0 <= slot < self._slots for slot in slots.values()):
            raise ValueError(f"there are {self._slots} slots")
        self._of_key = dict(slots)

    def clear(self, slot: int) -> None:
        """Begin a slot anew, before another key has it."""
        struct.pack_into("<Q", self._memory, slot * _SIZE, 0)

    def next(self, key: str) -> int:
        """Return how often this key was asked for before, by all processes."""
        slot = self._of_key.get(key)
        if slot is None:
            return self._own.next(key)
        held = self._lock.acquire(timeout=_WAIT_SECONDS)
        try:
            (count,) = struct.unpack_from("<Q", self._memory, slot * _SIZE)
            struct.pack_into("<Q", self._memory, slot * _SIZE, count + 1)
        finally:
            if held:
                self._lock.release()
        return int(count)


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
