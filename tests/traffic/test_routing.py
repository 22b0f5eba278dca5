"""Which rule a request falls under: Gateway API's order case by case, and against a slow reading of it at random."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.traffic.config import (
    Configuration,
    HttpRoute,
    HttpRule,
    Listener,
    Match,
    PathMatch,
    RegionSplit,
    ValueMatch,
    Weighted,
)
from pilothouse.traffic.routing import BadRoute, Router
from pilothouse.traffic.routing.counters import LocalCounters


def prefix(value: str, **others: Any) -> Match:
    return Match(path=PathMatch(value=value), **others)


def exact(value: str, **others: Any) -> Match:
    return Match(path=PathMatch(type="Exact", value=value), **others)


def regex(value: str, **others: Any) -> Match:
    return Match(path=PathMatch(type="RegularExpression", value=value), **others)


def header(name: str, value: str, kind: Any = "Exact") -> ValueMatch:
    return ValueMatch(name=name, value=value, type=kind)


def router(*routes: HttpRoute, hostname: str = "") -> Router:
    listener = Listener(name="web", port=80, protocol="HTTP", hostname=hostname)
    return Router(Configuration(listeners=(listener,), routes=routes))


def route(name: str, *rules: HttpRule, hostnames: tuple[str, ...] = (), created: float = 0.0) -> HttpRoute:
    return HttpRoute(name=name, listeners=("web",), rules=rules, hostnames=hostnames, created=created)


def rule(name: str, *matches: Match) -> HttpRule:
    return HttpRule(name=name, matches=matches or (Match(),), backends=(Weighted(backend=name),))


def asked(
    made: Router,
    path: str = "/",
    host: str = "example.com",
    method: str = "GET",
    query: str = "",
    headers: dict[str, str] | None = None,
    region: str = "",
) -> str:
    found = made.find("web", host, method, path, query, (headers or {}).get, region)
    return "" if found is None else found.name


@pytest.mark.parametrize(
    ("value", "path", "takes"),
    [
        ("/", "/", True),
        ("/", "/any/thing", True),
        ("/", "*", False),
        ("/foo", "/foo", True),
        ("/foo", "/foo/", True),
        ("/foo", "/foo/bar", True),
        ("/foo", "/foobar", False),
        ("/foo/", "/foo", True),
        ("/foo/", "/foo/bar", True),
        ("/foo/bar", "/foo", False),
        ("/foo", "/FOO", False),
    ],
)
def test_prefixes_go_by_elements(value: str, path: str, takes: bool) -> None:
    assert asked(router(route("r", rule("it", prefix(value)))), path) == ("it" if takes else "")


def test_the_more_specific_path_comes_first() -> None:
    made = router(
        route(
            "r",
            rule("expression", regex("/a/b.*")),
            rule("short", prefix("/a")),
            rule("root", prefix("/")),
            rule("long", prefix("/a/b")),
            rule("whole", exact("/a/b/c")),
        )
    )
    paths = ("/a/b/c", "/a/b/c/", "/a/bc", "/a", "/z", "/a/b")
    assert [asked(made, path) for path in paths] == ["whole", "long", "short", "short", "root", "long"]
    alone = router(route("r", rule("expression", regex("/a/b.*"))))
    assert [asked(alone, path) for path in ("/a/bcd", "/x/a/bcd", "/a")] == ["expression", "", ""]


def test_between_equal_paths_method_headers_and_queries_count_in_this_order() -> None:
    two = (header("X-One", "1"), header("x-two", "2"))
    made = router(
        route(
            "r",
            rule("plain", prefix("/")),
            rule("query", prefix("/", queries=(header("q", "1"),))),
            rule("header", prefix("/", headers=two[:1])),
            rule("headers", prefix("/", headers=two)),
            rule("method", prefix("/", method="POST")),
        )
    )
    assert asked(made) == "plain"
    assert asked(made, query="q=1") == "query"
    assert asked(made, query="q=1", headers={"x-one": "1"}) == "header"
    assert asked(made, query="q=1", headers={"x-one": "1", "x-two": "2"}) == "headers"
    assert asked(made, method="POST", headers={"x-one": "1", "x-two": "2"}) == "method"
    assert asked(made, headers={"x-one": "2"}) == "plain"


def test_of_a_query_parameter_the_first_value_counts() -> None:
    made = router(route("r", rule("it", prefix("/", queries=(header("a", "x y"),)))))
    assert asked(made, query="b=1&a=x+y&a=z") == "it"
    assert asked(made, query="a=x%20y") == "it"
    assert asked(made, query="a=z&a=x+y") == ""


def test_values_may_be_expressions_and_are_matched_whole() -> None:
    wanted = (header("x", "v[0-9]+", "RegularExpression"), header("X", "never"))
    made = router(route("r", rule("it", prefix("/", headers=wanted))))
    assert [asked(made, headers={"x": value}) for value in ("v12", "v12b", "av1")] == ["it", "", ""]


def test_the_older_route_wins_then_the_name_then_the_place() -> None:
    late, early = route("a", rule("late"), created=2.0), route("b", rule("early"), created=1.0)
    assert asked(router(late, early)) == "early"
    first, second = route("ns/a", rule("first"), created=1.0), route("ns/b", rule("second"), created=1.0)
    assert asked(router(second, first)) == "first"
    assert asked(router(route("r", rule("one"), rule("two")))) == "one"


def test_host_names_go_by_how_specific_they_are() -> None:
    made = router(
        route("any", rule("any")),
        route("wild", rule("wild"), hostnames=("*.example.com",)),
        route("deep", rule("deep"), hostnames=("*.b.example.com",)),
        route("own", rule("own", prefix("/here")), hostnames=("a.example.com",)),
    )
    hosts = ("a.example.com", "x.example.com", "y.b.example.com", "example.com", "other.org")
    assert [asked(made, "/here", host) for host in hosts] == ["own", "wild", "deep", "any", "any"]
    # What the more specific one does not take may be another's.
    assert asked(made, "/", "a.example.com") == "wild"


@pytest.mark.parametrize(
    ("listener", "own", "host", "takes"),
    [
        ("*.example.com", "a.example.com", "a.example.com", True),
        ("*.example.com", "a.example.com", "b.example.com", False),
        ("a.example.com", "*.example.com", "a.example.com", True),
        ("a.example.com", "*.example.com", "b.example.com", False),
        ("*.example.com", "*.a.example.com", "b.a.example.com", True),
        ("*.example.com", "*.a.example.com", "a.example.com", False),
        ("*.example.com", "example.com", "example.com", False),
        ("a.example.com", "b.example.com", "b.example.com", False),
        ("*.example.com", "", "q.example.com", True),
        ("*.example.com", "", "example.com", False),
        ("", "*.example.com", "example.com", False),
        ("Example.COM", "example.com", "example.com", True),
    ],
)
def test_a_route_serves_what_it_has_in_common_with_the_listener(
    listener: str, own: str, host: str, takes: bool
) -> None:
    made = router(route("r", rule("it"), hostnames=(own,) if own else ()), hostname=listener)
    assert asked(made, host=host) == ("it" if takes else "")


def test_a_region_is_a_condition_and_has_shares_of_its_own() -> None:
    split = RegionSplit(regions=("cn-east",), backends=(Weighted(backend="new"),))
    everywhere = HttpRule(name="all", backends=(Weighted(backend="old"),), regions=(split,))
    inside = HttpRule(name="inside", matches=(prefix("/", regions=("eu",)),), backends=(Weighted(backend="eu"),))
    made = router(route("r", everywhere, inside))
    assert asked(made, region="eu") == "inside"

    def backend(region: str) -> str:
        found = made.find("web", "h", "GET", "/", "", lambda _: None, region)
        assert found is not None
        share = found.shares(region).next(LocalCounters())
        assert share is not None
        return share.weighted.backend

    assert [backend(region) for region in ("cn-east", "us", "", "eu")] == ["new", "old", "old", "eu"]
    assert made.keys == ["r/0", "r/0#0", "r/1"]


def test_what_cannot_be_used_is_said_with_its_place() -> None:
    with pytest.raises(BadRoute, match=r"route 'r': rules\[0\]\.matches\[0\]\.path: '\(' is no regular expression"):
        router(route("r", rule("it", regex("("))))
    with pytest.raises(BadRoute, match=r"rules\[0\]\.matches\[0\]\.headers\[0\]"):
        router(route("r", rule("it", prefix("/", headers=(header("x", "[", "RegularExpression"),)))))
    with pytest.raises(BadRoute, match=r"route 'r': rules\[0\]\.backends: weights \[-1\]"):
        router(route("r", HttpRule(backends=(Weighted(backend="b", weight=-1),))))
    assert router(route("r")).find("none", "h", "GET", "/", "", lambda _: None) is None


# Against a slow reading of the specification

_PATHS = st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab", "/a/b/c"])
_HOSTS = st.sampled_from(["", "*.com", "*.example.com", "example.com", "a.example.com", "*.a.example.com"])
_VALUES = st.sampled_from([("x", "1"), ("x", "2"), ("y", "1")])
_PAIRS = st.lists(_VALUES, max_size=2, unique_by=lambda each: each[0])


@st.composite
def matches(draw: st.DrawFn) -> Match:
    kind: Any = draw(st.sampled_from(["Exact", "PathPrefix", "PathPrefix"]))
    return Match(
        path=PathMatch(type=kind, value=draw(_PATHS)),
        method=draw(st.sampled_from(["", "", "GET", "POST"])),
        headers=tuple(header(*each) for each in draw(_PAIRS)),
        queries=tuple(header(*each) for each in draw(_PAIRS)),
    )


@st.composite
def routes(draw: st.DrawFn) -> tuple[HttpRoute, ...]:
    made = []
    for number in range(draw(st.integers(1, 4))):
        rules = [
            rule(f"{number}.{place}", *draw(st.lists(matches(), min_size=1, max_size=2)))
            for place in range(draw(st.integers(1, 3)))
        ]
        hostnames = tuple(each for each in draw(st.lists(_HOSTS, max_size=2, unique=True)) if each)
        made.append(route(f"r{number}", *rules, hostnames=hostnames, created=draw(st.sampled_from([1.0, 2.0]))))
    return tuple(made)


def plain_answer(
    made: tuple[HttpRoute, ...], host: str, method: str, path: str, values: dict[str, str], query: dict[str, str]
) -> str:
    best: tuple[Any, ...] | None = None
    for each in made:
        fitting = [name for name in each.hostnames or ("",) if fits_host(name, host)]
        if not fitting:
            continue
        specific = max((not name.startswith("*") and bool(name), len(name)) for name in fitting)
        for number, one in enumerate(each.rules):
            for place, match in enumerate(one.matches):
                if not fits(match, method, path, values, query):
                    continue
                whole = match.path.type == "Exact"
                length = len(match.path.value.rstrip("/"))
                rank = (
                    *(-specific[0], -specific[1], not whole, 0 if whole else -length, not match.method),
                    *(-len(match.headers), -len(match.queries), each.created, each.name, number, place),
                )
                if best is None or rank < best[0]:
                    best = (rank, one.name)
    return "" if best is None else str(best[1])


def fits_host(name: str, host: str) -> bool:
    return not name or name == host or (name.startswith("*.") and host.endswith(name[1:]))


def fits(match: Match, method: str, path: str, values: dict[str, str], query: dict[str, str]) -> bool:
    if match.path.type == "Exact":
        takes = path == match.path.value
    else:
        wanted = [each for each in match.path.value.split("/") if each]
        takes = path.strip("/").split("/")[: len(wanted)] == wanted
    return (
        takes
        and match.method in {"", method}
        and all(values.get(each.name) == each.value for each in match.headers)
        and all(query.get(each.name) == each.value for each in match.queries)
    )


@settings(max_examples=150, deadline=None)
@given(
    routes(),
    st.sampled_from(["example.com", "a.example.com", "b.a.example.com", "other.com", "org"]),
    st.sampled_from(["GET", "POST"]),
    _PATHS,
    _PAIRS,
    _PAIRS,
)
def test_it_agrees_with_a_slow_reading(
    made: tuple[HttpRoute, ...],
    host: str,
    method: str,
    path: str,
    values: list[tuple[str, str]],
    query: list[tuple[str, str]],
) -> None:
    text = "&".join(f"{name}={value}" for name, value in query)
    found = asked(router(*made), path, host, method, text, dict(values))
    assert found == plain_answer(made, host, method, path, dict(values), dict(query))
