"""The guestbook's second tier: keeps entries on a volume; an entry that was acknowledged is on the disk.

POST /entries {"id", "name", "text"} answers 201, or 200 for an id that is there already, so that asking again is safe.
GET /entries?limit=20&before=NUMBER gives the newest first.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
import time
from typing import Any

from web import Answer, Refused, Request, json_answer, log, serve

__all__ = ["Book", "Damaged", "Storage"]

_MAX_ENTRIES = 100_000
_MAX_PAGE = 1_000
_LENGTHS = {"id": 64, "name": 80, "text": 2_000}


class Damaged(Exception):
    """The file has a line that nobody wrote so."""


class Book:
    """Entries in a file, one JSON document a line. Only one process has it. Raises OSError, `Damaged`."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, "entries.jsonl")
        self._file = open(self._path, "a+b", buffering=0)  # noqa: SIM115  # open as long as the program runs
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._lock = threading.Lock()
        self._entries: list[dict[str, Any]] = []
        self._by_id: dict[str, dict[str, Any]] = {}
        self._size = self._read()
        self._keep_whole_lines()

    def _read(self) -> int:
        self._file.seek(0)
        size = 0
        for number, line in enumerate(self._file.read().splitlines(keepends=True), 1):
            if not line.endswith(b"\n"):
                break  # cut short by a kill: it was never acknowledged
            try:
                entry = json.loads(line)
                self._by_id[entry["id"]] = entry
            except (ValueError, KeyError, TypeError) as error:
                raise Damaged(f"{self._path}: line {number} is damaged: {error!r}") from None
            self._entries.append(entry)
            size += len(line)
        return size

    def _keep_whole_lines(self) -> None:
        self._file.truncate(self._size)
        os.fsync(self._file.fileno())
        # The file's name has to last, too.
        directory = os.open(os.path.dirname(self._path), os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def add(self, fields: dict[str, str]) -> tuple[dict[str, Any], bool]:
        """Keep an entry; return it, and whether it is new. Raises `Refused` where there is no room."""
        with self._lock:
            if fields["id"] in self._by_id:
                return self._by_id[fields["id"]], False
            if len(self._entries) >= _MAX_ENTRIES:
                raise Refused(507, f"the book is full: it has {_MAX_ENTRIES} entries")
            entry = {"number": len(self._entries) + 1, "time": round(time.time(), 3), **fields}
            self._append(json.dumps(entry).encode() + b"\n")
            self._entries.append(entry)
            self._by_id[fields["id"]] = entry
            return entry, True

    def _append(self, line: bytes) -> None:
        try:
            whole, why = self._file.write(line) == len(line), "only a part of it"
        except OSError as error:
            whole, why = False, str(error.strerror)
        if not whole:
            self._file.truncate(self._size)
            raise Refused(507, f"the entry could not be written: {why}")
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            # What is on the disk is not known now; a new start reads it.
            log(f"error: {self._path}: {error.strerror}")
            os._exit(1)
        self._size += len(line)

    def page(self, limit: int, before: int) -> dict[str, Any]:
        """Return up to `limit` entries, the newest first; before: with lower numbers than that, 0 for all."""
        with self._lock:
            end = min(before - 1, len(self._entries)) if before else len(self._entries)
            return {"total": len(self._entries), "entries": self._entries[max(0, end - limit) : end][::-1]}


class Storage:
    """The book's interface to the other tier."""

    def __init__(self, book: Book, version: str) -> None:
        self.version = version
        self._book = book

    def answer(self, request: Request) -> Answer:
        """Answer a request. Raises `Refused`."""
        if request.path != "/entries":
            raise Refused(404, f"{request.path}: there is only /entries")
        if request.method == "GET":
            limit = _number(request.query, "limit", 20, _MAX_PAGE)
            return json_answer(200, self._book.page(limit, _number(request.query, "before", 0, sys.maxsize)))
        entry, is_new = self._book.add(_fields(request.json()))
        return json_answer(201 if is_new else 200, entry)


def _fields(body: dict[str, Any]) -> dict[str, str]:
    for name, length in _LENGTHS.items():
        value = body.get(name)
        if not isinstance(value, str) or not 0 < len(value) <= length:
            raise Refused(400, f"{name}: want a text of 1 to {length} characters")
    return {name: body[name] for name in _LENGTHS}


def _number(query: dict[str, str], name: str, default: int, most: int) -> int:
    text = query.get(name, str(default))
    if not (text.isascii() and text.isdigit() and int(text) <= most):
        raise Refused(400, f"{name}: want a number up to {most}")
    return int(text)


def main() -> int:
    """Run the tier; return the exit code."""
    directory = os.environ.get("DATA_DIR", "/data")
    try:
        book = Book(directory)
    except BlockingIOError:
        log(f"error: {directory}: another process has the book")
        return 1
    except (OSError, Damaged) as error:
        log(f"error: {error}")
        return 1
    log(f"{book.page(0, 0)['total']} entries in {directory}")
    return serve(Storage(book, os.environ.get("VERSION", "0")), drain_seconds=0.0)


if __name__ == "__main__":
    sys.exit(main())
