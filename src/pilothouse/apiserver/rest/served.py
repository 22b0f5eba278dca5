"""One resource in one version as it is served: its schema, rules, form and cache, made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Protocol

from pilothouse.apiserver.cache.cacher import Cacher
from pilothouse.apiserver.cache.changes import Encode
from pilothouse.apiserver.cache.entries import Entry, Form, form_of
from pilothouse.apiserver.cache.resourcecache import ResourceCache
from pilothouse.apiserver.ports import Object
from pilothouse.apiserver.rest.bodies import Decoded, check_custom_fields, check_fields
from pilothouse.apiserver.rest.conversions import Conversions
from pilothouse.apiserver.strategies.base import Context, Strategy
from pilothouse.apiserver.strategies.kinds import strategy_for
from pilothouse.kinds import fields
from pilothouse.kinds.apply import FieldManager
from pilothouse.kinds.completion import complete, complete_status
from pilothouse.kinds.defaults import default, has_defaults
from pilothouse.kinds.emptyobjects import empty_object
from pilothouse.kinds.fielderrors import ErrorList
from pilothouse.kinds.fieldset import FieldSet, of_paths
from pilothouse.kinds.mergepatch import same
from pilothouse.kinds.omission import always_written, leave_out_empty, leave_out_empty_metadata
from pilothouse.kinds.registry import Registry, Resource
from pilothouse.kinds.schema import ANY, Schema
from pilothouse.kinds.table import schema_for
from pilothouse.kinds.validation import (
    validate_create,
    validate_status_update,
    validate_subresource_update,
    validate_update,
)
from pilothouse.kinds.warnings import warns_of

__all__ = ["Custom", "CustomStrategy", "Served"]


_DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"
_OWN_RULES = frozenset({"approval", "ephemeralcontainers", "resize"})
_STATUS = of_paths([("f:status",)])
_NOT_STATUS = of_paths([("f:spec",), ("f:metadata", "f:deletionTimestamp"), ("f:metadata", "f:ownerReferences")])
_NOT_CUSTOM_STATUS = of_paths([("f:spec",)])


def complete_definition(errors: ErrorList, new: Object, old: Object | None = None) -> ErrorList:
    """Add what only compiled schemas tell of a definition. Imports its compiler when the first one comes."""
    from pilothouse.apiserver import crds  # noqa: PLC0415  # heavy

    return crds.complete_definition(errors, new, old)


def definition_warnings(new: Object, old: Object | None) -> list[str]:
    """Return the warnings about a definition; its compiler has been imported to check it."""
    from pilothouse.apiserver import crds  # noqa: PLC0415  # heavy

    return crds.definition_warnings(new, old)


def custom_warnings(new: Object, old: Object | None) -> list[str]:
    """Return the warnings about a custom object."""
    if not new["metadata"].get("finalizers"):
        return []
    from pilothouse.apiserver.crds.warnings import finalizer_warnings  # noqa: PLC0415  # heavy, and few have any

    return finalizer_warnings(new, old)


class Custom(Protocol):
    """What a custom resource definition says of one of its versions; made by `apiserver.crds`."""

    @property
    def schema(self) -> Schema:
        """For apply and pruning."""

    @property
    def has_status(self) -> bool:
        """Whether status is a subresource."""

    @property
    def selectable_fields(self) -> Any:
        """JSON paths by which objects can be selected."""

    def prune(self, obj: Object) -> tuple[Object, list[str]]:
        """Return the object without unknown fields, and messages for them."""

    def default(self, obj: Object) -> Object:
        """Fill in defaults."""

    def validate(self, obj: Object, old: Object | None = None, *, status: bool = False) -> ErrorList:
        """Check an object, and what may not change; of a status subresource only the status."""


class CustomStrategy(Strategy):
    """Custom resources: whatever is not metadata or status makes a new generation."""

    def prepare_create(self, new: Object, context: Context) -> None:
        if self.status_subresource:
            new.pop("status", None)
        new["metadata"]["generation"] = 1

    def prepare_status(self, new: Object, old: Object, context: Context) -> None:
        for name in {*new, *old} - {"status", "metadata", "kind", "apiVersion"}:
            if name in old:
                new[name] = old[name]
            else:
                new.pop(name, None)
        managed = new["metadata"].get("managedFields")
        metadata = dict(old["metadata"])
        metadata.pop("managedFields", None)
        if "resourceVersion" in new["metadata"]:
            metadata["resourceVersion"] = new["metadata"]["resourceVersion"]
        if managed is not None:
            metadata["managedFields"] = managed
        new["metadata"] = metadata

    def _wants_other(self, new: Object, old: Object) -> bool:
        ignored = {"metadata", "status"} if self.status_subresource else {"metadata"}
        return not all(same(new.get(name), old.get(name)) for name in {*new, *old} - ignored)


_CUSTOM = CustomStrategy(wanted=("spec",), unconditional=False)
_CUSTOM_STATUS = CustomStrategy(wanted=("spec",), unconditional=False, status_subresource=True)


class Served:
    """One group, version and resource. `stored` is the resource in the version that objects are kept in."""

    def __init__(
        self,
        resource: Resource,
        registry: Registry,
        cacher: Cacher,
        conversions: Conversions,
        custom: Custom | None = None,
        *,
        loopback_endpoints: bool = False,
    ) -> None:
        self.resource = resource
        self._loopback = loopback_endpoints
        self.custom = custom
        self.conversions = conversions
        self.stored = registry.storage(resource) if "list" in resource.verbs else resource
        self.form: Form = form_of(resource.api_version, resource.kind, custom=custom is not None)
        self.stored_form: Form = form_of(self.stored.api_version, self.stored.kind, custom=custom is not None)
        self.cache: ResourceCache = cacher.resource(
            self.stored.full_name, self.stored.group, self.stored.resource, custom=custom is not None
        )
        self._managers: dict[str, FieldManager] = {}
        self.encoders: dict[str, Encode] = {}
        """What writes the events of watches, by format."""
        self.warnings: tuple[str, ...] = ()
        """Told to every caller: that the version is deprecated."""

    @property
    def api_version(self) -> str:
        """The API version of the objects as served."""
        return self.resource.api_version

    @property
    def is_stored(self) -> bool:
        """Whether objects are kept in this version."""
        return self.form is self.stored_form

    @cached_property
    def strategy(self) -> Strategy:
        """What the server sets and keeps by itself."""
        if self.custom is not None:
            return _CUSTOM_STATUS if self.custom.has_status else _CUSTOM
        return strategy_for(self.resource.group, self.resource.kind)

    @cached_property
    def schema(self) -> Schema:
        """The schema of the objects."""
        if self.custom is not None:
            return self.custom.schema
        return schema_for(*self.resource.gvk) or ANY

    @cached_property
    def field_labels(self) -> fields.FieldLabels:
        """The fields by which objects can be selected."""
        if self.custom is not None:
            return fields.custom_field_labels(self.custom.selectable_fields, namespaced=self.resource.namespaced)
        return fields.field_labels(*self.resource.gvk)

    def manager(self, subresource: str = "") -> FieldManager:
        """Return who keeps account of the owners of fields, for the object or one of its subresources."""
        found = self._managers.get(subresource)
        if found is None:
            found = self._managers[subresource] = FieldManager(
                self.schema,
                self.api_version,
                subresource=subresource,
                reset={self.api_version: self._reset(subresource)},
                empty={} if self.custom is not None else empty_object(self.api_version, self.resource.kind),
                versions=self.conversions.versions_of(self.resource),
                evolving=self.custom is not None,
            )
        return found

    def _reset(self, subresource: str) -> FieldSet:
        if subresource == "status":
            return _NOT_STATUS if self.custom is None else _NOT_CUSTOM_STATUS
        return _STATUS if self.strategy.status_subresource else {}

    def decode(self, body: Decoded, validation: str, warn: Callable[[str], None]) -> Object:
        """Return what came in a body as an object of this kind, without unknown fields. Raises BadRequest."""
        if self.custom is not None:
            kind, version = self.resource.kind, self.resource.version
            return check_custom_fields(body, self.custom.prune, kind, version, validation, warn)
        return check_fields(body, self.schema, self.resource.kind, self.resource.version, validation, warn)

    def default(self, obj: Object) -> Object:
        """Fill in the defaults, and leave out what counts as not set."""
        if self.custom is not None:
            return leave_out_empty_metadata(self.custom.default(obj))
        gvk = self.resource.gvk
        made = default(obj, *gvk)
        if not has_defaults(*gvk):
            complete(made, *gvk)
        if made.get("status"):
            complete_status(made, *gvk)
        return leave_out_empty(made, *gvk)

    def validate_create(self, obj: Object) -> ErrorList:
        """Check a new object."""
        if self.custom is not None:
            return self.custom.validate(obj)
        errors = validate_create(obj, self.resource.gvk, loopback=self._loopback)
        return complete_definition(errors, obj) if self.resource.full_name == _DEFINITIONS else errors

    def validate_update(self, old: Object, new: Object, subresource: str = "") -> ErrorList:
        """Check an object in the place of another."""
        if self.custom is not None:
            return self.custom.validate(new, old, status=subresource == "status")
        if subresource == "status":
            return validate_status_update(old, new, self.resource.gvk)
        if subresource in _OWN_RULES:
            return validate_subresource_update(old, new, self.resource.gvk, subresource)
        errors = validate_update(old, new, self.resource.gvk, loopback=self._loopback)
        return complete_definition(errors, new, old) if self.resource.full_name == _DEFINITIONS else errors

    @cached_property
    def _written(self) -> tuple[tuple[str, str], ...]:
        return () if self.custom is not None else always_written(*self.resource.gvk)

    def settle(self, obj: Object) -> None:
        """Make null, in place, what is so once it has been stored: empty lists that are written always."""
        for part, name in self._written:
            holder = obj.get(part) if part else obj
            if holder and name in holder and not holder[name]:
                holder[name] = None

    @cached_property
    def _warns(self) -> Callable[[Object, Object | None], list[str]] | None:
        if self.custom is not None or self.resource.full_name == _DEFINITIONS:
            return custom_warnings if self.custom is not None else definition_warnings
        return warns_of(self.resource.group, self.resource.kind)

    def warnings_about(self, new: Object, old: Object | None = None) -> list[str]:
        """Return what to tell the caller of a valid object, and what it replaces."""
        return self._warns(new, old) if self._warns is not None else []

    async def load(self, entry: Entry) -> Object:
        """Return an object of the cache in the version that is served, to be changed as one likes."""
        obj = entry.decoded()
        if entry.form is not self.form:
            (obj,) = await self.conversions.convert_many([obj], self.resource, [entry.value])
        return obj

    async def load_many(self, entries: Sequence[Entry]) -> list[Object]:
        """As `load`, for many objects at once, in their order."""
        objects = [entry.decoded() for entry in entries]
        if any(entry.form is not self.form for entry in entries):
            objects = await self.conversions.convert_many(objects, self.resource, [entry.value for entry in entries])
        return objects

    async def to_stored(self, obj: Object) -> Object:
        """Return an object in the version in which it is kept."""
        return obj if self.is_stored else await self.conversions.convert(obj, self.stored)
