"""Whatever structs are made of: servers take the schema, take what `encode` writes, and lose nothing of it."""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.kinds.structs import IntOrString, ObjectMeta, Quantity, Resource, Struct, decode, encode, to_dict
from pilothouse.operator.crd_markers import Format, Maximum, MaxLength, Minimum, MinLength, Pattern
from pilothouse.operator.crds import definition
from pilothouse.testing import BlockingPlane, ControlPlane

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NAMES = ("a", "first_name", "pod_ip", "kind", "value2", "class_", "spec", "metadata", "x_y_z")
SEQUENCE: Any = Sequence
MAPPING: Any = Mapping
COUNTER = itertools.count()


class Made(NamedTuple):
    """A type and what it may hold."""

    hint: Any
    values: st.SearchStrategy[Any]


LEAVES = [
    Made(str, TEXTS),
    Made(bool, st.booleans()),
    Made(int, st.integers(-(2**63), 2**63 - 1)),
    Made(float, st.floats(allow_nan=False, allow_infinity=False)),
    Made(bytes, st.binary(min_size=1, max_size=8)),
    Made(IntOrString, st.integers(-(2**31), 2**31 - 1) | TEXTS),
    Made(Quantity, st.integers(0, 2**31) | st.sampled_from(["1Gi", "500m", "0.5", "1e3", "-2", ".5Ki"])),
    Made(dt.datetime, st.datetimes(min_value=dt.datetime(1970, 1, 1), timezones=st.just(dt.UTC))),  # noqa: DTZ001
    Made(Literal["x", "y", ""], st.sampled_from(["x", "y", ""])),
    Made(Literal[1, 2], st.sampled_from([1, 2])),
    Made(Annotated[int, Minimum(-3), Maximum(3)], st.integers(-3, 3)),
    Made(Annotated[int, Minimum(-3, exclusive=True), Format("int32")], st.integers(-2, 2**31 - 1)),
    Made(Annotated[str, MinLength(1), MaxLength(3)], st.text("añ😀", min_size=1, max_size=3)),
    Made(Annotated[str, Pattern("^[a-c]+$")], st.text("abc", min_size=1)),
    Made(Annotated[str, msgspec.Meta(max_length=2)], st.text("a1", max_size=2)),
    Made(frozenset[str], st.frozensets(TEXTS, max_size=3)),
    Made(Mapping[str, Any], st.dictionaries(TEXTS, st.none() | st.integers(0, 9) | st.lists(TEXTS), max_size=3)),
]


def listed(inner: Made) -> Made:
    return Made(SEQUENCE[inner.hint], st.lists(inner.values, max_size=3))


def mapped(inner: Made) -> Made:
    return Made(MAPPING[str, inner.hint], st.dictionaries(TEXTS, inner.values, max_size=3))


def optional(inner: Made) -> Made:
    return Made(inner.hint | None, st.none() | inner.values)


def default(value: Any) -> Any:
    if isinstance(value, list | dict) and value:
        return msgspec.field(default_factory=lambda: value)
    return value


@st.composite
def structs(draw: st.DrawFn, inner: st.SearchStrategy[Made]) -> Made:
    """Draw a class of structs: its fields are required, or have a default that is drawn too."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4, unique=True))
    fields = {name: draw(inner) for name in names}
    body: dict[str, Any] = {"__module__": __name__, "__annotations__": {name: fields[name].hint for name in names}}
    wanted = set()
    for name, made in fields.items():
        if draw(st.booleans()):
            wanted.add(name)
        else:
            value = draw(made.values)
            body[name] = default(value)
    maker: Any = type(Struct)
    kind = maker(f"Part{next(COUNTER)}", (Struct,), body)
    required = {name: fields[name].values for name in names if name in wanted}
    others = {name: fields[name].values for name in names if name not in wanted}
    return Made(kind, st.fixed_dictionaries(required, optional=others).map(lambda given: kind(**given)))


TYPES: st.SearchStrategy[Made] = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: inner.map(listed) | inner.map(mapped) | inner.map(optional) | structs(inner),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def plane() -> Iterator[BlockingPlane]:
    with ControlPlane(lifecycle=False) as running:
        yield running


def established(found: dict[str, Any] | None) -> bool:
    conditions = ((found or {}).get("status") or {}).get("conditions") or ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


def kept(sent: Any, found: Any) -> bool:
    """Whether all that was sent is in what was found, where defaults may be beside it."""
    if isinstance(sent, dict):
        return isinstance(found, dict) and all(name in found and kept(sent[name], found[name]) for name in sent)
    if isinstance(sent, list):
        return isinstance(found, list) and len(sent) == len(found) and all(map(kept, sent, found))
    if isinstance(sent, float) and isinstance(found, float | int):
        return math.isclose(sent, found)
    return bool(sent == found) and type(sent) is type(found)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), spec=structs(TYPES))
def test_servers_take_what_structs_write(plane: BlockingPlane, data: st.DataObject, spec: Made) -> None:
    plural = f"things{next(COUNTER)}"
    body = {"__module__": __name__, "__annotations__": {"spec": spec.hint}}
    maker: Any = type(Resource)
    kind = maker(f"Thing{plural[6:]}", (Resource,), body, group="example.com", version="v1", plural=plural)
    made = definition(kind)
    assert msgspec.json.encode(made) == msgspec.json.encode(definition(kind))
    plane.call("POST", DEFINITIONS, made)
    path = f"{DEFINITIONS}/{plural}.example.com"
    plane.wait_for(path, established)
    try:
        for number in range(3):
            thing = kind(metadata=ObjectMeta(name=f"n{number}"), spec=data.draw(spec.values))
            sent = to_dict(thing)
            found = plane.call("POST", f"/apis/example.com/v1/namespaces/default/{plural}", sent)
            assert kept(sent["spec"], found["spec"])
            again = decode(msgspec.json.encode(found), kind)
            assert not again.spec.carried
            assert decode(encode(again), kind) == again
    finally:
        plane.call("DELETE", path)
