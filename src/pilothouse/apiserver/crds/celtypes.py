"""The types that rules see, with the names that expressions can use, and values in the form they have there."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pilothouse.apiserver.cel import types
from pilothouse.apiserver.cel.errors import CelError
from pilothouse.apiserver.cel.times import parse_duration, parse_timestamp
from pilothouse.apiserver.cel.types import Field, Type
from pilothouse.apiserver.crds.mergelists import MapList, SetList
from pilothouse.apiserver.crds.structural import Node
from pilothouse.apiserver.crds.values import json_type

__all__ = ["MAX_REQUEST", "Convert", "converter", "declared", "escape"]

MAX_REQUEST = 3 << 20
"""The largest request, in bytes, by which sizes are bounded that the schema leaves open."""
Convert = Callable[[Any], Any]

_RESERVED = frozenset(
    {
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import"),
        *("let", "loop", "package", "namespace", "return", "var", "void", "while"),
    }
)
_PLAIN = re.compile(r"(?:_?[A-Za-z0-9])*_?", re.ASCII)
_ESCAPABLE = re.compile(r"[A-Za-z_.\-/][A-Za-z0-9_.\-/]*", re.ASCII)
_ESCAPES = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_TEXTS = {
    "duration": (types.DURATION, 3, 32),
    "date": (types.TIMESTAMP, 12, 12),
    "date-time": (types.TIMESTAMP, 21, 37),
}


def escape(name: str) -> str | None:
    """Return a field's name as expressions write it; None for one that they cannot."""
    if name in _RESERVED:
        return f"__{name}__"
    if not _ESCAPABLE.fullmatch(name):
        return None
    return re.sub(r"__|[./-]", lambda match: _ESCAPES[match[0]], name)


def declared(node: Node, *, root: bool, name: str = "selfType") -> Type | None:
    """Return the type of a schema; None for one that rules cannot see. root: a whole resource, with its metadata."""
    if node.int_or_string:
        length = node.get("maxLength")
        return Type("dyn", max_size=MAX_REQUEST - 2 if length is None else 4 * max(length, 0), min_bytes=1)
    match "object" if root else node.type:
        case "array":
            return _list(node, name)
        case "object":
            return _object(node, name, root=root)
        case "string":
            return _string(node)
        case "boolean":
            return Type("bool", max_size=0, min_bytes=4)
        case "integer":
            return Type("int", max_size=0, min_bytes=1)
        case "number":
            return Type("double", max_size=0, min_bytes=1)
    return None


def _list(node: Node, name: str) -> Type | None:
    element = declared(node.items, root=node.items.embedded, name=f"{name}.@idx") if node.items is not None else None
    if element is None:
        return None
    most = node.get("maxItems")
    size = (MAX_REQUEST - 2) // (element.min_bytes + 1) if most is None else max(most, 0)
    return types.list_of(element, max_size=size)


def _object(node: Node, name: str, *, root: bool) -> Type | None:
    if isinstance(node.additional, Node) and not root:
        value = declared(node.additional, root=node.additional.embedded, name=f"{name}.@elem")
        if value is None:
            return None
        most = node.get("maxProperties")
        size = (MAX_REQUEST - 2) // (value.min_bytes + 6) if most is None else max(most, 0)
        return types.map_of(Type("string", max_size=0, min_bytes=2), value, max_size=size)
    fields: dict[str, Field] = {}
    least = 2
    for field, part in (_with_metadata(node) if root else node.properties).items():
        made = declared(part, root=part.embedded, name=f"{name}.{field}")
        if made is None:
            continue
        if (escaped := escape(field)) is not None:
            fields[escaped] = Field(made, field)
        if field in node.required and part.default is None:
            least += len(field) + made.min_bytes + 4
    return types.object_type(name, fields, min_bytes=least)


_TEXT = Node({"type": "string"}, ("string",))
_METADATA = Node({"type": "object"}, ("object",), properties={"name": _TEXT, "generateName": _TEXT})


def _with_metadata(node: Node) -> Mapping[str, Node]:
    return {**node.properties, "apiVersion": _TEXT, "kind": _TEXT, "metadata": _METADATA}


def _string(node: Node) -> Type:
    length, form = node.get("maxLength"), node.get("format") or ""
    if form in _TEXTS:
        made, least, most = _TEXTS[form]
        return Type(made.kind, max_size=most, min_bytes=least)
    if form == "byte":
        return Type("bytes", max_size=MAX_REQUEST - 2 if length is None else max(length, 0), min_bytes=2)
    if length is not None:
        size = 4 * max(length, 0)
    elif node.enum:
        size = max((len(each.encode()) for each in node.enum if isinstance(each, str)), default=0)
    else:
        size = MAX_REQUEST - 2
    return Type("string", max_size=size, min_bytes=2)


def converter(node: Node, *, lists: bool = False) -> Convert | None:
    """Return what brings a JSON value into the form that rules see; None where JSON already has it.

    Numbers without a fraction become doubles, times and durations values of their own, base64 bytes. lists: lists that
    merge as sets or maps become lists that compare and add that way; only rules that compare or add lists need that.
    """
    match node.type:
        case "number":
            return lambda value: float(value) if type(value) is int else value
        case "string":
            return _text_converter(node)
        case "array" if node.items is not None:
            return _list_converter(node, converter(node.items, lists=lists), lists=lists)
        case "object" | "":
            return _object_converter(node, lists=lists)
    return None


def _text_converter(node: Node) -> Convert | None:
    match node.get("format"):
        case "date-time":
            return _checked("date-time", parse_timestamp)
        case "date":
            return _checked("date", lambda text: parse_timestamp(f"{text}T00:00:00Z"))
        case "duration":
            return _checked("duration", parse_duration)
        case "byte":
            return _checked("byte", _decoded)
    return None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise CelError(str(error)) from None


def _checked(form: str, read: Callable[[str], Any]) -> Convert:
    def convert(value: Any) -> Any:
        if value is None:
            return None
        if type(value) is not str:
            raise CelError(f"expected {form} as text, got {json_type(value)}")
        return read(value)

    return convert


def _list_converter(node: Node, inner: Convert | None, *, lists: bool) -> Convert | None:
    wrap: Callable[[list[Any]], list[Any]] | None = None
    if lists and node.list_type == "set":
        wrap = SetList
    elif lists and node.list_type == "map":
        wrap = partial(MapList, keys=node.list_keys)
    if inner is None and wrap is None:
        return None

    def convert(value: Any) -> Any:
        if type(value) is not list:
            return value
        made = value if inner is None else [inner(item) for item in value]
        return made if wrap is None else wrap(made)

    return convert


def _object_converter(node: Node, *, lists: bool) -> Convert | None:
    parts = {name: made for name, part in node.properties.items() if (made := converter(part, lists=lists)) is not None}
    other = converter(node.additional, lists=lists) if isinstance(node.additional, Node) else None
    if not parts and other is None:
        return None
    declared_fields = node.properties

    def convert(value: Any) -> Any:
        if type(value) is not dict:
            return value
        made = dict(value)
        for name, item in value.items():
            part = parts.get(name) if name in declared_fields else other
            if part is not None:
                made[name] = part(item)
        return made

    return convert
