"""Sessions: who has one, when it ends, and how many there may be."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.dashboard.sessions import COOKIE, Session, Sessions, TooManySessions, cookie_of
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.ids import SeededIds


def sessions(clock: FakeClock, most: int = 2) -> Sessions:
    return Sessions(clock, SeededIds(), idle_seconds=60, most_seconds=600, most=most)


def session(user: str = "ada") -> Session:
    nothing: Any = None
    return Session(user=user, groups=(), csrf="c", client=nothing, feeds=nothing)


def test_a_cookie_finds_its_session_and_no_other_does() -> None:
    kept = sessions(FakeClock())
    one, two = session("ada"), session("vera")
    first, second = kept.add(one), kept.add(two)
    assert first != second
    assert kept.find(first) is one
    assert kept.find(second) is two
    assert kept.find("") is None
    assert kept.find(first[:-1]) is None


def test_it_ends_without_use_and_lives_on_with_it() -> None:
    clock = FakeClock()
    kept = sessions(clock)
    cookie = kept.add(session())
    for _ in range(5):
        clock.advance(59)
        assert kept.find(cookie) is not None
    clock.advance(60)
    assert kept.find(cookie) is None
    assert [each.user for each in kept.over()] == ["ada"]
    assert len(kept) == 0


def test_an_open_page_is_use_but_not_for_ever() -> None:
    clock = FakeClock()
    kept = sessions(clock)
    made = session()
    cookie = kept.add(made)
    made.streams = 1
    clock.advance(599)
    assert not kept.is_over(made)
    assert kept.find(cookie) is made
    clock.advance(1)
    assert kept.is_over(made)
    assert kept.find(cookie) is None


def test_no_more_than_so_many() -> None:
    kept = sessions(FakeClock())
    made = session()
    kept.add(made)
    kept.add(session())
    with pytest.raises(TooManySessions, match="2 people"):
        kept.add(session())
    kept.remove(made)
    kept.remove(made)
    kept.add(session())
    assert kept.is_over(made)


def test_the_cookie_among_others() -> None:
    assert cookie_of(f"a=b; {COOKIE}=xyz; c=d") == "xyz"
    assert cookie_of(f"x{COOKIE}=xyz") == ""
    assert cookie_of("") == ""
