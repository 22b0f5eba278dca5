"""Tokens of limits that several gateways share, as one worker holds them (pure: no sockets, the clock is given).

The store has the truth. A worker asks it for as many tokens as requests wait for, and for some more where a key is
busy and its burst is large; those are used within a short time or given back. Whoever was told that there is none is
not asked for again until there is one, so a flood of requests that are refused costs the store nothing.

How exact that is: no more tokens are ever used than the store gave. Because a token may be used up to `LEASE_SECONDS`
after it was given, any span of time may see what the limit allows in a span that much longer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

__all__ = ["LEASE_SECONDS", "Ask", "Leases", "Waiter"]

LEASE_SECONDS: Final = 0.1
"""How long a token may be held."""

_AHEAD_OF_BURST: Final = 8
"""A worker holds tokens that nobody waits for up to an eighth of a burst, and to what the rate gives in a lease."""
_KEYS: Final = 16_384
_IDLE_SECONDS: Final = 1.0
_DENIED_SECONDS: Final = 1.0
"""Then the store is asked again: limits change, and others give tokens back."""

Waiter: TypeAlias = Callable[[bool | None], object]
"""Is told whether a request may go on; None where the store does not say."""


class Ask(NamedTuple):
    """What is wanted of the store: tokens of a key, or to have some back where that is negative."""

    key: bytes
    rate: float
    burst: int
    tokens: int


class _Bucket:
    """One key's tokens in this worker. until: how long they may be used; asked: how many are on their way."""

    __slots__ = ("ahead", "asked", "burst", "denied_until", "key", "rate", "seen", "tokens", "until", "waiters")

    def __init__(self, key: bytes, now: float) -> None:
        self.key = key
        self.rate = 1.0
        self.burst = 1
        self.tokens = 0
        self.until = now
        self.denied_until = now
        self.seen = now
        self.ahead = 0
        self.asked = 0
        self.waiters: deque[Waiter] = deque()

    @property
    def most_ahead(self) -> int:
        return min(self.burst // _AHEAD_OF_BURST, int(self.rate * LEASE_SECONDS))


class Leases:
    """The tokens of one store. `spend`, else `wait`; send `asks` to the store, and tell what it `answered`."""

    def __init__(self, most: int = _KEYS) -> None:
        self._most = most
        self._buckets: dict[bytes, _Bucket] = {}
        self._wanted: dict[bytes, _Bucket] = {}
        self._returns: list[Ask] = []
        self._holding: dict[bytes, _Bucket] = {}
        self._next_scan = 0.0

    @property
    def has_asks(self) -> bool:
        """Whether the store is to be told something."""
        return bool(self._wanted or self._returns)

    def spend(self, key: bytes, rate: float, burst: int, now: float) -> bool | None:
        """Take a token that is at hand; False where it is known that there is none, None where the store has to say.

        rate: tokens a second. Raises OverflowError where too many keys are in use.
        """
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._most:
                raise OverflowError
            bucket = self._buckets[key] = _Bucket(key, now)
        bucket.rate, bucket.burst, bucket.seen = rate, burst, now
        if bucket.tokens and now < bucket.until and not bucket.waiters:
            bucket.tokens -= 1
            if bucket.tokens <= bucket.ahead // 2 and not bucket.asked:
                self._wanted[key] = bucket
            return True
        return False if now < bucket.denied_until else None

    def wait(self, key: bytes, waiter: Waiter) -> None:
        """Have somebody told what the store says, after `spend` did not know."""
        bucket = self._buckets[key]
        bucket.waiters.append(waiter)
        if not bucket.asked:
            self._wanted[key] = bucket

    def put_back(self, key: bytes) -> None:
        """Take back a token that nobody needed after all."""
        bucket = self._buckets.get(key)
        if bucket is not None:
            bucket.tokens += 1
            self._holding[key] = bucket

    def asks(self, now: float) -> list[Ask]:
        """Return what is to be told to the store now; each is `answered` before its key is asked for again."""
        found, self._returns = self._returns, []
        for bucket in self._wanted.values():
            if bucket.tokens <= bucket.ahead // 2 and now < bucket.until:
                bucket.ahead = min(max(1, bucket.ahead * 2), bucket.most_ahead)  # the last lease was used up in time
            bucket.asked = len(bucket.waiters) + bucket.ahead
            if bucket.asked:
                found.append(Ask(bucket.key, bucket.rate, bucket.burst, bucket.asked))
        self._wanted.clear()
        return found

    def answered(self, ask: Ask, granted: int, wait: float, now: float) -> list[tuple[Waiter, bool]]:
        """Take what the store said; return who is told what. wait: seconds until there is one, where some lack."""
        bucket = self._buckets.get(ask.key)
        if bucket is None or ask.tokens < 0:
            return []
        bucket.asked = 0
        tokens = bucket.tokens + granted if now < bucket.until else granted
        if now >= bucket.until and bucket.tokens:
            self._returns.append(ask._replace(tokens=-bucket.tokens))
        told: list[tuple[Waiter, bool]] = []
        while bucket.waiters and tokens:
            told.append((bucket.waiters.popleft(), True))
            tokens -= 1
        if granted < ask.tokens:
            bucket.denied_until = now + min(wait, _DENIED_SECONDS)
            bucket.ahead = 0
            told += [(waiter, False) for waiter in bucket.waiters]
            bucket.waiters.clear()
        elif bucket.waiters:
            self._wanted[ask.key] = bucket
        bucket.tokens, bucket.until = tokens, now + LEASE_SECONDS
        if tokens:
            self._holding[ask.key] = bucket
        return told

    def failed(self) -> list[Waiter]:
        """Forget what is on its way, the store being away; return who waits."""
        found: list[Waiter] = []
        for bucket in self._buckets.values():
            found += bucket.waiters
            bucket.waiters.clear()
            bucket.asked = 0
            bucket.denied_until = -math.inf
        self._wanted.clear()
        self._returns.clear()
        return found

    def sweep(self, now: float) -> None:
        """Give back what was not used in time, and forget keys that nobody uses."""
        for key, bucket in list(self._holding.items()):
            if now >= bucket.until:
                del self._holding[key]
                if bucket.tokens:
                    self._returns.append(Ask(key, bucket.rate, bucket.burst, -bucket.tokens))
                    bucket.tokens, bucket.ahead = 0, bucket.ahead // 2
        if now < self._next_scan:
            return
        self._next_scan = now + _IDLE_SECONDS
        for bucket in list(self._buckets.values()):
            is_idle = now >= bucket.denied_until and now - bucket.seen >= _IDLE_SECONDS
            if is_idle and not (bucket.waiters or bucket.asked or bucket.tokens):
                del self._buckets[bucket.key]

    def __len__(self) -> int:
        return len(self._buckets)
