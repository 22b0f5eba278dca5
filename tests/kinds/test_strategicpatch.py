"""Strategic merge patch: its directives and orders, its refusals in Kubernetes' words, and its algebra."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.mergepatch import equal
from pilothouse.kinds.patcherrors import BadRequest, Invalid, PatchError, Unmergeable, UnsupportedMediaType
from pilothouse.kinds.schema import ANY, Schema
from pilothouse.kinds.strategicpatch import apply, create_three_way, create_two_way

STRING = Schema("string")
LABELS = Schema("map", element=STRING)
STRATEGY = Schema(
    "object",
    "test.Strategy",
    {"type": STRING, "rolling": LABELS, "plain": STRING},
    patch_strategy=("retainKeys",),
)
PORT = Schema("object", "test.Port", {"port": Schema("integer", format="int32"), "name": STRING})
VOLUME = Schema("object", "test.Volume", {"name": STRING, "host": LABELS, "empty": LABELS})


def _item() -> Mapping[str, Schema]:
    return {
        "name": STRING,
        "image": STRING,
        "labels": LABELS,
        "args": Schema("list", element=STRING),
        "ports": Schema("list", element=PORT, patch_strategy=("merge",), patch_merge_key="port"),
    }


ITEM = Schema("object", "test.Item", _item)


def _root() -> Mapping[str, Schema]:
    return {
        "labels": LABELS,
        "count": Schema("integer", format="int32"),
        "items": Schema("list", element=ITEM, patch_strategy=("merge",), patch_merge_key="name"),
        "volumes": Schema("list", element=VOLUME, patch_strategy=("merge", "retainKeys"), patch_merge_key="name"),
        "finalizers": Schema("list", element=STRING, patch_strategy=("merge",)),
        "keyless": Schema("list", element=ITEM, patch_strategy=("merge",)),
        "tolerations": Schema("list", element=ITEM),
        "strategy": STRATEGY,
        "selector": Schema("object", "test.Selector", {"a": STRING}, patch_strategy=("replace",)),
        "child": ROOT,
        "raw": ANY,
        "nested": Schema("list", element=Schema("list", element=STRING)),
        "odd": Schema("object", "test.Odd", {"a": STRING}, patch_strategy=("merge", "replace")),
    }


ROOT = Schema("object", "test.v1.Root", _root)


def _items(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "image": f"{name}:1"} for name in names]


APPLIED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "maps merge and null removes": (
        {"labels": {"a": "1", "b": "1"}, "count": 1},
        {"labels": {"a": None, "c": "1"}, "count": None},
        {"labels": {"b": "1", "c": "1"}},
    ),
    "an element merges by key": (
        {"items": _items("a", "b")},
        {"items": [{"name": "b", "image": "b:2"}]},
        {"items": [{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:2"}]},
    ),
    "a new element comes first": (
        {"items": _items("a", "b")},
        {"items": _items("c")},
        {"items": _items("c", "a", "b")},
    ),
    "a new element comes after those of the patch before it": (
        {"items": _items("a", "b", "d")},
        {"items": _items("b", "c")},
        {"items": _items("a", "b", "c", "d")},
    ),
    "the patch's order wins over the former one": (
        {"items": _items("a", "b", "c")},
        {"items": [{"name": "c"}, {"name": "a"}]},
        {"items": _items("b", "c", "a")},
    ),
    "the server's own elements keep their place": (
        {"items": _items("1", "a", "2", "b", "3")},
        {"$setElementOrder/items": [{"name": "b"}, {"name": "new"}, {"name": "a"}], "items": _items("new")},
        {"items": _items("1", "2", "b", "new", "a", "3")},
    ),
    "a new element in a freed place counts as the last": (
        {"items": _items("gone", "a", "theirs")},
        {
            "$setElementOrder/items": [{"name": "a"}, {"name": "x"}, {"name": "y"}],
            "items": [*_items("x", "y"), {"name": "gone", "$patch": "delete"}],
        },
        {"items": _items("a", "theirs", "x", "y")},
    ),
    "an order and a replacement": (
        {"items": _items("a", "b")},
        {
            "$setElementOrder/items": [{"name": "c"}, {"name": "a"}],
            "items": [{"$patch": "replace"}, {"name": "b", "$patch": "delete"}, *_items("c", "a")],
        },
        {"items": _items("c", "a")},
    ),
    "an order alone": (
        {"items": _items("a", "b")},
        {"$setElementOrder/items": [{"name": "b"}, {"name": "a"}]},
        {"items": _items("b", "a")},
    ),
    "an order for a list that is new": (
        {},
        {"$setElementOrder/items": [{"name": "a"}, {"name": "b"}], "items": _items("a", "b")},
        {"items": _items("a", "b")},
    ),
    "an order for no list": ({}, {"$setElementOrder/items": [{"name": "a"}]}, {}),
    "an order for an empty list": ({"items": []}, {"$setElementOrder/items": [{"name": "a"}]}, {"items": []}),
    "deletion of an element": (
        {"items": _items("a", "b", "c")},
        {"items": [{"name": "b", "$patch": "delete"}, {"name": "none", "$patch": "delete"}]},
        {"items": _items("a", "c")},
    ),
    "replacement of a list": (
        {"items": _items("a", "b")},
        {"items": [{"$patch": "replace"}, {"name": "c", "image": None}, {"name": "a"}]},
        {"items": [{"name": "c"}, {"name": "a"}]},
    ),
    "an element given twice": (
        {"items": []},
        {"items": [{"name": "a", "image": "1"}, {"name": "a", "args": ["x"]}]},
        {"items": [{"name": "a", "image": "1", "args": ["x"]}]},
    ),
    "a null merge key": (
        {"items": _items("a")},
        {"items": [{"name": None, "image": "b", "args": None}]},
        {"items": [{"name": None, "image": "b"}, *_items("a")]},
    ),
    "replacement of a map": (
        {"labels": {"a": "1"}},
        {"labels": {"$patch": "replace", "b": "1", "c": None}},
        {"labels": {"b": "1"}},
    ),
    "deletion of a map's fields": ({"labels": {"a": "1"}}, {"labels": {"$patch": "delete", "b": "1"}}, {"labels": {}}),
    "replacement of the whole": ({"count": 1}, {"$patch": "replace", "labels": {"a": "1"}}, {"labels": {"a": "1"}}),
    "a list without a strategy is replaced": (
        {"items": [{"name": "a", "args": ["x", "y"]}]},
        {"items": [{"name": "a", "args": ["z"]}]},
        {"items": [{"name": "a", "args": ["z"]}]},
    ),
    "a map to be replaced": ({"selector": {"a": "1"}}, {"selector": {"b": "1"}}, {"selector": {"b": "1"}}),
    "scalars merge": (
        {"finalizers": ["a", "b"]},
        {"finalizers": ["c", "b"]},
        {"finalizers": ["c", "a", "b"]},
    ),
    "scalars are deleted": (
        {"finalizers": ["a", "b", "c"]},
        {"$deleteFromPrimitiveList/finalizers": ["b", "x"]},
        {"finalizers": ["a", "c"]},
    ),
    "scalars are put in order, then deleted": (
        {"finalizers": ["a", "b", "c"]},
        {
            "$setElementOrder/finalizers": ["d", "c", "a"],
            "$deleteFromPrimitiveList/finalizers": ["b"],
            "finalizers": ["d"],
        },
        {"finalizers": ["d", "c", "a"]},
    ),
    "deletion from no list": ({}, {"$deleteFromPrimitiveList/finalizers": ["b"]}, {}),
    "keys that stay": (
        {"strategy": {"type": "Rolling", "rolling": {"a": "1"}}},
        {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}},
        {"strategy": {"type": "Recreate"}},
    ),
    "keys that stay in an element": (
        {"volumes": [{"name": "v", "host": {"path": "/"}}, {"name": "w"}]},
        {"volumes": [{"$retainKeys": ["name", "empty"], "name": "v", "empty": {}, "host": None}]},
        {"volumes": [{"name": "v", "empty": {}}, {"name": "w"}]},
    ),
    "what is new loses nulls and elements with directives": (
        {},
        {"child": {"count": None, "items": [{"name": "a", "$patch": "delete"}, {"name": "b", "image": None}]}},
        {"child": {"items": [{"name": "b"}]}},
    ),
    "a value of another type replaces": ({"labels": "odd"}, {"labels": {"a": "1", "b": None}}, {"labels": {"a": "1"}}),
    "a directive in place of a scalar removes it": ({"count": 1}, {"count": {"$patch": "delete"}}, {}),
    "directives in what is new stay as unknown fields": (
        {},
        {"strategy": {"$retainKeys": ["type"], "type": "a"}},
        {"strategy": {"$retainKeys": ["type"], "type": "a"}},
    ),
    "unknown fields are set": ({"what": {"a": 1}}, {"else": {"b": 1}}, {"what": {"a": 1}, "else": {"b": 1}}),
}

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], type[PatchError], str]] = {
    "no merge key in the patch": (
        {"items": _items("a")},
        {"items": [{"image": "x", "args": ["y", "z"], "labels": {"b": None, "a": 1.5}}]},
        Unmergeable,
        "map: map[args:[y z] image:x labels:map[a:1.5 b:<nil>]] does not contain declared merge key: name",
    ),
    "no merge key in the object": (
        {"items": [{"image": "x"}]},
        {"items": _items("a")},
        Unmergeable,
        "map: map[image:x] does not contain declared merge key: name",
    ),
    "no merge key in a deletion": (
        {"items": _items("a")},
        {"items": [{"$patch": "delete"}]},
        Unmergeable,
        "map: map[$patch:delete] does not contain declared merge key: name",
    ),
    "merge of a list": (
        {"items": _items("a")},
        {"items": [{"$patch": "merge", "name": "a"}]},
        Unmergeable,
        "merging lists cannot yet be specified in the patch",
    ),
    "merge of a map": (
        {"labels": {"a": "1"}},
        {"labels": {"$patch": "merge", "b": "1"}},
        Unmergeable,
        "unknown patch type: merge in map: map[$patch:merge b:1]",
    ),
    "unknown directive of an element": (
        {"items": _items("a")},
        {"items": [{"$patch": 1, "name": "a"}]},
        Unmergeable,
        "unknown patch type: %!s(int64=1) in map: map[$patch:1 name:a]",
    ),
    "an unknown field that is there": (
        {"what": {"a": 1}},
        {"what": {"a": 2}},
        Unmergeable,
        'unable to find api field in struct Root for the json field "what"',
    ),
    "an object below a map": (
        {"labels": {"a": {"b": "1"}}},
        {"labels": {"a": {"b": "2"}}},
        Unmergeable,
        "merging an object in json but data type is not struct, instead is: map",
    ),
    "an object below a scalar": (
        {"count": {"a": {}}},
        {"count": {"a": {"b": 1}}},
        Unmergeable,
        "merging an object in json but data type is not struct, instead is: int32",
    ),
    "a list where the type has none": (
        {"labels": ["a"]},
        {"labels": ["b"]},
        Unmergeable,
        "expected slice or array type, but got: struct",
    ),
    "lists of lists": ({"finalizers": [["a"]]}, {"finalizers": [["b"]]}, Invalid, "lists of lists are not supported"),
    "lists of lists by type": ({"nested": [["a"]]}, {"nested": [["b"]]}, Unmergeable, "unexpected slice of slice"),
    "several types in a list": (
        {"finalizers": ["a"]},
        {"finalizers": [1, {}]},
        Unmergeable,
        "list element types are not identical: [[a] [1 map[]]]",
    ),
    "objects without merge key": (
        {"keyless": _items("a")},
        {"keyless": _items("b")},
        Unmergeable,
        "cannot merge lists without merge key for struct",
    ),
    "keys that stay are no list": (
        {"strategy": {"type": "a"}},
        {"strategy": {"$retainKeys": "type"}},
        BadRequest,
        "invalid patch format of retainKeys",
    ),
    "a field that does not stay": (
        {"strategy": {"type": "a"}},
        {"strategy": {"$retainKeys": ["plain"], "type": "b"}},
        BadRequest,
        "invalid patch format of retainKeys",
    ),
    "deletion without a field": (
        {},
        {"$deleteFromPrimitiveList": ["a"]},
        BadRequest,
        "invalid patch format of primitive list",
    ),
    "order without a field": (
        {},
        {"$setElementOrder": ["a"]},
        BadRequest,
        "invalid patch format of setElementOrder list",
    ),
    "order that is no list": (
        {},
        {"$setElementOrder/items": "a"},
        Unmergeable,
        "expected a []interface {}, but received a string",
    ),
    "order for what is no list": (
        {"items": {"a": 1}},
        {"$setElementOrder/items": []},
        Unmergeable,
        "expected a []interface {}, but received a map[string]interface {}",
    ),
    "order of scalars for objects": (
        {"items": _items("a")},
        {"$setElementOrder/items": ["a"]},
        Unmergeable,
        "expected a map[string]interface {}, but received a string",
    ),
    "an element that the order lacks": (
        {"items": _items("a")},
        {"$setElementOrder/items": [{"name": "a"}], "items": [{"name": "b"}]},
        Unmergeable,
        "The order in patch list:\n[map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:a]]\n",
    ),
    "objects in a list of keys": (
        {"finalizers": ["a"]},
        {"$setElementOrder/finalizers": [{}], "finalizers": ["b"]},
        Unmergeable,
        "expected a string, but received a map[string]interface {}",
    ),
    "an order of nothing at all": (
        {},
        {"$setElementOrder/finalizers": [], "finalizers": []},
        Unmergeable,
        "no elements in any of the given slices",
    ),
    "a directive after the end of the order": (
        {"items": _items("a")},
        {"$setElementOrder/items": [{"name": "b"}], "items": [{"name": "b"}, {"$patch": "replace"}]},
        Unmergeable,
        (
            "The order in patch list:\n[map[name:b] map[$patch:replace]]\n doesn't match $setElementOrder list:\n"
            "[map[name:b]]\n"
        ),
    ),
    "strategies that exclude each other": (
        {"odd": {"a": "1"}},
        {"odd": {"a": "2"}},
        Unmergeable,
        "unexpected patch strategy: [merge replace]",
    ),
}


@pytest.mark.parametrize("case", APPLIED)
def test_a_patch_is_applied(case: str) -> None:
    target, patch, expected = APPLIED[case]
    before = copy.deepcopy((target, patch))
    assert apply(target, patch, ROOT) == expected
    assert (target, patch) == before


@pytest.mark.parametrize("case", REFUSED)
def test_a_patch_is_refused_in_the_words_of_kubernetes(case: str) -> None:
    target, patch, error, message = REFUSED[case]
    before = copy.deepcopy((target, patch))
    with pytest.raises(error) as refused:
        apply(target, patch, ROOT)
    assert refused.value.explanation == message
    assert (target, patch) == before


@pytest.mark.parametrize("schema", [None, ANY, LABELS])
def test_a_type_without_patch_metadata_is_refused(schema: Schema | None) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: apply({}, {}, schema),
        lambda: create_two_way({}, {}, schema),
        lambda: create_three_way({}, {}, {}, schema),
    ]
    for attempt in attempts:
        with pytest.raises(UnsupportedMediaType) as refused:
            attempt()
        assert refused.value.code == 415
        assert refused.value.message.startswith("the body of the request was in an unknown format - accepted media")


def test_a_patch_is_an_object() -> None:
    with pytest.raises(BadRequest) as refused:
        apply({}, [], ROOT)
    assert refused.value.message == "json: cannot unmarshal array into Go value of type map[string]interface {}"
    assert apply({"count": 1}, None, ROOT) == {"count": 1}


def test_a_patch_without_end_is_refused() -> None:
    patch: dict[str, Any] = {}
    for _ in range(100_000):
        patch = {"child": patch}
    with pytest.raises(BadRequest, match="exceeded max depth"):
        apply({}, patch, ROOT)
    with pytest.raises(BadRequest, match="exceeded max depth"):
        create_two_way(patch, {"child": patch}, ROOT)
    with pytest.raises(BadRequest, match="exceeded max depth"):
        create_three_way({}, patch, {"child": patch}, ROOT)


def test_what_a_patch_leaves_alone_is_shared() -> None:
    target: dict[str, Any] = {"items": _items("a", "b"), "labels": {"a": "1"}}
    patched = apply(target, {"items": [{"name": "b", "image": "x"}]}, ROOT)
    assert patched["labels"] is target["labels"]
    assert patched["items"][0] is target["items"][0]


TWO_WAY: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "nothing": ({"items": _items("a")}, {"items": _items("a")}, {}),
    "a list of objects": (
        {"items": _items("a", "b")},
        {"items": [{"name": "c"}, {"name": "a", "image": "a:2"}]},
        {
            "items": [{"name": "c"}, {"name": "a", "image": "a:2"}, {"name": "b", "$patch": "delete"}],
            "$setElementOrder/items": [{"name": "c"}, {"name": "a"}],
        },
    ),
    "the order alone": (
        {"items": _items("a", "b")},
        {"items": _items("b", "a")},
        {"$setElementOrder/items": [{"name": "b"}, {"name": "a"}]},
    ),
    "a list of scalars": (
        {"finalizers": ["a", "b"]},
        {"finalizers": ["c", "a"]},
        {
            "finalizers": ["c"],
            "$deleteFromPrimitiveList/finalizers": ["b"],
            "$setElementOrder/finalizers": ["c", "a"],
        },
    ),
    "keys that stay": (
        {"strategy": {"type": "Rolling", "rolling": {"a": "1"}}},
        {"strategy": {"type": "Recreate"}},
        {"strategy": {"type": "Recreate", "rolling": None, "$retainKeys": ["type"]}},
    ),
    "a list that is replaced": ({"tolerations": _items("a")}, {"tolerations": []}, {"tolerations": []}),
    "fields": ({"count": 1, "labels": {"a": "1"}}, {"labels": {"a": "2"}}, {"count": None, "labels": {"a": "2"}}),
}


@pytest.mark.parametrize("case", TWO_WAY)
def test_a_difference_is_said_as_kubectl_says_it(case: str) -> None:
    original, modified, expected = TWO_WAY[case]
    patch = create_two_way(original, modified, ROOT)
    assert patch == expected
    assert apply(original, patch, ROOT) == modified


def test_what_kubectl_apply_sends() -> None:
    original = {"labels": {"gone": "1", "a": "1"}, "items": _items("a", "gone"), "finalizers": ["a", "gone"]}
    modified = {"labels": {"a": "2"}, "items": [{"name": "new"}, *_items("a")], "finalizers": ["a", "new"], "count": 2}
    current = {
        "labels": {"gone": "1", "a": "1", "theirs": "1"},
        "items": [*_items("a", "gone", "theirs")],
        "finalizers": ["theirs", "a", "gone"],
        "count": 1,
    }
    patch = create_three_way(original, modified, current, ROOT)
    assert patch == {
        "labels": {"gone": None, "a": "2"},
        "items": [{"name": "new"}, {"name": "gone", "$patch": "delete"}],
        "$setElementOrder/items": [{"name": "new"}, {"name": "a"}],
        "finalizers": ["new"],
        "$setElementOrder/finalizers": ["a", "new"],
        "$deleteFromPrimitiveList/finalizers": ["gone"],
        "count": 2,
    }
    assert apply(current, patch, ROOT) == {
        "labels": {"a": "2", "theirs": "1"},
        "items": [*_items("theirs"), {"name": "new"}, *_items("a")],
        "finalizers": ["theirs", "a", "new"],
        "count": 2,
    }


NAMES = st.sampled_from(["a", "b", "c", "d"])
LABEL_VALUES = st.dictionaries(NAMES, NAMES, max_size=3)


def _name(element: Any) -> str:
    return str(element["name"])


PORTS = st.lists(
    st.fixed_dictionaries({"port": st.integers(1, 4)}, optional={"name": NAMES}),
    max_size=3,
    unique_by=lambda port: port["port"],
)
ITEMS: st.SearchStrategy[Any] = st.lists(
    st.fixed_dictionaries(
        {"name": NAMES},
        optional={"image": NAMES, "labels": LABEL_VALUES, "args": st.lists(NAMES, max_size=2), "ports": PORTS},
    ),
    max_size=4,
    unique_by=_name,
)
STRATEGIES = st.fixed_dictionaries({}, optional={"type": NAMES, "rolling": LABEL_VALUES, "plain": NAMES})
VOLUMES: st.SearchStrategy[Any] = st.lists(
    st.fixed_dictionaries({"name": NAMES}, optional={"host": LABEL_VALUES, "empty": LABEL_VALUES}),
    max_size=3,
    unique_by=_name,
)
FLAT = {
    "labels": LABEL_VALUES,
    "count": st.integers(0, 3),
    "items": ITEMS,
    "volumes": VOLUMES,
    "finalizers": st.lists(NAMES, max_size=4, unique=True),
    "tolerations": st.lists(st.fixed_dictionaries({"name": NAMES}), max_size=2),
    "strategy": STRATEGIES,
    "selector": st.fixed_dictionaries({}, optional={"a": NAMES}),
}
OBJECTS = st.fixed_dictionaries({}, optional={**FLAT, "child": st.fixed_dictionaries({}, optional=FLAT)})


@given(OBJECTS, OBJECTS)
def test_the_difference_of_two_objects_makes_the_one_of_the_other(
    original: dict[str, Any], modified: dict[str, Any]
) -> None:
    before = copy.deepcopy((original, modified))
    patch = create_two_way(original, modified, ROOT)
    assert equal(apply(original, patch, ROOT), modified)
    assert (patch == {}) == equal(original, modified)
    assert (original, modified) == before


@given(OBJECTS, OBJECTS)
def test_a_difference_applied_twice_does_nothing_more(original: dict[str, Any], modified: dict[str, Any]) -> None:
    patch = create_two_way(original, modified, ROOT)
    once = apply(original, patch, ROOT)
    assert equal(apply(once, patch, ROOT), once)


@given(OBJECTS, OBJECTS)
def test_three_ways_are_two_where_nobody_else_wrote(original: dict[str, Any], modified: dict[str, Any]) -> None:
    patch = create_three_way(original, modified, original, ROOT)
    assert equal(apply(original, patch, ROOT), modified)


def _decoded(value: Any) -> Any:
    """Leave out what no type has, as a server's decoding does: directives that ended up in what is new."""
    if isinstance(value, dict):
        return {key: _decoded(item) for key, item in value.items() if not key.startswith("$")}
    return [_decoded(item) for item in value] if isinstance(value, list) else value


