"""JSON merge patch: RFC 7386's examples, and its algebra."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pilothouse.kinds.mergepatch import apply, diff, equal, merge, same
from pilothouse.kinds.patcherrors import BadRequest

RFC_7386_APPENDIX_A: list[tuple[Any, Any, Any]] = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]

KEYS = st.sampled_from(["a", "b", "c", "d"])
SCALARS = st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | st.sampled_from(["x", "y"])


def _values(scalars: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=8,
    )


OBJECTS = st.dictionaries(KEYS, _values(SCALARS), max_size=4)
PATCHES = st.dictionaries(KEYS, _values(SCALARS | st.none()), max_size=4)


@pytest.mark.parametrize(("target", "patch", "expected"), RFC_7386_APPENDIX_A)
def test_the_examples_of_the_standard(target: Any, patch: Any, expected: Any) -> None:
    assert merge(target, patch) == expected


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (None, "Invalid JSON Patch"),
        ([], "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"),
        (1, "error decoding patch: json: cannot unmarshal number into Go value of type map[string]interface {}"),
        ("", "error decoding patch: json: cannot unmarshal string into Go value of type map[string]interface {}"),
    ],
)
def test_a_patch_is_an_object(patch: Any, message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        apply({}, patch)
    assert (refused.value.code, refused.value.message) == (400, message)


def test_nulls_in_the_objects_of_a_list_are_left_out() -> None:
    patch = {"a": [{"b": None, "c": [None]}]}
    for target in ({}, {"a": None}, {"a": 1}, {"a": [{"b": 1}]}):
        assert apply(target, patch) == {"a": [{"c": [None]}]}
    assert apply({"a": {"b": 1}}, patch) == patch


def test_a_patch_without_end_is_refused() -> None:
    patch: dict[str, Any] = {}
    for _ in range(100_000):
        patch = {"a": patch}
    with pytest.raises(BadRequest, match="exceeded max depth"):
        apply({}, patch)


def test_what_a_patch_leaves_alone_is_shared() -> None:
    target = {"a": {"b": 1}, "c": {"d": 1}}
    assert apply(target, {"c": {"e": 1}})["a"] is target["a"]


@given(OBJECTS, OBJECTS)
def test_a_difference_makes_the_one_of_the_other(original: dict[str, Any], modified: dict[str, Any]) -> None:
    patch = diff(original, modified)
    assert equal(apply(original, patch), modified)
    assert (patch == {}) == equal(original, modified)


@example({"a": {}}, {"a": [{"a": None}]})
@given(OBJECTS, PATCHES)
def test_a_patch_applied_twice_does_nothing_more_and_changes_nothing_given(
    target: dict[str, Any], patch: dict[str, Any]
) -> None:
    before = copy.deepcopy((target, patch))
    once = apply(target, patch)
    # A list put in the place of an object keeps the nulls within it, and loses them when it replaces a list.
    assert equal(bare(apply(once, patch)), bare(once))
    assert (target, patch) == before


def bare(value: Any) -> Any:
    """Return a value without the null fields of objects."""
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items() if item is not None}
    return [bare(item) for item in value] if isinstance(value, list) else value


@given(OBJECTS, PATCHES)
def test_a_patch_of_other_fields_commutes(target: dict[str, Any], patch: dict[str, Any]) -> None:
    other = {"z": {"y": [1]}}
    assert equal(apply(apply(target, patch), other), apply(apply(target, other), patch))


@given(_values(SCALARS | st.none()), _values(SCALARS | st.none()))
def test_values_are_equal_when_their_encodings_are(left: Any, right: Any) -> None:
    encoded = [msgspec.json.encode(value, order="sorted") for value in (left, right)]
    if not any(b"-0.0" in text for text in encoded):
        assert equal(left, right) == (encoded[0] == encoded[1])


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ({"a": 1}, {"a": True}, False),
        ({"a": [1]}, {"a": [1.0]}, False),
        ({"a": 0}, {"a": False}, False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": 1}, {"a": 2}, False),
        (None, None, True),
        (None, {}, False),
    ],
)
def test_what_python_takes_for_equal_may_differ_in_json(left: Any, right: Any, expected: bool) -> None:
    assert same(left, right) is expected
