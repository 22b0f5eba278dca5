"""JSON patch: a list of operations on places in a document.

RFC 6902 with RFC 6901 pointers, as lenient as kube-apiserver: `replace` sets a field that is missing, `add` and
`replace` without a value set null, `test` for null holds of a missing field, 1 and 1.0 differ. Nothing given is
changed: each container on the way is copied once per patch, the others are shared with the result.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from pilothouse.kinds._gotext import JSON_NAMES
from pilothouse.kinds.mergepatch import equal
from pilothouse.kinds.patcherrors import BadRequest, Invalid, TooLarge

__all__ = ["MAX_COPIED_BYTES", "MAX_DEPTH", "MAX_OPERATIONS", "apply", "unknown_fields"]

MAX_OPERATIONS: Final = 10_000
MAX_COPIED_BYTES: Final = 3 * 1024 * 1024
"""The sum of the encoded sizes of what the `copy` operations of one patch add."""
MAX_DEPTH: Final = 500
"""How deeply `move` and `copy` may nest the result."""

_FIELDS: Final = ("op", "path", "from")
_KNOWN: Final = frozenset((*_FIELDS, "value"))
_INDEX: Final = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_MISSING: Final = object()


def apply(document: dict[str, Any], operations: Any, *, negative_indices: bool = False) -> dict[str, Any]:
    """Return an object with the operations of a JSON patch applied in order; all of them or none.

    operations: the decoded body of the request; null is no operation.
    negative_indices: count negative list indices from the end, as kube-apiserver does against RFC 6901.
    Raises BadRequest (not a list of operations), TooLarge (over MAX_OPERATIONS), Invalid (one does not apply).
    """
    checked = _check_form(operations)
    if len(checked) > MAX_OPERATIONS:
        raise TooLarge(f"The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {len(checked)}")
    patching = _Patching(document, negative_indices=negative_indices)
    try:
        for operation in checked:
            run = _OPERATIONS.get(operation.get("op") or "unknown")
            if run is None:
                raise Invalid(f"Unexpected kind: {operation.get('op') or 'unknown'}")
            run(patching, operation)
    except RecursionError:
        raise Invalid("the document or the patch is nested too deeply") from None
    result = patching.root
    if type(result) is not dict:
        raise Invalid("the patch makes a list of the object")
    if patching.may_nest:
        _check_depth(result)
    return result


def unknown_fields(operations: Any) -> list[str]:
    """Return kube-apiserver's strict decoding texts for fields that no operation has."""
    if type(operations) is not list:
        return []
    return [
        f'json patch unknown field "[{number}].{name}"'
        for number, operation in enumerate(operations)
        if type(operation) is dict
        for name in operation
        if name not in _KNOWN
    ]


def _check_form(operations: Any) -> list[dict[str, Any]]:
    """Refuse what does not decode to a list of operations; nulls count as empty."""
    if operations is None:
        return []
    if type(operations) is not list:
        raise _undecodable(operations, "value of type []handlers.jsonPatchOp")
    for operation in operations:
        if type(operation) is not dict:
            if operation is None:
                continue
            raise _undecodable(operation, "value of type handlers.jsonPatchOp")
        for name in _FIELDS:
            value = operation.get(name)
            if type(value) is not str and value is not None:
                raise _undecodable(value, f"struct field jsonPatchOp.{name} of type string")
    return [{} if operation is None else operation for operation in operations]


def _undecodable(value: Any, into: str) -> BadRequest:
    return BadRequest(f"error decoding patch: json: cannot unmarshal {JSON_NAMES[type(value)]} into Go {into}")


