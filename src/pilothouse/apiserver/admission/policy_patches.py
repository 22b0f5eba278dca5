"""The mutations of policies: apply configurations merged as server-side apply merges, and JSON patches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from pilothouse.apiserver.admission.changing import Settle, SettleError
from pilothouse.apiserver.admission.expressions import compiled, evaluate
from pilothouse.apiserver.ports import Gvk, Object
from pilothouse.kinds import jsonpatch
from pilothouse.kinds.patcherrors import PatchError
from pilothouse.kinds.schema import Schema
from pilothouse.kinds.typed import TypedError, TypeNode, check_typed, compile_schema

__all__ = ["FindSchema", "Mutation", "PatchFailed", "atomics", "mismatches"]

FindSchema: TypeAlias = Callable[[str, str, str], Schema | None]
"""Gives the schema of a group, version and kind; None where there is none."""


class PatchFailed(Exception):
    """A mutation could not be applied; the message is Kubernetes'."""


class Mutation:
    """One mutation of a policy, compiled. scope: the policy's environment."""

    def __init__(self, found: Mapping[str, Any], scope: Any) -> None:
        self._applies = found.get("patchType") == "ApplyConfiguration"
        self.field = "applyConfiguration" if self._applies else "jsonPatch"
        self.text = str((found.get(self.field) or {}).get("expression") or "")
        self._program = compiled(scope.full, self.text, "any")
        if not isinstance(self._program, str):
            self._program = self._wrong_type(self._program.type) or self._program
        self._mismatch = ""
        if not isinstance(self._program, str):
            self._mismatch = next(mismatches(self._program.root, ""), "")

    @property
    def problem(self) -> str:
        """Why the expression does not compile; empty where it does."""
        return self._program if isinstance(self._program, str) else ""

    def apply(self, item: Object, kind: Gvk, values: Mapping[str, Any], tools: tuple[FindSchema, Settle]) -> Object:
        """Return the object changed. Raises EvaluationFailed and PatchFailed."""
        from pilothouse.apiserver.cel import Budget  # noqa: PLC0415 - only where there are policies

        if isinstance(self._program, str):
            raise PatchFailed(self._program)
        made = evaluate(self._program, self.text, values, Budget())
        if self._mismatch:
            raise PatchFailed(f"type mismatch: {self._mismatch}")
        find, settle = tools
        try:
            changed = _merged(item, made, kind, find) if self._applies else _patched(item, made)
            return changed if changed is item else settle(changed, kind)
        except SettleError as error:
            raise PatchFailed(str(error)) from None

    def _wrong_type(self, given: Any) -> str:
        """Say what the expression should evaluate to, if it cannot."""
        if self._applies:
            return "" if given.kind == "dyn" or str(given) == "Object" else "must evaluate to Object"
        if given.kind == "dyn":
            return ""
        inner = given.params[0] if given.kind == "list" and given.params else None
        good = inner is not None and (inner.kind in {"dyn", "var"} or str(inner) == "JSONPatch")
        return "" if good else "must evaluate to list(JSONPatch)"


def mismatches(node: Any, path: str) -> Iterator[str]:
    """Give the object literals whose name does not say where they stand: `Object.spec{x: Object.wrong{}}`."""
    from pilothouse.apiserver.cel.syntax import Call, ListOf, StructOf, children  # noqa: PLC0415

    if isinstance(node, StructOf):
        here = node.name
        if path and here not in {path, "JSONPatch"}:
            yield (
                f'unexpected type name "{here}", expected "{path}", which matches field name path from root Object type'
            )
        inside = "" if here == "JSONPatch" else here
        for name, value, _ in node.entries:
            yield from mismatches(value, f"{inside}.{name}" if inside else "")
    elif isinstance(node, ListOf | Call):
        for child in children(node):
            yield from mismatches(child, path if isinstance(node, ListOf) or node.function == "_?_:_" else "")


def _patched(item: Object, operations: Any) -> Object:
    if not isinstance(operations, list):
        raise PatchFailed("type mismatch: JSONPatchType.expression should evaluate to array")
    try:
        return jsonpatch.apply(item, [_operation(one) for one in operations], negative_indices=True)
    except PatchError as error:
        if error.explanation.endswith("test failed"):
            # A failed test means that there is nothing to do.
            return item
        raise PatchFailed(f"JSON Patch: {error.explanation}") from None


def _operation(found: Any) -> Object:
    if not isinstance(found, dict):
        raise PatchFailed("type mismatch: JSONPatchType.expression should evaluate to array of JSONPatch")
    return {name: value for name, value in found.items() if name in {"op", "path", "value"} or value}


@lru_cache(maxsize=256)
def _node(schema: Schema) -> TypeNode:
    return compile_schema(schema)


def _merged(item: Object, applied: Any, kind: Gvk, find: FindSchema) -> Object:
    group, version, name = kind
    schema = find(group, version, name)
    if schema is None:
        raise PatchFailed(
            f"Resource kind {group}/{version}, Kind={name} not found. There can be a delay between when "
            "CustomResourceDefinitions are created and when they are available."
        )
    if not isinstance(applied, dict):
        raise PatchFailed("unsupported return type from ApplyConfiguration expression")
    api_version = f"{group}/{version}" if group else version
    wanted = {**applied, "apiVersion": api_version, "kind": name}
    node = _node(schema)
    try:
        check_typed(node, wanted)
    except TypedError as error:
        raise PatchFailed(f"error applying patch: failed to convert patch object to typed object: {error}") from None
    found = list(atomics(schema, wanted, ""))
    if found:
        raise PatchFailed(
            "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
            + ", ".join(found)
        )
    merged: Object = node.merge(item, wanted)
    return merged


def atomics(schema: Schema, value: Any, path: str) -> Iterator[str]:
    """Give the paths of lists and maps that could only be replaced whole, which would drop what others put there."""
    if isinstance(value, dict) and schema.shape in {"object", "map"}:
        if schema.map_type == "atomic":
            yield path
        for name, inner in value.items():
            below = schema.fields.get(name) if schema.shape == "object" else schema.element
            if below is not None:
                yield from atomics(below, inner, f"{path}.{name}")
    elif isinstance(value, list) and schema.shape == "list":
        if schema.list_type == "atomic":
            yield path
        if schema.element is not None:
            yield from _within(schema.element, value, path)


def _within(element: Schema, items: Sequence[Any], path: str) -> Iterator[str]:
    for position, inner in enumerate(items):
        yield from atomics(element, inner, f"{path}[{position}]")
