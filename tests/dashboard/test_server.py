"""What the dashboard answers: login, rights, streams and buttons, without a browser and without sockets to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pilothouse.apiserver.model import Peer, Request, Response, StreamingResponse
from pilothouse.client import ClientConfig
from pilothouse.dashboard.logins import Logins
from pilothouse.dashboard.operating import Comparing
from pilothouse.dashboard.sessions import COOKIE, Sessions
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.ids import SystemIds
from support.dashboardkit import ADMIN, ROLLOUTS, STRANGER, VIEWER, Helm, helm, rollout_at

SITE = {"host": "dash.example", "origin": "https://dash.example"}


@pytest.fixture
async def bare() -> AsyncIterator[Helm]:
    async with helm(full=False) as found:
        yield found


@pytest.fixture
async def full() -> AsyncIterator[Helm]:
    async with helm() as found:
        yield found


async def ask(
    found: Helm, method: str, target: str, body: object = None, *, peer: str = "127.0.0.1", **headers: str
) -> Any:
    sent = {name.replace("_", "-"): value for name, value in {**SITE, **headers}.items() if value}
    path, _, query = target.partition("?")
    data = b"" if body is None else msgspec.json.encode(body)
    answer = found.dashboard.handle(Request(method, target, path, query, sent, data, Peer(peer)))
    return answer if isinstance(answer, Response | StreamingResponse) else await answer  # type: ignore[misc]


async def login(found: Helm, token: str) -> dict[str, str]:
    answer = await ask(found, "POST", "/api/login", {"credentials": token})
    assert answer.status == 200, answer.body
    (cookie,) = (value for name, value in answer.headers if name == "Set-Cookie")
    assert cookie.endswith("; Path=/; Secure; HttpOnly; SameSite=Strict")
    return {"cookie": cookie.partition(";")[0], "x_csrf_token": msgspec.json.decode(answer.body)["csrf"]}


class Ear:
    """Hears a stream."""

    def __init__(self) -> None:
        self.heard = asyncio.Queue[bytes]()
        self.closed = False

    def write(self, data: bytes) -> None:
        self.heard.put_nowait(data)

    async def drain(self) -> None:
        return

    async def event(self, *names: str) -> Any:
        """Return the next event of one of these names."""
        async with asyncio.timeout(20):
            while True:
                lines = (await self.heard.get()).decode().splitlines()
                if {f"event: {name}" for name in names} & {*lines}:
                    return msgspec.json.decode(next(each for each in lines if each.startswith("data: "))[6:])


async def listen(answer: StreamingResponse) -> tuple[Ear, asyncio.Task[None]]:
    ear: Any = Ear()
    return ear, asyncio.create_task(answer.run(ear))


async def test_nothing_without_login(bare: Helm) -> None:
    assert (await ask(bare, "GET", "/api/session")).body == b'{"user":""}'
    for target in ("/api/pages/overview/*", "/api/logs/a/b", "/api/pods/a/b", "/api/rights/logs/a", "/api/else"):
        assert (await ask(bare, "GET", target)).status == 401
        assert (await ask(bare, "GET", target, cookie=f"{COOKIE}=guess")).status == 401
    assert (await ask(bare, "POST", "/api/rollouts/a/b/abort")).status == 401


@pytest.mark.parametrize(
    ("given", "said"), [("wrong", "does not know"), ("", "nothing was given"), ("a b", "no bearer")]
)
async def test_a_login_that_is_refused(bare: Helm, given: str, said: str) -> None:
    answer = await ask(bare, "POST", "/api/login", {"credentials": given})
    assert answer.status in {400, 401}
    assert said in msgspec.json.decode(answer.body)["error"]
    assert not [name for name, _ in answer.headers if name == "Set-Cookie"]
    assert len(bare.dashboard.sessions) == 0


async def test_a_service_accounts_token_and_a_kubeconfig_are_taken(bare: Helm) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await bare.plane.call("POST", accounts, {"metadata": {"name": "robot"}})
    made = await bare.plane.call("POST", f"{accounts}/robot/token", {"spec": {}})
    auth = await login(bare, made["status"]["token"])
    told = msgspec.json.decode((await ask(bare, "GET", "/api/session", **auth)).body)
    assert (told["user"], told["namespace"]) == ("system:serviceaccount:default:robot", "default")
    auth = await login(bare, await asyncio.to_thread(Path(bare.plane.kubeconfig).read_text))
    told = msgspec.json.decode((await ask(bare, "GET", "/api/session", **auth)).body)
    assert (told["user"], told["namespace"]) == ("kubernetes-admin", "*")


async def test_changes_want_the_pages_own_secret_and_origin(bare: Helm) -> None:
    auth = await login(bare, ADMIN)
    for wrong in ({"x_csrf_token": "x"}, {"x_csrf_token": ""}, {"origin": "https://evil.example"}, {"origin": ""}):
        answer = await ask(bare, "POST", "/api/logout", **{**auth, **wrong})
        assert answer.status == 403
    assert (await ask(bare, "POST", "/api/logout", **auth)).status == 200
    assert (await ask(bare, "GET", "/api/rights/logs/a", **auth)).status == 401


async def test_headers_of_pages_and_files(bare: Helm) -> None:
    page = await ask(bare, "GET", "/rollouts/shop/checkout")
    headers = dict(page.headers)
    assert page.status == 200
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert b"style=" not in page.body
    assert b" on" not in page.body.replace(b" one", b"")
    assert b"<script>" not in page.body
    script = await ask(bare, "GET", "/static/js/main.js")
    tag = dict(script.headers)["ETag"]
    assert (await ask(bare, "GET", "/static/js/main.js", if_none_match=tag)).status == 304
    assert (
        dict((await ask(bare, "GET", "/static/js/main.js", accept_encoding="gzip")).headers)["Content-Encoding"]
        == "gzip"
    )
    for target in ("/static/../server.py", "/static/none.js", "/static/%2e%2e/server.py"):
        assert (await ask(bare, "GET", target)).status == 404
    assert dict((await ask(bare, "GET", "/api/session")).headers)["Cache-Control"] == "no-store"


async def test_a_session_that_is_over_ends_its_pages(bare: Helm) -> None:
    clock = FakeClock()
    bare.dashboard.sessions = Sessions(clock, SystemIds(), most_seconds=60)
    auth = await login(bare, ADMIN)
    ear, running = await listen(await ask(bare, "GET", "/api/pages/overview/*", **auth))
    await ear.event("reset")
    clock.advance(61)
    await bare.plane.call("POST", "/api/v1/namespaces", {"metadata": {"name": "ring"}})
    await ear.event("over")
    await running


async def test_what_a_user_may_not_see_is_said(full: Helm) -> None:
    auth = await login(full, STRANGER)
    ear, running = await listen(await ask(full, "GET", "/api/pages/overview/shop", **auth))
    while True:
        heard = await ear.event("reset", "change")
        problems = heard.get("set", {}).get("about", {}).get("problems", ())
        if {each["what"] for each in problems} >= {"rollouts", "deployments"}:
            break
    assert all(each["state"] == "refused" and "sam@elsewhere.example" in each["text"] for each in problems)
    running.cancel()
    verbs = msgspec.json.decode((await ask(full, "GET", "/api/rights/rollouts/shop", **auth)).body)
    assert verbs["verbs"]["abort"] == "you may not patch rollouts/status in shop"


async def rights(found: Helm, kind: str, namespace: str, auth: dict[str, str]) -> dict[str, str]:
    answer = await ask(found, "GET", f"/api/rights/{kind}/{namespace}", **auth)
    told: dict[str, str] = msgspec.json.decode(answer.body)["verbs"]
    return told


async def test_a_viewer_is_told_why_not_and_is_refused(full: Helm) -> None:
    full.dashboard._comparing = Comparing(is_offered=True)
    auth = await login(full, VIEWER)
    told = await rights(full, "rollouts", "shop", auth)
    assert set(told) == {"promote", "promote-full", "pause", "resume", "abort", "retry", "restart", "undo"}
    assert told["pause"] == "you may not patch rollouts in shop"
    told = await rights(full, "applications", "argocd", auth)
    assert told["sync"] == "you may not patch applications in argocd"
    assert told["compare"] == "you may not list secrets in argocd"
    answer = await ask(full, "GET", "/api/differences/argocd/shop", **auth)
    assert (answer.status, "list secrets in argocd" in msgspec.json.decode(answer.body)["error"]) == (403, True)
    for target in (
        *(f"/api/rollouts/shop/checkout/{verb}" for verb in ("promote", "pause", "abort", "restart")),
        *(f"/api/applications/argocd/shop/{verb}" for verb in ("sync", "refresh", "rollback")),
    ):
        answer = await ask(full, "POST", target, **auth)
        assert answer.status == 403, target
        assert "vera@shop.example" in msgspec.json.decode(answer.body)["error"]
    assert not (await full.rollout())["status"]["abort"]
    assert "operation" not in await full.application()


async def test_an_administrator_may_all(full: Helm) -> None:
    auth = await login(full, ADMIN)
    assert set((await rights(full, "rollouts", "shop", auth)).values()) == {""}
    told = await rights(full, "applications", "argocd", auth)
    assert {verb for verb, reason in told.items() if reason} == {"compare"}
    assert "comparing is off here" in told["compare"]
    assert (await ask(full, "GET", "/api/differences/argocd/shop", **auth)).status == 409


async def test_an_application_is_synced_refreshed_and_rolled_back(full: Helm) -> None:
    auth = await login(full, ADMIN)
    target = "/api/applications/argocd/shop"
    assert (await ask(full, "POST", f"{target}/refresh", {"hard": True}, **auth)).status == 200
    assert (await full.application())["metadata"]["annotations"]["argocd.argoproj.io/refresh"] == "hard"
    assert (await ask(full, "POST", f"{target}/sync", {"prune": True}, **auth)).status == 200
    operation = (await full.application())["operation"]
    assert operation == {"sync": {"prune": True}, "initiatedBy": {"username": "ada@shop.example"}}
    again = await ask(full, "POST", f"{target}/rollback", {"number": 1}, **auth)
    assert (again.status, "another operation goes on" in msgspec.json.decode(again.body)["error"]) == (409, True)
    await full.plane.call(
        "PATCH", "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications/shop", {"operation": None}
    )
    assert (await ask(full, "POST", f"{target}/rollback", {"number": 7}, **auth)).status == 409
    assert (await ask(full, "POST", f"{target}/rollback", {"number": 1}, **auth)).status == 200
    assert (await full.application())["operation"]["sync"]["revision"].startswith("779c")
    for verb, body, status in (
        ("explode", None, 409),
        ("sync", {"prune": "yes"}, 400),
        ("sync", {"reason": "x" * 5_000}, 413),
    ):
        assert (await ask(full, "POST", f"{target}/{verb}", body, **auth)).status == status


async def test_a_rollout_is_restarted_and_goes_back_to_a_revision(full: Helm) -> None:
    auth = await login(full, ADMIN)
    target = "/api/rollouts/shop/checkout"
    assert (await ask(full, "POST", f"{target}/restart", **auth)).status == 200
    assert (await full.rollout())["spec"]["restartAt"].endswith("Z")
    wrong = await ask(full, "POST", f"{target}/undo", {"revision": 99}, **auth)
    assert (wrong.status, "there is 6, 7" in msgspec.json.decode(wrong.body)["error"]) == (409, True)
    assert (await ask(full, "POST", f"{target}/undo", {"revision": 6}, **auth)).status == 200
    (container,) = (await full.rollout())["spec"]["template"]["spec"]["containers"]
    assert container["image"].endswith(":v2.6.4")


async def test_what_cannot_be_promoted_is_said(full: Helm) -> None:
    auth = await login(full, ADMIN)
    for name, said in (("catalogue", "nothing to promote"), ("payments", "retry tries it again")):
        answer = await ask(full, "POST", f"/api/rollouts/shop/{name}/promote", **auth)
        assert (answer.status, said in msgspec.json.decode(answer.body)["error"]) == (409, True)


async def test_pages_of_service_levels(full: Helm) -> None:
    auth = await login(full, VIEWER)
    for target, wanted in (("slo/shop", "level/shop/checkout"), ("servicelevel/shop/checkout", "level")):
        ear, running = await listen(await ask(full, "GET", f"/api/pages/{target}", **auth))
        while wanted not in (heard := (await ear.event("reset", "change")).get("set", {})):
            pass
        running.cancel()
        level = heard[wanted]
        assert (level["objective"], level["application"], level["tone"]) == ("99.9%", "argocd/shop", "good")
        assert (level["successRate"], level["burn6h"], level["restore"]) == ("75.0%", "0.41", "7.4")
        assert len(level["days"]) == 90
    assert [each["outcome"] for each in level["deploys"]] == ["Succeeded", "RolledBack", "Succeeded", "Succeeded"]
    assert level["left"][0] is None
    assert level["left"][-1] == pytest.approx(float(level["budgetLeft"].removesuffix("%")) / 100, abs=0.001)


async def test_an_application_and_a_rollout_have_their_service_levels(full: Helm) -> None:
    auth = await login(full, ADMIN)
    for target in ("application/argocd/shop", "rollout/shop/checkout"):
        ear, running = await listen(await ask(full, "GET", f"/api/pages/{target}", **auth))
        while "level/shop/checkout" not in (heard := (await ear.event("reset", "change")).get("set", {})):
            pass
        running.cancel()
        assert not [key for key in heard if key.startswith("level/") and key != "level/shop/checkout"]
    ear, running = await listen(await ask(full, "GET", "/api/pages/rollout/shop/checkout", **auth))
    while "revision/checkout-5c4b8d7f9" not in (heard := (await ear.event("reset", "change")).get("set", {})):
        pass
    running.cancel()
    assert heard["revision/checkout-5c4b8d7f9"]["images"] == ["registry.example/shop/checkout:v2.6.4"]


async def test_failed_logins_from_one_address_are_limited(bare: Helm) -> None:
    clock = FakeClock()
    bare.dashboard._logins = Logins(ClientConfig(server=bare.url), clock)
    statuses = [
        (await ask(bare, "POST", "/api/login", {"credentials": "a b"}, peer="192.0.2.7")).status for _ in range(11)
    ]
    assert statuses == [400] * 10 + [429]
    answer = await ask(bare, "POST", "/api/login", {"credentials": "a b"}, peer="192.0.2.7")
    assert dict(answer.headers)["Retry-After"] == "60"
    assert (await ask(bare, "POST", "/api/login", {"credentials": "a b"}, peer="192.0.2.8")).status == 400
    clock.advance(60)
    assert (await ask(bare, "POST", "/api/login", {"credentials": "a b"}, peer="192.0.2.7")).status == 400


async def test_verbs_change_the_rollout(full: Helm) -> None:
    auth = await login(full, ADMIN)
    for verb in ("pause", "promote"):
        assert (await ask(full, "POST", f"/api/rollouts/shop/checkout/{verb}", **auth)).status == 200
        assert (await full.rollout())["spec"]["paused"] is (verb == "pause")
    assert "pauseConditions" not in (await full.rollout())["status"]
    assert (await ask(full, "POST", "/api/rollouts/shop/checkout/abort", **auth)).status == 200
    assert (await full.rollout())["status"]["abort"] is True
    assert (await ask(full, "POST", "/api/rollouts/shop/checkout/retry", **auth)).status == 200
    again = await ask(full, "POST", "/api/rollouts/shop/checkout/retry", **auth)
    assert (again.status, "not aborted" in msgspec.json.decode(again.body)["error"]) == (409, True)
    assert (await ask(full, "POST", "/api/rollouts/shop/checkout/explode", **auth)).status == 409
    assert (await ask(full, "POST", "/api/rollouts/shop/nobody/abort", **auth)).status == 404
    assert (await ask(full, "POST", "/api/rollouts/..%2f/nobody/abort", **auth)).status == 404


async def test_a_page_is_sent_whole_then_as_changes_and_numbers_go_on_where_they_were(full: Helm) -> None:
    auth = await login(full, ADMIN)
    full.remember(20)
    target = "/api/pages/rollout/shop/checkout"
    ear, running = await listen(await ask(full, "GET", target, **auth))
    while "rollout" not in (heard := (await ear.event("reset", "change"))["set"]):
        pass
    assert heard["rollout"]["phase"] == "Paused"
    numbers = await ear.event("numbers")
    assert len(numbers) >= 20
    assert set(numbers[-1]["v"]) == {"stable"}
    await full.show(rollout_at(5, 72))
    while (found := (await ear.event("change")).get("set", {}).get("rollout")) is None or found["weight"] != 72:
        pass
    running.cancel()
    last = str(numbers[-2]["t"])
    ear, running = await listen(await ask(full, "GET", target, last_event_id=last, **auth))
    assert (await ear.event("numbers"))[0]["t"] == numbers[-1]["t"]
    full.numbers.problem = "the gateway is away"
    assert await ear.event("nonumbers") == {"text": "the gateway is away"}
    running.cancel()


async def test_numbers_of_another_namespaces_routes_are_for_who_may_see_those(full: Helm) -> None:
    full.numbers.route = "elsewhere/checkout"
    full.remember(5)
    plugin = {"argoproj-labs/gatewayAPI": {"httpRoute": "checkout", "namespace": "elsewhere"}}
    strategy = {"canary": {"trafficRouting": {"plugins": plugin}}}
    await full.plane.call("PATCH", f"{ROLLOUTS}/checkout", {"spec": {"strategy": strategy}})
    for token, seen in ((ADMIN, {"stable"}), (VIEWER, set())):
        auth = await login(full, token)
        ear, running = await listen(await ask(full, "GET", "/api/pages/rollout/shop/checkout", **auth))
        assert set((await ear.event("numbers"))[-1]["v"]) == seen
        running.cancel()


async def test_streams_are_bounded_and_feeds_end_with_their_pages(bare: Helm) -> None:
    auth = await login(bare, ADMIN)
    opened = [await listen(await ask(bare, "GET", "/api/pages/events/*", **auth)) for _ in range(24)]
    for ear, _ in opened:
        await ear.event("reset")
    assert (await ask(bare, "GET", "/api/pages/events/*", **auth)).status == 429
    other, bare.dashboard._streams = await login(bare, ADMIN), 512
    assert (await ask(bare, "GET", "/api/pages/events/*", **other)).status == 503
    bare.dashboard._streams = 24
    assert (await ask(bare, "POST", "/api/logout", **other)).status == 200
    (session,) = bare.dashboard.sessions
    assert len(session.feeds) == 1
    for _, running in opened:
        running.cancel()
    await asyncio.gather(*(running for _, running in opened), return_exceptions=True)
    assert (session.streams, len(session.feeds)) == (0, 0)
