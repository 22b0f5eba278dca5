"""Trying again: `Backoff` says how long to wait, `retry` does it by an injected clock."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from pilothouse.foundation.clock import Clock, SystemClock

__all__ = ["Attempt", "Backoff", "RetriesExhausted", "Retryable", "retry"]

_T = TypeVar("_T")

Retryable = type[Exception] | tuple[type[Exception], ...] | Callable[[Exception], bool]
"""Which errors are worth another try: classes, or a function that decides."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """Waits that grow: the n-th is `base * factor**n`, at most `cap`, all in seconds.

    `jitter` (0 to 1) is the share of each wait that is left to chance, always downwards, so `cap` holds and many
    clients that failed together do not come back together. `attempts` counts calls, the first included, and
    `deadline` bounds the whole in seconds; None means without this bound, for those who reconnect for ever.
    """

    base: float = 0.1
    factor: float = 2.0
    jitter: float = 0.25
    cap: float = 30.0
    attempts: int | None = 10
    deadline: float | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that make no sense."""
        if self.base < 0 or self.cap < self.base:
            raise ValueError(f"backoff: want 0 <= base <= cap, got base={self.base} and cap={self.cap}")
        if self.factor < 1:
            raise ValueError(f"backoff: factor={self.factor} would shrink the waits; want 1 or more")
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"backoff: jitter={self.jitter} is not a share; want 0 to 1")
        if self.attempts is not None and self.attempts < 1:
            raise ValueError(f"backoff: attempts={self.attempts}; want 1 or more, or None for no bound")
        if self.deadline is not None and self.deadline < 0:
            raise ValueError(f"backoff: deadline={self.deadline} is negative; want seconds, or None for no bound")

    def delays(self, source: random.Random) -> Iterator[float]:
        """Yield the wait after each failed attempt; stop where another attempt would break a bound."""
        wait, waited, made = self.base, 0.0, 1
        while self.attempts is None or made < self.attempts:
            delay = wait * (1 - self.jitter * source.random())
            if self.deadline is not None and waited + delay > self.deadline:
                return
            yield delay
            waited += delay
            made += 1
            wait = min(wait * self.factor, self.cap)


class Attempt(NamedTuple):
    """A failed attempt for `on_retry`: number from 1, error, seconds to wait, seconds since the start."""

    number: int
    error: Exception
    delay: float
    elapsed: float


class RetriesExhausted(Exception):
    """No attempt succeeded; `__cause__` is the last error, `attempts` and `elapsed` (seconds) say what was tried."""

    def __init__(self, name: str, attempts: int, elapsed: float, last: Exception) -> None:
        super().__init__(
            f"{name}: gave up after {attempts} attempts in {elapsed:.1f} s: {str(last) or type(last).__name__}"
        )
        self.attempts = attempts
        self.elapsed = elapsed


async def retry(
    operation: Callable[[], Awaitable[_T]],
    backoff: Backoff,
    clock: Clock | None = None,
    retryable: Retryable = Exception,
    *,
    source: random.Random | None = None,
    on_retry: Callable[[Attempt], object] | None = None,
    name: str = "operation",
) -> _T:
    """Call `operation` until it succeeds, waiting between attempts as `backoff` says.

    An error that is not `retryable` is raised as it is, and so is cancellation, at once. `on_retry` is called before
    each wait, to log or count. The deadline counts the attempts' own time too, but does not cut an attempt short:
    give the operation its own timeout. Raises `RetriesExhausted` from the last error.
    """
    clock = clock or SystemClock()
    started = clock.monotonic()
    delays = backoff.delays(source or random.Random())  # noqa: S311  # spreads load, guards nothing
    number = 0
    while True:
        number += 1
        try:
            return await operation()
        except Exception as error:
            if not _is_retryable(error, retryable):
                raise
            elapsed = clock.monotonic() - started
            delay = next(delays, None)
            if delay is None or (backoff.deadline is not None and elapsed + delay > backoff.deadline):
                raise RetriesExhausted(name, number, elapsed, error) from error
            if on_retry is not None:
                on_retry(Attempt(number, error, delay, elapsed))
        await clock.sleep(delay)


def _is_retryable(error: Exception, retryable: Retryable) -> bool:
    if isinstance(retryable, type | tuple):
        return isinstance(error, retryable)
    return retryable(error)
