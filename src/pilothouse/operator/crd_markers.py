"""What a type cannot say of a field, written beside it: `Annotated[int, Minimum(1), Maximum(10)]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal, TypeVar

from pilothouse.operator.crd_errors import DefinitionError

__all__ = [
    "RULES",
    "Default",
    "Description",
    "Embedded",
    "Format",
    "ListType",
    "MapType",
    "Marker",
    "MaxLength",
    "Maximum",
    "MinLength",
    "Minimum",
    "MultipleOf",
    "Pattern",
    "PreserveUnknown",
    "RawSchema",
    "Rule",
    "Timestamp",
]

RULES: Final = "__crd_rules__"
"""The attribute of a class that has its rules."""
_NUMBERS: Final = ("integer", "number")
_LENGTHS: Final = {"string": "Length", "array": "Items", "object": "Properties"}
_NOT_RE2: Final = re.compile(r"(?<!\\)\(\?(?:[=!]|<[=!]|>)|\\[1-9]")
_C = TypeVar("_C", bound=type)


class Marker:
    """One thing that a schema says beside its type. fits: the schema types it is for, all where there are none."""

    fits: ClassVar[tuple[str, ...]] = ()

    def keywords(self, kind: str) -> dict[str, Any]:
        """Return the keywords for a schema of this type. Raises DefinitionError without a place."""
        raise NotImplementedError


@dataclass(frozen=True)
class Minimum(Marker):
    """The least number; with exclusive=True the first below what is allowed."""

    value: float
    exclusive: bool = False
    fits: ClassVar[tuple[str, ...]] = _NUMBERS

    def keywords(self, kind: str) -> dict[str, Any]:
        return {"minimum": self.value} | ({"exclusiveMinimum": True} if self.exclusive else {})


@dataclass(frozen=True)
class Maximum(Marker):
    """The greatest number; with exclusive=True the first above what is allowed."""

    value: float
    exclusive: bool = False
    fits: ClassVar[tuple[str, ...]] = _NUMBERS

    def keywords(self, kind: str) -> dict[str, Any]:
        return {"maximum": self.value} | ({"exclusiveMaximum": True} if self.exclusive else {})


@dataclass(frozen=True)
class MultipleOf(Marker):
    """The number that every value is a multiple of."""

    value: float
    fits: ClassVar[tuple[str, ...]] = _NUMBERS

    def keywords(self, kind: str) -> dict[str, Any]:
        return {"multipleOf": self.value}


@dataclass(frozen=True)
class MinLength(Marker):
    """The least number of characters of a text, elements of a list or keys of a map."""

    value: int
    fits: ClassVar[tuple[str, ...]] = tuple(_LENGTHS)

    def keywords(self, kind: str) -> dict[str, Any]:
        return {f"min{_LENGTHS[kind]}": self.value}


@dataclass(frozen=True)
class MaxLength(Marker):
    """The greatest number of characters of a text, elements of a list or keys of a map; rules below it cost less."""

    value: int
    fits: ClassVar[tuple[str, ...]] = tuple(_LENGTHS)

    def keywords(self, kind: str) -> dict[str, Any]:
        return {f"max{_LENGTHS[kind]}": self.value}


@dataclass(frozen=True)
class Pattern(Marker):
    """The regular expression that is found in a text, in RE2's syntax: anchor it with ^ and $ for the whole text."""

    value: str
    fits: ClassVar[tuple[str, ...]] = ("string",)

    def keywords(self, kind: str) -> dict[str, Any]:
        try:
            re.compile(self.value)
        except re.error as error:
            raise DefinitionError(f"the pattern {self.value!r} is no regular expression: {error}") from error
        if _NOT_RE2.search(self.value):
            raise DefinitionError(
                f"the pattern {self.value!r} looks around or back, which servers (RE2) cannot; say that with a Rule"
            )
        return {"pattern": self.value}


@dataclass(frozen=True)
class Format(Marker):
    """What a text or number holds, by a name that Kubernetes knows: `date-time`, `duration`, `uri`, `int32`..."""

    value: str
    fits: ClassVar[tuple[str, ...]] = ("string", *_NUMBERS)

    def keywords(self, kind: str) -> dict[str, Any]:
        return {"format": self.value}


