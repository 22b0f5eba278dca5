"""Kubernetes' protobuf (`application/vnd.kubernetes.protobuf`): objects as Go clients send and take them.

What is read is the object that Go would show in JSON, and what is written is, byte for byte, what Go writes for that
object. Custom resources and tables have no messages. Everything here is pure, and takes time and memory in proportion
to the data; objects lie at most 100 deep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from ._decode import read_envelope, read_kind
from ._encode import message_bytes
from ._envelope import frame, wrap
from ._facts import fields_of, message_of
from ._readers import Budget
from ._wire import LENGTH, field, size, tag
from .errors import ProtobufError, UnknownKind

__all__ = [
    "CONTENT_TYPE",
    "WATCH_CONTENT_TYPE",
    "Gvk",
    "ProtobufError",
    "UnknownKind",
    "decode",
    "decode_message",
    "encode",
    "encode_list",
    "encode_message",
    "encode_watch_event",
    "envelop",
    "supported",
]

CONTENT_TYPE: Final = "application/vnd.kubernetes.protobuf"
WATCH_CONTENT_TYPE: Final = "application/vnd.kubernetes.protobuf;stream=watch"

Gvk: TypeAlias = tuple[str, str, str]
"""A group, version and kind; the core group is the empty string."""

_ITEM: Final = tag(2, LENGTH)
_TOO_DEEP: Final = "too many messages lie within each other for the stack that is left"


def supported(gvk: Gvk) -> bool:
    """Whether a kind has a message."""
    return message_of(*gvk) is not None


def decode(data: bytes, default: Gvk = ("", "", "")) -> dict[str, Any]:
    """Read a body: an object in its envelope, `apiVersion` and `kind` first.

    `default` is what the object is where its envelope does not say so. An object in JSON within an envelope that says
    so is read too. Raises UnknownKind, and ProtobufError for what is no message.
    """
    try:
        return read_envelope(data, 0, len(data), Budget(len(data)), default)
    except RecursionError:
        raise ProtobufError(_TOO_DEEP) from None


def decode_message(data: bytes, group: str, version: str, kind: str) -> dict[str, Any]:
    """Read an object without an envelope, and put its `apiVersion` and `kind` first. Raises as `decode` does."""
    try:
        return read_kind(data, 0, len(data), (group, version, kind), Budget(len(data)))
    except RecursionError:
        raise ProtobufError(_TOO_DEEP) from None


def encode_message(obj: Mapping[str, Any], group: str, version: str, kind: str) -> bytes:
    """Write an object without an envelope; its own `apiVersion` and `kind` do not matter.

    Fields that the kind does not have are left out, as Go does. Raises UnknownKind, and ProtobufError where a value is
    not of its field's type.
    """
    message = message_of(group, version, kind)
    if message is None:
        raise UnknownKind(group, version, kind)
    return message_bytes(message, obj, kind)


def envelop(message: bytes, group: str, version: str, kind: str) -> bytes:
    """Put the envelope around what `encode_message` gave."""
    return wrap([message], len(message), group, version, kind)


def encode(obj: Mapping[str, Any], group: str, version: str, kind: str) -> bytes:
    """Write an object in its envelope, as a body is. Raises as `encode_message` does."""
    return envelop(encode_message(obj, group, version, kind), group, version, kind)


@lru_cache(1024)
def _holds_messages(gvk: Gvk) -> bool:
    message = message_of(*gvk)
    if message is None:
        raise UnknownKind(*gvk)
    shape = [(one.number, one.name, one.label) for one in fields_of(message)]
    return shape == [(1, "metadata", ""), (2, "items", "[]")] and gvk[2] != "List"


def encode_list(metadata: Mapping[str, Any], items: Iterable[bytes], gvk: Gvk) -> bytes:
    """Write a list in its envelope from items that `encode_message` gave, so that they can be kept as written.

    `metadata` is that of the list, `gvk` the list's own kind. Raises UnknownKind, and ProtobufError where
    that is not a list of one kind.
    """
    if not _holds_messages(gvk):
        msg = f"{gvk[2]} is no list of objects of one kind; write it with encode"
        raise ProtobufError(msg)
    pieces = [field(1, message_bytes("m.apis.meta.v1.ListMeta", metadata, gvk[2]))]
    length = len(pieces[0])
    for item in items:
        before = size(len(item))
        pieces += (_ITEM, before, item)
        length += len(_ITEM) + len(before) + len(item)
    return wrap(pieces, length, *gvk)


def encode_watch_event(event: str, obj: Mapping[str, Any] | bytes, gvk: Gvk) -> bytes:
    """Write one event of a watch (`ADDED` and so on) as it goes onto the stream, its length in four bytes first.

    `obj` is an object or what `encode_message` gave for it. Raises as `encode_message` does.
    """
    message = obj if isinstance(obj, bytes) else encode_message(obj, *gvk)
    return frame(event, envelop(message, *gvk))
