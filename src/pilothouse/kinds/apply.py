"""Server-side apply: merge what an owner applies, keep account of who owns which field, refuse conflicts.

A `FieldManager` serves one version of one kind, or one subresource of it. Objects are not changed; results share
with their inputs what did not change. Specification: Kubernetes' server-side apply (structured merge and diff 6).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from pilothouse.kinds import lastapplied
from pilothouse.kinds.fieldset import (
    FieldSet,
    Path,
    difference,
    has_path,
    in_order,
    intersection,
    of_paths,
    path_text,
    paths,
    recursive_difference,
    union,
)
from pilothouse.kinds.managedfields import (
    Identity,
    Managed,
    ManagedFieldsError,
    Owner,
    cap_updates,
    decode_managed,
    encode_managed,
    format_time,
)
from pilothouse.kinds.mergepatch import same
from pilothouse.kinds.schema import Schema
from pilothouse.kinds.typed import Comparison, TypedError, TypeNode, check_typed, compile_schema, without_emptied

__all__ = ["ApplyConflictError", "ApplyRefusedError", "Conflict", "FieldManager", "UnknownVersionError", "Versions"]

Object = dict[str, Any]

_STRIPPED = of_paths(
    [("f:apiVersion",), ("f:kind",), ("f:metadata",)]
    + [
        ("f:metadata", "f:" + name)
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ]
)
"""What is nobody's: the identity of an object and what the server keeps."""

_KUBECTL = "kubectl"

_ABSENT = object()

_MAX_SHAPES = 1024
"""Shapes of created objects remembered for one kind; the oldest makes room."""


class ApplyRefusedError(ValueError):
    """A configuration that can never be applied; answered as 400 BadRequest with this message."""