@dataclass(frozen=True)
class ListType(Marker):
    """How a list merges when several apply it: `set`, `atomic`, or `map` by the fields `keys` of its elements."""

    value: Literal["atomic", "set", "map"]
    keys: tuple[str, ...] = ()
    fits: ClassVar[tuple[str, ...]] = ("array",)

    def keywords(self, kind: str) -> dict[str, Any]:
        if (self.value == "map") != bool(self.keys):
            raise DefinitionError("a list has keys if, and only if, it is a map: ListType('map', keys=('name',))")
        found: dict[str, Any] = {"x-kubernetes-list-map-keys": list(self.keys)} if self.keys else {}
        return found | {"x-kubernetes-list-type": self.value}


@dataclass(frozen=True)
class MapType(Marker):
    """How a map or struct merges when several apply it: key by key (`granular`) or as a whole (`atomic`)."""

    value: Literal["granular", "atomic"]
    fits: ClassVar[tuple[str, ...]] = ("object",)

    def keywords(self, kind: str) -> dict[str, Any]:
        return {"x-kubernetes-map-type": self.value}


@dataclass(frozen=True)
class PreserveUnknown(Marker):
    """Servers keep fields here that the schema does not have."""

    fits: ClassVar[tuple[str, ...]] = ("object", "")

    def keywords(self, kind: str) -> dict[str, Any]:
        return {"x-kubernetes-preserve-unknown-fields": True}


@dataclass(frozen=True)
class Embedded(Marker):
    """The value is a whole object of any kind; servers check its apiVersion, kind and metadata."""

    fits: ClassVar[tuple[str, ...]] = ("object",)

    def keywords(self, kind: str) -> dict[str, Any]:
        return {"x-kubernetes-embedded-resource": True}


@dataclass(frozen=True)
class Description(Marker):
    """What `kubectl explain` says of a field, instead of the text below it."""

    value: str

    def keywords(self, kind: str) -> dict[str, Any]:
        return {"description": self.value}


@dataclass(frozen=True)
class Default(Marker):
    """What servers fill in where a field is absent, as JSON has it, though the class says otherwise; None: nothing."""

    value: Any

    def keywords(self, kind: str) -> dict[str, Any]:
        return {"default": self.value}


@dataclass(frozen=True)
class RawSchema(Marker):
    """The schema itself, for what no type expresses; only the field's default and text are added."""

    value: Mapping[str, Any]

    def keywords(self, kind: str) -> dict[str, Any]:
        return dict(self.value)


@dataclass(frozen=True)
class Rule(Marker):
    """A rule in CEL that servers check: of a field within `Annotated`, of a class as decorator above it.

    rule: about `self`, with JSON's names, and `oldSelf`, the value before. message: what is said where it does not
    hold, or message_expression in CEL. reason: `FieldValueInvalid` and its like. field_path: the field below that is
    at fault (`.max`). optional_old_self: the rule is checked at the start too; `oldSelf` is an optional then.
    """

    rule: str
    message: str = ""
    message_expression: str = ""
    reason: str = ""
    field_path: str = ""
    optional_old_self: bool = False

    def __call__(self, kind: _C) -> _C:
        """Add the rule to a class; those nearer to the class come first."""
        setattr(kind, RULES, (*kind.__dict__.get(RULES, ()), self))
        return kind

    def keywords(self, kind: str) -> dict[str, Any]:
        if not self.rule.strip():
            raise DefinitionError("a Rule without an expression; write one that is true where all is well")
        texts = {
            "rule": self.rule,
            "message": self.message,
            "messageExpression": self.message_expression,
            "reason": self.reason,
            "fieldPath": self.field_path,
        }
        found: dict[str, Any] = {name: text for name, text in texts.items() if text}
        return found | ({"optionalOldSelf": True} if self.optional_old_self else {})


Timestamp = Annotated[str, Format("date-time")]
"""A moment in RFC 3339. `structs.Time` is the bare text, whose form no server checks."""
