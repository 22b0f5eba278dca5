"""Which fields an object has, how two objects differ, and how one is merged into another, as its schema tells.

A schema is compiled once into a tree of `TypeNode`s; the plan for a set of keys of an object is remembered, so that
objects of a known shape cost one dictionary copy for each container. Objects are never changed: results share
what did not change with their inputs. Specification: Kubernetes' structured merge and diff, version 6.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pilothouse.kinds.fieldset import (
    LEAF,
    FieldSet,
    Path,
    element_order,
    insert,
    is_member,
    key_element,
    path_text,
    recursive_difference,
    union,
    value_element,
)
from pilothouse.kinds.schema import ANY, Schema

__all__ = ["EMPTIED", "Comparison", "TypeNode", "TypedError", "check_typed", "compile_schema", "without_emptied"]

_MAX_PLANS = 256
"""Shapes remembered for one type; those beyond are worked out anew each time."""


class TypedError(ValueError):
    """An object that does not fit its schema; `errors` holds each fault with its path."""

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        many = "errors:\n  " + "\n  ".join(self.errors)
        super().__init__(self.errors[0] if len(self.errors) == 1 else many)


class _Emptied:
    """Stands for a container all of whose items were removed."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


EMPTIED = _Emptied()


def without_emptied(value: Any) -> Any:
    """Drop the keys whose containers lost all their items."""
    if isinstance(value, dict):
        return {key: without_emptied(item) for key, item in value.items() if item is not EMPTIED}
    return [without_emptied(item) for item in value] if isinstance(value, list) else value


@dataclass(slots=True)
class Comparison:
    """How a new object differs from an old one. No path is in two of the sets."""

    added: FieldSet = field(default_factory=dict)
    removed: FieldSet = field(default_factory=dict)
    modified: FieldSet = field(default_factory=dict)

    @property
    def changed(self) -> FieldSet:
        """What the new object sets: added and modified."""
        return union(self.added, self.modified)

    def without(self, ignored: FieldSet) -> Comparison:
        """Leave out the given paths and all below them."""
        if not ignored:
            return self
        return Comparison(
            recursive_difference(self.added, ignored),
            recursive_difference(self.removed, ignored),
            recursive_difference(self.modified, ignored),
        )


class TypeNode:
    """A value without fields of its own: a scalar, or an atomic list, map or object."""

    __slots__ = ()
    leaf = True

    def every(self, value: Any) -> FieldSet:
        """Return the node in which each container, item and leaf of the value is a member."""
        return LEAF

    def owned(self, value: Any) -> FieldSet | None:
        """Return the node of what one who applies the value owns, or None for nothing."""
        return LEAF

    def diff(self, old: Any, new: Any, path: Path, found: Comparison) -> None:
        """Put into `found` how two values that are not equal differ."""
        insert(found.modified, path)

    def merge(self, live: Any, applied: Any) -> Any:
        """Return the live value with the applied one laid over it."""
        return applied

    def remove(self, value: Any, items: FieldSet) -> Any:
        """Return the value without the given paths, EMPTIED when nothing is left."""
        return value

    def named(self, items: FieldSet) -> FieldSet:
        """Return the set with those declared fields as members that it has members below of."""
        return items

    def reconcile(self, items: FieldSet) -> FieldSet:
        """Return the set as the present schema has it: what became atomic is owned as a whole."""
        return items

    def check(self, value: Any) -> list[str]:
        """Return the faults of a value, each with its path: wrong types, unknown fields, items with one key."""
        return []


_NUMBER = (int, float)


class _Scalar(TypeNode):
    """A number, string or boolean; one with a format of several types (`int-or-string`) may be any of them."""

    __slots__ = ("_shape",)

    def __init__(self, schema: Schema) -> None:
        self._shape = "any" if schema.format in {"int-or-string", "quantity"} else schema.shape

    def check(self, value: Any) -> list[str]:
        if value is None:
            return []
        if self._shape == "string":
            return [] if isinstance(value, str) else [_fault("string", value)]
        if self._shape == "boolean":
            return [] if isinstance(value, bool) else [_fault("boolean", value)]
        if self._shape in {"integer", "number"}:
            number = isinstance(value, _NUMBER) and not isinstance(value, bool)
            return [] if number else [_fault("numeric (int or float)", value)]
        return [_fault("any scalar", value)] if isinstance(value, dict | list) else []


def _fault(expected: str, value: Any) -> str:
    return f": expected {expected}, got {type(value).__name__}"


