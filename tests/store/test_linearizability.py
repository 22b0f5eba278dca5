from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.linearizability import Kind, Operation, SearchLimitError, check_history, check_key, step

K = b"k"


def get(called: float, returned: float | None, result: bytes | None) -> Operation:
    return Operation(K, Kind.GET, called, returned, result=result)


def put(called: float, returned: float | None, value: bytes) -> Operation:
    return Operation(K, Kind.PUT, called, returned, value=value)


def delete(called: float, returned: float | None, result: bool | None = None) -> Operation:
    return Operation(K, Kind.DELETE, called, returned, result=result)


def cas(called: float, returned: float | None, expected: bytes | None, value: bytes, result: bool | None) -> Operation:
    return Operation(K, Kind.CAS, called, returned, value=value, expected=expected, result=result)


GOOD = {
    "empty": [],
    "read of nothing": [get(0, 1, None)],
    "read after write": [put(0, 1, b"a"), get(2, 3, b"a")],
    "concurrent read sees old": [put(0, 1, b"a"), put(2, 9, b"b"), get(3, 4, b"a")],
    "concurrent read sees new": [put(0, 1, b"a"), put(2, 9, b"b"), get(3, 4, b"b")],
    "old then new within one write": [put(0, 1, b"a"), put(2, 9, b"b"), get(3, 4, b"a"), get(5, 6, b"b")],
    "concurrent writes in either order": [put(0, 9, b"a"), put(0, 9, b"b"), get(10, 11, b"a")],
    "unknown write takes effect late": [put(0, None, b"a"), get(1, 2, None), get(9, 10, b"a")],
    "unknown write never": [put(0, None, b"a"), get(1, 2, None), get(9, 10, None)],
    "unknown write explains a failed cas": [put(0, None, b"z"), cas(1, 2, None, b"b", result=False), get(3, 4, b"z")],
    "unseen unknown write explains a failed cas": [put(0, None, b"z"), cas(1, 2, None, b"b", result=False)],
    "unknown delete": [put(0, 1, b"a"), delete(2, None), get(3, 4, b"a"), get(5, 6, None)],
    "unknown cas happened": [put(0, 1, b"a"), cas(2, None, b"a", b"b", None), get(3, 4, b"b")],
    "cas chain": [put(0, 1, b"a"), cas(2, 5, b"a", b"b", result=True), cas(2, 5, b"b", b"c", result=True)],
    "delete says what it found": [delete(0, 1, result=False), put(2, 3, b"a"), delete(4, 5, result=True)],
    "touching operations are concurrent": [put(0, 1, b"a"), get(1, 2, None)],
}
BAD = {
    "read of a value never written": [put(0, 1, b"a"), get(2, 3, b"b")],
    "lost write": [put(0, 1, b"a"), get(2, 3, None)],
    "stale read": [put(0, 1, b"a"), put(2, 3, b"b"), get(4, 5, b"a")],
    "new then old within one write": [put(0, 1, b"a"), put(2, 9, b"b"), get(3, 4, b"b"), get(5, 6, b"a")],
    "two cas of one value": [
        put(0, 1, b"a"),
        cas(2, 5, b"a", b"b", result=True),
        cas(2, 5, b"a", b"c", result=True),
    ],
    "failed cas that had to succeed": [put(0, 1, b"a"), cas(2, 3, b"a", b"b", result=False)],
    "unknown write undone": [put(0, None, b"a"), get(1, 2, b"a"), get(3, 4, None)],
    "unknown write twice": [put(0, None, b"a"), get(1, 2, b"a"), delete(3, 4), get(5, 6, b"a")],
    "unknown write before its call": [get(0, 1, b"a"), put(2, None, b"a")],
    "delete of nothing": [delete(0, 1, result=True)],
    "readers disagree on the order": [
        put(0, 9, b"a"),
        put(0, 9, b"b"),
        get(10, 11, b"a"),
        get(12, 13, b"b"),
    ],
}


