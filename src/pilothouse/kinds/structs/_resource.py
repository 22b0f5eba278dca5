"""The base of whole objects: `apiVersion`, `kind` and `metadata`, and what the class itself knows of its resource."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

import msgspec

from ._codec import decode, encode
from ._struct import Struct, StructType, field
from .meta import ListMeta, ObjectMeta

__all__ = ["ObjectList", "Resource", "ResourceType", "types_made"]

types_made: Final[dict[tuple[str, str, str], type[Resource]]] = {}
"""The classes by group, version and kind; the one made last where there are several."""


def _always(value: str) -> Any:
    """Give a field that is written even where it holds its default."""
    return field(default_factory=lambda: value)


class ResourceType(StructType):
    """Makes classes of whole objects: fills in `apiVersion` and `kind`, and remembers the class for `type_for`.

    group, version: of the resource, the core group the empty string. kind: the class's name where none is given.
    plural: as in paths, empty where objects of this kind are only sent to subresources. partial: the class reads only a
    part of the kind, so it is not what `type_for` gives.
    """

    def __new__(  # noqa: PLR0913  the words of a class statement
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        group: str | None = None,
        version: str = "",
        kind: str = "",
        plural: str = "",
        namespaced: bool = True,
        partial: bool = False,
        **options: Any,
    ) -> StructType:
        if group is None:
            return super().__new__(mcls, name, bases, namespace, **options)
        if not version:
            raise TypeError(f"{name}: no version; write class {name}(Resource, group=..., version=..., plural=...)")
        kind = kind or name
        filled = {
            "__module__": namespace["__module__"],
            "__annotations__": {"api_version": str, "kind": str},
            "api_version": _always(f"{group}/{version}" if group else version),
            "kind": _always(kind),
        }
        base = super().__new__(mcls, f"{name}Base", bases, filled)
        gvk = group, version, kind
        facts = {"group": group, "version": version, "plural": plural, "namespaced": namespaced, "gvk": gvk}
        made = super().__new__(mcls, name, (base,), {**namespace, **facts}, **options)
        if not partial:
            types_made[gvk] = made  # type: ignore[assignment]
        return made


class Resource(Struct, metaclass=ResourceType):
    """A whole object. Subclass it for a custom resource; its parts are structs.

    `class Widget(Resource, group="example.com", version="v1", plural="widgets")` has the kind Widget; `kind=` names
    another, and `namespaced=False` is for what is of the whole cluster. The class has these as attributes.
    """

    group: ClassVar[str] = ""
    version: ClassVar[str] = ""
    plural: ClassVar[str] = ""
    namespaced: ClassVar[bool] = True
    gvk: ClassVar[tuple[str, str, str]] = ("", "", "")

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()


R = TypeVar("R", bound=Resource)


class ObjectList(Struct, Generic[R]):
    """A list of whole objects of one kind, as a server answers it: `decode(data, ObjectList[Pod])`."""

    api_version: str = ""
    kind: str = ""
    metadata: ListMeta = ListMeta()
    items: Sequence[R] = ()

    @classmethod
    def of(cls, kind: type[R], items: Iterable[R], metadata: ListMeta = ListMeta()) -> Self:  # noqa: B008  never changes
        """Make the list of these objects of the type `kind`."""
        group, version, name = kind.gvk
        api_version = f"{group}/{version}" if group else version
        return cls(api_version=api_version, kind=f"{name}List", metadata=metadata, items=list(items))

    def __reduce__(self) -> tuple[Any, ...]:
        items = None if self.items == () else list(self.items)
        return _restored, (encode(msgspec.structs.replace(self, items=())), items)


def _restored(data: bytes, items: list[Any] | None) -> ObjectList[Any]:
    """Give a list back that was pickled; only the items know of what kind they are."""
    found = decode(data, ObjectList[Any])
    return found if items is None else msgspec.structs.replace(found, items=items)
