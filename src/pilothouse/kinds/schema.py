"""What a value may be: one node type for Kubernetes' own types and for those that custom resources define.

A node says its shape and how lists and maps merge. Pure data; what it is used for (pruning, defaulting, validation,
patches, apply) lives in modules of its own. Objects themselves are plain dictionaries as JSON decodes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ANY", "Schema", "Shape"]

Shape = Literal["object", "map", "list", "string", "integer", "number", "boolean", "any"]


@dataclass(frozen=True, slots=True, eq=False)
class Schema:
    """One node of a type.

    shape: `object` has named fields, `map` has keys of any name with equal values, `any` is opaque.
    name: the full name of a named type (`io.k8s.api.core.v1.Container`), empty for others.
    fields: of an object, by JSON name. A callable is resolved on first use, since types refer to each other.
    required: fields that must be there. element: of a list or map.
    list_type, list_keys: `atomic` (default), `set`, or `map` with its key fields (structured merge).
    map_type: `granular` (default) or `atomic`, for maps and objects.
    patch_strategy, patch_merge_key: of strategic merge patch (`merge`, `retainKeys`, `replace`).
    format: `int32`, `int64`, `byte`, `date-time`, `int-or-string`, `quantity`, ...
    preserve_unknown: unknown fields are kept (custom resources).
    """

    shape: Shape
    name: str = ""
    fields_or_thunk: Mapping[str, Schema] | Callable[[], Mapping[str, Schema]] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    element: Schema | None = None
    list_type: Literal["atomic", "set", "map"] = "atomic"
    list_keys: tuple[str, ...] = ()
    map_type: Literal["granular", "atomic"] = "granular"
    patch_strategy: tuple[str, ...] = ()
    patch_merge_key: str = ""
    format: str = ""
    enum: tuple[Any, ...] = ()
    default: Any = None
    has_default: bool = False
    nullable: bool = False
    preserve_unknown: bool = False

    @property
    def fields(self) -> Mapping[str, Schema]:
        """The fields of an object by JSON name."""
        found = self.fields_or_thunk
        if callable(found):
            found = found()
            object.__setattr__(self, "fields_or_thunk", found)
        return found


ANY = Schema("any", preserve_unknown=True)
"""A value of which nothing is known."""
