"""A request's way through the server: the order of the steps, codes, warnings, limits, time, health and metrics."""

from __future__ import annotations

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pilothouse.apiserver.audit import AuditPolicy
from pilothouse.apiserver.flow import Limits
from pilothouse.apiserver.model import User
from pilothouse.foundation.clock import FakeClock
from pilothouse.store.errors import NoSpace, Timeout, TooManyRequests, Unavailable
from support.apiserverkit import Api, Reply, api_server, config_map, memory_store, until

MAPS = "/api/v1/namespaces/default/configmaps"
EVE = User("eve", groups=("system:authenticated",))
EVERYTHING = AuditPolicy.from_dict(
    {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}
)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with api_server() as found:
        yield found


class TestOrder:
    async def test_who_asks_comes_before_what_is_asked(self, api: Api) -> None:
        stranger = api.as_user(None)
        wrong = [("authorization", "Bearer wrong")]
        assert (await stranger.get("/apis/none/v1/nothing", headers=wrong)).status == 401
        assert (await stranger.post(MAPS, b"{", headers=wrong)).status == 401
        assert (await stranger.get(MAPS, headers=[*wrong, ("impersonate-user", "x")])).status == 401

    async def test_whether_they_may_comes_before_what_is_wrong_with_it(self, api: Api) -> None:
        eve = api.as_user(EVE)
        assert (await eve.post(MAPS, b"{")).status == 403
        assert (await eve.get("/apis/none/v1/nothing")).status == 403
        assert (await eve.get(f"{MAPS}/none")).status == 403
        assert (await eve.call("PATCH", f"{MAPS}/a", b"{", content_type="text/plain")).status == 403

    async def test_for_whom_comes_before_whether_they_may(self, api: Api) -> None:
        reply = await api.as_user(EVE).get(MAPS, headers=[("impersonate-user", "bob")])
        assert reply.status == 403
        assert 'User "eve" cannot impersonate' in reply.message

    async def test_audit_sees_all_of_them(self, tmp_path: Path) -> None:
        log = tmp_path / "audit.log"
        async with api_server(audit_log=str(log), audit_policy=EVERYTHING) as api:
            await api.as_user(EVE).get(MAPS)
            await api.as_user(EVE).get(f"{MAPS}/%2e%2e/x")
            watcher = await api.watch(MAPS)
            await until(lambda: api.server.watching.running == 1)
            await watcher.close()
        events = [json.loads(line) for line in log.read_text().splitlines()]
        ends = [(each["requestURI"], each["stage"], each["responseStatus"]["code"]) for each in events
                if each["stage"] == "ResponseComplete" and each["user"]["username"] in {"eve", "admin"}]  # fmt: skip
        assert ends == [
            (MAPS, "ResponseComplete", 403),
            (f"{MAPS}/%2e%2e/x", "ResponseComplete", 404),
            (f"{MAPS}?watch=1", "ResponseComplete", 200),
        ]


