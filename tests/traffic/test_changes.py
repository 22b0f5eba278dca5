"""Changes of a configuration: what is sent of them, and that what is compiled of them decides as the whole anew."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.foundation.tls import issue, make_ca
from pilothouse.traffic.changes import Change, applied, difference, replaced
from pilothouse.traffic.config import (
    Backend,
    BackendTls,
    Certificate,
    Configuration,
    HttpRoute,
    HttpRule,
    Listener,
    ListenerTls,
    Match,
    PathMatch,
    RegionTable,
    StreamRoute,
    ValueMatch,
    Weighted,
)
from pilothouse.traffic.plane.messages import (
    Configure,
    FromWorker,
    Listen,
    NotTaken,
    Ready,
    Taken,
    decode_from_worker,
    encode,
)
from pilothouse.traffic.plane.plan import BadConfiguration, Plan
from pilothouse.traffic.plane.process import Control
from pilothouse.traffic.routing import BadRoute, Router
from support.planekit import configuration, free_port

LISTENERS = ("one", "two", "three")
HOSTS = ("", "*.com", "*.example.com", "example.com", "a.example.com")
PATHS = ("/", "/a", "/a/b")


@st.composite
def routes(draw: st.DrawFn) -> HttpRoute:
    return HttpRoute(
        name=draw(st.sampled_from(["r", "s", "t", "u"])),
        listeners=tuple(draw(st.lists(st.sampled_from(LISTENERS), unique=True, max_size=3))),
        hostnames=tuple(each for each in draw(st.lists(st.sampled_from(HOSTS), unique=True, max_size=2)) if each),
        rules=tuple(draw(st.lists(rules(), max_size=2))),
        created=draw(st.sampled_from([1.0, 2.0])),
    )


@st.composite
def rules(draw: st.DrawFn) -> HttpRule:
    kind: Any = draw(st.sampled_from(["Exact", "PathPrefix", "PathPrefix", "RegularExpression"]))
    match = Match(
        path=PathMatch(type=kind, value=draw(st.sampled_from(PATHS))),
        method=draw(st.sampled_from(["", "GET"])),
        headers=draw(st.sampled_from([(), (ValueMatch(name="x", value="1"),)])),
    )
    weight = draw(st.integers(0, 3))
    return HttpRule(matches=(match,), backends=(Weighted(backend="b", weight=weight), Weighted(backend="c")))


@st.composite
def sequences(draw: st.DrawFn) -> list[Configuration]:
    """Return configurations one after another, of few parts so that many stay."""
    pool = draw(st.lists(routes(), min_size=3, max_size=6))
    made = []
    for generation in range(draw(st.integers(2, 5))):
        doors = draw(st.sets(st.sampled_from(LISTENERS), min_size=2))
        names = draw(st.sets(st.sampled_from("bcd")))
        streams = draw(st.permutations("xy"))
        made.append(
            Configuration(
                generation=generation,
                listeners=tuple(
                    Listener(name=name, port=80, protocol="HTTP", hostname=draw(st.sampled_from(HOSTS[:3])))
                    for name in sorted(doors)
                ),
                routes=tuple({each.name: each for each in draw(st.permutations(pool))[:4]}.values()),
                streams=tuple(StreamRoute(name=name, listeners=("one",)) for name in streams),
                backends={name: Backend(slow_start=draw(st.sampled_from([0.0, 1.0]))) for name in names},
                certificates={name: Certificate(chain=b"", key=b"") for name in draw(st.sets(st.sampled_from("kl")))},
                regions=RegionTable(default=draw(st.sampled_from(["", "eu"]))),
                access_log=draw(st.sampled_from(["", "on"])),
            )
        )
    return made


_changes = msgspec.msgpack.Decoder(Change)


def sent(change: Change) -> Change:
    return _changes.decode(msgspec.msgpack.encode(change))


@settings(deadline=None)
@given(sequences())
def test_what_is_sent_makes_the_next_of_the_one_before(sequence: list[Configuration]) -> None:
    now = Configuration()
    for after in sequence:
        before, now = now, applied(now, sent(difference(now, after)))
        assert now == after
        kept = {each.name: each for each in before.routes}
        assert all(each is kept[each.name] for each in now.routes if kept.get(each.name) == each)
        assert all(
            now.backends[name] is each for name, each in before.backends.items() if now.backends.get(name) == each
        )
        assert difference(now, after).routes in {((0, len(after.routes)),), ()}


def test_two_of_one_name_are_both_sent() -> None:
    one = HttpRoute(name="r", listeners=("a",))
    twice = Configuration(routes=(one, HttpRoute(name="r", listeners=("a",), is_grpc=True), one))
    once = Configuration(routes=(one,))
    for before, after in ((once, twice), (twice, once), (twice, twice)):
        assert applied(before, sent(difference(before, after))) == after


def test_a_small_change_is_small() -> None:
    many = tuple(HttpRoute(name=f"n/{number}", listeners=("web",)) for number in range(1000))
    backends = {f"b{number}": Backend() for number in range(1000)}
    before = Configuration(routes=many, backends=backends, regions=RegionTable(ranges=(("10.0.0.0/8", "x"),) * 1000))
    other = HttpRoute(name="n/500", listeners=("web",), hostnames=("a",))
    after = msgspec.structs.replace(before, routes=(*many[:500], other, *many[501:-1]))
    assert difference(before, after).routes == ((0, 500), other, (501, 999))
    assert len(msgspec.msgpack.encode(difference(before, after))) < 1000


# Compiled


def answers(made: Router) -> dict[tuple[str, ...], tuple[Any, ...] | None]:
    found: dict[tuple[str, ...], tuple[Any, ...] | None] = {}
    for door in LISTENERS:
        for host in ("example.com", "a.example.com", "b.a.example.com", "c.com", "org"):
            for path in ("/", "/a", "/a/b", "/a/bc", "/z"):
                for method, header in (("GET", {}), ("POST", {"x": "1"})):
                    one = made.find(door, host, method, path, "", header.get)
                    key = (door, host, path, method)
                    turns = one.shares("") if one is not None else None
                    found[key] = None if one is None else (one.route, one.rule, one.name, one.prefix, vars(turns))
    return found


@settings(deadline=None, max_examples=60)
@given(sequences())
def test_a_router_after_changes_decides_as_one_compiled_anew(sequence: list[Configuration]) -> None:
    made, now = Router(Configuration()), Configuration()
    for after in sequence:
        now = applied(now, difference(now, after))
        before, unchanged = made, answers(made)
        made, anew = Router(now, made), Router(after)
        assert answers(made) == answers(anew)
        assert made.keys == anew.keys
        assert answers(before) == unchanged


def test_a_route_that_cannot_be_used_leaves_the_router_before_as_it_was() -> None:
    good = HttpRoute(name="good", listeners=("one",), rules=(HttpRule(backends=(Weighted(backend="b"),)),))
    door = Listener(name="one", port=80, protocol="HTTP")
    before = Router(Configuration(listeners=(door,), routes=(good,)))
    unchanged = answers(before)
    match = Match(path=PathMatch(type="RegularExpression", value="("))
    bad = HttpRoute(name="bad", listeners=("one",), rules=(HttpRule(matches=(match,)),))
    with pytest.raises(BadRoute):
        Router(Configuration(listeners=(door,), routes=(bad,)), before)
    assert answers(before) == unchanged


def secured(chain: bytes, key: bytes, **more: Any) -> Configuration:
    tls = ListenerTls(certificates=("c",))
    return Configuration(
        listeners=(Listener(name="web", port=443, protocol="HTTPS", tls=tls),),
        backends={"b": Backend(tls=BackendTls(hostname="b"), **more)},
        certificates={"c": Certificate(chain=chain, key=key)},
        streams=(StreamRoute(name="s", listeners=("web",)),),
    )


def test_tls_is_made_anew_where_it_changed_and_only_there() -> None:
    ca = make_ca("test")
    one, other = (
        (made.certificate, made.key)
        for made in (issue(ca, "a.example", hosts=("a.example",), server=True) for _ in range(2))
    )
    first = Plan(secured(*one))
    again = Plan(secured(*one, slow_start=1.0), first)
    assert again.terminators["web"] is first.terminators["web"]
    assert again.connectors["b"] is first.connectors["b"]
    assert again.scopes[""] is first.scopes[""]
    hot = Plan(secured(*other), again)
    assert hot.terminators["web"] is not first.terminators["web"]
    spoken = Plan(secured(*other, protocol="h2"), hot)
    assert spoken.connectors["b"] is not hot.connectors["b"]
    assert spoken.terminators["web"] is hot.terminators["web"]
    with pytest.raises(BadConfiguration, match="there is no certificate 'c'"):
        Plan(msgspec.structs.replace(secured(*other), certificates={}), spoken)


# Taken up by a worker


class Parent:
    """The parent's end of a worker's control socket; what is sent is acted on at once, in this process."""

    def __init__(self) -> None:
        self.sock, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.setblocking(False)
        self.control = Control(theirs)
        self.theirs = theirs

    def configure(self, number: int, base: int, before: Configuration, after: Configuration) -> FromWorker:
        fd = os.memfd_create("test")
        os.write(fd, msgspec.msgpack.encode((difference(before, after), replaced({}, {"k": number}))))
        socket.send_fds(self.sock, [encode(Configure(number, 1, base))], [fd])
        os.close(fd)
        self.control.on_event(0)
        return decode_from_worker(self.sock.recv(1 << 16))

    def listen(self, port: int) -> None:
        with socket.create_server(("127.0.0.1", port)) as sock:
            socket.send_fds(self.sock, [encode(Listen("127.0.0.1", port))], [sock.fileno()])
        self.control.on_event(0)

    def close(self) -> None:
        self.control.worker.close()
        self.sock.close()
        self.theirs.close()


@pytest.fixture
def parent() -> Iterator[Parent]:
    made = Parent()
    yield made
    made.close()


def test_a_worker_takes_up_a_change_of_what_it_has_and_asks_for_the_whole_of_what_it_has_not(parent: Parent) -> None:
    port = free_port()
    parent.listen(port)
    one, two = configuration(1, port=port), configuration(2, port=port)
    three = msgspec.structs.replace(two, routes=())
    worker = parent.control.worker
    assert parent.configure(1, 0, Configuration(), one) == Taken(1)
    assert parent.configure(2, 1, one, two) == Taken(2)
    assert worker.plan.configuration == two
    assert isinstance(parent.configure(4, 3, two, three), Ready)  # the third was missed
    assert worker.plan.configuration == two
    assert parent.configure(4, 0, Configuration(), three) == Taken(4)
    assert worker.plan.configuration == three
    assert worker.shares.assigned == {"k": 4}


def test_a_worker_that_cannot_take_up_a_change_goes_on_by_all_of_the_one_before(parent: Parent) -> None:
    port = free_port()
    parent.listen(port)
    one = configuration(1, port=port)
    assert parent.configure(1, 0, Configuration(), one) == Taken(1)
    other = msgspec.structs.replace(configuration(2, port=free_port()), routes=())
    refused = parent.configure(2, 1, one, other)
    assert isinstance(refused, NotTaken)
    assert "there is no socket" in refused.reason
    worker = parent.control.worker
    assert worker.plan.configuration == one
    assert [each.endpoint.port for each in worker.pools["b"].balancer.states] == [1]
    assert worker.shares.assigned == {"k": 1}
    assert parent.configure(3, 1, one, configuration(3, port=port)) == Taken(3)
    assert [each.endpoint.port for each in worker.pools["b"].balancer.states] == [3]
