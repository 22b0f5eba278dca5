"""A real Prometheus judges: what it scrapes of a gateway and of an exporter, and what becomes of a run without it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import ClientSession, web
from prometheus_client import CollectorRegistry, generate_latest

from pilothouse.client import Client
from pilothouse.delivery.analysis.fetching import Fetch, Fetcher
from pilothouse.delivery.analysis.prometheus import ADDRESS, PrometheusProvider
from pilothouse.delivery.analysis.providers import MetricError
from pilothouse.delivery.analysis.reconciler import add_analyses
from pilothouse.delivery.resources.analyses import AnalysisRun, AnalysisTemplate, AnalysisTemplateRef, Argument
from pilothouse.delivery.resources.installing import install_kinds
from pilothouse.delivery.rollouts.analysisruns import run_spec
from pilothouse.delivery.rollouts.view import TemplateKey
from pilothouse.foundation import tls
from pilothouse.kinds.structs import Secret, from_dict, to_dict
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane
from pilothouse.traffic.config import Backend, Configuration, Endpoint, HttpRule, Weighted
from pilothouse.traffic.gateway import Gateway, GatewayOptions
from support.planekit import Origin, Raw, configuration, free_port
from support.prometheuskit import Exporter, Prometheus, exporter, prometheus_of, wants_prometheus

pytestmark = [wants_prometheus, pytest.mark.timeout(180)]

DEADLINE = 60.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\ns"
BAD = b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n"
PAGE = """
shop_requests_total{service="stable",code="200"} 9900
shop_requests_total{service="stable",code="500"} 100
shop_requests_total{service="canary",code="200"} 900
shop_requests_total{service="canary",code="500"} 100
http_latency_ms{service="stable",pod="a"} 120
http_latency_ms{service="stable",pod="b"} 900
http_latency_ms{service="canary",pod="c"} 1500
nothing_ratio NaN
"""
TEMPLATE = """
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata:
  name: success-rate
spec:
  args:
  - name: service-name
  - name: address
  metrics:
  - name: success-rate
    # NOTE: prometheus queries return results in the form of a vector.
    # So it is common to access the index 0 of the returned array to obtain the value
    successCondition: result[0] >= 0.95
    provider:
      prometheus:
        address: "{{args.address}}"
        timeout: 40
        query: |
          sum(shop_requests_total{service=~"{{args.service-name}}",code!~"5.*"}) /
          sum(shop_requests_total{service=~"{{args.service-name}}"})
"""
OF_GATEWAY = """
apiVersion: argoproj.io/v1alpha1
kind: AnalysisTemplate
metadata:
  name: gateway-errors
spec:
  args: [{name: address}, {name: version}, {name: most, value: "0.05"}]
  metrics:
  - name: errors
    interval: 500ms
    initialDelay: 100ms
    count: 4
    failureCondition: len(result) == 1 && result[0] > {{args.most}}
    successCondition: len(result) == 1 && result[0] <= {{args.most}}
    inconclusiveLimit: 100
    provider:
      prometheus:
        address: "{{args.address}}"
        query: |
          sum(increase(pilothouse_gateway_requests_total{version="{{args.version}}",code=~"5.."}[5s]) or vector(0))
          / sum(increase(pilothouse_gateway_requests_total{version="{{args.version}}"}[5s]))
  - name: slow
    interval: 500ms
    count: 4
    inconclusiveLimit: 100
    successCondition: 'len(result) > 0 && all(result, # < 0.8)'
    failureCondition: 'any(result, # >= 0.8)'
    provider:
      prometheus:
        address: "{{args.address}}"
        rangeQuery: {start: 'now() - duration("3s")', end: now(), step: 1s}
        query: |
          histogram_quantile(0.95, sum by (le)
          (increase(pilothouse_gateway_request_seconds_bucket{version="{{args.version}}"}[5s]))) >= 0
