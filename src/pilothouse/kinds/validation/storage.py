"""Validation of volumes and of what drivers of storage say about themselves."""

from __future__ import annotations

import difflib
import json
import posixpath
from collections.abc import Sequence

from pilothouse.kinds import names
from pilothouse.kinds.fielderrors import ErrorList, Path, Struct
from pilothouse.kinds.quantity import ZERO, parse
from pilothouse.kinds.validation import checks
from pilothouse.kinds.validation.affinity import node_selector
from pilothouse.kinds.validation.checks import SPEC, Object, items
from pilothouse.kinds.validation.metadata import label_selector
from pilothouse.kinds.validation.volumes import host_path, nfs

__all__ = [
    "attachment",
    "attachment_update",
    "capacity",
    "capacity_update",
    "csi_driver",
    "csi_driver_update",
    "csi_node",
    "csi_node_update",
    "driver_name",
    "driver_parameters",
    "volume",
    "volume_attributes",
    "volume_attributes_update",
    "volume_update",
]

_ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
_RECLAIM = ("Delete", "Recycle", "Retain")
_VOLUME_MODES = ("Block", "Filesystem")
_GROUP_POLICIES = ("File", "None", "ReadWriteOnceWithFSType")
_LIFECYCLES = ("Ephemeral", "Persistent")
_SOURCES = (
    "hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte", "cephfs",
    "iscsi", "cinder", "fc", "flexVolume", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume",
    "azureDisk", "scaleIO", "local", "storageos", "csi",
)  # fmt: skip
_ONE_TYPE = "may not specify more than 1 volume type"
_ONE_SOURCE = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
_DRIVER_BYTES, _NODE_ID_BYTES, _ERROR_BYTES = 63, 256, 1024
_PARAMETERS, _PARAMETER_BYTES = 512, 256 * 1024


def driver_name(errors: ErrorList, at: Path, name: str) -> None:
    """Want the name of a driver."""
    if not name:
        errors.required(at)
    if len(name) > _DRIVER_BYTES:
        errors.too_long(at, _DRIVER_BYTES)
    for message in names.dns1123_subdomain(name.lower()):
        errors.invalid(at, name, message)


