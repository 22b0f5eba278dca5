"""Objects without `metadata.managedFields`, cut out of the bytes before they are read: for caches of many objects."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar

import msgspec

from pilothouse.client.codecs import Codec, RawEvent
from pilothouse.client.errors import BadAnswer
from pilothouse.client.lister import ListWatch
from pilothouse.client.listwatch import WatchEvent

__all__ = ["LeanCodec", "cut_managed_fields", "without_managed_fields"]

T = TypeVar("T")

_NAME: Final = b'"managedFields"'
_OBJECTS: Final = frozenset({"ADDED", "MODIFIED", "DELETED"})
_COMMA: Final = ord(",")


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    managed_fields: msgspec.Raw = msgspec.Raw()


class _Head(msgspec.Struct):
    metadata: _Meta = msgspec.field(default_factory=_Meta)


_decoder: Final = msgspec.json.Decoder(_Head)


def cut_managed_fields(data: bytes) -> bytes:
    """Return an object's JSON without its managed fields; anything else as it is."""
    try:
        return _cut(data, _decoder.decode(data).metadata.managed_fields)
    except msgspec.MsgspecError:
        return data


def _cut(data: bytes, found: msgspec.Raw) -> bytes:
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
        self.inner: Final = codec

    def decode(self, data: bytes | msgspec.Raw) -> T:
        return self.inner.decode(cut_managed_fields(bytes(data)))

    def encode(self, value: T) -> bytes:
        return self.inner.encode(value)

    def head(self, value: T) -> tuple[str, str]:
        return self.inner.head(value)


class _LeanListWatch(ListWatch[T]):
    """Reads version and managed fields of an event at once."""

    def _read(self, event: RawEvent) -> WatchEvent[T]:
        if event.type not in _OBJECTS:
            return super()._read(event)
        try:
            metadata = _decoder.decode(event.object).metadata
            lean: Any = self._codec
            found: T = lean.inner.decode(_cut(bytes(event.object), metadata.managed_fields))
        except (msgspec.MsgspecError, BadAnswer):
            return super()._read(event)
        return WatchEvent(event.type, found, metadata.resource_version)  # type: ignore[arg-type]  # one of the three


def without_managed_fields(list_watch: ListWatch[T]) -> ListWatch[T]:
    """Return the same lister-watcher, whose objects have no managed fields.

    They take two thirds of a typed object's memory and most of the time to read it, and hardly a controller looks at
    them. An object of such a cache may be sent back to the server: it keeps what is not said.
    """
    made: _LeanListWatch[T] = object.__new__(_LeanListWatch)
    made.__dict__ |= list_watch.__dict__
    made._codec = LeanCodec(list_watch._codec)
    return made
