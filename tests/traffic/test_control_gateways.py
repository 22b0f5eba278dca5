"""Gateways, listeners and sets of them: each condition and reason, as Gateway API has it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.foundation.tls import issue, make_ca
from pilothouse.kinds.structs import replace
from pilothouse.traffic.control.addresses import Addresses
from pilothouse.traffic.control.kinds import Gateway, GatewayClass, TCPRoute
from pilothouse.traffic.control.kinds.gateways import Address
from pilothouse.traffic.control.translate import Options
from support.gatewayobjects import (
    OURS,
    authority,
    gateway,
    grant,
    listener,
    listener_set,
    listener_told,
    namespace,
    parent_told,
    route,
    secret,
    service,
    status_of,
    stream_route,
    told,
    translated,
)

CA = make_ca("test")
PAIR = issue(CA, "web.example", hosts=["web.example"], server=True)
CERT = secret("cert", "shop", PAIR.certificate, PAIR.key)
HTTPS = listener("https", 443, "HTTPS", tls={"certificateRefs": [{"name": "cert"}]})


def test_a_class_of_ours_is_accepted_and_says_what_its_gateways_can_do() -> None:
    fields = status_of(translated(), OURS).fields
    assert told(fields["conditions"])["Accepted"] == ("True", "Accepted")
    names = [each["name"] for each in fields["supportedFeatures"]]
    assert names == sorted(names)
    assert "HTTPRoute" in names


def test_a_class_with_parameters_is_not_accepted_and_its_gateways_are_nobodys() -> None:
    from pilothouse.kinds.structs import from_dict

    tree = {"controllerName": OURS.spec.controller_name, "parametersRef": {"group": "", "kind": "X", "name": "y"}}
    other = from_dict({"metadata": {"name": "ours", "generation": 2}, "spec": tree}, GatewayClass)
    found = translated(other, gateway())
    assert told(status_of(found, other).fields["conditions"])["Accepted"] == ("False", "InvalidParameters")
    assert not found.configuration.listeners


def test_a_gateway_of_another_class_is_left_alone() -> None:
    found = translated(gateway(gatewayClassName="theirs"), route())
    assert [each.kind for each in found.statuses] == [GatewayClass]


def test_a_plain_listener() -> None:
    door = gateway()
    found = translated(door)
    fields = status_of(found, door).fields
    assert told(fields["conditions"]) == {
        "Accepted": ("True", "Accepted"),
        "Programmed": ("True", "Programmed"),
        "ResolvedRefs": ("True", "ResolvedRefs"),
    }
    assert fields["addresses"] == [{"type": "IPAddress", "value": "127.5.0.1"}]
    assert fields["listeners"][0]["supportedKinds"] == [
        {"group": "gateway.networking.k8s.io", "kind": kind} for kind in ("HTTPRoute", "GRPCRoute")
    ]
    assert [(each.address, each.port, each.protocol) for each in found.configuration.listeners] == [
        ("127.5.0.1", 80, "HTTP")
    ]


@pytest.mark.parametrize(
    ("spec", "condition", "reason"),
    [
        (listener(protocol="UDP"), "Accepted", "UnsupportedProtocol"),
        (listener(protocol="example.com/own"), "Accepted", "UnsupportedProtocol"),
        (listener(allowedRoutes={"kinds": [{"kind": "TCPRoute"}]}), "ResolvedRefs", "InvalidRouteKinds"),
        (listener(allowedRoutes={"kinds": [{"group": "x", "kind": "HTTPRoute"}]}), "ResolvedRefs", "InvalidRouteKinds"),
        (
            listener(port=443, protocol="HTTPS", tls={"certificateRefs": [{"name": "absent"}]}),
            "ResolvedRefs",
            "InvalidCertificateRef",
        ),
        (
            listener(port=443, protocol="HTTPS", tls={"certificateRefs": [{"name": "broken"}]}),
            "ResolvedRefs",
            "InvalidCertificateRef",
        ),
        (
            listener(port=443, protocol="HTTPS", tls={"certificateRefs": [{"kind": "X", "name": "cert"}]}),
            "ResolvedRefs",
            "InvalidCertificateRef",
        ),
        (
            listener(port=443, protocol="HTTPS", tls={"certificateRefs": [{"name": "cert", "namespace": "other"}]}),
            "ResolvedRefs",
            "RefNotPermitted",
        ),
    ],
)
def test_what_is_wrong_with_a_listener(spec: dict[str, Any], condition: str, reason: str) -> None:
    door = gateway(spec)
    found = translated(door, CERT, secret("broken", "shop", b"no", b"no"))
    assert listener_told(found, door)[condition] == ("False", reason)


def test_kinds_that_can_attach_stay_where_another_cannot() -> None:
    door = gateway(listener(allowedRoutes={"kinds": [{"kind": "HTTPRoute"}, {"kind": "TCPRoute"}]}))
    found = translated(door, route(), service())
    listed = status_of(found, door).fields["listeners"][0]
    assert [each["kind"] for each in listed["supportedKinds"]] == ["HTTPRoute"]
    assert listed["attachedRoutes"] == 1


@pytest.mark.parametrize(("name", "allowed"), [(None, True), ("cert", True), ("another", False)])
def test_a_grant_lets_a_listener_use_a_secret_of_another_namespace(name: str | None, allowed: bool) -> None:
    door = gateway(
        listener(port=443, protocol="HTTPS", tls={"certificateRefs": [{"name": "cert", "namespace": "other"}]})
    )
    theirs = secret("cert", "other", PAIR.certificate, PAIR.key)
    found = translated(door, theirs, grant("Gateway", "shop", "Secret", name))
    assert listener_told(found, door)["ResolvedRefs"][0] == str(allowed)
    assert ("other/cert" in found.configuration.certificates) is allowed
    assert bool(found.configuration.listeners) is allowed


def test_a_grant_for_others_does_not_help() -> None:
    door = gateway(
        listener(port=443, protocol="HTTPS", tls={"certificateRefs": [{"name": "cert", "namespace": "other"}]})
    )
    theirs = secret("cert", "other", PAIR.certificate, PAIR.key)
    for wrong in (
        grant("HTTPRoute", "shop", "Secret"),
        grant("Gateway", "else", "Secret"),
        grant("Gateway", "shop", "Service"),
    ):
        assert listener_told(translated(door, theirs, wrong), door)["ResolvedRefs"] == ("False", "RefNotPermitted")


def test_one_good_certificate_is_enough_to_serve() -> None:
    door = gateway({**HTTPS, "tls": {"certificateRefs": [{"name": "absent"}, {"name": "cert"}]}})
    found = translated(door, CERT)
    assert listener_told(found, door) == {
        "ResolvedRefs": ("False", "InvalidCertificateRef"),
        "Accepted": ("True", "Accepted"),
        "Conflicted": ("False", "NoConflicts"),
        "Programmed": ("True", "Programmed"),
    }
    assert found.configuration.listeners[0].tls is not None
    assert found.configuration.listeners[0].tls.certificates == ("shop/cert",)


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        (listener("two", 80, "TCP"), "ProtocolConflict"),
        (listener("two", 80, "HTTPS", tls={"certificateRefs": [{"name": "cert"}]}), "ProtocolConflict"),
        (listener("two", 80), "HostnameConflict"),
        (listener("two", 80, hostname="a.example"), ""),
        (listener("two", 81), ""),
    ],
)
def test_listeners_that_another_leaves_no_place_for(second: dict[str, Any], reason: str) -> None:
    door = gateway(listener(), second)
    found = translated(door, CERT)
    assert listener_told(found, door)["Accepted"][0] == "True"
    said = listener_told(found, door, 1)
    expected = ("True", reason) if reason else ("False", "NoConflicts")
    assert said["Conflicted"] == expected
    if reason:
        assert said["Accepted"] == said["Programmed"] == ("False", reason)
        assert told(status_of(found, door).fields["conditions"])["Accepted"] == ("True", "ListenersNotValid")
    assert len(found.configuration.listeners) == (1 if reason else 2)


def test_a_gateway_none_of_whose_listeners_can_be_used() -> None:
    door = gateway(listener(protocol="UDP"))
    said = told(status_of(translated(door), door).fields["conditions"])
    assert said["Accepted"] == ("False", "ListenersNotValid")
    assert said["Programmed"] == ("False", "Invalid")


# Clients' certificates


@pytest.mark.parametrize(
    ("ref", "accepted", "reason"),
    [
        ({"group": "", "kind": "ConfigMap", "name": "ca"}, True, "ResolvedRefs"),
        ({"group": "", "kind": "ConfigMap", "name": "absent"}, False, "InvalidCACertificateRef"),
        ({"group": "", "kind": "ConfigMap", "name": "empty"}, False, "InvalidCACertificateRef"),
        ({"group": "", "kind": "Service", "name": "ca"}, False, "InvalidCACertificateKind"),
        ({"group": "", "kind": "ConfigMap", "name": "ca", "namespace": "other"}, False, "RefNotPermitted"),
    ],
)
def test_authorities_of_clients(ref: dict[str, str], accepted: bool, reason: str) -> None:
    door = gateway(HTTPS, tls={"frontend": {"default": {"validation": {"caCertificateRefs": [ref]}}}})
    found = translated(door, CERT, authority("ca", CA.certificate.decode()), authority("empty"))
    said = listener_told(found, door)
    assert said["ResolvedRefs"] == (str(reason == "ResolvedRefs"), reason)
    assert said["Accepted"] == (str(accepted), "Accepted" if accepted else "NoValidCACertificate")
    assert [each.tls.client_ca for each in found.configuration.listeners if each.tls] == (
        [CA.certificate] if accepted else []
    )


def test_an_authority_of_one_port_comes_before_the_default() -> None:
    other = make_ca("other").certificate
    frontend = {
        "default": {"validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}]}},
        "perPort": [
            {
                "port": 8443,
                "tls": {"validation": {"caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "two"}]}},
            }
        ],
    }
    door = gateway(HTTPS, {**HTTPS, "name": "b", "port": 8443}, tls={"frontend": frontend})
    found = translated(door, CERT, authority("ca", CA.certificate.decode()), authority("two", other.decode()))
    by_port = {each.port: each.tls.client_ca for each in found.configuration.listeners if each.tls}
    assert by_port == {443: CA.certificate, 8443: other}


# Addresses and ports


def test_each_gateway_has_an_address_of_its_own_and_keeps_it() -> None:
    one, two = gateway(name="a"), gateway(name="b")
    found = translated(one, two)
    assert {each.address for each in found.configuration.listeners} == {"127.5.0.1", "127.5.0.2"}
    had = replace(two, status__addresses=[Address(value="127.5.0.1")])
    again = translated(one, had)
    assert status_of(again, had).fields["addresses"] == [{"type": "IPAddress", "value": "127.5.0.1"}]
    assert status_of(again, one).fields["addresses"] == [{"type": "IPAddress", "value": "127.5.0.2"}]


@pytest.mark.parametrize(
    ("addresses", "condition", "reason", "shown"),
    [
        ([{"type": "IPAddress", "value": "127.5.0.9"}], ("Programmed", "True"), "Programmed", ["127.5.0.9"]),
        ([{"type": "IPAddress"}], ("Programmed", "True"), "Programmed", ["127.5.0.1"]),
        ([{"type": "IPAddress", "value": "10.0.0.1"}], ("Programmed", "False"), "AddressNotUsable", []),
        ([{"type": "Hostname", "value": "x.example"}], ("Accepted", "False"), "UnsupportedAddress", []),
    ],
)
def test_addresses_that_are_asked_for(
    addresses: list[dict[str, str]], condition: tuple[str, str], reason: str, shown: list[str]
) -> None:
    door = gateway(addresses=addresses)
    fields = status_of(translated(door), door).fields
    assert told(fields["conditions"])[condition[0]] == (condition[1], reason)
    assert [each["value"] for each in fields["addresses"]] == shown


def test_without_networks_gateways_share_all_addresses_and_the_older_keeps_the_port() -> None:
    old = gateway(listener(), name="z", created="2024-01-01T00:00:00Z")
    new = gateway(listener(), listener("other", 81), name="a", created="2025-01-01T00:00:00Z")
    found = translated(old, new, options=Options(Addresses(published=("192.0.2.1",))))
    assert listener_told(found, new)["Accepted"] == ("False", "PortUnavailable")
    assert listener_told(found, new, 1)["Programmed"] == ("True", "Programmed")
    assert status_of(found, old).fields["addresses"] == [{"type": "IPAddress", "value": "192.0.2.1"}]
    assert {(each.address, each.port) for each in found.configuration.listeners} == {("", 80), ("", 81)}


def test_no_address_is_left() -> None:
    one, two = gateway(name="a"), gateway(name="b")
    found = translated(one, two, options=Options(Addresses(("127.5.0.1/32",))))
    assert told(status_of(found, two).fields["conditions"])["Programmed"] == ("False", "AddressNotAssigned")


def test_a_port_that_the_plane_cannot_have_is_said_of_its_listener() -> None:
    door = gateway(listener(), listener("two", 81))
    options = Options(Addresses(("127.5.0.0/24",)), refused={"shop/front/two": "port 81 cannot be had"})
    found = translated(door, options=options)
    assert listener_told(found, door, 1)["Accepted"] == ("False", "PortUnavailable")
    assert [each.port for each in found.configuration.listeners] == [80]


# Sets of listeners

ALL: dict[str, Any] = {"allowedListeners": {"namespaces": {"from": "All"}}}


@pytest.mark.parametrize(
    ("allowed", "where", "taken"),
    [
        (None, "shop", False),
        ({"from": "None"}, "shop", False),
        ({"from": "Same"}, "shop", True),
        ({"from": "Same"}, "other", False),
        ({"from": "All"}, "other", True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}, "other", True),
        ({"from": "Selector", "selector": {"matchLabels": {"team": "b"}}}, "other", False),
    ],
)
def test_which_sets_may_add_listeners(allowed: dict[str, Any] | None, where: str, taken: bool) -> None:
    spec: dict[str, Any] = {"allowedListeners": {"namespaces": allowed}} if allowed else {}
    door = gateway(**spec)
    more = listener_set(listener("extra", 81), namespace=where)
    found = translated(door, more, namespace("other", team="a"))
    said = told(status_of(found, more).fields["conditions"])
    assert said["Accepted"] == (("True", "Accepted") if taken else ("False", "NotAllowed"))
    assert status_of(found, door).fields["attachedListenerSets"] == int(taken)
    assert len(found.configuration.listeners) == 1 + taken


def test_a_gateways_own_listener_comes_before_those_of_sets() -> None:
    door, more = gateway(**ALL), listener_set(listener("same", 80), listener("fine", 82))
    found = translated(door, more)
    assert listener_told(found, more)["Accepted"] == ("False", "HostnameConflict")
    assert listener_told(found, more, 1)["Accepted"] == ("True", "Accepted")
    assert told(status_of(found, more).fields["conditions"])["Accepted"] == ("True", "ListenersNotValid")


def test_a_set_none_of_whose_listeners_can_be_used_is_not_accepted() -> None:
    door, more = gateway(**ALL), listener_set(listener("same", 80))
    found = translated(door, more)
    said = told(status_of(found, more).fields["conditions"])
    assert said["Accepted"] == said["Programmed"] == ("False", "ListenersNotValid")
    assert status_of(found, door).fields["attachedListenerSets"] == 0


def test_a_route_attaches_to_a_set_not_by_its_gateway() -> None:
    door, more = gateway(**ALL), listener_set(listener("extra", 81))
    by_set = route(name="a", parentRefs=[{"kind": "ListenerSet", "name": "more", "sectionName": "extra"}])
    by_gateway = route(name="b", parentRefs=[{"name": "front", "sectionName": "extra"}])
    found = translated(door, more, by_set, by_gateway, service())
    assert parent_told(found, by_set)["Accepted"] == ("True", "Accepted")
    assert parent_told(found, by_gateway)["Accepted"] == ("False", "NoMatchingParent")
    assert [each.listeners for each in found.configuration.routes] == [("shop/front+shop/more/extra",)]


# Properties

_NAMES = st.lists(
    st.tuples(st.sampled_from([80, 81]), st.sampled_from(["HTTP", "TCP", "UDP"]), st.sampled_from(["", "a.b", "*.b"])),
    min_size=1,
    max_size=6,
)


@given(_NAMES)
def test_what_the_plane_is_told_never_conflicts_and_statuses_name_each_listener(
    specs: list[tuple[int, str, str]],
) -> None:
    listeners = [
        listener(f"l{n}", port, protocol, **({"hostname": host} if host else {}))
        for n, (port, protocol, host) in enumerate(specs)
    ]
    door = gateway(*listeners)
    found = translated(door, stream_route(TCPRoute))
    told_of = [(each.port, each.hostname) for each in found.configuration.listeners]
    assert len(set(told_of)) == len(told_of)
    by_port: dict[int, set[str]] = {}
    for each in found.configuration.listeners:
        by_port.setdefault(each.port, set()).add(each.protocol)
    assert all(len(protocols) == 1 for protocols in by_port.values())
    statuses = status_of(found, door).fields["listeners"]
    assert [each["name"] for each in statuses] == [each["name"] for each in listeners]
    programmed = [each for each in statuses if told(each["conditions"])["Programmed"][0] == "True"]
    assert len(programmed) == len(told_of)


def test_objects_are_not_changed() -> None:
    door = gateway()
    before = repr(door)
    translated(door, route(), service())
    assert repr(door) == before
    assert isinstance(door, Gateway)


def test_where_any_certificate_does_it_is_asked_for_all_the_same_and_the_gateway_says_so() -> None:
    ref = {"group": "", "kind": "ConfigMap", "name": "ca"}
    validation = {"caCertificateRefs": [ref], "mode": "AllowInsecureFallback"}
    door = gateway(HTTPS, tls={"frontend": {"default": {"validation": validation}}})
    found = translated(door, CERT, authority("ca", CA.certificate.decode()))
    said = told(status_of(found, door).fields["conditions"])
    assert said["InsecureFrontendValidationMode"] == ("True", "ConfigurationChanged")
    [tls] = [each.tls for each in found.configuration.listeners]
    assert tls is not None
    assert (tls.client_ca, tls.is_client_required, tls.is_client_checked) == (CA.certificate, False, False)
