"""Objects without `metadata.managedFields`, cut out of the bytes before they are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from pilothouse.client.codecs import Codec

__all__ = ["LeanCodec", "cut", "cut_managed_fields"]

T = TypeVar("T")

_NAME: Final = b'"managedFields"'
_COMMA: Final = ord(",")


class _Meta(msgspec.Struct, rename="camel"):
    managed_fields: msgspec.Raw = msgspec.Raw()


class _Head(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


_decoder: Final = msgspec.json.Decoder(_Head)


def cut_managed_fields(data: bytes) -> bytes:
    """Return an object's JSON without its managed fields; anything else as it is."""
    try:
        return cut(data, _decoder.decode(data).metadata.managed_fields)
    except msgspec.MsgspecError:
        return data


def cut(data: bytes, found: msgspec.Raw) -> bytes:
    """Return an object's JSON without its managed fields, which were found in it."""
    place, raw = data.find(_NAME), bytes(found)
    if place < 0:
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
        self.accept = codec.accept
        self.accept_list = codec.accept_list
        self.deferrable = codec.deferrable
        self.inner: Final = codec

    def decode(self, data: bytes | msgspec.Raw) -> T:
        return self.inner.decode(cut_managed_fields(bytes(data)))

    def encode(self, value: T) -> bytes:
        return self.inner.encode(value)

    def head(self, value: T) -> tuple[str, str]:
        return self.inner.head(value)
