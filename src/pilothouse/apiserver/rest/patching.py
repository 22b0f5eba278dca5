"""The body of a PATCH: which of the four kinds it is, and what it makes of an object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from pilothouse.apiserver.model import Request
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.bodies import Decoded, media_type, read_yaml, told
from pilothouse.apiserver.rest.gojson import syntax_error
from pilothouse.apiserver.rest.patchedtext import in_order, patched_text, touched_by
from pilothouse.apiserver.rest.served import Served
from pilothouse.kinds import jsonpatch, mergepatch, strategicpatch
from pilothouse.kinds._gotext import value_text
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.goorder import as_written
from pilothouse.kinds.patcherrors import PatchError
from pilothouse.kinds.prune import duplicate_fields, strict_decoding_error
from pilothouse.kinds.restoring import restore_fault, with_restored_numbers
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
        """Return the patched object without unknown fields; under Strict these are faults of the patch.

        Raises Invalid, which shows the patch, where the object does not fit its kind.
        """
        messages: list[str] = []
        try:
            made = self.served.decode(Decoded(changed, None), "Warn", messages.append)
        except BadRequest as error:
            made = self._restored(changed, error, messages.append)
        if validation == "Ignore":
            return made
        if messages:
            messages = self._in_order(changed, messages)
        repeated = duplicate_fields(self.raw) if self.media != JSON_PATCH else jsonpatch.unknown_fields(self.content)
        messages = [*repeated, *messages]
        if messages and validation == "Strict":
            raise self._invalid(changed, strict_decoding_error(messages))
        told(messages, self.served.resource.kind, self.served.resource.version, validation, warn)
        return made

    def _in_order(self, changed: Object, messages: list[str]) -> list[str]:
        """Return what is told of unknown fields in the order in which Kubernetes finds them."""
        if self.media == STRATEGIC:
            return sorted(messages)
        if self.served.custom is not None:
            return messages
        told_again: list[str] = []
        self.served.decode(Decoded(self._arranged(changed), None), "Warn", told_again.append)
        return told_again

    def _arranged(self, changed: Object) -> Object:
        """Return the patched object with its fields in the order of the text that Kubernetes makes of it."""
        arranged: Object
        if self.served.custom is not None:
            # Unknown fields were taken out in place; the patch brings them again.
            whole = mergepatch.apply(changed, msgspec.json.decode(self.raw)) if self.media == MERGE else changed
            arranged = in_order(whole, None)
            return arranged
        touched = touched_by(self.content) if self.media == JSON_PATCH else self.content
        arranged = in_order(as_written(changed, *self.served.resource.gvk), touched)
        return arranged

    def _restored(self, changed: Object, error: BadRequest, warn: Callable[[str], None]) -> Object:
        """Return a patched object that Go's decoder refuses, where it was put together without it; else refuse it."""
        schema = self.served.schema
        if self.media == STRATEGIC:
            if why := restore_fault(schema, as_written(changed, *self.served.resource.gvk)):
                raise self._invalid(changed, why)
            try:
                return self.served.decode(Decoded(with_restored_numbers(schema, changed), None), "Warn", warn)
            except BadRequest as left:
                error = left
        elif self.served.custom is None:
            # With several faults, the first of the text counts.
            try:
                self.served.decode(Decoded(self._arranged(changed), None), "Ignore", warn)
            except BadRequest as first:
                error = first
        why = error.message.partition(f" cannot be handled as a {self.served.resource.kind}: ")[2] or error.message
        raise self._invalid(changed, why)

    def _invalid(self, changed: Object, why: str) -> ApiStatus:
        """Return the refusal of a patched object: it shows the patch where that was merged, else what came of it."""
        errors = ErrorList()
        shown = value_text(self.content) if self.media == STRATEGIC else patched_text(self._arranged(changed))
        errors.invalid(Path("patch"), shown, why)
        return invalid("", "", "", errors)


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
