"""How long a key has to wait before it is tried again: the limiters of work queues."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, Generic, Protocol, TypeVar

from pilothouse.foundation.clock import Clock, SystemClock

__all__ = [
    "Bucket",
    "ExponentialLimiter",
    "FastSlowLimiter",
    "MaxOfLimiter",
    "MaxWaitLimiter",
    "RateLimiter",
    "TokenBucket",
    "default_limiter",
]

K = TypeVar("K", bound=Hashable)
K_contra = TypeVar("K_contra", bound=Hashable, contravariant=True)

BASE_SECONDS: Final = 0.005
MAX_SECONDS: Final = 1_000.0
BUCKET_RATE: Final = 10.0
BUCKET_BURST: Final = 100
MAX_KEYS: Final = 100_000
"""Keys whose failures are remembered; beyond, the one that failed longest ago begins anew."""
_MOST_DOUBLINGS: Final = 1_000


class RateLimiter(Protocol[K_contra]):
    """Decides on waits, key by key."""

    def when(self, key: K_contra) -> float:
        """Return the seconds to wait, and count this failure."""

    def forget(self, key: K_contra) -> None:
        """Begin anew for a key: it went well, or is given up."""

    def num_requeues(self, key: K_contra) -> int:
        """Return the failures that are remembered of a key."""


class _Failures(Generic[K]):
    """Counts failures by key, within a bound."""

    def __init__(self, max_keys: int) -> None:
        if max_keys < 1:
            raise ValueError(f"max_keys: {max_keys}; want 1 or more")
        self._max_keys = max_keys
        self._counts: OrderedDict[K, int] = OrderedDict()

    def count(self, key: K) -> int:
        """Count one more; return how many there were before."""
        before = self._counts.get(key, 0)
        self._counts[key] = before + 1
        self._counts.move_to_end(key)
        if len(self._counts) > self._max_keys:
            self._counts.popitem(last=False)
        return before

    def forget(self, key: K) -> None:
        self._counts.pop(key, None)

    def num_requeues(self, key: K) -> int:
        return self._counts.get(key, 0)


class ExponentialLimiter(_Failures[K]):
    """Waits `base` seconds after the first failure of a key, twice as long after each further one, at most `cap`."""

    def __init__(self, base: float = BASE_SECONDS, cap: float = MAX_SECONDS, *, max_keys: int = MAX_KEYS) -> None:
        if not 0 < base <= cap:
            raise ValueError(f"limiter: want 0 < base <= cap, got base={base} and cap={cap}")
        super().__init__(max_keys)
        self._base = base
        self._cap = cap

    def when(self, key: K) -> float:
        doublings = min(self.count(key), _MOST_DOUBLINGS)
        return min(self._base * 2.0**doublings, self._cap)


class FastSlowLimiter(_Failures[K]):
    """Waits `fast` seconds for the first attempts of a key and `slow` seconds from then on."""

    def __init__(self, fast: float, slow: float, fast_attempts: int, *, max_keys: int = MAX_KEYS) -> None:
        super().__init__(max_keys)
        self._fast = fast
        self._slow = slow
        self._fast_attempts = fast_attempts

    def when(self, key: K) -> float:
        return self._fast if self.count(key) < self._fast_attempts else self._slow


class TokenBucket:
    """Tokens that come `rate` a second, at most `burst` of them: for requests, events, and the bucket of queues."""

    def __init__(self, rate: float, burst: int, clock: Clock | None = None) -> None:
        if rate <= 0 or burst < 1:
            raise ValueError(f"bucket: want rate > 0 and burst >= 1, got rate={rate} and burst={burst}")
        self._rate = rate
        self._burst = burst
        self._clock = clock or SystemClock()
        self._tokens = float(burst)
        self._last = self._clock.monotonic()

    def _refill(self) -> None:
        now = self._clock.monotonic()
        self._tokens = min(float(self._burst), self._tokens + (now - self._last) * self._rate)
        self._last = now

    def try_accept(self) -> bool:
        """Take a token if there is one."""
        self._refill()
        if self._tokens < 1.0 - 1e-9:
            return False
        self._tokens -= 1.0
        return True

    def reserve(self) -> float:
        """Take a token, also one that is to come; return the seconds until it is there."""
        self._refill()
        self._tokens -= 1.0
        return max(0.0, -self._tokens / self._rate)


class Bucket(Generic[K]):
    """One bucket of tokens for all keys together: so many tries a second, whichever keys they are of."""

    def __init__(self, rate: float = BUCKET_RATE, burst: int = BUCKET_BURST, clock: Clock | None = None) -> None:
        self._bucket = TokenBucket(rate, burst, clock)

    def when(self, key: K) -> float:
        return self._bucket.reserve()

    def forget(self, key: K) -> None:
        """Do nothing: it remembers no keys."""

    def num_requeues(self, key: K) -> int:
        return 0


class MaxOfLimiter(Generic[K]):
    """Waits as long as the strictest of several limiters says."""

    def __init__(self, *limiters: RateLimiter[K]) -> None:
        self._limiters = limiters

    def when(self, key: K) -> float:
        return max([limiter.when(key) for limiter in self._limiters], default=0.0)

    def forget(self, key: K) -> None:
        for limiter in self._limiters:
            limiter.forget(key)

    def num_requeues(self, key: K) -> int:
        return max([limiter.num_requeues(key) for limiter in self._limiters], default=0)


class MaxWaitLimiter(Generic[K]):
    """Waits as another limiter says, but at most `cap` seconds."""

    def __init__(self, limiter: RateLimiter[K], cap: float) -> None:
        self._limiter = limiter
        self._cap = cap

    def when(self, key: K) -> float:
        return min(self._limiter.when(key), self._cap)

    def forget(self, key: K) -> None:
        self._limiter.forget(key)

    def num_requeues(self, key: K) -> int:
        return self._limiter.num_requeues(key)


def default_limiter(clock: Clock | None = None, *, bucket: bool = True) -> RateLimiter[Hashable]:
    """Return client-go's: 5 ms doubled up to 1,000 s by key; and, unless left out, 10 a second in bursts of 100."""
    exponential: ExponentialLimiter[Hashable] = ExponentialLimiter()
    return MaxOfLimiter(exponential, Bucket(clock=clock)) if bucket else exponential