class TestCodes:
    @pytest.mark.parametrize(
        ("method", "path", "content_type", "accept", "status", "reason"),
        [
            ("GET", "/api/v1/nothing", "", "", 404, ""),
            ("GET", "/apis/nothing/v1/x", "", "", 404, ""),
            ("POST", f"{MAPS}/a", "application/json", "", 405, "MethodNotAllowed"),
            ("PUT", MAPS, "application/json", "", 405, "MethodNotAllowed"),
            ("PATCH", MAPS, "application/merge-patch+json", "", 405, "MethodNotAllowed"),
            ("DELETE", "/api/v1/namespaces", "", "", 405, "MethodNotAllowed"),
            ("POST", "/api/v1/configmaps", "application/json", "", 405, "MethodNotAllowed"),
            ("GET", MAPS, "", "image/png", 406, "NotAcceptable"),
            ("POST", MAPS, "text/plain", "", 415, "UnsupportedMediaType"),
            ("PATCH", f"{MAPS}/a", "application/json", "", 415, "UnsupportedMediaType"),
        ],
    )
    async def test_refusals(
        self, api: Api, method: str, path: str, content_type: str, accept: str, status: int, reason: str
    ) -> None:
        headers = [("accept", accept)] if accept else []
        body = b"{}" if method in {"POST", "PUT", "PATCH"} else None
        reply = await api.call(method, path, body, content_type=content_type or "application/json", headers=headers)
        assert reply.status == status
        if reply.raw.startswith(b"{"):
            assert reply.reason in {reason, "NotFound"}

    async def test_bodies_over_three_mebibytes(self, api: Api) -> None:
        reply = await api.post(MAPS, b" " * (3 * 1024 * 1024 + 1))
        assert (reply.status, reply.reason) == (413, "RequestEntityTooLarge")

    async def test_failures_of_our_own_are_told_without_details_of_the_machine(
        self, api: Api, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(api.server.router, "route", broken)
        reply = await api.get(MAPS)
        assert (reply.status, reply.reason) == (500, "InternalError")
        assert "Traceback" not in reply.raw.decode()


async def test_warnings_come_as_headers_each_once(api: Api) -> None:
    body = {**config_map("a"), "unknown": 1, "other": 2}
    reply = await api.post(f"{MAPS}?fieldValidation=Warn", body)
    assert sorted(reply.warnings) == ['299 - "unknown field \\"other\\""', '299 - "unknown field \\"unknown\\""']
    assert (await api.put(f"{MAPS}/a?fieldValidation=Ignore", body)).warnings == []
    assert (await api.put(f"{MAPS}/a?fieldValidation=Strict", body)).status == 400


async def test_large_answers_are_compressed_for_those_who_take_it(api: Api) -> None:
    wants = [("accept-encoding", "gzip")]
    await api.made(MAPS, config_map("small"))
    assert (await api.get(MAPS, headers=wants)).header("content-encoding") == ""
    for number in range(3):
        await api.made(MAPS, config_map(f"large{number}", {"x": "y" * 60_000}))
    plain, packed = await api.get(MAPS), await api.get(MAPS, headers=wants)
    assert packed.header("content-encoding") == "gzip"
    assert len(packed.raw) < len(plain.raw) / 10
    assert gzip.decompress(packed.raw) == plain.raw
    for number in range(300):
        await api.made(MAPS, config_map(f"many{number}"))
    plain, packed = await api.get(MAPS), await api.get(MAPS, headers=wants)
    assert packed.header("content-encoding") == "gzip"
    assert gzip.decompress(packed.raw) == plain.raw
    watcher = await api.watch(MAPS, wants)
    assert (await watcher.next() or {})["type"] == "ADDED"
    await watcher.close()


async def test_too_many_at_once_wait_and_then_are_refused() -> None:
    limits = Limits(requests=2, mutating=2)
    async with api_server(limits=limits) as api:
        gate = asyncio.Event()
        original = api.server.storage.create

        async def held(*args: Any, **options: Any) -> Any:
            await gate.wait()
            return await original(*args, **options)

        api.server.storage.create = held  # type: ignore[method-assign]
        eve = User("eve", groups=("system:authenticated",))
        await allow_everything(api, gate, "eve")
        asked = [asyncio.create_task(api.as_user(eve).post(MAPS, config_map(f"c{number}"))) for number in range(3000)]
        await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
        refused = [task.result() for task in asked if task.done()]
        assert refused
        assert {reply.status for reply in refused} == {429}
        assert all(reply.header("retry-after") for reply in refused)
        gate.set()
        replies = await asyncio.gather(*asked)
        assert {reply.status for reply in replies} == {201, 429}


async def test_those_who_go_leave_nothing_but_a_line_in_the_audit(tmp_path: Path) -> None:
    """Requests are called off at any point of their way: seats, addresses and audit are as they should be."""
    rng, log = random.Random(3), tmp_path / "audit.log"
    limits = Limits(requests=4, mutating=4)
    services = "/api/v1/namespaces/default/services"
    async with api_server(limits=limits, audit_log=str(log), audit_policy=EVERYTHING) as api:
        for turn in range(20):
            bodies = [
                {"metadata": {"name": f"s{turn}-{n}"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
                for n in range(8)
            ]
            tasks = [asyncio.create_task(api.post(services, body)) for body in bodies]
            for _ in range(rng.randrange(30)):
                await asyncio.sleep(0)
            for task in tasks:
                if rng.random() < 0.8:
                    task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        made = (await api.get(services)).body["items"]
        assert len(made) >= 20
        assert len({one["spec"]["clusterIP"] for one in made}) == len(made)
        assert len({one["spec"]["ports"][0]["nodePort"] for one in made}) == len(made)
        for _ in range(2):
            told = await api.server.allocator.repair()
            assert all("was taken by nobody" in line for line in told), told
        assert await api.server.allocator.repair() == []
        replies = await asyncio.wait_for(asyncio.gather(*(api.get(services) for _ in range(50))), 20)
        assert {reply.status for reply in replies} == {200}
    events = [json.loads(line) for line in log.read_text().splitlines()]
    ended = {event["auditID"] for event in events if event["stage"] == "ResponseComplete"}
    assert {event["auditID"] for event in events} == ended


async def allow_everything(api: Api, gate: asyncio.Event, name: str) -> None:
    group = "rbac.authorization.k8s.io"
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "User", "apiGroup": group, "name": name}],
    }
    gate.set()
    await api.made(f"/apis/{group}/v1/clusterrolebindings", binding)
    gate.clear()


async def test_what_takes_too_long_is_ended(api: Api) -> None:
    api.server.pipeline.seconds = 0.02
    stuck = asyncio.Event()

    async def never(*_: Any, **__: Any) -> Any:
        await stuck.wait()

    api.server.storage.create = never  # type: ignore[method-assign]
    reply = await api.post(MAPS, config_map("a"))
    assert (reply.status, reply.reason) == (504, "Timeout")
    assert "request did not complete within the allotted timeout" in reply.message
    watcher = await api.watch(MAPS)
    await asyncio.sleep(0.05)
    assert api.server.watching.running == 1, "watches are not ended by it"
    await watcher.close()


