"""One version of a custom resource definition, compiled: all that requests for its objects need."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pilothouse.apiserver.crds import defaulting, pruning
from pilothouse.apiserver.crds.checking import check
from pilothouse.apiserver.crds.correlation import Correlated
from pilothouse.apiserver.crds.defined import deprecation_warning, version_of
from pilothouse.apiserver.crds.embedded import check_embedded, has_embedded
from pilothouse.apiserver.crds.listtypes import check_list_types, has_list_types
from pilothouse.apiserver.crds.quick import quick
from pilothouse.apiserver.crds.resource import columns_of, resource_of
from pilothouse.apiserver.crds.rules import RuleNode, compile_rules, has_rules
from pilothouse.apiserver.crds.running import run_rules
from pilothouse.apiserver.crds.scaling import ScalePaths
from pilothouse.apiserver.crds.structural import embedded_root, read
from pilothouse.apiserver.crds.typed import schema_of
from pilothouse.apiserver.crds.warnings import finalizer_warnings
from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, FieldError, Path
from pilothouse.kinds.prune import unknown_field
from pilothouse.kinds.registry import Column, Resource
from pilothouse.kinds.schema import Schema
from pilothouse.kinds.validation.metadata import metadata_create, metadata_update

__all__ = ["CompiledVersion"]

_BLOCKING = frozenset(
    {
        "FieldValueNotSupported",
        "FieldValueRequired",
        "FieldValueTooLong",
        "FieldValueTooMany",
        "FieldValueTypeInvalid",
    }
)
"""What keeps rules from being run at all."""
_NOT_CHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete"
    " validation"
)


class CompiledVersion:
    """What one version of a definition says. Immutable; keep it by uid and generation of the definition.

    Raises LookupError for a version that the definition does not have, ValueError for a schema that cannot be read.
    """

    def __init__(self, crd: dict[str, Any], version: str) -> None:
        spec, found = crd["spec"], version_of(crd, version)
        self.group: str = spec["group"]
        self.version = version
        self.kind: str = spec["names"]["kind"]
        self.namespaced: bool = spec["scope"] == "Namespaced"
        self.node = read((found.get("schema") or {}).get("openAPIV3Schema"))
        # Until all definitions had schemas, this kept whatever came.
        self.node.preserve = self.node.preserve or bool(spec.get("preserveUnknownFields"))
        self.root = embedded_root(self.node)
        subresources = found.get("subresources") or {}
        self.has_status: bool = subresources.get("status") is not None
        self.scale: ScalePaths | None = ScalePaths(subresources["scale"]) if subresources.get("scale") else None
        self.selectable_fields: tuple[str, ...] = tuple(
            each["jsonPath"] for each in found.get("selectableFields") or ()
        )
        self.deprecated: bool = bool(found.get("deprecated"))
        self.deprecation_warning: str = deprecation_warning(crd, found)
        self.columns: tuple[Column, ...] = columns_of(found)
        self.resource: Resource = resource_of(crd, found, self.columns)
        self._defaults = defaulting.has_defaults(self.node)
        self._embedded = has_embedded(self.node)
        self._lists = has_list_types(self.node)
        self._rules = has_rules(self.node)

    @cached_property
    def schema(self) -> Schema:
        """The schema for server-side apply."""
        return schema_of(self.node)

    @cached_property
    def _quick(self) -> Any:
        return quick(self.node)

    @cached_property
    def rules(self) -> RuleNode | None:
        """The compiled rules; None where there are none. Compiled when first needed."""
        return compile_rules(self.node)

    def prune(self, obj: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Leave out unknown fields, in place, and bring metadata into form; return it and the messages for what was.

        Raises DecodeError for metadata that cannot be decoded.
        """
        unknown = pruning.coerce(self.root, obj)
        unknown += pruning.prune(self.root, obj)
        return obj, [unknown_field(path) for path in unknown]

    def default(self, obj: dict[str, Any]) -> dict[str, Any]:
        """Drop nulls that may not be and fill in defaults, in place; return the object."""
        defaulting.drop_nulls(self.node, obj)
        if self._defaults:
            defaulting.default(self.node, obj)
        return obj

    def validate(self, obj: dict[str, Any], old: dict[str, Any] | None = None, *, status: bool = False) -> ErrorList:
        """Return all that is wrong with an object, metadata included; old: what it replaces.

        status: a write to the status subresource, of which only the status is looked at. What did not change passes.
        """
        return self.validate_with_warnings(obj, old, status=status)[0]

    def validate_with_warnings(
        self, obj: dict[str, Any], old: dict[str, Any] | None = None, *, status: bool = False
    ) -> tuple[ErrorList, list[str]]:
        """As `validate`, and warnings: for rules that refuse what did not change, and for names of finalizers."""
        errors = self._metadata(obj, old)
        self._type_meta(obj, errors)
        if errors and any(error.field in {"kind", "apiVersion"} for error in errors):
            return errors, []
        passed = self._quick(obj)
        if passed:
            pass
        elif status:
            self._status_schema(obj, old, errors)
        else:
            correlated = None if old is None else Correlated(obj, old)
            errors.extend(check(self.node, obj, "", correlated).errors)
        if self.scale is not None:
            self.scale.check(obj, errors, spec=not status)
        if self._embedded:
            check_embedded(self.node, obj, Path(), errors)
        if self._lists and not passed:
            self._list_types(obj, old, errors)
        warnings = finalizer_warnings(obj, old)
        if self._rules:
            warnings += self._run_rules(obj, old, errors)
        return errors, warnings

    def _metadata(self, obj: dict[str, Any], old: dict[str, Any] | None) -> ErrorList:
        errors = ErrorList()
        if old is None:
            metadata_create(errors, obj, names.dns1123_subdomain, generic=True)
        else:
            metadata_update(errors, obj, old)
            # Kubernetes checks metadata before and within the rules of the kind, and lists what is wrong each time.
            errors.extend(list(errors))
        return errors

    def _type_meta(self, obj: dict[str, Any], errors: ErrorList) -> None:
        for name, wanted in (("kind", self.kind), ("apiVersion", f"{self.group}/{self.version}")):
            if obj.get(name) != wanted:
                errors.invalid(Path(name), obj.get(name) or "", f"must be {wanted}")

    def _status_schema(self, obj: dict[str, Any], old: dict[str, Any] | None, errors: ErrorList) -> None:
        node = self.node.properties.get("status")
        if node is None or "status" not in obj:
            return
        before = (old or {}).get("status")
        correlated = None if before is None else Correlated(obj["status"], before)
        for error in check(node, obj["status"], "", correlated).errors:
            # The status is checked on its own, so that paths in texts begin inside it.
            field = "status" if error.field == "<nil>" else f"status.{error.field}"
            errors.append(FieldError(error.reason, field, error.value, error.detail))

    def _list_types(self, obj: dict[str, Any], old: dict[str, Any] | None, errors: ErrorList) -> None:
        if old is not None:
            before = ErrorList()
            check_list_types(self.node, old, Path(), before)
            if before:
                return
        check_list_types(self.node, obj, Path(), errors)

    def _run_rules(self, obj: dict[str, Any], old: dict[str, Any] | None, errors: ErrorList) -> list[str]:
        if any(error.reason in _BLOCKING for error in errors):
            errors.invalid(Path(), None, _NOT_CHECKED)
            return []
        if self.rules is None:
            return []
        found, warnings = run_rules(self.rules, obj, old)
        errors.extend(found)
        return warnings