@given(OBJECTS, OBJECTS, OBJECTS)
def test_applying_again_changes_nothing(
    original: dict[str, Any], modified: dict[str, Any], current: dict[str, Any]
) -> None:
    before = copy.deepcopy((original, modified, current))
    once = _decoded(apply(current, create_three_way(original, modified, current, ROOT), ROOT))
    again = create_three_way(modified, modified, once, ROOT)
    assert equal(apply(once, again, ROOT), once)
    assert (original, modified, current) == before


@given(OBJECTS, OBJECTS, OBJECTS)
def test_apply_gives_what_is_wanted_and_keeps_what_others_added(
    original: dict[str, Any], modified: dict[str, Any], current: dict[str, Any]
) -> None:
    result = apply(current, create_three_way(original, modified, current, ROOT), ROOT)
    labels, wanted, was = (found.get("labels", {}) for found in (result, modified, original))
    assert {key: labels.get(key) for key in wanted} == wanted
    theirs = {key: value for key, value in current.get("labels", {}).items() if key not in was and key not in wanted}
    if "labels" not in original or "labels" in modified:
        assert {key: labels.get(key) for key in theirs} == theirs
    order = [item["name"] for item in result.get("items", []) if item["name"] in _named(modified)]
    assert order == _named(modified)
    if "items" in modified:
        gone = {name for name in _named(original) if name not in _named(modified)}
        assert not gone & set(_named(result))