class _Patching:
    """One patch on its way: the document so far, and which of its containers are this patch's own."""

    __slots__ = ("copied", "may_nest", "negative_indices", "owned", "root")

    def __init__(self, document: dict[str, Any], *, negative_indices: bool) -> None:
        self.root: Any = document
        self.negative_indices = negative_indices
        # By id: what this patch made is reachable from nowhere else, so an id that is used again is again its own.
        self.owned: set[int] = set()
        self.copied = 0
        self.may_nest = False

    def add(self, operation: dict[str, Any]) -> None:
        path = _pointer(operation, "path", "add operation failed to decode path")
        self._insert(path, operation.get("value"), "add operation does not apply: doc is missing path")

    def remove(self, operation: dict[str, Any]) -> None:
        path = _pointer(operation, "path", "remove operation failed to decode path")
        self._take(path, f'remove operation does not apply: doc is missing path: "{path}"')

    def replace(self, operation: dict[str, Any]) -> None:
        path = _pointer(operation, "path", "replace operation failed to decode path")
        value = operation.get("value")
        if path == "":
            if type(value) is not dict and type(value) is not list:
                raise Invalid("replace operation value must be object or array")
            self.root = value
            return
        tokens = _tokens(path)
        container = self._own(tokens)
        if container is None:
            raise Invalid(f"replace operation does not apply: doc is missing path: {path}: missing value")
        if type(container) is list:
            container[self._index(tokens[-1], len(container), path)] = value
        else:
            container[tokens[-1]] = value

    def move(self, operation: dict[str, Any]) -> None:
        source = _pointer(operation, "from", "move operation failed to decode from")
        path = _pointer(operation, "path", "move operation failed to decode path")
        self.may_nest = True
        value = self._take(source, f"move operation does not apply: doc is missing from path: {source}")
        self._insert(path, value, "move operation does not apply: doc is missing destination path")

    def copy(self, operation: dict[str, Any]) -> None:
        source = _pointer(operation, "from", "copy operation failed to decode from")
        path = _pointer(operation, "path", "copy operation failed to decode path")
        self.may_nest = True
        value = self._read(source, f"copy operation does not apply: doc is missing from path: {source}")
        if value is _MISSING:
            value = None
        encoded = msgspec.json.encode(value)
        self.copied += len(encoded)
        if self.copied > MAX_COPIED_BYTES:
            raise Invalid(
                f"Unable to complete the copy, the accumulated size increase of copy is {self.copied}, "
                f"exceeding the limit {MAX_COPIED_BYTES}"
            )
        # A copy of its own: containers that this patch made stay reachable from one place only.
        value = msgspec.json.decode(encoded)
        self._insert(path, value, "copy operation does not apply: doc is missing destination path")

    def test(self, operation: dict[str, Any]) -> None:
        path = _pointer(operation, "path", "test operation failed to decode path")
        expected = operation.get("value")
        if path == "":
            found: Any = self.root
        else:
            found = self._read(path, f"test operation does not apply: is missing path: {path}")
        if found is _MISSING:
            found = None
        if not equal(found, expected):
            raise Invalid(f"testing value {path} failed: test failed")

    def _read(self, path: str, missing: str) -> Any:
        """Return the value at a place; the missing mark where an object has no such field."""
        tokens = _tokens(path)
        container: Any = self.root
        for token in tokens[:-1]:
            container = self._step(container, token)
        if type(container) is dict:
            return container.get(tokens[-1], _MISSING) if tokens else _refuse(missing)
        if type(container) is not list or not tokens:
            return _refuse(missing)
        return container[self._index(tokens[-1], len(container), path)]

    def _insert(self, path: str, value: Any, missing: str) -> None:
        tokens = _tokens(path)
        container = self._own(tokens)
        if container is None:
            raise Invalid(f'{missing}: "{path}": missing value')
        last = tokens[-1]
        if type(container) is dict:
            container[last] = value
        elif last == "-":
            container.append(value)
        else:
            container.insert(self._index(last, len(container) + 1, path), value)

    def _take(self, path: str, missing: str) -> Any:
        tokens = _tokens(path)
        container = self._own(tokens)
        if container is None:
            return _refuse(missing)
        last = tokens[-1]
        if type(container) is list:
            return container.pop(self._index(last, len(container), path))
        if last not in container:
            raise Invalid(
                f"error in remove for path: '{path}': Unable to remove nonexistent key: {last}: missing value"
            )
        return container.pop(last)

    def _step(self, container: Any, token: str) -> Any:
        if type(container) is dict:
            return container.get(token)
        if type(container) is list and (position := self._position(token, len(container))) is not None:
            return container[position]
        return None

    def _own(self, tokens: list[str]) -> Any:
        """Return the container that a pointer's last token is in, this patch's own from the root to there."""
        if not tokens:
            return None
        owned = self.owned
        container: Any = self.root
        if id(container) not in owned:
            self.root = container = container.copy()
            owned.add(id(container))
        for token in tokens[:-1]:
            child = self._step(container, token)
            if type(child) is not dict and type(child) is not list:
                return None
            if id(child) not in owned:
                child = child.copy()
                owned.add(id(child))
                if type(container) is dict:
                    container[token] = child
                else:
                    container[self._position(token, len(container))] = child
            container = child
        return container

    def _position(self, token: str, size: int) -> int | None:
        if _INDEX.fullmatch(token) is None:
            return None
        position = int(token)
        if position < 0 and self.negative_indices:
            position += size
        return position if 0 <= position < size else None

    def _index(self, token: str, size: int, path: str) -> int:
        position = self._position(token, size)
        if position is None:
            raise Invalid(f"path '{path}': Unable to access invalid index: {token}: invalid index referenced")
        return position


_OPERATIONS: Final[dict[str, Callable[[_Patching, dict[str, Any]], None]]] = {
    "add": _Patching.add,
    "remove": _Patching.remove,
    "replace": _Patching.replace,
    "move": _Patching.move,
    "copy": _Patching.copy,
    "test": _Patching.test,
}


def _pointer(operation: dict[str, Any], name: str, otherwise: str) -> str:
    path: str | None = operation.get(name)
    if path is None:
        raise Invalid(f"{otherwise}: missing value")
    return path


def _tokens(path: str) -> list[str]:
    """Split a pointer into its unescaped tokens; none for the whole document."""
    if path == "":
        return []
    if path[0] != "/":
        raise Invalid(f"path '{path}' does not start with '/'")
    tokens = path[1:].split("/")
    if "~" in path:
        return [token.replace("~1", "/").replace("~0", "~") for token in tokens]
    return tokens


def _refuse(missing: str) -> Any:
    raise Invalid(f"{missing}: missing value")


def _check_depth(value: Any) -> None:
    """Refuse a document that a later encoding could not descend into."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for container in level
            for child in (container.values() if type(container) is dict else container)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            return
    raise Invalid(f"the patch nests the object over {MAX_DEPTH} levels deep")
