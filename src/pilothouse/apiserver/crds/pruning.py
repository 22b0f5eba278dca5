"""Leaves out what a schema does not know, and gives metadata its form."""

from __future__ import annotations

from functools import cache
from typing import Any

from pilothouse.apiserver.crds.structural import META_FIELDS, Node
from pilothouse.kinds import prune as decoding
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.schema import Schema
from pilothouse.kinds.table import schema_named

__all__ = ["coerce", "object_meta", "prune"]

MAX_REPORTED = 100


@cache
def object_meta() -> Schema:
    """Return the schema of `metadata`."""
    return schema_named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")


def prune(node: Node, obj: Any) -> list[str]:
    """Leave out unknown fields of a whole resource, in place; return their paths, sorted, 100 at most.

    node: as `embedded_root` gives it.
    """
    paths: list[str] = []
    _prune(node, obj, "", paths)
    return sorted(paths)


def _record(paths: list[str], path: str) -> None:
    if len(paths) < MAX_REPORTED:
        paths.append(path)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _prune(node: Node | None, value: Any, path: str, paths: list[str]) -> None:
    if type(value) is dict:
        _prune_map(node, value, path, paths)
    elif type(value) is list:
        inner = node.items if node is not None else None
        if node is not None and node.preserve:
            if inner is not None:
                for at, item in enumerate(value):
                    _skip(inner, item, f"{path}[{at}]", paths)
            return
        for at, item in enumerate(value):
            if type(item) is dict or type(item) is list:
                _prune(inner, item, f"{path}[{at}]", paths)


def _prune_map(node: Node | None, value: dict[str, Any], path: str, paths: list[str]) -> None:
    if node is None:
        for name in value:
            _record(paths, _join(path, name))
        value.clear()
        return
    unknown: list[str] = []
    embedded = node.embedded
    for name, inner in value.items():
        if embedded and name in META_FIELDS:
            continue
        found = node.child(name)
        if found is None and node.additional is not True:
            if not node.preserve:
                if path or name not in META_FIELDS:
                    _record(paths, _join(path, name))
                unknown.append(name)
        elif (type(inner) is dict or type(inner) is list) and not (found is None and node.preserve):
            _prune(found, inner, _join(path, name), paths)
    for name in unknown:
        del value[name]


def _skip(node: Node | None, value: Any, path: str, paths: list[str]) -> None:
    """Go through a list whose unknown fields are kept: only declared properties of its items are pruned."""
    if node is None:
        return
    if type(value) is dict:
        for name, inner in value.items():
            if not (node.embedded and name in META_FIELDS) and (found := node.child(name)) is not None:
                _prune(found, inner, _join(path, name), paths)
    elif type(value) is list:
        for at, item in enumerate(value):
            _skip(node.items, item, f"{path}[{at}]", paths)


def coerce(node: Node, obj: Any) -> list[str]:
    """Bring the metadata of a resource and of those embedded in it into form, in place.

    Returns the paths of unknown metadata fields, sorted. Raises DecodeError for metadata that cannot be decoded, and
    for an apiVersion or kind that is no string.
    """
    paths: list[str] = []
    _coerce(node, obj, "", paths)
    return sorted(paths)


def _coerce(node: Node, value: Any, path: str, paths: list[str]) -> None:
    if type(value) is dict:
        if node.embedded:
            _coerce_meta(value, path, paths)
        for name, inner in value.items():
            if type(inner) is dict or type(inner) is list:
                found = node.child(name)
                if found is not None:
                    _coerce(found, inner, _join(path, name), paths)
    elif type(value) is list and node.items is not None:
        for at, item in enumerate(value):
            if type(item) is dict or type(item) is list:
                _coerce(node.items, item, f"{path}[{at}]", paths)


def _coerce_meta(value: dict[str, Any], path: str, paths: list[str]) -> None:
    for name in ("apiVersion", "kind"):
        if name in value and not isinstance(value[name], str):
            raise _fault(_join(path, name), value[name], "must be a string")
    if "metadata" not in value:
        return
    metadata = value["metadata"]
    try:
        value["metadata"], messages = decoding.decode(object_meta(), metadata)
    except decoding.DecodeError as error:
        if not path:
            raise  # Kubernetes tells of the resource's own metadata in the decoder's words alone
        raise _fault(_join(path, "metadata"), metadata, str(error)) from None
    if type(value["metadata"]) is not dict:
        value["metadata"] = {}
    where = _join(path, "metadata")
    for message in messages:
        _record(paths, f"{where}.{message.removeprefix('unknown field ').strip(chr(34))}")


def _fault(path: str, value: Any, detail: str) -> decoding.DecodeError:
    errors = ErrorList()
    errors.invalid(Path(path), value, detail)
    return decoding.DecodeError(str(errors[0]))
