"""Objects as the server sent them, read when somebody asks: what a cache holds, of thousands packed to a fraction.

A typed pod takes ten times the memory of its JSON and longer to read than to pass on, and of most objects in a cache
nobody ever sees more than key and labels. So a cache keeps bytes. Those of the objects that were changed or read last
stay as they are, with what was read of them; the others are deflated, each by itself, against a dictionary of their
like, which leaves a tenth or less and takes microseconds to undo.
"""

from __future__ import annotations

import sys
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar, cast

import msgspec

from pilothouse.client.codecs import Codec
from pilothouse.client.lean import cut
from pilothouse.kinds.structs import Struct, encode
from pilothouse.kinds.structs.meta import OwnerReference

__all__ = ["RECENT_BYTES", "Head", "Packed", "Shelf", "of_head", "reads_head", "unpacked"]

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

RECENT_BYTES: Final = 8 << 20
"""JSON of objects that is kept as it came; decoded it takes up to five times as much."""

_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})
_LEVEL: Final = 3
_WINDOW_BITS: Final = 14
_MEMORY: Final = 7
"""The smallest state with which objects of 10 KB are still seen to be alike: it is copied for each."""
_DICTIONARY: Final = 16_000
"""Bytes of samples; deflate looks back 16 KiB."""
_SAMPLES: Final = 32
_REMEMBERED: Final = 4_096
"""Different labels, and owners, that are told from equal ones; beyond, all are forgotten."""
_LEFT: Final = -1


class Head(msgspec.Struct, frozen=True, gc=False):
    """What is known of an object that nobody has read yet; named as in `ObjectMeta`."""

    name: str
    namespace: str
    uid: str
    resource_version: str
    generation: int
    deletion_timestamp: str | None
    labels: Mapping[str, str]
    owner_references: Sequence[OwnerReference]


class Packed(msgspec.Struct, Generic[T], eq=False):
    """An object of a cache: its key, the head of its metadata, and the whole when asked for."""

    key: str
    metadata: Head
    _shelf: Shelf[T]
    _data: bytes
    _size: int = 0
    """What it counts for among the recent; 0 for another, `_LEFT` for one that was replaced."""
    _value: T | None = None

    def get(self) -> T:
        """Return the object, the same one for as long as it is among those read last. Raises BadAnswer for a misfit."""
        value = self._value
        return self._shelf.read(self) if value is None else value

    def peek(self) -> T:
        """Return the object, but leave those read last where they are: for who reads all. Raises as `get`."""
        value = self._value
        return self._shelf.read(self, passing=True) if value is None else value

    def drop(self) -> None:
        """Note that another state is in its place: it is kept as it is for as long as somebody refers to it."""
        self._shelf.drop(self)


class _Deflated(bytes):
    """An object's JSON, deflated."""

    __slots__ = ()


class _Meta(msgspec.Struct, rename="camel", gc=False):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    deletion_timestamp: str | None = None
    labels: msgspec.Raw = msgspec.Raw()
    owner_references: msgspec.Raw = msgspec.Raw()
    managed_fields: msgspec.Raw = msgspec.Raw()


class _Object(msgspec.Struct, gc=False):
    metadata: _Meta


