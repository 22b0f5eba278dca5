"""The lessor against a model that looks at every lease each time, and its bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.store.errors import InvalidRequest, LeaseExists, LeaseNotFound, LeaseTtlTooLarge
from pilothouse.store.leases import MAX_TTL, MIN_TTL, Leases


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leases(clock: Clock) -> Leases:
    return Leases(clock)


def test_a_lease_lives_its_time_and_is_due_once_an_interval(leases: Leases, clock: Clock) -> None:
    assert leases.grant(7, 10) == 10
    clock.now += 4
    assert leases.time_to_live(7) == (6, 10, [])
    assert leases.next_deadline() == 1010
    clock.now = 1009.9
    assert leases.expired(10) == []
    clock.now = 1010
    assert leases.expired(10) == [7]
    assert leases.expired(10) == []
    assert leases.next_deadline() == 1011
    clock.now = 1011
    assert leases.expired(10) == [7]
    assert leases.revoke(7) == []
    clock.now = 1020
    assert leases.expired(10) == []
    assert leases.next_deadline() is None


@pytest.mark.parametrize(("asked", "granted"), [(-5, MIN_TTL), (0, MIN_TTL), (1, MIN_TTL), (3, 3), (MAX_TTL, MAX_TTL)])
def test_a_short_time_is_raised_to_the_least(leases: Leases, asked: int, granted: int) -> None:
    assert leases.grant(1, asked) == granted
    assert leases.time_to_live(1).granted == granted


def test_what_cannot_be_granted_is_refused_and_changes_nothing(leases: Leases) -> None:
    with pytest.raises(LeaseTtlTooLarge, match="etcdserver: too large lease TTL"):
        leases.grant(1, MAX_TTL + 1)
    with pytest.raises(InvalidRequest, match="lease id 0 means no lease"):
        leases.grant(0, 10)
    assert len(leases) == 0
    leases.grant(1, 10)
    with pytest.raises(LeaseExists, match="lease already exists"):
        leases.grant(1, 20)
    assert leases.time_to_live(1).granted == 10


def test_an_unknown_lease_is_not_found(leases: Leases) -> None:
    for call in (leases.revoke, leases.check, leases.keep_alive, leases.time_to_live):
        with pytest.raises(LeaseNotFound, match="etcdserver: requested lease not found"):
            call(9)


def test_keys_are_given_back_in_order_for_deletion(leases: Leases) -> None:
    leases.grant(1, 10)
    leases.grant(2, 10)
    for key in (b"b", b"a", b"c", b"a"):
        leases.attach(1, key)
    leases.detach(1, b"c")
    leases.detach(2, b"never there")
    assert leases.keys(1) == leases.time_to_live(1).keys == [b"a", b"b"]
    assert leases.revoke(1) == [b"a", b"b"]
    leases.detach(1, b"a")
    leases.attach(1, b"a")
    assert leases.keys(1) == []
    assert 1 not in leases
    assert 2 in leases


def test_keep_alive_starts_the_time_anew(leases: Leases, clock: Clock) -> None:
    leases.grant(1, 10)
    for _ in range(5):
        clock.now += 9
        assert leases.keep_alive(1) == 10
        assert leases.expired(10) == []
    clock.now += 10
    with pytest.raises(LeaseNotFound):
        leases.keep_alive(1)
    assert leases.time_to_live(1).remaining == 0
    assert leases.expired(10) == [1]


def test_a_second_life_of_an_id_does_not_end_with_the_first(leases: Leases, clock: Clock) -> None:
    leases.grant(1, 10)
    leases.revoke(1)
    leases.grant(1, 100)
    clock.now += 50
    assert leases.expired(10) == []
    clock.now += 50
    assert leases.expired(10) == [1]


def test_expiry_looks_at_no_more_than_it_may(leases: Leases, clock: Clock) -> None:
    for lease_id in range(1, 101):
        leases.grant(lease_id, 10)
    clock.now += 5
    for lease_id in range(1, 51):
        leases.keep_alive(lease_id)
    clock.now += 5
    due: list[int] = []
    calls = 0
    while (at := leases.next_deadline()) is not None and at <= clock.now:
        due += leases.expired(7)
        calls += 1
    assert sorted(due) == list(range(51, 101))
    assert calls == 15


def test_granting_and_revoking_without_end_keeps_the_heap_small(leases: Leases) -> None:
    for lease_id in range(1, 20_000):
        leases.grant(lease_id, MAX_TTL)
        leases.revoke(lease_id)
    assert len(leases._heap) < 2_000


def test_a_snapshot_gives_full_time_and_keys_come_from_the_key_space(leases: Leases, clock: Clock) -> None:
    leases.grant(2, 20)
    leases.grant(1, 10)
    leases.attach(1, b"a")
    clock.now += 9
    restored = Leases(clock)
    restored.load(leases.dump())
    restored.attach(1, b"a")
    assert restored.dump() == [(1, 10), (2, 20)]
    assert restored.time_to_live(1) == (10, 10, [b"a"])
    clock.now += 100
    restored.restart()
    assert restored.expired(10) == []
    assert restored.time_to_live(2).remaining == 20
    assert restored.next_deadline() == clock.now + 10


def test_ids_are_listed_by_their_end(leases: Leases) -> None:
    for lease_id, ttl in ((3, 10), (1, 30), (2, 20), (4, 10)):
        leases.grant(lease_id, ttl)
    assert leases.ids() == [3, 4, 2, 1]


steps = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.integers(1, 6), st.integers(0, 12)),
        st.tuples(st.just("revoke"), st.integers(1, 6)),
        st.tuples(st.just("keep_alive"), st.integers(1, 6)),
        st.tuples(st.just("pass"), st.integers(0, 8)),
        st.tuples(st.just("expired"), st.integers(1, 4)),
        st.tuples(st.just("restart")),
    ),
    max_size=60,
)


class Model:
    """Every lease with its end and the time it may be given out again."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.leases = Leases(self.clock, retry_interval=3)
        self.table: dict[int, tuple[int, float, float]] = {}

    def play(self, verb: str, *given: int) -> None:
        now = self.clock.now
        if verb == "pass":
            self.clock.now += given[0]
        elif verb == "expired":
            self.expire(given[0])
        elif verb == "restart":
            self.leases.restart()
            self.table = {each: (ttl, now + ttl, 0.0) for each, (ttl, _, _) in self.table.items()}
        elif verb == "grant":
            self.grant(*given)
        else:
            self.touch(verb, given[0])

    def grant(self, lease_id: int, ttl: int) -> None:
        if lease_id in self.table:
            with pytest.raises(LeaseExists):
                self.leases.grant(lease_id, ttl)
            return
        ttl = self.leases.grant(lease_id, ttl)
        self.table[lease_id] = (ttl, self.clock.now + ttl, 0.0)

    def touch(self, verb: str, lease_id: int) -> None:
        known = self.table.get(lease_id)
        if known is None or (verb == "keep_alive" and known[1] <= self.clock.now):
            with pytest.raises(LeaseNotFound):
                getattr(self.leases, verb)(lease_id)
        elif verb == "revoke":
            self.leases.revoke(lease_id)
            del self.table[lease_id]
        else:
            self.leases.keep_alive(lease_id)
            self.table[lease_id] = (known[0], self.clock.now + known[0], 0.0)

    def expire(self, limit: int) -> None:
        now = self.clock.now
        expected = {each for each, (_, end, again) in self.table.items() if end <= now and again <= now}
        got: list[int] = []
        while (at := self.leases.next_deadline()) is not None and at <= now:
            got += self.leases.expired(limit)
        assert len(got) == len(set(got))
        assert set(got) == expected
        for each in got:
            ttl, end, _ = self.table[each]
            self.table[each] = (ttl, end, now + 3)
        self.check_deadline()

    def check_deadline(self) -> None:
        ends = [max(end, again) for _, end, again in self.table.values()]
        at = self.leases.next_deadline()
        assert not ends or (at is not None and at <= min(ends))


@settings(max_examples=300, deadline=None)
@given(steps)
def test_leases_are_due_exactly_when_a_look_at_all_says_so(script: list[Any]) -> None:
    model = Model()
    for step in script:
        model.play(*step)
        assert sorted(model.table) == [lease_id for lease_id, _ in model.leases.dump()]
    model.expire(2)
