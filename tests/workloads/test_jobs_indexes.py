"""Sets of completion indexes: texts and sets agree, whatever the order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.structs import ObjectMeta, Pod
from pilothouse.workloads.jobs_indexes import FAILURES, INDEX, Indexes, failures, index_of

_SETS = st.sets(st.integers(0, 60), max_size=40)


@pytest.mark.parametrize(
    ("indexes", "text"),
    [((), ""), ((0,), "0"), ((0, 1), "0,1"), ((0, 1, 2), "0-2"), ((1, 3, 4, 5, 7, 8), "1,3-5,7,8")],
)
def test_a_set_is_a_short_text(indexes: tuple[int, ...], text: str) -> None:
    assert str(Indexes.of(indexes)) == text
    assert Indexes.read(text, 100) == Indexes.of(indexes)


@pytest.mark.parametrize(
    ("text", "completions", "read"),
    [("0-9", 5, "0-4"), ("7", 5, ""), ("x,1,2-y,3", 10, "1,3"), ("1,2,3", 10, "1-3"), ("4-2", 9, "")],
)
def test_what_is_no_index_is_left_out(text: str, completions: int, read: str) -> None:
    assert str(Indexes.read(text, completions)) == read


@given(_SETS, _SETS)
def test_sets_are_sets(one: set[int], other: set[int]) -> None:
    joined = Indexes.of(one) | Indexes.of(other)
    assert joined == Indexes.of(one | other)
    assert len(joined) == len(one | other)
    assert [index for index in range(70) if index in joined] == sorted(one | other)
    assert Indexes.of(one).common(Indexes.of(other)) == len(one & other)
    assert Indexes.read(str(joined), 1000) == joined


@given(_SETS, st.integers(0, 70), st.integers(0, 20))
def test_the_first_missing_ones(present: set[int], completions: int, count: int) -> None:
    expected = [index for index in range(completions) if index not in present][:count]
    assert Indexes.of(present).missing(completions, count) == expected


@pytest.mark.parametrize(("text", "index"), [("3", 3), ("", None), ("-1", None), ("x", None), ("٣", None)])
def test_a_pod_knows_its_index(text: str, index: int | None) -> None:
    assert index_of(Pod(metadata=ObjectMeta(annotations={INDEX: text}))) == index


@pytest.mark.parametrize(("text", "count"), [("2", 2), ("-2", 0), ("x", 0), ("4294967296", 0)])
def test_counts_that_are_none_are_nothing(text: str, count: int) -> None:
    assert failures(Pod(metadata=ObjectMeta(annotations={FAILURES: text}))) == count