"""


@pytest.fixture(scope="module")
def pages() -> Iterator[Exporter]:
    with exporter() as made:
        made.pages["/metrics"] = lambda: PAGE
        yield made


@pytest.fixture(scope="module")
def prometheus(pages: Exporter, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    targets = {"shop": (pages.address, "/metrics"), "gateway": (pages.address, "/gateway")}
    with prometheus_of(tmp_path_factory.mktemp("prometheus"), targets) as made:
        made.until("count_over_time(http_latency_ms[1m])", lambda found: found and min(found) >= 2)
        yield made


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[Client]:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_kinds(client)
        manager = Manager(client)
        add_analyses(manager)
        async with manager:
            yield client


def metric(url: str, query: str, name: str = "m", **more: Any) -> dict[str, Any]:
    """Return a metric; fields of its provider are those that are not a metric's."""
    own = ("successCondition", "failureCondition", "interval", "count", "consecutiveErrorLimit")
    provider = {"address": url, "query": query, **{key: value for key, value in more.items() if key not in own}}
    given = {key: value for key, value in more.items() if key in own}
    return {"name": name, "provider": {"prometheus": provider}, "consecutiveErrorLimit": 0, **given}


async def made(client: Client, name: str, *metrics: dict[str, Any], args: Sequence[dict[str, Any]] = ()) -> None:
    run = {"metadata": {"name": name, "namespace": "default"}, "spec": {"metrics": list(metrics), "args": list(args)}}
    await client.create(from_dict(run, AnalysisRun))


async def made_of(client: Client, name: str, template: str, **arguments: str) -> None:
    """Make a run as a rollout makes it, of a template."""
    found = from_dict(yaml.safe_load(template), AnalysisTemplate)
    given = [Argument(name=key.replace("_", "-"), value=value) for key, value in arguments.items()]
    refs = [AnalysisTemplateRef(template_name=found.metadata.name)]
    spec = run_spec(refs, {TemplateKey(False, found.metadata.name): found.spec}, given)
    tree = {"metadata": {"name": name, "namespace": "default"}, "spec": to_dict(spec)}
    await client.create(from_dict(tree, AnalysisRun))


async def until(client: Client, name: str, true: Callable[[AnalysisRun], bool]) -> AnalysisRun:
    async with asyncio.timeout(DEADLINE):
        async for event in client.watch(AnalysisRun, "default"):
            if event.object.metadata.name == name and true(event.object):
                return event.object
    raise AssertionError(f"the watch ended before {name} was as wanted")


def is_over(run: AnalysisRun) -> bool:
    return bool(run.status.completed_at)


async def test_a_template_as_argos_examples_have_it(prometheus: Prometheus) -> None:
    async with running() as client:
        for service in ("stable", "canary"):
            await made_of(client, service, TEMPLATE, service_name=service, address=prometheus.url)
        good, bad = await until(client, "stable", is_over), await until(client, "canary", is_over)
    assert (good.status.phase, bad.status.phase) == ("Successful", "Failed")
    (result,) = bad.status.metric_results
    assert [each.value for each in result.measurements] == ["[0.9]"]
    assert 'service=~"canary",code!~"5.*"' in result.metadata["ResolvedPrometheusQuery"]
    assert bad.status.message == 'Metric "success-rate" assessed Failed due to failed (1) > failureLimit (0)'


