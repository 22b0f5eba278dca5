"""The JSON patch that a mutator's change becomes."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.jsonpatch import apply
from pilothouse.kinds.mergepatch import equal
from pilothouse.operator.webhook_patch import json_patch

KEYS = st.text(alphabet="ab/~\u00e9 .", max_size=3)
LEAVES = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from([0.0, 1.0, 2.5]) | st.text("ab", max_size=2)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4))
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=5)


@given(OBJECTS, OBJECTS)
def test_the_patch_makes_the_one_into_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    kept = copy.deepcopy(before), copy.deepcopy(after)
    patch = json.loads(json.dumps(json_patch(before, after)))
    assert equal(apply(before, patch), after)
    assert (before, after) == kept
    assert {each["op"] for each in patch} <= {"add", "remove", "replace"}


@given(OBJECTS)
def test_what_is_the_same_has_no_patch(obj: dict[str, Any]) -> None:
    assert json_patch(obj, copy.deepcopy(obj)) == []


@pytest.mark.parametrize(
    ("before", "after", "patch"),
    [
        ({"a": 1}, {"a": True}, [{"op": "replace", "path": "/a", "value": True}]),
        ({"a": 1}, {"a": 1.0}, [{"op": "replace", "path": "/a", "value": 1.0}]),
        ({"a/b": {"c~d": 1}}, {"a/b": {}}, [{"op": "remove", "path": "/a~1b/c~0d"}]),
        ({"l": [1, 2, 3]}, {"l": [1, 9, 2, 3]}, [{"op": "add", "path": "/l/1", "value": 9}]),
        ({"l": [1, 2, 3, 4]}, {"l": [1, 4]}, [{"op": "remove", "path": "/l/2"}, {"op": "remove", "path": "/l/1"}]),
        (
            {"l": [{"name": "a", "image": "x"}, {"name": "b"}]},
            {"l": [{"name": "a", "image": "y"}, {"name": "b"}]},
            [{"op": "replace", "path": "/l/0/image", "value": "y"}],
        ),
        ({"a": None}, {}, [{"op": "remove", "path": "/a"}]),
        ({}, {"a": None}, [{"op": "add", "path": "/a", "value": None}]),
    ],
)
def test_it_says_no_more_than_is_needed(
    before: dict[str, Any], after: dict[str, Any], patch: list[dict[str, Any]]
) -> None:
    assert equal(json_patch(before, after), patch)
