"""Objects without all but their metadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from pilothouse.kinds.status import NotAcceptable

__all__ = ["check_partial", "to_partial", "to_partial_list"]

_GROUP: Final = "meta.k8s.io"


def to_partial(obj: Mapping[str, Any], version: str = "v1") -> dict[str, Any]:
    """Return the metadata of an object as PartialObjectMetadata. What comes back shares the metadata."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": f"{_GROUP}/{version}",
        "metadata": obj.get("metadata", {}),
    }


def to_partial_list(
    objects: Iterable[Mapping[str, Any]], list_metadata: Mapping[str, Any], version: str = "v1"
) -> dict[str, Any]:
    """Return the metadata of all objects of a list as PartialObjectMetadataList; null where there are none."""
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": f"{_GROUP}/{version}",
        "metadata": dict(list_metadata),
        "items": [to_partial(obj, version) for obj in objects] or None,
    }


def check_partial(as_kind: str, *, is_list: bool, go_type: str = "") -> None:
    """Refuse one object asked for as a list, and a list as one object. Raises NotAcceptable.

    go_type: the name that kube-apiserver's message gives the object's type (`*core.PodList`).
    """
    if as_kind == "PartialObjectMetadata" and is_list:
        raise NotAcceptable(f"you requested PartialObjectMetadata, but the requested object is a list ({go_type})")
    if as_kind == "PartialObjectMetadataList" and not is_list:
        raise NotAcceptable(
            f"you requested PartialObjectMetadataList, but the requested object is not a list ({go_type})"
        )