def volume(errors: ErrorList, obj: Object) -> None:
    """Check a PersistentVolume, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    modes = items(spec, "accessModes")
    if not modes:
        errors.required(SPEC.child("accessModes"))
    for mode in modes:
        if mode not in _ACCESS_MODES:
            errors.not_supported(SPEC.child("accessModes"), mode, _ACCESS_MODES)
    if "ReadWriteOncePod" in modes and any(mode in _ACCESS_MODES[:3] for mode in modes):
        errors.forbidden(SPEC.child("accessModes"), "may not use ReadWriteOncePod with other access modes")
    _volume_capacity(errors, spec.get("capacity") or {})
    policy = spec.get("persistentVolumeReclaimPolicy") or ""
    if policy and policy not in _RECLAIM:
        errors.not_supported(SPEC.child("persistentVolumeReclaimPolicy"), policy, _RECLAIM)
    if (affinity := spec.get("nodeAffinity")) is not None:
        _node_affinity(errors, SPEC.child("nodeAffinity"), affinity)
    _volume_sources(errors, spec)
    path = (spec.get("hostPath") or {}).get("path")
    if path and posixpath.normpath(path) == "/" and policy == "Recycle":
        text = "may not be 'recycle' for a hostPath mount of '/'"
        errors.forbidden(SPEC.child("persistentVolumeReclaimPolicy"), text)
    _volume_classes(errors, spec)


def _volume_capacity(errors: ErrorList, given: Object) -> None:
    at = SPEC.child("capacity")
    if not given:
        errors.required(at)
    if "storage" not in given or len(given) > 1:
        errors.not_supported(at, given or None, ("storage",))
    for key, value in given.items():
        size = parse(str(value))
        if size < ZERO:
            errors.invalid(at.key(key), size.value(), "must be a valid resource quantity")
        if not size > ZERO:
            errors.invalid(at.key(key), str(size), "must be greater than zero")


def _node_affinity(errors: ErrorList, at: Path, affinity: Object) -> None:
    required = affinity.get("required")
    if required is None:
        errors.required(at.child("required"), "must specify required node constraints")
    else:
        node_selector(errors, at.child("required"), required)


def _volume_sources(errors: ErrorList, spec: Object) -> None:
    given = [field for field in _SOURCES if spec.get(field) is not None]
    for field in given[1:]:
        errors.forbidden(SPEC.child(field), _ONE_TYPE)
    if not given:
        errors.required(SPEC, "must specify a volume type")
        return
    field, source = given[0], spec[given[0]]
    at = SPEC.child(field)
    if field == "hostPath":
        host_path(errors, at, source)
    elif field == "nfs":
        nfs(errors, at, source)
    elif field == "local":
        if checks.required(errors, at, source, "path"):
            checks.no_backsteps(errors, at.child("path"), source["path"])
        if spec.get("nodeAffinity") is None:
            errors.required(SPEC.child("nodeAffinity"), "Local volume requires node affinity")
    elif field == "csi":
        _csi(errors, at, source)


def _csi(errors: ErrorList, at: Path, source: Object) -> None:
    driver_name(errors, at.child("driver"), source.get("driver") or "")
    checks.required(errors, at, source, "volumeHandle")
    for field in (
        "controllerPublishSecretRef",
        "controllerExpandSecretRef",
        "nodePublishSecretRef",
        "nodeExpandSecretRef",
    ):
        if (reference := source.get(field)) is not None:
            for part in ("name", "namespace"):
                checks.required(errors, at.child(field), reference, part)


def _volume_classes(errors: ErrorList, spec: Object) -> None:
    if name := spec.get("storageClassName"):
        checks.name(errors, SPEC.child("storageClassName"), name, names.dns1123_subdomain)
    mode = spec.get("volumeMode")
    if mode is not None and mode not in _VOLUME_MODES:
        errors.not_supported(SPEC.child("volumeMode"), mode, _VOLUME_MODES)
    name, at = spec.get("volumeAttributesClassName"), SPEC.child("volumeAttributesClassName")
    if name is None:
        return
    if name:
        checks.name(errors, at, name, names.dns1123_subdomain)
    else:
        errors.required(at, "an empty string is disallowed")
    if spec.get("csi") is None:
        errors.required(SPEC.child("csi"), "has to be specified when using volumeAttributesClassName")


def volume_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a PersistentVolume that replaces another: what it is stays."""
    volume(errors, new)
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    source, former = (
        {field: part[field] for field in _SOURCES if part.get(field) is not None} for part in (spec, before)
    )
    csi = source.get("csi")
    if csi and former.get("csi") and "controllerExpandSecretRef" not in former["csi"]:
        source["csi"] = {key: value for key, value in csi.items() if key != "controllerExpandSecretRef"}
    if source != former:
        before_lines, lines = (json.dumps(each, indent=1, sort_keys=True).split("\n") for each in (former, source))
        found = list(difflib.unified_diff(before_lines, lines, lineterm=""))[2:]
        difference = "".join(f"{line}\n" for line in found)
        text = f"spec.persistentvolumesource is immutable after creation\n{difference}"
        errors.forbidden(SPEC.child("persistentvolumesource"), text)
    checks.immutable(errors, Path("volumeMode"), spec.get("volumeMode"), before.get("volumeMode"))
    if before.get("nodeAffinity") is not None:
        checks.immutable(errors, Path("nodeAffinity"), spec.get("nodeAffinity"), before["nodeAffinity"])
    field = "volumeAttributesClassName"
    if before.get(field) is not None and spec.get(field) is None:
        errors.forbidden(SPEC.child(field), "update from non-nil value to nil is forbidden")


