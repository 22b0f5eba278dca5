import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar, Union

import msgspec
import pytest

from pilothouse.kinds.structs import (
    Condition,
    Container,
    IntOrString,
    JSONSchemaProps,
    ObjectMeta,
    Pod,
    PodTemplateSpec,
    Quantity,
    Resource,
    Struct,
    field,
)
from pilothouse.operator.crd_errors import DefinitionError
from pilothouse.operator.crd_markers import (
    Default,
    Description,
    Embedded,
    Format,
    ListType,
    MapType,
    Maximum,
    MaxLength,
    Minimum,
    MinLength,
    MultipleOf,
    Pattern,
    PreserveUnknown,
    RawSchema,
    Rule,
    Timestamp,
)
from pilothouse.operator.crd_schema import object_schema

KEEP = {"x-kubernetes-preserve-unknown-fields": True}
INT = {"type": "integer", "format": "int64"}
TEXT = {"type": "string"}
TIME = {"type": "string", "format": "date-time"}
INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": True}
T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Part(Struct):
    name: str
    size: int = 3


class Keyed(Struct):
    parts: Sequence[str]
    number: int | None


class Blank(Struct):
    note: str = ""


class Box(Struct, Generic[T]):
    content: T


class Tagged(msgspec.Struct, tag="square", tag_field="shape"):
    side: int


class Wide(msgspec.Struct, array_like=True):
    a: int


class Selfish(Struct):
    below: "Selfish | None" = None


class Outer(Struct):
    inner: "Sequence[Middle]" = ()


class Middle(Struct):
    outer: "Outer | None" = None


class Lost(Struct):
    part: "Nowhere"  # type: ignore[name-defined]  # noqa: F821  what is tested


@dataclasses.dataclass
class Data:
    a: int


class Typed(TypedDict):
    a: int


class Pair(NamedTuple):
    a: int


Port = NewType("Port", int)
Alias = Annotated[int, Minimum(1)]


def made(hint: Any, **default: Any) -> dict[str, Any]:
    """Return the schema of the field `x` of this type in a spec; with default=... it has that default."""
    struct_type: Any = type(Struct)
    resource_type: Any = type(Resource)
    spec = struct_type("Spec", (Struct,), {"__module__": __name__, "__annotations__": {"x": hint}, **renamed(default)})
    body = {"__module__": __name__, "__qualname__": "Thing", "__annotations__": {"spec": spec}}
    kind = resource_type("Thing", (Resource,), body, group="example.com", version="v1", plural="things")
    found: dict[str, Any] = object_schema(kind)["properties"]["spec"]
    return found


def renamed(default: dict[str, Any]) -> dict[str, Any]:
    return {"x": default["default"]} if default else {}


def part(hint: Any, **default: Any) -> Any:
    found: dict[str, Any] = made(hint, **default)["properties"]
    return found["x"]


PART = {
    "type": "object",
    "required": ["name"],
    "properties": {"name": TEXT, "size": {**INT, "default": 3}},
}


