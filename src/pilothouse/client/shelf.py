"""Keeps the objects of a cache packed: as the server sent them, and deflated where they are many.

A typed pod takes ten times the memory of its JSON and longer to read than to pass on, and of most objects in a cache
nobody ever sees more than key and labels. So a cache keeps bytes. Those that came last stay as they came, and what was
read last stays read; the others are deflated, to a tenth or so, when there is time.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

import msgspec

from pilothouse.client.codecs import Codec
from pilothouse.client.deflating import Deflated, Deflater
from pilothouse.client.lean import cut
from pilothouse.client.packed import Head, Packed
from pilothouse.kinds.structs import Struct, encode
from pilothouse.kinds.structs.meta import OwnerReference

__all__ = ["Shelf"]

T = TypeVar("T")

_FIRST: Final = 7
"""How many times the JSON that is to stay as it came may be there before the time for deflating is taken."""
_NO_LABELS: Final[Mapping[str, str]] = MappingProxyType({})
_REMEMBERED: Final = 4_096
"""Different labels, and owners, that are told from equal ones; beyond, all are forgotten."""


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
    recent_bytes: how much JSON stays as it came, and of how much what was read is kept; seven times as much may wait
    for `tidy` to deflate it. managed_fields: whether they are kept. Reading is safe in any thread.
    """

    def __init__(self, codec: Codec[T], recent_bytes: int, *, managed_fields: bool = True) -> None:
        self.unpacked = 0
        """Objects that were read though they were deflated."""
        self._decode = codec.decode
        self._at_once = not codec.deferrable
        self._bound = recent_bytes
        self._ceiling = recent_bytes * _FIRST
        self._managed_fields = managed_fields
        self._raw: OrderedDict[Packed[T], int] = OrderedDict()
        self._raw_bytes = 0
        self._read: OrderedDict[Packed[T], int] = OrderedDict()
        self._read_bytes = 0
        self._lock = threading.Lock()
        self._deflater: Deflater | None = None
        self._known_labels: dict[bytes, Mapping[str, str]] = {b"": _NO_LABELS, b"null": _NO_LABELS}
        self._known_owners: dict[bytes, Sequence[OwnerReference]] = {b"": (), b"null": ()}

    @property
    def raw_bytes(self) -> int:
        """The JSON that is kept as it came."""
        return self._raw_bytes

    @property
    def read_bytes(self) -> int:
        """The JSON of objects whose reading is kept."""
        return self._read_bytes

    @property
    def is_untidy(self) -> bool:
        """Whether more is kept as it came than has to be."""
        return self._raw_bytes > self._bound

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

    def changed(self, before: Packed[T], change: Callable[[T], T]) -> Packed[T] | T:
        """Pack what a transform makes of an object; what is no struct stays as it is. Raises what both raise."""
        value = before.peek()
        made = change(value)
        if made is value:
            return before
        self.drop(before)
        return self.pack(encode(made)) if isinstance(made, Struct) else made

    def read(self, packed: Packed[T], *, passing: bool = False) -> T:
        """Read an object and keep what was read; in passing only where there is room. Raises BadAnswer for a misfit."""
        data = packed.data
        if type(data) is Deflated and self._deflater is not None:
            self.unpacked += 1
            data = self._deflater.inflate(data)
        value = self._decode(data)
        if packed.dropped:
            packed.value = value  # it goes with its last holder
        elif not passing or self._read_bytes + len(data) <= self._bound:
            self._keep(packed, value, len(data))
        return value

    def drop(self, packed: Packed[T]) -> None:
        """Leave an object out of the count; it is not deflated any more."""
        with self._lock:
            packed.dropped = True
            self._raw_bytes -= self._raw.pop(packed, 0)
            self._read_bytes -= self._read.pop(packed, 0)

    def tidy(self, limit: int) -> int:
        """Deflate some objects of those that do not have to stay as they came, the oldest first; return how many."""
        for done in range(limit):
            with self._lock:
                if self._raw_bytes <= self._bound:
                    return done
                self._deflate_oldest()
        return limit

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
            self._keep(packed, self._decode(data), len(data))
        with self._lock:
            self._raw[packed] = len(data)
            self._raw_bytes += len(data)
            while self._raw_bytes > self._ceiling:
                self._deflate_oldest()
        return packed

    def _keep(self, packed: Packed[T], value: T, size: int) -> None:
        with self._lock:
            packed.value = value
            if packed in self._read:
                return
            self._read[packed] = size
            self._read_bytes += size
            while self._read_bytes > self._bound:
                oldest, left = self._read.popitem(last=False)
                self._read_bytes -= left
                oldest.value = None

    def _deflate_oldest(self) -> None:
        if self._deflater is None:
            self._deflater = Deflater([packed.data for packed in self._raw])
        oldest, size = self._raw.popitem(last=False)
        self._raw_bytes -= size
        oldest.data = self._deflater.deflate(oldest.data)

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


def _remember(known: dict[bytes, Any], raw: bytes, found: Any) -> None:
    if len(known) >= _REMEMBERED:
        kept = {key: known[key] for key in (b"", b"null")}
        known.clear()
        known.update(kept)
    known[raw] = found
