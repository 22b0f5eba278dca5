"""Between bytes and objects: typed structs, dictionaries, or an object's metadata alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

import msgspec

from pilothouse.kinds.structs import ListMeta, ObjectMeta, Resource, Struct, StructError, decode, encode

from .collector import no_collections
from .errors import BadAnswer
from .resources import Mapping

__all__ = [
    "Codec",
    "DictCodec",
    "Header",
    "Page",
    "PartialCodec",
    "PartialObject",
    "RawEvent",
    "RawList",
    "TypedCodec",
    "open_page",
    "read_events",
    "read_header",
    "read_items",
    "read_page",
]

T = TypeVar("T")
R = TypeVar("R", bound=Resource)

PARTIAL: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
PARTIAL_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


class PartialObject(Struct):
    """An object of which only the metadata is known. Follows `PartialObjectMetadata` of meta.k8s.io/v1."""

    api_version: str = ""
    kind: str = ""
    metadata: ObjectMeta = ObjectMeta()


class _HeadMeta(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""
    annotations: dict[str, str] | None = None


class Header(msgspec.Struct, rename="camel"):
    """What is read of an object without reading it all."""

    metadata: _HeadMeta = msgspec.field(default_factory=_HeadMeta)
    kind: str = ""


class RawEvent(msgspec.Struct):
    """A line of a watch, its object as it came."""

    type: str
    object: msgspec.Raw


class RawList(msgspec.Struct):
    """A list, its items as they came."""

    metadata: ListMeta = ListMeta()
    items: list[msgspec.Raw] | None = None


class Page(NamedTuple, Generic[T]):
    """One page of a list."""

    items: list[T]
    metadata: ListMeta


_list_decoder: Final = msgspec.json.Decoder(RawList)
_header_decoder: Final = msgspec.json.Decoder(Header)
_event_decoder: Final = msgspec.json.Decoder(RawEvent)


class Codec(Protocol[T]):
    """Reads and writes objects of one resource."""

    accept: str
    accept_list: str
    deferrable: bool
    """Whether reading an object may wait until somebody asks, as any server has seen to it that it fits."""

    def decode(self, data: bytes | msgspec.Raw) -> T:
        """Read one object. Raises BadAnswer."""

    def encode(self, value: T) -> bytes:
        """Write one object."""

    def head(self, value: T) -> tuple[str, str]:
        """Return an object's name and namespace."""


def _names(data: bytes | msgspec.Raw) -> str:
    """Say which object this is, for errors; it may be anything."""
    try:
        metadata = _header_decoder.decode(data).metadata
    except msgspec.MsgspecError:
        return "an object"
    return f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name or "an object"


class TypedCodec(Generic[R]):
    """Objects as structs of a type."""

    accept = accept_list = ""

    def __init__(self, kind: type[R]) -> None:
        self._kind = kind
        self.deferrable = kind.__module__.startswith("pilothouse.kinds.")  # Kubernetes' own, not one of a user's class
        self._decoder = msgspec.json.Decoder(kind)

    def decode(self, data: bytes | msgspec.Raw) -> R:
        try:
            return self._decoder.decode(data)
        except msgspec.MsgspecError:
            pass
        try:
            return decode(bytes(data), self._kind)
        except StructError as error:
            raise BadAnswer(f"{_names(data)}: does not fit the type {error}") from error

    def encode(self, value: R) -> bytes:
        if not isinstance(value, self._kind):
            raise TypeError(f"want an object of type {self._kind.__name__}, got {type(value).__name__}")
        return encode(value)

    def head(self, value: R) -> tuple[str, str]:
        metadata = value.metadata
        return metadata.name, metadata.namespace


class DictCodec:
    """Objects as dictionaries; `apiVersion` and `kind`, which lists leave out, are filled in."""

    accept = accept_list = ""
    deferrable = True

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping

    def decode(self, data: bytes | msgspec.Raw) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise BadAnswer(f"{self._mapping.kind}: the answer is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise BadAnswer(f"{self._mapping.kind}: the answer is no object")
        if "kind" not in found:
            return {"apiVersion": self._mapping.api_version, "kind": self._mapping.kind, **found}
        return found

    def encode(self, value: dict[str, Any]) -> bytes:
        version, kind = value.get("apiVersion"), value.get("kind")
        wanted = self._mapping.api_version, self._mapping.kind
        if (version or wanted[0], kind or wanted[1]) != wanted:
            raise TypeError(
                f"want an object of kind {self._mapping.kind} of {self._mapping.api_version}, got {kind} of {version}"
            )
        if version is None or kind is None:
            value = {"apiVersion": self._mapping.api_version, "kind": self._mapping.kind, **value}
        return msgspec.json.encode(value)

    def head(self, value: dict[str, Any]) -> tuple[str, str]:
        metadata = value.get("metadata")
        if not isinstance(metadata, dict):
            return "", ""
        return metadata.get("name") or "", metadata.get("namespace") or ""


class PartialCodec:
    """Objects' metadata alone, which is all that the server sends then."""

    accept = PARTIAL
    accept_list = PARTIAL_LIST
    deferrable = True

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping

    def decode(self, data: bytes | msgspec.Raw) -> PartialObject:
        try:
            return decode(bytes(data), PartialObject)
        except StructError as error:
            raise BadAnswer(f"{_names(data)}: {error}") from error

    def encode(self, value: PartialObject) -> bytes:
        raise TypeError(f"{self._mapping.name}: metadata alone cannot be written; patch the object instead")

    def head(self, value: PartialObject) -> tuple[str, str]:
        return value.metadata.name, value.metadata.namespace


def read_page(codec: Codec[T], data: bytes, where: str) -> Page[T]:
    """Read one page of a list. Raises BadAnswer, which names the object that does not fit."""
    return read_items(codec, open_page(data, where))


def open_page(data: bytes, where: str) -> RawList:
    """Read a list's metadata and find its items, which takes a tenth of reading these. Raises BadAnswer."""
    try:
        return _list_decoder.decode(data)
    except msgspec.MsgspecError:
        try:
            return RawList(decode(data, _OtherList).metadata, msgspec.json.decode(data, type=_RawItems).items)
        except (msgspec.MsgspecError, StructError) as error:
            raise BadAnswer(f"{where}: the answer is no list: {error}") from error


def read_items(codec: Codec[T], listed: RawList) -> Page[T]:
    """Read a list's items one by one: one with unknown fields does not slow down the others. Raises BadAnswer."""
    read = codec.decode
    with no_collections():
        return Page([read(item) for item in listed.items or ()], listed.metadata)


class _RawItems(msgspec.Struct):
    items: list[msgspec.Raw] | None = None


class _OtherList(Struct):
    metadata: ListMeta = ListMeta()


def read_header(data: bytes | msgspec.Raw) -> Header | None:
    """Read the little that is needed of any object; None where it is no object."""
    try:
        return _header_decoder.decode(data)
    except msgspec.MsgspecError:
        return None


def read_events(lines: list[bytes]) -> Iterator[RawEvent]:
    """Read lines of a watch. Raises BadAnswer for one that is no event."""
    for line in lines:
        try:
            yield _event_decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise BadAnswer(f"watch: what came is no event: {error}") from error
