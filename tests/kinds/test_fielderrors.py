from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.fielderrors import OMIT, ErrorList, FieldError, Path, Raw, Struct, json_text, quote
from support.goldenvalues import cases

SPEC = Path("spec")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(-1e15, 1e15) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(("text", "gave"), cases("quote"))
def test_text_is_quoted_as_go_does(text: str, gave: str) -> None:
    assert quote(text) == gave


@pytest.mark.parametrize(("text", "gave"), cases("bad"))
def test_values_are_shown_as_go_does(text: str, gave: str) -> None:
    # the recorded values were read with every number as a 64-bit float
    value = json.loads(text, parse_int=float)
    assert FieldError("FieldValueInvalid", "spec", value, "x").body == gave


@given(VALUES)
def test_what_is_shown_of_a_value_is_its_json(value: Any) -> None:
    assert json.loads(json_text(value)) == value
    assert not set("<>&\u2028\u2029") & set(json_text(value))


@given(st.text())
def test_quoted_text_can_be_printed(text: str) -> None:
    assert quote(text).isprintable()
    assert quote(text).startswith('"')


def test_names_are_sorted_but_for_structs() -> None:
    assert json_text({"b": 1, "a": (2, None)}) == '{"a":[2,null],"b":1}'
    assert json_text(Struct(b=1, a=Struct(z=Raw("1Gi"), y=OMIT))) == '{"b":1,"a":{"z":1Gi,"y":null}}'
    assert json_text(SPEC) == '"spec"'
    assert json_text("\ud800") == '"?"'


def test_numbers_that_are_none_have_names() -> None:
    shown = [FieldError("FieldValueInvalid", "x", value).body for value in (float("nan"), float("inf"), -float("inf"))]
    assert shown == ["Invalid value: NaN", "Invalid value: +Inf", "Invalid value: -Inf"]


def test_paths() -> None:
    path = SPEC.child("template", "spec").child("containers").index(2).child("env").key("a.b")
    assert str(path) == "spec.template.spec.containers[2].env[a.b]"
    assert (str(Path()), repr(SPEC)) == ("<nil>", "Path('spec')")
    assert Path().child("x") == Path("x") != SPEC
    assert hash(Path("x")) == hash(Path().child("x"))


def _all() -> ErrorList:
    errors = ErrorList()
    errors.required(SPEC, "say it")
    errors.required(SPEC)
    errors.invalid(SPEC, -1, "must be greater than or equal to 0")
    errors.invalid(SPEC, OMIT, "no value shown")
    errors.invalid_each(SPEC, "v", ["one", "two"])
    errors.type_invalid(SPEC, "string", "spec in body must be of type integer")
    errors.not_supported(SPEC, "x", ["a", "b"])
    errors.not_supported(SPEC, "x", [])
    errors.not_found(SPEC, "vol")
    errors.duplicate(SPEC, {"name": "x"})
    errors.forbidden(SPEC, "field is immutable")
    errors.too_long(SPEC, 1)
    errors.too_long(SPEC, 63)
    errors.too_long(SPEC, -1)
    errors.too_long_characters(SPEC, 5)
    errors.too_short(SPEC, 1)
    errors.too_short(SPEC, 3)
    errors.too_short(SPEC, -1)
    errors.too_many(SPEC, 4, 3)
    errors.too_many(SPEC, -1, 1)
    errors.too_many(SPEC, 4, -1)
    errors.too_few(SPEC, 0, 1)
    errors.too_few(SPEC, 0, 2)
    errors.too_few(SPEC, 0, -1)
    errors.internal(SPEC, "broken")
    return errors


def test_every_kind_of_error_has_its_text() -> None:
    assert [error.body for error in _all()] == [
        "Required value: say it",
        "Required value",
        "Invalid value: -1: must be greater than or equal to 0",
        "Invalid value: no value shown",
        'Invalid value: "v": one',
        'Invalid value: "v": two',
        'Invalid value: "string": spec in body must be of type integer',
        'Unsupported value: "x": supported values: "a", "b"',
        'Unsupported value: "x"',
        'Not found: "vol"',
        'Duplicate value: {"name":"x"}',
        "Forbidden: field is immutable",
        "Too long: may not be more than 1 byte",
        "Too long: may not be more than 63 bytes",
        "Too long: value is too long",
        "Too long: may not be more than 5 characters",
        "Too short: must be at least 1 character",
        "Too short: must be at least 3 characters",
        "Too short: value is too short",
        "Too many: 4: must have at most 3 items",
        "Too many: must have at most 1 item",
        "Too many: 4: has too many items",
        "Too few: 0: must have at least 1 item",
        "Too few: 0: must have at least 2 items",
        "Too few: 0: has too few items",
        "Internal error: broken",
    ]


def test_causes_repeat_and_the_message_does_not() -> None:
    errors = ErrorList()
    assert errors.message() == ""
    errors.required(SPEC)
    errors.required(SPEC)
    assert errors.message() == "spec: Required value"
    assert errors.causes() == [{"reason": "FieldValueRequired", "message": "Required value", "field": "spec"}] * 2
    errors.forbidden(Path("a"), "no")
    assert errors.message() == "[spec: Required value, a: Forbidden: no]"
