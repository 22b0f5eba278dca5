"""Routes: attachment, references, rules and statuses, each condition and reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.foundation.tls import make_ca
from pilothouse.traffic import config
from pilothouse.traffic.control.conditions import CONTROLLER, merged
from pilothouse.traffic.control.filters import seconds
from pilothouse.traffic.control.kinds import TCPRoute, TLSRoute
from pilothouse.traffic.control.routes import hosts_meet
from pilothouse.traffic.routing.router import _intersection
from support.gatewayobjects import (
    authority,
    backend,
    gateway,
    grant,
    grpc_route,
    listener,
    namespace,
    parent_told,
    route,
    service,
    slices,
    status_of,
    stream_route,
    tls_policy,
    told,
    translated,
    weights,
)

CA = make_ca("test").certificate.decode()


def rule_of(*objects: Any) -> config.HttpRule:
    return translated(gateway(), service(), *objects).configuration.routes[0].rules[0]


# Attachment


@pytest.mark.parametrize(
    ("parent", "where", "hostnames", "expected"),
    [
        ({}, "shop", [], ("True", "Accepted")),
        ({"sectionName": "http"}, "shop", [], ("True", "Accepted")),
        ({"port": 80}, "shop", [], ("True", "Accepted")),
        ({"sectionName": "absent"}, "shop", [], ("False", "NoMatchingParent")),
        ({"port": 81}, "shop", [], ("False", "NoMatchingParent")),
        ({"sectionName": "http", "port": 81}, "shop", [], ("False", "NoMatchingParent")),
        ({}, "other", [], ("False", "NotAllowedByListeners")),
        ({}, "shop", ["b.example"], ("True", "Accepted")),
        ({}, "shop", ["b.test"], ("False", "NoMatchingListenerHostname")),
    ],
)
def test_to_which_listeners_a_route_attaches(
    parent: dict[str, Any], where: str, hostnames: list[str], expected: tuple[str, str]
) -> None:
    door = gateway(listener(hostname="*.example"))
    refs = [{"name": "front", "namespace": "shop", **parent}]
    mine = route(namespace=where, parentRefs=refs, hostnames=hostnames)
    found = translated(door, mine, service(), service(namespace="other"))
    assert parent_told(found, mine)["Accepted"] == expected
    is_taken = expected[0] == "True"
    assert len(found.configuration.routes) == int(is_taken)
    assert status_of(found, door).fields["listeners"][0]["attachedRoutes"] == int(is_taken)


@pytest.mark.parametrize(
    ("allowed", "taken"),
    [
        ({"from": "All"}, True),
        ({"from": "Same"}, False),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}, True),
        ({"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "other"}}}, True),
        ({"from": "Selector", "selector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}}, False),
        ({"from": "Selector"}, False),
    ],
)
def test_of_which_namespaces_routes_attach(allowed: dict[str, Any], taken: bool) -> None:
    door = gateway(listener(allowedRoutes={"namespaces": allowed}))
    mine = route(namespace="other")
    found = translated(door, mine, namespace("other", team="a"))
    assert parent_told(found, mine)["Accepted"][0] == str(taken)


def test_a_parent_that_is_nobody_or_somebody_elses_gets_no_entry() -> None:
    mine = route(parentRefs=[{"name": "absent"}, {"name": "front"}, {"group": "", "kind": "Service", "name": "web"}])
    found = translated(gateway(), mine, service())
    shared = status_of(found, mine).shared
    assert shared is not None
    assert [each["parentRef"]["name"] for each in shared[1]] == ["front"]
    assert shared[1][0]["controllerName"] == CONTROLLER


def test_a_route_of_the_wrong_kind_does_not_attach() -> None:
    mine = stream_route(TCPRoute, backend())
    found = translated(gateway(), mine, service())
    assert parent_told(found, mine)["Accepted"] == ("False", "NotAllowedByListeners")
    assert not found.configuration.streams


_HOSTS = st.sampled_from(["", "a.b", "c.a.b", "*.b", "*.a.b", "b", "*.c.b"])


@given(_HOSTS, st.lists(_HOSTS.filter(bool), max_size=3))
def test_host_names_meet_as_the_router_has_it(own: str, names: list[str]) -> None:
    expected = not names or any(_intersection(own, name) is not None for name in names)
    assert hosts_meet(own, names) is expected


# References


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        (backend("absent"), "BackendNotFound"),
        (backend("web", 81), "BackendNotFound"),
        (backend("web", kind="Odd"), "InvalidKind"),
        (backend("web", group="example.com"), "InvalidKind"),
        (backend("web", namespace="other"), "RefNotPermitted"),
        (backend("odd"), "UnsupportedProtocol"),
    ],
)
def test_a_reference_that_leads_nowhere_has_its_share_and_says_why(ref: dict[str, Any], reason: str) -> None:
    mine = route({"backendRefs": [backend(weight=3), {**ref, "weight": 1}]})
    odd = service("odd", appProtocol="kubernetes.io/odd")
    found = translated(gateway(), mine, service(), odd, service(namespace="other"))
    said = parent_told(found, mine)
    assert said["ResolvedRefs"] == ("False", reason)
    assert said["Accepted"] == ("True", "Accepted")
    shares = found.configuration.routes[0].rules[0].backends
    assert [(each.backend, each.weight) for each in shares] == [("shop/web:80", 3), (config.INVALID, 1)]


def test_a_grant_lets_a_route_refer_to_another_namespace() -> None:
    mine = route({"backendRefs": [backend(namespace="other")]})
    others = service(namespace="other"), slices("10.0.0.9", namespace="other")
    found = translated(gateway(), mine, *others, grant("HTTPRoute", "shop", "Service", "web"))
    assert parent_told(found, mine)["ResolvedRefs"] == ("True", "ResolvedRefs")
    assert found.configuration.backends["other/web:80"].endpoints == (config.Endpoint(address="10.0.0.9", port=8080),)


def test_endpoints_that_are_ready_take_requests_and_those_that_end_finish_theirs() -> None:
    found = translated(
        gateway(),
        route(),
        service(),
        slices("10.0.0.2", "10.0.0.1", part="a"),
        slices("10.0.0.3", part="b", ready=False),
        slices("10.0.0.4", part="c", ready=False, serving=True, terminating=True),
        slices("10.0.0.1", part="d"),
    )
    endpoints = found.configuration.backends["shop/web:80"].endpoints
    assert [(each.address, each.is_draining) for each in endpoints] == [
        ("10.0.0.1", False),
        ("10.0.0.2", False),
        ("10.0.0.4", True),
    ]


@pytest.mark.parametrize(
    ("speaks", "protocol", "is_tls"),
    [
        ("kubernetes.io/h2c", "h2", False),
        ("kubernetes.io/ws", "http/1.1", False),
        ("http", "http/1.1", False),
        ("https", "http/1.1", True),
        ("mine", "http/1.1", False),
    ],
)
def test_what_a_backend_speaks(speaks: str, protocol: str, is_tls: bool) -> None:
    found = translated(gateway(), route(), service(appProtocol=speaks)).configuration.backends["shop/web:80"]
    assert (found.protocol, found.tls is not None) == (protocol, is_tls)


# Rules


def test_matches_filters_timeouts_and_retries() -> None:
    rule = {
        "name": "main",
        "matches": [
            {
                "path": {"type": "Exact", "value": "/a"},
                "method": "GET",
                "headers": [{"name": "x", "value": "1"}],
                "queryParams": [{"name": "q", "value": ".*", "type": "RegularExpression"}],
            }
        ],
        "filters": [
            {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "a", "value": "b"}]}},
            {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"remove": ["c"]}},
            {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/z"}}},
            {"type": "RequestMirror", "requestMirror": {"backendRef": backend(), "percent": 20}},
            {"type": "CORS", "cors": {"allowOrigins": ["https://a.example"], "allowCredentials": True, "maxAge": 9}},
        ],
        "backendRefs": [backend()],
        "timeouts": {"request": "10s", "backendRequest": "500ms"},
        "retry": {"codes": [500, 503], "attempts": 3, "backoff": "100ms"},
        "sessionPersistence": {
            "sessionName": "s",
            "absoluteTimeout": "1h",
            "cookieConfig": {"lifetimeType": "Permanent"},
        },
    }
    made = rule_of(route(rule))
    assert made.name == "main"
    assert made.matches == (
        config.Match(
            path=config.PathMatch(type="Exact", value="/a"),
            method="GET",
            headers=(config.ValueMatch(name="x", value="1"),),
            queries=(config.ValueMatch(name="q", value=".*", type="RegularExpression"),),
        ),
    )
    assert made.filters == (
        config.RequestHeaders(change=config.HeaderChange(set=(("a", "b"),))),
        config.ResponseHeaders(change=config.HeaderChange(remove=("c",))),
        config.Rewrite(path="/z"),
        config.Mirror(backend="shop/web:80", numerator=20),
        config.Cors(origins=("https://a.example",), has_credentials=True, max_age=9),
    )
    assert made.timeouts == config.Timeouts(request=10.0, backend=0.5)
    assert made.retry == config.Retry(attempts=3, codes=(500, 503), backoff=0.1)
    assert made.stickiness == config.Stickiness(name="s", seconds=3600, is_endpoint=True, keeps=True)


def test_redirects_need_no_backends() -> None:
    redirect = {
        "scheme": "https",
        "hostname": "b.example",
        "port": 8443,
        "statusCode": 301,
        "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"},
    }
    mine = route({"filters": [{"type": "RequestRedirect", "requestRedirect": redirect}]})
    made = rule_of(mine)
    assert made.backends == ()
    assert made.filters == (
        config.Redirect(status=301, scheme="https", hostname="b.example", port=8443, prefix="/new"),
    )


def test_a_mirror_that_leads_nowhere_is_left_out_and_said() -> None:
    mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": backend("absent")}}
    mine = route({"filters": [mirror], "backendRefs": [backend()]})
    found = translated(gateway(), mine, service())
    assert parent_told(found, mine)["ResolvedRefs"] == ("False", "BackendNotFound")
    assert found.configuration.routes[0].rules[0].filters == ()


@pytest.mark.parametrize(
    "rule",
    [
        {"matches": [{"path": {"type": "RegularExpression", "value": "("}}], "backendRefs": [backend()]},
        {"matches": [{"headers": [{"name": "a", "value": "(", "type": "RegularExpression"}]}]},
        {"backendRefs": [backend(filters=[{"type": "CORS", "cors": {}}])]},
        {"backendRefs": [backend(filters=[{"type": "RequestRedirect", "requestRedirect": {}}])]},
    ],
)
def test_what_cannot_be_done_spoils_that_route_alone(rule: dict[str, Any]) -> None:
    bad, good = route(rule, name="bad"), route(name="good")
    found = translated(gateway(), bad, good, service())
    assert parent_told(found, bad)["Accepted"] == ("False", "UnsupportedValue")
    assert parent_told(found, good)["Accepted"] == ("True", "Accepted")
    assert [each.name for each in found.configuration.routes] == ["shop/good"]


@pytest.mark.parametrize(
    ("match", "path"),
    [
        ({}, config.PathMatch()),
        ({"method": {"service": "a.B", "method": "C"}}, config.PathMatch(type="Exact", value="/a.B/C")),
        ({"method": {"service": "a.B"}}, config.PathMatch(value="/a.B")),
        ({"method": {"method": "C"}}, config.PathMatch(type="RegularExpression", value="/[^/]+/C")),
        (
            {"method": {"type": "RegularExpression", "service": "a.*", "method": "C|D"}},
            config.PathMatch(type="RegularExpression", value="/(?:a.*)/(?:C|D)"),
        ),
    ],
)
def test_calls_are_paths(match: dict[str, Any], path: config.PathMatch) -> None:
    found = translated(gateway(), grpc_route({"matches": [match], "backendRefs": [backend()]}), service())
    made = found.configuration.routes[0]
    assert made.is_grpc
    assert made.rules[0].matches[0].path == path
    assert found.configuration.backends["shop/web:80/grpc"].protocol == "h2"


def test_streams_by_port_and_by_name() -> None:
    door = gateway(
        listener("tcp", 9000, "TCP"), listener("tls", 9443, "TLS", hostname="*.example", tls={"mode": "Passthrough"})
    )
    tcp = stream_route(TCPRoute, backend(), parentRefs=[{"name": "front", "sectionName": "tcp"}])
    tls = stream_route(TLSRoute, backend("absent"), hostnames=["a.example"])
    found = translated(door, tcp, tls, service())
    made = {each.listeners: each for each in found.configuration.streams}
    assert made["shop/front/tcp",].backends[0].backend == "shop/web:80/stream"
    assert found.configuration.backends["shop/web:80/stream"].protocol == "tcp"
    assert made["shop/front/tls",].hostnames == ("a.example",)
    assert parent_told(found, tls)["ResolvedRefs"] == ("False", "BackendNotFound")


# Regions


EAST = {"type": "ExtensionRef", "extensionRef": {"group": "pilothouse.dev", "kind": "RegionWeights", "name": "east"}}


def test_weights_by_region() -> None:
    mine = route({"filters": [EAST], "backendRefs": [backend(weight=9), backend("canary", weight=1)]})
    share = {"regions": ["cn-east"], "backends": [{"name": "canary", "weight": 5}, {"name": "web", "weight": 5}]}
    made = rule_of(mine, service("canary"), weights(share))
    assert [each.weight for each in made.backends] == [9, 1]
    assert made.regions[0].regions == ("cn-east",)
    assert [(each.version, each.weight) for each in made.regions[0].backends] == [("web", 5), ("canary", 5)]


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        (EAST["extensionRef"], "BackendNotFound"),
        ({"group": "example.com", "kind": "Own", "name": "x"}, "InvalidKind"),
    ],
)
def test_a_filter_of_others_that_leads_nowhere_answers_500(ref: Any, reason: str) -> None:
    mine = route({"filters": [{"type": "ExtensionRef", "extensionRef": ref}], "backendRefs": [backend()]})
    found = translated(gateway(), mine, service())
    assert parent_told(found, mine)["ResolvedRefs"] == ("False", reason)
    assert found.configuration.routes[0].rules[0].backends == ()


# Policies of TLS


def test_a_policy_says_how_a_backend_is_reached() -> None:
    policy = tls_policy(
        caCertificateRefs=[{"group": "", "kind": "ConfigMap", "name": "ca"}],
        subjectAltNames=[{"type": "URI", "uri": "spiffe://x/y"}],
    )
    found = translated(gateway(), route(), service(), policy, authority("ca", CA))
    assert found.configuration.backends["shop/web:80"].tls == config.BackendTls(
        hostname="web.example", ca=CA.encode(), names=("spiffe://x/y",)
    )
    shared = status_of(found, policy).shared
    assert shared is not None
    assert shared[1][0]["ancestorRef"]["name"] == "front"
    assert told(shared[1][0]["conditions"]) == {
        "Accepted": ("True", "Accepted"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
    }


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ({"group": "", "kind": "ConfigMap", "name": "absent"}, "InvalidCACertificateRef"),
        ({"group": "", "kind": "ConfigMap", "name": "bad"}, "InvalidCACertificateRef"),
        ({"group": "", "kind": "Secret", "name": "ca"}, "InvalidKind"),
    ],
)
def test_a_policy_without_an_authority_leads_nowhere_not_to_plain_text(ref: dict[str, str], reason: str) -> None:
    policy = tls_policy(caCertificateRefs=[ref])
    found = translated(gateway(), route(), service(), policy, authority("bad", "no certificate"))
    shared = status_of(found, policy).shared
    assert shared is not None
    assert told(shared[1][0]["conditions"]) == {
        "Accepted": ("False", "NoValidCACertificate"),
        "ResolvedRefs": ("False", reason),
    }
    assert found.configuration.routes[0].rules[0].backends[0].backend == config.INVALID


def test_of_two_policies_the_older_counts_and_of_a_port_its_own() -> None:
    old = tls_policy("z", created="2024-01-01T00:00:00Z", hostname="old.example", wellKnownCACertificates="System")
    new = tls_policy("a", created="2025-01-01T00:00:00Z", hostname="new.example", wellKnownCACertificates="System")
    own = tls_policy("p", section="main", hostname="own.example", wellKnownCACertificates="System")
    found = translated(gateway(), route(), service(), old, new)
    tls = found.configuration.backends["shop/web:80"].tls
    assert tls is not None
    assert tls.hostname == "old.example"
    shared = status_of(found, new).shared
    assert shared is not None
    assert told(shared[1][0]["conditions"])["Accepted"] == ("False", "Conflicted")
    tls = (
        translated(gateway(), route(), service(name="web", namespace="shop"), old, own)
        .configuration.backends["shop/web:80"]
        .tls
    )
    assert tls is not None
    assert tls.hostname == "old.example"
    named = from_port_name("main")
    tls = translated(gateway(), route(), named, old, own).configuration.backends["shop/web:80"].tls
    assert tls is not None
    assert tls.hostname == "own.example"


def from_port_name(name: str) -> Any:
    from pilothouse.kinds.structs import Service, from_dict

    spec = {"ports": [{"port": 80, "name": name}]}
    return from_dict({"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}, Service)


# Statuses


def test_what_others_said_stays_and_moments_move_with_the_status_alone() -> None:
    from datetime import UTC, datetime

    mine = route()
    status = status_of(translated(gateway(), mine, service()), mine)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    theirs = {"parentRef": {"name": "else"}, "controllerName": "example.com/x", "conditions": [], "odd": 1}
    first = merged(status, {"parents": [theirs]}, now)
    assert first is not None
    assert first["parents"][0] == theirs
    assert {each["lastTransitionTime"] for each in first["parents"][1]["conditions"]} == {"2026-01-01T00:00:00Z"}
    assert merged(status, first, now.replace(year=2027)) is None
    changed = status_of(translated(gateway(), mine), mine)
    after = merged(changed, first, now.replace(year=2027))
    assert after is not None
    moments = {each["type"]: each["lastTransitionTime"] for each in after["parents"][1]["conditions"]}
    assert moments == {"Accepted": "2026-01-01T00:00:00Z", "ResolvedRefs": "2027-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("text", "expected"), [("1h30m", 5400.0), ("500ms", 0.5), ("0s", 0.0), ("1m1s1ms", 61.001), (None, 0.0)]
)
def test_durations(text: str | None, expected: float) -> None:
    assert seconds(text) == expected