async def test_metrics_without_an_address_ask_the_controllers_own(
    prometheus: Prometheus, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = metric("", "vector(1)", successCondition="result[0] == 1")
    async with running() as client:
        await made(client, "nobody", bare)
        nobody = await until(client, "nobody", is_over)
        monkeypatch.setenv(ADDRESS, prometheus.url)
        await made(client, "own", bare)
        own = await until(client, "own", is_over)
    assert f"address: it is wanted, here or as the controller's {ADDRESS}" in str(nobody.status.message)
    assert (nobody.status.phase, own.status.phase) == ("Error", "Successful")


async def test_warnings_and_answers_that_are_none_are_told() -> None:
    class Answering(Fetcher):
        async def json(self, fetch: Fetch) -> Any:
            return answers.pop(0)

    good = {"status": "success", "data": {"resultType": "scalar", "result": [1, "0.5"]}, "warnings": ["late", "odd"]}
    answers: list[Any] = [
        good,
        {"status": "success", "data": {"resultType": "vector", "result": [{"value": []}]}},
        [],
        None,
    ]
    provider, now = PrometheusProvider(Answering()), datetime(2026, 1, 1, tzinfo=UTC)
    run = from_dict({"metadata": {"name": "r"}, "spec": {"metrics": [metric("http://x", "1")]}}, AnalysisRun)
    found = await provider.measure(run, run.spec.metrics[0], None, now)
    assert (found.value, found.metadata["warnings"]) == ("0.5", '"late", "odd"')
    for _ in range(3):
        with pytest.raises(MetricError, match="prometheus answers nothing that can be read"):
            await provider.measure(run, run.spec.metrics[0], None, now)


async def test_the_example_of_the_documentation_is_understood(prometheus: Prometheus) -> None:
    page = (Path(__file__).parents[3] / "docs" / "rollouts.md").read_text(encoding="utf-8")
    (text,) = [each.partition("```")[0] for each in page.split("```yaml\n") if "errors-by-prometheus" in each]
    template = text.replace("http://prometheus.example:9090", prometheus.url).replace("interval: 10s", "count: 1")
    async with running() as client:
        await made_of(client, "documented", template, version="nobody")
        run = await until(client, "documented", is_over)
    assert (run.status.phase, run.status.message) == ("Successful", None)
    assert [each.measurements[0].value for each in run.status.metric_results] == ["[]", "[]"]


LATENCY = "sort(http_latency_ms)"
RANGE = {"rangeQuery": {"start": 'now() - duration("500ms")', "end": "now()", "step": "250ms"}}
CASES: list[tuple[str, dict[str, Any], str, str]] = [
    # query, conditions and fields, phase, value or message
    ("scalar(http_latency_ms{pod='a'})", {"successCondition": "result < 1000"}, "Successful", "120.0"),
    ("scalar(http_latency_ms)", {"successCondition": "isNaN(result)"}, "Successful", "NaN"),
    ("1 / 0", {"successCondition": "isInf(result)"}, "Successful", "+Inf"),
    (LATENCY, {"successCondition": "all(result, # < 1000)"}, "Failed", "[120.0,900.0,1500.0]"),
    (LATENCY, {"failureCondition": "len(result) < 3"}, "Successful", "[120.0,900.0,1500.0]"),
    (LATENCY, {}, "Successful", "[120.0,900.0,1500.0]"),
    (
        LATENCY,
        {"successCondition": "result[2] < 1000", "failureCondition": "result[2] > 2000"},
        "Inconclusive",
        "[120.0,900.0,1500.0]",
    ),
    ("not_there", {"successCondition": "result[0] < 1"}, "Error", "list index out of range; the answer has no data"),
    ("not_there", {"successCondition": "len(result) == 0 || result[0] < 1"}, "Successful", "[]"),
    ("not_there", {"successCondition": "default(result, 0) < 1"}, "Successful", "[]"),
    ("nothing_ratio", {"successCondition": "result[0] >= 0.95"}, "Failed", "[NaN]"),
    ("nothing_ratio", {"failureCondition": "result[0] > 0.05"}, "Successful", "[NaN]"),
    ("nothing_ratio", {"successCondition": "isNaN(result[0]) || result[0] >= 0.95"}, "Successful", "[NaN]"),
    ("http_latency_ms{pod='c'}[3s]", {"successCondition": "all(result, # == 1500)"}, "Successful", "[1500.0,1500.0"),
    ("http_latency_ms{pod='c'}", {**RANGE, "failureCondition": "any(result, # > 1000)"}, "Failed", "[1500.0,1500.0,"),
    ("http_latency_ms", {**RANGE, "successCondition": "len(result) == 9"}, "Successful", "[120.0,120.0,120.0,900.0,"),
    ("'text'", {}, "Error", "prometheus answers string; want a vector, a matrix or a scalar"),
    ("sum(", {}, "Error", 'status 400: bad_data: invalid parameter "query"'),
    ("1", {"successCondition": "result[0] == 1"}, "Error", "not subscriptable"),
    ("1", {"successCondition": "result"}, "Error", "gives 1.0; it has to be true or false"),
    ("", {}, "Error", "prometheus.query: it is wanted"),
    ("1", {"timeout": -1}, "Error", "prometheus.timeout: -1 s; want none or more"),
    ("1", {"address": "prometheus:9090"}, "Error", "prometheus.address: want a URL"),
    (
        "1",
        {"rangeQuery": {"start": "now()", "end": "now()", "step": "soon"}},
        "Error",
        "rangeQuery.step: time: invalid",
    ),
    ("1", {"rangeQuery": {"start": "now()", "end": "1", "step": "1s"}}, "Error", "rangeQuery.end: '1' is no time"),
    (
        "1",
        {"rangeQuery": {"start": "now() -- ?", "end": "now()", "step": "1s"}},
        "Error",
        "rangeQuery.start: condition",
    ),
    ("1", {"rangeQuery": {"start": "now()", "step": "1s"}}, "Error", "rangeQuery.end: condition '': it ends too early"),
    (
        "1",
        {"rangeQuery": {"start": 'now() - duration("365h")', "end": "now()", "step": "1s"}},
        "Error",
        "status 400: bad_data: exceeded maximum resolution of 11,000 points",
    ),
    (f"1 + 0 * {'+'.join(['1'] * 2000)}", {"successCondition": "result > 0"}, "Successful", ""),  # too long for a URL
]


async def test_whatever_it_answers_is_a_verdict_or_a_reason(prometheus: Prometheus) -> None:
    async with running() as client:
        for number, (query, more, _, _) in enumerate(CASES):
            await made(client, f"case-{number}", metric(prometheus.url, query, **more))
        found = [await until(client, f"case-{number}", is_over) for number in range(len(CASES))]
    told = []
    for run, (query, more, phase, text) in zip(found, CASES, strict=True):
        (measured,) = run.status.metric_results[0].measurements
        if run.status.phase != phase or text not in f"{measured.value} {measured.message}":
            told.append((query[:50], more, run.status.phase, measured.value, measured.message))
    assert told == []


def send(port: int, times: int) -> None:
    with Raw(port) as client:
        for _ in range(times):
            client.send(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").response()


async def test_the_exposition_of_a_gateway_judges_its_versions(prometheus: Prometheus, pages: Exporter) -> None:
    registry, port, loop = CollectorRegistry(), free_port(), asyncio.get_running_loop()
    gateway = Gateway(GatewayOptions(workers=1, drain_seconds=0.1, registry=registry))

    async def page() -> bytes:
        return generate_latest(registry)

    pages.pages["/gateway"] = lambda: asyncio.run_coroutine_threadsafe(page(), loop).result(DEADLINE)
    await gateway.start()
    try:
        async with running() as client:
            with Origin.answering(OK) as stable, Origin.answering(OK, OK, OK, BAD) as canary:
                await gateway.push(two(stable.port, canary.port, port))
                sending = asyncio.create_task(keep_sending(port))
                counted = "sum by (version) (increase(pilothouse_gateway_requests_total[5s])) > 20"
                await asyncio.to_thread(prometheus.until, counted, lambda found: len(found) == 2)
                for name in ("stable", "canary"):
                    await made_of(client, name, OF_GATEWAY, address=prometheus.url, version=name)
                good, bad = await until(client, "stable", is_over), await until(client, "canary", is_over)
                sending.cancel()
    finally:
        del pages.pages["/gateway"]
        await gateway.stop()
    assert (good.status.phase, good.status.message) == ("Successful", None), good.status
    assert {each.name: each.successful for each in good.status.metric_results} == {"errors": 4, "slow": 4}
    assert (bad.status.phase, bad.status.metric_results[0].failed) == ("Failed", 1)
    ratio = float(str(bad.status.metric_results[0].measurements[-1].value).strip("[]"))
    assert ratio > 0.05


def two(stable: int, canary: int, port: int) -> Configuration:
    weighted = (Weighted(backend="b", version="stable"), Weighted(backend="c", version="canary"))
    config = configuration(stable, port=port, rule=HttpRule(backends=weighted))
    config.backends["c"] = Backend(endpoints=(Endpoint(address="127.0.0.1", port=canary),))
    return config


async def keep_sending(port: int) -> None:
    while True:
        await asyncio.to_thread(send, port, 20)
        await asyncio.sleep(0.05)


async def test_one_that_goes_away_is_errors_up_to_their_limit(tmp_path: Path) -> None:
    with prometheus_of(tmp_path, {}) as prometheus:
        async with running() as client:
            forever = metric(prometheus.url, "vector(1)", successCondition="result[0] == 1", interval="100ms")
            await made(client, "watch", {**forever, "consecutiveErrorLimit": 4})
            await until(client, "watch", lambda run: any((each.count or 0) >= 3 for each in run.status.metric_results))
            prometheus.end()
            run = await until(client, "watch", is_over)
    result = run.status.metric_results[0]
    assert (run.status.phase, result.error, result.consecutive_error, result.failed) == ("Error", 5, 5, None)
    assert [each.phase for each in result.measurements[-6:]] == ["Successful", *["Error"] * 5]
    assert "ClientConnectorError; consecutiveErrors (5) > consecutiveErrorLimit (4)" in str(run.status.message)


PASSWORD = "s3cret-word"
HASHED = "$2b$04$abcdefghijklmnopqrstuuzQDw2v3CQSMowG.sq3X.nH1lfmlmQMW"
"""The password by bcrypt, of the least cost."""


async def secret(client: Client) -> None:
    data = {"username": base64.b64encode(b"analyst").decode(), "secret": base64.b64encode(PASSWORD.encode()).decode()}
    await client.create(from_dict({"metadata": {"name": "credentials", "namespace": "default"}, "data": data}, Secret))


ARGS = [
    {"name": "user", "valueFrom": {"secretKeyRef": {"name": "credentials", "key": "username"}}},
    {"name": "word", "valueFrom": {"secretKeyRef": {"name": "credentials", "key": "secret"}}},
]


async def test_with_tls_and_a_password_out_of_a_secret(tmp_path: Path) -> None:
    ca = tls.make_ca("prometheus")
    issued = tls.issue(ca, "prometheus", hosts=["127.0.0.1"], server=True)
    tls.write(issued, str(tmp_path / "tls.crt"), str(tmp_path / "tls.key"))
    own = {"cert_file": str(tmp_path / "tls.crt"), "key_file": str(tmp_path / "tls.key")}
    settings = {"tls_server_config": own, "basic_auth_users": {"analyst": HASHED}}
    pair = base64.b64encode(f"analyst:{PASSWORD}".encode()).decode()
    basic = {"basicAuth": {"username": "{{ args.user }}", "password": "{{ args.word }}"}}
    wrong = {"basicAuth": {"username": "{{ args.user }}", "password": "guess"}}
    with prometheus_of(tmp_path / "p", {}, settings, {"Authorization": f"Basic {pair}"}) as prometheus:
        async with running() as client:
            await secret(client)
            query = 'vector(1) * len("{{args.word}}")'  # a server repeats what it does not understand
            await made(client, "good", metric(prometheus.url, "1", insecure=True, authentication=basic), args=ARGS)
            await made(client, "wrong", metric(prometheus.url, "1", insecure=True, authentication=wrong), args=ARGS)
            await made(client, "unknown", metric(prometheus.url, "1", authentication=basic), args=ARGS)
            await made(client, "echo", metric(prometheus.url, query, insecure=True, authentication=basic), args=ARGS)
            found = {name: await until(client, name, is_over) for name in ("good", "wrong", "unknown", "echo")}
            raw = b"".join([await client.get(AnalysisRun, name, "default", raw=True) for name in found])
    assert {name: run.status.phase for name, run in found.items()} == {
        "good": "Successful",
        "wrong": "Error",
        "unknown": "Error",
        "echo": "Error",
    }
    assert "status 401" in str(found["wrong"].status.message)
    assert "ClientConnectorCertificateError" in str(found["unknown"].status.message)
    assert "bad_data" in str(found["echo"].status.message)
    assert "*****" in found["echo"].status.metric_results[0].metadata["ResolvedPrometheusQuery"]
    assert PASSWORD.encode() not in raw


@contextlib.asynccontextmanager
async def front(prometheus: Prometheus) -> AsyncIterator[str]:
    """Stand before a Prometheus as those of many tenants do: who asks has a tenant, and a token of this server."""

    async def token(request: web.Request) -> web.Response:
        form = await request.post()
        asked = base64.b64decode(request.headers["Authorization"].removeprefix("Basic ")).decode()
        assert (asked, form["grant_type"], form["scope"]) == (f"analyst:{PASSWORD}", "client_credentials", "read")
        return web.json_response({"access_token": "t0ken", "expires_in": 60})

    async def ask(request: web.Request) -> web.StreamResponse:
        if request.headers.get("X-Scope-OrgID") == "nobody":
            await asyncio.sleep(DEADLINE)
        if request.headers.get("X-Scope-OrgID") != "tenant_a":
            return web.json_response({"status": "error", "errorType": "tenant", "error": "no org id"}, status=401)
        if request.headers.get("Authorization") != "Bearer t0ken":
            return web.Response(status=403)
        path = request.path_qs.removeprefix("/prometheus")
        async with ClientSession() as session, session.get(prometheus.url + path) as answer:
            return web.json_response(await answer.json(), status=answer.status)

    app = web.Application()
    app.add_routes([web.post("/token", token), web.get("/prometheus/{path:.*}", ask)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def test_headers_a_token_and_no_answer(prometheus: Prometheus) -> None:
    tenant, nobody = ([{"key": "X-Scope-OrgID", "value": name}] for name in ("tenant_a", "nobody"))
    async with running() as client, front(prometheus) as url:
        oauth = {"tokenUrl": f"{url}/token", "clientId": "analyst", "clientSecret": "{{args.word}}", "scopes": ["read"]}
        await secret(client)
        asked = metric(f"{url}/prometheus/", "up", successCondition="len(result) == 2")
        provider = asked["provider"]["prometheus"]

        async def judged(name: str, **more: Any) -> AnalysisRun:
            changed = {**asked, "provider": {"prometheus": {**provider, **more}}}
            await made(client, name, changed, args=ARGS)
            return await until(client, name, is_over)

        good = await judged("good", headers=tenant, authentication={"oauth2": oauth})
        bare = await judged("bare", authentication={"oauth2": oauth})
        silent = await judged("silent", headers=nobody, timeout=1)
    assert good.status.phase == "Successful", good.status
    assert "status 401: tenant: no org id" in str(bare.status.message)
    assert "no answer within 1 s" in str(silent.status.message)
    assert (bare.status.phase, silent.status.phase) == ("Error", "Error")


async def test_one_that_never_answers_keeps_no_other_metric_waiting(prometheus: Prometheus) -> None:
    nobody = [{"key": "X-Scope-OrgID", "value": "nobody"}]
    async with running() as client, front(prometheus) as url:
        silent = metric(f"{url}/prometheus", "up", headers=nobody, timeout=50)
        bad = metric(prometheus.url, "vector(0)", "bad", successCondition="result[0] == 1", interval="100ms", count=100)
        began = time.monotonic()
        await made(client, "both", silent, {**bad, "failureLimit": 3})
        run = await until(client, "both", is_over)
    assert (run.status.phase, run.status.metric_results[1].failed) == ("Failed", 4)
    assert time.monotonic() - began < 45
