from __future__ import annotations

import asyncio
import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.retry import Attempt, Backoff, RetriesExhausted, retry


class Flaky:
    """Fails `failures` times, then answers."""

    def __init__(self, failures: int, error: Exception | None = None) -> None:
        self.failures = failures
        self.calls = 0
        self.error = error or ConnectionError("refused")

    async def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error
        return "done"


@given(
    base=st.floats(0, 10, allow_subnormal=False),
    factor=st.floats(1, 10),
    jitter=st.floats(0, 1),
    room=st.floats(0, 100),
    attempts=st.integers(1, 30),
    deadline=st.none() | st.floats(0, 200),
    seed=st.integers(),
)
def test_delays_keep_every_bound(
    base: float, factor: float, jitter: float, room: float, attempts: int, deadline: float | None, seed: int
) -> None:
    backoff = Backoff(base, factor, jitter, base + room, attempts, deadline)
    delays = list(backoff.delays(random.Random(seed)))
    assert len(delays) <= attempts - 1
    assert delays == list(backoff.delays(random.Random(seed)))
    for number, delay in enumerate(delays):
        wait = min(base * factor**number, backoff.cap)
        assert wait * (1 - jitter) - 1e-9 <= delay <= wait * (1 + 1e-9)
    if deadline is None:
        assert len(delays) == attempts - 1
    else:
        assert sum(delays) <= deadline + 1e-9


def test_without_bounds_it_goes_on_for_ever_at_the_cap() -> None:
    backoff = Backoff(1, 10, 0, 5, attempts=None)
    delays = list(itertools.islice(backoff.delays(random.Random(0)), 5000))
    assert delays[:3] == [1, 5, 5]
    assert delays[-1] == 5


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"base": -1.0}, "base=-1"),
        ({"base": 2.0, "cap": 1.0}, "cap=1"),
        ({"factor": 0.5}, "factor=0.5"),
        ({"jitter": 1.5}, "jitter=1.5"),
        ({"attempts": 0}, "attempts=0"),
        ({"deadline": -1.0}, "deadline=-1"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, float], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Backoff(**settings)  # type: ignore[arg-type]  # one wrong field at a time


async def test_it_waits_by_the_clock_until_it_succeeds() -> None:
    clock, flaky = FakeClock(), Flaky(3)
    seen: list[Attempt] = []
    backoff = Backoff(1, 2, 0, 60)
    task = asyncio.create_task(retry(flaky, backoff, clock, ConnectionError, on_retry=seen.append))
    await clock.run(6.9)
    assert flaky.calls == 3
    assert not task.done()
    await clock.run(0.1)
    assert await task == "done"
    assert [(attempt.number, attempt.delay, attempt.elapsed) for attempt in seen] == [(1, 1, 0), (2, 2, 1), (3, 4, 3)]


async def test_giving_up_chains_the_last_error() -> None:
    clock, flaky = FakeClock(), Flaky(100)
    task = asyncio.create_task(retry(flaky, Backoff(1, 1, 0, attempts=4), clock, name="dial store"))
    await clock.run(10)
    with pytest.raises(RetriesExhausted, match=r"dial store: gave up after 4 attempts in 3\.0 s: refused") as caught:
        await task
    assert caught.value.__cause__ is flaky.error
    assert caught.value.attempts == flaky.calls == 4


async def test_the_deadline_counts_the_attempts_own_time() -> None:
    clock = FakeClock()

    async def slow() -> None:
        await clock.sleep(4)
        raise ConnectionError

    task = asyncio.create_task(retry(slow, Backoff(1, 1, 0, attempts=None, deadline=9.5), clock))
    await clock.run(100)
    with pytest.raises(RetriesExhausted, match=r"after 2 attempts in 9\.0 s: ConnectionError"):
        await task


async def test_an_error_not_worth_a_retry_is_raised_as_it_is() -> None:
    flaky = Flaky(1, KeyError("x"))
    with pytest.raises(KeyError):
        await retry(flaky, Backoff(), FakeClock(), ConnectionError)
    with pytest.raises(KeyError):
        await retry(Flaky(1, flaky.error), Backoff(), FakeClock(), lambda error: not isinstance(error, KeyError))
    assert flaky.calls == 1


async def test_cancelling_ends_it_at_once() -> None:
    clock, flaky = FakeClock(), Flaky(100)
    task = asyncio.create_task(retry(flaky, Backoff(), clock))
    await clock.run(0)
    assert clock.waiting == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert clock.waiting == 0
