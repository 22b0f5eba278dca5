"""Ingress, and our own policies: what the data plane is told, and what statuses say."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pilothouse.foundation.tls import issue, make_ca
from pilothouse.kinds.structs import Ingress, IngressClass, Secret, from_dict, to_dict
from pilothouse.traffic import config
from pilothouse.traffic.control.addresses import Addresses
from pilothouse.traffic.control.ingresses import INGRESS_CONTROLLER
from pilothouse.traffic.control.kinds import Gateway, TrafficPolicy
from pilothouse.traffic.control.translate import Options
from pilothouse.traffic.routing import Router
from support.gatewayobjects import (
    backend,
    gateway,
    listener,
    listener_set,
    meta,
    route,
    secret,
    service,
    slices,
    status_of,
    told,
    translated,
)

CLASS = from_dict({"metadata": {"name": "pilothouse"}, "spec": {"controller": INGRESS_CONTROLLER}}, IngressClass)
DEFAULT = from_dict(
    {
        "metadata": {"name": "pilothouse", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": INGRESS_CONTROLLER},
    },
    IngressClass,
)


def to(name: str = "web", port: str = "") -> dict[str, Any]:
    return {"service": {"name": name, "port": {"name": port} if port else {"number": 80}}}


def ingress(*rules: dict[str, Any], name: str = "site", **spec: Any) -> Ingress:
    whole = {"ingressClassName": "pilothouse", "rules": list(rules), **spec}
    return from_dict({"metadata": meta(name), "spec": {k: v for k, v in whole.items() if v is not None}}, Ingress)


def rule(host: str, *paths: tuple[str, str, dict[str, Any]]) -> dict[str, Any]:
    listed = [{"path": path, "pathType": kind, "backend": backend} for path, kind, backend in paths]
    return {"host": host, "http": {"paths": listed}}


SITE = rule("a.example", ("/x", "Exact", to()), ("/p", "Prefix", to("other")), ("/i", "ImplementationSpecific", to()))


def found_at(configuration: config.Configuration, host: str, path: str) -> str | None:
    """Return the Service that a request gets to, "" for none, None without a route."""
    router = Router(configuration)
    name = configuration.listeners[0].name
    found = router.find(name, host, "GET", path, "", lambda _: None)
    return None if found is None else found.rule.backends[0].backend.partition(":")[0]


def test_paths_and_hosts() -> None:
    made = translated(CLASS, ingress(SITE), service(), service("other")).configuration
    assert [(each.protocol, each.port) for each in made.listeners] == [("HTTP", 80)]
    assert found_at(made, "a.example", "/x") == "shop/web"
    assert found_at(made, "a.example", "/x/y") is None
    assert found_at(made, "a.example", "/p/y") == "shop/other"
    assert found_at(made, "a.example", "/px") is None
    assert found_at(made, "a.example", "/i/j") == "shop/web"
    assert found_at(made, "b.example", "/x") is None


def test_a_default_backend_comes_last_also_after_other_ingresses() -> None:
    one = ingress(SITE, name="a", defaultBackend=to("other"))
    two = ingress(rule("", ("/z", "Prefix", to())), name="b")
    made = translated(CLASS, one, two, service(), service("other")).configuration
    assert found_at(made, "b.example", "/z") == "shop/web"
    assert found_at(made, "b.example", "/else") == "shop/other"
    assert found_at(made, "a.example", "/else") == "shop/other"
    assert math.inf in {each.created for each in made.routes}


def test_a_port_by_name_and_a_service_that_is_not_there() -> None:
    named = from_dict(
        {"metadata": meta("web"), "spec": {"ports": [{"port": 81}, {"port": 80, "name": "main"}]}}, type(service())
    )
    mine = ingress(rule("", ("/b", "Exact", to("web", "main")), ("/c", "Exact", to("no"))))
    made = translated(CLASS, mine, named, slices("10.0.0.1")).configuration
    assert found_at(made, "x", "/b") == "shop/web"
    assert found_at(made, "x", "/c") == ""
    assert set(made.backends) == {"shop/web:80"}


@pytest.mark.parametrize(
    ("kind", "name", "taken"),
    [(CLASS, "pilothouse", True), (CLASS, None, False), (DEFAULT, None, True), (CLASS, "nginx", False)],
)
def test_which_ingresses_are_ours(kind: IngressClass, name: str | None, taken: bool) -> None:
    mine = ingress(SITE, ingressClassName=name)
    made = translated(kind, mine, service(), service("other"))
    assert bool(made.configuration.routes) is taken
    if taken:
        fields = status_of(made, mine).fields
        assert fields == {"loadBalancer": {"ingress": [{"ip": "127.5.0.1"}]}}


def test_certificates_open_port_443() -> None:
    pair = issue(make_ca("t"), "a.example", hosts=["a.example"], server=True)
    good = secret("cert", "shop", pair.certificate, pair.key)
    mine = ingress(SITE, tls=[{"hosts": ["a.example"], "secretName": "cert"}, {"secretName": "absent"}])
    made = translated(CLASS, mine, good, service()).configuration
    assert [(each.protocol, each.port) for each in made.listeners] == [("HTTP", 80), ("HTTPS", 443)]
    assert made.listeners[1].tls is not None
    assert made.listeners[1].tls.certificates == ("shop/cert",)


def test_ingresses_and_gateways_side_by_side() -> None:
    made = translated(CLASS, ingress(SITE), gateway(), route(), service(), service("other")).configuration
    assert {each.address for each in made.listeners} == {"127.5.0.1", "127.5.0.2"}


# Policies of ours


def policy(
    kind: str, name: str, group: str = "gateway.networking.k8s.io", called: str = "policy", **spec: Any
) -> TrafficPolicy:
    whole = {"targetRefs": [{"group": group, "kind": kind, "name": name}], **spec}
    return from_dict({"metadata": meta(called), "spec": whole}, TrafficPolicy)


def test_limits_and_stickiness_of_a_route() -> None:
    mine = policy(
        "HTTPRoute",
        "web",
        rateLimit={"requestsPerSecond": 10, "burst": 5, "by": "address"},
        stickiness={"type": "Header", "name": "x-user", "lifetime": "1h"},
    )
    made = translated(gateway(), route(), service(), mine)
    got = made.configuration.routes[0].rules[0]
    assert got.rate == config.RateLimit(rate=10, burst=5, by="address")
    assert got.stickiness == config.Stickiness(type="Header", name="x-user", seconds=3600)
    shared = status_of(made, mine).shared
    assert shared is not None
    assert told(shared[1][0]["conditions"]) == {"Accepted": ("True", "Accepted")}


def test_limits_that_gateways_share() -> None:
    limit = {"requestsPerSecond": 10, "storeRef": {"name": "redis"}, "storeTimeout": "1s", "away": "Deny"}
    mine = policy("HTTPRoute", "web", rateLimit=limit)
    tree = {"metadata": meta("redis"), "data": {"url": "cmVkaXM6Ly86c2VjcmV0QHJlZGlzLmV4YW1wbGUvMQ=="}}
    made = translated(gateway(), route(), service(), mine, from_dict(tree, Secret))
    shared = config.RateLimit(rate=10, store="redis://:secret@redis.example/1", patience=1.0, away="Deny")
    assert made.configuration.routes[0].rules[0].rate == shared
    alone = config.RateLimit(rate=10, patience=1.0, away="Deny")
    bad = from_dict({**tree, "data": {"url": "aHR0cDovLzpzZWNyZXRAYQ=="}}, Secret)
    for objects, message in (((), "Secret 'shop/redis' is not there"), ((bad,), "has to begin with redis://")):
        made = translated(gateway(), route(), service(), mine, *objects)
        assert made.configuration.routes[0].rules[0].rate == alone
        said = status_of(made, mine).shared
        assert said is not None
        condition = said[1][0]["conditions"][0]
        assert (condition["type"], condition["status"], condition["reason"]) == ("Accepted", "False", "Invalid")
        assert message in condition["message"]
        assert "secret@" not in condition["message"]


def test_health_and_limits_of_a_service() -> None:
    mine = policy(
        "Service",
        "web",
        group="",
        healthCheck={"path": "/ok", "interval": "2s"},
        outlierEjection={"failures": 2, "duration": "1m"},
        circuitBreaker={"connections": 3},
        slowStart="10s",
    )
    made = translated(gateway(), route(), service(), mine).configuration.backends["shop/web:80"]
    assert made.health == config.HealthCheck(path="/ok", every=2.0)
    assert made.outliers == config.OutlierEjection(failures=2, seconds=60.0)
    assert made.circuit == config.CircuitBreaker(connections=3)
    assert made.slow_start == 10.0


def test_regions_and_limits_of_a_gateway() -> None:
    mine = policy(
        "Gateway",
        "front",
        regions={
            "header": "x-region",
            "trusted": ["10.0.0.0/8"],
            "ranges": [{"cidr": "1.0.0.0/8", "region": "cn-east"}],
        },
        limits={"bodyBytes": 1000},
        trustedProxies=["10.0.0.0/8"],
        proxyProtocol=True,
    )
    made = translated(gateway(), mine).configuration
    own = made.settings["shop/front"]
    assert own.regions == config.RegionTable(
        header="x-region", trusted=("10.0.0.0/8",), ranges=(("1.0.0.0/8", "cn-east"),)
    )
    assert own.limits.body_bytes == 1000
    assert own.trusted_proxies == ("10.0.0.0/8",)
    assert made.listeners[0].has_proxy_protocol
    assert made.listeners[0].settings == "shop/front"


def test_each_gateway_has_its_own_and_its_listener_sets_share_them() -> None:
    open_ = {"allowedListeners": {"namespaces": {"from": "All"}}}
    fronts = gateway(name="front", **open_), gateway(name="side"), gateway(name="plain")
    more = listener_set(listener("extra", 81), namespace="team")
    older = policy("Gateway", "front", called="a", limits={"bodyBytes": 1}, proxyProtocol=True)
    younger = policy("Gateway", "front", limits={"bodyBytes": 2}, trustedProxies=["10.0.0.0/8"])
    side = policy("Gateway", "side", called="side", regions={"default": "eu"})
    made = translated(*fronts, more, older, younger, side, DEFAULT).configuration
    assert {each.name: each.settings for each in made.listeners} == {
        "shop/front/http": "shop/front",
        "shop/front+team/more/extra": "shop/front",
        "shop/side/http": "shop/side",
        "shop/plain/http": "",
    }
    assert made.settings["shop/front"].limits.body_bytes == 1  # the oldest, then the first by name
    assert made.settings["shop/front"].trusted_proxies == ("10.0.0.0/8",)
    assert made.settings["shop/side"] == config.Settings(regions=config.RegionTable(default="eu"))
    assert (made.regions, made.limits) == (config.RegionTable(), config.Limits())
    assert [each.has_proxy_protocol for each in made.listeners] == [True, True, False, False]


def test_keys_of_sessions_come_out_of_a_secret() -> None:
    mine = policy("Gateway", "front", sessionKeyRef={"name": "sessions"})
    old, new = b"o" * 32, b"n" * 32
    keys = Secret(
        metadata=from_dict({"metadata": meta("sessions")}, Secret).metadata, data={"key": new, "previous": old}
    )
    assert translated(gateway(), mine, keys).configuration.settings["shop/front"].session_keys == (new, old)
    short = Secret(metadata=keys.metadata, data={"key": b"short"})
    for objects, message in (((), "is not there"), ((short,), "has no 'key' of 32 bytes")):
        made = translated(gateway(), mine, *objects)
        assert made.configuration.settings == {}
        said = status_of(made, mine).shared
        assert said is not None
        assert message in said[1][0]["conditions"][0]["message"]


def test_a_policy_with_a_range_that_is_none_spoils_no_other_gateway() -> None:
    bad = policy("Gateway", "front", trustedProxies=["10.0.0.0/40"])
    made = translated(gateway(), gateway(name="side"), bad)
    assert made.configuration.settings == {}
    said = status_of(made, bad).shared
    assert said is not None
    assert "trustedProxies: '10.0.0.0/40' is no range of addresses" in said[1][0]["conditions"][0]["message"]


def test_sessions_of_gateway_api() -> None:
    persist = {"absoluteTimeout": "1h", "idleTimeout": "500ms"}
    rules = (
        {"backendRefs": [backend()], "sessionPersistence": persist},
        {"backendRefs": [backend()], "sessionPersistence": {"type": "Header", "sessionName": "x-session"}},
        {"backendRefs": [backend()], "sessionPersistence": {}},
    )
    one, header, plain = (
        rule.stickiness for rule in translated(gateway(), route(*rules), service()).configuration.routes[0].rules
    )
    assert one is not None
    assert plain is not None
    same: dict[str, Any] = {"is_session": True, "is_endpoint": True, "keeps": True}
    assert one == config.Stickiness(name=one.name, seconds=3600, idle_seconds=1, **same)
    assert header == config.Stickiness(type="Token", name="x-session", **same)
    assert one.name.startswith("pilothouse-")
    assert one.name != plain.name


@pytest.mark.parametrize(
    ("mine", "reason"),
    [
        (policy("HTTPRoute", "absent", rateLimit={"requestsPerSecond": 1}), "TargetNotFound"),
        (policy("TCPRoute", "web", rateLimit={"requestsPerSecond": 1}), "Invalid"),
        (policy("HTTPRoute", "web", slowStart="1s"), "Invalid"),
    ],
)
def test_policies_that_cannot_be_carried_out_say_so(mine: TrafficPolicy, reason: str) -> None:
    shared = status_of(translated(gateway(), route(), service(), mine), mine).shared
    assert shared is not None
    assert told(shared[1][0]["conditions"]) == {"Accepted": ("False", reason)}


# Ports and addresses


WIDE = Addresses((), ("192.0.2.1",))


def at(configuration: config.Configuration) -> list[tuple[str, str, int, str]]:
    return [(each.name, each.protocol, each.port, each.hostname) for each in configuration.listeners]


def ports_of(*objects: Any, **options: Any) -> Any:
    made = translated(CLASS, *objects, options=Options(**{"addresses": WIDE, **options}))
    (status,) = [each for each in made.statuses if each.kind is Ingress]
    (address,) = status.fields["loadBalancer"]["ingress"]
    return address.get("ports")


def test_other_ports_are_said_and_so_are_those_that_cannot_be_had() -> None:
    site = ingress(SITE)
    assert ports_of(site) is None
    assert ports_of(site, ingress_ports=(8080, 8443)) == [{"port": 8080, "protocol": "TCP"}]
    refused = {"ingress/HTTP@127.5.0.1": "port 80 cannot be had"}
    addresses = Addresses(("127.5.0.0/24",))
    said = [{"port": 80, "protocol": "TCP", "error": "pilothouse.dev/PortUnavailable"}]
    assert ports_of(site, addresses=addresses, refused=refused) == said
    made = translated(CLASS, site, options=Options(addresses=addresses, refused=refused)).configuration
    assert made.listeners == ()


def test_a_port_of_a_gateway_is_shared_where_all_addresses_are() -> None:
    site, shared = ingress(SITE), Options(addresses=WIDE)
    made = translated(CLASS, site, service(), gateway(), route(), options=shared).configuration
    assert at(made) == [("shop/front/http", "HTTP", 80, "")]
    assert found_at(made, "a.example", "/x") == "shop/web"
    assert found_at(made, "b.example", "/") == "shop/web"  # by the route of the gateway
    named = gateway(listener(hostname="b.example"))
    made = translated(CLASS, site, service(), named, route(), options=shared).configuration
    assert [each[1:] for each in at(made)] == [("HTTP", 80, "b.example"), ("HTTP", 80, "")]
    other = gateway(listener(protocol="TCP"))
    assert ports_of(site, other) == [{"port": 80, "protocol": "TCP", "error": "pilothouse.dev/PortUnavailable"}]


def test_a_shared_listener_has_the_certificates_of_both() -> None:
    tls = {"mode": "Terminate", "certificateRefs": [{"name": "one"}]}
    door = gateway(listener("https", 443, "HTTPS", tls=tls))
    site = ingress(SITE, tls=[{"hosts": ["a.example"], "secretName": "two"}])
    ca = make_ca("tests")
    pairs = [issue(ca, name, hosts=(f"{name}.example",), server=True) for name in ("one", "two")]
    secrets = [secret(n, "shop", pair.certificate, pair.key) for n, pair in zip(("one", "two"), pairs, strict=True)]
    objects = (site, service(), door, route(), *secrets)
    made = translated(CLASS, *objects, options=Options(addresses=WIDE)).configuration
    (found,) = [each for each in made.listeners if each.port == 443]
    assert found.tls is not None
    assert [each.rpartition("/")[2] for each in found.tls.certificates] == ["one", "two"]


def test_ingresses_keep_their_address_when_a_gateway_comes() -> None:
    before = {"loadBalancer": {"ingress": [{"ip": "127.5.0.1"}]}}
    site = from_dict({**to_dict(ingress(SITE)), "status": before}, Ingress)
    made = translated(CLASS, site, gateway())
    shown = {each.kind.__name__: each.fields for each in made.statuses if each.kind in {Ingress, Gateway}}
    assert shown["Ingress"] == before
    assert shown["Gateway"]["addresses"] == [{"type": "IPAddress", "value": "127.5.0.2"}]
