"""The controller of analysis runs on an API server: secrets, providers, writes, ends."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web

from pilothouse.client import Client
from pilothouse.delivery.analysis import traffic as traffic_provider
from pilothouse.delivery.analysis.reconciler import add_analyses
from pilothouse.delivery.resources.analyses import AnalysisRun, Measurement
from pilothouse.delivery.resources.installing import install_kinds
from pilothouse.kinds.structs import Event, Job, Secret, from_dict
from pilothouse.operator import Manager
from pilothouse.testing import ControlPlane

DEADLINE = 30.0


@dataclass
class Window:
    """What fake numbers say of a window."""

    requests: int = 0
    errors: int = 0
    p95: float = 0.1

    def slower(self, seconds: float) -> int:
        return self.requests if self.p95 > seconds else 0


@dataclass
class FakeNumbers:
    """Answers each second of a version as told."""

    canary: Callable[[int], Window] = lambda seconds: Window(150 * seconds)
    stable_errors: int = 0
    later: int = 0
    asked: list[tuple[int, str, str, Sequence[str]]] = field(default_factory=list)

    def last(self) -> tuple[int, float]:
        now = time.monotonic()
        return int(now) - 1 + self.later, 1 - now % 1

    def over(self, seconds: int, last: int, *, route: str, version: str, regions: Sequence[str]) -> Window:
        assert last <= self.last()[0]
        self.asked.append((seconds, route, version, tuple(regions)))
        return self.canary(seconds) if version == "canary" else Window(450 * seconds, self.stable_errors * seconds)


@contextlib.asynccontextmanager
async def running(numbers: FakeNumbers | None = None) -> AsyncIterator[Client]:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_kinds(client)
        manager = Manager(client)
        add_analyses(manager, numbers)
        async with manager:
            yield client


async def made(client: Client, name: str, *metrics: dict[str, Any], **spec: Any) -> None:
    run = {"metadata": {"name": name, "namespace": "default"}, "spec": {"metrics": list(metrics), **spec}}
    await client.create(from_dict(run, AnalysisRun))


async def until(client: Client, name: str, wanted: Callable[[AnalysisRun], bool]) -> AnalysisRun:
    async with asyncio.timeout(DEADLINE):
        async for event in client.watch(AnalysisRun, "default"):
            if event.object.metadata.name == name and wanted(event.object):
                return event.object
    raise AssertionError(f"the watch ended before {name} was as wanted")


def over(run: AnalysisRun) -> bool:
    return bool(run.status.completed_at)


def traffic(**config: Any) -> dict[str, Any]:
    plugin = {"pilothouse.dev/traffic": {"route": "shop", "canary": "canary", "stable": "stable", **config}}
    return {"name": "traffic", "provider": {"plugin": plugin}}


async def test_a_bad_version_is_failed_by_the_numbers_of_the_data_plane() -> None:
    numbers = FakeNumbers(lambda seconds: Window(150 * seconds, 15 * seconds))
    async with running(numbers) as client:
        await made(client, "bad", traffic(regions=["cn-east"]))
        run = await until(client, "bad", over)
    assert run.status.phase == "Failed"
    assert run.status.message == (
        'Metric "traffic" assessed Failed due to 15 of 150 answers are errors (10.00%, limit 0.30%); '
        "of the stable version 0.00%; failed (1) > failureLimit (0)"
    )
    assert (5, "default/shop", "stable", ("cn-east",)) in numbers.asked
    # what the canary's service got before the run began was another version's
    assert max(each[0] for each in numbers.asked if each[2] == "canary") == 1


async def test_a_healthy_version_succeeds_after_its_time_and_background_analysis_when_it_is_ended() -> None:
    async with running(FakeNumbers()) as client:
        await made(client, "timed", traffic(**{"for": "1s"}))
        await made(client, "background", traffic())
        assert (await until(client, "timed", over)).status.phase == "Successful"
        found = await until(client, "background", lambda run: run.status.phase == "Running")
        assert found.status.metric_results[0].measurements[0].message is not None
        await client.patch(AnalysisRun, "background", {"spec": {"terminate": True}}, "default")
        assert (await until(client, "background", over)).status.phase == "Successful"


async def test_thin_traffic_is_inconclusive_and_says_so() -> None:
    async with running(FakeNumbers(lambda _: Window(3))) as client:
        await made(client, "thin", traffic(**{"for": "1s"}))
        run = await until(client, "thin", over)
    assert run.status.phase == "Inconclusive"
    assert "thin traffic: 3 requests within 60 s, 50 are wanted" in str(run.status.message)


async def test_thin_traffic_in_background_is_inconclusive_after_its_time_and_when_it_is_ended() -> None:
    async with running(FakeNumbers(lambda _: Window(3))) as client:
        await made(client, "thin", traffic(inconclusiveAfter="1s"))
        await made(client, "ended", traffic())
        await made(client, "never", traffic(inconclusiveAfter="0"))
        thin = await until(client, "thin", over)
        looked = [await until(client, name, lambda run: bool(run.status.metric_results)) for name in ("ended", "never")]
        assert [run.status.phase for run in looked] == ["Running", "Running"]
        await client.patch(AnalysisRun, "ended", {"spec": {"terminate": True}}, "default")
        ended = await until(client, "ended", over)
        async with asyncio.timeout(DEADLINE):
            async for event in client.watch(Event, "default"):
                if event.object.reason == "AnalysisRunInconclusive":
                    break
    assert (thin.status.phase, ended.status.phase) == ("Inconclusive", "Inconclusive")
    assert "3 requests within 60 s, 50 are wanted for a verdict, and so it was for " in str(thin.status.message)
    assert event.object.type == "Warning"
    assert event.object.message in {thin.status.message, ended.status.message}


async def test_thin_traffic_counts_from_the_first_request_and_beyond_the_end_of_a_process() -> None:
    numbers = FakeNumbers(lambda _: Window(0))
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    run = from_dict({"metadata": {"name": "run", "uid": "u"}, "spec": {"metrics": [traffic()]}}, AnalysisRun)
    (metric,) = run.spec.metrics
    begun = Measurement(phase="Running", started_at="2026-01-01T00:00:00Z")
    provider = traffic_provider.TrafficProvider(numbers)
    waits = await provider.measure(run, metric, begun, begin + timedelta(hours=1))
    assert (waits.phase, "thinSince" in waits.metadata) == ("Running", False)
    numbers.canary = lambda _: Window(3)
    numbers.later = 1
    first = await provider.measure(run, metric, waits, begin + timedelta(hours=2))
    assert (first.phase, first.metadata["thinSince"]) == ("Running", "2026-01-01T02:00:00.000000Z")
    after = begin + timedelta(hours=2, minutes=2)
    again = await traffic_provider.TrafficProvider(numbers).measure(run, metric, first, after)
    assert again.phase == "Inconclusive"
    assert again.message == (
        "thin traffic: 3 requests within 60 s, 50 are wanted for a verdict, and so it was for 120 s"
    )
    numbers.canary, numbers.later = lambda seconds: Window(50 * seconds), 2
    enough = await provider.measure(run, metric, first, after)
    assert (enough.phase, "thinSince" in enough.metadata) == ("Running", False)


async def test_a_common_outage_is_an_event_and_no_verdict() -> None:
    numbers = FakeNumbers(lambda seconds: Window(150 * seconds, 15 * seconds), stable_errors=45)
    async with running(numbers) as client:
        await made(client, "outage", traffic())
        async with asyncio.timeout(DEADLINE):
            async for event in client.watch(Event, "default"):
                if event.object.reason == "CommonOutage":
                    break
        run = await client.get(AnalysisRun, "outage", "default")
    assert event.object.message == (
        "Metric 'traffic': common outage, for which the new version is not blamed: 10.00% errors (limit 0.30%), of the"
        " stable version 10.00%"
    )
    assert run.status.phase == "Running"
    assert run.status.metric_results[0].measurements[-1].metadata["commonOutage"] == "true"


@pytest.mark.parametrize(
    ("provider", "message"),
    [
        ({"plugin": {"pilothouse.dev/traffic": {"route": "x", "canary": "y", "errors": "much"}}}, "could not convert"),
        ({"plugin": {"pilothouse.dev/traffic": {"route": "x", "canary": "y", "for": "soon"}}}, "invalid duration"),
        (
            {"plugin": {"pilothouse.dev/traffic": {"route": "x", "canary": "y", "longWindow": "6m"}}},
            "300 s are the most",
        ),
        ({"plugin": {"pilothouse.dev/traffic": {"canary": "y"}}}, "missing required field `route`"),
        ({"plugin": {"pilothouse.dev/traffic": {"route": "x", "canary": "y", "odd": 1}}}, "unknown field `odd`"),
        ({"plugin": {"other/one": {}}}, "provider 'plugin/other/one' is not there"),
        ({"datadog": {"query": "x"}}, "provider 'datadog' is not there; there are job, "),
        ({}, "name one, not 0"),
    ],
)
async def test_what_cannot_be_measured_is_said(provider: dict[str, Any], message: str) -> None:
    async with running(FakeNumbers()) as client:
        await made(client, "odd", {"name": "m", "provider": provider, "interval": "1s", "consecutiveErrorLimit": 0})
        run = await until(client, "odd", over)
    assert run.status.phase == "Error"
    assert message in str(run.status.metric_results[0].measurements[0].message)


@contextlib.asynccontextmanager
async def server(handler: Callable[[web.Request], Any]) -> AsyncGenerator[str, None]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


async def test_web_and_prometheus_with_arguments_out_of_secrets_which_are_never_written() -> None:
    seen: list[tuple[str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append((request.path, request.headers.get("Authorization")))
        if request.path == "/api/v1/query":
            assert request.query["query"] == 'rate(errors{app="shop"}[1m])'
            return web.json_response(
                {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, "0.2"]}]}}
            )
        return web.json_response({"data": {"ok": True, "parts": [1, 2]}})

    async with running() as client, server(answer) as url:
        secret = {
            "metadata": {"name": "token", "namespace": "default"},
            "data": {"t": base64.b64encode(b"s3cret").decode()},
        }
        await client.create(from_dict(secret, Secret))
        query = {"address": url, "query": 'rate(errors{app="{{args.app}}"}[1m])'}
        await made(
            client,
            "both",
            {
                "name": "web",
                "successCondition": "result.ok && len(result.parts) == 2",
                "provider": {
                    "web": {
                        "url": f"{url}/look?key={{{{args.token}}}}",
                        "jsonPath": "{$.data}",
                        "headers": [{"key": "Authorization", "value": "Bearer {{args.token}}"}],
                    }
                },
            },
            {"name": "prom", "failureCondition": "result[0] > 0.5", "provider": {"prometheus": query}},
            args=[
                {"name": "app", "value": "shop"},
                {"name": "token", "valueFrom": {"secretKeyRef": {"name": "token", "key": "t"}}},
            ],
        )
        run = await until(client, "both", over)
        raw = await client.get(AnalysisRun, "both", "default", raw=True)
    assert (run.status.phase, run.status.message) == ("Successful", None)
    assert [each.measurements[0].value for each in run.status.metric_results] == ['{"ok":true,"parts":[1,2]}', "[0.2]"]
    assert ("/look", "Bearer s3cret") in seen
    assert b"s3cret" not in raw


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (500, "{}", "status 500"),
        (200, "no json", "the answer is no JSON"),
        (200, "[" + "1," * 600_000 + "1]", "longer than 1048576 bytes"),
    ],
)
async def test_a_server_that_answers_badly_is_an_error_without_its_secrets(status: int, body: str, why: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    async with running() as client, server(answer) as url:
        metric = {"name": "m", "consecutiveErrorLimit": 0, "provider": {"web": {"url": f"{url}/x?key=s3cret"}}}
        await made(client, "bad", metric)
        run = await until(client, "bad", over)
    message = str(run.status.message)
    assert run.status.phase == "Error"
    assert why in message
    assert "s3cret" not in message


async def test_a_job_measures() -> None:
    async with running() as client:
        spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "img:1"}]}}}
        await made(client, "jobs", {"name": "m", "provider": {"job": {"spec": spec}}})
        run = await until(client, "jobs", lambda run: bool(run.status.metric_results))
        job = await client.get(Job, run.status.metric_results[0].measurements[0].metadata["job-name"], "default")
        assert job.metadata.owner_references[0].name == "jobs"
        done = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        criteria = {**done, "type": "SuccessCriteriaMet"}
        status = {"conditions": [criteria, done], "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:01Z", "succeeded": 1, "uncountedTerminatedPods": {}}  # fmt: skip  # noqa: E501
        await client.patch(Job, job.metadata.name, {"status": status}, "default", subresource="status")
        assert (await until(client, "jobs", over)).status.phase == "Successful"


async def test_a_missing_secret_ends_a_run_with_the_reason() -> None:
    async with running() as client:
        source = {"secretKeyRef": {"name": "nothere", "key": "t"}}
        metric = {"name": "m", "provider": {"web": {"url": "http://127.0.0.1:1/{{args.t}}"}}}
        await made(client, "poor", metric, args=[{"name": "t", "valueFrom": source}])
        run = await until(client, "poor", over)
    assert (run.status.phase, run.status.message) == ("Error", "argument 't': secret 'nothere' is not there")


async def test_a_run_is_deleted_when_its_time_to_live_is_over() -> None:
    async with running(FakeNumbers()) as client:
        await made(client, "short", traffic(**{"for": "1s"}), ttlStrategy={"secondsAfterCompletion": 0})
        async with asyncio.timeout(DEADLINE):
            async for event in client.watch(AnalysisRun, "default"):
                if event.type == "DELETED":
                    break


async def test_what_is_remembered_of_runs_is_bounded_and_a_run_that_was_dropped_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traffic_provider, "_MOST_RUNS", 2)
    provider = traffic_provider.TrafficProvider(FakeNumbers(lambda seconds: Window(150 * seconds, 2 * seconds)))
    now = datetime(2026, 1, 1, tzinfo=UTC)
    spec = {"metrics": [traffic()]}
    runs = [from_dict({"metadata": {"name": "run", "uid": str(n)}, "spec": spec}, AnalysisRun) for n in range(3)]
    begun = Measurement(phase="Running", started_at="2025-12-31T23:59:00Z")
    started = [await provider.measure(run, run.spec.metrics[0], begun, now) for run in runs]
    assert len(provider._sessions) == 2
    again = await provider.measure(runs[0], runs[0].spec.metrics[0], started[0], now)
    before, after = (json.loads(each.metadata["judge"])["errors"] for each in (started[0], again))
    assert all(later > earlier for earlier, later in zip(before, after, strict=True))
    assert len(provider._sessions) == 2
