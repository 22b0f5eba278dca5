"""How often one object is reconciled at most: at once, and then not again until some time has passed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

__all__ = ["Pacing"]

K = TypeVar("K", bound=Hashable)


class Pacing(Generic[K]):
    """Lets the first reconcile of an object begin at once and has the next one wait: what changes meanwhile is one.

    seconds: between the beginnings of two reconciles of one object; 0 for no pacing.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds: Final = seconds
        self._begun: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._begun)

    def wait(self, key: K, now: float) -> float:
        """Return how many seconds it is too early for an object; 0 is go, and counts as begun."""
        if not self._seconds:
            return 0.0
        begun = self._begun
        while begun and next(iter(begun.values())) <= now - self._seconds:
            begun.popitem(last=False)
        last = begun.get(key)
        if last is not None and last + self._seconds > now:
            return last + self._seconds - now
        begun[key] = now
        begun.move_to_end(key)
        return 0.0
