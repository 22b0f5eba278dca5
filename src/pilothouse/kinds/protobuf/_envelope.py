"""What stands around a message: `k8s`, a zero byte, and a `runtime.Unknown` that names the kind; and frames of a watch.

The form is that of k8s.io/apimachinery/pkg/runtime/serializer/protobuf.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from ._values import text_of
from ._wire import LENGTH, field, fields, size, tag
from .errors import ProtobufError

__all__ = ["PREFIX", "Envelope", "frame", "open_envelope", "version_text", "wrap"]

PREFIX: Final = b"k8s\0"
_TYPE_META, _RAW, _ENCODING, _TYPE = 1, 2, 3, 4
_API_VERSION, _KIND = 1, 2
_LENGTH_OF_FRAME: Final = 4
_MEMO_LENGTH: Final = 128
_END: Final = field(_ENCODING, b"") + field(_TYPE, b"")


class Envelope(NamedTuple):
    """What an envelope says, and where within the data the message lies."""

    api_version: str
    kind: str
    content_type: str
    start: int
    end: int


def version_text(group: str, version: str) -> str:
    """Write a group and version as `apiVersion` has them."""
    return f"{group}/{version}" if group else version


def open_envelope(data: bytes, at: int, end: int) -> Envelope:
    """Read the envelope that lies in `data` from `at` to `end`. Raises ProtobufError."""
    if not data.startswith(PREFIX, at, end):
        msg = "the data are no Kubernetes protobuf: they do not begin with k8s and a zero byte"
        raise ProtobufError(msg)
    at += len(PREFIX)
    if at == end:
        msg = "the data end after k8s and a zero byte: there is no object"
        raise ProtobufError(msg)
    api_version = kind = ""
    texts = {_ENCODING: "", _TYPE: ""}
    raw = (end, end)
    for mark, start, stop in fields(data, at, end):
        number = mark >> 3
        if number > _TYPE:
            continue
        if mark & 7 != LENGTH:
            msg = f"field {number} of the envelope was sent as wire type {mark & 7}"
            raise ProtobufError(msg)
        if number == _RAW:
            raw = (start, stop)
        elif number == _TYPE_META:
            read = _remembered if stop - start <= _MEMO_LENGTH else _read_type_meta
            api_version, kind = read(data[start:stop])
        else:
            texts[number] = text_of(data[start:stop])
    if encoding := texts[_ENCODING]:
        msg = f"the object is encoded as {encoding[:64]!r}; send it without an encoding"
        raise ProtobufError(msg)
    return Envelope(api_version, kind, texts[_TYPE], *raw)


def _read_type_meta(content: bytes) -> tuple[str, str]:
    texts = {_API_VERSION: "", _KIND: ""}
    for mark, start, stop in fields(content, 0, len(content)):
        if mark >> 3 in texts:
            if mark & 7 != LENGTH:
                msg = f"field {mark >> 3} of the type in the envelope was sent as wire type {mark & 7}"
                raise ProtobufError(msg)
            texts[mark >> 3] = text_of(content[start:stop])
    return texts[_API_VERSION], texts[_KIND]


_remembered: Final = lru_cache(1024)(_read_type_meta)


@lru_cache(1024)
def _opening(group: str, version: str, kind: str) -> bytes:
    meta = field(_API_VERSION, version_text(group, version).encode()) + field(_KIND, kind.encode())
    return PREFIX + field(_TYPE_META, meta) + tag(_RAW, LENGTH)


def wrap(pieces: list[bytes], length: int, group: str, version: str, kind: str) -> bytes:
    """Put an envelope around a message given in pieces of `length` bytes together."""
    return b"".join((_opening(group, version, kind), size(length), *pieces, _END))


def frame(event: str, envelope: bytes) -> bytes:
    """Write a `WatchEvent` with an object in its envelope, its length in four bytes first. Raises ProtobufError."""
    message = field(1, event.encode()) + field(2, field(1, envelope))
    if len(message) >= 1 << 8 * _LENGTH_OF_FRAME:
        msg = f"an event of {len(message)} bytes does not fit into a frame"
        raise ProtobufError(msg)
    return len(message).to_bytes(_LENGTH_OF_FRAME, "big") + message