@pytest.mark.parametrize(
    ("hint", "wanted"),
    [
        (str, TEXT),
        (bool, {"type": "boolean"}),
        (int, INT),
        (float, {"type": "number"}),
        (int | float, {"type": "number"}),
        (bytes, {"type": "string", "format": "byte"}),
        (dt.datetime, TIME),
        (Timestamp, TIME),
        (dt.date, {"type": "string", "format": "date"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (decimal.Decimal, TEXT),
        (Any, KEEP),
        (msgspec.Raw, KEEP),
        (IntOrString, INT_OR_STRING),
        (IntOrString | None, {**INT_OR_STRING, "nullable": True}),
        (Port, INT),
        (Alias, {**INT, "minimum": 1}),
        (Alias | None, {**INT, "minimum": 1, "nullable": True}),
        (Annotated[int | None, Minimum(1)], {**INT, "minimum": 1, "nullable": True}),
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Union[Literal["a"], Literal["b"]], {"type": "string", "enum": ["a", "b"]}),  # noqa: PYI030, UP007
        (Literal[1, 2], {"type": "integer", "enum": [1, 2]}),
        (Literal["a"] | None, {"type": "string", "enum": ["a", None], "nullable": True}),
        (Colour, {"type": "string", "enum": ["red", "blue"]}),
        (Level, {"type": "integer", "enum": [1, 2]}),
        (list[str], {"type": "array", "items": TEXT}),
        (list, {"type": "array", "items": KEEP}),
        (Sequence[int | None], {"type": "array", "items": {**INT, "nullable": True}}),
        (tuple[int, ...], {"type": "array", "items": INT}),
        (frozenset[str], {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"}),
        (AbstractSet[str], {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"}),
        (dict[str, int], {"type": "object", "additionalProperties": INT}),
        (Mapping[str, Any], {"type": "object", **KEEP}),
        (dict, {"type": "object", **KEEP}),
        (Mapping[str, Part], {"type": "object", "additionalProperties": PART}),
        (Part, PART),
        (Box[int], {"type": "object", "required": ["content"], "properties": {"content": INT}}),
        (
            Tagged,
            {
                "type": "object",
                "required": ["shape", "side"],
                "properties": {"shape": {"type": "string", "enum": ["square"]}, "side": INT},
            },
        ),
        (Resource, {"type": "object", "x-kubernetes-embedded-resource": True, **KEEP}),
        (
            Annotated[Mapping[str, Any], Embedded()],
            {"type": "object", "x-kubernetes-embedded-resource": True, **KEEP},
        ),
        (Annotated[Part, PreserveUnknown()], {**PART, **KEEP}),
        (Annotated[dict[str, str], MapType("atomic"), MaxLength(3)], None),
        (Annotated[Any, RawSchema({"type": "string", "not": {"enum": ["x"]}})], None),
    ],
)
def test_types(hint: Any, wanted: dict[str, Any] | None) -> None:
    if wanted is not None:
        assert part(hint) == wanted
        assert made(hint)["required"] == ["x"]


def test_what_is_written_beside_a_type() -> None:
    assert part(Annotated[int, Minimum(1, exclusive=True), Maximum(9), MultipleOf(2), Format("int32")]) == {
        "type": "integer",
        "format": "int32",
        "minimum": 1,
        "exclusiveMinimum": True,
        "maximum": 9,
        "multipleOf": 2,
    }
    assert part(Annotated[str, MinLength(1), MaxLength(5), Pattern("^a+$"), Description("A's.")]) == {
        "description": "A's.",
        "type": "string",
        "minLength": 1,
        "maxLength": 5,
        "pattern": "^a+$",
    }
    assert part(Annotated[list[str], MinLength(1), MaxLength(5)])["maxItems"] == 5
    assert part(Annotated[dict[str, str], MapType("atomic"), MinLength(1)]) == {
        "type": "object",
        "additionalProperties": TEXT,
        "x-kubernetes-map-type": "atomic",
        "minProperties": 1,
    }
    assert part(Annotated[Any, RawSchema({"type": "string", "not": {"enum": ["x"]}})])["not"] == {"enum": ["x"]}
    assert part(Annotated[str, "of others"]) == TEXT


def test_what_msgspec_checks_too() -> None:
    found = part(Annotated[int, msgspec.Meta(gt=0, le=9, description="Some.")])
    assert found == {"description": "Some.", **INT, "minimum": 0, "exclusiveMinimum": True, "maximum": 9}
    assert part(Annotated[str, msgspec.Meta(min_length=1, pattern="a")]) == {
        "type": "string",
        "minLength": 1,
        "pattern": "a",
    }


def test_a_set_may_have_elements_that_are_wholes() -> None:
    found = part(Annotated[Sequence[Annotated[Part, MapType("atomic")]], ListType("set")])
    assert found["x-kubernetes-list-type"] == "set"


def test_rules_of_a_field() -> None:
    rule = Rule("self <= 3", message="too many", reason="FieldValueForbidden", optional_old_self=True)
    assert part(Annotated[int, rule, Rule("self > 1")])["x-kubernetes-validations"] == [
        {"rule": "self <= 3", "message": "too many", "reason": "FieldValueForbidden", "optionalOldSelf": True},
        {"rule": "self > 1"},
    ]


@Rule("self.low <= self.high", message="low is above high", field_path=".low")
@Rule("self.low > 0", message_expression="'low is ' + string(self.low)")
class Range(Struct):
    low: int
    high: int


class Narrow(Range):
    width: int = 1


def test_rules_of_a_class_hold_for_what_is_made_from_it() -> None:
    wanted = [
        {"rule": "self.low > 0", "messageExpression": "'low is ' + string(self.low)"},
        {"rule": "self.low <= self.high", "message": "low is above high", "fieldPath": ".low"},
    ]
    assert part(Range)["x-kubernetes-validations"] == wanted
    assert part(Narrow)["x-kubernetes-validations"] == wanted
    assert part(Annotated[Range, Rule("self.high < 9")])["x-kubernetes-validations"] == [
        *wanted,
        {"rule": "self.high < 9"},
    ]


@pytest.mark.parametrize(
    ("hint", "default", "wanted"),
    [
        (int, 0, 0),
        (int, 3, 3),
        (bool, False, False),
        (float, 1.5, 1.5),
        (str, "", None),
        (str, "a", "a"),
        (bytes, b"a", "YQ=="),
        (Colour, Colour.BLUE, "blue"),
        (Sequence[str], (), None),
        (Sequence[str], ("a",), ["a"]),
        (Mapping[str, str], {}, None),
        (Mapping[str, str], field(default_factory=lambda: {"a": "b"}), {"a": "b"}),
        (int | None, None, None),
        (Part | None, None, None),
        (Part, Part(name="a"), {"name": "a"}),
        (Narrow | None, None, None),
        (Blank, Blank(), None),
        (int | msgspec.UnsetType, msgspec.UNSET, None),
        (Annotated[str, Default("")], "", ""),
        (Annotated[int, Default(None)], 0, None),
        (Annotated[int, Default(5)], 0, 5),
    ],
)
def test_defaults(hint: Any, default: Any, wanted: Any) -> None:
    found = made(hint, default=default)
    assert "required" not in found
    assert found["properties"]["x"].get("default") == wanted
    assert ("default" in found["properties"]["x"]) is (wanted is not None)
    assert "nullable" not in found["properties"]["x"]


class Nested(Struct):
    part: int = 2


def test_an_empty_struct_is_a_default_where_that_fills_something_in() -> None:
    assert part(Nested, default=Nested())["default"] == {}
    assert "default" not in part(Blank, default=Blank())


def test_a_null_is_allowed_where_it_may_be_written() -> None:
    assert part(int | None, default=3) == {**INT, "nullable": True, "default": 3}
    assert part(int | None, default=None) == INT
    assert part(Literal["a"] | None, default=None) == {"type": "string", "enum": ["a"]}


class Spec(Struct):
    """What is wanted.

    More of it.
    """

    pod_ip: str = field(default="", name="podIP")
    """Where it answers."""
    part: Part | None = None
    described: Part | None = None
    """One of its own."""
    own: Annotated[str, Description("Said here.")] = ""
    """Said there."""


class Status(Struct):
    ready: int = 0


class Thing(Resource, group="example.com", version="v1", plural="things"):
    """A thing."""

    spec: Spec
    status: Status = Status()


def test_a_whole_object() -> None:
    found = object_schema(Thing)
    assert found["description"] == "A thing."
    assert found["required"] == ["spec"]
    assert {name: found["properties"][name] for name in ("apiVersion", "kind", "metadata")} == {
        "apiVersion": TEXT,
        "kind": TEXT,
        "metadata": {"type": "object"},
    }
    assert found["properties"]["status"] == {"type": "object", "properties": {"ready": {**INT, "default": 0}}}


def test_texts_are_descriptions() -> None:
    spec = object_schema(Thing)["properties"]["spec"]
    assert spec["description"] == "What is wanted.\n\nMore of it."
    texts = {name: each.get("description") for name, each in spec["properties"].items()}
    assert texts == {"podIP": "Where it answers.", "part": None, "described": "One of its own.", "own": "Said here."}


def test_kubernetes_own_types() -> None:
    template = part(PodTemplateSpec)
    containers = template["properties"]["spec"]["properties"]["containers"]
    assert template["properties"]["spec"]["required"] == ["containers"]
    assert containers["x-kubernetes-list-type"] == "map"
    assert containers["x-kubernetes-list-map-keys"] == ["name"]
    ports = containers["items"]["properties"]["ports"]
    assert ports["x-kubernetes-list-map-keys"] == ["containerPort", "protocol"]
    assert ports["items"]["properties"]["protocol"] == {"type": "string", "default": "TCP"}
    limits = containers["items"]["properties"]["resources"]["properties"]["limits"]
    assert limits["additionalProperties"] == part(Quantity)
    assert template["properties"]["metadata"]["properties"]["labels"]["additionalProperties"] == TEXT
    assert part(ObjectMeta)["properties"]["creationTimestamp"] == {**TIME, "nullable": True}
    assert part(Container)["required"] == ["name"]


def test_kubernetes_own_objects_are_embedded() -> None:
    found = part(Pod)
    assert found["x-kubernetes-embedded-resource"] is True
    assert found["properties"]["metadata"] == {"type": "object"}
    assert found["properties"]["kind"] == TEXT


def test_an_object_of_another_own_kind_is_embedded() -> None:
    found = part(Thing)
    assert found["x-kubernetes-embedded-resource"] is True
    assert found["properties"]["metadata"] == {"type": "object"}


def test_conditions_merge_by_their_type() -> None:
    found = part(Sequence[Condition])
    assert (found["x-kubernetes-list-type"], found["x-kubernetes-list-map-keys"]) == ("map", ["type"])
    other = part(Annotated[Sequence[Condition], ListType("atomic")])
    assert other["x-kubernetes-list-type"] == "atomic"
    assert "x-kubernetes-list-map-keys" not in other


def test_a_quantity_is_as_kubernetes_generators_write_it() -> None:
    number = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    assert part(Quantity) == {
        **INT_OR_STRING,
        "pattern": rf"^(\+|-)?{number}(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?{number}))?$",
    }


@pytest.mark.parametrize(
    ("hint", "problem"),
    [
        (Part | Blank, "Spec.x: it may be Part, Blank, but a field has one form in a schema"),
        (int | bool, "it may be int, bool, but"),
        (Selfish, "Selfish holds itself, and a schema cannot; take Annotated"),
        (Outer, "Outer holds itself"),
        (JSONSchemaProps, "Spec.x: JSONSchemaProps of Kubernetes holds itself"),
        (dict[int, str], "Spec.x: keys of a map are plain str, not int"),
        (dict[float, str], "keys of a map are plain str, not float"),
        (tuple[int, str], "Spec.x: a tuple of several types has no schema; take a Struct"),
        (tuple[int], "a tuple of several types"),
        (dt.timedelta, "there is no schema for timedelta; take a str, with Format or Pattern"),
        (complex, "there is no schema for complex"),
        (Data, "Data is no Struct; write class Data(Struct)"),
        (Typed, "Typed is no Struct"),
        (Pair, "Pair is no Struct"),
        (Box, "Box.content: the type of T is open; write the class with it"),
        (Wide, "Wide is written as a list"),
        (Lost, "Lost: a field's type is not found: name 'Nowhere' is not defined; define it in the module"),
        (Literal["a", 1], "Spec.x: the values that it lists are not of one type"),
        (Annotated[str, Minimum(1)], "Spec.x: Minimum is for integer or number and this is string"),
        (Annotated[int, MaxLength(1)], "MaxLength is for string or array or object and this is integer"),
        (Annotated[str, Pattern("(")], "Spec.x: the pattern '(' is no regular expression"),
        (Annotated[str, Pattern("(?!a)")], "looks around or back, which servers (RE2) cannot"),
        (Annotated[str, Pattern(r"(a)\1")], "looks around or back"),
        (Annotated[int, Rule(" ")], "Spec.x: a Rule without an expression"),
        (Annotated[int, Embedded], "Spec.x: Embedded beside a type is a class; write Embedded(...)"),
        (Annotated[Sequence[Part], ListType("set")], "Spec.x: elements of a set are texts, numbers or booleans"),
        (frozenset[str | None], "Spec.x: elements of a set or map cannot be null"),
        (Annotated[Sequence[Part | None], ListType("map", ("name",))], "elements of a set or map cannot be null"),
        (Annotated[Sequence[Keyed], ListType("map", ("parts",))], "the key 'parts' of the list is no plain text"),
        (Annotated[Sequence[Keyed], ListType("map", ("number",))], "the key 'number' of the list is no plain text"),
        (Annotated[Sequence[Part], ListType("map")], "a list has keys if, and only if, it is a map"),
        (Annotated[Sequence[Part], ListType("map", ("nam",))], "the key 'nam' of the list is no field of its elements"),
        (Annotated[Sequence[Blank], ListType("map", ("note",))], "the key 'note' of the list may be absent"),
    ],
)
def test_what_no_schema_can_say_is_refused(hint: Any, problem: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        part(hint)
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("hint", "default", "problem"),
    [
        (Literal["a", "b"], "c", "Spec.x: its default 'c' is none of 'a', 'b'"),
        (Annotated[int, Minimum(1)], 0, "Spec.x: its default 0 is below the minimum 1"),
        (Annotated[float, Maximum(1, exclusive=True)], 1.0, "its default 1.0 is above the maximum 1"),
        (Annotated[str, MaxLength(1)], "ab", "its default 'ab' is longer than 1"),
        (Annotated[Sequence[str], MinLength(2)], ("a",), "is shorter than 2"),
        (Annotated[str, Pattern("^a$")], "b", "its default 'b' does not match ^a$"),
        (str, field(default_factory=lambda: uuid.uuid4().hex), "its default is another each time"),
    ],
)
def test_a_default_that_objects_could_not_have_is_refused(hint: Any, default: Any, problem: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        made(hint, default=default)
    assert problem in str(caught.value)


class Eager(Resource, group="example.com", version="v1", plural="eagers"):
    status: Status


def test_a_status_that_objects_must_have_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"Eager\.status: an object has no status when it is made"):
        object_schema(Eager)
