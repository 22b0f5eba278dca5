"""Validation of the volumes of a pod."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.quantity import ZERO, parse
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.checks import Object, items

__all__ = ["host_path", "nfs", "pod_volumes"]

_MODE_MESSAGE = "must be a number between 0 and 0777 (octal), both inclusive"
_HOST_PATH_TYPES = (
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
)
_DOWNWARD_FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
_PULL_POLICIES = ("Always", "IfNotPresent", "Never")


def pod_volumes(errors: ErrorList, at: Path, volumes: Sequence[Object]) -> frozenset[str]:
    """Check the volumes of a pod and return the names of the good ones."""
    found: set[str] = set()
    for position, volume in enumerate(volumes):
        place = at.index(position)
        before = len(errors)
        _source(errors, place, volume)
        name = volume.get("name")
        if not name:
            errors.required(place.child("name"))
        else:
            checks.name(errors, place.child("name"), name, names.dns1123_label)
        if name in found:
            errors.duplicate(place.child("name"), name)
        if len(errors) == before and name:
            found.add(name)
    return frozenset(found)


def _source(errors: ErrorList, at: Path, volume: Object) -> None:
    first = True
    for field, source in volume.items():
        if field == "name" or source is None:
            continue
        if not first:
            errors.forbidden(at.child(field), "may not specify more than 1 volume type")
            continue
        first = False
        check = _CHECKS.get(field)
        if check is not None:
            check(errors, at.child(field), source)
    if first:
        errors.required(at, "must specify a volume type")


def _empty_dir(errors: ErrorList, at: Path, source: Object) -> None:
    limit = source.get("sizeLimit")
    if limit is not None and parse(str(limit)) < ZERO:
        errors.forbidden(at.child("sizeLimit"), "SizeLimit field must be a valid resource quantity")


def host_path(errors: ErrorList, at: Path, source: Object) -> None:
    """Check a path of the host."""
    if not checks.required(errors, at, source, "path"):
        return
    checks.no_backsteps(errors, at.child("path"), source["path"])
    kind = source.get("type") or ""
    if kind not in _HOST_PATH_TYPES:
        errors.not_supported(at.child("type"), kind, _HOST_PATH_TYPES)


def _mode(errors: ErrorList, at: Path, source: Object, field: str) -> None:
    mode = source.get(field)
    if mode is not None and not 0 <= mode <= 0o777:
        errors.invalid(at.child(field), mode, _MODE_MESSAGE)


def _keys(errors: ErrorList, at: Path, source: Object) -> None:
    for position, item in enumerate(items(source, "items")):
        place = at.child("items").index(position)
        checks.required(errors, place, item, "key")
        checks.required(errors, place, item, "path")
        _local_path(errors, place.child("path"), item.get("path") or "")
        _mode(errors, place, item, "mode")


def _local_path(errors: ErrorList, at: Path, path: str) -> None:
    if path.startswith("/"):
        errors.invalid(at, path, "must be a relative path")
    checks.no_backsteps(errors, at, path)
    if path.startswith("..") and not path.startswith("../"):
        errors.invalid(at, path, "must not start with '..'")


def _secret(errors: ErrorList, at: Path, source: Object) -> None:
    checks.required(errors, at, source, "secretName")
    _mode(errors, at, source, "defaultMode")
    _keys(errors, at, source)


def _config_map(errors: ErrorList, at: Path, source: Object) -> None:
    checks.required(errors, at, source, "name")
    _mode(errors, at, source, "defaultMode")
    _keys(errors, at, source)


def _claim(errors: ErrorList, at: Path, source: Object) -> None:
    checks.required(errors, at, source, "claimName")


def nfs(errors: ErrorList, at: Path, source: Object) -> None:
    """Check an export of a file server."""
    checks.required(errors, at, source, "server")
    path = source.get("path") or ""
    if not path:
        errors.required(at.child("path"))
    elif not path.startswith("/"):
        errors.invalid(at.child("path"), path, "must be an absolute path")


def _downward(errors: ErrorList, at: Path, source: Object) -> None:
    _mode(errors, at, source, "defaultMode")
    _downward_files(errors, at, source)


def _downward_files(errors: ErrorList, at: Path, source: Object) -> None:
    for position, file in enumerate(items(source, "items")):
        place = at.child("items").index(position)
        if checks.required(errors, place, file, "path"):
            _local_path(errors, place.child("path"), file["path"])
        field, resource = file.get("fieldRef"), file.get("resourceFieldRef")
        if field is not None:
            _downward_field(errors, place.child("fieldRef"), field)
            if resource is not None:
                text = "fieldRef and resourceFieldRef can not be specified simultaneously"
                errors.invalid(place, "resource", text)
        elif resource is None:
            errors.required(place, "one of fieldRef and resourceFieldRef is required")
        _mode(errors, place, file, "mode")


def _downward_field(errors: ErrorList, at: Path, field: Object) -> None:
    if not checks.required(errors, at, field, "fieldPath"):
        return
    path = field["fieldPath"]
    base, bracket, _ = path.partition("[")
    if bracket and base in {"metadata.annotations", "metadata.labels"}:
        return
    if path not in _DOWNWARD_FIELDS:
        errors.not_supported(at.child("fieldPath"), path, _DOWNWARD_FIELDS)


def _projected(errors: ErrorList, at: Path, source: Object) -> None:
    _mode(errors, at, source, "defaultMode")
    for position, projection in enumerate(items(source, "sources")):
        place = at.child("sources").index(position)
        given = [field for field, value in projection.items() if value is not None]
        for extra in given[1:]:
            errors.forbidden(place.child(extra), "may not specify more than 1 volume type")
        if not given:
            errors.required(place, "must specify a volume source type")
            continue
        check = _PROJECTIONS.get(given[0])
        if check is not None:
            check(errors, place.child(given[0]), projection[given[0]])


def _named_projection(errors: ErrorList, at: Path, source: Object) -> None:
    checks.required(errors, at, source, "name")
    _keys(errors, at, source)


def _token(errors: ErrorList, at: Path, source: Object) -> None:
    checks.token_lifetime(errors, at.child("expirationSeconds"), source.get("expirationSeconds"))
    checks.required(errors, at, source, "path")


def _csi(errors: ErrorList, at: Path, source: Object) -> None:
    checks.required(errors, at, source, "driver")


def _ephemeral(errors: ErrorList, at: Path, source: Object) -> None:
    if source.get("volumeClaimTemplate") is None:
        errors.required(at.child("volumeClaimTemplate"))


def _image(errors: ErrorList, at: Path, source: Object) -> None:
    checks.required(errors, at, source, "reference")
    checks.one_of(errors, at, source, "pullPolicy", _PULL_POLICIES)


_Check = Callable[[ErrorList, Path, Object], None]
_PROJECTIONS: dict[str, _Check] = {
    "configMap": _named_projection,
    "downwardAPI": _downward_files,
    "secret": _named_projection,
    "serviceAccountToken": _token,
}
_CHECKS: dict[str, _Check] = {
    "configMap": _config_map,
    "csi": _csi,
    "downwardAPI": _downward,
    "emptyDir": _empty_dir,
    "ephemeral": _ephemeral,
    "hostPath": host_path,
    "image": _image,
    "nfs": nfs,
    "persistentVolumeClaim": _claim,
    "projected": _projected,
    "secret": _secret,
}
