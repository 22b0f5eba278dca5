"""The gateway's parent with worker processes: configurations under load, exact shares, numbers, workers that die."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pilothouse.traffic import gateway as gateway_module
from pilothouse.traffic.config import (
    Certificate,
    Configuration,
    HeaderChange,
    HttpRule,
    Listener,
    ListenerTls,
    RateLimit,
    RequestHeaders,
    Weighted,
)
from pilothouse.traffic.gateway import Gateway, GatewayOptions, InvalidConfiguration
from pilothouse.traffic.plane.messages import Numbers
from support.loglines import logged
from support.planekit import PATIENCE, Origin, configuration, free_port

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%b"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Numbered:
    def __init__(self) -> None:
        self.numbers: list[tuple[int, Numbers]] = []
        self.lines: list[bytes] = []

    def total(self) -> Counter[tuple[str, int]]:
        found: Counter[tuple[str, int]] = Counter()
        for _, numbers in self.numbers:
            for counted in numbers.counted:
                for code, count in counted.codes.items():
                    found[counted.version, code] += count
        return found


@pytest.fixture
def told() -> Numbered:
    return Numbered()


@pytest.fixture
async def gateway(told: Numbered) -> AsyncIterator[Gateway]:
    options = GatewayOptions(
        workers=2,
        drain_seconds=5,
        on_numbers=lambda worker, numbers: told.numbers.append((worker, numbers)),
        on_lines=lambda lines, lost: told.lines.extend(lines),
    )
    made = Gateway(options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bytes]:
    writer.write(GET)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(head.split(b" ")[1]), await reader.readexactly(size)


async def until(true: object, what: str = "it") -> None:
    end = time.monotonic() + PATIENCE
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end, f"{what} did not come about"
        await asyncio.sleep(0.01)


def two(one: int, other: int, port: int, weights: tuple[int, int], generation: int) -> Configuration:
    rule = HttpRule(
        backends=(
            Weighted(backend="b", version="stable", weight=weights[0]),
            Weighted(backend="c", version="canary", weight=weights[1]),
        )
    )
    config = configuration(one, port=port, rule=rule, generation=generation)
    config.backends["c"] = configuration(other).backends["b"]
    return config


async def test_shares_are_exact_over_all_workers(gateway: Gateway, told: Numbered) -> None:
    port = free_port()
    with Origin.answering(OK % b"s") as stable, Origin.answering(OK % b"c") as canary:
        await gateway.push(two(stable.port, canary.port, port, (937, 63), 1))
        connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(8)]

        async def some(pair: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> list[bytes]:
            return [(await ask(*pair))[1] for _ in range(125)]

        answers = Counter(each for some_ in await asyncio.gather(*map(some, connections)) for each in some_)
        assert answers == {b"s": 937, b"c": 63}
        await until(lambda: sum(told.total().values()) == 1000, "all numbers")
        assert told.total() == {("stable", 200): 937, ("canary", 200): 63}
        later = time.monotonic() + 1
        assert gateway.windows.over(60, later, version="canary").requests == 63
        assert gateway.windows.over(60, later, route="default/r").p99 > 0
        assert sum(counted.in_flight for _, numbers in told.numbers[-2:] for counted in numbers.counted) == 0
        for _, writer in connections:
            writer.close()


async def test_changes_under_load_fail_no_request(gateway: Gateway) -> None:
    port = free_port()
    statuses: Counter[int] = Counter()
    is_over = False

    async def load() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not is_over:
            statuses[(await ask(reader, writer))[0]] += 1
        writer.close()

    with Origin.answering(OK % b"s") as one, Origin.answering(OK % b"c") as other:
        await gateway.push(two(one.port, other.port, port, (1, 1), 1))
        async with asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(load())
            slowest = 0.0
            for generation in range(2, 22):
                begun = time.monotonic()
                extra = Listener(name="x", port=free_port(), address="127.0.0.1", protocol="HTTP")
                config = two(one.port, other.port, port, (generation % 3, 1), generation)
                if generation % 2:
                    config = Configuration(
                        generation=generation,
                        listeners=(*config.listeners, extra),
                        routes=config.routes,
                        backends=config.backends,
                    )
                await gateway.push(config)
                slowest = max(slowest, time.monotonic() - begun)
                await asyncio.sleep(0.02)
            is_over = True
    assert set(statuses) == {200}
    assert statuses[200] > 100
    assert gateway.configuration.generation == 21


async def test_bad_configurations_leave_the_old_one(gateway: Gateway) -> None:
    port = free_port()
    with Origin.answering(OK % b"s") as origin:
        good = configuration(origin.port, port=port)
        await gateway.push(good)
        tls = ListenerTls(certificates=("c",))
        bad = configuration(origin.port, port=port, generation=2, listener={"protocol": "HTTPS", "tls": tls})
        with pytest.raises(InvalidConfiguration, match="listener 'web': there is no certificate 'c'"):
            await gateway.push(bad)
        bad.certificates["c"] = Certificate(chain=b"x", key=b"secret")
        with pytest.raises(InvalidConfiguration, match="listener 'web': certificate 'c'") as error:
            await gateway.push(bad)
        assert "secret" not in str(error.value)
        change = RequestHeaders(change=HeaderChange(set=(("x-a", "b\r\nx-c: d"),)))
        with pytest.raises(InvalidConfiguration, match=r"route 'default/r': rules\[0\]\.filters"):
            await gateway.push(configuration(origin.port, port=port, generation=3, rule=HttpRule(filters=(change,))))
        with pytest.raises(InvalidConfiguration, match=f"listener 'web': port {origin.port} cannot be had"):
            await gateway.push(configuration(origin.port, port=origin.port, generation=3))
        assert gateway.configuration == good
        pair = await asyncio.open_connection("127.0.0.1", port)
        assert await ask(*pair) == (200, b"s")
        pair[1].close()


async def test_workers_that_die_are_started_again(gateway: Gateway) -> None:
    port = free_port()
    with Origin.answering(OK % b"s") as origin:
        await gateway.push(configuration(origin.port, port=port))
        before = set(gateway.pids)
        with logged(gateway_module) as records:
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            await until(lambda: len(set(gateway.pids) - before) == 2, "new workers")
            pair = await asyncio.open_connection("127.0.0.1", port)
            assert await ask(*pair) == (200, b"s")
            pair[1].close()
        assert any("started again" in str(record) for record in records)
        await gateway.push(configuration(origin.port, port=port, generation=2))


async def test_a_worker_that_is_started_anew_gets_the_whole_and_the_others_what_changed(gateway: Gateway) -> None:
    port = free_port()
    with Origin.answering(OK % b"s") as one, Origin.answering(OK % b"c") as other:
        for generation in range(1, 6):
            weights = (generation % 2, (generation + 1) % 2)
            killed = gateway.pids[generation % 2]
            if generation > 1:
                os.kill(killed, signal.SIGKILL)
            await gateway.push(two(one.port, other.port, port, weights, generation))
            await until(lambda gone=killed, first=generation == 1: first or gone not in gateway.pids, "a new worker")
            connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(6)]
            answers = {(await ask(*pair))[1] for pair in connections}
            assert answers == {b"s" if weights[0] else b"c"}
            for _, writer in connections:
                writer.close()


async def test_counts_of_shares_go_on_over_pushes_that_are_not_taken_up(gateway: Gateway) -> None:
    port = free_port()
    with Origin.answering(OK % b"s") as one, Origin.answering(OK % b"c") as other:
        await gateway.push(two(one.port, other.port, port, (1, 3), 1))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        answers = [(await ask(reader, writer))[1] for _ in range(2)]
        bad = two(one.port, other.port, one.port, (1, 1), 2)
        with pytest.raises(InvalidConfiguration):
            await gateway.push(bad)
        await gateway.push(two(one.port, other.port, port, (1, 3), 2))
        answers += [(await ask(reader, writer))[1] for _ in range(2)]
        assert Counter(answers) == {b"s": 1, b"c": 3}
        writer.close()


async def test_drain_lets_requests_end(told: Numbered) -> None:
    port, gate = free_port(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await gate.wait()
        writer.write(OK % b"s")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    made = Gateway(GatewayOptions(workers=1, on_numbers=lambda worker, numbers: told.numbers.append((worker, numbers))))
    await made.start()
    await made.push(configuration(server.sockets[0].getsockname()[1], port=port))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    idle = await asyncio.open_connection("127.0.0.1", port)
    asking = asyncio.create_task(ask(reader, writer))
    await asyncio.sleep(0.1)
    stopping = asyncio.create_task(made.stop())
    assert await asyncio.wait_for(idle[0].read(), PATIENCE) == b""
    gate.set()
    assert (await asking)[0] == 200
    await asyncio.wait_for(stopping, PATIENCE)
    assert told.total() == {("stable", 200): 1}
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    for each in (writer, idle[1]):
        each.close()
    server.close()


async def test_access_log(gateway: Gateway, told: Numbered) -> None:
    port = free_port()
    with Origin.answering(OK % b"s") as origin:
        await gateway.push(configuration(origin.port, port=port, access_log="-"))
        pair = await asyncio.open_connection("127.0.0.1", port)
        await ask(*pair)
        pair[1].close()
        await until(lambda: told.lines, "a line")
    assert b'"status":200' in told.lines[0]
    assert b'"route":"default/r"' in told.lines[0]
    assert f'"endpoint":"127.0.0.1:{origin.port}"'.encode() in told.lines[0]


async def test_what_fails_leaves_samples(gateway: Gateway) -> None:
    port = free_port()
    with Origin.answering(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n") as origin:
        await gateway.push(configuration(origin.port, port=port))
        pair = await asyncio.open_connection("127.0.0.1", port)
        await ask(*pair)
        pair[1].close()
        await until(lambda: gateway.samples.of("default/r", "stable"), "a sample")
    (found,) = gateway.samples.of("default/r", "stable")
    assert (found.status, found.path, len(found.trace)) == (500, "/", 32)


async def test_shows_how_backends_are(gateway: Gateway) -> None:
    port, nobody = free_port(), free_port()
    with Origin.answering(OK % b"s") as origin:
        await gateway.push(configuration(origin.port, port=port))
        pair = await asyncio.open_connection("127.0.0.1", port)
        await ask(*pair)
        shown = [each for worker in await gateway.show() for each in worker]
        rows = [row for each in shown for row in each.endpoints]
        assert {row.address for row in rows} == {f"127.0.0.1:{origin.port}"}
        assert sorted((row.state, row.total, row.idle) for row in rows) == [("up", 0, 0), ("up", 1, 1)]
        assert sum(each.clients for each in shown) == 1
        pair[1].close()
        await gateway.push(configuration(nobody, port=port, generation=2))
        shown = [each for worker in await gateway.show() for each in worker]
        assert {row.address for each in shown for row in each.endpoints} == {f"127.0.0.1:{nobody}"}


async def test_rates_hold_over_all_workers(gateway: Gateway) -> None:
    port = free_port()
    rule = HttpRule(backends=(Weighted(backend="b"),), rate=RateLimit(rate=0.001, burst=5))
    with Origin.answering(OK % b"s") as origin:
        await gateway.push(configuration(origin.port, port=port, rule=rule))
        statuses: Counter[int] = Counter()
        for _ in range(20):
            pair = await asyncio.open_connection("127.0.0.1", port)
            statuses[(await ask(*pair))[0]] += 1
            pair[1].close()
    assert statuses == {200: 5, 429: 15}


_SOAK_PAUSE = 0.005
"""Between requests of a connection: other tests run meanwhile."""


@pytest.mark.slow
@pytest.mark.timeout(7200)
async def test_soak(gateway: Gateway, told: Numbered) -> None:
    """Two minutes (or PILOTHOUSE_SOAK_SECONDS) of changes each second under load: no failure, flat memory and files."""
    port, statuses, over = free_port(), Counter[int](), asyncio.Event()
    seconds = float(os.environ.get("PILOTHOUSE_SOAK_SECONDS", "120"))

    def held() -> list[tuple[int, int]]:
        return [
            (len(os.listdir(f"/proc/{pid}/fd")), int(Path(f"/proc/{pid}/statm").read_text().split()[1]))
            for pid in gateway.pids
        ]

    async def load(is_short: bool) -> None:
        while not over.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            for _ in range(5 if is_short else 1000):
                statuses[(await ask(reader, writer))[0]] += 1
                if over.is_set():
                    break
                await asyncio.sleep(_SOAK_PAUSE)
            writer.close()

    with Origin.answering(OK % b"s") as one, Origin.answering(OK % b"c") as other:
        await gateway.push(two(one.port, other.port, port, (1, 1), 1))
        async with asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(load(number < 2))
            before, end, generation = held(), time.monotonic() + seconds, 1
            while time.monotonic() < end:
                generation += 1
                await gateway.push(two(one.port, other.port, port, (generation % 5, 1), generation))
                await asyncio.sleep(1)
                if time.monotonic() < end - seconds * 0.7:
                    before = held()
            after = held()
            over.set()
    assert set(statuses) == {200}
    for (files, pages), (files_after, pages_after) in zip(before, after, strict=True):
        assert files_after <= files + 10
        assert pages_after <= pages + 1024
