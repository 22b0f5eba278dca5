"""Histograms that add up and are off by no more than they say; windows of whole seconds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from pilothouse.traffic.numbers import WIDTH, Histogram, Key, Rates, Second, Windows, bounds_of, bucket_of
from pilothouse.traffic.numbers.exposition import Totals

_SECONDS = st.floats(0, 10_000, allow_nan=False)


def histogram(values: list[float]) -> Histogram:
    made = Histogram()
    for value in values:
        made.add({bucket_of(value): 1})
    return made


@given(_SECONDS)
def test_a_bucket_has_its_durations_and_is_no_wider_than_it_says(seconds: float) -> None:
    low, high = bounds_of(bucket_of(seconds))
    micros = int(seconds * 1e6) / 1e6
    assert low <= micros + 1e-12
    assert micros < high
    assert high - low <= max(1.0000001e-6, low * WIDTH * 1.0000001)


def test_buckets_follow_each_other() -> None:
    for bucket in range(2000):
        assert bounds_of(bucket)[1] == bounds_of(bucket + 1)[0]
    assert [bucket_of(value) for value in (-1.0, 0.0, math.nan, math.inf)] == [0, 0, 0, 0]


@given(st.lists(_SECONDS, min_size=1, max_size=200), st.lists(_SECONDS, max_size=200), st.floats(0.01, 1))
def test_a_quantile_of_a_sum_is_off_by_half_a_bucket_at_most(one: list[float], two: list[float], part: float) -> None:
    made = histogram(one)
    made.add(histogram(two).counts)
    ordered = sorted([*one, *two])
    exact = ordered[max(1, math.ceil(part * len(ordered))) - 1]
    (found,) = made.quantiles([part])
    assert abs(found - exact) <= max(1e-6, exact * WIDTH)


def test_how_many_were_longer() -> None:
    made = histogram([0.1, 0.2, 0.9, 1.5])
    assert [made.over(bound) for bound in (0.05, 0.8, 1.0, 2.0)] == [4, 2, 1, 0]
    assert Histogram().quantiles([0.5, 0.99]) == [0.0, 0.0]


def told(code: int, count: int = 1, seconds: float = 0.01) -> Second:
    return Second({code: count}, {bucket_of(seconds): count}, seconds * count, 10 * count, 100 * count)


STABLE = Key("shop/web", "0", "shop/web:80", "stable", "eu")
CANARY = Key("shop/web", "0", "shop/web-canary:80", "canary", "us")


def test_a_window_is_of_whole_seconds_that_are_over() -> None:
    windows = Windows()
    for second in range(10):
        windows.add(100.5 + second, [(STABLE, told(200, 10)), (CANARY, told(503 if second >= 5 else 200, 2, 1.0))])
        windows.add(100.9 + second, [(STABLE, told(200, 5))])  # another worker
    everything = windows.over(10, 110.1)
    assert (everything.requests, everything.errors, everything.rate) == (170, 10, 17.0)
    last = windows.over(5, 110.2, version="canary")
    assert (last.requests, last.errors, last.error_ratio) == (10, 10, 1.0)
    assert last.codes == {503: 10}
    assert last.p95 == pytest.approx(1.0, rel=WIDTH)
    assert last.mean == pytest.approx(1.0)
    assert (last.bytes_in, last.bytes_out) == (100, 1000)
    # The second that goes on does not count yet, and neither does one of which workers may still tell.
    assert windows.over(1, 109.9, version="canary").requests == 2
    assert windows.over(10, 110.05).requests == 153
    assert windows.over(10, 110.11).requests == 170
    assert windows.over(1, 109.9).seconds == 1.0
    assert windows.over(5, 110.1, region="eu", route="shop/web").requests == 75
    assert windows.over(5, 110.1, region="mars").requests == 0
    assert windows.over(5, 110.1, rule="0", backend="shop/web:80").p50 == pytest.approx(0.01, rel=WIDTH)


def test_what_is_too_old_is_forgotten() -> None:
    windows = Windows(keep=5)
    windows.add(100.0, [(STABLE, told(200))])
    windows.add(105.0, [(CANARY, told(200))])
    assert windows.keys() == [STABLE, CANARY]
    windows.add(106.0, [])
    assert windows.keys() == [CANARY]
    assert windows.over(100, 107.0).requests == 1


def test_a_second_that_is_told_of_late_keeps_its_place() -> None:
    windows = Windows()
    for second in (100, 102, 101, 102, 100):
        windows.add(second, [(STABLE, told(200))])
    assert [windows.over(1, second + 1.1).requests for second in (99, 100, 101, 102)] == [0, 2, 1, 2]


def test_windows_are_summed_up_by_what_is_asked_for() -> None:
    windows = Windows()
    windows.add(100, [(STABLE, told(200, 3)), (CANARY, told(500, 2)), (STABLE._replace(region="us"), told(200))])
    windows.add(99, [(STABLE, told(200))])
    found = windows.grouped(1, 101.1, lambda key: key.version if key.route == "shop/web" else None)
    assert {version: (each.requests, each.errors) for version, each in found.items()} == {
        "stable": (4, 0),
        "canary": (2, 2),
    }
    assert windows.grouped(2, 101.1, lambda key: None if key.region == "eu" else key.region).keys() == {"us"}
    assert windows.grouped(1, 99.0, lambda key: key.version) == {}


@given(
    st.lists(st.tuples(st.integers(100, 120), st.sampled_from("ab"), st.integers(0, 9), st.integers(0, 9))),
    st.integers(1, 10),
    st.integers(100, 125),
)
def test_rates_are_the_sums_of_whole_seconds(came: list[tuple[int, str, int, int]], seconds: int, now: int) -> None:
    rates = Rates(keep=300)
    for second, backend, requests, failures in came:
        rates.add(second, [((backend, "x:1"), requests, failures)])
    wanted = [each for each in came if now - seconds <= each[0] < now]
    assert rates.over(seconds, now + 0.1) == {
        (backend, "x:1"): (
            sum(each[2] for each in wanted if each[1] == backend),
            sum(each[3] for each in wanted if each[1] == backend),
        )
        for backend in {each[1] for each in wanted}
    }


def test_rates_forget_what_is_too_old() -> None:
    rates = Rates(keep=5)
    rates.add(100, [(("a", "x:1"), 1, 0)])
    rates.add(106, [(("a", "x:1"), 2, 1)])
    assert rates.over(300, 108.0) == {("a", "x:1"): (2, 1)}


def test_an_empty_window_divides_by_nothing() -> None:
    found = Windows().over(5, 100.0)
    assert (found.requests, found.error_ratio, found.rate, found.p99, found.mean) == (0, 0.0, 0.0, 0.0, 0.0)


def test_keys_without_end_are_counted_as_one() -> None:
    windows = Windows()
    windows.add(100.0, [(STABLE._replace(region=str(number)), told(200)) for number in range(10_050)])
    assert len(windows.keys()) == 10_001
    assert windows.over(1, 101.1).requests == 10_050
    assert windows.over(1, 101.1, route="").requests == 50


def test_prometheus_sees_all_that_was_counted() -> None:
    registry = CollectorRegistry()
    totals = Totals(registry)
    totals.add([(STABLE, told(200, 3, 0.004)), (CANARY, told(503, 1, 2.0))])
    totals.add([(STABLE, told(200, 2, 0.02))])
    totals.move({"bytes_spliced": 100, "vectored_writes": 2})
    totals.move({"bytes_spliced": 1})
    totals.refuse({"smuggling": 2})
    totals.set_in_flight({CANARY: 4})
    totals.connections = 7
    labels = dict(zip(Key._fields, STABLE, strict=True))
    canary = dict(zip(Key._fields, CANARY, strict=True))

    def value(name: str, **more: str) -> float | None:
        return registry.get_sample_value(f"pilothouse_gateway_{name}", more)

    assert value("requests_total", code="200", **labels) == 5
    assert value("requests_total", code="503", **canary) == 1
    assert value("received_bytes_total", **labels) == 50
    assert value("sent_bytes_total", **labels) == 500
    assert [value("request_seconds_bucket", le=bound, **labels) for bound in ("0.0025", "0.005", "0.025", "+Inf")] == [
        0,
        3,
        5,
        5,
    ]
    assert value("request_seconds_sum", **canary) == pytest.approx(2.0)
    assert value("in_flight_requests", **canary) == 4
    assert value("client_connections") == 7
    assert value("bytes_spliced_total") == 101
    assert value("refused_total", kind="smuggling") == 2
    assert generate_latest(registry)
