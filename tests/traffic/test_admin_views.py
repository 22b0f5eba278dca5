"""What a gateway's owner is told, from what it knows: pure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from pilothouse.traffic.admin.answers import Backends, Counters, Routes, Top
from pilothouse.traffic.admin.tables import backend_rows, headline, route_rows, top_rows
from pilothouse.traffic.admin.views import MOST_ROWS, backends_now, counters_now, routes_now, top_now
from pilothouse.traffic.config import (
    INVALID,
    Backend,
    BackendTls,
    Configuration,
    Endpoint,
    HttpRoute,
    HttpRule,
    Listener,
    Match,
    PathMatch,
    RegionSplit,
    StreamRoute,
    ValueMatch,
    Weighted,
)
from pilothouse.traffic.numbers import Key, Rates, Second, Windows, bucket_of
from pilothouse.traffic.numbers.exposition import Totals
from pilothouse.traffic.plane.messages import EndpointNow, Shown

STABLE, CANARY = Weighted(backend="s", version="stable", weight=3), Weighted(backend="c", version="canary", weight=1)
MATCHES = (
    Match(path=PathMatch(value="/a/"), method="GET", headers=(ValueMatch(name="x-user", value="me"),)),
    Match(path=PathMatch(type="Exact", value="/b"), queries=(ValueMatch(name="q", value="1"),), regions=("eu", "us")),
    Match(path=PathMatch(type="RegularExpression", value="/c.*")),
)
SPLIT = RegionSplit(
    regions=("cn-east", "cn-west"),
    backends=(msgspec.structs.replace(CANARY, weight=0), msgspec.structs.replace(STABLE)),
)
CONFIGURATION = Configuration(
    generation=7,
    listeners=(
        Listener(name="web", port=80, protocol="HTTP"),
        Listener(name="secure", port=443, protocol="HTTPS", hostname="a.example"),
        Listener(name="raw", port=9000, protocol="TCP"),
    ),
    routes=(
        HttpRoute(
            name="shop/web",
            listeners=("web", "secure"),
            hostnames=("a.example",),
            rules=(
                HttpRule(name="main", matches=MATCHES, backends=(STABLE, CANARY), regions=(SPLIT,)),
                HttpRule(backends=(Weighted(backend=INVALID, version="gone"),)),
                HttpRule(),
            ),
        ),
    ),
    streams=(StreamRoute(name="shop/db", listeners=("raw",), backends=(Weighted(backend="d"),)),),
    backends={
        "s": Backend(endpoints=(Endpoint(address="10.0.0.1", port=1), Endpoint(address="::1", port=2))),
        "c": Backend(protocol="h2", tls=BackendTls(hostname="c")),
    },
)


def second(count: int, code: int = 200, seconds: float = 0.02) -> Second:
    return Second({code: count}, {bucket_of(seconds): count}, seconds * count, 10 * count, 100 * count)


def windows(**by: int) -> Windows:
    del by
    made = Windows()
    made.add(
        100,
        [
            (Key("shop/web", "main", "s", "stable", ""), second(30)),
            (Key("shop/web", "main", "s", "stable", "eu"), second(10)),
            (Key("shop/web", "main", "s", "stable", "cn-west"), second(5)),
            (Key("shop/web", "main", "c", "canary", ""), second(10, 503, 1.5)),
            (Key("shop/web", "1", "", "gone", ""), second(2, 500)),
            (Key("shop/web", "main", "old", "before", ""), second(1)),
            (Key("", "", "", "", ""), second(4, 404)),
        ],
    )
    return made


FLYING = {Key("shop/web", "main", "c", "canary", "eu"): 3, Key("shop/db", "", "d", "", ""): 2}


def told() -> Routes:
    return routes_now(CONFIGURATION, windows(), FLYING, 10, 101.5)


def test_routes_have_their_weights_and_what_came_to_them() -> None:
    answer = told()
    rows = [
        (row.route, row.rule, row.backend, row.version, row.weight, row.share, row.measured.requests)
        for row in answer.rows
    ]
    assert rows == [
        ("shop/web", "main", "s", "stable", 3, 0.75, 40),
        ("shop/web", "main", "c", "canary", 1, 0.25, 10),
        ("shop/web", "main", "c", "canary", 0, 0.0, 0),
        ("shop/web", "main", "s", "stable", 3, 1.0, 5),
        ("shop/web", "1", "", "gone", 1, 1.0, 2),
        ("shop/web", "2", "", "", 0, 0.0, 0),
        ("shop/db", "", "d", "", 1, 1.0, 0),
        ("", "", "", "", 0, 0.0, 4),
        ("shop/web", "main", "old", "before", 0, 0.0, 1),
    ]
    assert (answer.seconds, answer.generation, answer.left_out) == (10, 7, 0)
    canary = answer.rows[1]
    assert canary.measured.error_ratio == 1.0
    assert canary.measured.rate == 1.0
    assert canary.measured.p99 == pytest.approx(1.5, rel=0.04)
    assert canary.measured.in_flight == 3
    assert answer.rows[6].measured.in_flight == 2
    assert answer.rows[2].regions == ("cn-east", "cn-west")


def test_routes_say_where_they_are_and_what_they_match() -> None:
    row, stream = told().rows[0], told().rows[6]
    assert (row.listeners, row.ports, row.hosts) == (("web", "secure"), (80, 443), ("a.example",))
    assert row.matches == ("GET /a/* x-user=me", "/b ?q=1 region=eu,us", "~/c.*")
    assert (stream.listeners, stream.ports, stream.hosts, stream.matches) == (("raw",), (9000,), (), ())


def test_a_table_of_routes_is_short_and_a_wide_one_has_all() -> None:
    rows, columns = route_rows(told(), wide=False)
    assert columns == [
        *("route", "rule", "hosts", "match", "backend", "version", "regions", "weight"),
        *("rps", "errors", "p50", "p95", "p99", "in_flight"),
    ]
    shown = [{name: row[name] for name in columns} for row in rows]
    assert shown[1] == {
        "route": "shop/web",
        "rule": "main",
        "hosts": ["a.example"],
        "match": "GET /a/* x-user=me | /b ?q=1 region=eu,us | ~/c.*",
        "backend": "c",
        "version": "canary",
        "regions": [],
        "weight": 1,
        "rps": "1.0",
        "errors": "100%",
        "p50": "1.49s",
        "p95": "1.49s",
        "p99": "1.49s",
        "in_flight": 3,
    }
    assert [row["weight"] for row in rows] == [3, 1, 0, 3, 1, "", 1, "", ""]
    assert [row["backend"] for row in rows] == ["s", "c", "c", "s", "(invalid)", "(none)", "d", "(none)", "old"]
    assert rows[7]["route"] == "(no route)"
    _, wide = route_rows(told(), wide=True)
    assert set(wide) - set(columns) == {"listeners", "ports", "share", "requests"}
    plain = msgspec.structs.replace(CONFIGURATION, routes=())
    _, without = route_rows(routes_now(plain, Windows(), {}, 10, 100.0), wide=False)
    assert "regions" not in without


def test_one_answer_takes_so_many_rows() -> None:
    rule = HttpRule(backends=(STABLE,))
    many = msgspec.structs.replace(
        CONFIGURATION, routes=(HttpRoute(name="r", listeners=("web",), rules=(rule,) * (MOST_ROWS + 5)),)
    )
    answer = routes_now(many, Windows(), {}, 10, 100.0)
    assert (len(answer.rows), answer.left_out) == (MOST_ROWS, 6)


def shown() -> list[list[Shown]]:
    def now(state: str, left: float = 0.0, backend: str = "s", address: str = "10.0.0.1:1") -> EndpointNow:
        return EndpointNow(backend, address, state, 1, 2, 3, 40, 5, left)

    return [
        [Shown(1, [now("up")], False), Shown(1, [now("up", address="[::1]:2")], True, 1, 0, {"s": 4})],
        [Shown(1, [now("ejected", 12.0), now("unhealthy", address="[::1]:2")], True, 1, 0, {"s": 1})],
    ]


def backends() -> Backends:
    rates = Rates()
    rates.add(100, [(("s", "10.0.0.1:1"), 20, 5), (("s", "10.9.9.9:1"), 1, 1)])
    return backends_now(CONFIGURATION, shown(), rates, 10, 101.2, 1_700_000_000.0)


def test_backends_are_as_all_workers_together_see_them() -> None:
    first, second_, empty = backends().rows
    assert msgspec.to_builtins(first) == {
        "backend": "s",
        "protocol": "http/1.1",
        "address": "10.0.0.1:1",
        "state": "ejected",
        "workers": {"up": 1, "ejected": 1},
        "ejected_seconds": 12.0,
        "ejected_until": "2023-11-14T22:13:32Z",
        "in_flight": 2,
        "idle": 4,
        "open": 6,
        "waiting": 5,
        "rate": 2.0,
        "requests": 20,
        "failures": 5,
        "total": 80,
        "failed": 10,
    }
    assert (second_.address, second_.state, second_.rate, second_.ejected_until) == ("[::1]:2", "unhealthy", 0.0, "")
    assert (empty.backend, empty.protocol, empty.address, empty.state) == ("c", "h2+tls", "", "")


def test_a_table_of_backends_says_how_many_workers_leave_one_out() -> None:
    rows, columns = backend_rows(backends(), wide=False)
    assert [(row["address"], row["state"], row["ejected"]) for row in rows] == [
        ("10.0.0.1:1", "ejected 1/2", "12s"),
        ("[::1]:2", "unhealthy 1/2", ""),
        ("(no endpoints)", "", ""),
    ]
    assert "waiting" not in columns
    assert "waiting" in backend_rows(backends(), wide=True)[1]


def test_workers_that_do_not_answer_are_left_out() -> None:
    answer = backends_now(CONFIGURATION, [], Rates(), 10, 101.2, 0.0)
    assert [(row.address, row.state, row.workers) for row in answer.rows] == [
        ("10.0.0.1:1", "", {}),
        ("[::1]:2", "", {}),
        ("", "", {}),
    ]
    assert backend_rows(answer, wide=False)[0][0]["state"] == "unknown"


def top(*by: str, most: int = 20) -> Top:
    return top_now(windows(), FLYING, Counters(), by, most, 10, 101.5)


def test_the_busiest_come_first() -> None:
    found = top("version", "region")
    assert [(row.names["version"], row.names["region"], row.measured.requests) for row in found.rows] == [
        ("stable", "", 30),
        ("canary", "", 10),
        ("stable", "eu", 10),
        ("stable", "cn-west", 5),
        ("", "", 4),
        ("gone", "", 2),
        ("before", "", 1),
        ("canary", "eu", 0),
    ]
    assert (found.whole.requests, found.whole.errors, found.whole.in_flight) == (62, 12, 5)
    assert found.whole.bytes_out_rate == 620.0
    short = top("route", most=1)
    assert ([row.names for row in short.rows], short.left_out) == ([{"route": "shop/web"}], 2)


def test_a_table_of_the_busiest_has_what_was_asked_for() -> None:
    rows, columns = top_rows(top("version"), wide=False)
    assert columns == ["version", "rps", "errors", "p50", "p95", "p99", "in_per_s", "out_per_s", "in_flight"]
    assert [rows[0][name] for name in columns] == ["stable", "4.5", "0%", "20ms", "20ms", "20ms", "45 B", "450 B", 0]
    assert rows[2]["version"] == "-"
    assert top_rows(top("version"), wide=True)[1][-1] == "requests"


def test_counters_prove_how_bytes_moved() -> None:
    totals = Totals()
    totals.add([(Key("r", "0", "b", "v", ""), second(40)), (Key("r", "0", "b", "v", "eu"), second(10, 500))])
    moved = {"bytes_spliced": 3 << 30, "bytes_copied": 1 << 30, "vectored_writes": 45, "writes": 60}
    totals.move(moved | {"buffers_reused": 98, "pipes_made": 1, "pipes_reused": 3})
    totals.refuse({"smuggling": 2})
    totals.connections = 9
    counters = counters_now(totals, 2, 5)
    assert msgspec.to_builtins(counters) == {
        "workers": 2,
        "generation": 5,
        "connections": 9,
        "requests": 50,
        "bytes_spliced": 3 << 30,
        "bytes_copied": 1 << 30,
        "spliced_share": 0.75,
        "writes": 60,
        "vectored_writes": 45,
        "vectored_writes_per_response": 0.9,
        "buffers_reused": 98,
        "buffer_reuse": 0.98,
        "pipes_made": 1,
        "pipes_reused": 3,
        "pipe_reuse": 0.75,
        "refused": {"smuggling": 2},
    }
    lines = headline(msgspec.structs.replace(top("route"), counters=counters))
    assert lines[0] == (
        "6.2 requests/s over 10 s, 19.35% errors, p50 20ms, p95 1.49s, p99 1.49s; 5 in flight, 9 connections, 2 workers"
    )
    assert lines[1:] == [
        "50 requests since the start; 3.0 GiB of bodies spliced, 1.0 GiB copied (75.00% spliced)",
        "0.90 vectored writes a response; reused: 98.00% of buffers, 75.00% of pipes",
        "refused: smuggling 2",
    ]


def test_nothing_yet_divides_by_nothing() -> None:
    counters = counters_now(Totals(), 2, 0)
    assert (counters.spliced_share, counters.vectored_writes_per_response, counters.buffer_reuse) == (0.0, 0.0, 0.0)
    empty = top_now(Windows(), {}, counters, ("route",), 5, 10, 100.0)
    assert empty.rows == []
    assert headline(empty)[0].startswith("0 requests/s over 10 s, 0% errors, p50 -, p95 -, p99 -")


@pytest.mark.parametrize(
    ("ratio", "shown_"), [(0.0, "0%"), (1e-9, "0.01%"), (0.0123, "1.23%"), (0.999_999, "99.99%"), (1.0, "100%")]
)
def test_few_errors_do_not_look_like_none(ratio: float, shown_: str) -> None:
    measured: Any = msgspec.structs.replace(top("route").rows[0].measured, error_ratio=ratio)
    row = msgspec.structs.replace(top("route").rows[0], measured=measured)
    rows, _ = top_rows(msgspec.structs.replace(top("route"), rows=[row]), wide=False)
    assert rows[0]["errors"] == shown_
