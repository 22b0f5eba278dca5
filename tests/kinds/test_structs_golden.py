"""Typed structs against the tables of types and the objects that a real server answered: nothing is lost, anywhere."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.kinds import structs
from pilothouse.kinds.registry import builtin
from pilothouse.kinds.schema import Schema
from pilothouse.kinds.structs import Resource, Struct, StructError, decode, encode, from_dict, to_dict, type_for
from pilothouse.kinds.structs._absent import CARRIED_KEY
from pilothouse.kinds.structs._index import GROUPS, MODULES
from pilothouse.kinds.table import schema_for

GOLDEN = Path(__file__).parent.parent / "golden"
REFUSED = 3
"""Objects in the recordings that a server refuses too: a number in a config map, a word as a port, wrong base64."""

Object = dict[str, Any]


def whole_objects(tree: Any) -> Iterator[tuple[type[Resource], Object]]:
    """Give all objects of kinds that have structs, at any depth of the recordings."""
    if isinstance(tree, dict):
        if isinstance(tree.get("apiVersion"), str) and isinstance(tree.get("kind"), str):
            group, _, version = tree["apiVersion"].rpartition("/")
            if kind := type_for(group, version, tree["kind"]):
                yield kind, tree
        for below in tree.values():
            yield from whole_objects(below)
    elif isinstance(tree, list):
        for below in tree:
            yield from whole_objects(below)


def schema_of(kind: type[Resource]) -> Schema:
    found = schema_for(*kind.gvk)
    assert found is not None
    return found


def changed(tree: Any, schema: Schema, change: Callable[[Object, Schema], Object]) -> Any:
    """Give a copy with `change` done to each value that is an object with fields, and then to what is in it."""
    if schema.shape == "object" and isinstance(tree, dict):
        made = change(tree, schema)
        return {
            name: changed(value, schema.fields[name], change) if name in schema.fields else value
            for name, value in made.items()
        }
    if schema.element and schema.shape == "map" and isinstance(tree, dict):
        return {name: changed(value, schema.element, change) for name, value in tree.items()}
    if schema.element and schema.shape == "list" and isinstance(tree, list):
        return [changed(value, schema.element, change) for value in tree]
    return tree


def normal(tree: Object, schema: Schema) -> Object:
    """Take known fields with null away; give inner objects the kind that their place says."""
    made = {name: value for name, value in tree.items() if value is not None or name not in schema.fields}
    if schema.name.endswith("core.v1.PersistentVolumeClaim"):
        made |= {"apiVersion": "v1", "kind": "PersistentVolumeClaim"}
    return made


def readable() -> Iterator[tuple[type[Resource], Object]]:
    for place in sorted(GOLDEN.glob("*.json")):
        for kind, tree in whole_objects(json.loads(place.read_text())):
            try:
                from_dict(tree, kind)
            except StructError:
                continue
            yield kind, tree


OBJECTS = list(readable())


def test_the_recordings_have_many_objects() -> None:
    everything = [found for place in GOLDEN.glob("*.json") for found in whole_objects(json.loads(place.read_text()))]
    assert len(everything) > 400
    assert len(everything) - len(OBJECTS) <= REFUSED
    assert len({kind for kind, _ in OBJECTS}) > 40


def test_recorded_objects_come_back_as_they_were() -> None:
    for kind, tree in OBJECTS:
        expected = changed(tree, schema_of(kind), normal)
        read = decode(json.dumps(tree).encode(), kind)
        assert json.loads(encode(read)) == expected
        assert to_dict(read) == expected
        assert from_dict(tree, kind) == read
        assert decode(encode(read), kind) == read


def test_what_a_server_answers_takes_the_fast_way() -> None:
    """Only a list that Go writes as null does not."""
    slow = set()
    for place in ("defaults", "lists", "patches", "values"):
        for kind, tree in whole_objects(json.loads((GOLDEN / f"{place}.json").read_text())):
            if tree.get("metadata", {}).get("uid") == "<uid>" and "<nodePort>" not in json.dumps(tree):
                try:
                    msgspec.json.decode(json.dumps(tree), type=kind)
                except msgspec.ValidationError as error:
                    slow.add(f"{kind.__name__}: {error}")
    assert slow == {"HorizontalPodAutoscaler: Expected `array`, got `null` - at `$.status.currentMetrics`"}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
names = st.text(max_size=8) | st.sampled_from([CARRIED_KEY, "carried", "node_name", "Spec", "podIp", "kinds"])


@settings(max_examples=100, deadline=None)
@given(
    found=st.sampled_from(OBJECTS),
    pool=st.lists(st.dictionaries(names, values, max_size=3), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
    rate=st.sampled_from([0.05, 0.5, 1.0]),
)
def test_unknown_fields_at_any_level_come_back(
    found: tuple[type[Resource], Object], pool: list[Object], seed: int, rate: float
) -> None:
    kind, tree = found
    chance = Random(seed)

    def add(tree: Object, schema: Schema) -> Object:
        if chance.random() > rate:
            return tree
        return tree | {name: value for name, value in chance.choice(pool).items() if name not in schema.fields}

    schema = schema_of(kind)
    tree = changed(tree, schema, add)
    kept = copy.deepcopy(tree)
    expected = changed(tree, schema, normal)
    read = decode(msgspec.json.encode(tree), kind)
    assert to_dict(read) == expected
    assert to_dict(from_dict(tree, kind)) == expected
    assert tree == kept
    assert decode(encode(read), kind) == read


ALL = sorted(
    ((module, name.strip("()")) for module, listed in MODULES.items() for name in listed.split()),
    key=lambda item: item,
)


def struct(module: str, name: str) -> type[Struct]:
    found: type[Struct] = getattr(getattr(structs, module), name)
    return found


def built_in() -> list[type[Resource]]:
    made = [struct(*item) for item in ALL]
    return [kind for kind in made if issubclass(kind, Resource)]


def test_classes_know_their_resources_as_the_registry_does() -> None:
    only_sent = {"Eviction", "Scale", "TokenRequest"}
    for kind in built_in():
        found = builtin().by_kind(*kind.gvk)
        if found is None:
            assert kind.__name__ in only_sent
            assert kind.plural == ""
            continue
        assert (kind.group, kind.version, kind.plural, kind.namespaced) == (
            found.group,
            found.version,
            found.resource,
            found.namespaced,
        )
        assert type_for(*kind.gvk) is kind
        assert kind().kind == found.kind
        assert kind().api_version == found.api_version


SCALARS = {"integer": msgspec.inspect.IntType, "number": msgspec.inspect.FloatType, "boolean": msgspec.inspect.BoolType}


def compare(found: Any, schema: Schema, done: dict[str, type]) -> None:
    """Compare a type with its schema, and with theirs all types that it is made of."""
    if isinstance(found, msgspec.inspect.UnionType):
        found = next(part for part in found.types if not isinstance(part, msgspec.inspect.NoneType))
    if isinstance(found, msgspec.inspect.StructType) and schema.shape == "object":
        if schema.name in done:
            assert done[schema.name] is found.cls
            return
        done[schema.name] = found.cls
        fields = {one.encode_name: one.type for one in found.fields if one.encode_name != CARRIED_KEY}
        assert set(fields) == set(schema.fields), schema.name
        for name, below in schema.fields.items():
            compare(fields[name], below, done)
    elif schema.element:
        compare(found.item_type if schema.shape == "list" else found.value_type, schema.element, done)
    elif schema.shape in SCALARS:
        assert isinstance(found, SCALARS[schema.shape])


def test_every_field_of_every_kind_is_there() -> None:
    done: dict[str, type] = {}
    for kind in built_in():
        compare(msgspec.inspect.type_info(kind), schema_of(kind), done)
    assert len(done) > 350


@pytest.mark.parametrize(("module", "name"), ALL)
def test_an_empty_struct_is_an_empty_object(module: str, name: str) -> None:
    kind = struct(module, name)
    made = kind()
    own = {"apiVersion", "kind"} if issubclass(kind, Resource) else set()
    assert set(to_dict(made)) == own
    assert decode(b"{}", kind) == made
    assert made.carried == {}


def test_groups_name_modules_that_have_their_kinds() -> None:
    assert {kind.gvk[:2] for kind in built_in()} == set(GROUPS)
