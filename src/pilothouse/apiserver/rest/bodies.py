"""The body of a write: read from JSON, YAML or protobuf, checked against its kind, with what field validation says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pilothouse.apiserver.model import Request
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.gojson import syntax_error
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.prune import (
    DecodeError,
    decode,
    has_duplicates,
    strict_decoding_error,
    strict_errors,
)
from pilothouse.kinds.schema import ANY, Schema
from pilothouse.kinds.status import BadRequest, UnsupportedMediaType

__all__ = ["PROTOBUF", "Decoded", "check_fields", "media_type", "read_body", "read_yaml", "unrecognised"]

PROTOBUF = "application/vnd.kubernetes.protobuf"
_ACCEPTED = ("application/json", "application/yaml", PROTOBUF)
_SHOWN = 30
_YAML_NODES = 200_000
"""Nodes that a YAML document may have with its aliases written out."""

_decode_json = msgspec.json.Decoder().decode


class Decoded:
    """What came in a body: the object, and its JSON text where it was JSON, for the messages about duplicate fields."""

    __slots__ = ("obj", "raw")

    def __init__(self, obj: Any, raw: bytes | None) -> None:
        self.obj = obj
        self.raw = raw


def media_type(request: Request) -> str:
    """Return the media type of the body, without parameters; JSON where none is given."""
    return request.headers.get("content-type", "application/json").split(";", 1)[0].strip().lower() or _ACCEPTED[0]


def unrecognised(data: bytes, kind: str, why: str) -> BadRequest:
    """Say that a body is no object."""
    if not data:
        shown = "<empty>"
    elif data[:1] == b"{":
        shown = data[:_SHOWN].decode("utf-8", "replace") + (" ..." if len(data) > _SHOWN else "")
    else:
        shown = data[:_SHOWN].hex() + (" ..." if len(data) > _SHOWN else "")
    must = f" (must be of type {kind})" if kind else ""
    return BadRequest(f"the object provided is unrecognized{must}: couldn't get version/kind; {why} ({shown})")


def read_body(request: Request, kind: str, accepted: tuple[str, ...] = _ACCEPTED) -> Decoded:
    """Read the body of a request into plain values.

    kind: that must come, for the messages. Raises UnsupportedMediaType and BadRequest with kube-apiserver's texts.
    """
    media = media_type(request)
    if media not in accepted:
        listed = ", ".join(accepted)
        raise UnsupportedMediaType(
            f"the body of the request was in an unknown format - accepted media types include: {listed}"
        )
    if media == PROTOBUF:
        return Decoded(_read_protobuf(request.body, kind), None)
    if media == "application/yaml":
        return Decoded(_mapping(read_yaml(request.body), request.body, kind), None)
    return Decoded(_read_json(request.body, kind), request.body)


def _read_json(data: bytes, kind: str) -> dict[str, Any]:
    try:
        found = _decode_json(data)
    except RecursionError:
        raise BadRequest("exceeded max depth: the object is nested too deeply") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise unrecognised(data, kind, f"json parse error: {syntax_error(data) or error}") from None
    return _mapping(found, data, kind)


def _mapping(found: Any, data: bytes, kind: str) -> dict[str, Any]:
    if isinstance(found, dict):
        return found
    named = {str: "string", bool: "bool", list: "array", int: "number", float: "number"}.get(type(found), "null")
    if found is None:
        raise unrecognised(data, kind, "json parse error: unexpected end of JSON input")
    why = f"json parse error: json: cannot unmarshal {named} into Go value of type struct {{ "
    why += 'APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
    raise unrecognised(data, kind, why)


def _read_protobuf(data: bytes, kind: str) -> dict[str, Any]:
    from pilothouse.kinds import protobuf  # noqa: PLC0415  # only Go clients need its tables

    try:
        return protobuf.decode(data)
    except protobuf.ProtobufError as error:
        raise BadRequest(f"the object provided is unrecognized (must be of type {kind}): {error}") from None


def read_yaml(data: bytes) -> Any:
    """Read YAML or JSON into plain values, as Kubernetes does. Raises BadRequest."""
    if data.lstrip()[:1] == b"{":
        # JSON is YAML, and read in a tenth of the time.
        try:
            return _decode_json(data)
        except RecursionError:
            raise BadRequest("exceeded max depth: the object is nested too deeply") from None
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass
    import yaml  # noqa: PLC0415  # not needed by most requests

    try:
        found = yaml.load(data, Loader=_yaml_loader())  # noqa: S506  # a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise BadRequest(f"error converting YAML to JSON: yaml: {text}") from None
    _count_nodes(found)
    return found


_loader: list[Any] = []


def _yaml_loader() -> Any:
    """Return the safe loader without dates: those are text in JSON."""
    if not _loader:
        import yaml  # noqa: PLC0415

        base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        resolvers = {
            first: [(tag, regexp) for tag, regexp in found if tag != "tag:yaml.org,2002:timestamp"]
            for first, found in base.yaml_implicit_resolvers.items()
        }
        _loader.append(type("_JsonLoader", (base,), {"yaml_implicit_resolvers": resolvers}))
    return _loader[0]


def _count_nodes(value: Any) -> None:
    left = _YAML_NODES
    pending = [value]
    while pending:
        left -= 1
        if left < 0:
            raise BadRequest(f"error converting YAML to JSON: yaml: document has more than {_YAML_NODES} nodes")
        found = pending.pop()
        if isinstance(found, dict):
            if not all(isinstance(name, str) for name in found):
                raise BadRequest("error converting YAML to JSON: yaml: keys of mappings must be text; quote them")
            pending.extend(found.values())
        elif isinstance(found, list):
            pending.extend(found)
        elif not isinstance(found, str | int | float | bool | None):
            raise BadRequest(f"error converting YAML to JSON: yaml: {type(found).__name__} has no form in JSON")


def check_fields(
    body: Decoded, schema: Schema, kind: str, version: str, validation: str, warn: Callable[[str], None]
) -> Object:
    """Return the object as its Go type holds it; unknown and duplicate fields are refused, told or passed over.

    validation: `Strict`, `Warn` or `Ignore`. Raises BadRequest for values of a wrong type, and under Strict.
    """
    try:
        made, messages = decode(schema, body.obj)
        if validation != "Ignore" and body.raw is not None and (messages or has_duplicates(body.raw, body.obj)):
            messages = strict_errors(schema, body.raw)
    except DecodeError as error:
        raise BadRequest(f'{kind} in version "{version}" cannot be handled as a {kind}: {error}') from None
    except RecursionError:
        raise BadRequest("exceeded max depth: the object is nested too deeply") from None
    told(messages, kind, version, validation, warn)
    return made


def check_custom_fields(
    body: Decoded,
    pruned: Callable[[Object], tuple[Object, list[str]]],
    kind: str,
    version: str,
    validation: str,
    warn: Callable[[str], None],
) -> Object:
    """Return a custom object without unknown fields; as `check_fields`."""
    try:
        made, messages = pruned(body.obj)
    except DecodeError as error:
        raise BadRequest(f'{kind} in version "{version}" cannot be handled as a {kind}: {error}') from None
    except RecursionError:
        raise BadRequest("exceeded max depth: the object is nested too deeply") from None
    if validation != "Ignore" and body.raw is not None and has_duplicates(body.raw, body.obj):
        messages = [*strict_errors(ANY, body.raw), *messages]
    told(messages, kind, version, validation, warn)
    return made


def told(messages: list[str], kind: str, version: str, validation: str, warn: Callable[[str], None]) -> None:
    """Refuse (Strict) or tell (Warn) what field validation found."""
    if not messages or validation == "Ignore":
        return
    if validation == "Strict":
        why = strict_decoding_error(messages)
        raise BadRequest(f"{kind} in version {quote(version)} cannot be handled as a {kind}: {why}")
    for message in messages:
        warn(message)
