"""Clients that stay: what they carry, how long it holds, and what comes of it when endpoints and gateways go."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.traffic import sessionkeys
from pilothouse.traffic.config import Configuration, Endpoint, HttpRule, OutlierEjection, Stickiness, Weighted
from pilothouse.traffic.plane.balancing import Balancer
from pilothouse.traffic.plane.http import Request
from pilothouse.traffic.plane.sessions import Session, Sessions, Token, tag_of
from pilothouse.traffic.routing import LocalCounters, Shares
from pilothouse.traffic.sessionkeys import kept_session_key, session_key
from support.loglines import logged
from support.planekit import Origin, Plane, Raw, configuration, free_port, plane

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
KEY = b"k" * 32


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


tokens = st.builds(
    Token, st.binary(min_size=6, max_size=6), st.binary(min_size=8, max_size=8), *[st.integers(0, 2**32 - 1)] * 2
)


@given(tokens, st.integers(0, 60), st.integers(1, 255))
def test_nobody_else_can_make_or_change_a_token(token: Token, place: int, change: int) -> None:
    sessions = Sessions((KEY,), lambda: 0.0)
    text = sessions.seal(token)
    assert sessions.open(text) == token
    assert Sessions((b"other" * 8, KEY), lambda: 0.0).open(text) == token
    assert Sessions((b"other" * 8,), lambda: 0.0).open(text) is None
    data = bytearray(text.encode())
    data[place % len(data)] ^= change
    opened = sessions.open(data.decode("latin-1"))
    assert opened is None or (opened == token and data.rstrip(b"=") != text.encode())  # base64 has idle bits
    assert sessions.open(text[: place % len(text)]) is None


def test_a_token_says_nothing_of_where_it_leads() -> None:
    text = Sessions((KEY,), lambda: 0.0).seal(Token(b"\0" * 6, tag_of("10.0.0.1:80"), 5, 5))
    assert len(text) == 52
    assert tag_of("10.0.0.1:80").hex() not in text.encode().hex()


def asked(text: str = "", name: str = "s") -> Request:
    fields = [(b"cookie", f"a=b; {name}={text}".encode())] if text else []
    return Request(b"GET", b"/", b"a", "a", fields)


def shares(*weights: int) -> Shares:
    return Shares("k", [Weighted(backend=f"b{place}", weight=weight) for place, weight in enumerate(weights)])


def cookie_of(session: Session | None, address: str = "10.0.0.1:80") -> str:
    assert session is not None
    told = session.told(address, is_secure=False)
    assert told is not None
    return told[1].decode()


def value_of(cookie: str) -> str:
    return cookie.partition(";")[0].partition("=")[2]


def begin(sessions: Sessions, sticky: Stickiness, text: str = "", of: Shares | None = None) -> Any:
    return sessions.begin(sticky, asked(text, sticky.name), of or shares(1, 1), LocalCounters())


def test_absolute_and_idle_timeouts(clock: Clock) -> None:
    sessions = Sessions((KEY,), clock)
    sticky = Stickiness(name="s", seconds=100, idle_seconds=10)
    cookie = cookie_of(begin(sessions, sticky)[1])
    assert cookie.endswith("; Path=/; Max-Age=100; HttpOnly; SameSite=Lax")
    began = clock.now
    while clock.now < began + 95:
        clock.now += 9
        _, session = begin(sessions, sticky, value_of(cookie))
        cookie = cookie_of(session)  # it was seen
        left = 100 - int(clock.now - began)
        assert f"Max-Age={left if left > 0 else 100};" in cookie
    clock.now += 10
    assert sessions._is_past(sticky, sessions.open(value_of(cookie)))  # type: ignore[arg-type]
    assert "Max-Age=100" in cookie_of(begin(sessions, sticky, value_of(cookie))[1])


def test_cookies_of_browser_sessions_have_no_age_but_the_session_has(clock: Clock) -> None:
    sessions = Sessions((KEY,), clock)
    sticky = Stickiness(name="s", seconds=100, is_session=True)
    cookie = cookie_of(begin(sessions, sticky)[1])
    assert "Max-Age" not in cookie
    clock.now += 99
    assert begin(sessions, sticky, value_of(cookie))[1].told("10.0.0.1:80", is_secure=False) is None
    clock.now += 1
    assert begin(sessions, sticky, value_of(cookie))[1].told("10.0.0.1:80", is_secure=False) is not None


def test_a_backend_without_a_weight_keeps_its_sessions_only_where_that_is_asked_for(clock: Clock) -> None:
    sessions = Sessions((KEY,), clock)
    cookie = cookie_of(begin(sessions, Stickiness(name="s"), of=shares(1, 0))[1])
    for keeps, backend in ((True, "b0"), (False, "b1")):
        share, _ = begin(sessions, Stickiness(name="s", keeps=keeps), value_of(cookie), shares(0, 1))
        assert share.weighted.backend == backend


def balancer(*addresses: str, draining: str = "") -> Balancer:
    made = Balancer(OutlierEjection(), 0.0, random.Random(1))
    made.take(endpoints(*addresses, draining=draining), 0.0)
    return made


def endpoints(*addresses: str, draining: str = "") -> list[Endpoint]:
    return [Endpoint(address=each, port=80, is_draining=each == draining) for each in addresses]


def test_an_endpoint_is_kept_while_it_serves_and_left_when_it_does_not(clock: Clock) -> None:
    sessions, sticky = Sessions((KEY,), clock), Stickiness(name="s", is_endpoint=True)
    cookie = cookie_of(begin(sessions, sticky)[1], "10.0.0.2:80")
    session = begin(sessions, sticky, value_of(cookie))[1]
    names = [f"10.0.0.{number}" for number in range(1, 6)]
    states = balancer(*names)
    mine = states.states[1]
    assert all(session.pick(states, 0.0, ()) is mine for _ in range(50))
    assert session.told("10.0.0.2:80", is_secure=False) is None
    assert session.pick(states, 0.0, [mine]) is not mine  # it was tried
    states.take(endpoints(*names, draining="10.0.0.2"), 0.0)
    assert session.pick(states, 0.0, ()) is mine  # it goes on with its clients
    mine.is_healthy = False
    assert session.pick(states, 0.0, ()) not in {mine, None}
    mine.is_healthy, mine.ejected_until = True, 5.0
    assert session.pick(states, 0.0, ()) is not mine
    assert session.pick(states, 6.0, ()) is mine
    states.take(endpoints("10.0.0.1", "10.0.0.3"), 0.0)
    other = session.pick(states, 6.0, ())
    moved = begin(sessions, sticky, value_of(cookie_of(session, other.address)))[1]
    assert moved.pick(states, 6.0, ()) is other
    assert moved.told(other.address, is_secure=False) is None


def test_hashes_move_only_the_clients_of_an_endpoint_that_goes(clock: Clock) -> None:
    sessions = Sessions((), clock)
    sticky = Stickiness(type="Header", name="x-user", is_endpoint=True)

    def places(states: Balancer) -> dict[int, str]:
        found = {}
        for number in range(400):
            request = Request(b"GET", b"/", b"a", "a", [(b"x-user", b"%d" % number)])
            _, session = sessions.begin(sticky, request, shares(1), LocalCounters())
            assert session is not None
            state = session.pick(states, 0.0, ())
            assert state is not None
            found[number] = state.address
            assert session.told(state.address, is_secure=False) is None
        return found

    before = places(balancer("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"))
    after = places(balancer("10.0.0.1", "10.0.0.2", "10.0.0.4"))
    assert all(after[number] == place for number, place in before.items() if place != "10.0.0.3:80")
    assert all(60 < list(before.values()).count(f"10.0.0.{number}:80") < 150 for number in range(1, 5))


def test_keys_are_kept_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "gateway" / "session.key"
    key = session_key(path)
    assert (len(key), session_key(path)) == (32, key)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["session.key"]
    path.write_bytes(b"short")
    with pytest.raises(ValueError, match="remove the file"):
        session_key(path)
    with logged(sessionkeys) as records:
        assert kept_session_key(path) == b""
    assert "no key can be kept" in str(records[0])


# Over sockets


class Three:
    """Three endpoints that say which they are."""

    def __init__(self) -> None:
        self.origins = [
            Origin.answering(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\n%d" % n)
            for n in range(3)
        ]
        self.ports = [each.port for each in self.origins]

    def config(self, *ports: int, port: int, sticky: Stickiness, **changes: Any) -> Configuration:
        rule = HttpRule(backends=(Weighted(backend="b"),), stickiness=sticky)
        return configuration(*(ports or self.ports), port=port, rule=rule, session_keys=(KEY,), **changes)


@pytest.fixture
def three() -> Iterator[Three]:
    made = Three()
    yield made
    for each in made.origins:
        with contextlib.suppress(OSError):  # one that a test has closed
            each.close()


def ask(served: Plane, field: bytes = b"") -> tuple[bytes, bytes]:
    """Return what answered, and the head."""
    with Raw(served.port) as client:
        status, head, body = client.send(GET[:-2] + field + b"\r\n").response()
    assert status == 200
    return body, head


def given_by(head: bytes, name: bytes = b"set-cookie") -> bytes:
    return next(line for line in head.split(b"\r\n") if line.startswith(name + b": "))[len(name) + 2 :]


def test_a_client_stays_with_its_endpoint_over_workers_and_restarts(three: Three) -> None:
    sticky = Stickiness(name="s", is_endpoint=True)
    with plane(three.config(port=free_port(), sticky=sticky)) as served:
        who, head = ask(served)
        field = b"cookie: " + given_by(head).split(b";")[0] + b"\r\n"
        for _ in range(20):
            again, head = ask(served, field)
            assert again == who
            assert b"set-cookie" not in head
        assert len({ask(served)[0] for _ in range(60)}) == 3
    with plane(three.config(port=free_port(), sticky=sticky)) as other:  # with the same key
        assert {ask(other, field)[0] for _ in range(20)} == {who}
        forged = field[:-6] + b"AAAA\r\n"
        assert b"set-cookie: s=" in ask(other, forged)[1]


def test_a_client_whose_endpoint_goes_gets_another_one_and_stays_there(three: Three) -> None:
    sticky = Stickiness(type="Token", name="x-session", is_endpoint=True)
    port = free_port()
    with plane(three.config(port=port, sticky=sticky)) as served:
        who, head = ask(served)
        token = given_by(head, b"x-session")
        field = b"X-Session: " + token + b"\r\n"
        assert ask(served, field)[0] == who
        three.origins[int(who)].close()  # it refuses connections
        other, head = ask(served, field)
        assert other != who
        moved = b"X-Session: " + given_by(head, b"x-session") + b"\r\n"
        assert {ask(served, moved)[0] for _ in range(10)} == {other}
        left = [each for place, each in enumerate(three.ports) if place != int(who)]
        served.take(three.config(*left, port=port, sticky=sticky, generation=2))
        assert {ask(served, moved)[0] for _ in range(10)} == {other}
        assert ask(served, field)[0] != who


def test_an_endpoint_that_drains_goes_on_with_its_clients_and_takes_no_new_ones(three: Three) -> None:
    sticky, port = Stickiness(name="s", is_endpoint=True), free_port()
    config = three.config(port=port, sticky=sticky)
    with plane(config) as served:
        who, head = ask(served)
        field = b"cookie: " + given_by(head).split(b";")[0] + b"\r\n"
        backend = config.backends["b"]
        ends = tuple(
            Endpoint(address="127.0.0.1", port=each, is_draining=place == int(who))
            for place, each in enumerate(three.ports)
        )
        drained = msgspec.structs.replace(
            config, generation=2, backends={"b": msgspec.structs.replace(backend, endpoints=ends)}
        )
        served.take(drained)
        assert {ask(served, field)[0] for _ in range(10)} == {who}
        assert who not in {ask(served)[0] for _ in range(30)}


def test_cookies_are_secure_where_the_client_came_by_tls() -> None:
    session = Session(Sessions((KEY,), lambda: 0.0), Stickiness(name="s"), None, "00" * 6)
    told = session.told("a:1", is_secure=True)
    assert told is not None
    assert b"; HttpOnly; Secure; SameSite=Lax" in told[1]
