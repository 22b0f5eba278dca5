"""The rows of volumes, claims and storage classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pilothouse.apiserver.tables.cells import NONE, UNSET, Object, Printer, age, quantity
from pilothouse.kinds.ages import Ages

__all__ = ["PRINTERS"]

_EMPTY: Final[Mapping[str, Any]] = {}
_CLASS: Final = "volume.beta.kubernetes.io/storage-class"
_DEFAULT_CLASS: Final = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_DEFAULT_ATTRIBUTES: Final = ("volumeattributesclass.alpha.kubernetes.io/is-default-class",)
_MODES: Final = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}


def _parts(obj: Object) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    return obj["metadata"], obj.get("spec") or _EMPTY, obj.get("status") or _EMPTY


def _modes(modes: Sequence[str] | None) -> str:
    return ",".join(short for mode, short in _MODES.items() if mode in (modes or ()))


def _class(metadata: Object, spec: Object) -> str:
    annotations = metadata.get("annotations") or _EMPTY
    return str(annotations[_CLASS] if _CLASS in annotations else spec.get("storageClassName") or "")


def _or_unset(value: Any) -> Any:
    return UNSET if value is None else value


def _volume(obj: Object, ages: Ages) -> list[Any]:
    metadata, spec, status = _parts(obj)
    claim = spec.get("claimRef")
    return [
        metadata.get("name", ""),
        quantity((spec.get("capacity") or _EMPTY).get("storage")),
        _modes(spec.get("accessModes")),
        spec.get("persistentVolumeReclaimPolicy", ""),
        "Terminating" if metadata.get("deletionTimestamp") else status.get("phase", ""),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _class(metadata, spec),
        _or_unset(spec.get("volumeAttributesClassName")),
        status.get("reason", ""),
        age(obj, ages),
        _or_unset(spec.get("volumeMode")),
    ]


def _claim(obj: Object, ages: Ages) -> list[Any]:
    metadata, spec, status = _parts(obj)
    volume = spec.get("volumeName", "")
    return [
        metadata.get("name", ""),
        "Terminating" if metadata.get("deletionTimestamp") else status.get("phase", ""),
        volume,
        quantity((status.get("capacity") or _EMPTY).get("storage")) if volume else "",
        _modes(status.get("accessModes")) if volume else "",
        _class(metadata, spec),
        _or_unset(spec.get("volumeAttributesClassName")),
        age(obj, ages),
        _or_unset(spec.get("volumeMode")),
    ]


def _marked(metadata: Object, marks: Sequence[str]) -> str:
    """Return the name, with a word where an annotation makes it the default."""
    annotations = metadata.get("annotations") or _EMPTY
    name = metadata.get("name", "")
    return f"{name} (default)" if any(annotations.get(mark) == "true" for mark in marks) else str(name)


def _storage_class(obj: Object, ages: Ages) -> list[Any]:
    return [
        _marked(obj["metadata"], _DEFAULT_CLASS),
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy") or "Delete",
        obj.get("volumeBindingMode") or "Immediate",
        bool(obj.get("allowVolumeExpansion")),
        age(obj, ages),
    ]


def _attributes_class(obj: Object, ages: Ages) -> list[Any]:
    return [_marked(obj["metadata"], _DEFAULT_ATTRIBUTES), obj.get("driverName", ""), age(obj, ages)]


def _attachment(obj: Object, ages: Ages) -> list[Any]:
    metadata, spec, status = _parts(obj)
    volume = (spec.get("source") or _EMPTY).get("persistentVolumeName") or ""
    attached = bool(status.get("attached"))
    return [
        metadata.get("name", ""),
        spec.get("attacher", ""),
        volume,
        spec.get("nodeName", ""),
        attached,
        age(obj, ages),
    ]


def _driver(obj: Object, ages: Ages) -> list[Any]:
    metadata, spec, _ = _parts(obj)
    tokens = spec.get("tokenRequests")
    attach = spec.get("attachRequired")
    return [
        metadata.get("name", ""),
        attach is None or bool(attach),
        bool(spec.get("podInfoOnMount")),
        bool(spec.get("storageCapacity")),
        UNSET if tokens is None else ",".join(one.get("audience", "") for one in tokens),
        bool(spec.get("requiresRepublish")),
        ",".join(spec.get("volumeLifecycleModes") or ()) or NONE,
        age(obj, ages),
    ]


def _node(obj: Object, ages: Ages) -> list[Any]:
    metadata, spec, _ = _parts(obj)
    return [metadata.get("name", ""), len(spec.get("drivers") or ()), age(obj, ages)]


PRINTERS: Final[Mapping[tuple[str, str], Printer]] = {
    ("", "PersistentVolume"): _volume,
    ("", "PersistentVolumeClaim"): _claim,
    ("storage.k8s.io", "CSIDriver"): _driver,
    ("storage.k8s.io", "CSINode"): _node,
    ("storage.k8s.io", "StorageClass"): _storage_class,
    ("storage.k8s.io", "VolumeAttachment"): _attachment,
    ("storage.k8s.io", "VolumeAttributesClass"): _attributes_class,
}
