"""PUT and PATCH: from what is there and what was sent to the object in its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pilothouse.apiserver.cache.cacher import key_of
from pilothouse.apiserver.cache.entries import Entry, encode
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.bodies import read_body
from pilothouse.apiserver.rest.creating import Creating, UnknownReason, check_type, unnamed
from pilothouse.apiserver.rest.engine import Call, Engine, check_name, check_namespace, require_version
from pilothouse.apiserver.rest.options import WriteOptions, write_options
from pilothouse.apiserver.rest.patching import APPLY, Patch
from pilothouse.apiserver.rest.served import Served
from pilothouse.apiserver.storing import ChangedError
from pilothouse.apiserver.strategies.base import Context
from pilothouse.apiserver.strategies.parts import PARTS
from pilothouse.kinds.apply import ApplyConflictError, ApplyRefusedError
from pilothouse.kinds.goorder import as_written
from pilothouse.kinds.managedfields import ManagedFieldsError, keep_times
from pilothouse.kinds.mergepatch import same
from pilothouse.kinds.prune import DecodeError, decode
from pilothouse.kinds.restoring import restore_fault, with_restored_numbers
from pilothouse.kinds.status import (
    AlreadyExists,
    ApiStatus,
    BadRequest,
    Conflict,
    apply_conflict,
    conflict,
    invalid,
    server_timeout,
)
from pilothouse.kinds.typed import TypedError

__all__ = ["Changing", "Made", "Owned", "as_it_is"]

Owned = Callable[[Call, Object, Object, Context], Object]
"""Gives the new object its owners of fields."""

_ATTEMPTS = 100
"""Times a write without resource version is tried anew when others write meanwhile."""
_SERVER_KEEPS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")


class Made:
    """What a write brought: the object as stored, and whether it is new."""

    __slots__ = ("created", "entry")

    def __init__(self, entry: Entry, *, created: bool = False) -> None:
        self.entry = entry
        self.created = created


class Changing:
    """Replaces and patches objects."""

    def __init__(self, engine: Engine, creating: Creating) -> None:
        self._engine = engine
        self._creating = creating

    def current(self, call: Call) -> Entry | None:
        """Return the object of the path as it is now."""
        return call.served.cache.get(
            key_of(call.info.namespace if call.served.resource.namespaced else "", call.info.name)
        )

    async def update(self, call: Call) -> Made:
        """Do what a PUT asks for. Raises ApiStatus."""
        served = call.served
        options = write_options(call.request, "UpdateOptions")
        body = read_body(call.request, served.resource.kind)
        new = self._creating.decoded(body, call, options)
        check_namespace(new, call.info, namespaced=served.resource.namespaced)
        check_name(new, call.info)
        version = new["metadata"].get("resourceVersion") or ""
        call.options, call.dry_run, call.manager = options.raw, options.dry_run, options.manager
        again = False
        for _ in range(_ATTEMPTS):
            if again:
                new = self._creating.decoded(read_body(call.request, served.resource.kind), call, options)
                check_namespace(new, call.info, namespaced=served.resource.namespaced)
            entry = self.current(call)
            if entry is None:
                try:
                    return await self._create_by_update(call, new, options)
                except AlreadyExists:
                    again = True
                    continue
            if version and version != "0" and version != str(entry.rv):
                self._check_uid(call, new, entry, version)
                raise self._conflict(call)
            self._check_uid(call, new, entry, version)
            if not version and not served.strategy.unconditional:
                # Kubernetes names the resource here, not the kind.
                resource = call.served.resource
                raise invalid(resource.group, resource.resource, call.info.name, require_version(version))
            try:
                return Made(await self.replace(call, entry, new, options, self._owned))
            except ChangedError:
                if version and version != "0":
                    raise self._conflict(call) from None
                again = True
        raise self._busy(call)

    async def _create_by_update(self, call: Call, new: Object, options: WriteOptions) -> Made:
        if not call.served.strategy.creates_on_update or call.info.subresource:
            raise self._creating.missing(call)
        new["metadata"].pop("resourceVersion", None)
        return Made(await self._creating.create_object(call, new, options), created=True)

    def _check_uid(self, call: Call, new: Object, entry: Entry, version: str) -> None:
        uid = new["metadata"].get("uid")
        own = entry.metadata.uid
        if uid and uid != own:
            prefix = call.served.cache.prefix.decode()
            why = (
                f"StorageError: invalid object, Code: 4, Key: {prefix}{entry.key}, ResourceVersion: 0, "
                f"AdditionalErrorMsg: Precondition failed: UID in precondition: {uid}, UID in object meta: {own}"
            )
            resource = call.served.resource
            raise conflict(resource.group, resource.resource, call.info.name, why)

    def _conflict(self, call: Call) -> Conflict:
        resource = call.served.resource
        return conflict(resource.group, resource.resource, call.info.name)

    def _busy(self, call: Call) -> ApiStatus:
        resource = call.served.resource
        return server_timeout(resource.group, resource.resource, call.info.verb, 1)

    def _owned(self, call: Call, live: Object, new: Object, context: Context) -> Object:
        """Return the new object with its owners: who updates owns what changed."""
        return call.served.manager(call.info.subresource).update(live, new, call.manager, context.moment)

    async def replace(
        self,
        call: Call,
        entry: Entry,
        new: Object,
        options: WriteOptions,
        owned: Owned,
        live: Object | None = None,
        *,
        screened: bool = False,
    ) -> Entry:
        """Put an object in the place of another; return what is stored then. Raises ChangedError and ApiStatus.

        live: the object that is there, decoded, if the caller has it. screened: admission has been asked already.
        """
        served, engine = call.served, self._engine
        if live is None:
            live = await served.load(entry)
        context = engine.context()
        self._keep_system_fields(new, live)
        new = owned(call, live, new, context)
        admitted = engine.admission_request(call, "UPDATE", call.info.name, new, live)
        if not screened:
            new = await engine.mutate(admitted)
        self._prepare(call, new, live, context)
        subresource = call.info.subresource
        errors = served.validate_update(live, new, subresource)
        if errors:
            raise call.refuse(call.info.name, errors)
        if not subresource:
            call.request.warnings.extend(served.warnings_about(new, live))
        served.settle(new)
        if not screened:
            admitted.object = new
            await engine.validate(admitted)
        return await self._store(call, entry, live, new)

    def _keep_system_fields(self, new: Object, live: Object) -> None:
        metadata, before = unnamed(new), live["metadata"]
        for name in _SERVER_KEEPS:
            if not metadata.get(name) and name in before:
                metadata[name] = before[name]
        metadata.setdefault("resourceVersion", before.get("resourceVersion"))
        if not metadata["resourceVersion"] or metadata["resourceVersion"] == "0":
            metadata["resourceVersion"] = before.get("resourceVersion")

    def _prepare(self, call: Call, new: Object, live: Object, context: Context) -> None:
        strategy, subresource = call.served.strategy, call.info.subresource
        if subresource == "status":
            strategy.prepare_status(new, live, context)
            return
        if (keep := PARTS.get(subresource)) is not None:
            keep(new, live, context)
            if subresource == "approval":
                return
        strategy.prepare_update(new, live, context)

    async def _store(self, call: Call, entry: Entry, live: Object, new: Object) -> Entry:
        served, engine = call.served, self._engine
        if keep_times(live, new) is not new and entry.form is served.stored_form and _alike(served, live, new):
            return entry
        if self._is_finished(new, live):
            return await self._remove(call, entry, new)
        undo = await engine.hooks.before_update(served, new, live, call)
        if call.dry_run:
            if undo is not None:
                undo()
            return Entry(entry.key, encode(await served.to_stored(new)), entry.rv, served.stored_form)
        try:
            made = await engine.storage.replace(served.cache, entry, await served.to_stored(new), served.stored_form)
        except (ChangedError, ApiStatus):
            if undo is not None:
                undo()
            raise
        engine.hooks.after_update(served, new, live, call)
        return made

    def _is_finished(self, new: Object, live: Object) -> bool:
        """Whether an object that is being deleted has lost its last finalizer by this write."""
        metadata = new["metadata"]
        if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
            return False
        if (new.get("spec") or {}).get("finalizers") and new.get("kind") == "Namespace":
            return False
        return bool(live["metadata"].get("finalizers")) and not metadata.get("deletionGracePeriodSeconds")

    async def _remove(self, call: Call, entry: Entry, new: Object) -> Entry:
        served, engine = call.served, self._engine
        value = encode(await served.to_stored(new))
        if call.dry_run:
            return Entry(entry.key, value, entry.rv, served.stored_form)
        revision = await engine.storage.delete(served.cache, entry)
        engine.hooks.after_delete(served, new)
        return Entry(entry.key, value, revision, served.stored_form)

    # PATCH

    async def patch(self, call: Call) -> Made:
        """Do what a PATCH asks for. Raises ApiStatus."""
        patch = Patch.read(call.request, call.served)
        options = write_options(call.request, "PatchOptions", apply=patch.media == APPLY)
        call.options, call.dry_run, call.manager = options.raw, options.dry_run, options.manager
        if patch.media == APPLY:
            return await self._apply(call, patch, options)
        for _ in range(_ATTEMPTS):
            entry = self.current(call)
            if entry is None:
                raise self._creating.missing(call)
            live = await call.served.load(entry)
            new, wanted = self._patched(call, patch, live, options)
            if wanted and wanted != str(entry.rv):
                raise self._conflict(call)
            try:
                return Made(await self.replace(call, entry, new, options, self._owned, live))
            except ChangedError:
                if wanted:
                    raise self._conflict(call) from None
        raise self._conflict(call)

    def _patched(self, call: Call, patch: Patch, live: Object, options: WriteOptions) -> tuple[Object, str]:
        """Return the object with the patch applied, and the resource version that the patch asks for, if any."""
        served = call.served
        changed = patch.applied(live)
        check_type(changed, call)
        new = patch.decoded(changed, options.validation, call.request.warnings.append)
        if new is live:
            new = dict(live)
        new["metadata"] = dict(unnamed(new))
        check_namespace(new, call.info, namespaced=served.resource.namespaced)
        _check_name(new["metadata"].get("name"), call.info.name)
        new = served.default(_own(new))
        version = new["metadata"].get("resourceVersion") or ""
        return new, version if version not in {"0", live["metadata"]["resourceVersion"]} else ""

    async def _apply(self, call: Call, patch: Patch, options: WriteOptions) -> Made:
        served = call.served
        applied = patch.content
        self._check_applied(applied, call)
        for _ in range(_ATTEMPTS):
            entry = self.current(call)
            wanted = ""
            try:
                if entry is None:
                    return await self._apply_new(call, applied, options)
                live = await served.load(entry)
                new = self._merged(call, live, applied, options)
                metadata = applied.get("metadata") or {}
                wanted = metadata.get("resourceVersion") or ""
                if wanted and wanted != str(entry.rv):
                    raise self._conflict(call)
                if (uid := metadata.get("uid")) and uid != entry.metadata.uid:
                    self._check_uid(call, applied, entry, wanted)
                if new is live:
                    return Made(entry)
                return Made(await self.replace(call, entry, new, options, as_it_is, live))
            except ChangedError:
                if wanted:
                    raise self._conflict(call) from None
        raise self._conflict(call)

    def _check_applied(self, applied: Object, call: Call) -> None:
        """Refuse a configuration that does not say what it is, and one of another kind."""
        if not applied.get("kind") or not applied.get("apiVersion"):
            group, _, version = str(applied.get("apiVersion") or "").rpartition("/")
            raise BadRequest(f"invalid object type: {group}/{version}, Kind={applied.get('kind') or ''}")
        check_type(applied, call)

    async def _apply_new(self, call: Call, applied: Object, options: WriteOptions) -> Made:
        new = self._merged(call, None, applied, options)
        if uid := new["metadata"].get("uid"):
            resource = call.served.resource
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise conflict(resource.group, resource.resource, call.info.name, why)
        if call.info.subresource:
            raise self._creating.missing(call)
        new["metadata"].pop("resourceVersion", None)
        return Made(await self._creating.create_object(call, new, options, owned=True), created=True)

    def _merged(self, call: Call, live: Object | None, applied: Object, options: WriteOptions) -> Object:
        served = call.served
        manager, now = served.manager(call.info.subresource), self._engine.clock.now()
        try:
            new = manager.apply(live, applied, options.manager, now, force=options.force)
        except ApplyConflictError as error:
            raise apply_conflict(error.causes, str(error)) from None
        except ApplyRefusedError as error:
            raise BadRequest(str(error)) from None
        except (TypedError, ManagedFieldsError) as error:
            raise UnknownReason(f"failed to create typed patch object ({_where(applied)}): {error}") from None
        unchanged = live is not None and new == live and _alike(served, live, new)
        if not unchanged:
            new = self._fitting(call, new, applied)
        named = {**new, "metadata": dict(unnamed(new))}
        check_namespace(named, call.info, namespaced=served.resource.namespaced)
        _check_name(named["metadata"].get("name"), call.info.name)
        return live if unchanged and live is not None else served.default(_own(named))

    def _fitting(self, call: Call, new: Object, applied: Object) -> Object:
        """Return what came of an applied configuration as its Go type holds it; apply's own types tell less."""
        served = call.served
        if served.custom is not None:
            return new
        try:
            # The live object fits already; only what was applied can be wrong, or written in another way.
            if decode(served.schema, applied)[0] == applied:
                return new
            return decode(served.schema, new)[0]
        except DecodeError:
            resource = served.resource
            kind = f"{resource.group}/{resource.version}, Kind={resource.kind}"
            why = restore_fault(served.schema, as_written(new, *served.resource.gvk))
            if why is None:
                try:
                    return decode(served.schema, with_restored_numbers(served.schema, new))[0]
                except DecodeError as error:
                    why = str(error)
            raise UnknownReason(
                f"failed to convert new object ({_where(applied)}) to proper version: "
                f"unable to convert unstructured object to {kind}: {why}"
            ) from None


