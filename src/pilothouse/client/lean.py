"""Objects without `metadata.managedFields`, cut out of the bytes before they are read: for caches of many objects."""

from __future__ import annotations

import copy
from typing import Any, Final, Generic, TypeVar

import msgspec

from pilothouse.client.codecs import Codec
from pilothouse.client.lister import ListWatch

__all__ = ["LeanCodec", "cut_managed_fields", "without_managed_fields"]

T = TypeVar("T")

_NAME: Final = b'"managedFields"'
_COMMA: Final = ord(",")


class _Meta(msgspec.Struct):
    managedFields: msgspec.Raw = msgspec.Raw()  # noqa: N815  the name in JSON


class _Head(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


_decoder: Final = msgspec.json.Decoder(_Head)


def cut_managed_fields(data: bytes) -> bytes:
    """Return an object's JSON without its managed fields; anything else as it is."""
    place = data.find(_NAME)
    if place < 0:
        return data
    try:
        raw = bytes(_decoder.decode(data).metadata.managedFields)
    except msgspec.MsgspecError:
        return data
    end = place + len(_NAME) + 1 + len(raw)
    # Elsewhere in the object the name may stand too, and there may be white space: then it stays.
    if not raw or data[place + len(_NAME) : end] != b":" + raw:
        return data
    if data[place - 1] == _COMMA:
        return data[: place - 1] + data[end:]
    return data[:place] + data[end + 1 if data[end] == _COMMA else end :]


class LeanCodec(Generic[T]):
    """Reads objects as another codec does, without their managed fields."""

    def __init__(self, codec: Codec[T]) -> None:
        self.accept: Final = codec.accept
        self.accept_list: Final = codec.accept_list
        self._codec = codec

    def decode(self, data: bytes | msgspec.Raw) -> T:
        return self._codec.decode(cut_managed_fields(bytes(data)))

    def encode(self, value: T) -> bytes:
        return self._codec.encode(value)

    def head(self, value: T) -> tuple[str, str]:
        return self._codec.head(value)


def without_managed_fields(list_watch: ListWatch[T]) -> ListWatch[T]:
    """Return the same lister-watcher, whose objects have no managed fields.

    They take two thirds of a typed object's memory and most of the time to read it, and hardly a controller looks at
    them. An object of such a cache may be sent back to the server: it keeps what is not said.
    """
    lean: Any = copy.copy(list_watch)
    lean._codec = LeanCodec(lean._codec)
    made: ListWatch[T] = lean
    return made
