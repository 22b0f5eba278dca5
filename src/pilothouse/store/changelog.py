"""What every revision changed, in order, since the last compaction: for watchers that start late and paged lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from pilothouse.store.model import KeyValue

__all__ = ["Change", "ChangeLog", "each"]

Change = KeyValue | tuple[KeyValue, ...]
"""The versions that one revision wrote; a single one stands for itself, which saves a million tuples."""


def each(change: Change) -> tuple[KeyValue, ...]:
    """Return the versions of a change."""
    return change if isinstance(change, tuple) else (change,)


class ChangeLog:
    """Changes of consecutive revisions; `start` is the revision of the first one held."""

    __slots__ = ("_changes", "append", "start")

    def __init__(self, start: int, changes: list[Change] | None = None) -> None:
        self.start = start
        self._changes: list[Change] = [] if changes is None else changes
        self.append = self._changes.append

    def __len__(self) -> int:
        return len(self._changes)

    def since(self, revision: int, limit: int | None = None) -> list[Change]:
        """Return the changes from `revision` on, up to `limit` of them."""
        first = max(0, revision - self.start)
        return self._changes[first:] if limit is None else self._changes[first : first + limit]

    def drop(self, number: int) -> None:
        """Forget the oldest `number` changes."""
        del self._changes[:number]
        self.start += number

    @classmethod
    def rebuilt(cls, parts: Iterable[Sequence[KeyValue]], start: int, revision: int) -> ChangeLog:
        """Put versions back in the order of their revisions, from `start` to `revision`."""
        slots: list[KeyValue | list[KeyValue] | None] = [None] * max(0, revision - start + 1)
        for kvs in parts:
            for kv in kvs:
                place = kv.mod_revision - start
                if place < 0:
                    continue
                slot = slots[place]
                if slot is None:
                    slots[place] = kv
                elif isinstance(slot, list):
                    slot.append(kv)
                else:
                    slots[place] = [slot, kv]
        return cls(start, [_change(slot) for slot in slots])


def _change(slot: KeyValue | list[KeyValue] | None) -> Change:
    if isinstance(slot, list):
        return tuple(sorted(slot, key=attrgetter("sub")))
    return () if slot is None else slot
