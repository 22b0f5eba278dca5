"""Where proxied requests go, from made-up objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.proxying.resolve import Backend, Resolver, node_address, split_scheme_name_port
from pilothouse.kinds.status import ApiStatus
from support.proxykit import FakeView, endpoint_slice, make_service


def pod(name: str, ip: str, *ports: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "d"},
        "spec": {"containers": [{"name": "c"}, {"name": "e", "ports": [{"containerPort": port} for port in ports]}]},
        "status": {"podIPs": [{"ip": ip}]},
    }


def first(found: Sequence[Backend]) -> Backend:
    return found[0]


def refused(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(ApiStatus) as caught:
        call()
    return caught.value.code, caught.value.message


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a", ("", "a", "")),
        ("a:80", ("", "a", "80")),
        ("https:a:web", ("https", "a", "web")),
        ("http:a:", ("http", "a", "")),
        (":a:80", ("", "a", "80")),
        ("ftp:a:1", None),
        ("", None),
        (":80", None),
        ("a:b:c:d", None),
    ],
)
def test_scheme_name_and_port_are_split(text: str, found: object) -> None:
    assert split_scheme_name_port(text) == found


@given(st.text())
def test_splitting_never_fails(text: str) -> None:
    found = split_scheme_name_port(text)
    assert found is None or (found[1] and found[0] in {"", "http", "https"})


def test_pods_are_found_by_address_and_first_port() -> None:
    view = FakeView(pods=[pod("a", "10.1.0.1", 8080, 9090), pod("b", "10.1.0.2"), pod("v6", "fd00::1", 80)])
    resolver = Resolver(view)
    assert resolver.pod("d", "a") == Backend("http", "10.1.0.1", "8080")
    assert resolver.pod("d", "https:a:1234").netloc == "10.1.0.1:1234"
    assert resolver.pod("d", "b").netloc == "10.1.0.2"
    assert resolver.pod("d", "v6").netloc == "[fd00::1]:80"
    assert resolver.pod("d", "b").port_number == 80
    assert resolver.pod("d", "https:b:").port_number == 443


@pytest.mark.parametrize(
    "ip", ["127.0.0.1", "::1", "169.254.169.254", "0.0.0.0", "224.0.0.1", "fe80::1", "::ffff:127.0.0.1", "x", ""]
)
def test_pods_at_addresses_of_this_machine_are_refused(ip: str) -> None:
    resolver = Resolver(FakeView(pods=[pod("a", ip, 80)]))
    assert refused(lambda: resolver.pod("d", "a")) == (400, "address not allowed")


def test_pods_on_this_machine_are_reached_where_that_is_wanted() -> None:
    assert Resolver(FakeView(pods=[pod("a", "127.0.0.1", 80)]), local=True).pod("d", "a").host == "127.0.0.1"


def test_refusals_of_pods() -> None:
    resolver = Resolver(FakeView(pods=[pod("a", "10.1.0.1")]))
    assert refused(lambda: resolver.pod("d", "ftp:a:1")) == (400, 'invalid pod request "ftp:a:1"')
    assert refused(lambda: resolver.pod("d", "no")) == (404, 'pods "no" not found')
    assert refused(lambda: resolver.pod("d", "a:x"))[0] == 503


def test_services_are_found_by_port_name_and_number() -> None:
    pods = [pod("a", "10.1.0.1"), pod("b", "10.1.0.2")]
    service = make_service("s", [{"name": "web", "port": 80}, {"name": "tls", "port": 443}])
    slices = [endpoint_slice("s", [("10.1.0.1", "a", False), ("10.1.0.2", "b", True)], [("web", 8080), ("tls", 8443)])]
    resolver = Resolver(FakeView(pods=pods, services=[service], slices=slices), pick=first)
    assert resolver.service("d", "s:web") == Backend("http", "10.1.0.2", "8080")
    assert resolver.service("d", "s:80").netloc == "10.1.0.2:8080"
    assert resolver.service("d", "https:s:443") == Backend("https", "10.1.0.2", "8443")
    assert refused(lambda: resolver.service("d", "s:81")) == (503, 'no service port 81 found for service "s"')
    assert refused(lambda: resolver.service("d", "s")) == (503, 'no endpoints available for service "s"')
    assert refused(lambda: resolver.service("d", "no:web")) == (404, 'services "no" not found')
    assert refused(lambda: resolver.service("d", "a:b:c:d")) == (400, 'invalid service request "a:b:c:d"')


def test_addresses_that_are_no_pods_are_not_connected_to() -> None:
    service = make_service("s", [{"port": 80}])
    foreign = {**pod("a", "10.1.0.1"), "metadata": {"name": "a", "namespace": "other"}}
    for slices, pods in (
        ([endpoint_slice("s", [("10.1.0.1", "", True)], [("", 80)])], [pod("a", "10.1.0.1")]),
        ([endpoint_slice("s", [("10.1.0.9", "a", True)], [("", 80)])], [pod("a", "10.1.0.1")]),
        ([endpoint_slice("s", [("10.1.0.1", "a", True)], [("", 80)])], [foreign]),
        ([endpoint_slice("s", [("127.0.0.1", "a", True)], [("", 80)])], [pod("a", "127.0.0.1")]),
    ):
        resolver = Resolver(FakeView(pods=pods, services=[service], slices=slices))
        assert refused(lambda: resolver.service("d", "s"))[1] == 'no endpoints available for service "s"'  # noqa: B023


def test_endpoints_count_where_there_are_no_slices() -> None:
    subset = {"addresses": [{"ip": "10.1.0.1", "targetRef": {"kind": "Pod", "name": "a"}}], "ports": [{"port": 81}]}
    endpoints = {"metadata": {"name": "s", "namespace": "d"}, "subsets": [subset]}
    view = FakeView(pods=[pod("a", "10.1.0.1")], services=[make_service("s", [{"port": 80}])], endpoints=[endpoints])
    assert Resolver(view).service("d", "s:80").netloc == "10.1.0.1:81"


def test_the_first_family_of_a_service_is_preferred() -> None:
    service = make_service("s", [{"port": 80}])
    service["spec"]["ipFamilies"] = ["IPv6", "IPv4"]
    pods = [pod("a", "10.1.0.1"), pod("b", "fd00::2")]
    slices = [
        endpoint_slice("s", [("10.1.0.1", "a", True)], [("", 80)]),
        endpoint_slice("s", [("fd00::2", "b", True)], [("", 80)], family="IPv6"),
    ]
    resolver = Resolver(FakeView(pods=pods, services=[service], slices=slices))
    assert {resolver.service("d", "s").netloc for _ in range(20)} == {"[fd00::2]:80"}


def test_nodes_are_found_by_their_own_api_or_a_port() -> None:
    status: dict[str, Any] = {
        "addresses": [{"type": "InternalIP", "address": "10.0.0.5"}, {"type": "Hostname", "address": "n1.example"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10255}},
    }
    resolver = Resolver(FakeView(nodes=[{"metadata": {"name": "n1"}, "status": status}, {"metadata": {"name": "n2"}}]))
    assert resolver.node("n1") == Backend("https", "10.0.0.5", "10255", kubelet=True)
    assert resolver.node("n1:10255").kubelet
    assert resolver.node("n1:9100") == Backend("http", "10.0.0.5", "9100")
    assert refused(lambda: resolver.node("n3")) == (404, 'nodes "n3" not found')
    assert refused(lambda: resolver.node("n2")) == (500, "no preferred addresses found; known addresses: []")
    assert node_address({"status": {"addresses": status["addresses"][:1]}}) == ("10.0.0.5", 10250)
