"""Rate limits that gateways share through a real Redis: exact over both, while it is there, away, and back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from pilothouse.traffic.config import Configuration, HttpRule, RateLimit, Weighted
from pilothouse.traffic.gateway import Gateway, GatewayOptions, InvalidConfiguration
from pilothouse.traffic.numbers.exposition import Totals
from pilothouse.traffic.plane import plan as plan_module
from support.planekit import PATIENCE, Origin, Plane, Raw, configuration, free_port, plane, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed (apt-get install redis-server)"
)


class Redis:
    """A server of one test, at a port of its own."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.port = free_port()
        self._command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", *arguments]
        self._command += ["--dir", str(directory), "--unixsocket", str(directory / "redis.sock")]
        self.path = directory / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self.ask("PING")[:1] in {b"+", b"-"}, "redis")

    def ask(self, *parts: str) -> bytes:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE) as sock:
            sock.sendall(f"{' '.join(parts)}\r\n".encode())
            return sock.recv(4096)
        return b""

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def pause(self, is_paused: bool) -> None:
        assert self._process is not None
        self._process.send_signal(19 if is_paused else 18)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    made = Redis(tmp_path)
    try:
        yield made
    finally:
        made.kill()


def limited(url: str, origin: int, port: int, **changes: Any) -> Configuration:
    """Return a route with a rate whose tokens hardly come anew."""
    every: dict[str, Any] = {"rate": 0.001, "burst": 20, "store": url, "patience": PATIENCE} | changes
    rate = RateLimit(**every)
    return configuration(origin, port=port, rule=HttpRule(backends=(Weighted(backend="b"),), rate=rate))


def ask(port: int, times: int, head: bytes = GET) -> Counter[int]:
    """Ask so often over one connection."""
    with Raw(port) as client:
        return Counter(client.send(head).response()[0] for _ in range(times))


@dataclass
class Served:
    one: Plane
    other: Plane

    def ask(self, times: int, head: bytes = GET) -> Counter[int]:
        found: Counter[int] = Counter()
        for _ in range(times):
            found += ask(self.one.port, 1, head) + ask(self.other.port, 1, head)
        return found

    def happened(self) -> int:
        return sum(each.worker.tally._happened.get("rate store away", 0) for each in (self.one, self.other))

    def noted(self) -> dict[str, dict[str, str]]:
        """Return what was said of stores, without what is said of requests that are refused."""
        found = dict(pair for each in (self.one, self.other) for pair in [*each.noted])
        return {event: facts for event, facts in found.items() if not event.startswith("refused")}


@contextlib.contextmanager
def two(url: str, **changes: Any) -> Iterator[Served]:
    with (
        Origin.answering(OK) as origin,
        plane(limited(url, origin.port, free_port(), **changes)) as one,
        plane(limited(url, origin.port, free_port(), **changes)) as other,
    ):
        yield Served(one, other)


async def test_two_gateways_of_two_workers_share_one_limit(redis: Redis) -> None:
    gateways = [Gateway(GatewayOptions(workers=2, drain_seconds=1)) for _ in range(2)]
    ports = [free_port(), free_port()]
    with Origin.answering(OK) as origin:
        for gateway, port in zip(gateways, ports, strict=True):
            await gateway.start()
            await gateway.push(limited(redis.url, origin.port, port, burst=50))
        found = await asyncio.gather(*[asyncio.to_thread(ask, port, 10) for port in ports for _ in range(8)])
        for gateway in gateways:
            await gateway.stop(drain=False)
    assert sum(found, Counter()) == {200: 50, 429: 110}


def test_limits_hold_by_client_and_by_the_servers_clock(redis: Redis) -> None:
    with two(redis.url, burst=3, by="x-user") as served:
        users = [b"GET / HTTP/1.1\r\nHost: a\r\nX-User: %d\r\n\r\n" % number for number in range(3)]
        for user in users:
            assert served.ask(4, user) == {200: 3, 429: 5}
        assert served.ask(2) == {200: 3, 429: 1}
        keys = redis.ask("KEYS", "*")
        assert keys.count(b"pilothouse:rate:default/r:0:") == 4
        assert 0 < int(redis.ask("PTTL", "pilothouse:rate:default/r:0:all").strip()[1:]) <= 3_000_001


def test_a_burst_of_many_at_once_waits_and_is_exact(redis: Redis) -> None:
    with two(redis.url, burst=100) as served, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Raw(each.port)) for each in (served.one, served.other) for _ in range(80)]
        redis.pause(True)
        for client in clients:
            client.send(GET)
        until(lambda: served.one.do(lambda: served.one.worker._stores[redis.url]._held) == 80, "all wait")
        redis.pause(False)
        assert Counter(client.response()[0] for client in clients) == {200: 100, 429: 60}
        assert served.happened() == 0


def test_while_redis_is_away_each_goes_by_its_own_limit_and_together_again_after(redis: Redis) -> None:
    with two(redis.url, burst=6) as served:
        assert served.ask(5) == {200: 6, 429: 4}
        redis.kill()
        until(lambda: {event for each in (served.one, served.other) for event, _ in each.noted}, "it is said")
        until(lambda: all(map(_is_away, _planes(served))))
        assert served.ask(10) == {200: 12, 429: 8}
        assert served.happened() == 20
        assert served.noted()["rate limits go without their store"]["store"] == f"redis://127.0.0.1:{redis.port}/0"
        redis.start()
        until(lambda: not any(map(_is_away, _planes(served))))
        assert served.ask(5) == {200: 6, 429: 4}
        assert set(served.noted()) == {"rate limits go without their store", "rate limits go by their store again"}