def attachment(errors: ErrorList, obj: Object) -> None:
    """Check a VolumeAttachment, its metadata apart."""
    spec: Object = obj.get("spec") or {}
    if not spec.get("attacher"):
        errors.required(SPEC.child("attacher"))
    source, at = spec.get("source") or {}, SPEC.child("source")
    name, inline = source.get("persistentVolumeName"), source.get("inlineVolumeSpec")
    if name is None and inline is None:
        errors.required(at, _ONE_SOURCE)
    elif name is not None and inline is not None:
        errors.forbidden(at, _ONE_SOURCE)
    elif name == "":
        errors.required(at.child("persistentVolumeName"), "must specify non empty persistentVolumeName")
    checks.name(errors, SPEC.child("nodeName"), spec.get("nodeName") or "", names.dns1123_subdomain)
    for field in ("attachError", "detachError"):
        message = ((obj.get("status") or {}).get(field) or {}).get("message") or ""
        if len(message.encode()) > _ERROR_BYTES:
            errors.too_long(Path("status").child(field, "message"), _ERROR_BYTES)
    driver_name(errors, SPEC.child("attacher"), spec.get("attacher") or "")
    if name:
        checks.name(errors, at.child("persistentVolumeName"), name, names.dns1123_subdomain)


def attachment_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a VolumeAttachment that replaces another: its spec stays."""
    attachment(errors, new)
    spec: Object = new.get("spec") or {}
    source: Object = spec.get("source") or {}
    shown = Struct(
        Attacher=spec.get("attacher") or "",
        Source=Struct(
            PersistentVolumeName=source.get("persistentVolumeName"), InlineVolumeSpec=source.get("inlineVolumeSpec")
        ),
        NodeName=spec.get("nodeName") or "",
    )
    checks.immutable(errors, SPEC, spec, old.get("spec") or {}, shown)


def csi_driver(errors: ErrorList, obj: Object) -> None:
    """Check a CSIDriver, its metadata apart."""
    driver_name(errors, Path("name"), (obj.get("metadata") or {}).get("name") or "")
    spec: Object = obj.get("spec") or {}
    # Kubernetes misspells the first of them.
    for field, shown in (("attachRequired", "attachedRequired"), ("podInfoOnMount", ""), ("storageCapacity", "")):
        if spec.get(field) is None:
            errors.required(SPEC.child(shown or field))
    policy = spec.get("fsGroupPolicy")
    if policy is not None and policy not in _GROUP_POLICIES:
        errors.not_supported(SPEC.child("fsGroupPolicy"), policy, _GROUP_POLICIES)
    _tokens(errors, SPEC.child("tokenRequests"), items(spec, "tokenRequests"))
    for mode in items(spec, "volumeLifecycleModes"):
        if mode not in _LIFECYCLES:
            errors.not_supported(SPEC.child("volumeLifecycleModes"), mode, _LIFECYCLES)
    period = spec.get("nodeAllocatableUpdatePeriodSeconds")
    if period is not None and period < 10:
        text = "must be greater than or equal to 10 seconds"
        errors.invalid(SPEC.child("nodeAllocatableUpdatePeriodSeconds"), period, text)


def _tokens(errors: ErrorList, at: Path, requests: Sequence[Object]) -> None:
    seen: set[str] = set()
    for position, request in enumerate(requests):
        place, audience = at.index(position), request.get("audience") or ""
        if audience in seen:
            errors.duplicate(place.child("audience"), audience)
        seen.add(audience)
        checks.token_lifetime(errors, place.child("expirationSeconds"), request.get("expirationSeconds"))


def csi_driver_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a CSIDriver that replaces another: how it attaches and whose life its volumes share stays."""
    csi_driver(errors, new)
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    checks.immutable(errors, SPEC.child("attachedRequired"), spec.get("attachRequired"), before.get("attachRequired"))
    field = "volumeLifecycleModes"
    checks.immutable(errors, SPEC.child(field), spec.get(field), before.get(field))


