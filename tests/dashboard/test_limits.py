"""How often a login may fail from one address."""

from __future__ import annotations

import pytest

from pilothouse.dashboard.limits import FailureLimit
from pilothouse.foundation.clock import FakeClock


def test_after_so_many_failures_an_address_waits_until_the_first_is_long_ago() -> None:
    clock = FakeClock()
    limit = FailureLimit(clock, most=3, seconds=60)
    for _ in range(3):
        assert limit.wait_of("192.0.2.1") == 0
        limit.failed("192.0.2.1")
        clock.advance(10)
    assert limit.wait_of("192.0.2.1") == 30
    assert limit.wait_of("192.0.2.2") == 0
    clock.advance(30)
    assert limit.wait_of("192.0.2.1") == 0
    limit.failed("192.0.2.1")
    assert limit.wait_of("192.0.2.1") == 10


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "", True),
        ("unix", "192.0.2.1", False),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, is_same: bool) -> None:
    limit = FailureLimit(FakeClock(), most=1)
    limit.failed(one)
    assert bool(limit.wait_of(other)) is is_same


def test_addresses_are_bounded() -> None:
    limit = FailureLimit(FakeClock(), most=1)
    for number in range(2_000):
        limit.failed(f"10.0.{number // 256}.{number % 256}")
    assert limit.wait_of("10.0.0.0") == 0
    assert limit.wait_of("10.0.7.207") == 60
