"""One change of one object, with what it looks like to watchers: encoded once for all who see it the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from pilothouse.apiserver.cache.entries import Entry, Form
from pilothouse.apiserver.model import Piece

__all__ = ["ADDED", "BOOKMARK", "DELETED", "ERROR", "MODIFIED", "Change", "Encode", "json_line"]

ADDED = "ADDED"
MODIFIED = "MODIFIED"
DELETED = "DELETED"
BOOKMARK = "BOOKMARK"
ERROR = "ERROR"

Encode: TypeAlias = Callable[[str, Entry], bytes]
"""Makes one event of a stream from its type and object."""


def json_line(form: Form | None = None) -> Encode:
    """Return the encoder of plain JSON streams; `form` is that of another version which differs in name only."""

    def line(kind: str, entry: Entry) -> bytes:
        own = entry.form
        if not entry.key:
            # A bookmark: whole as it is, for there may be nothing in its metadata but the version.
            return b'{"type":"%b","object":%b}\n' % (kind.encode(), entry.value)
        return b'{"type":"%b","object":%b%d",%b}\n' % (
            kind.encode(),
            (form or own).full,
            entry.rv,
            entry.value[own.cut :],
        )

    return line


class Change:
    """One change: `entry` is the object after it, or as it last was where it was deleted; `old` the one before."""

    __slots__ = ("_matched", "_pieces", "deleted", "entry", "old", "rv")

    LEFT = "LEFT"
    """The type of the event for those whose selection the object left by it; they see it as deleted."""

    def __init__(self, entry: Entry, old: Entry | None, *, deleted: bool) -> None:
        self.rv = entry.rv
        self.entry = entry
        self.old = old
        self.deleted = deleted
        self._pieces: dict[Any, Piece] = {}
        self._matched: dict[Any, bool] | None = None

    @property
    def kind(self) -> str:
        """The type of the event for those who see all objects."""
        if self.deleted:
            return DELETED
        return ADDED if self.old is None else MODIFIED

    def piece(self, kind: str, encode: Encode) -> Piece:
        """Return the event as one piece of a stream; made once for each type and encoder."""
        found = self._pieces.get((kind, encode))
        if found is None:
            if kind is self.LEFT and self.old is not None:
                made = encode(DELETED, Entry(self.old.key, self.old.value, self.rv, self.old.form))
            else:
                made = encode(kind, self.entry)
            found = self._pieces[kind, encode] = Piece(made)
        return found

    def matched(self, matches: Callable[[Entry], bool], entry: Entry) -> bool:
        """Return whether a selection takes one of the two objects; asked once for all who select alike."""
        known = self._matched
        if known is None:
            known = self._matched = {}
        key = (matches, entry is self.entry)
        found = known.get(key)
        if found is None:
            found = known[key] = matches(entry)
        return found
