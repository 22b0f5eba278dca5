"""Validation of definitions beyond what `kinds` checks: schemas, defaults, rules, columns, paths, conversion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pilothouse.apiserver.crds.defaultchecks import check_defaults
from pilothouse.apiserver.crds.fieldpaths import FieldPathError, resolve
from pilothouse.apiserver.crds.schemachecks import check_schema
from pilothouse.apiserver.crds.structural import Node, read
from pilothouse.apiserver.crds.structurality import check_structural
from pilothouse.apiserver.crds.webhookchecks import check_conversion
from pilothouse.kinds.fielderrors import ErrorList, Path

__all__ = ["complete_definition"]

Raw = Mapping[str, Any]
_SPEC = Path("spec")
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("binary", "bool", "byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_MAX_SELECTABLE = 8
_STATUS_ROOT = frozenset(
    {
        *("description", "type", "format", "title", "maximum", "exclusiveMaximum", "minimum", "exclusiveMinimum"),
        *("maxLength", "minLength", "pattern", "maxItems", "minItems", "uniqueItems", "multipleOf", "required"),
        *("items", "properties", "externalDocs", "example", "x-kubernetes-preserve-unknown-fields"),
        "x-kubernetes-validations",
    }
)
_STATUS_ROOT_SHOWN = (
    "[Description Type Format Title Maximum ExclusiveMaximum Minimum ExclusiveMinimum MaxLength MinLength Pattern"
    " MaxItems MinItems UniqueItems MultipleOf Required Items Properties ExternalDocs Example XPreserveUnknownFields"
    " XValidations]"
)


def complete_definition(errors: ErrorList, crd: Raw, old: Raw | None = None) -> ErrorList:
    """Add to the errors that `kinds.validation` found those that only compiled schemas tell; return the list.

    old: the definition that this one replaces; costs of schemas that did not change are not held against it. What is
    said already is not said again.
    """
    found = ErrorList()
    spec = crd.get("spec") or {}
    _versions(found, spec, old)
    check_conversion(found, spec.get("conversion") or {}, _SPEC.child("conversion"))
    if not spec.get("preserveUnknownFields"):
        pass
    elif old is None or not (old.get("spec") or {}).get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        found.invalid(_SPEC.child("preserveUnknownFields"), True, text)
    if old is not None:
        _stored_versions(found, crd)
    known = set(map(str, errors))
    errors.extend(error for error in found if str(error) not in known)
    return errors


def _versions(errors: ErrorList, spec: Raw, old: Raw | None) -> None:
    versions: Sequence[Raw] = spec.get("versions") or ()
    # What all versions share is kept, and reported, at the top.
    shared = {
        name: bool(versions) and all(each.get(name) and each[name] == versions[0][name] for each in versions)
        for name in ("schema", "subresources", "additionalPrinterColumns", "selectableFields")
    }
    before = {each.get("name"): each for each in ((old or {}).get("spec") or {}).get("versions") or ()}
    for position, version in enumerate(versions):
        own = _SPEC.child("versions").index(position)
        _deprecation(errors, version, own)
        unchanged = version.get("name") in before and before[version["name"]].get("schema") == version.get("schema")

        def place(name: str, top: str = "", own: Path = own) -> Path:
            return _SPEC.child(top or name) if shared[name] else own.child(name)

        first = position == 0
        node: Node | None = None
        if first or not shared["schema"]:
            node = _schema(errors, version, place("schema", "validation"), unchanged=unchanged)
        if first or not shared["subresources"]:
            _subresources(errors, version.get("subresources") or {}, place("subresources"))
        if first or not shared["additionalPrinterColumns"]:
            _columns(errors, version.get("additionalPrinterColumns") or (), place("additionalPrinterColumns"))
        if version.get("selectableFields") and (first or not shared["selectableFields"]):
            node = node or _readable(version)
            _selectable(errors, version["selectableFields"], node, place("selectableFields"))


def _readable(version: Raw) -> Node | None:
    try:
        return read((version.get("schema") or {}).get("openAPIV3Schema"))
    except ValueError:
        return None


def _schema(errors: ErrorList, version: Raw, at: Path, *, unchanged: bool) -> Node | None:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if schema is None:
        return None
    place = at.child("openAPIV3Schema")
    try:
        node = read(schema)
    except ValueError as error:
        errors.invalid(place, "", str(error))
        return None
    if (version.get("subresources") or {}).get("status") is not None:
        _status_root(errors, node.raw, at)
    if node.nullable:
        errors.forbidden(place.child("nullable"), "nullable cannot be true at the root")
    structural = check_structural(node.raw, place)
    if not structural:
        structural = check_defaults(node, place)
    errors.extend(structural)
    check_schema(errors, node, place, with_rules=not structural, unchanged=unchanged)
    return node


def _status_root(errors: ErrorList, schema: Raw, at: Path) -> None:
    for name, value in schema.items():
        if name == "type" and value != "object":
            text = 'only "object" is allowed as the type at the root of the schema if the status subresource is enabled'
            errors.invalid(at.child("openAPIV3Schema.type"), value, text)
            return
        if value and name not in _STATUS_ROOT:
            text = f"only {_STATUS_ROOT_SHOWN} fields are allowed at the root of the schema if the status subresource"
            errors.invalid(at.child("openAPIV3Schema"), dict(schema), f"{text} is enabled")
            return


def _deprecation(errors: ErrorList, version: Raw, at: Path) -> None:
    warning, place = version.get("deprecationWarning"), at.child("deprecationWarning")
    if warning is None:
        return
    if not version.get("deprecated"):
        errors.invalid(place, warning, "can only be set for deprecated versions")
        return
    if len(warning.encode()) > 256:
        errors.invalid(place, warning, "must be <= 256 characters long")
    if not warning:
        errors.invalid(place, warning, "must not be an empty string")
    for index, char in enumerate(warning):
        if not char.isprintable():
            text = "must only contain printable UTF-8 characters; non-printable character found at index"
            errors.invalid(place, warning, f"{text} {len(warning[:index].encode())}")
            break


def _subresources(errors: ErrorList, subresources: Raw, at: Path) -> None:
    scale = subresources.get("scale")
    if scale is None:
        return
    for name, part in (("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")):
        value, place = scale.get(name) or "", at.child(f"scale.{name}")
        if not value:
            errors.required(place)
        elif value[0] != ".":
            errors.invalid(place, value, "must be a simple json path starting with .")
        elif not value.startswith(part):
            errors.invalid(place, value, f"should be a json path under {part[:-1]}")
    selector, place = scale.get("labelSelectorPath") or "", at.child("scale.labelSelectorPath")
    if selector and selector[0] != ".":
        errors.invalid(place, selector, "must be a simple json path starting with .")
    elif selector and not selector.startswith((".spec.", ".status.")):
        errors.invalid(place, selector, "should be a json path under either .spec or .status")


def _columns(errors: ErrorList, columns: Sequence[Raw], at: Path) -> None:
    for position, column in enumerate(columns):
        place = at.index(position)
        kinds = f"must be one of {','.join(_COLUMN_TYPES)}"
        if not column.get("name"):
            errors.required(place.child("name"))
        if not column.get("type"):
            errors.required(place.child("type"), kinds)
        elif column["type"] not in _COLUMN_TYPES:
            errors.invalid(place.child("type"), column["type"], kinds)
        form = column.get("format")
        if form and form not in _COLUMN_FORMATS:
            errors.invalid(place.child("format"), form, f"must be one of {','.join(_COLUMN_FORMATS)}")
        path = column.get("jsonPath") or ""
        if not path:
            errors.required(place.child("JSONPath"))
        elif path[0] != ".":
            errors.invalid(place.child("JSONPath"), path, "must be a simple json path starting with .")


def _selectable(errors: ErrorList, fields: Sequence[Raw], node: Node | None, at: Path) -> None:
    seen: set[str] = set()
    for position, field in enumerate(fields):
        place, path = at.index(position).child("jsonPath"), field.get("jsonPath") or ""
        if not path:
            errors.required(place)
            continue
        if node is None:
            continue
        try:
            shown, found = resolve(path, node, brackets=False)
        except FieldPathError as error:
            errors.invalid(place, path, f"is an invalid path: {error}")
            continue
        if shown.partition(".")[0] == "metadata":
            errors.invalid(place, path, "must not point to fields in metadata")
        if found.type not in {"string", "boolean", "integer"}:
            text = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats"
            )
            errors.invalid(place, path, f"{text} are allowed.")
        if shown in seen:
            errors.duplicate(place, path)
        seen.add(shown)
    if len(seen) > _MAX_SELECTABLE:
        errors.too_many(at, len(seen), _MAX_SELECTABLE)


def _stored_versions(errors: ErrorList, crd: Raw) -> None:
    at, status = Path("status.storedVersions"), crd.get("status") or {}
    stored = list(status.get("storedVersions") or ())
    if not stored:
        errors.invalid(at, stored, "must have at least one stored version")
        return
    versions = (crd.get("spec") or {}).get("versions") or ()
    for version in versions:
        if version.get("storage") and version.get("name") not in stored:
            errors.invalid(at, stored, f"must have the storage version {version.get('name')}")
    names = {version.get("name") for version in versions}
    for position, name in enumerate(stored):
        if name not in names:
            text = (
                f"missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions"
                f" until a storage migration ensures no data remains persisted in {name} and removes {name} from"
                " status.storedVersions"
            )
            errors.invalid(at.index(position), name, text)
