"""The body of a PATCH: which of the four kinds it is, and what it makes of an object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pilothouse.apiserver.model import Request
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.bodies import Decoded, media_type, read_yaml, told
from pilothouse.apiserver.rest.gojson import syntax_error
from pilothouse.apiserver.rest.served import Served
from pilothouse.kinds import jsonpatch, mergepatch, strategicpatch
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.patcherrors import PatchError
from pilothouse.kinds.prune import duplicate_fields, strict_decoding_error
from pilothouse.kinds.status import (
    ApiStatus,
    BadRequest,
    Details,
    RequestEntityTooLarge,
    Unknown,
    UnsupportedMediaType,
    invalid,
)
from pilothouse.kinds.status import Invalid as InvalidStatus

__all__ = ["APPLY", "Patch"]

JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
_CUSTOM_MEDIA = f"{JSON_PATCH}, {MERGE}, {APPLY}"


class Patch:
    """A patch: its media type, its content decoded, and the kind it is for."""

    __slots__ = ("content", "media", "raw", "served")

    def __init__(self, media: str, content: Any, raw: bytes, served: Served) -> None:
        self.media = media
        self.content = content
        self.raw = raw
        self.served = served

    @classmethod
    def read(cls, request: Request, served: Served) -> Patch:
        """Read the body of a request. Raises UnsupportedMediaType and BadRequest."""
        media = media_type(request)
        if media not in {JSON_PATCH, MERGE, STRATEGIC, APPLY}:
            raise UnsupportedMediaType("415: Unsupported Media Type", Details())
        if media == STRATEGIC and served.custom is not None:
            raise UnsupportedMediaType(
                f"the body of the request was in an unknown format - accepted media types include: {_CUSTOM_MEDIA}"
            )
        if media == APPLY:
            content = read_yaml(request.body)
            if not isinstance(content, dict):
                raise BadRequest("error decoding YAML: the configuration to apply must be an object")
            return cls(media, content, request.body, served)
        try:
            content = msgspec.json.decode(request.body)
        except RecursionError:
            raise BadRequest("error decoding patch: exceeded max depth") from None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            why = syntax_error(request.body) or str(error)
            into = "[]handlers.jsonPatchOp" if media == JSON_PATCH else "map"
            raise BadRequest(f"error decoding patch: {why}" if into else why) from None
        return cls(media, content, request.body, served)

    def applied(self, live: Object) -> Object:
        """Return the object with the patch applied; the live one is not changed. Raises ApiStatus."""
        try:
            if self.media == JSON_PATCH:
                return jsonpatch.apply(live, self.content, negative_indices=True)
            if self.media == MERGE:
                return mergepatch.apply(live, self.content)
            return strategicpatch.apply(live, self.content, self.served.schema)
        except PatchError as error:
            raise patch_status(error) from None

    def decoded(self, changed: Object, validation: str, warn: Callable[[str], None]) -> Object:
        """Return the patched object without unknown fields; under Strict these are faults of the patch."""
        messages: list[str] = []
        made = self.served.decode(Decoded(changed, None), "Warn", messages.append)
        if validation == "Ignore":
            return made
        repeated = duplicate_fields(self.raw) if self.media != JSON_PATCH else jsonpatch.unknown_fields(self.content)
        messages = [*repeated, *messages]
        if messages and validation == "Strict":
            errors = ErrorList()
            why = strict_decoding_error(messages)
            errors.invalid(Path("patch"), self.raw.decode("utf-8", "replace"), why)
            raise invalid("", "", "", errors)
        told(messages, self.served.resource.kind, self.served.resource.version, validation, warn)
        return made


_CLASSES: dict[int, type[ApiStatus]] = {
    400: BadRequest,
    413: RequestEntityTooLarge,
    415: UnsupportedMediaType,
    422: InvalidStatus,
}


def patch_status(error: PatchError) -> ApiStatus:
    """Return the Status of a patch that is refused."""
    made = _CLASSES.get(error.code, Unknown)(error.message, Details() if error.has_details else None, code=error.code)
    made.reason = error.reason
    return made
