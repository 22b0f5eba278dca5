"""The scale subresource: how many replicas an object has and wants, in one shape for all kinds that can be scaled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pilothouse.apiserver.cache.entries import Entry
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.bodies import Decoded, check_fields, read_body
from pilothouse.apiserver.rest.changing import Changing
from pilothouse.apiserver.rest.creating import Creating, unnamed
from pilothouse.apiserver.rest.engine import Call, Engine, check_name, check_names
from pilothouse.apiserver.rest.options import WriteOptions, write_options
from pilothouse.apiserver.rest.patching import APPLY, Patch
from pilothouse.apiserver.rest.served import Served
from pilothouse.apiserver.storing import ChangedError
from pilothouse.apiserver.strategies.base import Context
from pilothouse.kinds import labels
from pilothouse.kinds.apply import ApplyConflictError, ApplyRefusedError
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.schema import ANY
from pilothouse.kinds.status import BadRequest, InternalError, apply_conflict, conflict, invalid
from pilothouse.kinds.table import schema_for

__all__ = ["ScalePaths", "Scaling"]

_ATTEMPTS = 100
_GROUP, _VERSION, _KIND = "autoscaling", "v1", "Scale"
_SCALE = schema_for(_GROUP, _VERSION, _KIND) or ANY


@dataclass(frozen=True, slots=True)
class ScalePaths:
    """Where an object says how many replicas it wants and has, and by which selector (as text); JSON paths."""

    wanted: str = ".spec.replicas"
    had: str = ".status.replicas"
    selector: str = ""


def _read(obj: Object, path: str) -> Any:
    found: Any = obj
    for name in path.strip(".").split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def _written(obj: Object, path: str, value: Any) -> Object:
    """Return a copy of an object with one field changed."""
    name, _, rest = path.strip(".").partition(".")
    inner = obj.get(name)
    if not rest:
        return {**obj, name: value}
    return {**obj, name: _written(inner if isinstance(inner, dict) else {}, rest, value)}


class Scaling:
    """Reads and writes scales."""

    def __init__(self, engine: Engine, creating: Creating, changing: Changing) -> None:
        self._engine = engine
        self._creating = creating
        self._changing = changing

    def paths(self, served: Served) -> ScalePaths:
        """Return where an object has its replicas."""
        if served.custom is None:
            return ScalePaths()
        found = getattr(served.custom, "scale", None)
        if found is None:
            raise InternalError(f"{served.resource.full_name} has no scale")
        return ScalePaths(found.spec_text, found.status_text, found.selector_text)

    async def get(self, call: Call) -> Object:
        """Return the scale of an object. Raises NotFound."""
        entry = self._changing.current(call)
        if entry is None:
            raise self._creating.missing(call)
        return self.scale(call.served, await call.served.load(entry))

    def scale(self, served: Served, obj: Object) -> Object:
        """Return an object's scale."""
        paths, metadata = self.paths(served), obj["metadata"]
        kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
        status: Object = {"replicas": _read(obj, paths.had) or 0}
        selector = _read(obj, paths.selector) if paths.selector else self._selector(obj)
        if selector and isinstance(selector, str):
            status["selector"] = selector
        wanted = _read(obj, paths.wanted)
        spec = {"replicas": wanted} if wanted else {}
        return {
            "kind": _KIND,
            "apiVersion": f"{_GROUP}/{_VERSION}",
            "metadata": {name: metadata[name] for name in kept if name in metadata},
            "spec": spec,
            "status": status,
        }

    def _selector(self, obj: Object) -> str:
        selector = (obj.get("spec") or {}).get("selector")
        if not isinstance(selector, dict):
            return ""
        if obj.get("kind") == "ReplicationController":
            return str(labels.from_labels(selector))
        return str(labels.from_label_selector(selector))

    async def write(self, call: Call, *, patch: bool) -> tuple[Object, Entry]:
        """Do what a PUT or PATCH of a scale asks for; return the scale then. Raises ApiStatus."""
        reading = Patch.read(call.request, call.served) if patch else None
        kind = "PatchOptions" if patch else "UpdateOptions"
        options = write_options(call.request, kind, apply=reading is not None and reading.media == APPLY)
        call.options, call.dry_run, call.manager = options.raw, options.dry_run, options.manager
        for _ in range(_ATTEMPTS):
            entry = self._changing.current(call)
            if entry is None:
                raise self._creating.missing(call)
            live = await call.served.load(entry)
            before = self.scale(call.served, live)
            wanted = self._patched(call, reading, before, options) if reading else self._sent(call, options)
            version = wanted["metadata"].get("resourceVersion")
            if version and version != str(entry.rv):
                resource = call.served.resource
                raise conflict(resource.group, resource.resource, call.info.name)
            try:
                stored = await self._replaced(call, entry, live, before, wanted, options)
            except ChangedError:
                continue
            return self.scale(call.served, await call.served.load(stored)), stored
        resource = call.served.resource
        raise conflict(resource.group, resource.resource, call.info.name)

    def _checked(self, obj: Object, call: Call) -> Object:
        if obj.get("kind", _KIND) != _KIND:
            raise BadRequest(f"the kind of the object ({obj.get('kind')}) is not {_KIND}")
        unnamed(obj)
        check_names(obj, call.info, named=True)
        return obj

    def _sent(self, call: Call, options: WriteOptions) -> Object:
        body = read_body(call.request, _KIND)
        warn = call.request.warnings.append
        sent = check_fields(body, _SCALE, _KIND, _VERSION, options.validation, warn)
        unnamed(sent)
        check_name(sent, call.info)
        return self._checked(sent, call)

    def _patched(self, call: Call, patch: Patch, before: Object, options: WriteOptions) -> Object:
        if patch.media == APPLY:
            return self._typed({**before, **patch.content}, call, options)
        changed = Patch(patch.media, patch.content, patch.raw, call.served)
        if patch.media == "application/strategic-merge-patch+json":
            # A scale has no lists, so that merging it is all that a strategic patch could do.
            changed.media = "application/merge-patch+json"
        return self._typed(changed.applied(before), call, options)

    def _typed(self, obj: Any, call: Call, options: WriteOptions) -> Object:
        """Return what a patch made of a scale, its values of the types that they must have."""
        if not isinstance(obj, dict):
            raise BadRequest(f"the patch makes no {_KIND} but another value")
        warn = call.request.warnings.append
        return self._checked(check_fields(Decoded(obj, None), _SCALE, _KIND, _VERSION, options.validation, warn), call)

    async def _replaced(
        self, call: Call, entry: Entry, live: Object, before: Object, wanted: Object, options: WriteOptions
    ) -> Entry:
        engine = self._engine
        admitted = engine.admission_request(call, "UPDATE", call.info.name, wanted, before)
        admitted.kind = (_GROUP, _VERSION, _KIND)
        wanted = await engine.mutate(admitted)
        await engine.validate(admitted)
        replicas = (wanted.get("spec") or {}).get("replicas") or 0
        if replicas < 0:
            errors = ErrorList()
            errors.invalid(Path("spec.replicas"), replicas, "must be greater than or equal to 0")
            raise invalid(_GROUP, _KIND, call.info.name, errors)
        path = self.paths(call.served).wanted
        new = {**_written(live, path, replicas), "metadata": dict(live["metadata"])}

        def owned(call: Call, live: Object, new: Object, context: Context) -> Object:
            return self._owned(call, live, new, context, path, options, apply=_is_apply(call))

        return await self._changing.replace(call, entry, new, options, owned, live, screened=True)

    def _owned(
        self,
        call: Call,
        live: Object,
        new: Object,
        context: Context,
        path: str,
        options: WriteOptions,
        *,
        apply: bool,
    ) -> Object:
        manager = call.served.manager("scale")
        if not apply:
            return _timeless(manager.update(live, new, call.manager, context.moment))
        part = {"apiVersion": call.served.api_version, "kind": call.served.resource.kind, "metadata": {}}
        applied = _written({**part, "metadata": {"name": call.info.name}}, path, _read(new, path))
        try:
            return manager.apply(live, applied, call.manager, context.moment, force=options.force)
        except ApplyConflictError as error:
            raise apply_conflict(error.causes, str(error)) from None
        except ApplyRefusedError as error:
            raise BadRequest(str(error)) from None


def _is_apply(call: Call) -> bool:
    return call.request.method == "PATCH" and call.request.headers.get("content-type", "").startswith(APPLY)


def _timeless(obj: Object) -> Object:
    """Take the times from the entries of scales, which Kubernetes does not keep; they come before others then."""
    entries = obj["metadata"].get("managedFields")
    if not entries:
        return obj
    stripped = [
        {name: value for name, value in entry.items() if name != "time"}
        if entry.get("subresource") == "scale"
        else entry
        for entry in entries
    ]
    stripped.sort(key=lambda entry: (entry["operation"] != "Apply", entry.get("time", "")))
    return {**obj, "metadata": {**obj["metadata"], "managedFields": stripped}}
