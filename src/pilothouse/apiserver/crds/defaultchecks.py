"""Defaults of a schema: they must be valid themselves, and nothing in them may be unknown."""

from __future__ import annotations

import copy

from pilothouse.apiserver.crds import pruning
from pilothouse.apiserver.crds.checking import check
from pilothouse.apiserver.crds.embedded import check_embedded
from pilothouse.apiserver.crds.rules import compile_rules
from pilothouse.apiserver.crds.running import run_rules
from pilothouse.apiserver.crds.structural import META_FIELDS, Node
from pilothouse.apiserver.crds.values import same
from pilothouse.kinds.fielderrors import ErrorList, FieldError, Path
from pilothouse.kinds.prune import DecodeError

__all__ = ["check_defaults"]


def check_defaults(node: Node, at: Path) -> ErrorList:
    """Return what is wrong with the defaults of a structural schema. at: where the schema stands."""
    errors = ErrorList()
    _check(errors, node, at, root=True, inside_meta=False)
    return errors


def _check(errors: ErrorList, node: Node, at: Path, *, root: bool, inside_meta: bool) -> None:
    if node.embedded:
        inside_meta = False
    if node.default is not None:
        _default(errors, node, at.child("default"), root=root or node.embedded, inside_meta=inside_meta)
    # Not into additionalProperties: defaults are forbidden there.
    if node.items is not None:
        _check(errors, node.items, at.child("items"), root=False, inside_meta=inside_meta)
    for name, part in node.properties.items():
        meta = inside_meta or ((root or node.embedded) and name in META_FIELDS)
        _check(errors, part, at.child("properties").key(name), root=False, inside_meta=meta)


def _default(errors: ErrorList, node: Node, at: Path, *, root: bool, inside_meta: bool) -> None:
    value = copy.deepcopy(node.default)
    if not inside_meta:
        paths: list[str] = []
        pruned = copy.deepcopy(value)
        if isinstance(pruned, (dict, list)):
            paths = pruning.prune(node, pruned)
        if paths or not same(pruned, value):
            errors.invalid(at, node.default, "must not have unknown fields")
        try:
            if isinstance(value, (dict, list)):
                pruning.coerce(node, value)
        except DecodeError as error:
            errors.invalid(at, node.default, str(error))
            return
        embedded = ErrorList()
        check_embedded(node, value, at, embedded)
        if embedded:
            errors.extend(embedded)
            return
    found = check(node, value, "").errors
    if found:
        errors.extend(_placed(error, at) for error in found)
        return
    compiled = compile_rules(node, root=root)
    if compiled is not None:
        refused, _ = run_rules(compiled, value, value, at=at)
        if not refused:
            refused, _ = run_rules(compiled, value, None, at=at)
        errors.extend(refused)


def _placed(error: FieldError, at: Path) -> FieldError:
    """Put an error of a value where the default stands; its text keeps the path inside the value."""
    field = at.text if error.field == "<nil>" else f"{at}.{error.field}"
    return FieldError(error.reason, field, error.value, error.detail)
