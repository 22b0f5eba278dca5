"""Validation of persistent volume claims."""

from __future__ import annotations

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path, Raw
from pilothouse.kinds.quantity import ZERO, parse
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.metadata import label_selector
from pilothouse.kinds.validation.podlayout import spec_difference

__all__ = ["claim", "claim_spec", "claim_update"]

_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_VOLUME_MODES = ("Block", "Filesystem")
_IMMUTABLE = (
    "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n"
)


def claim(errors: ErrorList, obj: Object) -> None:
    """Check a PersistentVolumeClaim, its metadata apart."""
    claim_spec(errors, SPEC, obj.get("spec") or {})


def claim_spec(errors: ErrorList, at: Path, spec: Object) -> None:
    """Check the spec of a claim or of a claim template."""
    modes = items(spec, "accessModes")
    if not modes:
        errors.required(at.child("accessModes"), "at least 1 access mode is required")
    label_selector(errors, at.child("selector"), spec.get("selector"))
    for mode in modes:
        if mode not in _ACCESS_MODES:
            errors.not_supported(at.child("accessModes"), mode, _ACCESS_MODES)
    if "ReadWriteOncePod" in modes and any(mode in _ACCESS_MODES[:3] for mode in modes):
        errors.forbidden(at.child("accessModes"), "may not use ReadWriteOncePod with other access modes")
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    place = at.child("resources").key("storage")
    if storage is None:
        errors.required(place)
    elif not parse(str(storage)) > ZERO:
        errors.invalid(place, str(parse(str(storage))), "must be greater than zero")
    if class_name := spec.get("storageClassName"):
        checks.name(errors, at.child("storageClassName"), class_name, names.dns1123_subdomain)
    mode = spec.get("volumeMode")
    if mode is not None and mode not in _VOLUME_MODES:
        errors.not_supported(at.child("volumeMode"), mode, _VOLUME_MODES)
    _data_sources(errors, at, spec)
    if class_name := spec.get("volumeAttributesClassName"):
        checks.name(errors, at.child("volumeAttributesClassName"), class_name, names.dns1123_subdomain)


def _data_sources(errors: ErrorList, at: Path, spec: Object) -> None:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    for field, found in (("dataSource", source), ("dataSourceRef", reference)):
        if found is not None:
            _data_source(errors, at.child(field), found)
    if source is None or reference is None:
        return
    shown = Raw(str(at.child("dataSource")))
    if reference.get("namespace"):
        errors.invalid(at, shown, "may not be specified when dataSourceRef.namespace is specified")
    elif any((source.get(field) or "") != (reference.get(field) or "") for field in ("apiGroup", "kind", "name")):
        errors.invalid(at, shown, "must match dataSourceRef")


def _data_source(errors: ErrorList, at: Path, source: Object) -> None:
    for field in ("name", "kind"):
        checks.required(errors, at, source, field)
    group, kind = source.get("apiGroup") or "", source.get("kind") or ""
    if not group and kind != "PersistentVolumeClaim":
        errors.invalid(at, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup")
    if group:
        checks.name(errors, at.child("apiGroup"), group, names.dns1123_subdomain)
    if namespace := source.get("namespace"):
        checks.name(errors, at.child("namespace"), namespace, names.dns1123_label)


def claim_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a claim that replaces another: its volume may be named once, a bound one may grow."""
    claim(errors, new)
    spec: Object = new.get("spec") or {}
    before: Object = old.get("spec") or {}
    wanted, previous = dict(spec), dict(before)
    if not before.get("volumeName") and spec.get("volumeName"):
        previous["volumeName"] = spec["volumeName"]
    if _gets_class(old, spec.get("storageClassName")):
        previous["storageClassName"] = spec["storageClassName"]
    if (new.get("status") or {}).get("phase") == "Bound":
        for field in ("resources", "volumeAttributesClassName"):
            wanted.pop(field, None)
            previous.pop(field, None)
    if wanted != previous:
        errors.forbidden(SPEC, _IMMUTABLE + spec_difference(previous, wanted, "PersistentVolumeClaimSpec"))
    sizes = [((part.get("resources") or {}).get("requests") or {}).get("storage") or "0" for part in (spec, before)]
    capacity = ((old.get("status") or {}).get("capacity") or {}).get("storage") or "0"
    after, former, given = (parse(str(size)) for size in (*sizes, capacity))
    if after < former and not given < after:
        place = SPEC.child("resources", "requests", "storage")
        errors.forbidden(place, "field can not be less than status.capacity")
    checks.immutable(errors, Path("volumeMode"), spec.get("volumeMode"), before.get("volumeMode"))


def _gets_class(old: Object, name: str | None) -> bool:
    """Whether a claim that named no storage class is given one, as when a default class is made later."""
    if name is None or (old.get("spec") or {}).get("storageClassName") is not None:
        return False
    told = (old["metadata"].get("annotations") or {}).get("volume.beta.kubernetes.io/storage-class")
    return told is None or told == name
