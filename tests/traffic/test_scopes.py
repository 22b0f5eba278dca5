"""Settings of gateways side by side in one process: limits, trust and regions are each gateway's own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pilothouse.traffic.config import (
    Configuration,
    HttpRule,
    Limits,
    Listener,
    Match,
    RegionTable,
    Settings,
    Weighted,
)
from pilothouse.traffic.plane.plan import BadConfiguration, Plan
from support.planekit import Origin, Plane, Raw, configuration, free_port, plane, until

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def two(origin: int, one: Settings, other: Settings | None = None, **changes: Any) -> Configuration:
    """Return listeners "web" by the settings "one", and "more" by "other", or by those of the whole."""
    base = configuration(origin, port=free_port(), **changes)
    listeners = (
        msgspec.structs.replace(base.listeners[0], settings="one"),
        Listener(
            name="more", port=free_port(), protocol="HTTP", address="127.0.0.1", settings="other" if other else ""
        ),
    )
    routes = tuple(msgspec.structs.replace(each, listeners=("web", "more")) for each in base.routes)
    settings = {"one": one, **({"other": other} if other else {})}
    return msgspec.structs.replace(base, listeners=listeners, routes=routes, settings=settings)


@contextlib.contextmanager
def served(one: Settings, other: Settings | None = None, **changes: Any) -> Iterator[tuple[Plane, Origin, int]]:
    with Origin.answering(OK) as origin, plane(two(origin.port, one, other, **changes)) as made:
        yield made, origin, made.worker.plan.configuration.listeners[1].port


def status(port: int, data: bytes) -> int:
    with Raw(port) as client:
        return client.send(data).response()[0]


def test_sizes_are_each_gateways_own() -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n" + b"x" * 20
    many = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"".join(b"x-%d: 1\r\n" % n for n in range(20)) + b"\r\n"
    long = b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"y" * 3000 + b"\r\n\r\n"
    small = Settings(limits=Limits(body_bytes=10, headers=10, head_bytes=2000))
    with served(small) as (made, _, more):
        assert [status(made.port, each) for each in (GET, post, many, long)] == [200, 413, 431, 431]
        assert [status(more, each) for each in (GET, post, many, long)] == [200, 200, 200, 200]


def test_connections_are_counted_by_gateway() -> None:
    with served(Settings(limits=Limits(connections=2)), limits=Limits(connections=3)) as (made, _, more):
        with contextlib.ExitStack() as stack:
            for port, most in ((made.port, 2), (more, 3)):
                for _ in range(most):
                    assert stack.enter_context(Raw(port)).send(GET).response()[0] == 200
                with Raw(port) as client, pytest.raises(ConnectionError):
                    client.send(GET).response()
            assert made.refused("connections") == 2
        until(lambda: made.do(lambda: [crowd.open for crowd in made.worker._crowds.values()]) == [0, 0], "all closed")
        assert status(made.port, GET) == 200


def test_regions_and_trust_are_each_gateways_own() -> None:
    def split(name: str) -> HttpRule:
        matches = (Match(regions=(name,)),)
        return HttpRule(matches=matches, backends=(Weighted(backend="b", version=name),))

    proxy = Settings(regions=RegionTable(header="x-region", trusted=("127.0.0.0/8",)), trusted_proxies=("127.0.0.0/8",))
    other = Settings(regions=RegionTable(default="moon", request_header="x-where"))
    asked = GET[:-2] + b"X-Region: mars\r\nX-Forwarded-For: 10.9.9.9\r\n\r\n"
    with Origin.answering(OK) as origin:
        config = two(origin.port, proxy, other)
        routes = (msgspec.structs.replace(config.routes[0], rules=(split("mars"), split("moon"))),)
        with plane(msgspec.structs.replace(config, routes=routes)) as made:
            assert status(made.port, asked) == 200
            assert status(config.listeners[1].port, asked) == 200
            versions = [key.version for key in made.do(lambda: [*made.worker.tally._lines])]
    assert versions == ["mars", "moon"]
    assert b"x-pilothouse-region: mars" in origin.heads[0]
    assert b"10.9.9.9" in origin.heads[0]
    assert b"x-where: moon" in origin.heads[1]
    assert b"10.9.9.9" not in origin.heads[1]


def test_connections_that_are_open_go_by_what_holds_now() -> None:
    post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n" + b"x" * 20
    with served(Settings()) as (made, _, _), Raw(made.port) as client:
        assert client.send(post).response()[0] == 200
        config = made.worker.plan.configuration
        small = {"new": Settings(limits=Limits(body_bytes=10))}
        listeners = (msgspec.structs.replace(config.listeners[0], settings="new"), config.listeners[1])
        made.take(msgspec.structs.replace(config, generation=2, listeners=listeners, settings=small))
        assert client.send(post).response()[0] == 413
        until(lambda: made.do(lambda: sum(each.open for each in made.worker._crowds.values())) <= 1)


def test_settings_that_cannot_be_used_are_refused() -> None:
    config = two(1, Settings())
    with pytest.raises(BadConfiguration, match="listener 'web': there are no settings 'one'"):
        Plan(msgspec.structs.replace(config, settings={}))
    bad = {"one": Settings(trusted_proxies=("10.0.0.0/40",))}
    with pytest.raises(BadConfiguration, match="settings 'one': trusted_proxies: "):
        Plan(msgspec.structs.replace(config, settings=bad))
    same = tuple(msgspec.structs.replace(each, port=80) for each in config.listeners)
    with pytest.raises(BadConfiguration, match="listener 'more': settings differ at port 80"):
        Plan(msgspec.structs.replace(config, listeners=same))
