"""Names of services and pods, after the specification, and what goes over the wire."""

from __future__ import annotations

import struct
from typing import Any

import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds.structs import Pod, from_dict
from pilothouse.node.config import DNSConfig
from pilothouse.node.dns.answers import Answers
from pilothouse.node.dns.records import Record, pod_address, service_records
from pilothouse.node.dns.resolvconf import pod_dns, read_resolv_conf
from pilothouse.node.dns.wire import BadQuery, Tail, parse, reply, ttl_places, without_opt
from pilothouse.node.dns.zone import Zone
from support.servicekit import endpoint, service, slice_of

DOMAIN = "cluster.local"
PORTS = [{"name": "https", "port": 443, "protocol": "TCP"}]


class Served:
    """A zone with its answers, asked by messages."""

    def __init__(self) -> None:
        self.zone = Zone(DOMAIN)
        self.answers = Answers(self.zone, knows_namespace={"default"}.__contains__)

    def put(self, found: Any, *endpoints: Any, ports: Any = None, family: int = 4) -> None:
        slices = [slice_of(found.metadata.name, endpoints, ports=ports, family=family)]
        records = service_records(found, slices, DOMAIN)
        self.answers.changed(self.zone.put(found.metadata.name, records))

    def message(self, name: str, kind: str = "A", **options: Any) -> dns.message.Message:
        query = parse(dns.message.make_query(name, kind, **options).to_wire())
        tail = self.answers.answer(query)
        assert tail is not None
        return dns.message.from_wire(reply(query, tail, most=query.size))

    def ask(self, name: str, kind: str = "A") -> list[str]:
        found = self.message(name, kind)
        assert found.flags & dns.flags.AA
        return sorted(each.to_text() for rrset in found.answer for each in rrset)

    def code(self, name: str, kind: str = "A") -> str:
        found = self.message(name, kind)
        assert not found.answer
        assert found.authority[0].to_text().startswith(f"{DOMAIN}. 5 IN SOA ")
        return dns.rcode.to_text(found.rcode())


@pytest.fixture
def served() -> Served:
    return Served()


def test_a_service_with_a_cluster_address(served: Served) -> None:
    served.put(service("web", "10.96.0.10", ports=PORTS))
    assert served.ask("web.default.svc.cluster.local") == ["10.96.0.10"]
    assert served.ask("WEB.Default.svc.Cluster.local") == ["10.96.0.10"]
    assert served.ask("_https._tcp.web.default.svc.cluster.local", "SRV") == [
        "0 100 443 web.default.svc.cluster.local."
    ]
    assert served.ask("10.0.96.10.in-addr.arpa", "PTR") == ["web.default.svc.cluster.local."]
    assert (
        served.message("_https._tcp.web.default.svc.cluster.local", "SRV")
        .additional[0]
        .to_text()
        .endswith("A 10.96.0.10")
    )
    assert served.ask("dns-version.cluster.local", "TXT") == ['"1.1.0"']
    assert served.code("web.default.svc.cluster.local", "AAAA") == "NOERROR"
    assert served.code("default.svc.cluster.local") == "NOERROR"  # there are names below it
    assert served.code("_http._tcp.web.default.svc.cluster.local", "SRV") == "NXDOMAIN"
    assert served.code("other.default.svc.cluster.local") == "NXDOMAIN"
    assert served.code("nowhere.svc.cluster.local") == "NXDOMAIN"


def test_both_families(served: Served) -> None:
    served.put(service("web", "10.96.0.10", clusterIPs=["10.96.0.10", "fd00::a"]))
    assert served.ask("web.default.svc.cluster.local", "AAAA") == ["fd00::a"]
    reverse = "a.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa"
    assert served.ask(reverse, "PTR") == ["web.default.svc.cluster.local."]


def test_a_headless_service_and_its_endpoints(served: Served) -> None:
    headless = service("db", "None", ports=PORTS)
    not_ready = endpoint("10.0.0.3", conditions={"ready": False})
    served.put(headless, endpoint("10.0.0.1", hostname="db-0"), endpoint("10.0.0.2"), not_ready, ports=PORTS)
    name = "db.default.svc.cluster.local"
    assert served.ask(name) == ["10.0.0.1", "10.0.0.2"]
    assert served.ask(f"db-0.{name}") == ["10.0.0.1"]
    assert served.ask(f"10-0-0-2.{name}") == ["10.0.0.2"]
    assert served.ask(f"_https._tcp.{name}", "SRV") == [
        f"0 100 443 10-0-0-2.{name}.",
        f"0 100 443 db-0.{name}.",
    ]
    assert served.ask("1.0.0.10.in-addr.arpa", "PTR") == [f"db-0.{name}."]
    served.put(headless, not_ready, ports=PORTS)
    assert served.code(name) == "NXDOMAIN"
    assert served.code(f"db-0.{name}") == "NXDOMAIN"
    served.put(service("db", "None", ports=PORTS, publishNotReadyAddresses=True), not_ready, ports=PORTS)
    assert served.ask(name) == ["10.0.0.3"]


