"""Aggregated APIs: routes, identity, TLS, and the Available condition."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.model import Answer, Request, Response, User
from pilothouse.apiserver.proxying import availability
from pilothouse.apiserver.proxying.aggregation import Aggregator, routes
from pilothouse.apiserver.proxying.headers import remote_user
from pilothouse.apiserver.proxying.reverse import ReverseProxy
from pilothouse.foundation import tls
from support.proxykit import Authority, FakeView, endpoint_slice, http_server, make_service

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def api_service(service: dict[str, Any] | None, name: str = "v1.metrics.example", **spec: Any) -> dict[str, Any]:
    version, _, group = name.partition(".")
    found: dict[str, Any] = {
        "metadata": {"name": name},
        "spec": {"group": group, "version": version, **spec},
        "status": {"conditions": [{"type": "Available", "status": "True"}]},
    }
    if service is not None:
        found["spec"]["service"] = service
    return found


REFERENCE = {"name": "s", "namespace": "d", "port": 443}


def reason(service: dict[str, Any] | None, *slices: dict[str, Any]) -> tuple[str, str, str] | None:
    found = availability.before_discovery(api_service(REFERENCE), service, slices)
    return (found["status"], found["reason"], found["message"]) if found else None


def test_objects_tell_whether_an_api_can_be_served() -> None:
    service = make_service("s", [{"name": "https", "port": 443}])
    ready = endpoint_slice("s", [("10.0.0.1", "a", True)], [("https", 8443)])
    unready = endpoint_slice("s", [("10.0.0.1", "a", False)], [("https", 8443)])
    other = endpoint_slice("s", [("10.0.0.1", "a", True)], [("http", 8080)])
    assert reason(None) == ("False", "ServiceNotFound", 'service/s in "d" is not present')
    assert reason(make_service("s", [{"port": 80}])) == (
        "False",
        "ServicePortError",
        'service/s in "d" is not listening on port 443',
    )
    assert reason(service) == ("False", "EndpointsNotFound", 'cannot find endpointslices for service/s in "d"')
    missing = (
        "False",
        "MissingEndpoints",
        'endpointslices for service/s in "d" have no addresses with port name "https"',
    )
    assert reason(service, unready) == missing
    assert reason(service, other) == missing
    assert reason(service, other, ready) is None
    assert reason(make_service("s", [], kind="ExternalName")) is None
    local = availability.before_discovery(api_service(None), None, ())
    assert local == {
        "type": "Available",
        "status": "True",
        "reason": "Local",
        "message": "Local APIServices are always available",
    }


def test_a_condition_changes_its_time_with_its_status_only() -> None:
    status, changed = availability.with_condition(None, availability.from_discovery(""), NOW)
    assert changed
    assert status["conditions"][0]["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    again, changed = availability.with_condition(status, availability.from_discovery(""), NOW.replace(year=2027))
    assert (again, changed) == (status, False)
    failed, changed = availability.with_condition(status, availability.from_discovery("no"), NOW.replace(year=2027))
    assert changed
    assert failed["conditions"] == [
        {
            "type": "Available",
            "status": "False",
            "reason": "FailedDiscoveryCheck",
            "message": "no",
            "lastTransitionTime": "2027-01-01T00:00:00Z",
        }
    ]


def test_routes_are_those_with_a_service() -> None:
    view = FakeView(api_services=[api_service(REFERENCE), api_service(None, "v1.apps")])
    assert list(routes(view)) == [("metrics.example", "v1")]
    aggregator = Aggregator(view, ReverseProxy())
    found = aggregator.route("/apis/metrics.example/v1/nodes/n")
    assert found is not None
    assert found.server_name == "s.d.svc"
    assert aggregator.route("/apis/metrics.example/v1") == found
    for path in ("/apis/metrics.example", "/apis/apps/v1/deployments", "/apis", "/api/v1", "/", "", "/metrics"):
        assert aggregator.route(path) is None
    view.objects["apiservices.apiregistration.k8s.io"].clear()
    assert aggregator.route("/apis/metrics.example/v1") == found
    view.versions += 1
    assert aggregator.route("/apis/metrics.example/v1") is None


def test_the_user_is_told_in_headers() -> None:
    user = User("jo", "u1", ("a", "b"), {"acme.com/x y": ("1", "2"), "ü": ("3",)})
    assert remote_user(user) == [
        ("X-Remote-User", "jo"),
        ("X-Remote-Uid", "u1"),
        ("X-Remote-Group", "a"),
        ("X-Remote-Group", "b"),
        ("X-Remote-Extra-acme.com%2Fx%20y", "1"),
        ("X-Remote-Extra-acme.com%2Fx%20y", "2"),
        ("X-Remote-Extra-%C3%BC", "3"),
    ]


@given(st.text())
def test_any_extra_key_is_a_header_name(key: str) -> None:
    ((_, _), (name, _)) = remote_user(User("u", extra={key: ("v",)}))
    assert name.isascii()
    assert name.isprintable()
    assert not set(name) & set(' :,;"()<>@[]?={}/\\')


class Backend:
    """An aggregated server that tells what it got."""

    def __init__(self) -> None:
        self.status = 200
        self.seen: list[tuple[str, dict[str, str], list[str], bool]] = []

    def __call__(self, request: Request) -> Answer:
        certified = request.peer is not None and request.peer.certificate is not None
        self.seen.append((request.target, request.headers, request.all_headers("x-remote-group"), certified))
        return Response(self.status, json.dumps({"kind": "APIResourceList"}).encode())


@pytest.fixture
def backend() -> Backend:
    return Backend()


@pytest.fixture
async def world(tmp_path: Path, backend: Backend) -> AsyncIterator[tuple[FakeView, Aggregator, Authority]]:
    serving, front = Authority(tmp_path, "serving"), Authority(tmp_path, "front")
    files = serving.issue("tls", "s.d.svc")
    context = tls.server_context(*files, client_ca=str(front.file), client_required=False)
    proxy = ReverseProxy()
    async with http_server(backend, context) as port:
        view = FakeView(
            services=[make_service("s", [{"port": 443}])],
            slices=[endpoint_slice("s", [("127.0.0.1", "", True)], [("", port)])],
        )
        bundle = base64.b64encode(serving.certificate).decode()
        view.objects["apiservices.apiregistration.k8s.io"] = [api_service(REFERENCE, caBundle=bundle)]
        yield view, Aggregator(view, proxy, front_proxy=front.issue("front-proxy-client")), front
        await proxy.close()


def asked(target: str, user: User | None) -> Request:
    sent = {"host": "api", "authorization": "Bearer t", "x-remote-user": "root", "x-remote-group": "system:masters"}
    return Request("GET", target, target.split("?", maxsplit=1)[0], "", sent, header_list=list(sent.items()), user=user)


async def test_requests_reach_the_aggregated_server_as_the_user(
    world: tuple[FakeView, Aggregator, Authority], backend: Backend
) -> None:
    _, aggregator, _ = world
    route = aggregator.route("/apis/metrics.example/v1/nodes")
    assert route is not None
    answer = await aggregator.answer(asked("/apis/metrics.example/v1/nodes", User("jo", groups=("a", "b"))), route)
    assert isinstance(answer, Response)
    assert answer.status == 200
    ((target, headers, groups, certified),) = backend.seen
    assert target == "/apis/metrics.example/v1/nodes"
    assert (headers["x-remote-user"], groups, certified) == ("jo", ["a", "b"], True)
    assert "authorization" not in headers
    assert headers["host"].startswith("127.0.0.1:")


async def test_the_server_is_asked_whether_it_serves(
    world: tuple[FakeView, Aggregator, Authority], backend: Backend
) -> None:
    view, aggregator, front = world
    (registered,) = view.objects["apiservices.apiregistration.k8s.io"]
    assert (await aggregator.condition(registered))["reason"] == "Passed"
    target, headers, groups, certified = backend.seen[0]
    assert target == "/apis/metrics.example/v1"
    assert (headers["x-remote-user"], groups, certified) == ("system:kube-aggregator", ["system:masters"], True)
    backend.status = 500
    failed = await aggregator.condition(registered)
    assert failed["reason"] == "FailedDiscoveryCheck"
    assert "bad status from https://127.0.0.1:" in failed["message"]
    backend.status = 200
    foreign = base64.b64encode(front.certificate).decode()
    wrong = await aggregator.condition(api_service(REFERENCE, caBundle=foreign))
    assert wrong["reason"] == "FailedDiscoveryCheck"
    assert "failed to verify certificate" in wrong["message"]
    skipped = await aggregator.condition(api_service(REFERENCE, insecureSkipTLSVerify=True))
    assert skipped["reason"] == "Passed"
    bad = await aggregator.condition(api_service(REFERENCE, caBundle="!"))
    assert "spec.caBundle cannot be used" in bad["message"]
    assert (await aggregator.condition(api_service(None)))["reason"] == "Local"


async def test_discovery_documents_are_fetched(world: tuple[FakeView, Aggregator, Authority], backend: Backend) -> None:
    _, aggregator, _ = world
    route = aggregator.route("/apis/metrics.example/v1")
    assert route is not None
    assert await aggregator.fetch(route, "/apis/metrics.example/v1") == (
        b'{"kind": "APIResourceList"}',
        "application/json",
    )
    backend.status = 404
    assert await aggregator.fetch(route, "/apis/metrics.example/v1") is None


@pytest.mark.parametrize("why", ["unavailable", "no service", "no user", "bad bundle"])
async def test_what_cannot_be_served_is_told_in_text(
    world: tuple[FakeView, Aggregator, Authority], backend: Backend, why: str
) -> None:
    view, aggregator, _ = world
    (registered,) = view.objects["apiservices.apiregistration.k8s.io"]
    if why == "unavailable":
        registered["status"] = {}
    if why == "no service":
        view.objects["services"] = []
    if why == "bad bundle":
        registered["spec"]["caBundle"] = base64.b64encode(b"no pem").decode()
    route = aggregator.route("/apis/metrics.example/v1")
    assert route is not None
    user = None if why == "no user" else User("jo")
    answer = await aggregator.answer(asked("/apis/metrics.example/v1", user), route)
    assert isinstance(answer, Response)
    expected = {"no user": (500, b"missing user\n")}.get(why, (503, b"service unavailable\n"))
    if why == "bad bundle":
        assert answer.status == 500
    else:
        assert (answer.status, answer.body) == expected
    assert backend.seen == []


def test_a_context_is_made_once(tmp_path: Path) -> None:
    view = FakeView(api_services=[api_service(REFERENCE, insecureSkipTLSVerify=True)])
    aggregator = Aggregator(view, ReverseProxy())
    route = aggregator.route("/apis/metrics.example/v1")
    assert route is not None
    context = aggregator._context(route)
    assert context is aggregator._context(route)
    assert context.verify_mode is ssl.CERT_NONE
    aggregator.renew()
    assert context is not aggregator._context(route)
