"""How long a daemon set waits before it deletes yet another failed pod of a node."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import Final, NamedTuple

__all__ = ["FailedPodsBackoff"]

_FIRST: Final = 1.0
_LONGEST: Final = 900.0
_FORGOTTEN: Final = 2 * _LONGEST
_MAX: Final = 20_000


class _Entry(NamedTuple):
    at: datetime
    seconds: float


class FailedPodsBackoff:
    """Waits that double from a second to fifteen minutes, by key; what is quiet for half an hour begins anew.

    max_keys: kept at most; beyond, the one that was quiet for longest is forgotten.
    """

    def __init__(self, *, max_keys: int = _MAX) -> None:
        self._max = max_keys
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def wait(self, key: str, now: datetime) -> float:
        """Return in how many seconds it may be tried, 0 for at once."""
        entry = self._entries.get(key)
        if entry is None:
            return 0.0
        passed = (now - entry.at).total_seconds()
        return 0.0 if passed > _FORGOTTEN else max(0.0, entry.seconds - passed)

    def tried(self, key: str, now: datetime) -> None:
        """Note that it was tried: the next wait is twice as long."""
        entry = self._entries.pop(key, None)
        fresh = entry is None or (now - entry.at).total_seconds() > _FORGOTTEN
        seconds = _FIRST if entry is None or fresh else min(_LONGEST, entry.seconds * 2)
        self._entries[key] = _Entry(now, seconds)
        while len(self._entries) > self._max or self._is_forgotten(next(iter(self._entries)), now):
            self._entries.popitem(last=False)

    def _is_forgotten(self, key: str, now: datetime) -> bool:
        return (now - self._entries[key].at).total_seconds() > _FORGOTTEN
