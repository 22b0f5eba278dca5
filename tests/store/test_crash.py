"""A store under load is killed at random instants and loses nothing that it acknowledged."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pilothouse.store.model import KeyValue
from support.crash import Ledger, run_child
from support.crash_child import Called, Invocation, Opened, Record, Returned, Seen


def kill_repeatedly(directory: Path, kills: int, seed: int) -> Ledger:
    """Start, load and kill a store on one directory, then look at what is there."""
    rng = random.Random(seed)
    ledger = Ledger()
    for run in range(1, kills + 1):
        ledger.add(run, run_child(directory, run, rng))
    final = run_child(directory, kills + 1, rng, writers=0)
    assert any(isinstance(record, Seen) and record.caught_up for record in final)
    ledger.add(kills + 1, final)
    return ledger


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_survives_thirty_kills(tmp_path: Path) -> None:
    ledger = kill_repeatedly(tmp_path / "store", kills=30, seed=1)
    assert ledger.check() == []
    assert ledger.acknowledgements > 1000


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(10))
def test_survives_three_hundred_kills(tmp_path: Path, seed: int) -> None:
    ledger = kill_repeatedly(tmp_path / "store", kills=30, seed=100 + seed)
    assert ledger.check() == []


A1 = KeyValue(b"k1", b"one", 2, 2, 1)
A2 = KeyValue(b"k1", b"two", 2, 3, 2)
LEFT, RIGHT = KeyValue(b"p0a", b"x", 4, 4, 1), KeyValue(b"p0b", b"x", 4, 4, 1)


def opened(
    revision: int, *kvs: KeyValue, at: float = 10.0, compacted: int = -1, leases: tuple[int, ...] = ()
) -> Opened:
    return Opened(at, at + 1, revision, compacted, list(kvs), list(leases))


def put(number: int, value: bytes, revision: int, at: float) -> list[Record]:
    """A put of k1 that was answered."""
    return [Called(at, number, Invocation("put", (b"k1",), value)), Returned(at + 0.5, number, revision=revision)]


GOOD_RUN: list[Record] = [opened(1, at=0.0), *put(1, b"one", 2, 2.0), *put(2, b"two", 3, 3.0), Seen(3, [A1, A2])]


def faults_of(*runs: list[Record]) -> str:
    ledger = Ledger()
    for number, records in enumerate(runs):
        ledger.add(number, records)
    return "\n".join(ledger.check())


def test_the_ledger_accepts_what_is_right() -> None:
    unanswered = Called(4.0, 3, Invocation("pair", (b"p0a", b"p0b"), b"x"))
    assert faults_of(GOOD_RUN, [opened(3, A2), Seen(3, [A1, A2])]) == ""
    assert faults_of([*GOOD_RUN, unanswered], [opened(3, A2)]) == ""
    assert faults_of([*GOOD_RUN, unanswered], [opened(4, A2, LEFT, RIGHT), Seen(4, [A1, A2, LEFT, RIGHT])]) == ""


@pytest.mark.parametrize(
    ("second", "fault"),
    [
        ([opened(2, A1)], "opened at revision 2 after 3"),
        ([opened(3, A1)], "operations can be ordered"),
        ([opened(3)], "operations can be ordered"),
        ([opened(3, KeyValue(b"k1", b"other", 2, 3, 2))], "is not what revision"),
        ([opened(4, A2, LEFT)], "a pair is half there"),
        ([opened(4, A2, LEFT, RIGHT), Seen(4, [LEFT])], "without b'p0b'"),
        ([opened(3, A2), Seen(3, [A2, A1])], "not contiguous"),
        ([opened(3, A2), Seen(3, [A1, KeyValue(b"k1", b"two", 3, 3, 1)])], "and is now"),
        ([opened(3, A2), *put(1, b"three", 3, 12.0)], "given to two writes"),
        ([opened(3, A2), *put(1, b"three", 5, 12.0), *put(2, b"four", 4, 13.0)], "though 5 had been answered"),
        ([opened(3, A2), *put(1, b"three", 4, 12.0), Seen(4, [KeyValue(b"k2", b"z", 4, 4, 1)])], "was acknowledged as"),
        ([opened(3, A2), Called(12.0, 1, Invocation("put")), Returned(13.0, 1, error="NoSpace")], "was refused"),
    ],
)
def test_the_ledger_catches(second: list[Record], fault: str) -> None:
    assert fault in faults_of(GOOD_RUN, second)


def test_the_ledger_catches_lost_leases_and_compactions() -> None:
    grant: list[Record] = [Called(2.0, 1, Invocation("grant", number=7)), Returned(2.5, 1)]
    compact: list[Record] = [Called(3.0, 2, Invocation("compact", number=1)), Returned(3.5, 2)]
    first: list[Record] = [opened(1, at=0.0), *grant, *compact]
    assert faults_of(first, [opened(1, leases=(7,), compacted=1)]) == ""
    assert "leases [7] are gone" in faults_of(first, [opened(1, compacted=1)])
    assert "compacted at -1 after 1" in faults_of(first, [opened(1, leases=(7,))])
