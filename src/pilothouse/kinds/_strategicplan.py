"""What strategic merge patch asks of a type, worked out once per field: strategy, merge key, and the type below."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from pilothouse.kinds.patcherrors import Unmergeable
from pilothouse.kinds.schema import ANY, Schema

__all__ = ["FieldPlan", "Plan", "plan_of"]

_GO_KINDS: Final = {
    "object": "struct",
    "any": "struct",
    "map": "map",
    "list": "slice",
    "string": "string",
    "number": "float64",
    "boolean": "bool",
}


class FieldPlan:
    """How one field merges.

    strategy: `merge`, `replace` or empty. retain_keys: patches say which keys stay. merge_key: of a list of objects.
    """

    __slots__ = ("_schema", "merge_key", "retain_keys", "strategy")

    def __init__(self, schema: Schema) -> None:
        strategies = [strategy for strategy in schema.patch_strategy if strategy != "retainKeys"]
        if len(strategies) > 1:
            raise Unmergeable(f"unexpected patch strategy: [{' '.join(schema.patch_strategy)}]")
        self._schema = schema
        self.strategy = strategies[0] if strategies else ""
        self.retain_keys = "retainKeys" in schema.patch_strategy
        self.merge_key = schema.patch_merge_key

    @property
    def value(self) -> Plan:
        """The plan of the field's value."""
        return plan_of(self._schema)

    @property
    def element(self) -> Plan:
        """The plan of the elements of the field's list."""
        return plan_of(self._schema.element or ANY)

    def check_list(self) -> None:
        """Raise Unmergeable if the field is no list, or one of lists."""
        if self._schema.shape != "list":
            raise Unmergeable("expected slice or array type, but got: struct")
        if self._schema.element is not None and self._schema.element.shape == "list":
            raise Unmergeable("unexpected slice of slice")


class Plan:
    """How the fields of one type merge."""

    __slots__ = ("_fields", "_schema", "kind")

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._fields: dict[str, FieldPlan] = {}
        self.kind = _GO_KINDS.get(schema.shape) or schema.format or "int64"

    def field(self, name: str) -> FieldPlan:
        """Return how a field merges. Raises Unmergeable: the type has no such field, or none at all."""
        found = self._fields.get(name)
        if found is None:
            found = self._fields[name] = FieldPlan(self._find(name))
        return found

    def list_field(self, name: str) -> FieldPlan:
        """Return how a list merges. Raises Unmergeable: as `field`, or the field is no list of what can merge."""
        found = self.field(name)
        found.check_list()
        return found

    def _find(self, name: str) -> Schema:
        if self.kind != "struct":
            raise Unmergeable(f"merging an object in json but data type is not struct, instead is: {self.kind}")
        found = self._schema.fields.get(name)
        if found is None:
            short = self._schema.name.rpartition(".")[2]
            raise Unmergeable(f'unable to find api field in struct {short} for the json field "{name}"')
        return found


@lru_cache(maxsize=8192)
def plan_of(schema: Schema) -> Plan:
    """Return the plan of a type; one for all uses of it."""
    return Plan(schema)
