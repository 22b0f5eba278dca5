"""DELETE of one object and of many."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pilothouse.apiserver.cache.entries import Entry, encode
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.changing import Changing
from pilothouse.apiserver.rest.creating import Creating
from pilothouse.apiserver.rest.deletion import check_preconditions, decide
from pilothouse.apiserver.rest.engine import Call, Engine
from pilothouse.apiserver.rest.options import DeleteOptions, delete_options
from pilothouse.apiserver.storing import ChangedError
from pilothouse.kinds.status import Details, NotFound, conflict, server_timeout, success
from pilothouse.kinds.times import format_seconds

__all__ = ["Deleting"]

_ATTEMPTS = 100
_AT_ONCE = 16
"""Deletions of a collection under way at a time."""
_SHOWN = frozenset(
    {
        "persistentvolumeclaims",
        "persistentvolumes",
        "pods",
        "podtemplates",
        "resourcequotas",
        "serviceaccounts",
        "services",
    }
)
"""Resources whose deletion answers with the object rather than with a Status."""
_NAMESPACES = "namespaces"
_DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"


class Deleting:
    """Deletes objects."""

    def __init__(self, engine: Engine, creating: Creating, changing: Changing) -> None:
        self._engine = engine
        self._creating = creating
        self._changing = changing

    async def delete(self, call: Call) -> Entry | Object:
        """Do what a DELETE asks for; return what is left, what was there, or a Status. Raises ApiStatus."""
        options = delete_options(call.request)
        call.options, call.dry_run = options.raw, options.dry_run
        return await self.delete_named(call, options)

    async def delete_named(self, call: Call, options: DeleteOptions) -> Entry | Object:
        """Delete the object of the call's path."""
        for _ in range(_ATTEMPTS):
            entry = self._changing.current(call)
            if entry is None:
                raise self._creating.missing(call)
            try:
                return await self._delete(call, entry, options)
            except ChangedError:
                continue
        resource = call.served.resource
        raise server_timeout(resource.group, resource.resource, "delete", 1)

    async def _delete(self, call: Call, entry: Entry, options: DeleteOptions) -> Entry | Object:
        served, engine = call.served, self._engine
        live = await served.load(entry)
        refusal = check_preconditions(live, options, served.resource.group, served.resource.kind, call.info.name)
        if refusal is not None:
            raise refusal
        admitted = engine.admission_request(call, "DELETE", call.info.name, None, live)
        pending = engine.admission.admit(admitted)
        if pending is not None:
            await pending
        await engine.validate(admitted)
        name = served.resource.full_name
        if name == _NAMESPACES:
            return await self._terminate_namespace(call, entry, live, options)
        if name == _DEFINITIONS and not live["metadata"].get("deletionTimestamp") and self._has_objects(live):
            return await self._terminate_definition(call, entry, live)
        return await self._carry_out(call, entry, live, options)

    async def _carry_out(self, call: Call, entry: Entry, live: Object, options: DeleteOptions) -> Entry | Object:
        served, engine = call.served, self._engine
        verdict = decide(live, options, served.strategy, engine.clock.now())
        if not verdict.remove:
            if not verdict.changed or call.dry_run:
                return Entry(entry.key, encode(await served.to_stored(verdict.obj)), entry.rv, served.stored_form)
            stored = await served.to_stored(verdict.obj)
            return await engine.storage.replace(served.cache, entry, stored, served.stored_form)
        revision = entry.rv
        if not call.dry_run:
            if verdict.changed:
                stored = await served.to_stored(verdict.obj)
                entry = await engine.storage.replace(served.cache, entry, stored, served.stored_form)
            revision = await engine.storage.delete(served.cache, entry)
            engine.hooks.after_delete(served, verdict.obj)
        resource = served.resource
        if resource.full_name in _SHOWN:
            return Entry(entry.key, encode(await served.to_stored(verdict.obj)), revision, served.stored_form)
        uid = verdict.obj["metadata"].get("uid") or ""
        return success(Details(call.info.name, resource.group, resource.resource, uid))

    async def _terminate_namespace(
        self, call: Call, entry: Entry, live: Object, options: DeleteOptions
    ) -> Entry | Object:
        """Mark a namespace: it goes once its content is gone and nobody's finalizer is left."""
        served, engine = call.served, self._engine
        made = {**live, "metadata": dict(live["metadata"]), "status": dict(live.get("status") or {})}
        metadata, spec = made["metadata"], made.get("spec") or {}
        if metadata.get("deletionTimestamp"):
            if spec.get("finalizers") or metadata.get("finalizers"):
                resource = served.resource
                why = (
                    "The system is ensuring all content is removed from this namespace.  "
                    "Upon completion, this namespace will automatically be purged by the system."
                )
                raise conflict(resource.group, resource.resource, call.info.name, why)
            return await self._carry_out(call, entry, live, options)
        if not spec.get("finalizers") and not metadata.get("finalizers"):
            return await self._carry_out(call, entry, live, options)
        metadata["deletionTimestamp"] = format_seconds(engine.clock.now())
        made["status"]["phase"] = "Terminating"
        if call.dry_run:
            return Entry(entry.key, encode(made), entry.rv, served.stored_form)
        return await engine.storage.replace(served.cache, entry, made, served.stored_form)

    def _has_objects(self, definition: Object) -> bool:
        """Whether a definition serves anything whose objects have to go before it."""
        conditions = (definition.get("status") or {}).get("conditions") or ()
        return any(each.get("type") == "Established" and each.get("status") == "True" for each in conditions)

    async def _terminate_definition(self, call: Call, entry: Entry, live: Object) -> Entry:
        """Mark a definition: it goes once the objects that it defines are gone."""
        served, engine = call.served, self._engine
        metadata, status = dict(live["metadata"]), dict(live["status"])
        now = engine.context().now
        metadata["deletionTimestamp"] = now
        metadata["finalizers"] = list(dict.fromkeys([*(metadata.get("finalizers") or ()), _CLEANUP]))
        terminating = {
            "type": "Terminating",
            "status": "True",
            "lastTransitionTime": now,
            "reason": "InstanceDeletionPending",
            "message": "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
        }
        status["conditions"] = [*status["conditions"], terminating]
        made = {**live, "metadata": metadata, "status": status}
        if call.dry_run:
            return Entry(entry.key, encode(made), entry.rv, served.stored_form)
        return await engine.storage.replace(served.cache, entry, made, served.stored_form)

    async def delete_all(self, calls: Sequence[Call], options: DeleteOptions) -> None:
        """Delete what the calls name, some at a time; what is gone meanwhile is well. Raises the first refusal."""
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(call: Call) -> None:
            async with gate:
                try:
                    await self.delete_named(call, options)
                except NotFound:
                    return

        for answer in await asyncio.gather(*(one(call) for call in calls), return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
