"""Structural schemas, read once: what a value may be, as `openAPIV3Schema` of one version says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pilothouse.apiserver.crds.wellformed import well_formed

__all__ = ["META_FIELDS", "STRING_FORMATS", "Node", "Rule", "embedded_root", "read"]

META_FIELDS = frozenset({"apiVersion", "kind", "metadata"})


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


def read(schema: Mapping[str, Any] | None) -> Node:
    """Read a schema. Raises ValueError for one that nests deeper than 100 levels or has parts that are no schemas."""
    return _read(well_formed(schema))


def _read(raw: Mapping[str, Any]) -> Node:
    int_or_string = bool(raw.get("x-kubernetes-int-or-string"))
    kind, additional = raw.get("type"), raw.get("additionalProperties")
    items, negated = raw.get("items"), raw.get("not")
    return Node(
        raw=raw,
        types=("integer", "string") if int_or_string else (kind,) if kind else (),
        properties={name: _read(part) for name, part in raw.get("properties", {}).items()},
        additional=_read(additional) if isinstance(additional, Mapping) else additional,
        items=_read(items) if isinstance(items, Mapping) else None,
        required=tuple(raw.get("required", ())),
        enum=tuple(raw.get("enum", ())),
        format=_format(raw, int_or_string=int_or_string),
        nullable=raw.get("nullable", False),
        default=raw.get("default"),
        preserve=raw.get("x-kubernetes-preserve-unknown-fields", False),
        embedded=raw.get("x-kubernetes-embedded-resource", False),
        int_or_string=int_or_string,
        list_type=raw.get("x-kubernetes-list-type", ""),
        list_keys=tuple(raw.get("x-kubernetes-list-map-keys", ())),
        map_type=raw.get("x-kubernetes-map-type", ""),
        rules=tuple(_rule(rule) for rule in raw.get("x-kubernetes-validations", ())),
        all_of=tuple(map(_read, raw.get("allOf", ()))),
        any_of=tuple(map(_read, raw.get("anyOf", ()))),
        one_of=tuple(map(_read, raw.get("oneOf", ()))),
        negated=_read(negated) if isinstance(negated, Mapping) else None,
    )


def _rule(raw: Mapping[str, Any]) -> Rule:
    return Rule(
        raw.get("rule", ""),
        raw.get("message", ""),
        raw.get("messageExpression", ""),
        raw.get("reason", ""),
        raw.get("fieldPath", ""),
        raw.get("optionalOldSelf", False),
    )


# Formats that are checked; with `-` left out, as go-openapi compares them. Others count as none.
STRING_FORMATS = frozenset(
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
            return found if found.replace("-", "") in STRING_FORMATS else ""
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
