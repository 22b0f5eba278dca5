"""Tokens of shared limits that workers hold: no more are used than the store gave, and none is kept for long."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.traffic.plane.leases import LEASE_SECONDS, Ask, Leases
from pilothouse.traffic.plane.ratestore import place_of, store_key

KEY = b"k"


@dataclass
class Store:
    """The script, in Python: when each key's bucket is full again."""

    full: dict[bytes, float] = field(default_factory=dict)

    def take(self, ask: Ask, now: float) -> tuple[int, float]:
        step = 1 / ask.rate
        full = max(self.full.get(ask.key, 0.0), now)
        granted = ask.tokens
        if ask.tokens > 0:
            granted = max(0, min(ask.tokens, math.floor((now + ask.burst * step - full) / step + 1e-6)))
        full = self.full[ask.key] = max(full + granted * step, now)
        return granted, 0.0 if granted >= ask.tokens else full + step - ask.burst * step - now


class Worker:
    """Requests that come to one worker, whose asks reach the store a little later."""

    def __init__(self, store: Store, rate: float, burst: int) -> None:
        self.store, self.rate, self.burst = store, rate, burst
        self.leases = Leases()
        self.asked: deque[Ask] = deque()
        self.allowed: list[float] = []
        self.refused = 0
        self.now = 0.0

    def request(self, now: float) -> None:
        self.now = now
        answer = self.leases.spend(KEY, self.rate, self.burst, now)
        if answer is None:
            self.leases.wait(KEY, self.told)
        else:
            self.told(answer)

    def told(self, is_allowed: bool | None) -> None:
        if is_allowed:
            self.allowed.append(self.now)
        else:
            self.refused += 1

    def ask(self, now: float) -> None:
        self.leases.sweep(now)
        self.asked += self.leases.asks(now)

    def answer(self, now: float) -> None:
        self.now = now
        while self.asked:
            ask = self.asked.popleft()
            for waiter, is_allowed in self.leases.answered(ask, *self.store.take(ask, now), now):
                waiter(is_allowed)


steps = st.lists(st.tuples(st.sampled_from("rra!"), st.integers(0, 2), st.sampled_from((0.0, 0.001, 0.03, 0.2))))


@settings(max_examples=200, deadline=None)
@given(steps, st.sampled_from((0.5, 10.0, 500.0)), st.sampled_from((1, 3, 16, 200)))
def test_together_no_more_is_used_than_the_limit_allows(
    todo: list[tuple[str, int, float]], rate: float, burst: int
) -> None:
    store, now, asked = Store(), 100.0, 0
    workers = [Worker(store, rate, burst) for _ in range(3)]
    for what, number, pause in todo:
        now += pause
        worker = workers[number]
        if what == "r":
            asked += 1
            worker.request(now)
        elif what == "a":
            worker.ask(now)
        else:
            worker.answer(now)
    for _ in range(3 + burst):
        for worker in workers:
            worker.ask(now)
            worker.answer(now)
    allowed = sorted(time for worker in workers for time in worker.allowed)
    assert len(allowed) + sum(worker.refused for worker in workers) == asked
    for first, begin in enumerate(allowed):
        for last in range(first, len(allowed)):
            span = allowed[last] - begin + LEASE_SECONDS
            assert last - first + 1 <= burst + rate * span + 1e-6


def test_a_small_burst_is_exact_and_holds_nothing_back() -> None:
    store = Store()
    one, other = Worker(store, 0.001, 7), Worker(store, 0.001, 7)
    for _ in range(10):
        for worker in (one, other):
            worker.request(1.0)
            worker.ask(1.0)
            worker.answer(1.0)
    assert len(one.allowed) + len(other.allowed) == 7
    assert one.refused + other.refused == 13


def test_a_busy_key_asks_less_often_and_gives_back_what_it_does_not_use() -> None:
    store = Store()
    worker, rounds = Worker(store, 1000.0, 800), 0
    for number in range(400):
        now = 1.0 + number / 10_000
        worker.request(now)
        if worker.leases.has_asks:
            rounds += 1
        worker.ask(now)
        worker.answer(now)
    assert len(worker.allowed) == 400
    assert rounds < 60
    held = store.full[KEY]
    worker.ask(1.04 + 2 * LEASE_SECONDS)
    given_back = [ask for ask in worker.asked if ask.tokens < 0]
    assert len(given_back) == 1
    worker.answer(1.04 + 2 * LEASE_SECONDS)
    assert store.full[KEY] < held + 1e-9
    worker.ask(5.0)
    worker.answer(5.0)
    assert len(worker.leases) == 0


def test_whoever_was_refused_is_refused_at_once_until_there_is_a_token() -> None:
    worker = Worker(Store(), 2.0, 1)
    worker.request(1.0)
    worker.request(1.0)
    worker.ask(1.0)
    worker.answer(1.0)
    assert (len(worker.allowed), worker.refused) == (1, 1)
    for _ in range(100):
        worker.request(1.4)
    assert not worker.leases.has_asks
    worker.request(1.5)
    assert worker.leases.has_asks


def test_when_the_store_is_away_all_who_wait_are_told() -> None:
    worker = Worker(Store(), 1.0, 5)
    for _ in range(3):
        worker.request(1.0)
    worker.ask(1.0)
    assert len(worker.leases.failed()) == 3
    assert not worker.leases.has_asks
    worker.asked.clear()
    worker.request(1.1)
    worker.ask(1.1)
    worker.answer(1.1)
    assert len(worker.allowed) == 1


def test_keys_are_bounded() -> None:
    leases = Leases(most=2)
    for key in (b"a", b"b"):
        leases.spend(key, 1.0, 1, 1.0)
    with pytest.raises(OverflowError):
        leases.spend(b"c", 1.0, 1, 1.0)
    leases.sweep(3.0)
    assert leases.spend(b"c", 1.0, 1, 3.0) is None


def test_places_of_stores() -> None:
    place = place_of("rediss://me:p%40ss@redis.example:7000/3?ssl_ca_certs=/ca.pem")
    assert place[:8] == ("redis.example", 7000, "", True, "me", "p@ss", 3, "/ca.pem")
    assert place.shown == "rediss://redis.example:7000/3"
    assert place_of("redis://:secret@127.0.0.1")[:7] == ("127.0.0.1", 6379, "", False, "", "secret", 0)
    assert place_of("unix:///run/redis.sock?db=2")[:7] == ("", 6379, "/run/redis.sock", False, "", "", 2)
    for bad in ("http://a", "redis://", "redis://a/x", "unix://", "redis://a:x", "redis://:secret@[::"):
        with pytest.raises(ValueError, match="the store's URL") as error:
            place_of(bad)
        assert "secret" not in str(error.value)


def test_keys_of_stores_hide_who_asks() -> None:
    key = store_key("default/r", "0", "token-of-mine")
    assert key.startswith(b"pilothouse:rate:default/r:0:")
    assert b"token" not in key
    assert key != store_key("default/r", "0", "another")
    assert store_key("default/r", "0", "") == b"pilothouse:rate:default/r:0:all"
