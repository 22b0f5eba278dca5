"""Deflates what waits on a shelf, a few objects at a time beside other work, and gives the memory back."""

from __future__ import annotations

from typing import Any, Final

from pilothouse.client.collector import return_memory
from pilothouse.client.shelf import Shelf
from pilothouse.foundation.clock import Clock, Timer

__all__ = ["Tidier"]

_PAUSE_SECONDS: Final = 0.005
_AT_ONCE: Final = 32
"""Objects deflated at a time, which takes about a millisecond."""
_MANY: Final = 1_000
"""Deflated objects after which freed memory is worth asking for."""


class Tidier:
    """Keeps one shelf tidy. returns_memory: whether the C library may be asked to give back what was freed."""

    def __init__(self, shelf: Shelf[Any], clock: Clock, *, returns_memory: bool) -> None:
        self._shelf = shelf
        self._clock = clock
        self._returns_memory = returns_memory
        self._timer: Timer | None = None
        self._deflated = 0
        self._stopped = False

    def look(self) -> None:
        """See to it that what waits is deflated soon; cheap where nothing does."""
        if self._timer is None and self._shelf.is_untidy and not self._stopped:
            self._timer = self._clock.call_later(_PAUSE_SECONDS, self._tidy)

    def stop(self) -> None:
        """Leave everything as it is."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def _tidy(self) -> None:
        self._timer = None
        self._deflated += self._shelf.tidy(_AT_ONCE)
        if self._shelf.is_untidy:
            self.look()
            return
        if self._deflated >= _MANY and self._returns_memory:
            return_memory()
        self._deflated = 0
