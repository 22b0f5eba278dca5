"""Audit events as they are written: what is cheap to note is noted at once, the rest is done by who writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec

from pilothouse.apiserver.model import User
from pilothouse.kinds.times import format_micros

__all__ = ["Event", "EventSink", "status_of"]

_SPACE = b" \t\r\n"
_BODIES = ("requestObject", "responseObject")
_TRUNCATED = "audit.k8s.io/truncated"
_STATUS_FIELDS = ("status", "message", "reason", "details", "code")
_ORDER = (
    "kind",
    "apiVersion",
    "level",
    "auditID",
    "stage",
    "requestURI",
    "verb",
    "user",
    "impersonatedUser",
    "sourceIPs",
    "userAgent",
    "objectRef",
    "responseStatus",
    "requestObject",
    "responseObject",
    "requestReceivedTimestamp",
    "stageTimestamp",
    "annotations",
)

Body = bytes | Sequence[bytes] | None


class EventSink(Protocol):
    """Where events go."""

    def write(self, event: Event) -> bool:
        """Take an event without waiting; False where it cannot be kept."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `fields` hold all but the bodies, users and moments as such; nothing in it changes later."""

    fields: dict[str, Any]
    request: Body = None
    response: Body = None
    omit_managed_fields: bool = False

    def encode(self, limit: int) -> bytes:
        """Return the event as JSON without line breaks, in the order of fields that Kubernetes writes.

        limit: bytes of the whole event; one with more loses its bodies and is annotated as truncated.
        """
        if sum(map(_size, (self.request, self.response))) > limit:
            return self._truncated()
        bodies = {
            name: _body(body, strip=self.omit_managed_fields)
            for name, body in zip(_BODIES, (self.request, self.response), strict=True)
        }
        told = {**self._rendered(), **bodies}
        data = msgspec.json.encode({name: told[name] for name in _ORDER if told.get(name) is not None})
        return data if len(data) <= limit else self._truncated()

    def _rendered(self) -> dict[str, Any]:
        told = dict(self.fields)
        for name, value in self.fields.items():
            if isinstance(value, User):
                told[name] = _user_info(value)
            elif isinstance(value, datetime):
                told[name] = format_micros(value)
        return told

    def _truncated(self) -> bytes:
        annotations = {**(self.fields.get("annotations") or {}), _TRUNCATED: "true"}
        told = {**self._rendered(), "annotations": annotations}
        return msgspec.json.encode({name: told[name] for name in _ORDER if told.get(name) is not None})


def _size(body: Body) -> int:
    if body is None:
        return 0
    return len(body) if isinstance(body, bytes) else sum(map(len, body))


def _body(body: Body, *, strip: bool) -> msgspec.Raw | None:
    """Return a body if it is JSON. Decoding it proves that; what proves wrong is left out."""
    if body is None:
        return None
    data = (body if isinstance(body, bytes) else b"".join(body)).strip(_SPACE)
    if data[:1] not in {b"{", b"["}:
        return None
    try:
        found = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return None
    # A line of the log is one event, so line breaks between values must go.
    if strip:
        found = _without_managed_fields(found)
    elif b"\n" not in data:
        return msgspec.Raw(data)
    return msgspec.Raw(msgspec.json.encode(found))


def _without_managed_fields(found: Any) -> Any:
    if not isinstance(found, dict):
        return found
    for obj in [found, *_list(found.get("items")), *(_get(row, "object") for row in _list(found.get("rows")))]:
        metadata = _get(obj, "metadata")
        if isinstance(metadata, dict):
            metadata.pop("managedFields", None)
    return found


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _get(value: Any, field: str) -> Any:
    return value.get(field) if isinstance(value, dict) else None


def _user_info(user: User) -> dict[str, Any]:
    """Return a user as events name one."""
    told: dict[str, Any] = {"username": user.name, "uid": user.uid, "groups": list(user.groups)}
    told["extra"] = {name: list(values) for name, values in user.extra.items()}
    return {name: value for name, value in told.items() if value}


def status_of(code: int, body: Body) -> dict[str, Any]:
    """Return the status of an answer: of a Status its bounded fields, of any other body the code alone."""
    if isinstance(body, bytes) and b'"Status"' in body[:64]:
        try:
            found = msgspec.json.decode(body)
        except msgspec.DecodeError:
            found = None
        if isinstance(found, dict) and (found.get("kind"), found.get("apiVersion")) == ("Status", "v1"):
            return {"metadata": {}, **{name: found[name] for name in _STATUS_FIELDS if found.get(name)}, "code": code}
    return {"metadata": {}, "code": code}