def _planes(served: Served) -> tuple[Plane, Plane]:
    return served.one, served.other


def _is_away(served: Plane) -> bool:
    return bool(served.do(lambda: next(iter(served.worker._stores.values())).is_away))


@pytest.mark.parametrize(("away", "status"), [("Allow", 200), ("Deny", 503)])
def test_what_holds_without_redis_is_a_choice(away: Literal["Allow", "Deny"], status: int) -> None:
    with two(f"redis://127.0.0.1:{free_port()}", burst=1, away=away) as served:
        until(lambda: all(map(_is_away, _planes(served))))
        assert served.ask(3) == {status: 6}
        assert served.happened() == 6


def test_a_store_that_does_not_answer_holds_a_request_no_longer_than_its_patience(redis: Redis) -> None:
    with two(redis.url, burst=2, patience=0.2) as served:
        assert served.ask(1) == {200: 2}
        redis.pause(True)
        with Raw(served.one.port) as client, Raw(served.other.port) as quick:
            began = time.monotonic()
            client.send(GET.replace(b"Host: a", b"Host: b"))
            served.other.take(configuration(1, port=served.other.port, rule=HttpRule()))
            assert quick.send(GET).response()[0] == 500  # a loop that goes on
            assert client.response()[0] in {200, 429}
            assert time.monotonic() - began < PATIENCE
        assert served.happened() >= 1
        redis.pause(False)


def test_whoever_goes_away_while_it_waits_is_not_served_and_nobody_is_harmed(redis: Redis) -> None:
    with two(redis.url, burst=4) as served:
        assert ask(served.one.port, 1) == {200: 1}
        redis.pause(True)
        with Raw(served.one.port) as client:
            client.send(GET)
            until(lambda: served.one.do(lambda: served.one.worker._stores[redis.url]._held) == 1, "it waits")
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # so that it is reset
        until(lambda: served.one.do(lambda: not served.one.worker.clients), "it is gone")
        redis.pause(False)
        until(lambda: served.one.do(lambda: served.one.worker._stores[redis.url]._held) == 0, "it is told")
        assert served.ask(3)[200] in {2, 3}  # its token is used by the same worker, or came too late for that
        assert served.one.do(lambda: not served.one.worker.tally._in_flight)


def test_a_body_waits_with_its_request(redis: Redis) -> None:
    with two(redis.url, burst=2) as served, Raw(served.one.port) as client:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n"
        assert client.send(head + b"x" * 300_000).response()[0] == 200
        assert client.send(head + b"x" * 300_000).response()[0] == 200
        assert client.send(GET).response()[0] == 429


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed (apt-get install curl)")
def test_requests_of_http2_wait_too(redis: Redis, tmp_path: Path) -> None:
    (tmp_path / "body").write_bytes(b"x" * 300_000)
    with two(redis.url, burst=2) as served:
        command = ["curl", "-s", "--http2-prior-knowledge", "-w", "%{http_code}", "-o", "/dev/null"]
        command.append(f"http://127.0.0.1:{served.one.port}/")
        sent = ["--data-binary", f"@{tmp_path}/body"]
        done = [
            subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False).stdout
            for more in (sent, sent, [])  # curl gives up where it is refused while it sends
        ]
        assert done == ["200", "200", "429"]
        assert served.happened() == 0


def test_passwords_databases_and_sockets(tmp_path: Path) -> None:
    redis = Redis(tmp_path, "--requirepass", "s3cret")
    try:
        for url in (f"redis://:s3cret@127.0.0.1:{redis.port}/5", f"unix://:s3cret@{redis.path}?db=6"):
            with two(url, burst=3, patience=PATIENCE) as served:
                assert served.ask(3) == {200: 3, 429: 3}
                assert served.happened() == 0
        with two(f"redis://:wrong@localhost:{redis.port}/5", burst=3, away="Deny") as served:
            assert served.ask(1) == {503: 2}
            facts = served.noted()["rate limits go without their store"]
            assert "WRONGPASS" in facts["reason"]
            assert "wrong@" not in facts["store"]
    finally:
        redis.kill()


async def test_what_cannot_be_a_store_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = Gateway(GatewayOptions(workers=1))
    await gateway.start()
    try:
        with pytest.raises(InvalidConfiguration, match=r"rules\[0\]\.rate\.store: the store's URL has to begin"):
            await gateway.push(limited("http://a", 1, free_port()))
        monkeypatch.setattr(plan_module, "is_able", lambda: False)
        with pytest.raises(InvalidConfiguration, match=r"pip install 'pilothouse\[redis\]'"):
            await gateway.push(limited("redis://a", 1, free_port()))
    finally:
        await gateway.stop(drain=False)


def test_decisions_without_the_store_are_counted_for_prometheus() -> None:
    totals = Totals()
    totals.happen({"rate store away": 2})
    totals.happen({"rate store away": 3})
    samples = [each for family in totals.collect() for each in family.samples if each.name.endswith("events_total")]
    assert [(each.labels, each.value) for each in samples] == [({"kind": "rate store away"}, 5)]
