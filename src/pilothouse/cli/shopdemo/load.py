"""The clients of the demo: `python -m pilothouse.cli.shopdemo.load`, a process of its own until it is told to stop.

Open loop: requests are sent when they are due, however the shop fares, and a latency counts from then. They come at
random (Poisson), on many connections, each of which is used for a while and then made anew. Nothing is tried again.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urlsplit

from .records import REGIONS, Row, pack

__all__ = ["REGION_HEADER", "Clients", "main"]

REGION_HEADER: Final = "X-Client-Region"
_USERS: Final = 10_000
"""People in each region, any of whom sends a request."""
_CONNECTIONS: Final = 48
"""Of a region at first."""
_MOST_CONNECTIONS: Final = 512
_USES: Final = 300
_ORDERS: Final = 50
"""Each so manyth request orders something."""
_TIMEOUT_SECONDS: Final = 10.0
_TICK_SECONDS: Final = 0.002
_FLUSH_SECONDS: Final = 0.2
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_VERSION: Final = re.compile(rb"\r\nx-shop-version: *(\d+)", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_ORDER: Final = b'{"product": "tea", "count": 1}'


class _Connection(asyncio.Protocol):
    """A connection of a region: at most one request at a time."""

    def __init__(self, region: int, ended: Callable[[_Connection, int, int], None]) -> None:
        self.region = region
        self.sent = 0.0
        self.user = 0
        self.is_busy = False
        self.is_open = False
        self.uses = 0
        self._ended = ended
        self._waiting = b""
        self._transport: asyncio.Transport | None = None
        self._data = b""

    def ask(self, request: bytes, user: int, due: float) -> None:
        """Send a request, at once or as soon as the connection is there."""
        self.sent, self.user, self.is_busy, self.uses, self._data = due, user, True, self.uses + 1, b""
        if self._transport is None:
            self._waiting = request
        else:
            self._transport.write(request)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # of TCP
        self._transport, self.is_open = transport, True
        if self._waiting:
            transport.write(self._waiting)

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0 or not self.is_busy:
            return
        head = self._data[: end + 2]
        length = _LENGTH.search(head)
        if length is None or len(self._data) < end + 4 + int(length[1]):
            return
        version = _VERSION.search(head)
        if _CLOSE.search(head) or self.uses >= _USES:
            self.close()
        self._end(int(head[9:12]), int(version[1]) if version else 0)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self.is_busy:
            self._end(0, 0)

    def give_up(self) -> None:
        """End it with what is under way."""
        self.close()
        if self.is_busy:
            self._end(0, 0)

    def close(self) -> None:
        """End it."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def _end(self, status: int, version: int) -> None:
        self.is_busy = False
        self._ended(self, status, version)


class Clients:
    """Sends requests to an address from now on. rates: requests a second of each region."""

    def __init__(self, url: str, rates: Mapping[str, float], seed: int = 1) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 80
        self._rates: Final = [rates.get(region, 0.0) for region in REGIONS]
        self._random = random.Random(seed)  # noqa: S311  # the same each time
        self._idle: list[deque[_Connection]] = [deque() for _ in REGIONS]
        self._busy: set[_Connection] = set()
        self._count: Counter[int] = Counter()
        self._connecting: set[asyncio.Task[None]] = set()
        self._rows: list[Row] = []
        self._requests = [self._written(region) for region in REGIONS]
        self._offset = time.time() - time.monotonic()

    def _written(self, region: str) -> tuple[bytes, bytes]:
        head = f"HTTP/1.1\r\nHost: {self._address[0]}\r\n{REGION_HEADER}: {region}\r\n"
        order = f"POST /api/orders {head}Content-Type: application/json\r\nContent-Length: {len(_ORDER)}\r\n\r\n"
        return f"GET / {head}\r\n".encode(), order.encode() + _ORDER

    async def run(self, stopping: asyncio.Event, file: BinaryIO) -> None:
        """Send until told to stop, wait for what is under way, and write all rows to the file as they come."""
        ticking = asyncio.create_task(self._flush(file))
        due, number, total = time.monotonic(), 0, sum(self._rates)
        while not stopping.is_set():
            now = time.monotonic()
            while due <= now:
                (region,) = self._random.choices(range(len(REGIONS)), self._rates)
                self._send(region, due, is_order=number % _ORDERS == _ORDERS - 1)
                number += 1
                due += self._random.expovariate(total)
            await asyncio.sleep(max(_TICK_SECONDS, due - now))
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while self._busy and time.monotonic() < deadline:  # noqa: ASYNC110  # once, at the end
            await asyncio.sleep(_TICK_SECONDS)
        ticking.cancel()
        self._write(file)
        self._close()

    def _send(self, region: int, due: float, *, is_order: bool) -> None:
        user = region * _USERS + self._random.randrange(_USERS)
        connection = self._connection(region)
        if connection is None:
            self._rows.append(Row(due + self._offset, 0.0, user, 0, region, 0))
            return
        self._busy.add(connection)
        connection.ask(self._requests[region][is_order], user, due)

    def _connection(self, region: int) -> _Connection | None:
        """Return the connection that was idle longest, or a new one; None where there are too many."""
        idle = self._idle[region]
        while idle and (self._count[region] >= _CONNECTIONS or len(idle) > _CONNECTIONS // 2):
            found = idle.popleft()
            if found.is_open:
                return found
            self._count[region] -= 1
        if self._count[region] >= _MOST_CONNECTIONS:
            return None
        self._count[region] += 1
        made = _Connection(region, self._ended)
        task = asyncio.get_running_loop().create_task(self._connect(made))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return made

    async def _connect(self, made: _Connection) -> None:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                await asyncio.get_running_loop().create_connection(lambda: made, *self._address)
        except (OSError, TimeoutError):
            made.give_up()

    def _ended(self, connection: _Connection, status: int, version: int) -> None:
        latency = time.monotonic() - connection.sent
        row = Row(connection.sent + self._offset, latency, connection.user, status, connection.region, version)
        self._rows.append(row)
        self._busy.discard(connection)
        if connection.is_open:
            self._idle[connection.region].append(connection)
        else:
            self._count[connection.region] -= 1

    async def _flush(self, file: BinaryIO) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self._write(file)
            late = time.monotonic() - _TIMEOUT_SECONDS
            for connection in [each for each in self._busy if each.sent < late]:
                connection.give_up()

    def _write(self, file: BinaryIO) -> None:
        rows, self._rows = self._rows, []
        file.write(pack(rows))

    def _close(self) -> None:
        for connection in (*self._busy, *(each for idle in self._idle for each in idle)):
            connection.give_up()


async def _run(clients: Clients, path: Path) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    with open(path, "wb", buffering=0) as file:  # noqa: ASYNC230  # small and local
        await clients.run(stopping, file)


def main(arguments: Sequence[str] | None = None) -> None:
    """Send requests until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("file", type=Path, help="where rows are written")
    parser.add_argument("--rate", action="append", default=[], metavar="REGION=NUMBER")
    given = parser.parse_args(arguments)
    rates = {region: float(rate) for region, _, rate in (each.partition("=") for each in given.rate)}
    asyncio.run(_run(Clients(given.url, rates), given.file))


if __name__ == "__main__":
    main()
