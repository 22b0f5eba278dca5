"""Structural schemas, read once: what a value may be, as `openAPIV3Schema` of one version says it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["META_FIELDS", "Node", "Rule", "embedded_root", "read"]

META_FIELDS = frozenset({"apiVersion", "kind", "metadata"})
MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class Rule:
    """One of `x-kubernetes-validations`."""

    rule: str
    message: str = ""
    message_expression: str = ""
    reason: str = ""
    field_path: str = ""
    optional_old_self: bool = False


@dataclass(slots=True, eq=False)
class Node:
    """One node of a schema, nested conditions (`allOf` and its like) included.

    types: what `type` allows, two for int-or-string. additional: the schema of further properties, True for any, False
    for none, None where nothing is said. The rest is named as in the schema.
    """

    raw: Mapping[str, Any]
    types: tuple[str, ...] = ()
    properties: dict[str, Node] = field(default_factory=dict)
    additional: Node | bool | None = None
    items: Node | None = None
    required: tuple[str, ...] = ()
    enum: tuple[Any, ...] = ()
    format: str = ""
    nullable: bool = False
    default: Any = None
    preserve: bool = False
    embedded: bool = False
    int_or_string: bool = False
    list_type: str = ""
    list_keys: tuple[str, ...] = ()
    map_type: str = ""
    rules: tuple[Rule, ...] = ()
    all_of: tuple[Node, ...] = ()
    any_of: tuple[Node, ...] = ()
    one_of: tuple[Node, ...] = ()
    negated: Node | None = None

    @property
    def type(self) -> str:
        """The declared type; empty where there is none or it is int-or-string."""
        return str(self.raw.get("type") or "")

    def get(self, name: str) -> Any:
        """Return a bound (`maximum`, `maxLength`, ...) as the schema has it, None without one."""
        return self.raw.get(name)

    def child(self, name: str) -> Node | None:
        """Return the schema of a property, declared or additional; None where nothing is known."""
        found = self.properties.get(name)
        if found is None and isinstance(self.additional, Node):
            return self.additional
        return found


def read(schema: Mapping[str, Any] | None, depth: int = 0) -> Node:
    """Read a schema. Raises ValueError for one that nests deeper than 100 levels or has parts that are no schemas."""
    if depth > MAX_DEPTH:
        raise ValueError(f"the schema nests deeper than {MAX_DEPTH} levels")
    raw: Mapping[str, Any] = schema or {}
    if not isinstance(raw, Mapping):
        raise ValueError(f"a schema must be an object, not {type(raw).__name__}")  # noqa: TRY004 - what users wrote
    int_or_string = bool(raw.get("x-kubernetes-int-or-string"))
    kind = raw.get("type")
    return Node(
        raw=raw,
        types=("integer", "string") if int_or_string else (str(kind),) if kind else (),
        properties={name: read(part, depth + 1) for name, part in _mapping(raw, "properties").items()},
        additional=_additional(raw.get("additionalProperties"), depth),
        items=read(raw["items"], depth + 1) if isinstance(raw.get("items"), Mapping) else None,
        required=tuple(_sequence(raw, "required")),
        enum=tuple(_sequence(raw, "enum")),
        format=_format(raw, int_or_string=int_or_string),
        nullable=bool(raw.get("nullable")),
        default=raw.get("default"),
        preserve=bool(raw.get("x-kubernetes-preserve-unknown-fields")),
        embedded=bool(raw.get("x-kubernetes-embedded-resource")),
        int_or_string=int_or_string,
        list_type=str(raw.get("x-kubernetes-list-type") or ""),
        list_keys=tuple(_sequence(raw, "x-kubernetes-list-map-keys")),
        map_type=str(raw.get("x-kubernetes-map-type") or ""),
        rules=tuple(_rule(rule) for rule in _sequence(raw, "x-kubernetes-validations")),
        all_of=_nested(raw, "allOf", depth),
        any_of=_nested(raw, "anyOf", depth),
        one_of=_nested(raw, "oneOf", depth),
        negated=read(raw["not"], depth + 1) if isinstance(raw.get("not"), Mapping) else None,
    )


def _mapping(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = raw.get(name) or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{name} of a schema must be an object")  # noqa: TRY004
    return found


def _sequence(raw: Mapping[str, Any], name: str) -> Sequence[Any]:
    found = raw.get(name) or ()
    if not isinstance(found, (list, tuple)):
        raise ValueError(f"{name} of a schema must be a list")  # noqa: TRY004
    return found


def _nested(raw: Mapping[str, Any], name: str, depth: int) -> tuple[Node, ...]:
    return tuple(read(part, depth + 1) for part in _sequence(raw, name))


def _additional(found: Any, depth: int) -> Node | bool | None:
    if isinstance(found, Mapping):
        return read(found, depth + 1)
    return found if isinstance(found, bool) else None


def _rule(raw: Mapping[str, Any]) -> Rule:
    return Rule(
        raw.get("rule") or "",
        raw.get("message") or "",
        raw.get("messageExpression") or "",
        raw.get("reason") or "",
        raw.get("fieldPath") or "",
        bool(raw.get("optionalOldSelf")),
    )


# Formats that are checked; with `-` left out, as go-openapi compares them. Others count as none.
_FORMATS = frozenset(
    {
        *("bsonobjectid", "uri", "email", "hostname", "ipv4", "ipv6", "cidr", "mac", "uuid", "uuid3", "uuid4", "uuid5"),
        *("isbn", "isbn10", "isbn13", "creditcard", "ssn", "hexcolor", "rgbcolor", "byte", "password", "date"),
        *("duration", "datetime", "k8sshortname", "k8slongname"),
    }
)


def _format(raw: Mapping[str, Any], *, int_or_string: bool) -> str:
    found = str(raw.get("format") or "")
    if not found or int_or_string:
        return ""
    match raw.get("type"):
        case None | "" | "string":
            return found if found.replace("-", "") in _FORMATS else ""
        case "integer":
            return found if found in {"int32", "int64"} else ""
        case "number":
            return found if found in {"float", "double"} else ""
    return ""


def embedded_root(node: Node) -> Node:
    """Return the schema of a whole resource: as it is, with the fields that every resource has."""
    if node.embedded:
        return node
    made = Node(**{name: getattr(node, name) for name in Node.__slots__})
    made.embedded = True
    return made