def test_external_names_and_pods(served: Served) -> None:
    served.put(service("far", "", type="ExternalName", externalName="Example.com"))
    assert served.ask("far.default.svc.cluster.local", "CNAME") == ["example.com."]
    assert served.ask("far.default.svc.cluster.local") == ["example.com."]
    assert served.ask("10-1-2-3.default.pod.cluster.local") == ["10.1.2.3"]
    assert served.ask("fd00--1.default.pod.cluster.local", "AAAA") == ["fd00::1"]
    assert served.code("10-1-2-3.default.pod.cluster.local", "AAAA") == "NOERROR"
    assert served.code("10-1-2-3.nowhere.pod.cluster.local") == "NXDOMAIN"
    assert served.code("10-1-2-333.default.pod.cluster.local") == "NXDOMAIN"
    assert pod_address("no-pod") == ""


def test_answers_are_encoded_once_and_again_after_changes(served: Served) -> None:
    name = "web.default.svc.cluster.local"
    served.put(service("web", "10.96.0.10", ports=PORTS))
    assert served.code("late.default.svc.cluster.local") == "NXDOMAIN"
    for _ in range(10):
        assert served.ask(name) == ["10.96.0.10"]
    assert served.answers.encoded == 2
    served.put(service("late", "10.96.0.11"))
    assert served.ask("late.default.svc.cluster.local") == ["10.96.0.11"]
    assert served.message(f"_https._tcp.{name}", "SRV").additional[0].to_text().endswith("10.96.0.10")
    served.put(service("web", "10.96.0.12", ports=PORTS))
    assert served.ask(name) == ["10.96.0.12"]
    assert served.message(f"_https._tcp.{name}", "SRV").additional[0].to_text().endswith("10.96.0.12")


def test_several_addresses_take_turns(served: Served) -> None:
    served.put(service("db", "None"), *(endpoint(f"10.0.0.{each}") for each in range(1, 6)))
    firsts = {served.message("db.default.svc.cluster.local").answer[0][0].to_text() for _ in range(20)}
    seen = set()
    for _ in range(20):
        query = parse(dns.message.make_query("db.default.svc.cluster.local", "A").to_wire())
        tail = served.answers.answer(query)
        assert tail is not None
        seen.add(tail.data[-4:])
    assert len(seen) == 5
    assert firsts


def test_what_does_not_fit_is_cut(served: Served) -> None:
    served.put(service("many", "None"), *(endpoint(f"10.0.{each // 200}.{each % 200 + 1}") for each in range(100)))
    name = "many.default.svc.cluster.local"
    small = served.message(name)
    assert small.flags & dns.flags.TC
    assert not small.answer
    query = parse(dns.message.make_query(name, "A", use_edns=0, payload=4096).to_wire())
    assert query.size == 1232
    whole = served.answers.answer(query)
    assert whole is not None
    assert len(dns.message.from_wire(reply(query, whole, most=65_535)).answer[0]) == 100
    few = Served()
    few.put(service("some", "None"), *(endpoint(f"10.0.0.{each + 1}") for each in range(40)))
    found = few.message("some.default.svc.cluster.local", use_edns=0, payload=1232)
    assert len(found.answer[0]) == 40
    assert found.edns == 0


def test_bad_messages_are_refused() -> None:
    good = dns.message.make_query("a.b", "A").to_wire()
    for bad, code in (
        (b"", None),
        (good[:11], None),
        (good[:2] + b"\x80\0" + good[4:], None),  # an answer
        (good[:2] + b"\x28\0" + good[4:], 4),  # an update
        (good[:4] + b"\0\2" + good[6:], 1),
        (good[:-3], 1),
        (good[:12] + b"\xc0\x0c\0\1\0\1", 1),
    ):
        with pytest.raises(BadQuery) as raised:
            parse(bad)
        assert raised.value.code == code


@given(st.binary(max_size=80))
def test_no_message_breaks_the_parser(data: bytes) -> None:
    for function in (parse, lambda each: ttl_places(bytes(12 - len(each[:12])) + each)):
        try:
            function(data)
        except BadQuery:
            continue