class UnknownVersionError(LookupError):
    """A version that the kind does not have (any longer)."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """One field that another owner holds with another value."""

    owner: Identity
    path: Path

    def cause(self) -> dict[str, str]:
        """Return the cause as a Status holds it."""
        return {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {self.owner.describe()}",
            "field": path_text(self.path),
        }


class ApplyConflictError(Exception):
    """Fields that others own with other values; answered as 409 Conflict with `causes` and this message."""

    def __init__(self, conflicts: Iterable[Conflict]) -> None:
        self.conflicts = tuple(conflicts)
        super().__init__(self._message())

    @property
    def causes(self) -> list[dict[str, str]]:
        """The causes of the Status, one for each field and owner."""
        return [conflict.cause() for conflict in self.conflicts]

    def _message(self) -> str:
        if len(self.conflicts) == 1:
            only = self.conflicts[0]
            return f"Apply failed with 1 conflict: conflict with {only.owner.describe()}: {path_text(only.path)}"
        lines: list[str] = []
        for owner in sorted({conflict.owner for conflict in self.conflicts}):
            lines.append(f"conflicts with {owner.describe()}:")
            lines += [f"- {path_text(conflict.path)}" for conflict in self.conflicts if conflict.owner == owner]
        return f"Apply failed with {len(self.conflicts)} conflicts: " + "\n".join(lines)


class Versions(Protocol):
    """The versions of one kind. Both methods raise UnknownVersionError for a version the kind does not have."""

    def schema(self, api_version: str) -> Schema:
        """Return the schema of a version."""

    def convert(self, obj: Object, api_version: str) -> Object:
        """Return the object in that version."""


class FieldManager:
    """Tracks the owners of the fields of one kind in one version, or of one subresource.

    schema: of that version. reset: by API version, the fields which this (sub)resource may not own, with all below.
    empty: the object that a new one is compared with; what it holds by itself needs no owner (see `emptyobjects`).
    versions: of the kind, when it has several; entries of versions it does not have are dropped.
    evolving: the schema may have changed since entries were written (custom resources).
    """

    def __init__(
        self,
        schema: Schema,
        api_version: str,
        *,
        subresource: str = "",
        reset: Mapping[str, FieldSet] | None = None,
        empty: Mapping[str, Any] | None = None,
        versions: Versions | None = None,
        evolving: bool = False,
    ) -> None:
        self.api_version = api_version
        self.subresource = subresource
        self._node = compile_schema(schema)
        self._nodes: dict[str, TypeNode] = {api_version: self._node}
        self._reset = dict(reset or {})
        self._empty = dict(empty or {})
        self._versions = versions
        self._evolving = evolving
        self._zeros = list(_leaf_values(self._empty))
        self._shapes: dict[Any, FieldSet] = {}

    def update(self, live: Object | None, new: Object, manager: str, now: datetime) -> Object:
        """Return a created, updated or patched object with its managed fields.

        live: None for a create. new: as it will be stored, before defaults that the storage layer sets. Changed fields
        move to the manager; managed fields of `new` are taken where they can be read, and an empty list clears them.
        An object whose fields nobody manages stays so, and one that does
        not fit its schema is left without managed fields. A subresource never takes managed fields from the request.
        """
        bare = _with_entries(new, None)
        try:
            return self._updated(live, new, bare, manager, format_time(now))
        except TypedError:
            # Keyless items in a list-map and the like: the validation of the kind refuses them, not this.
            return bare

    def _updated(self, live: Object | None, new: Object, bare: Object, manager: str, time: str) -> Object:
        managed = self._managed_of(live, new)
        if live is None and not managed:
            return self._created(bare, manager, time)
        if not managed and live is not None and (live.get("metadata") or {}).get("uid"):
            return bare
        base = self._empty if live is None else live
        managed = self._tracked(base, bare, managed, manager, time)
        return _with_entries(bare, managed)

    def apply(
        self, live: Object | None, applied: Object, manager: str, now: datetime, *, force: bool = False
    ) -> Object:
        """Return the live object with the applied configuration merged in.

        live: None when the object is to be created. When nothing changed but ownership, the object keeps its times.
        Raises ApplyConflictError (409), ApplyRefusedError (400), TypedError for a configuration that does not fit the
        schema, and ManagedFieldsError when the live object's managed fields cannot be read.
        """
        self._check(applied)
        time = format_time(now)
        managed = decode_managed(((live or {}).get("metadata") or {}).get("managedFields"), stored=True)
        if not managed and live is not None:
            managed = self._tracked(self._empty, live, managed, "before-first-apply", time)
        if manager != _KUBECTL:
            return self._applied(live, applied, managed, manager, time, force=force)
        try:
            out = self._applied(live, applied, managed, manager, time, force=force)
        except ApplyConflictError as error:
            self._excuse(live, error)
            out = self._applied(live, applied, managed, manager, time, force=True)
        return lastapplied.renew(out, applied)

    def _created(self, new: Object, manager: str, time: str) -> Object:
        # Objects of one shape have the same fields, whatever their values; most creates repeat a shape.
        shape = (self._node.shape(new), *[_at(new, path) == zero for path, zero in self._zeros])
        fields = self._shapes.get(shape)
        if fields is None:
            found = self._compared(self._node, self._empty, new, self.api_version)
            fields = in_order(difference(found.changed, _STRIPPED))
            if len(self._shapes) >= _MAX_SHAPES:
                del self._shapes[next(iter(self._shapes))]
            self._shapes[shape] = fields
        if not fields:
            return new
        entry = {
            "manager": manager or "unknown",
            "operation": "Update",
            "apiVersion": self.api_version,
            "time": time,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        }
        if self.subresource:
            entry["subresource"] = self.subresource
        new["metadata"]["managedFields"] = [entry]
        return new

    def _check(self, applied: Object) -> None:
        version = applied.get("apiVersion")
        if version != self.api_version:
            raise ApplyRefusedError(
                "Incorrect version specified in apply patch. "
                f"Specified patch version: {version}, expected: {self.api_version}"
            )
        metadata = applied.get("metadata")
        if isinstance(metadata, dict) and metadata.get("managedFields") is not None:
            raise ApplyRefusedError("metadata.managedFields must be nil")
        check_typed(self._node, applied)

    def _excuse(self, live: Object | None, error: ApplyConflictError) -> None:
        # What kubectl itself put there by client-side apply is no conflict with anybody.
        allowed = lastapplied.fields_of(self._node, live or {}, self.api_version)
        if allowed is None:
            raise error
        left = [conflict for conflict in error.conflicts if not has_path(allowed, conflict.path)]
        if left:
            raise ApplyConflictError(left) from error

    def _managed_of(self, live: Object | None, new: Object) -> Managed:
        own = ((live or {}).get("metadata") or {}).get("managedFields")
        if not self.subresource:
            entries = (new.get("metadata") or {}).get("managedFields")
            if entries is not None and (not entries or entries == [{}]):
                return {}
            if entries and entries != own and (managed := _decoded(entries, stored=False)):
                return managed
        return _decoded(own, stored=True)

    def _tracked(self, live: Object, new: Object, managed: Managed, manager: str, time: str) -> Managed:
        identity = Identity(manager or "unknown", "Update", self.api_version, self.subresource)
        managed, found = self._settled(live, new, self._reconciled(live, managed), None, force=True)
        own = difference(found.changed, _STRIPPED)
        if own:
            previous = managed.get(identity)
            fields = union(own, previous.fields) if previous else own
            managed[identity] = Owner(fields, self.api_version, applied=False, time=time)
        return cap_updates(managed)

    def _applied(
        self, live: Object | None, applied: Object, managed: Managed, manager: str, time: str, *, force: bool
    ) -> Object:
        identity = Identity(manager or "unknown", "Apply", "", self.subresource)
        base = live or {}
        managed = self._reconciled(base, managed)
        last = managed.get(identity)
        fields = recursive_difference(self._node.owned(applied) or {}, self._reset.get(self.api_version, {}))
        managed[identity] = Owner(fields, self.api_version, applied=True, time=last.time if last else None)
        merged: Object = self._node.merge(base, applied)
        merged = self._pruned(merged, managed, fields, last)
        managed, _ = self._settled(base, merged, managed, identity, force=force)
        # In fields of any type, 1 and true are not the same.
        changed = live is None or merged != live or (self._evolving and not same(merged, live))
        if (owner := managed.pop(identity, None)) and (own := difference(owner.fields, _STRIPPED)):
            since = time if changed else owner.time
            managed[identity] = Owner(own, self.api_version, applied=True, time=since)
        return _with_entries(merged if changed else base, managed)

    def _settled(
        self, live: Object, new: Object, managed: Managed, identity: Identity | None, *, force: bool
    ) -> tuple[Managed, Comparison]:
        """Take from the owners (but one) what changed or went away."""
        found = self._compared(self._node, live, new, self.api_version)
        by_version: dict[str, Comparison | None] = {self.api_version: found}
        kept: Managed = {}
        conflicts: list[Conflict] = []
        for other, owner in managed.items():
            if other == identity:
                if owner.fields:
                    kept[other] = owner
                continue
            version = owner.api_version
            if version not in by_version:
                by_version[version] = self._compared_at(live, new, version)
            differs = by_version[version]
            if differs is None:
                continue
            taken = intersection(owner.fields, differs.changed)
            if taken and not force:
                conflicts += [Conflict(other, path) for path in paths(taken)]
            left = difference(difference(owner.fields, taken), differs.removed)
            if left:
                kept[other] = owner.owning(left)
        if conflicts:
            raise ApplyConflictError(sorted(conflicts, key=lambda conflict: conflict.owner))
        return kept, found

    def _compared(self, node: TypeNode, live: Object, new: Object, version: str) -> Comparison:
        found = Comparison()
        if live != new:
            node.diff(live, new, (), found)
        return found.without(self._reset.get(version, {}))

    def _compared_at(self, live: Object, new: Object, version: str) -> Comparison | None:
        try:
            node = self._node_at(version)
            return self._compared(node, self._convert(live, version), self._convert(new, version), version)
        except UnknownVersionError:
            return None

    def _node_at(self, version: str) -> TypeNode:
        node = self._nodes.get(version)
        if node is None:
            if self._versions is None:
                raise UnknownVersionError(version)
            node = self._nodes[version] = compile_schema(self._versions.schema(version))
        return node

    def _convert(self, obj: Object, version: str) -> Object:
        if not obj or obj.get("apiVersion", self.api_version) == version:
            return obj
        if self._versions is None:
            raise UnknownVersionError(version)
        return self._versions.convert(without_emptied(obj), version)

    def _reconciled(self, live: Object, managed: Managed) -> Managed:
        if not self._evolving or not live:
            return dict(managed)
        out: Managed = {}
        for identity, owner in managed.items():
            try:
                fields = self._node_at(owner.api_version).reconcile(owner.fields)
            except UnknownVersionError:
                continue
            out[identity] = owner.owning(fields)
        return out

    def _pruned(self, merged: Object, managed: Managed, fields: FieldSet, last: Owner | None) -> Object:
        """Remove what the owner applied before, does not apply now, and nobody else owns."""
        if last is None or (last.api_version == self.api_version and not difference(last.fields, fields)):
            return merged
        try:
            node = self._node_at(last.api_version)
            whole = self._convert(merged, last.api_version)
        except UnknownVersionError:
            return merged
        mine = node.named(last.fields)
        pruned = self._owned_again(whole, node.remove(whole, mine), managed, last.api_version)
        left = node.named(node.owned(self._convert(pruned, last.api_version)) or {})
        gone = intersection(difference(node.named(node.owned(whole) or {}), left), mine)
        if not gone:
            return merged
        return self._convert(without_emptied(node.remove(whole, gone)), self.api_version)

    def _owned_again(self, merged: Object, pruned: Object, managed: Managed, first: str) -> Object:
        """Put back what somebody owns, in the pruned version first: a conversion may need it."""
        claimed: dict[str, FieldSet] = {first: {}}
        for owner in managed.values():
            claimed[owner.api_version] = union(claimed.get(owner.api_version, {}), owner.fields)
        for version, fields in claimed.items():
            try:
                node = self._node_at(version)
                merged, pruned = self._convert(merged, version), self._convert(pruned, version)
            except UnknownVersionError:
                continue
            kept = union(node.named(node.owned(pruned) or {}), node.named(fields))
            pruned = node.remove(merged, difference(node.named(node.owned(merged) or {}), kept))
        return pruned


def _decoded(entries: Any, *, stored: bool) -> Managed:
    # What cannot be read is as good as absent: a client that does not know managed fields must not lose them.
    try:
        return decode_managed(entries, stored=stored)
    except (ManagedFieldsError, TypeError, AttributeError):
        return {}


def _with_entries(obj: Object, managed: Managed | None) -> Object:
    metadata = dict(obj.get("metadata") or {})
    metadata.pop("managedFields", None)
    if managed:
        metadata["managedFields"] = encode_managed(managed)
    return {**obj, "metadata": metadata}


def _leaf_values(obj: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in obj.items():
        if isinstance(value, Mapping):
            yield from _leaf_values(value, (*path, name))
        else:
            yield (*path, name), value


def _at(obj: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(obj, dict) or name not in obj:
            return _ABSENT
        obj = obj[name]
    return obj
