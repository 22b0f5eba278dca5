"""Limiters: how long each key waits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pilothouse.client.ratelimit import (
    Bucket,
    ExponentialLimiter,
    FastSlowLimiter,
    MaxOfLimiter,
    MaxWaitLimiter,
    TokenBucket,
    default_limiter,
)
from pilothouse.foundation.clock import FakeClock


def test_a_key_waits_twice_as_long_each_time_up_to_a_thousand_seconds() -> None:
    limiter: ExponentialLimiter[str] = ExponentialLimiter()
    waits = [limiter.when("a") for _ in range(2_000)]
    assert waits[:4] == [0.005, 0.01, 0.02, 0.04]
    assert waits[17] == 0.005 * 2**17
    assert waits[18:] == [1_000.0] * 1_982
    assert limiter.when("b") == 0.005
    assert limiter.num_requeues("a") == 2_000
    limiter.forget("a")
    limiter.forget("never seen")
    assert limiter.when("a") == 0.005


def test_failures_are_remembered_of_so_many_keys_only() -> None:
    limiter: ExponentialLimiter[int] = ExponentialLimiter(max_keys=3)
    for key in (1, 2, 3, 1, 4):
        limiter.when(key)
    assert [limiter.num_requeues(key) for key in (1, 2, 3, 4)] == [2, 0, 1, 1]


def test_a_bucket_gives_a_burst_and_then_so_many_a_second() -> None:
    clock = FakeClock()
    limiter: Bucket[str] = Bucket(clock=clock)
    assert [limiter.when("a") for _ in range(100)] == [0.0] * 100
    assert limiter.when("b") == pytest.approx(0.1)
    assert limiter.when("c") == pytest.approx(0.2)
    clock.advance(1.2)
    assert limiter.when("d") == 0.0
    assert limiter.num_requeues("a") == 0


def test_tokens_are_taken_only_where_there_are_some() -> None:
    clock = FakeClock()
    bucket = TokenBucket(0.5, 2, clock)
    assert [bucket.try_accept() for _ in range(3)] == [True, True, False]
    clock.advance(1.9)
    assert not bucket.try_accept()
    clock.advance(0.1)
    assert bucket.try_accept()
    clock.advance(1_000)
    assert [bucket.try_accept() for _ in range(3)] == [True, True, False]


def test_limiters_combine() -> None:
    clock = FakeClock()
    limiter: MaxOfLimiter[str] = MaxOfLimiter(ExponentialLimiter(), Bucket(1.0, 1, clock))
    assert limiter.when("a") == 0.005
    assert limiter.when("a") == 1.0
    assert limiter.num_requeues("a") == 2
    limiter.forget("a")
    assert limiter.num_requeues("a") == 0
    capped: MaxWaitLimiter[str] = MaxWaitLimiter(ExponentialLimiter(), 0.012)
    assert [capped.when("a") for _ in range(3)] == [0.005, 0.01, 0.012]
    capped.forget("a")
    assert capped.num_requeues("a") == 0
    fast: FastSlowLimiter[str] = FastSlowLimiter(0.1, 10.0, 2)
    assert [fast.when("a") for _ in range(3)] == [0.1, 0.1, 10.0]
    usual = default_limiter(clock)
    assert [usual.when("a") for _ in range(3)] == [0.005, 0.01, 0.02]


def test_impossible_limits_are_refused() -> None:
    impossible: tuple[Callable[[], object], ...] = (
        lambda: ExponentialLimiter(0),
        lambda: ExponentialLimiter(2, 1),
        lambda: ExponentialLimiter(max_keys=0),
        lambda: TokenBucket(0, 1),
        lambda: TokenBucket(1, 0),
    )
    for make in impossible:
        with pytest.raises(ValueError, match="want"):
            make()
