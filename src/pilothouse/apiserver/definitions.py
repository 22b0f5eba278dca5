"""Custom resources come and go: follows the definitions, keeps their status, and serves what they define."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

import msgspec

from pilothouse.apiserver.admission.webhook_client import Target
from pilothouse.apiserver.cache.changes import Change
from pilothouse.apiserver.cache.entries import Entry
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.catalogue import Key
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds import conditions
from pilothouse.kinds.registry import Resource
from pilothouse.kinds.schema import Schema
from pilothouse.kinds.status import ApiStatus, Conflict, InternalError, NotFound
from pilothouse.kinds.times import format_seconds

if TYPE_CHECKING:
    from pilothouse.apiserver.crds import DefinedVersion
    from pilothouse.apiserver.server import ApiServer

__all__ = ["DEFINITIONS", "Definitions"]

_log = get_logger(__name__)

DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
_PATH = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_CONVERTED = 2048
"""Objects that a webhook converted, remembered."""
_SECONDS = 30.0
_RETRY = 1.0


class _NameOutline(TypedDict):
    name: str


class _SpecOutline(TypedDict):
    group: str


class _Outline(TypedDict):
    """What is to be known of a definition beside the one that is looked at; the rest is not even read."""

    metadata: _NameOutline
    spec: _SpecOutline
    status: NotRequired[dict[str, Any]]


_outline = msgspec.json.Decoder(_Outline).decode


class Definitions:
    """Follows definitions for as long as the server runs. Changes of one turn of the loop are looked at together."""

    def __init__(self, server: ApiServer) -> None:
        self._server = server
        self._changed: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._serving: dict[str, dict[Key, DefinedVersion]] = {}
        self._versions: dict[tuple[str, int, str], DefinedVersion] = {}
        self._converted: OrderedDict[tuple[bytes, str, str, str, int], bytes] = OrderedDict()
        self._schemas: dict[tuple[str, int, str], Mapping[str, Any]] = {}
        self._task: asyncio.Task[None] | None = None
        self._working = False
        conversions = server.catalogue.conversions
        conversions.custom = self.convert
        conversions.by_webhook = self._by_webhook
        conversions.custom_schema = self._schema

    # Following

    @property
    def idle(self) -> bool:
        """Whether the status of every definition says what is so now."""
        return not self._working and not self._changed

    async def start(self) -> None:
        """Serve what is defined, and follow what changes."""
        cache = self._server.cacher.named(DEFINITIONS)
        if cache is None:
            raise LookupError(DEFINITIONS)
        self._stop = cache.subscribe(self)
        for entry in cache.entries():
            self._serve(entry.key)
            self._changed[entry.key] = None
        self._wake.set()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="definitions")

    async def close(self) -> None:
        """Stop following."""
        if self._task is not None:
            self._stop()
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def feed(self, change: Change) -> None:
        """Take a change of a definition; what is served changes at once."""
        name = change.entry.key
        self._serve(name)
        self._changed[name] = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            names, self._changed = list(self._changed), {}
            self._working = True
            for name in names:
                try:
                    await self._settle(name)
                except (NotFound, Conflict):
                    continue  # another change of it is on its way
                except ApiStatus as error:
                    _log.warning("the status of a definition was not written; tried again", name=name, error=str(error))
                    self._changed[name] = None
                    self._server.options.clock.call_later(_RETRY, self._wake.set)
            self._working = False

    async def _settle(self, name: str) -> None:
        """Write the status that a definition should have."""
        from pilothouse.apiserver.crds import status_after, taken_names  # noqa: PLC0415  # where there are any

        found = self._found(name)
        if found is None:
            return
        if found["metadata"].get("deletionTimestamp"):
            await self._clean_up(found)
            return
        taken = taken_names(self._all(), found["spec"]["group"], name)
        status = status_after(found, taken, format_seconds(self._server.options.clock.now()))
        if status != found.get("status"):
            await self._server.local.call("PUT", f"{_PATH}/{name}/status", {**found, "status": status})
            accepted = (found.get("status") or {}).get("acceptedNames")
            if accepted != status.get("acceptedNames"):
                # Names that one gave up, another waits for.
                group = found["spec"]["group"]
                for other in self._all():
                    if other["spec"]["group"] == group and other["metadata"]["name"] != name:
                        self._changed[other["metadata"]["name"]] = None
                        self._wake.set()

    async def _clean_up(self, found: Object) -> None:
        from pilothouse.apiserver.lifecycle.definitions import clean_up  # noqa: PLC0415

        await clean_up(found, self._server.local, self._server.options.clock)

    # Definitions are read anew each time: kept decoded, those that nobody uses would take most of the memory.

    def _entry(self, name: str) -> Entry | None:
        cache = self._server.cacher.named(DEFINITIONS)
        return cache.get(name) if cache is not None else None

    def _found(self, name: str) -> Object | None:
        entry = self._entry(name)
        return entry.decoded() if entry is not None else None

    def _all(self) -> Iterator[_Outline]:
        cache = self._server.cacher.named(DEFINITIONS)
        return (_outline(entry.value) for entry in (cache.entries() if cache is not None else ()))

    # Serving

    def _serve(self, name: str) -> None:
        """Serve what a definition says now, and no longer what it said before."""
        entry = self._entry(name)
        found = entry.decoded() if entry is not None else None
        wanted = self._wanted(found, entry.value) if found is not None and entry is not None else {}
        before = self._serving.get(name, {})
        if wanted == before:
            return
        removed = [key for key in before if key not in wanted]
        added = [
            (defined.resource, defined, (defined.deprecation_warning,) if defined.deprecation_warning else ())
            for key, defined in wanted.items()
            if before.get(key) is not defined
        ]
        try:
            ended = self._server.catalogue.replace_custom(added, removed)
        except ValueError as error:
            _log.warning("a definition cannot be served", name=name, error=str(error))
            return
        self._serving[name] = wanted
        if not wanted:
            del self._serving[name]
        gone = {key for key in removed if found is None or not wanted}
        for served in ended:
            if served.resource.key in gone or served.resource.key in wanted:
                self._server.watching.end_all(served)

    def _wanted(self, found: Object, encoded: bytes) -> dict[Key, DefinedVersion]:
        status = found.get("status") or {}
        if not conditions.is_true(status.get("conditions"), "Established"):
            return {}
        made: dict[Key, DefinedVersion] = {}
        for version in found["spec"]["versions"]:
            if version.get("served"):
                defined = self._defined(found, encoded, version["name"])
                if defined is not None:
                    made[defined.resource.key] = defined
        return made

    def _defined(self, found: Object, encoded: bytes, version: str) -> DefinedVersion | None:
        from pilothouse.apiserver.crds import DefinedVersion  # noqa: PLC0415  # where there are any

        key = (*_generation(found), version)
        made = self._versions.get(key)
        if made is None:
            try:
                made = DefinedVersion(found, version, encoded)
            except (LookupError, ValueError) as error:
                _log.warning(
                    "a version of a definition cannot be served", name=found["metadata"]["name"], error=str(error)
                )
                return None
            for old in [each for each in self._versions if each[0] == key[0] and each[1] < key[1]]:
                del self._versions[old]
                self._schemas.pop(old, None)
            self._versions[key] = made
        return made

    # Versions

    def _by_webhook(self, resource: Resource) -> bool:
        return any(each.by_webhook for each in self._serving.get(resource.full_name, {}).values())

    def _schema(self, group: str, version: str, kind: str) -> Schema | None:
        resource = self._server.catalogue.registry.by_kind(group, version, kind)
        if resource is None:
            return None
        served = self._server.catalogue.served(*resource.key)
        return served.schema if served is not None else None

    async def convert(self, objects: Sequence[Object], resource: Resource, kept: Sequence[bytes] = ()) -> list[Object]:
        """Return custom objects in the version of a resource, by its webhook where it has one. Raises ApiStatus."""
        found = self._server.view.get(DEFINITIONS, "", resource.full_name) if self._by_webhook(resource) else None
        if found is None:
            return [{**obj, "apiVersion": resource.api_version} for obj in objects]
        if not kept:
            return await self._ask(found, objects, resource)
        # Uid and resource version would not do: what a dry run made has those of the object that it changed.
        keys = [
            (value, obj["metadata"]["resourceVersion"], resource.api_version, *_generation(found))
            for obj, value in zip(objects, kept, strict=True)
        ]
        asked = [place for place, key in enumerate(keys) if key not in self._converted]
        made = await self._ask(found, [objects[place] for place in asked], resource) if asked else []
        fresh = dict(zip(asked, made, strict=True))
        answer = [
            fresh[place] if place in fresh else msgspec.json.decode(self._converted[key])
            for place, key in enumerate(keys)
        ]
        for place, obj in fresh.items():
            self._converted[keys[place]] = msgspec.json.encode(obj)
        while len(self._converted) > _CONVERTED:
            self._converted.popitem(last=False)
        return answer

    async def _ask(self, definition: Object, objects: Sequence[Object], resource: Resource) -> list[Object]:
        from pilothouse.apiserver.crds import ConversionError, convert_many  # noqa: PLC0415  # heavy

        uid, single = self._server.options.ids.uuid(), len(objects) == 1
        try:
            return await convert_many(definition, objects, resource.version, uid, self._call, single=single)
        except ConversionError as error:
            raise InternalError(str(error)) from None

    async def _call(self, config: Mapping[str, Any], review: Object) -> Object:
        body = msgspec.json.encode(review)
        answer: Object = msgspec.json.decode(await self._server.webhooks.call(Target.read(config), body, _SECONDS))
        return answer

    def openapi(self, resource: Resource) -> Mapping[str, Any] | None:
        """Return the published schema of a custom resource, the same object as long as it does not change."""
        from pilothouse.apiserver.crds import openapi_v3  # noqa: PLC0415  # heavy

        defined = self._serving.get(resource.full_name, {}).get(resource.key)
        if defined is None:
            return None
        key = (*defined.generation, resource.version)
        made = self._schemas.get(key)
        if made is None and (found := self._found(resource.full_name)) is not None:
            made = self._schemas[key] = next(iter(openapi_v3(found, resource.version).values()))
        return made


def _generation(definition: Object) -> tuple[str, int]:
    return definition["metadata"]["uid"], definition["metadata"].get("generation") or 0