class _Atomic(TypeNode):
    """A list, map or object that is owned and replaced as a whole."""

    __slots__ = ("_inner", "_items")

    def __init__(self, inner: TypeNode | None, items: TypeNode | None = None) -> None:
        self._inner = inner
        self._items = items

    def reconcile(self, items: FieldSet) -> FieldSet:
        return LEAF if items else items

    def check(self, value: Any) -> list[str]:
        if self._inner is not None:
            return self._inner.check(value)
        if self._items is None or value is None:
            return []
        if not isinstance(value, list):
            return [_fault("list", value)]
        return [f"[{i}]{fault}" for i, item in enumerate(value) for fault in self._items.check(item)]


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
            return live if applied is None and live else applied
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
            return [_fault("map", value)]
        return [f".{name}{fault}" for name, item in value.items() for fault in self.child(name).check(item)]

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

    def owned(self, value: Any) -> FieldSet | None:
        if not value or not isinstance(value, dict):
            return LEAF
        return {"f:" + name: _with_self(self.element.owned(value[name])) for name in sorted(value)}

    def reconcile(self, items: FieldSet) -> FieldSet:
        return items if self.open else super().reconcile(items)

    def check(self, value: Any) -> list[str]:
        return [] if self.open else super().check(value)


def _with_self(node: FieldSet | None) -> FieldSet:
    return {".": LEAF, **node} if node else LEAF


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
                out[element] = _with_self(below)
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


class _List(TypeNode):
    """A list whose items are known by key fields (list-map) or by value (set)."""

    __slots__ = ("_defaults", "_element", "_keys")
    leaf = False

    def __init__(self, schema: Schema, compiler: _Compiler) -> None:
        element = schema.element or ANY
        self._element = compiler.node(element)
        self._keys = tuple(sorted(schema.list_keys)) if schema.list_type == "map" else ()
        self._defaults = {
            name: element.fields[name].default
            for name in self._keys
            if name in element.fields and element.fields[name].has_default
        }

    def item_element(self, item: Any) -> str:
        """Return the path element of an item; raise TypedError where it has none."""
        if not self._keys:
            if item is None or isinstance(item, dict | list):
                kind = "an explicit null" if item is None else f"a {'map' if isinstance(item, dict) else 'list'}"
                raise TypedError([f"associative list without keys has an element that's {kind} type"])
            return value_element(item)
        if not isinstance(item, dict):
            what = "a null element" if item is None else "non-map elements"
            raise TypedError([f"associative list with keys may not have {what}"])
        pairs = [
            (n, item[n] if n in item else self._defaults[n]) for n in self._keys if n in item or n in self._defaults
        ]
        if not pairs:
            names = " ".join(f'"{name}"' for name in self._keys)
            fault = f"associative list with keys has an element that omits all key fields [{names}]"
            raise TypedError([f"{fault} (and doesn't have default values for any key fields)"])
        try:
            return key_element(pairs)
        except TypeError as error:
            raise TypedError([f"key fields {', '.join(self._keys)} must be scalars"]) from error

    def _group(self, items: Any) -> dict[str, list[Any]]:
        groups: dict[str, list[Any]] = {}
        for item in items if isinstance(items, list) else ():
            groups.setdefault(self.item_element(item), []).append(item)
        return groups

    def _in_order(self, groups: dict[str, list[Any]]) -> Iterable[str]:
        return sorted(groups, key=element_order) if len(groups) > 1 else groups

    def every(self, value: Any) -> FieldSet:
        if not value or not isinstance(value, list):
            return LEAF
        groups = self._group(value)
        out: FieldSet = {".": LEAF}
        for element in self._in_order(groups):
            items = groups[element]
            out[element] = self._element.every(items[0]) if len(items) == 1 else LEAF
        return out

    def owned(self, value: Any) -> FieldSet | None:
        if not isinstance(value, list):
            return LEAF
        if not value:
            return None
        groups = self._group(value)
        out: FieldSet = {}
        for element in self._in_order(groups):
            items = groups[element]
            single = self._element.owned(items[0]) if len(items) == 1 and not self._element.leaf else None
            out[element] = _with_self(single)
        return out

    def diff(self, old: Any, new: Any, path: Path, found: Comparison) -> None:
        if not old and not new:
            insert(found.modified, path)
            return
        before, after = self._group(old), self._group(new)
        for element in {**before, **after}:
            mine, theirs = before.get(element, ()), after.get(element, ())
            if mine != theirs:
                self._diff_items(mine, theirs, (*path, element), found)

    def _diff_items(self, mine: Any, theirs: Any, path: Path, found: Comparison) -> None:
        # Items that share a key are one thing: they change together and are owned together.
        many_before, many_after = len(mine) > 1, len(theirs) > 1
        if many_before and many_after:
            insert(found.modified, path)
        elif len(mine) == len(theirs) == 1:
            self._element.diff(mine[0], theirs[0], path, found)
        else:
            if theirs:
                insert(found.added, path, LEAF if many_after else self._element.every(theirs[0]))
            if mine:
                insert(found.removed, path, LEAF if many_before else self._element.every(mine[0]))

    def merge(self, live: Any, applied: Any) -> Any:
        if not live or not applied:
            return live or applied
        theirs: dict[str, Any] = {}
        for item in applied:
            element = self.item_element(item)
            if element in theirs:
                raise TypedError([f"duplicate entries for key {path_text((element,))}"])
            theirs[element] = item
        own = [self.item_element(item) for item in live]
        mine: dict[str, Any] = {}
        for element, item in zip(own, live, strict=True):
            mine[element] = None if element in mine else item
        if own == list(theirs):
            return [self._both(mine, theirs, element) for element in own]
        return self._interleave(own, live, mine, theirs)

    def _both(self, mine: dict[str, Any], theirs: dict[str, Any], element: str) -> Any:
        live = mine.get(element)
        return theirs[element] if live is None else self._element.merge(live, theirs[element])

    def _interleave(self, own: list[str], live: list[Any], mine: dict[str, Any], theirs: dict[str, Any]) -> list[Any]:
        # Items of both keep the applied order; live ones that were not applied stay behind what they followed.
        order = list(theirs)
        shared = [element for element in order if element in mine]
        done: set[str] = set()
        out: list[Any] = []
        left = right = turn = 0
        while left < len(own) or right < len(order):
            following = shared[turn] if turn < len(shared) else None
            element = own[left] if left < len(own) else None
            if element is not None and (right >= len(order) or element != order[right]):
                if element in theirs and right < len(order) and following not in {None, element}:
                    left += 1
                    continue
                if element not in theirs:
                    out.append(live[left])
                    left += 1
                    continue
                if element in done:
                    left += 1
            if right < len(order):
                taken = order[right]
                left += taken == element
                right += 1
                turn += taken == following
                done.add(taken)
                out.append(self._both(mine, theirs, taken))
        return out

    def remove(self, value: Any, items: FieldSet) -> Any:
        if not isinstance(value, list) or not value:
            return EMPTIED
        out = []
        for item in value:
            node = items.get(self.item_element(item))
            if node is None:
                out.append(item)
            elif not is_member(node):
                out.append(self._element.remove(item, node))
        return out or EMPTIED

    def check(self, value: Any) -> list[str]:
        if value is None:
            return []
        if not isinstance(value, list):
            return [_fault("list", value)]
        faults: list[str] = []
        seen: set[str] = set()
        for index, item in enumerate(value):
            try:
                element = self.item_element(item)
            except TypedError as error:
                return [*faults, *(f": element {index}: {fault}" for fault in error.errors)]
            shown = path_text((element,))
            if element in seen:
                faults.append(f": duplicate entries for key {shown}")
            seen.add(element)
            faults += [shown + fault for fault in self._element.check(item)]
        return faults

    def named(self, items: FieldSet) -> FieldSet:
        return {e: self._element.named(n) if n and e[:2] == "k:" else n for e, n in items.items()}

    def reconcile(self, items: FieldSet) -> FieldSet:
        return {e: self._element.reconcile(n) if n and e != "." else n for e, n in items.items()}