def _alike(served: Served, live: Object, new: Object) -> bool:
    """Whether objects that are equal to Python are so in JSON: 1 and true differ, where a field may be either."""
    if served.custom is None:
        return True
    return all(same(value, live.get(name)) for name, value in new.items() if name != "metadata")


def _where(applied: Object) -> str:
    """Name an applied configuration by what it says itself."""
    metadata = applied.get("metadata")
    texts = metadata if isinstance(metadata, dict) else {}
    namespace, name = (found if isinstance(found := texts.get(n), str) else "" for n in ("namespace", "name"))
    group, _, version = applied["apiVersion"].rpartition("/")
    return f"{namespace}/{name}; {group}/{version}, Kind={applied['kind']}"


def _check_name(name: str | None, expected: str) -> None:
    """Refuse a patched object that has lost its name or got another."""
    if not name:
        raise BadRequest(f"the name of the object ({expected} based on URL) was undeterminable: name must be provided")
    if name != expected:
        raise BadRequest(f"the name of the object ({name}) does not match the name on the URL ({expected})")


def as_it_is(call: Call, live: Object, new: Object, context: Context) -> Object:
    """Keep the owners that the new object has."""
    return new


def _own(value: Any) -> Any:
    """Return containers that nobody shares, so that defaults can be filled in."""
    if isinstance(value, dict):
        return {name: _own(inner) if isinstance(inner, dict | list) else inner for name, inner in value.items()}
    if isinstance(value, list):
        return [_own(inner) if isinstance(inner, dict | list) else inner for inner in value]
    return value
