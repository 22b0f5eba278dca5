"""What caches and queues read of an object, typed, dictionary or packed: its key and its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from pilothouse.client.packed import Packed

__all__ = [
    "DeletedFinalStateUnknown",
    "ObjectKeyError",
    "annotations_of",
    "key_of",
    "labels_of",
    "namespace_of",
    "resource_version_of",
    "split_key",
    "uid_of",
]

T = TypeVar("T")

_NOTHING: Final[Mapping[str, str]] = {}


class ObjectKeyError(ValueError):
    """An object has no name, so nothing can find it again."""


@dataclass(frozen=True, slots=True)
class DeletedFinalStateUnknown(Generic[T]):
    """A tombstone: the object is gone, but the event that said so was missed.

    key: of the object. object: its last known state, which may be stale; None where there is none.
    """

    key: str
    object: T | None


def key_of(obj: Any) -> str:
    """Return "namespace/name", or the name alone for an object of the whole cluster; of tombstones too.

    Raises ObjectKeyError for what has no metadata or no name.
    """
    if type(obj) is Packed and obj.metadata.name:
        return obj.key
    try:
        if type(obj) is dict:
            metadata = obj["metadata"]
            name, namespace = metadata["name"], metadata.get("namespace")
        elif type(obj) is DeletedFinalStateUnknown:
            return obj.key
        else:
            name, namespace = obj.metadata.name, obj.metadata.namespace
    except (AttributeError, KeyError, TypeError) as error:
        raise ObjectKeyError(f"{type(obj).__name__}: no metadata.name ({error!r}); it cannot be cached") from None
    if not name:
        raise ObjectKeyError(f"{type(obj).__name__}: metadata.name is empty; it cannot be cached")
    return f"{namespace}/{name}" if namespace else name


def split_key(key: str) -> tuple[str, str]:
    """Return namespace and name of a key; the namespace is empty for an object of the whole cluster."""
    namespace, _, name = key.rpartition("/")
    return namespace, name


def resource_version_of(obj: Any) -> str:
    """Return the resource version, empty where there is none."""
    if type(obj) is dict:
        return obj["metadata"].get("resourceVersion") or ""
    return obj.metadata.resource_version or ""


def namespace_of(obj: Any) -> str:
    """Return the namespace, empty where there is none."""
    return (obj["metadata"].get("namespace") if type(obj) is dict else obj.metadata.namespace) or ""


def uid_of(obj: Any) -> str:
    """Return the UID, empty where there is none."""
    return (obj["metadata"].get("uid") if type(obj) is dict else obj.metadata.uid) or ""


def labels_of(obj: Any) -> Mapping[str, str]:
    """Return the labels, which may be none."""
    return (obj["metadata"].get("labels") if type(obj) is dict else obj.metadata.labels) or _NOTHING


def annotations_of(obj: Any) -> Mapping[str, str]:
    """Return the annotations, which may be none."""
    return (obj["metadata"].get("annotations") if type(obj) is dict else obj.metadata.annotations) or _NOTHING
