"""Which endpoints a port leads to, and how a table of rules changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.structs import Service
from pilothouse.node.services.rulesets import Chain, Collection, Fragment, Ruleset
from pilothouse.node.services.selection import ServicePortRoute, Target, routes
from pilothouse.node.services.servicerules import ProxyNetwork, compile_route, new_ruleset
from support.servicekit import NODE, Board, endpoint, service, slice_of


def one(found: Service, *endpoints: dict[str, Any], ports: Any = None) -> ServicePortRoute:
    (route,) = routes(found, [slice_of(found.metadata.name, endpoints, ports=ports)], NODE)
    return route


def hosts(targets: tuple[Target, ...]) -> list[str]:
    return [each.address for each in targets]


def ending(address: str, *, serving: bool = True, node: str = "here") -> dict[str, Any]:
    return endpoint(address, node, conditions={"ready": False, "serving": serving, "terminating": True})


def test_ready_endpoints_and_where_there_is_none_those_that_end_but_serve() -> None:
    assert hosts(one(service(), endpoint("10.0.0.1"), ending("10.0.0.2")).internal) == ["10.0.0.1"]
    assert hosts(one(service(), ending("10.0.0.2"), ending("10.0.0.3", serving=False)).internal) == ["10.0.0.2"]
    assert one(service(), endpoint("10.0.0.4", conditions={"ready": False})).internal == ()
    assert hosts(one(service(), endpoint("10.0.0.1", conditions={})).internal) == ["10.0.0.1"]


def test_local_policies() -> None:
    here, there = endpoint("10.0.0.1"), endpoint("10.0.0.2", "there")
    local = one(service(type="NodePort", externalTrafficPolicy="Local"), here, there)
    assert (hosts(local.internal), hosts(local.external)) == (["10.0.0.1", "10.0.0.2"], ["10.0.0.1"])
    assert local.is_external_local
    none = one(service(type="NodePort", externalTrafficPolicy="Local", internalTrafficPolicy="Local"), there)
    assert (none.internal, none.external) == ((), ())
    assert (none.dropped_internal, none.dropped_external) == (True, True)
    assert not one(service(internalTrafficPolicy="Local")).dropped_internal
    # One that ends here is better than none here.
    assert hosts(one(service(internalTrafficPolicy="Local"), ending("10.0.0.3"), there).internal) == ["10.0.0.3"]


def test_hints_of_zones_and_nodes() -> None:
    def hinted(address: str, **hints: Any) -> dict[str, Any]:
        return endpoint(address, hints=hints)

    a, b = hinted("10.0.0.1", forZones=[{"name": "a"}]), hinted("10.0.0.2", forZones=[{"name": "b"}])
    assert hosts(one(service(), a, b).internal) == ["10.0.0.1"]
    assert hosts(one(service(), b).internal) == ["10.0.0.2"]  # better far than not
    assert hosts(one(service(), a, b, endpoint("10.0.0.3")).internal) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    here = hinted("10.0.0.4", forNodes=[{"name": "here"}], forZones=[{"name": "b"}])
    there = hinted("10.0.0.5", forNodes=[{"name": "there"}], forZones=[{"name": "a"}])
    assert hosts(one(service(), here, there).internal) == ["10.0.0.4"]


def test_ports_are_found_by_name_and_protocol() -> None:
    found = service(ports=[{"name": "a", "port": 1}, {"name": "b", "port": 2, "protocol": "UDP"}])
    ports = [{"name": "a", "port": 10, "protocol": "TCP"}, {"name": "b", "port": 20, "protocol": "UDP"}]
    made = routes(found, [slice_of("web", [endpoint("10.0.0.1")], ports=ports)], NODE)
    assert [(each.port_name, each.internal[0].port) for each in made] == [("a", 10), ("b", 20)]


@pytest.mark.parametrize(
    "found",
    [
        service(address="None"),
        service(address=""),
        service(type="ExternalName", externalName="x.example"),
    ],
)
def test_services_that_are_not_carried(found: Service) -> None:
    assert routes(found, [], NODE) == []


def test_a_service_of_another_proxy_is_left_alone() -> None:
    board = Board()
    board.put(service(), endpoint("10.0.0.1"))
    other = service()
    other = other.__class__(
        metadata=other.metadata.__class__(
            name="web", namespace="default", labels={"service.kubernetes.io/service-proxy-name": "mesh"}
        ),
        spec=other.spec,
    )
    board.set_service("default/web", other)
    ((before, after),) = board.changes().values()
    assert (len(before), after) == (1, ())


def test_a_change_that_means_nothing_is_none() -> None:
    board = Board()
    assert board.put(service(), endpoint("10.0.0.1"))
    assert not board.set_service("default/web", service())
    assert board.put(service(), endpoint("10.0.0.1")) == {}


def test_hostile_names_do_not_get_into_scripts() -> None:
    found = service(
        "x;flush ruleset\n", type="LoadBalancer", loadBalancerSourceRanges=["0.0.0.0/0; drop", "10.0.0.0/8"]
    )
    rules = compile_route(one(found, endpoint("10.0.0.1")))
    shown = " ".join([*rules.chains, *(rule for chain in rules.chains.values() for rule in chain.rules)])
    assert "flush ruleset" not in shown
    assert ";" not in shown
    assert "\n" not in shown


def test_two_services_with_one_external_address_do_not_break_the_table() -> None:
    ruleset = new_ruleset(4, "t", ProxyNetwork())
    for name, address in (("a", "10.96.0.1"), ("b", "10.96.0.2")):
        route = one(service(name, address, externalIPs=["192.0.2.1"]), endpoint("10.0.0.1"))
        ruleset.put(route.key, compile_route(route))
    first = ruleset.elements("service-ips")["192.0.2.1 . tcp . 80"]
    assert "-default-a" in first
    ruleset.put("default/a:80/TCP/4", None)
    assert "-default-b" in ruleset.elements("service-ips")["192.0.2.1 . tcp . 80"]


fragments = st.one_of(
    st.none(),
    st.builds(
        lambda chains, elements: (
            Fragment({}, {}, {"m": elements}) if not chains else Fragment({}, {}, {"m": elements, "n": {"k": ""}})
        ),
        st.booleans(),
        st.dictionaries(st.sampled_from("abc"), st.sampled_from(["1", "2"]), max_size=3),
    ),
)


@given(st.lists(st.tuples(st.sampled_from("xyz"), fragments), max_size=10), st.integers(1, 4))
def test_changes_add_up_to_the_whole(steps: list[tuple[str, Fragment | None]], every: int) -> None:
    skeleton = Fragment({"c": Chain(("accept",))}, {"m": Collection("type t", "map"), "n": Collection("type t")})
    ruleset = Ruleset("ip", "t", skeleton)
    ruleset.full()
    ruleset.applied()
    kernel: dict[str, dict[str, str]] = {"m": {}, "n": {}}
    for at, (owner, fragment) in enumerate(steps):
        ruleset.put(owner, fragment)
        if at % every == 0:
            _carry_out(ruleset.changes(), kernel)
            ruleset.applied()
    _carry_out(ruleset.changes(), kernel)
    ruleset.applied()
    assert kernel == {name: ruleset.elements(name) for name in kernel}
    assert ruleset.changes() == ""


def _carry_out(script: str, kernel: dict[str, dict[str, str]]) -> None:
    for line in script.splitlines():
        verb, what, _, _, name, *rest = line.split()
        assert what == "element", line
        for each in " ".join(rest).strip("{} ").split(", "):
            key, _, value = each.partition(" : ")
            if verb == "delete":
                assert kernel[name].pop(key) == value
            else:
                assert key not in kernel[name]
                kernel[name][key] = value
