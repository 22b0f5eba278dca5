"""Field sets: their algebra against sets of paths, and FieldsV1."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.fieldset import (
    FieldSet,
    FieldSetError,
    Path,
    decode_fields,
    difference,
    encode_fields,
    field_element,
    has_path,
    index_element,
    intersection,
    key_element,
    leaves,
    of_paths,
    path_text,
    paths,
    recursive_difference,
    size,
    union,
    value_element,
)

ELEMENTS = st.one_of(
    st.sampled_from("abcd").map(field_element),
    st.sampled_from([1, 2, 10, "x", "<é>"]).map(value_element),
    st.sampled_from([1, 80, "n"]).map(lambda v: key_element([("name", v), ("protocol", "TCP")])),
    st.integers(0, 11).map(index_element),
)
PATHS = st.frozensets(st.lists(ELEMENTS, min_size=1, max_size=4).map(tuple), max_size=12)


def members(fields: FieldSet) -> frozenset[Path]:
    return frozenset(paths(fields))


@given(PATHS)
def test_a_set_has_the_paths_it_was_made_of_and_no_others(given_paths: frozenset[Path]) -> None:
    fields = of_paths(given_paths)
    assert members(fields) == given_paths
    assert size(fields) == len(given_paths)
    for path in given_paths:
        assert has_path(fields, path)
        assert has_path(fields, path[:-1]) == (path[:-1] in given_paths)
    assert not has_path(fields, ())


@given(PATHS, PATHS)
def test_algebra_is_that_of_sets_of_paths(a: frozenset[Path], b: frozenset[Path]) -> None:
    left, right = of_paths(a), of_paths(b)
    assert union(left, right) == of_paths(a | b)
    assert intersection(left, right) == of_paths(a & b)
    assert difference(left, right) == of_paths(a - b)
    below = {path for path in a if not any(path[: n + 1] in b for n in range(len(path)))}
    assert recursive_difference(left, right) == of_paths(below)
    assert leaves(left) == of_paths(p for p in a if not any(q[: len(p)] == p and q != p for q in a))
    assert members(left) == a
    assert members(right) == b


@given(PATHS, PATHS, PATHS)
def test_laws_of_the_algebra(a: frozenset[Path], b: frozenset[Path], c: frozenset[Path]) -> None:
    x, y, z = of_paths(a), of_paths(b), of_paths(c)
    assert union(x, union(y, z)) == union(union(x, y), z)
    assert intersection(x, union(y, z)) == union(intersection(x, y), intersection(x, z))
    assert difference(x, union(y, z)) == difference(difference(x, y), z)
    assert union(difference(x, y), intersection(x, y)) == x


@given(PATHS)
def test_fields_v1_round_trip(given_paths: frozenset[Path]) -> None:
    fields = of_paths(given_paths)
    encoded = encode_fields(fields)
    again = decode_fields(msgspec.json.decode(encoded))
    assert again == fields
    assert encode_fields(again) == encoded


def test_order_is_fields_then_keys_then_values_then_indexes() -> None:
    elements = [
        index_element(10),
        index_element(9),
        value_element("a"),
        value_element(2),
        key_element([("port", 443)]),
        key_element([("port", 80)]),
        field_element("b"),
        field_element("Z"),
    ]
    encoded = encode_fields(of_paths([(element,) for element in elements]))
    assert encoded == (
        rb'{"f:Z":{},"f:b":{},"k:{\"port\":80}":{},"k:{\"port\":443}":{},"v:2":{},"v:\"a\"":{},"i:9":{},"i:10":{}}'
    )


def test_a_member_with_children_is_marked() -> None:
    fields = of_paths([("f:a",), ("f:a", "f:b"), ("f:c", "f:d")])
    assert encode_fields(fields) == b'{"f:a":{".":{},"f:b":{}},"f:c":{"f:d":{}}}'


def test_characters_of_html_are_escaped_in_values_as_go_does() -> None:
    assert value_element("<&>") == 'v:"\\u003c\\u0026\\u003e"'


def test_keys_are_read_in_any_spelling_and_unknown_elements_are_dropped() -> None:
    fields = decode_fields({'k:{"protocol":"TCP", "port":80}': {".": {}, "f:port": None}, "z:new": {"f:a": {}}})
    assert fields == of_paths([('k:{"port":80,"protocol":"TCP"}',), ('k:{"port":80,"protocol":"TCP"}', "f:port")])


@pytest.mark.parametrize("bad", [[], "f:a", {"f:a": 1}, {"f": {}}, {"fa": {}}, {"k:[": {}}, {"v:": {}}, {"i:x": {}}])
def test_what_is_not_fields_v1_is_refused(bad: object) -> None:
    with pytest.raises(FieldSetError):
        decode_fields(bad)


def test_paths_are_shown_as_messages_show_them() -> None:
    path = ("f:spec", 'k:{"port":80,"protocol":"TCP"}', 'v:"x"', "i:3")
    assert path_text(path) == '.spec[port=80,protocol="TCP"][="x"][3]'
