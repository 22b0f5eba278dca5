"""The clients of the shop's demo: what they record of answers, failures and silence."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilothouse.cli.shopdemo import load
from pilothouse.cli.shopdemo.load import REGION_HEADER, Clients
from pilothouse.cli.shopdemo.records import REGIONS, Row, read_rows

ANSWER = "HTTP/1.1 {status} x\r\nx-shop-version: 7\r\nCONTENT-LENGTH: 5\r\n{more}\r\nhel"
RATES = {"cn-east": 300.0, "cn-north": 100.0, "us-west": 100.0}


class Server:
    """Answers with a status, in two pieces; every so manyth answer closes. silent: never answers."""

    def __init__(self, status: int = 200, close_each: int = 0, *, silent: bool = False, hang_up: bool = False) -> None:
        self.status, self.close_each, self.silent, self.hang_up = status, close_each, silent, hang_up
        self.regions: Counter[str] = Counter()
        self.orders = self.count = self.connections = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self.answer(reader, writer):
                pass
        except (EOFError, OSError):
            pass
        finally:
            writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.count += 1
        self.regions[head.partition(f"{REGION_HEADER}: ")[2].partition("\r\n")[0]] += 1
        if head.startswith("POST"):
            self.orders += 1
            await reader.readexactly(int(head.partition("Content-Length: ")[2].partition("\r\n")[0]))
        if self.silent:
            await asyncio.sleep(60)
        if self.hang_up:
            return False
        closes = self.close_each and self.count % self.close_each == 0
        writer.write(ANSWER.format(status=self.status, more="Connection: Close\r\n" if closes else "").encode())
        await writer.drain()
        await asyncio.sleep(0)
        writer.write(b"lo")
        return not closes


@asynccontextmanager
async def served(server: Server) -> AsyncIterator[str]:
    listening = await asyncio.start_server(server.connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


async def rows_from(url: str, path: Path, count: int) -> list[Row]:
    """Return what was recorded when at least so many requests were."""
    stopping = asyncio.Event()
    with path.open("wb", buffering=0) as file:
        running = asyncio.create_task(Clients(url, RATES).run(stopping, file))
        async with asyncio.timeout(30):
            while len(read_rows(path)) < count:  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.02)
            stopping.set()
            await running
    return read_rows(path)


async def test_each_request_is_recorded_with_region_version_and_status(tmp_path: Path) -> None:
    server = Server(201, close_each=20)
    async with served(server) as url:
        rows = await rows_from(url, tmp_path / "rows", 300)
    assert {(each.status, each.version) for each in rows} == {(201, 7)}
    assert Counter(REGIONS[each.region] for each in rows) == server.regions
    assert server.regions["cn-east"] > max(server.regions["cn-north"], server.regions["us-west"])
    assert all(0 < each.latency < 20 for each in rows)
    assert [each.sent for each in rows] == sorted(each.sent for each in rows)
    assert server.orders == len(rows) // 50
    assert {each.region for each in rows if each.user // 10_000 != each.region} == set()
    assert len({each.user for each in rows}) > 250
    assert server.connections >= 72  # half of each region's at least


async def test_what_is_hung_up_on_or_refused_is_a_failure(tmp_path: Path) -> None:
    server = Server(hang_up=True)
    async with served(server) as url:
        rows = await rows_from(url, tmp_path / "rows", 50)
    assert {(each.status, each.version) for each in rows} == {(0, 0)}
    rows = await rows_from(url, tmp_path / "more", 50)  # nobody listens there now
    assert {each.status for each in rows} == {0}


async def test_silence_is_a_failure_and_does_not_hold_up_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(load, "_MOST_CONNECTIONS", 100)
    async with served(Server(silent=True)) as url:
        rows = await rows_from(url, tmp_path / "rows", 200)
    assert {each.status for each in rows} == {0}
    waited = [each.latency for each in rows if each.latency > 0]
    assert waited
    assert max(waited) >= 0.3


async def test_a_server_that_is_back_is_used_again(tmp_path: Path) -> None:
    server = Server(status=503)
    async with served(server) as url:
        stopping = asyncio.Event()
        path = tmp_path / "rows"
        with path.open("wb", buffering=0) as file:
            running = asyncio.create_task(Clients(url, RATES).run(stopping, file))
            async with asyncio.timeout(30):
                for status in (503, 200):
                    server.status = status
                    while status not in {each.status for each in read_rows(path)}:  # noqa: ASYNC110
                        await asyncio.sleep(0.02)
                stopping.set()
                await running
    assert {each.status for each in read_rows(path)} == {503, 200}
