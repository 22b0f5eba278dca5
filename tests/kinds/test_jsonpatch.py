"""JSON patch: RFC 6902's examples, kube-apiserver's leniency, its bounds, and that nothing given is changed."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import jsonpatch
from pilothouse.kinds.jsonpatch import MAX_COPIED_BYTES, MAX_DEPTH, MAX_OPERATIONS, apply, unknown_fields
from pilothouse.kinds.mergepatch import equal
from pilothouse.kinds.patcherrors import BadRequest, Invalid, PatchError, TooLarge

RFC_6902_APPENDIX_A = [
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux"}], {"baz": "qux", "foo": "bar"}),
    ({"foo": ["bar", "baz"]}, [{"op": "add", "path": "/foo/1", "value": "qux"}], {"foo": ["bar", "qux", "baz"]}),
    ({"baz": "qux", "foo": "bar"}, [{"op": "remove", "path": "/baz"}], {"foo": "bar"}),
    ({"foo": ["bar", "qux", "baz"]}, [{"op": "remove", "path": "/foo/1"}], {"foo": ["bar", "baz"]}),
    ({"baz": "q", "foo": "bar"}, [{"op": "replace", "path": "/baz", "value": "boo"}], {"baz": "boo", "foo": "bar"}),
    (
        {"foo": {"bar": "baz", "waldo": "fred"}, "qux": {"corge": "grault"}},
        [{"op": "move", "from": "/foo/waldo", "path": "/qux/thud"}],
        {"foo": {"bar": "baz"}, "qux": {"corge": "grault", "thud": "fred"}},
    ),
    (
        {"foo": ["all", "grass", "cows", "eat"]},
        [{"op": "move", "from": "/foo/1", "path": "/foo/3"}],
        {"foo": ["all", "cows", "eat", "grass"]},
    ),
    (
        {"baz": "qux", "foo": ["a", 2, "c"]},
        [{"op": "test", "path": "/baz", "value": "qux"}, {"op": "test", "path": "/foo/1", "value": 2}],
        {"baz": "qux", "foo": ["a", 2, "c"]},
    ),
    (
        {"foo": "bar"},
        [{"op": "add", "path": "/child", "value": {"grandchild": {}}}],
        {"foo": "bar", "child": {"grandchild": {}}},
    ),
    ({"foo": "bar"}, [{"op": "add", "path": "/baz", "value": "qux", "xyz": 123}], {"foo": "bar", "baz": "qux"}),
    ({"/": 9, "~1": 10}, [{"op": "test", "path": "/~01", "value": 10}], {"/": 9, "~1": 10}),
    ({"foo": ["bar"]}, [{"op": "add", "path": "/foo/-", "value": ["abc"]}], {"foo": ["bar", ["abc"]]}),
]

REFUSED = [
    ([{"op": "test", "path": "/a", "value": 2}], "testing value /a failed: test failed"),
    ([{"op": "test", "path": "/a", "value": 1.0}], "testing value /a failed: test failed"),
    ([{"op": "test", "path": "/a", "value": True}], "testing value /a failed: test failed"),
    ([{"op": "test", "path": "/l/7"}], "path '/l/7': Unable to access invalid index: 7: invalid index referenced"),
    ([{"op": "remove", "path": "/x"}], "error in remove for path: '/x': Unable to remove nonexistent key: x: missing"),
    ([{"op": "remove", "path": "/x/y"}], 'remove operation does not apply: doc is missing path: "/x/y": missing value'),
    ([{"op": "remove", "path": ""}], 'remove operation does not apply: doc is missing path: "": missing value'),
    ([{"op": "add", "path": "/l/4", "value": 1}], "Unable to access invalid index: 4"),
    ([{"op": "add", "path": "/l/-1", "value": 1}], "Unable to access invalid index: -1"),
    ([{"op": "add", "path": "/l/x", "value": 1}], "Unable to access invalid index: x"),
    ([{"op": "add", "path": "/a/x", "value": 1}], 'add operation does not apply: doc is missing path: "/a/x"'),
    ([{"op": "add", "value": 1}], "add operation failed to decode path: missing value"),
    ([{"op": "replace", "path": "/l/-", "value": 1}], "Unable to access invalid index: -"),
    ([{"op": "replace", "path": "/n/o", "value": 1}], "replace operation does not apply: doc is missing path: /n/o"),
    ([{"op": "replace", "path": "", "value": 1}], "replace operation value must be object or array"),
    ([{"op": "replace", "path": "", "value": [1]}], "the patch makes a list of the object"),
    ([{"op": "move", "from": "/x", "path": "/y"}], "Unable to remove nonexistent key: x"),
    ([{"op": "move", "path": "/y"}], "move operation failed to decode from: missing value"),
    ([{"op": "move", "from": "/m", "path": "/m/n"}], "doc is missing destination path"),
    ([{"op": "copy", "from": "/x/y", "path": "/y"}], "copy operation does not apply: doc is missing from path: /x/y"),
    ([{"op": "copy", "from": "/a", "path": "/x/y"}], "copy operation does not apply: doc is missing destination path"),
    ([{"op": "test", "path": "a", "value": 1}], "path 'a' does not start with '/'"),
    ([{"op": "jump", "path": "/a"}], "Unexpected kind: jump"),
    ([{}], "Unexpected kind: unknown"),
    ([None], "Unexpected kind: unknown"),
]

UNDECODABLE = [
    ({"op": "x"}, "object into Go value of type []handlers.jsonPatchOp"),
    ("x", "string into Go value of type []handlers.jsonPatchOp"),
    ([1], "number into Go value of type handlers.jsonPatchOp"),
    ([{"op": 1}], "number into Go struct field jsonPatchOp.op of type string"),
    ([{"op": "add", "path": ["a"]}], "array into Go struct field jsonPatchOp.path of type string"),
    ([{"op": "move", "from": True}], "bool into Go struct field jsonPatchOp.from of type string"),
]


def _document() -> dict[str, Any]:
    return {"a": 1, "l": [1, 2, 3], "m": {"k": "v"}}


@pytest.mark.parametrize(("document", "patch", "expected"), RFC_6902_APPENDIX_A)
def test_the_examples_of_the_standard(document: dict[str, Any], patch: Any, expected: dict[str, Any]) -> None:
    assert apply(document, patch) == expected


@pytest.mark.parametrize(("patch", "explanation"), REFUSED)
def test_what_does_not_apply_is_refused(patch: Any, explanation: str) -> None:
    document = _document()
    with pytest.raises(Invalid) as refused:
        apply(document, patch)
    assert explanation in refused.value.explanation
    assert str(refused.value) == refused.value.explanation
    assert refused.value.message == "the server rejected our request due to an error in our request"
    assert document == _document()


@pytest.mark.parametrize(("patch", "what"), UNDECODABLE)
def test_what_is_no_list_of_operations_is_a_bad_request(patch: Any, what: str) -> None:
    with pytest.raises(BadRequest) as refused:
        apply({}, patch)
    assert refused.value.message == f"error decoding patch: json: cannot unmarshal {what}"


def test_kube_apiserver_is_lenient_where_the_standard_is_not() -> None:
    assert apply({}, [{"op": "replace", "path": "/a", "value": 1}]) == {"a": 1}
    assert apply({}, [{"op": "add", "path": "/a"}]) == {"a": None}
    assert apply({}, [{"op": "copy", "from": "/a", "path": "/b"}]) == {"b": None}
    assert apply({}, [{"op": "test", "path": "/a", "value": None}]) == {}
    assert apply({"a": 1}, [{"op": "test", "path": "", "value": {"a": 1}}]) == {"a": 1}
    assert apply({"a": 1}, [{"op": "replace", "path": "", "value": {"b": 1}}]) == {"b": 1}
    assert apply({"a": 1}, None) == {"a": 1}


def test_negative_indices_count_from_the_end_where_allowed() -> None:
    patch = [{"op": "replace", "path": "/l/-1", "value": 9}, {"op": "test", "path": "/l/-3", "value": 1}]
    assert apply(_document(), patch, negative_indices=True)["l"] == [1, 2, 9]
    with pytest.raises(Invalid):
        apply(_document(), patch)
    with pytest.raises(Invalid):
        apply(_document(), [{"op": "remove", "path": "/l/-4"}], negative_indices=True)


def test_unknown_fields_are_named() -> None:
    patch = [{"op": "test", "path": "/a"}, {"op": "test", "paht": "/a"}, None]
    assert unknown_fields(patch) == ['json patch unknown field "[1].paht"']
    assert unknown_fields({}) == []


def test_the_number_of_operations_is_bounded() -> None:
    operation = {"op": "test", "path": "/a", "value": 1}
    assert apply({"a": 1}, [operation] * MAX_OPERATIONS) == {"a": 1}
    with pytest.raises(TooLarge) as refused:
        apply({"a": 1}, [operation] * (MAX_OPERATIONS + 1))
    assert refused.value.code == 413
    assert refused.value.message == (
        "Request entity too large: The allowed maximum operations in a JSON patch is 10000, got 10001"
    )


def test_copies_may_not_amplify() -> None:
    doubling = [{"op": "copy", "from": "", "path": f"/{number}"} for number in range(40)]
    with pytest.raises(Invalid, match="doc is missing from path"):
        apply({"a": "x"}, doubling)
    doubling = [{"op": "copy", "from": "/a", "path": "/a/-"} for _ in range(40)]
    with pytest.raises(Invalid, match=f"exceeding the limit {MAX_COPIED_BYTES}"):
        apply({"a": ["x" * 100]}, doubling)


def test_moves_may_not_nest_without_end() -> None:
    round_trip = [
        {"op": "add", "path": "/t", "value": {}},
        {"op": "move", "from": "/d", "path": "/t/d"},
        {"op": "move", "from": "/t", "path": "/d"},
    ]
    assert apply({"d": 1}, round_trip * (MAX_DEPTH - 2))["d"]["d"]
    for times in (MAX_DEPTH, 3_000):
        with pytest.raises(Invalid, match="levels deep"):
            apply({"d": 1}, round_trip * times)


def test_a_patch_without_end_is_refused() -> None:
    value: dict[str, Any] = {}
    for _ in range(100_000):
        value = {"a": value}
    with pytest.raises(Invalid, match="nested too deeply"):
        apply({"a": value}, [{"op": "test", "path": "", "value": {"a": {"a": value}}}])
    with pytest.raises(Invalid, match="nested too deeply"):
        apply({"a": value}, [{"op": "copy", "from": "/a", "path": "/b"}])


def test_places_below_lists_are_reached() -> None:
    document = {"l": [{"a": 1}, {"b": [2]}]}
    patch = [{"op": "add", "path": "/l/1/b/-", "value": 3}, {"op": "remove", "path": "/l/0/a"}]
    assert apply(document, patch) == {"l": [{}, {"b": [2, 3]}]}
    assert document == {"l": [{"a": 1}, {"b": [2]}]}


def test_a_copied_value_has_a_life_of_its_own() -> None:
    patch = [
        {"op": "add", "path": "/m/x", "value": {"y": []}},
        {"op": "copy", "from": "/m/x", "path": "/n"},
        {"op": "add", "path": "/n/y/-", "value": 1},
        {"op": "add", "path": "/m/x/y/-", "value": 2},
    ]
    before = copy.deepcopy(patch)
    assert apply(_document(), patch) == {**_document(), "m": {"k": "v", "x": {"y": [2]}}, "n": {"y": [1]}}
    assert patch == before


def test_what_a_patch_leaves_alone_is_shared() -> None:
    document = _document()
    patched = apply(document, [{"op": "add", "path": "/m/x", "value": 1}])
    assert patched["l"] is document["l"]
    assert document == _document()


def test_a_container_is_copied_once_for_all_operations() -> None:
    patching = jsonpatch._Patching({"l": list(range(100))}, negative_indices=False)
    seen = set()
    for number in range(100):
        patching.add({"op": "add", "path": "/l/0", "value": number})
        seen.add(id(patching.root["l"]))
    assert len(seen) == 1


TOKENS = st.sampled_from(["a", "l", "m", "k", "0", "1", "-", "-1", "", "~0", "~1", "00", "+1", "9" * 30])
POINTERS = st.lists(TOKENS, max_size=4).map(lambda tokens: "".join(f"/{token}" for token in tokens))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.sampled_from(["a", "/a", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TOKENS, inner, max_size=3),
    max_leaves=6,
)
OPERATIONS = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]) | VALUES,
        "path": POINTERS | VALUES,
        "from": POINTERS | VALUES,
        "value": VALUES,
    },
)
GOOD_OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "add", "remove", "replace", "move", "copy"]), "path": POINTERS, "from": POINTERS},
    optional={"value": VALUES},
)
DOCUMENTS = st.dictionaries(TOKENS, VALUES, max_size=4)


@given(DOCUMENTS, st.lists(GOOD_OPERATIONS | OPERATIONS, max_size=6) | VALUES, st.booleans())
def test_a_patch_applies_or_is_refused_and_changes_nothing_given(
    document: dict[str, Any], patch: Any, negative_indices: bool
) -> None:
    before = msgspec.json.encode([document, patch])
    with contextlib.suppress(PatchError):
        msgspec.json.encode(apply(document, patch, negative_indices=negative_indices))
    assert msgspec.json.encode([document, patch]) == before


@given(DOCUMENTS, VALUES, TOKENS)
def test_add_then_test_holds_and_remove_undoes_it(document: dict[str, Any], value: Any, token: str) -> None:
    path = "/" + token.replace("~", "~0")
    added = apply(document, [{"op": "add", "path": path, "value": value}, {"op": "test", "path": path, "value": value}])
    assert equal(added, {**document, token: value})
    removed = apply(added, [{"op": "remove", "path": path}])
    assert equal(removed, {key: item for key, item in document.items() if key != token})