class Failing:
    """Lets writes to the store fail as told."""

    def __init__(self, api: Api) -> None:
        self.error: Exception | None = None
        self._submit = api.server.storage._submit
        api.server.storage._submit = self.submit

    def submit(self, request: Any) -> Any:
        if self.error is None:
            return self._submit(request)
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        failed.set_exception(self.error)
        return failed


class TestHealth:
    async def test_a_server_that_has_started_is_well(self, api: Api) -> None:
        for path in ("/healthz", "/livez", "/readyz", "/readyz/ping", "/readyz/store"):
            reply = await api.get(path)
            assert (reply.status, reply.raw) == (200, b"ok"), path
        listed = (await api.get("/readyz?verbose")).raw.decode()
        assert "[+]store ok" in listed
        assert listed.endswith("readyz check passed\n")
        left_out = (await api.get("/readyz?verbose&exclude=store&exclude=none")).raw.decode()
        assert "[+]store excluded: ok" in left_out
        assert 'no matches for "none"' in left_out
        assert (await api.get("/readyz/none")).status == 404

    async def test_it_is_not_ready_before(self) -> None:
        async with api_server(ready=False) as api:
            reply = await api.get("/readyz")
            assert reply.status == 500
            assert b"[-]poststarthook/rbac/bootstrap-roles failed: reason withheld" in reply.raw
            await until(lambda: not api.server.background.pending)
            assert (await api.get("/readyz")).status == 200

    @pytest.mark.parametrize(
        ("error", "status"), [(NoSpace("no space"), 507), (Unavailable("gone"), 503), (Timeout("late"), 503)]
    )
    async def test_a_store_that_refuses_is_told_by_name(self, error: Exception, status: int) -> None:
        store = await memory_store()
        async with api_server(store) as api:
            await api.made(MAPS, config_map("a"))
            failing = Failing(api)
            failing.error = error
            reply = await api.post(MAPS, config_map("b"))
            assert reply.status == status
            assert reply.body["kind"] == "Status"
            assert (await api.merge(f"{MAPS}/a", {"data": {"x": "y"}})).status == status
            assert (await api.delete(f"{MAPS}/a")).status == status
            assert next(one["metadata"]["name"] for one in (await api.get(MAPS)).body["items"]) == "a"
            ready = await api.get("/readyz")
            assert ready.status == 500
            assert b"[-]store failed: reason withheld" in ready.raw
            assert b"no space" not in ready.raw
            failing.error = None
            assert (await api.post(MAPS, config_map("b"))).status == 201
            assert (await api.get("/readyz")).status == 200
        await store.close()

    async def test_one_that_is_busy_asks_to_come_again(self) -> None:
        store = await memory_store()
        async with api_server(store) as api:
            Failing(api).error = TooManyRequests("busy")
            reply = await api.post(MAPS, config_map("b"))
            assert (reply.status, reply.header("retry-after")) == (429, "1")
        await store.close()

    async def test_it_is_ready_again_though_nobody_writes(self) -> None:
        """A load balancer sends nothing to a server that is not ready, so readiness must not wait for a write."""
        store, clock = await memory_store(), FakeClock(datetime(2026, 1, 1, tzinfo=UTC))
        async with api_server(store, clock=clock) as api:
            failing = Failing(api)
            failing.error = NoSpace("no space")
            assert (await api.post(MAPS, config_map("b"))).status == 507
            assert (await api.get("/readyz")).status == 500
            failing.error = None
            clock.advance(31)
            assert (await api.get("/readyz")).status == 200
        await store.close()

    async def test_a_real_store_that_is_full(self) -> None:
        store = await memory_store(quota_bytes=3_000_000)
        async with api_server(store) as api:
            replies: list[Reply] = []
            for number in range(40):
                replies.append(await api.post(MAPS, config_map(f"c{number}", {"x": "y" * 200_000})))
                if replies[-1].status != 201:
                    break
            assert replies[-1].status == 507
            assert (await api.get(f"{MAPS}/c0")).status == 200
            assert (await api.get("/readyz")).status == 500
        await store.close()


class TestMetrics:
    async def test_requests_are_counted_by_kind_and_code(self, api: Api) -> None:
        await api.made(MAPS, config_map("a"))
        await api.get(f"{MAPS}/a")
        await api.get(f"{MAPS}/none")
        text = (await api.get("/metrics")).raw.decode()
        assert 'code="404"' in text
        lines = [line for line in text.splitlines() if line.startswith("pilothouse_apiserver_requests_total{")]
        found = [line for line in lines if 'resource="configmaps"' in line and 'verb="create"' in line]
        assert len(found) == 1

    async def test_what_clients_make_up_is_bounded(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pilothouse.apiserver.requestmetrics._KINDS", 200)
        for number in range(300):
            await api.get(f"/apis/made-up/v{number}/thing{number}")
        text = (await api.get("/metrics")).raw.decode()
        lines = [line for line in text.splitlines() if line.startswith("pilothouse_apiserver_requests_total{")]
        assert len(lines) <= 201
        assert any('resource="other"' in line for line in lines)
