"""Counters that all workers share, so that shares hold over all of them together and not only within each."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Counters", "LocalCounters", "SlotStore", "Slots"]


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


class SlotStore(Protocol):
    """Where counters that processes share are kept, one a slot; `plane.sharing.FileCounters` is one."""

    @property
    def slots(self) -> int:
        """How many keys can be counted together."""

    def clear(self, slot: int) -> None:
        """Begin a slot anew."""


class Slots:
    """Which key has which slot, over configurations: the parent's side. One that stays keeps its slot and its count."""

    def __init__(self, counters: SlotStore) -> None:
        self._counters = counters
        self._keys: list[str] = []
        self._of_key: dict[str, int] = {}

    def take(self, keys: list[str]) -> dict[str, int]:
        """Return the slots of these keys; others' are given up. Keys beyond the slots that there are get none.

        For the same keys it is the same mapping, which nobody changes.
        """
        if self._keys == keys:
            return self._of_key
        wanted = dict.fromkeys(keys)
        kept = {key: slot for key, slot in self._of_key.items() if key in wanted}
        taken = set(kept.values())
        free = (slot for slot in range(self._counters.slots) if slot not in taken)
        for key in wanted:
            if key not in kept:
                slot = next(free, None)
                if slot is None:
                    break
                self._counters.clear(slot)
                kept[key] = slot
        self._keys, self._of_key = list(keys), kept
        return kept

    def restore(self, slots: dict[str, int]) -> None:
        """Go back to slots that were given before, as what was to come after them did not come."""
        self._keys, self._of_key = [], slots
