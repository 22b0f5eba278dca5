"""Numbers out of a gateway: what it answers at its admin socket becomes flows, and what is wrong is said."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from pilothouse.dashboard.gatewaynumbers import GatewayNumbers
from pilothouse.dashboard.numbers import Board, Flow, NoNumbers
from pilothouse.foundation.clock import FakeClock
from pilothouse.traffic.admin.answers import Counters, Measured, Top, TopRow


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    asked = parse_qs(urlsplit(head.split()[1]).query)
    by = tuple(asked["by"][0].split(","))
    names = {"route": "shop/web", "version": "web-canary", "region": "eu"}
    row = TopRow(names={name: names[name] for name in by}, measured=Measured(rate=12.0, error_ratio=0.01, p95=0.3))
    seconds = int(asked["seconds"][0])
    body = msgspec.json.encode(Top(seconds=seconds, by=by, whole=Measured(), counters=Counters(), rows=[row]))
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    writer.close()


async def test_flows_by_version_and_by_region(tmp_path: Path) -> None:
    server = await asyncio.start_unix_server(answer, tmp_path / "s")
    versions, regions = await GatewayNumbers(tmp_path / "s").look()
    assert versions == [Flow("shop/web", "web-canary", "", 12.0, 0.01, 0.3)]
    assert regions == [Flow("shop/web", "web-canary", "eu", 12.0, 0.01, 0.3)]
    server.close()
    await server.wait_closed()


async def test_no_gateway_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoNumbers, match="no gateway at"):
        await GatewayNumbers(tmp_path / "s").look()


class Counting:
    def __init__(self) -> None:
        self.looks = 0

    async def look(self) -> tuple[list[Flow], list[Flow]]:
        self.looks += 1
        if self.looks == 2:
            raise NoNumbers("away")
        return [], []


async def test_it_looks_once_a_second_and_only_while_somebody_does() -> None:
    clock, numbers = FakeClock(), Counting()
    board = Board(numbers, clock)
    await clock.run(5)
    assert numbers.looks == 0
    heard: list[str] = []
    board.take(first := lambda: heard.append(board.problem))
    board.take(second := lambda: None)
    await clock.run(3.5)
    assert (numbers.looks, heard, len(board.samples)) == (4, ["", "away", "", ""], 3)
    board.give_back(first)
    board.give_back(second)
    await clock.run(200)
    assert 60 <= numbers.looks <= 66
    board.close()