class _Line(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: str
    object: _Object


_objects: Final = msgspec.json.Decoder(_Object)
_lines: Final = msgspec.json.Decoder(_Line)
_labels: Final = msgspec.json.Decoder(dict[str, str])
_owners: Final = msgspec.json.Decoder(tuple[OwnerReference, ...])
_BEGINNINGS: Final = {kind: b'{"type":"%b","object":' % kind.encode() for kind in ("ADDED", "MODIFIED", "DELETED")}


class Shelf(Generic[T]):
    """Packs the objects of one cache, and keeps the recent ones at hand.

    codec: reads an object when it is asked for; at once where it is of a kind that no server has checked for us.
    recent_bytes: how much JSON stays as it came. managed_fields: whether they are kept. Reading is safe in any thread.
    """

    def __init__(self, codec: Codec[T], recent_bytes: int = RECENT_BYTES, *, managed_fields: bool = True) -> None:
        self.unpacked = 0
        """Objects that were read though they were deflated."""
        self._decode = codec.decode
        self._at_once = not codec.deferrable
        self._bound = recent_bytes
        self._managed_fields = managed_fields
        self._recent: OrderedDict[Packed[T], None] = OrderedDict()
        self._held = 0
        self._lock = threading.Lock()
        self._dictionary = b""
        self._deflater: Any = None
        self._known_labels: dict[bytes, Mapping[str, str]] = {b"": _NO_LABELS, b"null": _NO_LABELS}
        self._known_owners: dict[bytes, Sequence[OwnerReference]] = {b"": (), b"null": ()}

    @property
    def recent_bytes(self) -> int:
        """The JSON that is kept as it came."""
        return self._held

    def pack(self, data: bytes) -> Packed[T] | T:
        """Take an object's JSON; read it where it is an odd one. Raises BadAnswer for a misfit."""
        try:
            return self._pack(data, _objects.decode(data).metadata)
        except msgspec.MsgspecError:
            return self._decode(data)

    def event(self, line: bytes) -> tuple[str, Packed[T]] | None:
        """Take a line of a watch; None where it is no plain event of an object. Raises BadAnswer."""
        try:
            found = _lines.decode(line)
            beginning = _BEGINNINGS[found.type]
        except (msgspec.MsgspecError, KeyError):
            return None
        if not line.startswith(beginning):
            return None
        try:
            return found.type, self._pack(line[len(beginning) : -1], found.object.metadata)
        except msgspec.MsgspecError:
            return None

    def repack(self, before: Packed[T], value: T) -> Packed[T] | T:
        """Take what a transform made of an object; what is no struct stays as it is."""
        if value is before._value:
            return before
        before.drop()
        return self.pack(encode(value)) if isinstance(value, Struct) else value

    def read(self, packed: Packed[T], *, passing: bool = False) -> T:
        """Read an object, and keep it with what was read of it; if only in passing, where there is room."""
        data = packed._data
        if type(data) is _Deflated:
            self.unpacked += 1
            data = zlib.decompressobj(-_WINDOW_BITS, self._dictionary).decompress(data)
        value = self._decode(data)
        if packed._size:
            packed._value = value
        elif not passing or self._held + len(data) <= self._bound:
            packed._value = value
            self._hold(packed, len(data))
        return value

    def drop(self, packed: Packed[T]) -> None:
        """Leave an object out of the count."""
        with self._lock:
            if packed._size > 0:
                self._held -= packed._size
                del self._recent[packed]
            packed._size = _LEFT

    def _pack(self, data: bytes, meta: _Meta) -> Packed[T]:
        namespace = sys.intern(meta.namespace)
        head = Head(
            meta.name,
            namespace,
            meta.uid,
            meta.resource_version,
            meta.generation,
            meta.deletion_timestamp,
            self._labels_of(bytes(meta.labels)),
            self._owners_of(bytes(meta.owner_references)),
        )
        if not self._managed_fields:
            data = cut(data, meta.managed_fields)
        packed = Packed(f"{namespace}/{meta.name}" if namespace else meta.name, head, self, data)
        if self._at_once:
            packed._value = self._decode(data)
        self._hold(packed, len(data))
        return packed

    def _labels_of(self, raw: bytes) -> Mapping[str, str]:
        known = self._known_labels
        found = known.get(raw)
        if found is None:
            found = MappingProxyType(_labels.decode(raw))
            _remember(known, raw, found)
        return found

    def _owners_of(self, raw: bytes) -> Sequence[OwnerReference]:
        known = self._known_owners
        found = known.get(raw)
        if found is None:
            found = _owners.decode(raw)
            _remember(known, raw, found)
        return found

    def _hold(self, packed: Packed[T], size: int) -> None:
        with self._lock:
            if packed._size == 0:
                packed._size = size
                self._recent[packed] = None
                self._held += size
            while self._held > self._bound:
                if self._deflater is None:
                    self._learn()
                oldest, _ = self._recent.popitem(last=False)
                self._held -= oldest._size
                self._put_away(oldest)

    def _put_away(self, packed: Packed[T]) -> None:
        packed._size, packed._value = 0, None
        if type(packed._data) is not _Deflated:
            deflater = self._deflater.copy()
            packed._data = _Deflated(deflater.compress(packed._data) + deflater.flush())

    def _learn(self) -> None:
        """Make the dictionary, once, of samples of what is there by now."""
        raw = [packed._data for packed in self._recent if type(packed._data) is not _Deflated]
        samples, size = raw[:1], len(raw[0]) if raw else 0
        for data in raw[1 :: max(len(raw) // _SAMPLES, 1)]:
            size += len(data)
            if size > _DICTIONARY:
                break
            samples.append(data)
        self._dictionary = b"".join(samples)[-_DICTIONARY:]
        self._deflater = zlib.compressobj(_LEVEL, zlib.DEFLATED, -_WINDOW_BITS, _MEMORY, zlib.Z_FIXED, self._dictionary)


def _remember(known: dict[bytes, Any], raw: bytes, found: Any) -> None:
    if len(known) >= _REMEMBERED:
        kept = {key: known[key] for key in (b"", b"null")}
        known.clear()
        known.update(kept)
    known[raw] = found


def unpacked(obj: T | Packed[T]) -> T:
    """Return an object, whether it is packed or not. Raises BadAnswer for a misfit."""
    return obj.get() if type(obj) is Packed else cast("T", obj)


def of_head(function: F) -> F:
    """Mark a function as looking at key parts of `metadata` alone, those of `Head`: no object is read for it.

    It gets a `Packed` in the place of an object, and where objects are not packed these themselves. For index
    functions, and for mappings and predicates of an operator.
    """
    function.reads_head = True  # type: ignore[attr-defined]
    return function


def reads_head(function: object) -> bool:
    """Whether a function was marked by `of_head`."""
    return bool(getattr(function, "reads_head", False))
