"""How a reflector lists, watches and waits: its options, with client-go's defaults."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pilothouse.foundation.retry import Backoff

__all__ = ["BACKOFF", "Delays", "ReflectorOptions"]

BACKOFF: Final = Backoff(base=1.6, factor=2.0, jitter=0.5, cap=60.0, attempts=None)
"""client-go's waits: 0.8 s doubled up to 30 s, and as much again by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReflectorOptions:
    """How a reflector lists and watches; the defaults are client-go's.

    label_selector, field_selector: narrow what is seen, on the server. stream_initial_list: ask for the first state
    as a stream of events, and list only where the server cannot. page_size: of lists that come in pages.
    always_paged: also where the server would answer from memory at once. min_watch_seconds, max_watch_seconds: a watch
    ends by itself after a random time between them. internal_error_seconds: for how long a watch is begun again after
    errors of the server, before a new list. backoff: between failures; begins anew after `backoff_reset` seconds
    without any.
    """

    label_selector: str = ""
    field_selector: str = ""
    stream_initial_list: bool = True
    page_size: int = 500
    always_paged: bool = False
    min_watch_seconds: float = 300.0
    max_watch_seconds: float = 600.0
    internal_error_seconds: float = 0.0
    backoff: Backoff = BACKOFF
    backoff_reset: float = 120.0

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        if self.page_size < 1:
            raise ValueError(f"page_size: {self.page_size}; want 1 or more")
        if not 0 < self.min_watch_seconds <= self.max_watch_seconds:
            raise ValueError(
                f"min_watch_seconds: want 0 < min_watch_seconds <= max_watch_seconds, got {self.min_watch_seconds} and "
                f"{self.max_watch_seconds}"
            )
        if self.backoff.attempts is not None or self.backoff.deadline is not None:
            raise ValueError("backoff: a reflector never gives up; pass one with attempts=None and deadline=None")


class Delays:
    """Waits after failures, beginning anew when there was none for a while."""

    def __init__(self, backoff: Backoff, reset: float, source: random.Random) -> None:
        self._backoff = backoff
        self._reset = reset
        self._source = source
        self._last = 0.0
        self._left: Iterator[float] | None = None

    def next(self, now: float) -> float:
        """Return the seconds to wait after a failure now."""
        if self._left is None or now - self._last > self._reset:
            self._left = self._backoff.delays(self._source)
        self._last = now
        return next(self._left)