class _Compiler:
    """Makes one node for each schema node of one kind, when it is first met."""

    def __init__(self) -> None:
        self._nodes: dict[Schema, TypeNode] = {}

    def node(self, schema: Schema) -> TypeNode:
        node = self._nodes.get(schema)
        if node is None:
            node = self._nodes[schema] = self._make(schema)
        return node

    def _make(self, schema: Schema) -> TypeNode:
        if schema.shape == "list":
            if schema.list_type == "atomic":
                return _Atomic(None, self.node(schema.element) if schema.element else None)
            return _List(schema, self)
        # A named type of which nothing is known is one value; an unnamed one is what its value turns out to be.
        if schema.shape == "any" and (schema.name or not schema.preserve_unknown):
            return _Atomic(None)
        node: TypeNode
        if schema.shape == "object":
            node = _Object(schema, self)
        elif schema.shape in {"map", "any"}:
            node = _Map(self.node(schema.element or ANY) if schema.shape == "map" else None)
        else:
            return _Scalar(schema)
        return _Atomic(node) if schema.map_type == "atomic" else node


def compile_schema(schema: Schema) -> TypeNode:
    """Compile a kind's schema. Keep the result: it remembers the shapes it has seen."""
    return _Compiler().node(schema)


def check_typed(node: TypeNode, value: Any) -> None:
    """Raise TypedError with every fault, unless the value fits its schema and no two items share a key."""
    faults = node.check(value)
    if faults:
        raise TypedError(fault.removeprefix(": ") for fault in faults)
