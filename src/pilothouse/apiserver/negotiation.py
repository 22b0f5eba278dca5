"""In which form an answer goes out: what an `Accept` header asks for against what is offered.

The rules are those of kube-apiserver: clauses by quality, then exact types before wildcards, then as written; a clause
whose `as` cannot be had there is passed over. One thing differs on purpose: JSON goes before protobuf wherever both
will do, since JSON is what is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal, TypeAlias

from pilothouse.apiserver.model import Request
from pilothouse.kinds.status import Details, NotAcceptable

__all__ = [
    "JSON",
    "NO_KINDS",
    "OBJECT_KINDS",
    "PROTOBUF",
    "YAML",
    "Negotiated",
    "negotiate",
    "wants_pretty",
]

MediaType: TypeAlias = Literal["json", "yaml", "protobuf"]
Kind: TypeAlias = tuple[str, str, str]

JSON: Final = "application/json"
YAML: Final = "application/yaml"
PROTOBUF: Final = "application/vnd.kubernetes.protobuf"
_NAMES: Final[dict[str, MediaType]] = {JSON: "json", YAML: "yaml", PROTOBUF: "protobuf"}
_TYPES: Final[dict[MediaType, str]] = {short: name for name, short in _NAMES.items()}

_META: Final = "meta.k8s.io"
NO_KINDS: Final[frozenset[Kind]] = frozenset()
"""For what cannot be had in another form."""
OBJECT_KINDS: Final[frozenset[Kind]] = frozenset(
    (_META, version, kind)
    for version in ("v1", "v1beta1")
    for kind in ("Table", "PartialObjectMetadata", "PartialObjectMetadataList")
)
"""What objects and lists can be had as, each a group, version and kind."""

_MEMO: Final = 256
_MEMO_LENGTH: Final = 1024
"""Characters of the longest header remembered, so that hostile ones do not fill memory."""


@dataclass(frozen=True, slots=True)
class Negotiated:
    """In which form to answer.

    as_: the kind to turn the object into, empty for itself; group and version are those of that kind.
    stream: the streaming schema asked for (`watch`). pretty: whether the header itself asked for indentation.
    """

    media_type: MediaType = "json"
    as_: str = ""
    group: str = ""
    version: str = ""
    stream: str = ""
    pretty: bool = False

    @property
    def content_type(self) -> str:
        """The `Content-Type` of the answer."""
        return _TYPES[self.media_type]

    @property
    def api_version(self) -> str:
        """The `apiVersion` of the kind that the object is turned into."""
        return f"{self.group}/{self.version}" if self.group else self.version


@dataclass(frozen=True, slots=True)
class _Clause:
    kind: str
    subtype: str
    quality: float
    parameters: dict[str, str]


def negotiate(
    accept: str,
    *,
    kinds: frozenset[Kind] = OBJECT_KINDS,
    offered: tuple[MediaType, ...] = ("json", "yaml", "protobuf"),
) -> Negotiated:
    """Choose the form of an answer by the text of an `Accept` header, empty where there is none.

    kinds: what the answer may be turned into. offered: the media types there are, the preferred one first.
    Raises NotAcceptable in the words of kube-apiserver.
    """
    if len(accept) > _MEMO_LENGTH:
        return _negotiate(accept, kinds, offered)
    return _remembered(accept, kinds, offered)


def _negotiate(accept: str, kinds: frozenset[Kind], offered: tuple[MediaType, ...]) -> Negotiated:
    names = [_TYPES[short] for short in offered]
    if not accept:
        return Negotiated(offered[0])
    if not _routed(accept, names):
        listed = ", ".join(names)
        raise NotAcceptable(f"406: Not Acceptable\n\nAvailable representations: {listed}", Details())
    clauses = sorted(_clauses(accept), key=lambda one: (-one.quality, one.kind == "*", one.subtype == "*"))
    for names_now in ([name for name in names if name != PROTOBUF], [name for name in names if name == PROTOBUF]):
        found = _first(clauses, names_now, kinds)
        if found is not None:
            return found
    raise NotAcceptable(f"only the following media types are accepted: {', '.join(names)}")


_remembered: Final = lru_cache(maxsize=_MEMO)(_negotiate)


def _routed(accept: str, names: Sequence[str]) -> bool:
    """Whether any clause names a type that is offered; that is asked before anything else."""
    for clause in accept.split(","):
        name = clause.partition(";")[0].strip()
        if name == "*/*" or name in names:
            return True
    return False


def _clauses(accept: str) -> Iterator[_Clause]:
    for part in accept.split(","):
        pieces = part.split(";")
        kind, slash, subtype = pieces[0].strip().partition("/")
        if not slash:
            if kind != "*":
                continue
            subtype = "*"
        parameters: dict[str, str] = {}
        quality = 1.0
        for piece in pieces[1:]:
            name, equals, value = piece.partition("=")
            if not equals:
                continue
            if name.strip() == "q":
                quality = _quality(value.strip())
            else:
                parameters[name.strip()] = value.strip()
        yield _Clause(kind, subtype, quality, parameters)


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 1.0
    # not a number would leave the order undefined
    return quality if quality == quality else 0.0  # noqa: PLR0124


def _first(clauses: Sequence[_Clause], names: Sequence[str], kinds: frozenset[Kind]) -> Negotiated | None:
    for clause in clauses:
        for name in names:
            kind, _, subtype = name.partition("/")
            if clause.kind == "*" or (clause.kind == kind and clause.subtype in ("*", subtype)):
                found = _accept(clause, _NAMES[name], kinds)
                if found is not None:
                    return found
    return None


def _accept(clause: _Clause, media_type: MediaType, kinds: frozenset[Kind]) -> Negotiated | None:
    given = clause.parameters
    kind = given.get("g", ""), given.get("v", ""), given.get("as", "")
    if any(name in given for name in ("g", "v", "as")) and kind not in kinds:
        return None
    if kind[2] == "Table" and media_type == "protobuf":
        return None
    stream = given.get("stream", "")
    if stream not in ("", "watch"):
        return None
    return Negotiated(media_type, kind[2], kind[0], kind[1], stream, given.get("pretty") == "1")


_TRUE: Final = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_READERS: Final = ("curl", "Wget", "Mozilla/5.0")


def wants_pretty(request: Request) -> bool:
    """Whether the answer is to be indented: as the query says, else for the tools in which people read it."""
    if "pretty=" in request.query_text:
        asked = request.param("pretty")
        if asked:
            return asked in _TRUE
    return request.headers.get("user-agent", "").startswith(_READERS)