@pytest.mark.parametrize("name", GOOD)
def test_accepts(name: str) -> None:
    assert check_history(GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_rejects(name: str) -> None:
    (violation,) = check_history(BAD[name])
    assert violation.key == K
    assert violation.stuck
    assert violation.done < violation.total
    assert "operations can be ordered" in str(violation)


def test_keys_are_apart() -> None:
    history = [put(0, 1, b"a"), get(2, 3, None)._replace(key=b"other"), get(4, 5, b"a")]
    assert check_history(history) == []
    assert [v.key for v in check_history([*history, get(6, 7, None)])] == [K]


def test_search_is_bounded() -> None:
    unknown = [put(0, None, b"%d" % n) for n in range(24)]
    readers = [get(1, 2, b"%d" % n) for n in range(24)]
    with pytest.raises(SearchLimitError, match="over 1000 configurations"):
        check_key([*unknown, *readers, get(3, 4, b"never")], limit=1000)


def simulate(rng: random.Random, keys: int, clients: int, total: int, unknown: float) -> list[Operation]:
    """Run clients against real registers: each operation acts at one instant inside its interval."""
    registers: dict[bytes, bytes | None] = {}
    clocks = [rng.random() for _ in range(clients)]
    planned: list[tuple[float, Operation]] = []
    for number in range(total):
        client = rng.randrange(clients)
        called = clocks[client]
        returned = called + rng.random() * clients
        acts = rng.uniform(called, returned)
        lost = rng.random() < unknown
        clocks[client] = returned + rng.random() * 0.1
        key, value = b"k%d" % rng.randrange(keys), b"v%d" % number
        if lost and rng.random() < 0.5:
            acts += rng.random() * 20
        kind = rng.choices(list(Kind), (4, 3, 1, 2))[0]
        planned.append((acts, Operation(key, kind, called, None if lost else returned, value=value)))
    planned.sort(key=lambda pair: pair[0])
    done: list[Operation] = []
    for _, planned_operation in planned:
        operation = planned_operation
        state = registers.get(operation.key)
        if operation.kind is Kind.CAS:
            expected = state if rng.random() < 0.6 else b"wrong"
            operation = operation._replace(expected=expected, result=expected == state)
        elif operation.kind is Kind.GET:
            operation = operation._replace(result=state)
        elif operation.kind is Kind.DELETE:
            operation = operation._replace(result=state is not None)
        if operation.returned is None:
            operation = operation._replace(result=None)
            if rng.random() < 0.3:
                done.append(operation)
                continue
        registers[operation.key] = step(state, operation)[1]
        done.append(operation)
    return done


@given(
    rng=st.randoms(use_true_random=True),
    keys=st.integers(1, 3),
    clients=st.integers(1, 6),
    total=st.integers(0, 60),
    unknown=st.sampled_from([0.0, 0.05, 0.2]),
)
@settings(max_examples=150, deadline=None)
def test_accepts_what_real_registers_did(
    rng: random.Random, keys: int, clients: int, total: int, unknown: float
) -> None:
    assert check_history(simulate(rng, keys, clients, total, unknown)) == []


def spoil(rng: random.Random, operation: Operation) -> Operation:
    """Return the operation with a result that it did not have."""
    if operation.kind is Kind.GET:
        return operation._replace(result=b"never" if rng.random() < 0.5 or operation.result is None else None)
    return operation._replace(result=not operation.result)


@given(rng=st.randoms(use_true_random=True), total=st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_catches_any_changed_result_of_a_sequential_history(rng: random.Random, total: int) -> None:
    history = simulate(rng, keys=2, clients=1, total=total, unknown=0)
    spoilable = [n for n, operation in enumerate(history) if operation.kind is not Kind.PUT]
    for n in spoilable:
        spoilt = [*history[:n], spoil(rng, history[n]), *history[n + 1 :]]
        assert check_history(spoilt), spoilt


def brute_force(history: list[Operation]) -> bool:
    """Try every order of every choice of unknown operations."""
    known = [o for o in history if o.returned is not None]
    unknown = [o for o in history if o.returned is None]
    for size in range(len(unknown) + 1):
        for chosen in itertools.combinations(unknown, size):
            if any(legal(order) for order in itertools.permutations([*known, *chosen])):
                return True
    return False


def legal(order: tuple[Operation, ...]) -> bool:
    state = None
    for n, operation in enumerate(order):
        if any(later.returned is not None and later.returned < operation.called for later in order[n + 1 :]):
            return False
        possible, state = step(state, operation)
        if not possible:
            return False
    return True


times = st.integers(0, 12)
values = st.sampled_from([b"a", b"b"])


@st.composite
def operations(draw: st.DrawFn) -> Operation:
    called = draw(times)
    returned = called + draw(st.integers(1, 6)) if draw(st.integers(0, 4)) else None
    kind = draw(st.sampled_from(list(Kind)))
    known = returned is not None
    if kind is Kind.GET:
        return get(called, returned, draw(st.none() | values) if known else None)
    if kind is Kind.PUT:
        return put(called, returned, draw(values))
    if kind is Kind.DELETE:
        return delete(called, returned, draw(st.none() | st.booleans()) if known else None)
    return cas(called, returned, draw(st.none() | values), draw(values), draw(st.booleans()) if known else None)


@given(st.lists(operations(), max_size=5))
@settings(max_examples=400, deadline=None)
def test_agrees_with_brute_force(history: list[Operation]) -> None:
    assert (check_key(history) is None) == brute_force(history)


@pytest.mark.slow
def test_ten_thousand_operations_are_checked_and_one_wrong_read_is_found() -> None:
    rng = random.Random(7)
    history = simulate(rng, keys=20, clients=16, total=10_000, unknown=0.002)
    assert check_history(history) == []
    n = next(n for n, o in enumerate(history) if n > 9_000 and o.kind is Kind.GET and o.returned is not None)
    history[n] = history[n]._replace(result=b"never")
    assert [violation.key for violation in check_history(history)] == [history[n].key]