def _named(found: dict[str, Any]) -> list[str]:
    return [item["name"] for item in found.get("items", [])]


DIRECTIVES = st.sampled_from(
    [
        "$patch",
        "$retainKeys",
        "$setElementOrder/items",
        "$setElementOrder/finalizers",
        "$setElementOrder/x",
        "$setElementOrder",
        "$deleteFromPrimitiveList/finalizers",
        "$deleteFromPrimitiveList/items",
        "$deleteFromPrimitiveList",
    ]
)
FIELDS = st.sampled_from([*_root(), *_item(), "x"]) | DIRECTIVES
ODD = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.just(1.0) | NAMES | st.sampled_from(["delete", "replace"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=4),
    max_leaves=10,
)
ODD_OBJECTS = st.dictionaries(FIELDS, ODD, max_size=5)


@given(OBJECTS | ODD_OBJECTS, ODD_OBJECTS | OBJECTS | ODD)
def test_any_patch_applies_or_is_refused_and_changes_nothing_given(target: dict[str, Any], patch: Any) -> None:
    before = copy.deepcopy((target, patch))
    with contextlib.suppress(PatchError):
        assert type(apply(target, patch, ROOT)) is dict
    assert (target, patch) == before


@given(OBJECTS | ODD_OBJECTS, OBJECTS | ODD_OBJECTS, OBJECTS | ODD_OBJECTS)
def test_any_difference_is_said_or_refused(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    before = copy.deepcopy((one, two, three))
    with contextlib.suppress(PatchError):
        create_two_way(one, two, ROOT)
    with contextlib.suppress(PatchError):
        create_three_way(one, two, three, ROOT)
    assert (one, two, three) == before
