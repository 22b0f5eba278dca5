"""OpenAPI 2 in protobuf, as older clients ask for it: the messages of package `openapi.v2` of gnostic.

Only what the documents here have is written. Field numbers are those that the package publishes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from pilothouse.apiserver.openapi.documents import Pieces

__all__ = ["document"]

_VARINT_BITS: Final = 0x7F
_METHODS: Final = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}
_TEXTS: Final = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_NUMBERS: Final = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_COUNTS: Final = {
    "maxLength": 11,
    "minLength": 12,
    "maxItems": 14,
    "minItems": 15,
    "maxProperties": 17,
    "minProperties": 18,
}
_FLAGS: Final = {"exclusiveMaximum": 8, "exclusiveMinimum": 10, "uniqueItems": 16, "readOnly": 27}
_PLACES: Final = {"query": (3, 6, 20), "path": (4, 5, 19)}
"""Where a parameter is: the field it goes to, then those of its type and of `uniqueItems`."""


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    made = bytearray()
    while value > _VARINT_BITS:
        made.append(value & _VARINT_BITS | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)


def _bytes(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _text(number: int, value: str) -> bytes:
    return _bytes(number, value.encode()) if value else b""


def _texts(number: int, values: Iterable[str]) -> bytes:
    return b"".join(_bytes(number, value.encode()) for value in values)


def _int(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(int(value))


def _double(number: int, value: float) -> bytes:
    return _varint(number << 3 | 1) + struct.pack("<d", value)


def _any(value: Any) -> bytes:
    # the field is for YAML, of which JSON is a part
    return _bytes(2, msgspec.json.encode(value) + b"\n")


def _named(name: str, value: bytes) -> bytes:
    return _text(1, name) + _bytes(2, value)


def _extensions(number: int, holder: Mapping[str, Any]) -> bytes:
    return b"".join(
        _bytes(number, _named(name, _any(value))) for name, value in holder.items() if name.startswith("x-")
    )


def _type(value: str | Iterable[str]) -> bytes:
    return _texts(1, [value] if isinstance(value, str) else value)


def _schema(schema: Mapping[str, Any]) -> bytes:
    made = bytearray()
    for name, number in _TEXTS.items():
        made += _text(number, schema.get(name, ""))
    if "default" in schema:
        made += _bytes(5, _any(schema["default"]))
    for table, write in ((_NUMBERS, _double), (_COUNTS, _int), (_FLAGS, _int)):
        for name, number in table.items():
            if name in schema:
                made += write(number, schema[name])
    made += _texts(19, schema.get("required", ()))
    made += b"".join(_bytes(20, _any(value)) for value in schema.get("enum", ()))
    extra = schema.get("additionalProperties")
    if extra is not None:
        made += _bytes(21, _int(2, extra) if isinstance(extra, bool) else _bytes(1, _schema(extra)))
    if "type" in schema:
        made += _bytes(22, _type(schema["type"]))
    if isinstance(schema.get("items"), Mapping):
        made += _bytes(23, _bytes(1, _schema(schema["items"])))
    if "properties" in schema:
        made += _bytes(25, _schemas(schema["properties"]))
    return bytes(made) + _extensions(31, schema)


def _schemas(schemas: Mapping[str, Any]) -> bytes:
    return b"".join(_bytes(1, _named(name, _schema(schema))) for name, schema in schemas.items())


def _parameter(parameter: Mapping[str, Any]) -> bytes:
    """Encode a ParametersItem."""
    text, name, place = parameter.get("description", ""), parameter["name"], parameter["in"]
    required = bool(parameter.get("required"))
    if place == "body":
        body = _text(1, text) + _text(2, name) + _text(3, place)
        body += (_int(4, 1) if required else b"") + _bytes(5, _schema(parameter["schema"]))
        return _bytes(1, _bytes(1, body))
    field, kind, unique = _PLACES[place]
    made = (_int(1, 1) if required else b"") + _text(2, place) + _text(3, text) + _text(4, name)
    made += _text(kind, parameter["type"])
    made += _int(unique, 1) if parameter.get("uniqueItems") else b""
    return _bytes(1, _bytes(2, _bytes(field, made)))


def _response(response: Mapping[str, Any]) -> bytes:
    """Encode a ResponseValue."""
    made = _text(1, response["description"])
    if "schema" in response:
        made += _bytes(2, _bytes(1, _schema(response["schema"])))
    return _bytes(1, made)


def _operation(operation: Mapping[str, Any]) -> bytes:
    made = _texts(1, operation.get("tags", ()))
    made += _text(3, operation.get("description", "")) + _text(5, operation.get("operationId", ""))
    made += _texts(6, operation.get("produces", ())) + _texts(7, operation.get("consumes", ()))
    made += b"".join(_bytes(8, _parameter(one)) for one in operation.get("parameters", ()))
    answers = operation.get("responses", {}).items()
    made += _bytes(9, b"".join(_bytes(1, _named(code, _response(answer))) for code, answer in answers))
    return made + _texts(10, operation.get("schemes", ())) + _extensions(13, operation)


def _path(item: Mapping[str, Any]) -> bytes:
    made = b"".join(_bytes(number, _operation(item[name])) for name, number in _METHODS.items() if name in item)
    return made + b"".join(_bytes(9, _parameter(one)) for one in item.get("parameters", ()))


def document(made: Pieces, version: str) -> bytes:
    """Encode a whole document. made: the pieces in form 2. version: of the program."""
    paths = b"".join(_bytes(2, _named(path, _path(item))) for path, item in made.paths())
    definitions = b"".join(_bytes(1, _named(name, _schema(schema))) for name, schema in made.schemas())
    bearer = _text(1, "apiKey") + _text(2, "authorization") + _text(3, "header")
    security = _bytes(1, _named("BearerToken", _bytes(2, bearer)))
    return b"".join(
        (
            _text(1, "2.0"),
            _bytes(2, _text(1, "Kubernetes") + _text(2, version)),
            _bytes(8, paths),
            _bytes(9, definitions),
            _bytes(12, _bytes(1, _text(1, "BearerToken") + _bytes(2, b""))),
            _bytes(13, security),
        )
    )
