"""The base of all typed structs: immutable, keyword-only, camelCase in JSON, losing no field that it does not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Self, dataclass_transform

import msgspec
from msgspec import field

from ._absent import CARRIED_KEY, NOTHING, Carried, absent
from ._codec import decode, encode

__all__ = ["Concealed", "Struct", "StructType", "field"]

_OPTIONS: Final = ("kw_only", "frozen", "omit_defaults", "repr_omit_defaults", "forbid_unknown_fields")
_Field: Final = type(field())


class StructType(msgspec.StructMeta):
    """Makes classes of structs: sets the options, and the defaults that stand for absence."""

    def __new__(mcls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> StructType:
        made = {key: value if key.startswith("__") else _default(value) for key, value in namespace.items()}
        # What never changes is in no cycle but by a list or dictionary given to it; the collector, which would go over
        # each struct of a cache again and again, need not know of them.
        chosen: dict[str, Any] = {**dict.fromkeys(_OPTIONS, True), "rename": "camel", "gc": False, **options}
        return super().__new__(mcls, name, bases, made, **chosen)


def _default(value: Any) -> Any:
    if not isinstance(value, _Field):
        return absent(value)
    if value.default is msgspec.NODEFAULT:
        return value
    return field(default=absent(value.default), name=value.name)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class Struct(msgspec.Struct, metaclass=StructType, frozen=True, kw_only=True):
    """What all structs have: equality, a short repr, pickling, and `carried`, the fields that they do not model.

    Subclass it for the parts of a custom resource. A field that is not there reads as its default and is not written;
    one that was given a value is, even where that equals the default. `field(default=..., name="podIP")` names what
    camelCase would not.
    """

    carried: Carried = field(default=NOTHING, name=CARRIED_KEY)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[[bytes, type[Self]], Self], tuple[bytes, type[Self]]]:
        return decode, (encode(self), type(self))


class Concealed:
    """Makes a struct show its name alone, so that what is in it gets into no log. Name it before the other base."""

    __slots__ = ()

    def __repr__(self) -> str:
        name = getattr(getattr(self, "metadata", None), "name", "")
        return f"{type(self).__name__}({f'{name!r}, ' if name else ''}...)"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return []
