from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import labels
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.labels import EVERYTHING, NOTHING, Requirement, Selector, SelectorError
from support.goldenvalues import cases

keys = st.sampled_from(["a", "b", "c", "x/y"])
values = st.sampled_from(["", "1", "2", "10", "v"])
sets = st.dictionaries(keys, values)
requirements = st.one_of(
    st.builds(Requirement, keys, st.sampled_from(["=", "==", "!="]), values.map(lambda value: (value,))),
    st.builds(Requirement, keys, st.sampled_from(["in", "notin"]), st.sets(values, min_size=1).map(sorted).map(tuple)),
    st.builds(Requirement, keys, st.sampled_from(["exists", "!"])),
    st.builds(Requirement, keys, st.sampled_from(["gt", "lt"]), st.sampled_from([("1",), ("5",)])),
)
selectors = st.lists(requirements, max_size=4).map(Selector)


@pytest.mark.parametrize(("text", "gave"), cases("labels"))
def test_text_is_read_as_kubernetes_does(text: str, gave: dict[str, str]) -> None:
    if "error" in gave:
        with pytest.raises(SelectorError) as caught:
            labels.parse(text)
        assert str(caught.value) == gave["error"]
    else:
        assert str(labels.parse(text)) == gave["string"]


@pytest.mark.parametrize(("given_", "gave"), cases("labelmatch"))
def test_labels_match_as_in_kubernetes(given_: str, gave: dict[str, bool]) -> None:
    case = json.loads(given_)
    assert labels.parse(case["S"]).matches(case["L"]) is gave["match"]


@pytest.mark.parametrize(("given_", "gave"), cases("labelselector"))
def test_a_label_selector_is_checked_and_compiled_as_kubernetes_does(given_: str, gave: dict[str, Any]) -> None:
    selector = json.loads(given_)
    errors = ErrorList()
    labels.validate_label_selector(selector, Path("spec").child("selector"), errors)
    assert list(map(str, errors)) == gave["errors"]
    if "error" in gave:
        with pytest.raises(SelectorError) as caught:
            labels.from_label_selector(selector)
        assert str(caught.value) == gave["error"]
    else:
        assert str(labels.from_label_selector(selector)) == gave["string"]


@given(selectors, sets)
def test_the_text_of_a_selector_takes_the_same_labels(selector: Selector, given_: dict[str, str]) -> None:
    again = labels.parse(str(selector))
    assert again == selector
    assert hash(again) == hash(selector)
    assert again.matches(given_) == selector.matches(given_)


@given(requirements, sets)
def test_opposites_take_opposite_labels(requirement: Requirement, given_: dict[str, str]) -> None:
    opposite = {"=": "!=", "==": "!=", "!=": "=", "in": "notin", "notin": "in", "exists": "!", "!": "exists"}
    if requirement.operator in opposite:
        other = Requirement(requirement.key, opposite[requirement.operator], requirement.values)  # type: ignore[arg-type]
        assert requirement.compile()(given_) != other.compile()(given_)


@given(st.lists(requirements, max_size=4), sets)
def test_a_selector_is_the_conjunction_of_its_requirements(all_: list[Requirement], given_: dict[str, str]) -> None:
    assert Selector(all_).matches(given_) == all(Selector([one]).matches(given_) for one in all_)


@given(sets, sets)
def test_a_selector_of_labels_takes_those_that_have_them(wanted: dict[str, str], given_: dict[str, str]) -> None:
    selector = labels.from_labels(wanted)
    assert selector.matches(given_) == (wanted.items() <= given_.items())
    assert labels.from_label_selector({"matchLabels": wanted}) == selector
    assert all(selector.exact(key) == value for key, value in wanted.items())


@given(st.text(alphabet="ab=!,()<> in\t\x00é/", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        selector = labels.parse(text)
    except SelectorError:
        return
    assert labels.parse(str(selector)) == selector


def test_everything_and_nothing() -> None:
    assert (EVERYTHING.matches({}), EVERYTHING.empty) == (True, True)
    assert (NOTHING.matches({"a": "b"}), NOTHING.empty) == (False, False)
    assert labels.from_label_selector(None) is NOTHING
    assert labels.from_label_selector({}) == labels.parse("") == EVERYTHING != NOTHING
    assert (repr(labels.parse("a=b")), repr(NOTHING)) == ("Selector('a=b')", "NOTHING")
    assert labels.parse("a!=b").exact("a") is labels.parse("a=b").exact("c") is None


def test_requirements_that_no_text_can_give_are_found_wrong() -> None:
    assert Requirement("a", "in").check().message().endswith("values set can't be empty")
    assert Requirement("a", "=", ("1", "2")).check().message().endswith("requires one single value")
    assert Requirement("a", "gt", ("1", "2")).check().message().endswith("exactly one value is required")


def test_a_selector_is_read_once() -> None:
    assert labels.parse("app=web,tier in (a,b)") is labels.parse("app=web,tier in (a,b)")
    long = ",".join(f"key{number}=x" for number in range(100))
    assert labels.parse(long) is not labels.parse(long)


def test_labels_of_an_object_are_checked() -> None:
    errors = ErrorList()
    labels.validate_labels({"a b": "c d", "good": ""}, Path("metadata").child("labels"), errors)
    assert [error.field for error in errors] == ["metadata.labels"] * 2
    assert 'Invalid value: "a b": name part must consist of' in errors.message()
