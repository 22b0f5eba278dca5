"""Fields that are picked out to be ignored."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.gitops.selections import SelectionError, remove_expression, remove_pointer

OBJECT: dict[str, Any] = {
    "data": {"config.yaml": "x", "b": "y"},
    "spec": {"list": [{"name": "a", "v": 1}, {"name": "b", "v": 2}, {"v": 3}], "n": None},
    "metadata": {"labels": {"example.com/x": "1"}},
}


def without(expression: str) -> dict[str, Any]:
    obj = copy.deepcopy(OBJECT)
    remove_expression(obj, expression)
    return obj


def test_paths_of_jq() -> None:
    assert without('.data["config.yaml"]')["data"] == {"b": "y"}
    assert without(".data.b")["data"] == {"config.yaml": "x"}
    assert without('.spec.list[] | select(.name == "a")')["spec"]["list"] == [{"name": "b", "v": 2}, {"v": 3}]
    assert without('.spec.list[] | select(.name == "a") | .v')["spec"]["list"][0] == {"name": "a"}
    assert without('.spec.list[] | select(.name == "a" or .v == 3)')["spec"]["list"] == [{"name": "b", "v": 2}]
    assert without('.spec.list[] | select(.name != "a" and .v == 2)')["spec"]["list"][1] == {"v": 3}
    assert without(".spec.list[]?.v")["spec"]["list"] == [{"name": "a"}, {"name": "b"}, {}]
    assert without(".spec.list[0]")["spec"]["list"][0]["name"] == "b"
    assert without(".spec.list[-1]")["spec"]["list"] == OBJECT["spec"]["list"][:2]
    assert without(".data.b, .spec.n")["spec"] == {"list": OBJECT["spec"]["list"]}
    assert without(".nothing[].at.all") == OBJECT
    assert without(".spec.list[] | select(.name)")["spec"]["list"] == [{"v": 3}]
    assert without(".spec[]")["spec"] == {}


@pytest.mark.parametrize(
    "expression", ["del(.a)", ".a |= 1", "..", ".a | map(.b)", ".[", "select(", "", ".a | select(.b > 1)"]
)
def test_what_is_not_understood_is_said(expression: str) -> None:
    if expression in {"..", ""}:
        with pytest.raises(SelectionError):
            without(expression)
        return
    with pytest.raises(SelectionError, match="jsonPointers"):
        without(expression)


def test_pointers() -> None:
    obj = copy.deepcopy(OBJECT)
    for pointer in ("/metadata/labels/example.com~1x", "/spec/list/1", "/spec/list/*/v", "/no/such/thing", ""):
        remove_pointer(obj, pointer)
    assert obj["metadata"]["labels"] == {}
    assert obj["spec"]["list"] == [{"name": "a"}, {}]


@given(st.text(alphabet='.[]"abc|() select=,?0', max_size=30))
def test_any_text_is_an_expression_or_an_error(text: str) -> None:
    try:
        without(text)
    except SelectionError:
        return
