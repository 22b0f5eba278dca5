"""Shares, exact to the request over all workers; counters that forks share; regions of clients."""

from __future__ import annotations

import fcntl
import os
import signal
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.traffic.config import RegionTable, Weighted
from pilothouse.traffic.plane.sharing import FileCounters
from pilothouse.traffic.routing import LocalCounters, Regions, Shares, Slots, schedule
from pilothouse.traffic.routing.shares import MOST


@given(st.lists(st.integers(0, 50), min_size=1, max_size=6).filter(any), st.integers(0, 5000))
def test_any_period_in_a_row_is_split_exactly(weights: list[int], start: int) -> None:
    turns = schedule(weights)
    run = Counter(turns[(start + place) % len(turns)] for place in range(len(turns)))
    total = sum(weights)
    assert all(run[index] * total == weight * len(turns) for index, weight in enumerate(weights))


@pytest.mark.parametrize("weights", [(90, 10), (1, 999), (1, 1), (250, 250, 500), (999, 1), (5, 95), (125, 875)])
def test_any_thousand_in_a_row_are_split_exactly(weights: tuple[int, ...]) -> None:
    turns = schedule(weights)
    for start in range(0, 1000, 7):
        run = Counter(turns[(start + place) % len(turns)] for place in range(1000))
        assert [run[index] for index in range(len(weights))] == [weight * 1000 // sum(weights) for weight in weights]


def test_shares_are_spread_and_not_in_a_row() -> None:
    turns = schedule((80, 20))
    assert len(turns) == 5
    assert [turns.count(1), max(len(run) for run in "".join(map(str, turns * 2)).split("1"))] == [1, 4]


def test_long_schedules_are_scaled_down_and_nobody_with_a_weight_is_left_out() -> None:
    turns = Counter(schedule((1_000_000, 1, 333_333, 0)))
    assert abs(sum(turns.values()) - MOST) <= 1
    assert turns[1] == 1
    assert turns[3] == 0
    assert abs(turns[0] / MOST - 0.75) < 0.001
    with pytest.raises(ValueError, match="negative"):
        schedule((1, -1))
    assert schedule((0, 0)) == ()


def test_a_client_stays_with_its_share_as_long_as_that_has_a_weight() -> None:
    before = Shares("k", (Weighted(backend="a", weight=9), Weighted(backend="b", weight=1, version="canary")))
    counters = LocalCounters()
    shares = [before.next(counters) for _ in range(10)]
    canary = next(each for each in shares if each is not None and each.weighted.backend == "b")
    assert sum(each is canary for each in shares) == 1
    assert before.of_token(canary.token) is canary
    after = Shares("k", (Weighted(backend="a", weight=1), Weighted(backend="b", weight=0, version="canary")))
    assert after.of_token(canary.token) is None
    assert after.of_token("nonsense") is None
    assert not Shares("k", (Weighted(backend="a", weight=0),))
    assert Shares("k", ()).next(counters) is None
    assert Shares("k", ()).of_hash("x") is None


def test_a_hash_is_sent_to_the_same_share_and_all_together_by_weight() -> None:
    made = Shares("k", (Weighted(backend="a", weight=3), Weighted(backend="b", weight=1)))
    places = {f"user-{number}": made.of_hash(f"user-{number}") for number in range(4000)}
    assert all(made.of_hash(name) is place for name, place in places.items())
    count = sum(place is not None and place.weighted.backend == "b" for place in places.values())
    assert 900 < count < 1100


def test_processes_count_together() -> None:
    counters = FileCounters(slots=4)
    slots = Slots(counters).take(["one", "two"])
    counters.assign(slots)
    children = []
    for _ in range(3):
        child = os.fork()
        if child == 0:
            try:
                mine = FileCounters(os.dup(counters.fd))
                mine.assign(slots)
                for _ in range(500):
                    mine.next("one")
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
    assert counters.next("one") == 1500
    assert counters.next("two") == 0
    assert [counters.next("elsewhere"), counters.next("elsewhere")] == [0, 1]
    counters.close()


def test_keys_keep_their_count_over_configurations_and_slots_are_used_again() -> None:
    counters = FileCounters(slots=2)
    slots = Slots(counters)
    counters.assign(slots.take(["a", "b", "c"]))
    assert [counters.next("a"), counters.next("a"), counters.next("c")] == [0, 1, 0]
    counters.assign(slots.take(["a", "c"]))
    assert [counters.next("a"), counters.next("c"), counters.next("c")] == [2, 0, 1]
    counters.close()


def test_a_process_that_was_killed_while_it_counted_holds_nobody_up() -> None:
    counters = FileCounters(slots=1)
    counters.assign({"a": 0})
    child = os.fork()
    if child == 0:
        fcntl.lockf(counters.fd, fcntl.LOCK_EX, 8, 0)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert [counters.next("a"), counters.next("a")] == [0, 1]
    counters.close()


def test_the_longest_range_says_the_region_unless_a_trusted_proxy_does() -> None:
    ranges = (("10.0.0.0/8", "cn"), ("10.1.0.0/16", "cn-east"), ("2001:db8::/32", "eu"))
    made = Regions(RegionTable(header="X-Region", trusted=("192.0.2.0/24",), ranges=ranges, default="rest"))
    assert [made.of(peer, None) for peer in ("10.2.0.1", "10.1.2.3", "::ffff:10.1.0.1", "2001:db8::1", "8.8.8.8")] == [
        "cn",
        "cn-east",
        "cn-east",
        "eu",
        "rest",
    ]
    assert made.of("192.0.2.7", "moon") == "moon"
    assert made.of("10.1.2.3", "moon") == "cn-east"
    assert made.of("192.0.2.7", None, client="10.1.2.3") == "cn-east"
    assert made.of("unix", None) == "rest"
    assert (made.header, made.is_used, Regions(RegionTable()).is_used) == ("x-region", True, False)
    with pytest.raises(ValueError, match="10"):
        Regions(RegionTable(ranges=(("10.0.0.0/40", "x"),)))
