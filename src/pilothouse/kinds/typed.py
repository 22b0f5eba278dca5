"""Which fields an object has, how two objects differ, and how one is merged into another, as its schema tells.

A schema is compiled once into a tree of `TypeNode`s; the plan for a set of keys of an object is remembered, so that
objects of a known shape cost one dictionary copy for each container. Objects are never changed: results share
what did not change with their inputs. Specification: Kubernetes' structured merge and diff, version 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pilothouse.kinds.fieldset import LEAF, FieldSet, Path, insert, is_member
from pilothouse.kinds.schema import ANY, Schema
from pilothouse.kinds.typedlist import AssociativeList
from pilothouse.kinds.typednode import (
    EMPTIED,
    Atomic,
    Comparison,
    Scalar,
    TypedError,
    TypeNode,
    fault,
    with_self,
    without_emptied,
)

__all__ = ["Comparison", "TypeNode", "TypedError", "check_typed", "compile_schema", "without_emptied"]

_MAX_PLANS = 256
"""Shapes remembered for one type; those beyond are worked out anew each time."""


class _Container(TypeNode):
    """What objects and maps have in common: values by name."""

    __slots__ = ()
    leaf = False

    def child(self, name: str) -> TypeNode:
        raise NotImplementedError

    def declares(self, name: str) -> bool:
        return False

    def diff(self, old: Any, new: Any, path: Path, found: Comparison) -> None:
        before = old if isinstance(old, dict) else {}
        after = new if isinstance(new, dict) else {}
        if (not before and not after) or not isinstance(old, dict | None) or not isinstance(new, dict | None):
            insert(found.modified, path)
        for name, value in after.items():
            if name not in before:
                insert(found.added, (*path, "f:" + name), self.child(name).every(value))
            elif (own := before[name]) is not value and own != value:
                self.child(name).diff(own, value, (*path, "f:" + name), found)
        for name, value in before.items():
            if name not in after:
                insert(found.removed, (*path, "f:" + name), self.child(name).every(value))

    def merge(self, live: Any, applied: Any) -> Any:
        if not isinstance(applied, dict) or not isinstance(live, dict):
            return live if applied is None and isinstance(live, dict) and live else applied
        if not live or not applied:
            return live or applied
        out = dict(live)
        for name, value in applied.items():
            out[name] = self.child(name).merge(out[name], value) if name in out else value
        return out

    def remove(self, value: Any, items: FieldSet) -> Any:
        if not isinstance(value, dict) or not value:
            return EMPTIED
        out: dict[str, Any] | None = None
        for element, node in items.items():
            name = element[2:]
            if element[:2] != "f:" or name not in value:
                continue
            if out is None:
                out = dict(value)
            if is_member(node):
                del out[name]
            else:
                out[name] = self.child(name).remove(value[name], node)
        return value if out is None else out or EMPTIED

    def check(self, value: Any) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, dict):
            return [fault("map", value)]
        return [f".{name}{found}" for name, item in value.items() for found in self.child(name).check(item)]

    def named(self, items: FieldSet) -> FieldSet:
        out: FieldSet = {}
        for element, node in items.items():
            if node and element[:2] == "f:":
                name = element[2:]
                inner = self.child(name).named(node)
                out[element] = {".": LEAF, **inner} if self.declares(name) and "." not in inner else inner
            else:
                out[element] = node
        return out

    def reconcile(self, items: FieldSet) -> FieldSet:
        out: FieldSet | None = None
        for element, node in items.items():
            if not node or element[:2] != "f:":
                continue
            inner = self.child(element[2:]).reconcile(node)
            if inner is not node:
                out = dict(items) if out is None else out
                out[element] = inner
        return items if out is None else out


class _Unknown(TypeNode):
    """A field the schema does not declare: nobody owns it."""

    __slots__ = ()

    def check(self, value: Any) -> list[str]:
        return [": field not declared in schema"]


_UNKNOWN = _Unknown()


class _Map(_Container):
    """Keys of any name; of an open value (`any`) the element is the type itself, and lists are atomic."""

    __slots__ = ("element", "open")

    def __init__(self, element: TypeNode | None) -> None:
        self.element = element or self
        self.open = element is None

    def child(self, name: str) -> TypeNode:
        return self.element

    def every(self, value: Any) -> FieldSet:
        if not value or not isinstance(value, dict):
            return LEAF
        element = self.element
        out: FieldSet = {".": LEAF}
        if element.leaf:
            for name in sorted(value) if len(value) > 1 else value:
                out["f:" + name] = LEAF
        else:
            for name in sorted(value):
                out["f:" + name] = element.every(value[name])
        return out

    def shape(self, value: Any) -> Any:
        if not value or not isinstance(value, dict):
            return None if value is None else ()
        element = self.element
        return tuple(value) if element.leaf else tuple([(name, element.shape(item)) for name, item in value.items()])

    def owned(self, value: Any) -> FieldSet | None:
        if not value or not isinstance(value, dict):
            return LEAF
        return {"f:" + name: with_self(self.element.owned(value[name])) for name in sorted(value)}

    def reconcile(self, items: FieldSet) -> FieldSet:
        return items if self.open else super().reconcile(items)

    def check(self, value: Any) -> list[str]:
        return [] if self.open else super().check(value)


@dataclass(slots=True)
class _Plan:
    """What objects with one set of keys have in common."""

    every: FieldSet
    owned: FieldSet
    inner: list[tuple[str, str, TypeNode, bool]]


class _Object(_Container):
    """Named fields; those not declared are open where the schema preserves them, and passed over where not."""

    __slots__ = ("_children", "_compiler", "_plans", "_schema", "_undeclared")

    def __init__(self, schema: Schema, compiler: _Compiler) -> None:
        self._schema = schema
        self._compiler = compiler
        self._children: dict[str, TypeNode] = {}
        self._plans: dict[tuple[str, ...], _Plan] = {}
        if schema.preserve_unknown:
            self._undeclared = compiler.node(schema.element or ANY)
        else:
            self._undeclared = compiler.node(schema.element) if schema.element else _UNKNOWN

    def declares(self, name: str) -> bool:
        return name in self._schema.fields

    def child(self, name: str) -> TypeNode:
        node = self._children.get(name)
        if node is None:
            schema = self._schema.fields.get(name)
            if schema is None:
                return self._undeclared
            node = self._children[name] = self._compiler.node(schema)
        return node

    def _plan(self, value: dict[str, Any]) -> _Plan:
        shape = tuple(value)
        plan = self._plans.get(shape)
        if plan is None:
            plan = self._make_plan(sorted(shape))
            if len(self._plans) < _MAX_PLANS:
                self._plans[shape] = plan
        return plan

    def _make_plan(self, names: list[str]) -> _Plan:
        known = [name for name in names if self.child(name) is not _UNKNOWN]
        owned = {"f:" + name: LEAF for name in known}
        inner = [
            (name, "f:" + name, self.child(name), self.declares(name)) for name in known if not self.child(name).leaf
        ]
        return _Plan({".": LEAF, **owned}, owned, inner)

    def every(self, value: Any) -> FieldSet:
        if not value or not isinstance(value, dict):
            return LEAF
        plan = self._plan(value)
        if not plan.inner:
            return plan.every
        out = plan.every.copy()
        for name, element, node, _ in plan.inner:
            out[element] = node.every(value[name])
        return out

    def shape(self, value: Any) -> Any:
        if not value or not isinstance(value, dict):
            return None if value is None else ()
        keys = tuple(value)
        plan = self._plans.get(keys) or self._plan(value)
        if not plan.inner:
            return keys
        return (keys, *[node.shape(value[name]) for name, _, node, _ in plan.inner])

    def owned(self, value: Any) -> FieldSet | None:
        if not value or not isinstance(value, dict):
            return LEAF
        plan = self._plan(value)
        if not plan.inner:
            return plan.owned
        out = plan.owned.copy()
        for name, element, node, declared in plan.inner:
            below = node.owned(value[name])
            if not declared:
                out[element] = with_self(below)
            elif below is None:
                del out[element]
            else:
                out[element] = below
        return out or None

    def diff(self, old: Any, new: Any, path: Path, found: Comparison) -> None:
        if self._undeclared is _UNKNOWN:
            old, new = self._known(old), self._known(new)
            if old == new:
                return
        super().diff(old, new, path, found)

    def _known(self, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        fields = self._schema.fields
        return value if fields.keys() >= value.keys() else {n: v for n, v in value.items() if n in fields}


_ZEROS: dict[str, Any] = {"string": "", "integer": 0}
_ALWAYS = {"io.k8s.api.core.v1.LocalObjectReference": ("name",)}
"""Fields that have the zero value for a default though they are not required."""


class _Compiler:
    """Makes one node for each schema node of one kind, when it is first met."""

    def __init__(self) -> None:
        self._nodes: dict[Schema, TypeNode] = {}

    def node(self, schema: Schema) -> TypeNode:
        node = self._nodes.get(schema)
        if node is None:
            node = self._nodes[schema] = self._make(schema)
        return node

    def _list(self, schema: Schema) -> TypeNode:
        element = schema.element or ANY
        keys = schema.list_keys if schema.list_type == "map" else ()
        declared = {name: element.fields[name] for name in keys if name in element.fields}
        defaults = {name: found.default for name, found in declared.items() if found.has_default}
        if element.name:
            # The fields that Go always writes have their zero value for a default.
            always = (*element.required, *_ALWAYS.get(element.name, ()))
            zeros = {name: _ZEROS.get(found.shape) for name, found in declared.items() if name in always}
            defaults = {**{name: zero for name, zero in zeros.items() if zero is not None}, **defaults}
        return AssociativeList(self.node(element), keys, defaults)

    def _make(self, schema: Schema) -> TypeNode:
        if schema.shape == "list":
            if schema.list_type == "atomic":
                return Atomic(None, self.node(schema.element) if schema.element else None)
            return self._list(schema)
        # A named type of which nothing is known is one value; an unnamed one is what its value turns out to be.
        if schema.shape == "any" and (schema.name or not schema.preserve_unknown):
            return Atomic(None)
        node: TypeNode
        if schema.shape == "object":
            node = _Object(schema, self)
        elif schema.shape in {"map", "any"}:
            node = _Map(self.node(schema.element or ANY) if schema.shape == "map" else None)
        else:
            return Scalar(schema)
        return Atomic(node) if schema.map_type == "atomic" else node


def compile_schema(schema: Schema) -> TypeNode:
    """Compile a kind's schema. Keep the result: it remembers the shapes it has seen."""
    return _Compiler().node(schema)


def check_typed(node: TypeNode, value: Any) -> None:
    """Raise TypedError with every fault, unless the value fits its schema and no two items share a key."""
    faults = node.check(value)
    if faults:
        raise TypedError(found.removeprefix(": ") for found in faults)
