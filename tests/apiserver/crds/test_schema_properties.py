"""Random structural schemas with objects that fit and objects that do not: the ways through the code agree."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.apiserver.crds import CompiledVersion, complete_definition
from pilothouse.apiserver.crds.checking import check
from pilothouse.apiserver.crds.quick import quick
from pilothouse.apiserver.crds.structural import read
from pilothouse.kinds.fielderrors import ErrorList
from pilothouse.kinds.prune import prune as typed_prune

Raw = dict[str, Any]
NAMES = st.sampled_from(["a", "b", "c", "d-e", "f.g"])


def _bounds(low: str, high: str, most: int) -> st.SearchStrategy[Raw]:
    return st.fixed_dictionaries({}, optional={low: st.integers(0, most), high: st.integers(0, most)})


STRINGS = st.builds(
    lambda bounds, more: {"type": "string", **bounds, **more},
    _bounds("minLength", "maxLength", 4),
    st.sampled_from(
        [{}, {"enum": ["x", "yy"]}, {"pattern": "^[a-z]*$"}, {"format": "date"}, {"default": "x"}, {"nullable": True}]
    ),
)
NUMBERS = st.builds(
    lambda kind, bounds, more: {"type": kind, **bounds, **more},
    st.sampled_from(["integer", "number"]),
    _bounds("minimum", "maximum", 5),
    st.sampled_from([{}, {"exclusiveMinimum": True}, {"multipleOf": 2}, {"format": "int32"}, {"default": 1}]),
)
OTHERS = st.sampled_from(
    [
        {"type": "boolean"},
        {"x-kubernetes-int-or-string": True},
        {"x-kubernetes-preserve-unknown-fields": True},
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    ]
)


def _object(properties: Raw, required: list[str], more: Raw) -> Raw:
    made = {"type": "object", "properties": properties, **more}
    if kept := [name for name in required if name in properties]:
        made["required"] = kept
    return made


def _containers(inner: st.SearchStrategy[Raw]) -> st.SearchStrategy[Raw]:
    lists = st.builds(
        lambda items, bounds, more: {"type": "array", "items": items, **bounds, **more},
        inner,
        _bounds("minItems", "maxItems", 3),
        st.sampled_from([{}, {"x-kubernetes-list-type": "set"}]),
    )
    objects = st.builds(
        _object,
        st.dictionaries(NAMES, inner, max_size=3),
        st.lists(NAMES, max_size=2, unique=True),
        st.sampled_from([{}, {"minProperties": 1}, {"nullable": True}]),
    )
    maps = st.builds(lambda values: {"type": "object", "additionalProperties": values}, inner)
    either = st.builds(lambda one: {**one, "anyOf": [{"minimum": 3}, {"maxLength": 1}]}, STRINGS | NUMBERS)
    neither = st.builds(lambda one: {**one, "not": {"enum": [1, "x"]}}, STRINGS | NUMBERS)
    single = st.builds(lambda one: {**one, "oneOf": [{"enum": [1, "x"]}, {"minLength": 1}]}, STRINGS | NUMBERS)
    return lists | objects | maps | either | neither | single


SCHEMAS = st.recursive(STRINGS | NUMBERS | OTHERS, _containers, max_leaves=6)
ROOTS = st.builds(lambda properties: {"type": "object", "properties": properties}, st.dictionaries(NAMES, SCHEMAS))
SCALARS = (
    st.none() | st.booleans() | st.integers(-2, 7) | st.sampled_from([0.5, 2.0, "", "x", "yy", "ABC", "2020-01-01"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4)


WORDS = [
    *("type", "properties", "items", "additionalProperties", "required", "enum", "default", "allOf", "anyOf", "not"),
    *("pattern", "format", "x-kubernetes-validations", "x-kubernetes-list-type", "nullable", "rule", "maxLength"),
]
JUNK = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=12,
)


def _fitting(schema: Raw) -> Any:
    """Return a value that fits the type of a schema, if not its bounds."""
    match schema.get("type"):
        case "string":
            return "x"
        case "integer" | "number":
            return 2
        case "boolean":
            return True
        case "array":
            return [_fitting(schema["items"])]
        case "object":
            return {name: _fitting(part) for name, part in (schema.get("properties") or {}).items()}
    return 1


def _version(schema: Raw) -> CompiledVersion:
    names = {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"}
    versions = [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]
    spec = {"group": "example.com", "scope": "Cluster", "names": names, "versions": versions}
    return CompiledVersion({"metadata": {"name": "things.example.com"}, "spec": spec}, "v1")


def _resource(fields: Raw) -> Raw:
    metadata = {"name": "a", "uid": "u", "resourceVersion": "1"}
    return {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": metadata, **fields}


@given(ROOTS, OBJECTS)
def test_the_quick_way_never_passes_what_is_wrong(schema: Raw, obj: Raw) -> None:
    node = read(schema)
    if quick(node)(obj):
        assert not check(node, obj).errors
    fitting = _fitting(schema)
    if quick(node)(fitting):
        assert not check(node, fitting).errors


@given(ROOTS, OBJECTS)
def test_pruning_and_defaulting_come_to_rest(schema: Raw, fields: Raw) -> None:
    version = _version(schema)
    once, _ = version.prune(_resource(copy.deepcopy(fields)))
    once = version.default(once)
    twice, messages = version.prune(copy.deepcopy(once))
    assert messages == []
    assert version.default(twice) == once
    assert [str(error) for error in version.validate(twice)] == [str(error) for error in version.validate(once)]


@given(ROOTS)
def test_nothing_is_pruned_of_what_the_schema_knows(schema: Raw) -> None:
    version = _version(schema)
    obj = _resource(_fitting(schema))
    pruned, messages = version.prune(copy.deepcopy(obj))
    assert (pruned, messages) == (obj, [])
    assert typed_prune(version.schema, obj) == (obj, [])


@given(ROOTS, JUNK)
def test_what_is_no_schema_is_refused_or_answered(schema: Raw, junk: Any) -> None:
    crd = {
        "metadata": {"name": "things.example.com"},
        "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": {**schema, "properties": {"a": junk}}}}]},
    }
    complete_definition(ErrorList(), crd)


@given(ROOTS, OBJECTS, OBJECTS)
def test_an_object_that_did_not_change_is_not_refused_by_its_schema(schema: Raw, fields: Raw, others: Raw) -> None:
    version = _version(schema)
    obj = version.default(version.prune(_resource(copy.deepcopy(fields)))[0])
    refused = [str(error) for error in version.validate(obj, copy.deepcopy(obj))]
    # Only sets and maps of the old object that were good before are looked at again; they are the same.
    assert refused == []
    changed = version.default(version.prune(_resource(copy.deepcopy(others)))[0])
    new = {str(error) for error in version.validate(changed)}
    assert {str(error) for error in version.validate(changed, obj)} <= new | {"metadata"}


@given(ROOTS, OBJECTS)
@settings(max_examples=50)
def test_definitions_with_random_schemas_are_answered(schema: Raw, fields: Raw) -> None:
    crd = {
        "metadata": {"name": "things.example.com"},
        "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]},
    }
    rule = {"rule": "self.all(k, k != '')" if not schema["properties"] else "has(self.a) || !has(self.a)"}
    schema["x-kubernetes-validations"] = [rule]
    complete_definition(ErrorList(), crd)


def _nested(depth: int) -> Raw:
    schema: Raw = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def _value(depth: int) -> Raw:
    value: Raw = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_deep_schemas() -> None:
    version = _version(_nested(90))
    obj = _resource(_value(90))
    assert version.prune(obj)[1] == []
    assert not version.validate(version.default(obj))
    with pytest.raises(ValueError, match="nests deeper than 100 levels"):
        read(_nested(300))


def test_hostile_schemas_and_objects_end_soon() -> None:
    begun = time.perf_counter()
    enum = [str(number) for number in range(50_000)]
    hostile = {"type": "string", "pattern": "^(a+)+$"}
    listed = {"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}
    version = _version(
        {
            "type": "object",
            "properties": {"e": {"type": "string", "enum": enum}, "p": hostile, "l": listed},
        }
    )
    obj = _resource({"e": "x", "p": "a" * 10_000 + "b", "l": [{"n": number} for number in range(5_000)]})
    errors = version.validate(obj)
    assert [error.field for error in errors][:2] == ["e", "p"]
    assert time.perf_counter() - begun < 10
