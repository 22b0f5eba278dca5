"""Where metrics come from: the metrics APIs of a cluster, and servers that answer PromQL."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from pilothouse.client import Client
from pilothouse.client.transport import Answer
from pilothouse.kinds.labels import Selector, parse
from pilothouse.kinds.structs.autoscaling import CrossVersionObjectReference
from pilothouse.workloads.autoscaling_metrics import ApiMetrics, MetricsError, Sample
from pilothouse.workloads.autoscaling_prometheus import AnyOf, HttpQueries, PrometheusMetrics, Series

_NOTHING = Selector()
_AT = "2025-01-01T00:00:00Z"
_MOMENT = datetime(2025, 1, 1, tzinfo=UTC)


class _Server:
    """A transport that answers by path."""

    def __init__(self, answers: Mapping[str, Any]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def request(self, method: str, target: str, *_: Any, **__: Any) -> Answer:
        self.asked.append(target)
        found = self.answers.get(urlsplit(target).path)
        if found is None:
            return Answer(404, [("content-type", "text/plain")], b"404 page not found")
        return Answer(200, [("content-type", "application/json")], json.dumps(found).encode())

    async def aclose(self) -> None:
        pass


def _api(answers: Mapping[str, Any]) -> tuple[ApiMetrics, _Server]:
    server = _Server(answers)
    return ApiMetrics(Client.for_transport(server, None)), server


def _pod(name: str, **cpu: str) -> dict[str, Any]:
    containers = [{"name": each, "usage": {"cpu": used} if used else {}} for each, used in cpu.items()]
    return {"metadata": {"name": name}, "timestamp": _AT, "window": "30s", "containers": containers}


async def test_usage_is_the_sum_of_containers() -> None:
    items = [_pod("a", c="100m", side="1"), _pod("b", c="50m", side=""), _pod("d")]
    source, server = _api({"/apis/metrics.k8s.io/v1beta1/namespaces/n/pods": {"items": items}})
    assert await source.resource("n", "cpu", parse("app=x"), ()) == {"a": Sample(1100, _MOMENT, 30.0)}
    one = await source.resource("n", "cpu", parse("app=x"), (), "c")
    assert {name: found.value for name, found in one.items()} == {"a": 100, "b": 50}
    assert server.asked[0].endswith("?labelSelector=app%3Dx")


_CUSTOM = "/apis/custom.metrics.k8s.io"
_VERSIONS = {"preferredVersion": {"groupVersion": "custom.metrics.k8s.io/v1beta2"}}


async def test_custom_and_external_metrics() -> None:
    item = {"describedObject": {"name": "a"}, "timestamp": _AT, "value": "1500m"}
    source, server = _api(
        {
            _CUSTOM: _VERSIONS,
            f"{_CUSTOM}/v1beta2/namespaces/n/pods/*/rps": {"items": [item]},
            f"{_CUSTOM}/v1beta2/namespaces/n/metrics/load": {"items": [item]},
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/n/queue": {"items": [{"value": "3"}, {"value": "4k"}]},
        }
    )
    assert await source.of_pods("n", "rps", parse("a=b"), (), parse("c=d")) == {"a": Sample(1500, _MOMENT, 60.0)}
    assert server.asked[-1].endswith("?labelSelector=a%3Db&metricLabelSelector=c%3Dd")
    namespace = CrossVersionObjectReference(api_version="v1", kind="Namespace", name="other")
    assert await source.of_object("n", "load", namespace, _NOTHING) == 1500
    assert await source.external("n", "queue", _NOTHING) == [3000, 4_000_000]


async def test_what_is_not_there_is_told_as_kubernetes_does() -> None:
    source, _ = _api({})
    missing = r"resource metrics API: the server could not find the requested resource \(get pods.metrics.k8s.io\)"
    with pytest.raises(MetricsError, match=missing):
        await source.resource("n", "cpu", _NOTHING, ())
    with pytest.raises(MetricsError, match=r"no custom metrics API \(custom.metrics.k8s.io\) registered"):
        await source.of_pods("n", "rps", _NOTHING, (), _NOTHING)
    with pytest.raises(MetricsError, match=r"\(get queue.external.metrics.k8s.io\)"):
        await source.external("n", "queue", _NOTHING)


class _Port:
    def __init__(self, *found: Series) -> None:
        self.found = found
        self.asked: list[str] = []

    async def query(self, expression: str) -> Sequence[Series]:
        self.asked.append(expression)
        return self.found


async def test_queries_of_usage() -> None:
    port = _Port(Series({"pod": "a"}, 0.25, 1735689600.0), Series({}, 9.0, 0.0), Series({"pod": "b"}, float("nan"), 0))
    found = await PrometheusMetrics(port).resource("n", "cpu", _NOTHING, ["b", "a.x"], "c")
    assert found == {"a": Sample(250, _MOMENT, 60.0)}
    (asked,) = port.asked
    assert 'namespace="n",pod=~"a\\\\.x|b"' in asked
    assert ',container="c"}' in asked
    with pytest.raises(MetricsError, match="no query for resource/gpu"):
        await PrometheusMetrics(port).resource("n", "gpu", _NOTHING, [])


async def test_queries_of_other_metrics() -> None:
    port = _Port(Series({"pod": "a"}, 1.5, 0.0), Series({"pod": "b"}, 2.0, 0.0))
    source = PrometheusMetrics(port, {"external/queue.length": "max(queue{<onlylabels>})"})
    assert await source.external("n", "jobs", parse("q in (a,b),!x,y!=z")) == [1500, 2000]
    assert port.asked[-1] == 'jobs{q=~"a|b",x="",y!~"z"}'
    await source.external("n", "queue.length", _NOTHING)
    assert port.asked[-1] == "max(queue{})"
    service = CrossVersionObjectReference(api_version="v1", kind="Service", name='s"')
    assert await source.of_object("n", "hits", service, _NOTHING) == 1500
    assert port.asked[-1] == 'sum (hits{namespace="n",service="s\\""})'
    assert set(await source.of_pods("n", "rps", _NOTHING, ["a"], _NOTHING)) == {"a", "b"}
    with pytest.raises(MetricsError, match="is no name of a metric"):
        await source.external("n", "a} or vector(1) #", _NOTHING)


async def test_the_http_port() -> None:
    result = [{"metric": {"pod": "a"}, "value": [1735689600, "0.5"]}]
    server = _Server({"/api/v1/query": {"status": "success", "data": {"resultType": "vector", "result": result}}})
    assert await HttpQueries(server).query("up") == [Series({"pod": "a"}, 0.5, 1735689600.0)]
    assert parse_qs(urlsplit(server.asked[0]).query) == {"query": ["up"]}
    refusing = _Server({"/api/v1/query": {"status": "error", "error": "bad expression"}})
    with pytest.raises(MetricsError, match="query up: bad expression"):
        await HttpQueries(refusing).query("up")
    with pytest.raises(MetricsError, match="query up: "):
        await HttpQueries(_Server({})).query("up")


async def test_the_first_that_has_a_metric_gives_it() -> None:
    source, _ = _api({})
    port = _Port(Series({"pod": "a"}, 1.0, 0.0))
    both = AnyOf(source, PrometheusMetrics(port))
    assert await both.external("n", "queue", _NOTHING) == [1000]
    assert set(await both.resource("n", "cpu", _NOTHING, ["a"])) == {"a"}
    assert set(await both.of_pods("n", "rps", _NOTHING, ["a"], _NOTHING)) == {"a"}
    service = CrossVersionObjectReference(api_version="v1", kind="Namespace", name="s")
    assert await both.of_object("n", "hits", service, _NOTHING) == 1000
    with pytest.raises(MetricsError, match="external metrics API"):
        await AnyOf(source, PrometheusMetrics(_Port())).external("n", "queue", _NOTHING)