def test_another_servers_edns_record_goes_and_lifetimes_are_found() -> None:
    answer = dns.message.make_response(dns.message.make_query("a.example", "A", use_edns=0))
    answer.answer.append(dns.rrset.from_text("a.example.", 77, "IN", "A", "192.0.2.1", "192.0.2.2"))
    wire = without_opt(answer.to_wire())
    assert dns.message.from_wire(wire).edns == -1
    assert [ttl for _, ttl in ttl_places(wire)] == [77, 77]
    assert without_opt(wire) == wire


records = st.sets(
    st.builds(
        Record,
        st.sampled_from(["a.x.svc.c", "b.x.svc.c", "_p._tcp.a.x.svc.c", "h.a.x.svc.c", "a.y.svc.c"]),
        st.sampled_from(["A", "TXT"]),
        st.sampled_from(["1", "2"]),
    ),
    max_size=4,
)


@given(st.lists(st.tuples(st.sampled_from("12"), records), max_size=8))
def test_a_zone_in_steps_is_a_zone_at_once_and_names_its_changes(steps: list[tuple[str, set[Record]]]) -> None:
    names = [
        "a.x.svc.c",
        "b.x.svc.c",
        "_p._tcp.a.x.svc.c",
        "_tcp.a.x.svc.c",
        "x.svc.c",
        "y.svc.c",
        "svc.c",
        "h.a.x.svc.c",
    ]
    zone = Zone("c")
    last: dict[str, set[Record]] = {}
    for owner, found in steps:
        before = {name: (zone.exists(name), {k: set(v) for k, v in zone.find(name).items()}) for name in names}
        changed = zone.put(owner, found)
        last[owner] = found
        after = {name: (zone.exists(name), {k: set(v) for k, v in zone.find(name).items()}) for name in names}
        assert {name for name in names if before[name] != after[name]} <= changed
    whole = Zone("c")
    for owner, found in last.items():
        whole.put(owner, found)
    for name in names:
        assert zone.exists(name) == whole.exists(name)
        assert {k: set(v) for k, v in zone.find(name).items()} == {k: set(v) for k, v in whole.find(name).items()}


HOST = read_resolv_conf("# ours\nnameserver 192.0.2.1\nnameserver bad\nsearch corp.example. \noptions edns0 ndots:2\n")


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        (
            {},
            DNSConfig(
                servers=("10.96.0.10",),
                searches=("ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "corp.example"),
                options=("ndots:5",),
            ),
        ),
        ({"dnsPolicy": "Default"}, HOST),
        ({"hostNetwork": True}, HOST),
        (
            {
                "dnsPolicy": "None",
                "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["x"], "options": [{"name": "debug"}]},
            },
            DNSConfig(servers=("1.1.1.1",), searches=("x",), options=("debug",)),
        ),
        (
            {
                "dnsPolicy": "Default",
                "dnsConfig": {"nameservers": ["192.0.2.1", "1.1.1.1"], "options": [{"name": "ndots", "value": "3"}]},
            },
            DNSConfig(servers=("192.0.2.1", "1.1.1.1"), searches=("corp.example",), options=("edns0", "ndots:3")),
        ),
    ],
)
def test_lines_of_pods(spec: dict[str, Any], wanted: DNSConfig) -> None:
    pod = from_dict({"metadata": {"name": "p", "namespace": "ns"}, "spec": {"dnsPolicy": "ClusterFirst"} | spec}, Pod)
    found = pod_dns(pod, cluster_dns=["10.96.0.10"], cluster_domain="cluster.local.", host=HOST)
    assert found.config == wanted
    assert found.problems == ()


def test_lines_of_pods_that_are_too_many_or_have_no_server() -> None:
    body = {
        "metadata": {"name": "p", "namespace": "ns"},
        "spec": {"dnsConfig": {"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3"]}},
    }
    found = pod_dns(from_dict(body, Pod), cluster_dns=["10.96.0.10"], cluster_domain=DOMAIN, host=HOST)
    assert found.config.servers == ("10.96.0.10", "1.1.1.1", "1.1.1.2")
    assert "1.1.1.3" in found.problems[0]
    found = pod_dns(from_dict(body, Pod), cluster_dns=[], cluster_domain=DOMAIN, host=HOST)
    assert found.config.servers[0] == "192.0.2.1"
    assert "Default" in found.problems[0]


def test_a_tail_is_never_longer_than_asked() -> None:
    query = parse(dns.message.make_query("a.b", "A").to_wire())
    cut = reply(query, Tail(0, 1, 0, 0, bytes(600)), most=512)
    assert struct.unpack_from("!H", cut, 2)[0] & 0x0200
    assert len(cut) == 12 + len(query.question)
