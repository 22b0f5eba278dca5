"""What the events of a request say, stage by stage."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from pilothouse.apiserver.audit import Auditor, AuditPolicy, Event
from pilothouse.apiserver.audit.auditor import source_ips
from pilothouse.apiserver.model import Peer, Request, RequestInfo, User
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.ids import SeededIds
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.status import InternalError, not_found

POD = {"metadata": {"name": "web", "namespace": "a", "uid": "u1", "managedFields": [{"manager": "x"}]}, "kind": "Pod"}


class Memory:
    """Keeps events, as long as it is told to."""

    def __init__(self, limit: int = 10 * 1024 * 1024) -> None:
        self.limit = limit
        self.full = False
        self.lines: list[bytes] = []

    def write(self, event: Event) -> bool:
        if not self.full:
            self.lines.append(event.encode(self.limit))
        return not self.full

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


class Bench:
    """An auditor with a memory."""

    def __init__(self, level: str = "RequestResponse", strict: bool = False, limit: int = 1 << 20, **more: Any) -> None:
        self.sink = Memory(limit)
        self.clock = FakeClock(datetime(2026, 3, 4, 5, 6, 7, 89, tzinfo=UTC))
        self.metrics = Metrics()
        rules = [{"level": level, **more}]
        policy = AuditPolicy.from_dict({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules})
        ids = SeededIds()
        self.auditor = Auditor(policy, self.sink, self.clock, ids, strict=strict, metrics=self.metrics)

    @property
    def stages(self) -> list[str]:
        return [event["stage"] for event in self.sink.events]


def request(verb: str = "create", headers: dict[str, str] | None = None, **info: Any) -> Request:
    target = "/api/v1/namespaces/a/pods?fieldManager=x"
    found = Request("POST", target, "/api/v1/namespaces/a/pods", "", {"audit-id": "id-1", **(headers or {})})
    found.info = RequestInfo(True, verb, found.path, "", "v1", "a", "pods", **info)
    found.user = User("ann", "7", ("dev",), {"scopes": ("all",)})
    found.peer = Peer("10.0.0.9")
    return found


def test_a_write_is_told_with_its_bodies() -> None:
    bench = Bench()
    asked = request(headers={"user-agent": "kubectl"})
    record = bench.auditor.begin(asked)
    assert record is not None
    assert record.wants_bodies
    asked.annotations["authorization.k8s.io/decision"] = "allow"
    record.request_object(json.dumps(POD).encode(), POD)
    bench.clock.advance(0.25)
    record.response(201, json.dumps({**POD, "status": {}}).encode())
    received, complete = bench.sink.events
    assert received == {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": "RequestResponse",
        "auditID": "id-1",
        "stage": "RequestReceived",
        "requestURI": "/api/v1/namespaces/a/pods?fieldManager=x",
        "verb": "create",
        "user": {"username": "ann", "uid": "7", "groups": ["dev"], "extra": {"scopes": ["all"]}},
        "sourceIPs": ["10.0.0.9"],
        "userAgent": "kubectl",
        "objectRef": {"resource": "pods", "namespace": "a", "apiVersion": "v1"},
        "requestReceivedTimestamp": "2026-03-04T05:06:07.000089Z",
        "stageTimestamp": "2026-03-04T05:06:07.000089Z",
    }
    assert complete["stage"] == "ResponseComplete"
    assert complete["objectRef"] == {**received["objectRef"], "name": "web", "uid": "u1"}
    assert complete["responseStatus"] == {"metadata": {}, "code": 201}
    assert complete["requestObject"] == POD
    assert complete["responseObject"] == {**POD, "status": {}}
    assert complete["stageTimestamp"] == "2026-03-04T05:06:07.250089Z"
    assert complete["annotations"] == {"authorization.k8s.io/decision": "allow"}
    assert list(complete)[:5] == ["kind", "apiVersion", "level", "auditID", "stage"]


@pytest.mark.parametrize(("level", "bodies"), [("Metadata", set()), ("Request", {"requestObject"})])
def test_bodies_are_told_only_where_the_policy_says(level: str, bodies: set[str]) -> None:
    bench = Bench(level)
    record = bench.auditor.begin(request())
    assert record is not None
    record.request_object(b'{"a":"geheim"}', POD)
    record.response(200, b'{"b":"geheim"}')
    event = bench.sink.events[-1]
    assert {"requestObject", "responseObject"} & set(event) == bodies
    assert event["objectRef"]["name"] == "web"
    assert (b"geheim" in bench.sink.lines[-1]) == bool(bodies)


def test_managed_fields_and_line_breaks_are_left_out() -> None:
    bench = Bench(omitManagedFields=True, omitStages=["RequestReceived"])
    record = bench.auditor.begin(request())
    assert record is not None
    record.request_object(json.dumps(POD, indent=1).encode())
    record.response(200, [b'{"items":[', json.dumps(POD).encode(), b'],"metadata":{}}'])
    event = bench.sink.events[0]
    assert b"managedFields" not in bench.sink.lines[0]
    assert b"\n" not in bench.sink.lines[0]
    assert event["requestObject"]["metadata"]["uid"] == "u1"
    assert event["responseObject"]["items"][0]["metadata"]["name"] == "web"


def test_what_is_no_json_is_left_out() -> None:
    bench = Bench(omitStages=["RequestReceived"])
    for body in (b"some log\n", b"{broken", b"", b"k8s\x00"):
        record = bench.auditor.begin(request())
        assert record is not None
        record.response(200, body)
    assert all("responseObject" not in event for event in bench.sink.events)


def test_refusals_say_why() -> None:
    bench = Bench("Metadata")
    record = bench.auditor.begin(request("get"))
    assert record is not None
    record.response(404, json.dumps(not_found("", "pods", "web").to_dict()).encode())
    assert bench.sink.events[-1]["responseStatus"] == {
        "metadata": {},
        "status": "Failure",
        "message": 'pods "web" not found',
        "reason": "NotFound",
        "details": {"name": "web", "kind": "pods"},
        "code": 404,
    }


def test_a_watch_is_told_when_it_starts_and_ends() -> None:
    bench = Bench()
    record = bench.auditor.begin(request("watch"))
    assert record is not None
    record.started(200)
    record.started(200)
    record.response(200)
    record.response(200)
    record.closed()
    assert bench.stages == ["RequestReceived", "ResponseStarted", "ResponseComplete"]
    assert bench.sink.events[-1]["responseStatus"] == {"metadata": {}, "code": 200}


def test_a_connection_that_closes_early_is_told() -> None:
    bench = Bench()
    record = bench.auditor.begin(request("watch"))
    assert record is not None
    record.closed(long_running=True)
    assert bench.stages == ["RequestReceived", "ResponseStarted", "ResponseComplete"]
    assert bench.sink.events[-1]["responseStatus"]["message"] == "Connection closed early"


def test_a_failure_of_the_server_is_told_without_its_text() -> None:
    bench = Bench()
    record = bench.auditor.begin(request())
    assert record is not None
    record.panic(ValueError("geheim"))
    event = bench.sink.events[-1]
    assert (event["stage"], event["responseStatus"]["message"]) == ("Panic", "APIServer panic'd: ValueError")
    assert b"geheim" not in bench.sink.lines[-1]


def test_impersonation_shows_both() -> None:
    bench = Bench("Metadata")
    asked = request()
    record = bench.auditor.begin(asked)
    assert record is not None
    asked.impersonator, asked.user = asked.user, User("bob", groups=("ops",))
    record.response(200)
    before, after = bench.sink.events
    assert "impersonatedUser" not in before
    assert after["user"]["username"] == "ann"
    assert after["impersonatedUser"] == {"username": "bob", "groups": ["ops"]}


def test_nothing_is_told_where_nothing_is_wanted() -> None:
    bench = Bench("None")
    assert bench.auditor.begin(request()) is None
    assert Auditor(None, bench.sink, bench.clock, SeededIds(), metrics=Metrics()).begin(request()) is None
    assert bench.sink.lines == []


def test_bad_credentials_are_told() -> None:
    bench = Bench("Metadata")
    asked = request(headers={"authorization": "Bearer geheim"})
    asked.user = None
    bench.auditor.unauthenticated(asked)
    asked.headers.pop("authorization")
    bench.auditor.unauthenticated(asked)
    first, second = bench.sink.events
    assert first["stage"] == "ResponseStarted"
    assert first["user"] == {}
    assert first["responseStatus"]["code"] == 401
    assert first["responseStatus"]["message"] == "Authentication failed, attempted: bearer"
    assert second["responseStatus"]["message"] == "Authentication failed, no credentials provided"
    assert b"geheim" not in bench.sink.lines[0]


def test_what_is_too_long_is_cut() -> None:
    bench = Bench(limit=2000)
    record = bench.auditor.begin(request(headers={"user-agent": "x" * 2000}))
    assert record is not None
    record.request_object(json.dumps({"a": "b" * 3000}).encode())
    record.response(200)
    event = bench.sink.events[-1]
    assert event["userAgent"] == "x" * 1024 + "...TRUNCATED"
    assert event["annotations"] == {"audit.k8s.io/truncated": "true"}
    assert "requestObject" not in event


def test_a_full_sink_is_counted_and_stops_strict_servers() -> None:
    bench = Bench()
    bench.sink.full = True
    assert bench.auditor.begin(request()) is not None
    assert "pilothouse_apiserver_audit_dropped_events_total 1.0" in bench.metrics.exposition().decode()
    strict = Bench(strict=True)
    strict.sink.full = True
    with pytest.raises(InternalError, match="failed to store audit event"):
        strict.auditor.begin(request())


def test_ids_are_kept_or_made() -> None:
    bench = Bench()
    assert bench.auditor.audit_id(request()) == "id-1"
    for bad in ("", "x" * 300, "a\nb"):
        assert len(bench.auditor.audit_id(request(headers={"audit-id": bad}))) == 36


def test_the_first_annotation_of_a_name_stays() -> None:
    bench = Bench("Metadata")
    record = bench.auditor.begin(request())
    assert record is not None
    record.annotate("a/b", "1")
    record.annotate("a/b", "2")
    record.response(200)
    assert bench.sink.events[-1]["annotations"] == {"a/b": "1"}


@pytest.mark.parametrize(
    ("headers", "peer", "ips"),
    [
        ({}, "10.0.0.1", ["10.0.0.1"]),
        ({}, "", []),
        ({"x-forwarded-for": "1.1.1.1, nonsense,2.2.2.2"}, "10.0.0.1", ["1.1.1.1", "2.2.2.2", "10.0.0.1"]),
        ({"x-forwarded-for": "1.1.1.1,10.0.0.1"}, "10.0.0.1", ["1.1.1.1", "10.0.0.1"]),
        ({"x-real-ip": "3.3.3.3"}, "10.0.0.1", ["3.3.3.3", "10.0.0.1"]),
        ({"x-forwarded-for": "3.3.3.3,4.4.4.4", "x-real-ip": "3.3.3.3"}, "4.4.4.4", ["3.3.3.3", "4.4.4.4"]),
        ({}, "::ffff:1.2.3.4", ["1.2.3.4"]),
        ({"x-forwarded-for": "fe80::1"}, "::1", ["fe80::1", "::1"]),
    ],
)
def test_source_addresses_follow_the_proxies(headers: dict[str, str], peer: str, ips: list[str]) -> None:
    asked = request(headers=headers)
    asked.peer = Peer(peer)
    assert source_ips(asked) == ips
