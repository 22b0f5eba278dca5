"""Who owns which fields: the entries of `metadata.managedFields` read and written.

Specification: Kubernetes' ManagedFieldsEntry. Entries of appliers are told apart by manager and subresource, those of
updaters by API version too. Times are RFC 3339 in UTC, to the second.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from pilothouse.kinds.fieldset import FieldSet, FieldSetError, decode_fields, in_order, union

__all__ = [
    "MAX_UPDATE_ENTRIES",
    "Identity",
    "Managed",
    "ManagedFieldsError",
    "Owner",
    "cap_updates",
    "decode_managed",
    "encode_managed",
    "format_time",
    "keep_times",
]

MAX_UPDATE_ENTRIES = 10
"""Entries of updates kept apart; the oldest beyond it are folded into `ancient-changes`."""


class ManagedFieldsError(ValueError):
    """Managed fields that cannot be read: the message names the entry and the field."""


class Identity(NamedTuple):
    """What tells owners apart; the API version is empty for appliers, who keep their entry across versions."""

    manager: str
    operation: str
    api_version: str
    subresource: str = ""

    def describe(self) -> str:
        """Return the owner as conflicts name it, such as `"kubectl" using apps/v1`."""
        text = f'"{self.manager}"'
        if self.subresource:
            text += f' with subresource "{self.subresource}"'
        return f"{text} using {self.api_version}" if self.operation == "Update" else text


@dataclass(frozen=True, slots=True)
class Owner:
    """What one owner owns, in which version of the kind, and since when (None: never changed the object).

    entry: what it was read from, as long as it is unchanged.
    """

    fields: FieldSet
    api_version: str
    applied: bool
    time: str | None = None
    entry: Mapping[str, Any] | None = None

    def owning(self, fields: FieldSet) -> Owner:
        """Return the owner with other fields, itself when they are the same ones."""
        return self if fields is self.fields else Owner(fields, self.api_version, self.applied, self.time)


Managed = dict[Identity, Owner]


def format_time(now: datetime) -> str:
    """Return an aware time as entries hold it."""
    return _text_of(int(now.timestamp()))


@functools.lru_cache(maxsize=64)
def _text_of(second: int) -> str:
    # Every write of one second has the same time.
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@functools.lru_cache(maxsize=4096)
def _seconds(time: str | None) -> float:
    return 0 if time is None else datetime.fromisoformat(time).replace(microsecond=0).timestamp()


@functools.lru_cache(maxsize=4096)
def _canonical_time(time: str) -> str:
    parsed = datetime.fromisoformat(time)
    if parsed.tzinfo is None:
        raise ValueError(f"{time!r} has no time zone")
    return format_time(parsed)


def decode_managed(entries: Sequence[Mapping[str, Any]] | None, *, stored: bool = False) -> Managed:
    """Read the entries; the last of several with one identity counts. Raises ManagedFieldsError.

    stored: they come from the store, so their fields are in order and spelled as `encode_managed` does: they are not
    read again, which is what makes a small change to a large object cheap.
    """
    managed: Managed = {}
    for number, entry in enumerate(entries or ()):
        operation, version = entry.get("operation"), entry.get("apiVersion")
        if operation not in {"Apply", "Update"}:
            raise ManagedFieldsError(f"managed fields entry {number}: operation must be `Apply` or `Update`")
        if not version or not isinstance(version, str):
            raise ManagedFieldsError(f"managed fields entry {number}: apiVersion must not be empty")
        kind = entry.get("fieldsType")
        if kind != "FieldsV1":
            fault = f"invalid fieldsType {kind!r}" if kind else "missing fieldsType"
            raise ManagedFieldsError(f"{fault} in managed fields entry {number}")
        try:
            time = _canonical_time(entry["time"]) if entry.get("time") else None
            fields = entry.get("fieldsV1") or {}
            if not stored:
                fields = decode_fields(fields)
        except (FieldSetError, ValueError, TypeError) as error:
            raise ManagedFieldsError(f"managed fields entry {number}: {error}") from error
        applied = operation == "Apply"
        identity = Identity(
            str(entry.get("manager") or ""), operation, "" if applied else version, str(entry.get("subresource") or "")
        )
        managed[identity] = Owner(fields, version, applied, time, entry if stored else None)
    return managed


def encode_managed(managed: Managed) -> list[dict[str, Any]]:
    """Return the entries as the object holds them: appliers first, then by time and name; fields in order."""
    entries = []
    for identity, owner in sorted(managed.items(), key=_entry_order) if len(managed) > 1 else managed.items():
        if owner.entry is not None:
            entries.append(dict(owner.entry))
            continue
        entry: dict[str, Any] = {"manager": identity.manager} if identity.manager else {}
        entry["operation"] = identity.operation
        entry["apiVersion"] = owner.api_version
        if owner.time is not None:
            entry["time"] = owner.time
        entry["fieldsType"] = "FieldsV1"
        entry["fieldsV1"] = in_order(owner.fields)
        if identity.subresource:
            entry["subresource"] = identity.subresource
        entries.append(entry)
    return entries


def _entry_order(item: tuple[Identity, Owner]) -> tuple[str, float, str, str, str]:
    identity, owner = item
    return identity.operation, _seconds(owner.time), identity.manager, owner.api_version, identity.subresource


def cap_updates(managed: Managed, limit: int = MAX_UPDATE_ENTRIES) -> Managed:
    """Fold the oldest update entries of each version into `ancient-changes` until no more than `limit` are left."""
    updaters = [item for item in managed.items() if not item[1].applied]
    count = len(updaters)
    if count <= limit:
        return managed
    out = dict(managed)
    first: dict[str, Identity] = {}
    for identity, owner in sorted(updaters, key=lambda item: (_seconds(item[1].time), item[0])):
        if count <= limit:
            break
        version = owner.api_version
        if version not in first:
            first[version] = identity
            continue
        bucket = Identity("ancient-changes", "Update", version)
        older = out.pop(identity if first[version] == bucket else first[version])
        newer = out.pop(bucket) if first[version] == bucket else out.pop(identity)
        out[bucket] = Owner(union(newer.fields, older.fields), version, applied=False, time=owner.time)
        first[version] = bucket
        count -= 1
    return out


def keep_times(live: Mapping[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return the live object when the new one differs from it in nothing but times of managed fields.

    So that a request that changes nothing is not written. Otherwise returns the new object as it is.
    """
    before, after = live.get("metadata") or {}, new.get("metadata") or {}
    mine, theirs = before.get("managedFields") or [], after.get("managedFields") or []
    if len(mine) != len(theirs) or not all(
        a == b or {**a, "time": None} == {**b, "time": None} for a, b in zip(mine, theirs, strict=True)
    ):
        return new
    own = {**before, "managedFields": None}
    if own != {**after, "managedFields": None} or live.keys() != new.keys():
        return new
    unchanged = all(live[name] == value for name, value in new.items() if name != "metadata")
    return dict(live) if unchanged else new