def csi_node(errors: ErrorList, obj: Object) -> None:
    """Check a CSINode, its metadata apart."""
    seen: set[str] = set()
    for position, driver in enumerate(items(obj.get("spec") or {}, "drivers")):
        at, name = SPEC.child("drivers").index(position), driver.get("name") or ""
        driver_name(errors, at.child("name"), name)
        identity = driver.get("nodeID") or ""
        if not identity:
            errors.required(at.child("nodeID"))
        if len(identity.encode()) > _NODE_ID_BYTES:
            errors.invalid(at.child("nodeID"), identity, f"must be {_NODE_ID_BYTES} characters or less")
        count = (driver.get("allocatable") or {}).get("count")
        if count is not None and count < 0:
            errors.invalid(at.child("allocatable", "count"), count, "must be greater than or equal to 0")
        if name in seen:
            errors.duplicate(at.child("name"), name)
        seen.add(name)
        _topology(errors, at.child("topologyKeys"), items(driver, "topologyKeys"))


def _topology(errors: ErrorList, at: Path, keys: Sequence[str]) -> None:
    for position, key in enumerate(keys):
        if not key:
            errors.required(at)
        if key in keys[:position]:
            errors.duplicate(at, key)
        checks.name(errors, at, key, names.qualified_name)


def csi_node_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a CSINode that replaces another: a driver that stays keeps what it said, but for how much it can hold."""
    csi_node(errors, new)
    before = {driver.get("name"): driver for driver in items(old.get("spec") or {}, "drivers")}
    for driver in items(new.get("spec") or {}, "drivers"):
        former = before.get(driver.get("name"))
        if former is not None and {**driver, "allocatable": 0} != {**former, "allocatable": 0}:
            shown = Struct(
                Name=driver.get("name") or "",
                NodeID=driver.get("nodeID") or "",
                TopologyKeys=driver.get("topologyKeys"),
                Allocatable=driver.get("allocatable"),
            )
            errors.invalid(Path("CSINodeDriver"), shown, checks.IMMUTABLE)


def capacity(errors: ErrorList, obj: Object) -> None:
    """Check a CSIStorageCapacity, its metadata apart."""
    label_selector(errors, Path("nodeTopology"), obj.get("nodeTopology"))
    checks.name(errors, Path("storageClassName"), obj.get("storageClassName") or "", names.dns1123_subdomain)
    for field in ("capacity", "maximumVolumeSize"):
        value = obj.get(field)
        if value is not None and parse(str(value)) < ZERO:
            errors.invalid(Path(field), str(parse(str(value))), "must be greater than or equal to 0")


def capacity_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a CSIStorageCapacity that replaces another: where and what for it is stays."""
    capacity(errors, new)
    for field in ("nodeTopology", "storageClassName"):
        checks.immutable(errors, Path(field), new.get(field), old.get(field))


def volume_attributes(errors: ErrorList, obj: Object) -> None:
    """Check a VolumeAttributesClass, its metadata apart."""
    driver, parameters = obj.get("driverName") or "", obj.get("parameters") or {}
    if driver:
        checks.name(errors, Path("driverName"), driver.lower(), names.qualified_name)
    else:
        errors.required(Path("driverName"))
    driver_parameters(errors, Path("parameters"), parameters)
    if not parameters:
        errors.required(Path("parameters"), "must contain at least one key/value pair")


def driver_parameters(errors: ErrorList, at: Path, parameters: Object) -> None:
    """Want at most 512 parameters of a driver, of 256 KiB at most."""
    if len(parameters) > _PARAMETERS:
        errors.too_long(at, _PARAMETERS)
        return
    if "" in parameters:
        errors.invalid(at, "", "field can not be empty.")
    if sum(len(key.encode()) + len((value or "").encode()) for key, value in parameters.items()) > _PARAMETER_BYTES:
        errors.too_long(at, _PARAMETER_BYTES)


def volume_attributes_update(errors: ErrorList, new: Object, old: Object) -> None:
    """Check a VolumeAttributesClass that replaces another: it says the same."""
    for field in ("driverName", "parameters"):
        if (new.get(field) or None) != (old.get(field) or None):
            errors.forbidden(Path(field), f"updates to {field} are forbidden.")
