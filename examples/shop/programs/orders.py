"""The shop's orders, in a database on a volume; an order that was acknowledged is on the disk.

POST /orders {"id", "product", "count"} answers 201, or 200 for an id that is there already, so that asking again is
safe. GET /orders?limit=20 gives the newest first, and how many there are.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
from typing import Any

from serving import Answer, Refused, Request, json_answer, log, serve

__all__ = ["Book", "Orders"]

_MAX_PAGE = 10_000
_MAX_COUNT = 100
_COLUMNS = ("number", "id", "product", "count")


class Book:
    """The database. Raises sqlite3.Error."""

    def __init__(self, directory: str) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(os.path.join(directory, "orders.db"), check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")  # a commit is on the disk
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS orders "
            "(number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE, product TEXT, count INTEGER)"
        )

    def add(self, key: str, product: str, count: int) -> tuple[dict[str, Any], bool]:
        """Keep an order; return it, and whether it is new."""
        with self._lock, self._database:
            added = self._database.execute(
                "INSERT INTO orders (id, product, count) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING",
                (key, product, count),
            )
            row = self._database.execute(
                "SELECT number, id, product, count FROM orders WHERE id = ?", (key,)
            ).fetchone()
        return _order(row), added.rowcount == 1

    def page(self, limit: int) -> dict[str, Any]:
        """Return up to `limit` orders, the newest first."""
        with self._lock:
            (total,) = self._database.execute("SELECT count(*) FROM orders").fetchone()
            rows = self._database.execute(
                "SELECT number, id, product, count FROM orders ORDER BY number DESC LIMIT ?", (limit,)
            )
            return {"total": total, "orders": [_order(each) for each in rows]}


def _order(row: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip(_COLUMNS, row, strict=True))


class Orders:
    """The book's interface to other services."""

    def __init__(self, book: Book) -> None:
        self._book = book

    async def answer(self, request: Request) -> Answer:
        """Answer a request. Raises `Refused`."""
        match request.method, request.path:
            case "GET", "/orders":
                limit = request.query.get("limit", "20")
                if not (limit.isascii() and limit.isdigit() and int(limit) <= _MAX_PAGE):
                    raise Refused(400, f"limit: want a number up to {_MAX_PAGE}")
                return json_answer(200, await asyncio.to_thread(self._book.page, int(limit)))
            case "POST", "/orders":
                order, is_new = await asyncio.to_thread(self._book.add, *_fields(request.json()))
                return json_answer(201 if is_new else 200, order)
            case _:
                raise Refused(404, f"{request.method} {request.path}: there is only /orders")


def _fields(body: dict[str, Any]) -> tuple[str, str, int]:
    key, product, count = body.get("id"), body.get("product"), body.get("count")
    for name, value in (("id", key), ("product", product)):
        if not isinstance(value, str) or not 0 < len(value) <= 64:
            raise Refused(400, f"{name}: want a text of 1 to 64 characters")
    if not isinstance(count, int) or isinstance(count, bool) or not 0 < count <= _MAX_COUNT:
        raise Refused(400, f"count: want a number from 1 to {_MAX_COUNT}")
    return str(key), str(product), count


def main() -> int:
    """Run the service; return the exit code."""
    directory = os.environ.get("DATA_DIR", "/data")
    try:
        book = Book(directory)
    except sqlite3.Error as error:
        log(f"error: {directory}: {error}")
        return 1
    log(f"{book.page(0)['total']} orders in {directory}")
    return serve(Orders(book).answer)


if __name__ == "__main__":
    sys.exit(main())
