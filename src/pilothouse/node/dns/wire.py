"""What a question looks like on the wire: just enough of RFC 1035 and 6891 to find the answer that is kept encoded."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

__all__ = [
    "FORMERR",
    "NOERROR",
    "NOTIMP",
    "NXDOMAIN",
    "REFUSED",
    "SERVFAIL",
    "BadQuery",
    "Query",
    "Tail",
    "error",
    "parse",
    "reply",
    "rotated",
    "tail_of",
    "ttl_places",
    "without_opt",
]

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
_HEADER: Final = struct.Struct("!HHHHHH")
_OPT: Final = 41
_LEAST_UDP: Final = 512
MOST_UDP: Final = 1_232
_ADDRESS_SIZES: Final = {1: 16, 28: 28}


class BadQuery(Exception):
    """Not a question that can be answered; `code` says it to who asked, None says nothing."""

    def __init__(self, code: int | None) -> None:
        super().__init__(code)
        self.code = code


class Query(NamedTuple):
    """A question. `name` is in lower case without the last dot, `question` as it came; `size` is what UDP may carry."""

    id: int
    flags: int
    name: str
    kind: int
    cls: int
    question: bytes
    has_edns: bool
    size: int
    version: int


class Tail(NamedTuple):
    """An answer behind the question: its code and the sections' counts, and their bytes; names point into the question.

    `is_ours`: whether the answer is authoritative.
    """

    code: int
    answers: int
    authority: int
    additional: int
    data: bytes
    is_ours: bool = True


def parse(data: bytes) -> Query:
    """Return the question of a message. Raises `BadQuery`."""
    if len(data) < 12:
        raise BadQuery(None)
    number, flags, questions, answers, authority, additional = _HEADER.unpack_from(data)
    if flags & 0x8000:
        raise BadQuery(None)  # an answer: whoever sends one to us would get answers to answers
    if flags & 0x7800:
        raise BadQuery(NOTIMP)
    if questions != 1 or answers or authority or additional > 2:
        raise BadQuery(FORMERR)
    try:
        end = _name_end(data, 12)
        kind, cls = struct.unpack_from("!HH", data, end)
    except (IndexError, struct.error):
        raise BadQuery(FORMERR) from None
    name = _shown(data, 12, end)
    has_edns, size, version = _edns(data, end + 4, additional)
    return Query(number, flags, name, kind, cls, data[12 : end + 4], has_edns, size, version)


def reply(query: Query, tail: Tail, *, most: int) -> bytes:
    """Return a whole answer of at most `most` bytes: what does not fit is left out and marked as cut."""
    flags = 0x8080 | (query.flags & 0x0110) | (tail.code & 0x0F) | (0x0400 if tail.is_ours else 0)
    opt = _opt(tail.code) if query.has_edns else b""
    extra = 1 if opt else 0
    if 12 + len(query.question) + len(tail.data) + len(opt) > most:
        head = _HEADER.pack(query.id, flags | 0x0200, 1, 0, 0, extra)
        return head + query.question + opt
    head = _HEADER.pack(query.id, flags, 1, tail.answers, tail.authority, tail.additional + extra)
    return head + query.question + tail.data + opt


def error(data: bytes, code: int) -> bytes:
    """Return an answer without question to a message that cannot be read."""
    number, flags = struct.unpack_from("!HH", data)
    return _HEADER.pack(number, 0x8080 | (flags & 0x7910) | code, 0, 0, 0, 0)


def rotated(tail: Tail, kind: int, turn: int) -> Tail:
    """Return an answer of several addresses, beginning with another one each turn, so that load is spread."""
    size = _ADDRESS_SIZES.get(kind)
    if size is None or tail.answers < 2 or len(tail.data) != size * tail.answers:
        return tail
    at = turn % tail.answers * size
    return tail._replace(data=tail.data[at:] + tail.data[:at])


def ttl_places(data: bytes) -> list[tuple[int, int]]:
    """Return place and value of each record's time to live in an answer. Raises `BadQuery` for one that is cut off."""
    _, _, questions, answers, authority, additional = _HEADER.unpack_from(data)
    found = []
    try:
        at = 12
        for _ in range(questions):
            at = _name_end(data, at) + 4
        for _ in range(answers + authority + additional):
            at = _name_end(data, at)
            kind, _, ttl, length = struct.unpack_from("!HHIH", data, at)
            if kind != _OPT:
                found.append((at + 4, ttl))
            at += 10 + length
    except (IndexError, struct.error):
        raise BadQuery(None) from None
    if at > len(data):
        raise BadQuery(None)
    return found


def tail_of(answer: bytes, question: int, *, is_ours: bool) -> Tail:
    """Return what stands behind the question, of `question` bytes, of a whole answer."""
    _, flags, _, answers, authority, additional = _HEADER.unpack_from(answer)
    return Tail(flags & 0x0F, answers, authority, additional, answer[12 + question :], is_ours)


def without_opt(answer: bytes) -> bytes:
    """Return an answer without its own EDNS record, which is between two neighbours alone. Raises `BadQuery`."""
    head = _HEADER.unpack_from(answer)
    try:
        at = 12
        for _ in range(head[2]):
            at = _name_end(answer, at) + 4
        for _ in range(sum(head[3:])):
            start = at
            at = _name_end(answer, at)
            kind, _, _, length = struct.unpack_from("!HHIH", answer, at)
            at += 10 + length
            if kind == _OPT:
                cut = _HEADER.pack(*head[:5], head[5] - 1)
                return cut + answer[12:start] + answer[at:]
    except (IndexError, struct.error):
        raise BadQuery(None) from None
    return answer


def _name_end(data: bytes, at: int) -> int:
    """Return where a name ends."""
    start = at
    while length := data[at]:
        if length >= 0xC0:
            return at + 2
        if length > 63 or at - start > 255:
            raise BadQuery(FORMERR)
        at += length + 1
    return at + 1


def _shown(data: bytes, at: int, end: int) -> str:
    labels = []
    while (length := data[at]) and at < end:
        if length >= 0xC0:
            raise BadQuery(FORMERR)  # a question has nothing before it to point to
        label = data[at + 1 : at + 1 + length]
        if b"." in label:
            raise BadQuery(REFUSED)  # nobody's name here, and it would read as two labels
        labels.append(label)
        at += length + 1
    return b".".join(labels).lower().decode("latin-1")


def _edns(data: bytes, at: int, additional: int) -> tuple[bool, int, int]:
    for _ in range(additional):
        try:
            is_root = data[at] == 0
            at = _name_end(data, at)
            kind, size, ttl, length = struct.unpack_from("!HHIH", data, at)
        except (IndexError, struct.error):
            raise BadQuery(FORMERR) from None
        at += 10 + length
        if kind == _OPT:
            if not is_root or at > len(data):
                raise BadQuery(FORMERR)
            return True, min(max(size, _LEAST_UDP), MOST_UDP), ttl >> 16 & 0xFF
    return False, _LEAST_UDP, 0


def _opt(code: int) -> bytes:
    return b"\0" + struct.pack("!HHIH", _OPT, MOST_UDP, code >> 4 << 24, 0)
