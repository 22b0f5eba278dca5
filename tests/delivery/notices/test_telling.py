"""Notifications end to end: real servers for webhooks, Slack and mail, told by controllers on a control plane."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.delivery.gitops import install_gitops_kinds
from pilothouse.delivery.notices import adding
from pilothouse.delivery.notices.adding import NoticeOptions, add_notices
from pilothouse.delivery.notices.planning import NOTIFIED
from pilothouse.delivery.notices.sending import Sender
from pilothouse.delivery.resources.applications import Application
from pilothouse.delivery.resources.incidents import Incident
from pilothouse.delivery.resources.installing import install_kinds
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds.structs import ConfigMap, Event, Namespace, ObjectMeta, Secret, from_dict
from pilothouse.operator import Harness
from pilothouse.testing import ControlPlane
from support.loglines import logged
from support.noticekit import inbox, mail_server

SUBSCRIBE = "notifications.argoproj.io/subscribe"
OPTIONS = NoticeOptions(rollouts_namespace="argo", applications_namespace="argo")


@asynccontextmanager
async def world(config: dict[str, str], secret: dict[str, str] | None = None) -> AsyncIterator[Client]:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_kinds(client)
        await install_gitops_kinds(client)
        await client.create(Namespace(metadata=ObjectMeta(name="argo")))
        for name in ("argo-rollouts-notification-configmap", "argocd-notifications-cm"):
            await client.create(ConfigMap(metadata=ObjectMeta(name=name, namespace="argo"), data=config))
        data = {key: text.encode() for key, text in (secret or {}).items()}
        for name in ("argo-rollouts-notification-secret", "argocd-notifications-cm"):
            await client.create(Secret(metadata=ObjectMeta(name=name, namespace="argo"), data=data))
        yield client


@asynccontextmanager
async def telling(client: Client, *, incidents: bool = False) -> AsyncIterator[Harness]:
    harness = Harness(client)
    add_notices(harness.manager, OPTIONS, incidents=incidents)
    async with harness:
        yield harness


async def make(client: Client, annotations: dict[str, str], name: str = "shop", **status: Any) -> Rollout:
    metadata = {"name": name, "namespace": "default", "annotations": annotations}
    spec = {"selector": {}, "strategy": {"canary": {"steps": [{"setWeight": 20}]}}}
    made = await client.create(from_dict({"metadata": metadata, "spec": spec}, Rollout))
    await change(client, name, **{"currentPodHash": "v2", "stableRS": "v1", "phase": "Progressing", **status})
    return made


async def change(client: Client, name: str = "shop", **status: Any) -> None:
    await client.patch(Rollout, name, {"status": status}, subresource="status")


ABORTED: dict[str, Any] = {
    "abort": True,
    "abortedAt": "2026-03-01T12:00:00Z",
    "message": "RolloutAborted: 2.1 % errors",
}


async def test_a_rollback_is_told_once_by_webhook_slack_and_mail_also_after_a_restart() -> None:
    async with inbox() as hook, inbox() as slack, mail_server() as mail:
        config = {
            "service.webhook.hook": f"url: {hook.url}\nheaders: [{{name: X-Key, value: $key}}]",
            "service.slack": f"token: $token\napiURL: {slack.url}/api",
            "service.email": f"host: 127.0.0.1\nport: {mail.port}\nfrom: ops@shop.test\nusername: u\npassword: $key",
        }
        async with world(config, {"key": "hush", "token": "hush-token"}) as client:
            who = {"hook": "", "slack": "ops", "email": "ada@shop.test;bo@shop.test"}
            await make(client, {f"{SUBSCRIBE}.on-rollout-aborted.{name}": each for name, each in who.items()})
            async with telling(client) as harness:
                await harness.settle()
                assert (hook.requests, slack.requests, mail.mails) == ([], [], [])
                with logged(adding) as lines:
                    await change(client, **ABORTED)
                    await harness.settle()
                assert len(lines) == 4
                assert "hush" not in str(lines)
                assert hook.texts == ["Rollout default/shop is rolled back: RolloutAborted: 2.1 % errors"]
                assert hook.requests[0].headers["x-key"] == "hush"
                assert slack.requests[0].path == "/api/chat.postMessage"
                assert slack.requests[0].headers["authorization"] == "Bearer hush-token"
                assert slack.bodies[0]["channel"] == "ops"
                assert sorted(mail.recipients) == ["ada@shop.test", "bo@shop.test"]
                assert mail.mails[0]["Subject"] == "Rollout default/shop is rolled back: RolloutAborted: 2.1 % errors"
                assert len(mail.logins) == 2
                await harness.assert_stable()
            async with telling(client) as harness:
                await harness.settle()
            assert (hook.asked, slack.asked, len(mail.mails)) == (1, 1, 2)
            told = (await client.get(Rollout, "shop", "default")).metadata.annotations[NOTIFIED]
            assert next(iter(json.loads(told))).startswith("v2.2026-03-01T12:00:00Z:on-rollout-aborted:[0].")


async def test_an_incident_is_told_once_it_is_filled_in_with_its_samples() -> None:
    async with inbox() as hook, world({"service.webhook.hook": f"url: {hook.url}"}) as client:
        await install_kinds(client, [Incident])
        obj = await make(client, {f"{SUBSCRIBE}.on-incident-recorded.hook": ""})
        spec = {"rollout": "shop", "rolloutUid": obj.metadata.uid, "version": "v2", "cause": "Analysis"}
        spec |= {"decidedAt": "2026-03-01T12:00:00Z", "message": "2.1 % errors"}
        incident = {"metadata": {"name": "shop-v2", "namespace": "default"}, "spec": spec}
        async with telling(client, incidents=True) as harness:
            await client.create(from_dict(incident, Incident))
            await harness.converge()
            assert hook.bodies == []
            status = {"phase": "Open", "samples": ["GET /cart: 500 in 12 ms"]}
            await client.patch(Incident, "shop-v2", {"status": status}, subresource="status")
            await harness.converge()
            await client.patch(Incident, "shop-v2", {"status": {"phase": "Closed"}}, subresource="status")
            await harness.converge()
    (told,) = hook.texts
    assert told.endswith("incident shop-v2: 2.1 % errors\nGET /cart: 500 in 12 ms")


async def test_a_server_that_is_down_is_tried_again_and_keeps_nobody_else_waiting() -> None:
    async with inbox() as bad, inbox() as good:
        bad.down = 3
        config = {"service.webhook.bad": f"url: {bad.url}/secret-path", "service.webhook.good": f"url: {good.url}"}
        async with world(config) as client:
            names = {f"{SUBSCRIBE}.on-rollout-aborted.{name}": "" for name in ("bad", "good")}
            await make(client, names, **ABORTED)
            async with telling(client) as harness:
                await harness.settle()
                assert (len(good.requests), bad.asked) == (1, 1)
                await make(client, names, "other", **ABORTED)
                await harness.settle()
                assert (len(good.requests), bad.asked) == (2, 1)  # one of them asks, the others wait with it
                await harness.advance(30)
                await harness.settle()
                assert (len(good.requests), len(bad.requests)) == (2, 2)
            events = [each async for each in client.list(Event, "default")]
            assert events
            assert "secret-path" not in str(events)


async def test_what_does_not_hold_any_more_is_not_told_late() -> None:
    async with inbox() as hook:
        hook.down = 1
        async with world({"service.webhook.hook": f"url: {hook.url}"}) as client:
            await make(client, {f"{SUBSCRIBE}.on-rollout-aborted.hook": ""}, **ABORTED)
            async with telling(client) as harness:
                await harness.settle()
                await change(client, abort=None, abortedAt=None, phase="Progressing")
                await harness.advance(60)
                await harness.settle()
            assert hook.requests == []


async def test_applications_are_told_of_by_their_triggers() -> None:
    async with inbox() as hook, world({"service.slack": f"webhookURL: {hook.url}/services/T/B/x"}) as client:
        names = ("on-sync-succeeded", "on-sync-failed", "on-health-degraded")
        metadata = {
            "name": "shop",
            "namespace": "argo",
            "annotations": {f"{SUBSCRIBE}.{name}.slack": "" for name in names},
        }
        spec = {"project": "default", "source": {"repoURL": "https://x/y"}, "destination": {}}
        async with telling(client) as harness:
            await client.create(from_dict({"metadata": metadata, "spec": spec}, Application))
            await harness.settle()
            assert hook.requests == []
            state = {
                "operation": {},
                "phase": "Succeeded",
                "syncResult": {"revision": "c1", "source": {"repoURL": "https://x/y"}},
                "startedAt": "2026-03-01T12:00:00Z",
            }
            status: dict[str, Any] = {"operationState": state, "health": {"status": "Healthy"}}
            await client.patch(Application, "shop", {"status": status}, "argo")
            await harness.settle()
            assert hook.texts == ["Application argo/shop is synced to c1"]
            status["health"] = {"status": "Degraded", "message": "no pods"}
            await client.patch(Application, "shop", {"status": status}, "argo")
            await harness.settle()
            assert hook.texts == [
                "Application argo/shop has degraded: no pods",
                "Application argo/shop is synced to c1",
            ]
            await harness.assert_stable()


async def test_new_settings_count_at_once_for_what_was_not_told() -> None:
    async with inbox() as hook, world({}) as client:
        await make(client, {f"{SUBSCRIBE}.on-rollout-updated.hook": ""})
        async with telling(client) as harness:
            await harness.settle()
            data = {"data": {"service.webhook.hook": f"url: {hook.url}"}}
            await client.patch(ConfigMap, "argo-rollouts-notification-configmap", data, "argo")
            async with asyncio.timeout(20):
                await hook.arrived.wait()
            await harness.settle()
        events = [each.message async for each in client.list(Event, "default")]
        assert events == ["a subscription names service 'hook', which is not there"]


@pytest.mark.parametrize("answer", [{"ok": False, "error": "channel_not_found"}, {"x": 1}])
async def test_slacks_refusals_are_failures(answer: dict[str, Any]) -> None:
    async with inbox() as slack:
        slack.answer = answer
        async with world({"service.slack": f"token: t\napiURL: {slack.url}"}) as client:
            await make(client, {f"{SUBSCRIBE}.on-rollout-updated.slack": "ops"})
            async with telling(client) as harness:
                await harness.settle()
                found = await client.get(Rollout, "shop", "default")
            assert NOTIFIED not in found.metadata.annotations
            (event,) = [each.message async for each in client.list(Event, "default")]
            assert answer.get("error", "it was not taken") in event


async def test_a_password_goes_to_no_other_machine_without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    from pilothouse.delivery.errors import NoticeError
    from pilothouse.delivery.notices import sending
    from pilothouse.delivery.notices.messages import Content, compose
    from pilothouse.delivery.notices.settings import Service

    async with mail_server() as mail:
        options = {"host": "127.0.0.1", "port": mail.port, "from": "a@b.test", "username": "u", "password": "p"}
        message = compose(Service("email", "email", options), "c@d.test", Content("x"))
        monkeypatch.setattr(sending, "_is_loopback", lambda _: False)
        with pytest.raises(NoticeError, match="offers no TLS"):
            await Sender().send(message)
        assert (mail.logins, mail.mails) == ([], [])
        mail.refuse = "c@d.test"
        monkeypatch.undo()
        with pytest.raises(NoticeError, match="the recipient is refused"):
            await Sender().send(message)
