"""POST: from a body to a new object."""

from __future__ import annotations

from typing import Any

from pilothouse.apiserver.cache.cacher import key_of
from pilothouse.apiserver.cache.entries import Entry, encode
from pilothouse.apiserver.model import ANONYMOUS
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.bodies import Decoded, read_body
from pilothouse.apiserver.rest.engine import Call, Engine, check_names, check_namespace
from pilothouse.apiserver.rest.options import WriteOptions, write_options
from pilothouse.apiserver.storing import ChangedError
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.names import generated_name
from pilothouse.kinds.status import ApiStatus, BadRequest, already_exists, generate_name_conflict, not_found

__all__ = ["Creating", "check_type", "unnamed"]

_ATTEMPTS = 8
"""Names tried for one `generateName`."""
_SERVER_SETS = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "generation")


class UnknownReason(ApiStatus):
    """A failure that Kubernetes answers without a reason."""

    REASON, CODE = "", 500


def check_type(obj: Any, call: Call) -> None:
    """Refuse an object of another kind or version than the path's; fill both in where they are missing."""
    resource = call.served.resource
    if not isinstance(obj, dict):
        raise BadRequest(f"the body makes no {resource.kind} but another value")
    kind, version = obj.get("kind") or "", obj.get("apiVersion") or ""
    for name, value in (("kind", kind), ("apiVersion", version)):
        if not isinstance(value, str):
            raise BadRequest(f"couldn't get version/kind; json parse error: field {name} must be text")
    if not kind:
        obj["kind"] = kind = resource.kind
    if not version:
        obj["apiVersion"] = version = resource.api_version
    if kind == resource.kind and version == resource.api_version:
        return
    short = version.rpartition("/")[2]
    if version != resource.api_version:
        if call.served.custom is not None:
            expected = f"does not match the expected API version ({resource.api_version})"
            raise BadRequest(f"the API version in the data ({version}) {expected}")
        scheme = "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"
        why = f'no kind {quote(kind)} is registered for version {quote(version)} in scheme "{scheme}"'
    else:
        if call.served.custom is not None:
            raise BadRequest(f"the kind in the data ({kind}) does not match the expected kind ({resource.kind})")
        internal = (resource.group.partition(".")[0]) or "core"
        why = f"converting (v1.{kind}) to ({internal}.{resource.kind}): unknown conversion"
    raise BadRequest(f'{kind} in version "{short}" cannot be handled as a {resource.kind}: {why}')


def unnamed(obj: Object) -> Object:
    """Return the metadata of an object, made where it is missing or null. Raises BadRequest where it is no object."""
    metadata = obj.get("metadata")
    if metadata is None:
        metadata = obj["metadata"] = {}
    if not isinstance(metadata, dict):
        raise BadRequest("metadata must be an object")
    return metadata


class Creating:
    """Creates objects."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def create(self, call: Call) -> Entry:
        """Do what a POST asks for; return the new object. Raises ApiStatus."""
        request, served = call.request, call.served
        options = write_options(request, "CreateOptions")
        obj = self.decoded(read_body(request, served.resource.kind), call, options)
        return await self.create_object(call, obj, options)

    def decoded(self, body: Decoded, call: Call, options: WriteOptions) -> Object:
        """Return the object of a body, checked against its kind and with its defaults."""
        check_type(body.obj, call)
        obj = call.served.decode(body, options.validation, call.request.warnings.append)
        unnamed(obj)
        return call.served.default(obj)

    async def create_object(self, call: Call, obj: Object, options: WriteOptions, *, owned: bool = False) -> Entry:
        """Create an object with its defaults filled in. owned: its managed fields are there already."""
        served, info, engine = call.served, call.info, self._engine
        metadata = obj["metadata"]
        if (metadata.get("resourceVersion") or "0") != "0":
            raise UnknownReason("resourceVersion should not be set on objects to be created")
        if info.name:
            check_names(obj, info, named=True)
        check_namespace(obj, info, namespaced=served.resource.namespaced)
        metadata.pop("resourceVersion", None)
        for name in _SERVER_SETS:
            metadata.pop(name, None)
        call.options, call.dry_run, call.manager = options.raw, options.dry_run, options.manager
        context = engine.context(call.request.user or ANONYMOUS)
        if not owned:
            obj = served.manager().update(None, obj, options.manager, context.moment)
        admitted = engine.admission_request(call, "CREATE", obj["metadata"].get("name") or "", obj, None)
        obj = await engine.mutate(admitted)
        metadata = unnamed(obj)
        metadata["uid"], metadata["creationTimestamp"] = engine.ids.uuid(), context.now
        prefix = "" if metadata.get("name") else metadata.get("generateName") or ""
        for attempt in range(_ATTEMPTS if prefix else 1):
            if prefix:
                metadata["name"] = generated_name(prefix, engine.ids.name_suffix())
            last = attempt == _ATTEMPTS - 1
            entry = await self._attempt(call, admitted, obj, context, prefix, last=last)
            if entry is not None:
                return entry
        raise AssertionError("unreachable: the last attempt answers or raises")

    async def _attempt(
        self, call: Call, admitted: Any, obj: Object, context: Any, prefix: str, *, last: bool
    ) -> Entry | None:
        """Try to store a new object under its name; None where a generated name is taken and another may be tried."""
        served, engine = call.served, self._engine
        metadata = obj["metadata"]
        served.strategy.prepare_create(obj, context)
        name: str = metadata.get("name") or ""
        errors = served.validate_create(obj)
        if errors:
            raise call.refuse(name, errors)
        call.request.warnings.extend(served.warnings_about(obj))
        served.settle(obj)
        admitted.name, admitted.object = name, obj
        engine.check_may_create(call)
        await engine.validate(admitted)
        key = key_of(metadata.get("namespace") or "", name)
        if call.dry_run:
            if served.cache.get(key) is not None:
                raise self._taken(call, name, prefix)
            undo = await engine.hooks.before_create(served, obj, call)
            if undo is not None:
                undo()
            return Entry(key, encode(await served.to_stored(obj)), 0, served.stored_form)
        undo = await engine.hooks.before_create(served, obj, call)
        try:
            stored = await served.to_stored(obj)
            form, ttl = served.stored_form, served.strategy.ttl
            return await engine.storage.create(served.cache, key, stored, form, seconds=ttl)
        except ChangedError:
            if undo is not None:
                undo()
            if prefix and not last:
                return None
            raise self._taken(call, name, prefix) from None
        except ApiStatus:
            if undo is not None:
                undo()
            raise

    def _taken(self, call: Call, name: str, prefix: str) -> ApiStatus:
        resource = call.served.resource
        if prefix:
            return generate_name_conflict(resource.group, resource.resource, name, 1)
        return already_exists(resource.group, resource.resource, name)

    def missing(self, call: Call) -> ApiStatus:
        """Return the refusal for an object that is not there."""
        resource = call.served.resource
        return not_found(resource.group, resource.resource, call.info.name)
