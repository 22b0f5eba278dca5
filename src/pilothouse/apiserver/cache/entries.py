"""An object as it is kept: bytes that are encoded once, with the resource version put in where it is asked for.

What is stored is plain JSON without a resource version, since that is known only when the write is applied. It begins
with a head that is the same for all objects of a kind and version, and ends in the middle of the metadata:

    {"kind":"Pod","apiVersion":"v1","metadata":{ | "name":"web", ... }}

Every answer is the head, the resource version, and the bytes behind the head as they are.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

__all__ = ["Encodings", "Entry", "Form", "Metadata", "decode", "encode", "encoded", "encodings", "form_of"]

_VERSION = b'"resourceVersion":"'
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_COMPARED = "ControllerRevision"
"""What kube-controller-manager compares byte by byte with what it would write itself."""
_ESCAPED = {char.encode(): b"\\u%04x" % ord(char) for char in "<>&\u2028\u2029"}


class Form:
    """How the encoded objects of one kind and version begin.

    head: the bytes up to and with the brace of the metadata. full: the same with the name of the resource version.
    item: the beginning of an item of a list. Items of Kubernetes' own lists say nothing of their kind.
    """

    __slots__ = ("api_version", "cut", "full", "head", "item", "kind")

    def __init__(self, api_version: str, kind: str, *, custom: bool) -> None:
        self.api_version = api_version
        self.kind = kind
        self.head = b'{"kind":%b,"apiVersion":%b,"metadata":{' % (_encode(kind), _encode(api_version))
        self.full = self.head + _VERSION
        self.item = self.full if custom else b'{"metadata":{' + _VERSION
        self.cut = len(self.head)


@cache
def form_of(api_version: str, kind: str, *, custom: bool) -> Form:
    """Return the one form of a kind and version."""
    return Form(api_version, kind, custom=custom)


# Fields have the names that JSON has.
class _Reference(msgspec.Struct, frozen=True, gc=False):
    uid: str = ""
    kind: str = ""
    name: str = ""
    apiVersion: str = ""  # noqa: N815
    blockOwnerDeletion: bool = False  # noqa: N815
    controller: bool = False


class Metadata(msgspec.Struct, frozen=True):
    """What is read from the metadata without decoding the rest."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = {}
    deletionTimestamp: str | None = None  # noqa: N815
    finalizers: list[str] = []
    ownerReferences: list[_Reference] = []  # noqa: N815


class _Outer(msgspec.Struct):
    metadata: Metadata


_outer = msgspec.json.Decoder(_Outer).decode


class Entry:
    """One object at one resource version. Immutable; `object` and `metadata` are read from the bytes when needed."""

    __slots__ = ("_metadata", "_object", "form", "key", "rv", "value")

    def __init__(self, key: str, value: bytes, rv: int, form: Form) -> None:
        self.key = key
        self.value = value
        self.rv = rv
        self.form = form
        self._metadata: Metadata | None = None
        self._object: dict[str, Any] | None = None

    def encoded(self, form: Form | None = None) -> bytes:
        """Return the whole object as JSON; in the form of another version where only the name of it differs."""
        own = self.form
        return b'%b%d",%b' % ((form or own).full, self.rv, self.value[own.cut :])

    def item(self, form: Form | None = None) -> bytes:
        """Return the object as an item of a list."""
        own = self.form
        return b'%b%d",%b' % ((form or own).item, self.rv, self.value[own.cut :])

    @property
    def metadata(self) -> Metadata:
        """The parts of the metadata that the server itself looks at."""
        found = self._metadata
        if found is None:
            found = self._metadata = _outer(self.value).metadata
        return found

    def decoded(self) -> dict[str, Any]:
        """Return the object decoded anew, to be changed as one likes."""
        obj: dict[str, Any] = _decode(self.value)
        obj["metadata"]["resourceVersion"] = str(self.rv)
        return obj

    @property
    def object(self) -> dict[str, Any]:
        """The object decoded, to be shared and never changed; kept until `forget`."""
        found = self._object
        if found is None:
            found = self._object = self.decoded()
        return found

    @property
    def is_decoded(self) -> bool:
        """Whether `object` is kept decoded."""
        return self._object is not None

    def forget(self) -> None:
        """Keep the object no longer decoded."""
        self._object = None


class Encodings:
    """How often objects were encoded for the store, for the tests that say: once a write, never a read."""

    count = 0


encodings = Encodings()


def encode(obj: dict[str, Any]) -> bytes:
    """Return an object as it is stored: kind, version and metadata first, without a resource version.

    The one place where objects are encoded for the store.
    """
    encodings.count += 1
    return encoded(obj)


def encoded(obj: dict[str, Any]) -> bytes:
    """As `encode`, for what is not stored: an object converted for a watch."""
    metadata = obj["metadata"]
    if "resourceVersion" in metadata:
        metadata = {name: value for name, value in metadata.items() if name != "resourceVersion"}
    ordered = {"kind": obj["kind"], "apiVersion": obj["apiVersion"], "metadata": metadata}
    for name, value in obj.items():
        if name not in ordered:
            ordered[name] = value
    data = _encode(ordered)
    return data if obj["kind"] != _COMPARED else _as_go_writes(data)


def _as_go_writes(data: bytes) -> bytes:
    for sign, escaped in _ESCAPED.items():
        data = data.replace(sign, escaped)
    return data


def decode(data: bytes) -> dict[str, Any]:
    """Return stored bytes as an object."""
    obj: dict[str, Any] = _decode(data)
    return obj
