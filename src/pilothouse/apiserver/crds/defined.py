"""One version of a definition as long as nobody asks for its objects: what discovery tells, and no schema.

A definition that somebody has put in costs memory by then that it uses: schemas are compiled with the first request
that writes such an object.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from pilothouse.apiserver.crds.resource import columns_of, resource_of
from pilothouse.apiserver.crds.wellformed import well_formed
from pilothouse.kinds.fielderrors import ErrorList
from pilothouse.kinds.registry import Resource, version_order
from pilothouse.kinds.schema import Schema

if TYPE_CHECKING:
    from pilothouse.apiserver.crds.scaling import ScalePaths
    from pilothouse.apiserver.crds.version import CompiledVersion

__all__ = ["DefinedVersion", "deprecation_warning", "version_of"]

Object = dict[str, Any]


def version_of(crd: Object, version: str) -> Object:
    """Return what a definition says of a version. Raises LookupError where it says nothing."""
    for each in crd["spec"]["versions"]:
        if each["name"] == version:
            found: Object = each
            return found
    name = (crd.get("metadata") or {}).get("name")
    raise LookupError(f"customresourcedefinition {name!r} has no version {version!r}; add it to spec.versions")


def deprecation_warning(crd: Object, version: Object) -> str:
    """Return the text to warn users of a version with; empty for one that is not deprecated."""
    if not version.get("deprecated"):
        return ""
    given = version.get("deprecationWarning")
    if given is not None:
        return str(given)
    spec, name = crd["spec"], version["name"]
    group, kind = spec["group"], spec["names"]["kind"]
    current = [each["name"] for each in spec["versions"] if each.get("served") and not each.get("deprecated")]
    better = [each for each in current if version_order(each) < version_order(name)]
    text = f"{group}/{name} {kind} is deprecated"
    return f"{text}; use {group}/{better[0]} {kind}" if better else text


class DefinedVersion:
    """A version that is compiled when it is first needed; until then its definition is kept as encoded.

    crd: the definition, decoded from `encoded`. generation: of it, with its uid. by_webhook: how it is converted.
    Raises LookupError for a version that it does not have, ValueError for a schema that cannot be read.
    """

    def __init__(self, crd: Object, version: str, encoded: bytes) -> None:
        found = version_of(crd, version)
        well_formed((found.get("schema") or {}).get("openAPIV3Schema"))
        metadata, conversion = crd["metadata"], crd["spec"].get("conversion") or {}
        self.generation: tuple[str, int] = (metadata["uid"], metadata.get("generation") or 0)
        self.by_webhook: bool = conversion.get("strategy") == "Webhook"
        self._encoded = encoded
        self._version = version
        self.has_status: bool = (found.get("subresources") or {}).get("status") is not None
        self.selectable_fields: tuple[str, ...] = tuple(
            each["jsonPath"] for each in found.get("selectableFields") or ()
        )
        self.deprecation_warning: str = deprecation_warning(crd, found)
        self.resource: Resource = resource_of(crd, found, columns_of(found))

    @cached_property
    def compiled(self) -> CompiledVersion:
        """All that requests for its objects need."""
        from pilothouse.apiserver.crds.version import CompiledVersion  # noqa: PLC0415  # heavy, hence all of this

        return CompiledVersion(msgspec.json.decode(self._encoded), self._version)

    @property
    def schema(self) -> Schema:
        """The schema for server-side apply."""
        return self.compiled.schema

    @property
    def scale(self) -> ScalePaths | None:
        """The scale subresource, where there is one."""
        return self.compiled.scale

    def prune(self, obj: Object) -> tuple[Object, list[str]]:
        """As `CompiledVersion.prune`."""
        return self.compiled.prune(obj)

    def default(self, obj: Object) -> Object:
        """As `CompiledVersion.default`."""
        return self.compiled.default(obj)

    def validate(self, obj: Object, old: Object | None = None, *, status: bool = False) -> ErrorList:
        """As `CompiledVersion.validate`."""
        return self.compiled.validate(obj, old, status=status)
