"""Patches: what is sent and as what, told by their types (RFC 6902, RFC 7386, Kubernetes' strategic merge)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec

from pilothouse.kinds.structs import Struct, encode

__all__ = ["APPLY", "JsonPatch", "MergePatch", "Patch", "StrategicPatch", "patch_body"]

APPLY: Final = "application/apply-patch+yaml"
"""The content type of server-side apply; JSON is YAML too."""


@dataclass(frozen=True, slots=True)
class JsonPatch:
    """Operations one after another, each with `op`, `path` and what that takes."""

    operations: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class MergePatch:
    """Fields to set, null for those to remove; lists are replaced as a whole."""

    fields: Mapping[str, Any] | Struct


@dataclass(frozen=True, slots=True)
class StrategicPatch:
    """Fields to set, lists merged by their keys; only for built-in kinds."""

    fields: Mapping[str, Any] | Struct


Patch: TypeAlias = JsonPatch | MergePatch | StrategicPatch | Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A mapping alone is a merge patch, a list alone a JSON patch."""


def patch_body(patch: Patch) -> tuple[bytes, str]:
    """Return the body and its content type. Raises TypeError for what is no patch."""
    if isinstance(patch, JsonPatch):
        return msgspec.json.encode(patch.operations), "application/json-patch+json"
    if isinstance(patch, MergePatch):
        return _fields(patch.fields), "application/merge-patch+json"
    if isinstance(patch, StrategicPatch):
        return _fields(patch.fields), "application/strategic-merge-patch+json"
    if isinstance(patch, Mapping):
        return msgspec.json.encode(patch), "application/merge-patch+json"
    if isinstance(patch, list | tuple):
        return msgspec.json.encode(patch), "application/json-patch+json"
    raise TypeError(
        f"patch: {type(patch).__name__} is no patch; pass a dict (merge), a list (JSON patch), or one of JsonPatch, "
        "MergePatch and StrategicPatch"
    )


def _fields(fields: Mapping[str, Any] | Struct) -> bytes:
    return encode(fields) if isinstance(fields, Struct) else msgspec.json.encode(fields)
