"""What is told of an object: settings, templates, triggers, subscriptions, and what was told before."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.errors import NoticeError
from pilothouse.delivery.notices.messages import Call, Content, Mail, compose, fill
from pilothouse.delivery.notices.occasions import OCCASIONS, Occasion, occasions
from pilothouse.delivery.notices.planning import NOTIFIED, Plan, destinations, plan, read_told, told_text
from pilothouse.delivery.notices.settings import Service, Settings, read_settings
from pilothouse.delivery.notices.stock import STOCK
from pilothouse.delivery.resources.analyses import AnalysisRun
from pilothouse.delivery.resources.incidents import Incident
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.kinds.structs import ObjectMeta, from_dict, replace, to_dict

SUBSCRIBE = "notifications.argoproj.io/subscribe"
CONFIG = {
    "service.webhook.hook": "url: http://hook.test/in\nheaders: [{name: Authorization, value: Bearer $hook-token}]",
    "service.slack": "token: $slack-token",
    "service.email": "host: mail.test\nport: 25\nfrom: ops@shop.test",
    "context": "argocdUrl: https://cd.test",
}
SECRET = {"hook-token": b"hush-1", "slack-token": b"hush-2\n"}
SETTINGS = read_settings(CONFIG, SECRET, STOCK)
STOCK_SLACK = """
message: Rollout {{.rollout.metadata.name}} has been completed.
slack:
  attachments: |
    [{
      "title": "{{ .rollout.metadata.name}}",
      "fields": [
      {
        "title": "Strategy",
        "value": "{{if .rollout.spec.strategy.blueGreen}}Blue{{end}}{{if .rollout.spec.strategy.canary}}Canary{{end}}"
      }
      {{range $index, $c := .rollout.spec.template.spec.containers}}
        {{if not $index}},{{end}}
        {{if $index}},{{end}}
        { "title": "{{$c.name}}", "value": "{{$c.image}}", "short": true }
      {{end}}
      ]
    }]
"""


def rollout(**status: Any) -> Rollout:
    containers = [{"name": "shop", "image": "shop:2"}, {"name": "log", "image": "log:1"}]
    tree = {
        "metadata": {"name": "shop", "namespace": "default", "annotations": {"rollout.argoproj.io/revision": "2"}},
        "spec": {
            "strategy": {"canary": {"steps": [{"setWeight": 20}, {"pause": {}}]}},
            "template": {"spec": {"containers": containers}},
        },
        "status": {"currentPodHash": "v2", "stableRS": "v1", "phase": "Progressing", **status},
    }
    return from_dict(tree, Rollout)


def subscribed(obj: Rollout, told: str = "", **annotations: str) -> ObjectMeta:
    made = {**obj.metadata.annotations, **{f"{SUBSCRIBE}.{name}": who for name, who in annotations.items()}}
    return ObjectMeta(name="shop", namespace="default", annotations={**made, **({NOTIFIED: told} if told else {})})


def told_of(obj: Rollout, made: list[Occasion], **annotations: str) -> list[tuple[str, str, str]]:
    found = plan(subscribed(obj, **annotations), {"rollout": to_dict(obj)}, SETTINGS, given=made)
    return [(each.trigger, each.service, each.recipient) for each in (one.destination for one in found.notices)]


# What a rollout gives to tell


def triggers(obj: Rollout, *runs: AnalysisRun) -> list[str]:
    return [each.trigger for each in occasions(obj, runs)]


def run(phase: str) -> AnalysisRun:
    tree = {"metadata": {"name": f"run-{phase}"}, "spec": {"metrics": []}, "status": {"phase": phase, "message": "why"}}
    return from_dict(tree, AnalysisRun)


def test_a_rollouts_life_is_told_in_argos_words() -> None:
    assert triggers(rollout(currentPodHash=None)) == []
    assert triggers(rollout()) == ["on-rollout-updated"]
    step = rollout(currentStepIndex=1)
    assert triggers(step) == ["on-rollout-updated", "on-rollout-step-completed"]
    pause = {"reason": "CanaryPauseStep", "startTime": "2026-03-01T12:00:00Z"}
    assert triggers(rollout(currentStepIndex=1, pauseConditions=[pause]))[-1] == "on-rollout-paused"
    assert triggers(rollout(stableRS="v2", phase="Healthy", currentStepIndex=2))[1:] == ["on-rollout-completed"]
    aborted = rollout(abort=True, abortedAt="2026-03-01T12:00:00Z")
    assert triggers(aborted, run("Failed"), run("Successful")) == [
        "on-rollout-updated",
        "on-rollout-aborted",
        "on-analysis-run-failed",
    ]
    assert set(triggers(aborted, *map(run, ("Failed", "Error", "Inconclusive")))) <= OCCASIONS


def test_an_occasion_has_the_same_key_until_it_is_another_one() -> None:
    once = occasions(rollout(currentStepIndex=1, duration={"rolloutStartedAt": "2026-03-01T12:00:00Z"}))
    again = occasions(rollout(currentStepIndex=1, duration={"rolloutStartedAt": "2026-03-01T13:00:00Z"}))
    assert once[0] == again[0]
    assert once[1].key != again[1].key


# Who is told


def test_annotations_say_who_is_told_and_of_what() -> None:
    obj = rollout(abort=True, abortedAt="2026-03-01T12:00:00Z")
    told = told_of(obj, occasions(obj), **{"on-rollout-aborted.slack": "ops; dev", "on-rollout-paused.hook": ""})
    assert told == [("on-rollout-aborted", "slack", "ops"), ("on-rollout-aborted", "slack", "dev")]


def test_subscriptions_of_the_settings_and_default_triggers() -> None:
    more = {
        "subscriptions": "- {recipients: ['slack:all'], triggers: [on-rollout-updated], selector: 'tier=web'}",
        "defaultTriggers": "[on-rollout-aborted]",
        "defaultTriggers.email": "[on-rollout-completed]",
    }
    settings = read_settings({**CONFIG, **more}, SECRET, STOCK)
    annotations = {
        f"{SUBSCRIBE}.slack": "ops",
        f"{SUBSCRIBE}.email": "a@shop.test",
        "notifications.argoproj.io/subscriptions": "- trigger: [on-rollout-paused]\n"
        "  destinations: [{service: slack, recipients: [x]}]",
    }
    found = destinations(ObjectMeta(name="x", annotations=annotations, labels={"tier": "web"}), settings)
    assert [*map(tuple, found)] == [
        ("on-rollout-completed", "email", "a@shop.test"),
        ("on-rollout-aborted", "slack", "ops"),
        ("on-rollout-paused", "slack", "x"),
        ("on-rollout-updated", "slack", "all"),
    ]
    assert [*destinations(ObjectMeta(name="x", labels={"tier": "db"}), settings)] == []


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        ("on-what.slack", "trigger 'on-what', which is not there"),
        ("on-rollout-updated.pager", "service 'pager', which is not there"),
    ],
)
def test_a_subscription_to_what_is_not_there_is_said(annotation: str, problem: str) -> None:
    obj = rollout()
    found = plan(subscribed(obj, **{annotation: "x"}), {"rollout": to_dict(obj)}, SETTINGS, given=occasions(obj))
    assert problem in found.problems[0]
    assert found.notices == ()


# Once


def told_after(obj: Rollout, told: str = "") -> tuple[int, str]:
    """Send everything; return how much that was, and what the annotation becomes."""
    metadata = subscribed(obj, told, **{f"{name}.slack": "ops" for name in sorted(OCCASIONS)})
    found = plan(metadata, {"rollout": to_dict(obj)}, SETTINGS, given=occasions(obj))
    sent = {**read_told(metadata), **{each.key: 1000 for each in found.notices}}
    return len(found.notices), told_text(sent, found, 1000) or ""


@given(st.lists(st.sampled_from(range(6)), max_size=12))
def test_each_thing_is_told_once_whatever_comes_when_and_between(order: list[int]) -> None:
    states = [
        rollout(),
        rollout(currentStepIndex=1),
        rollout(currentStepIndex=2),
        rollout(abort=True, abortedAt="2026-03-01T12:00:00Z"),
        rollout(stableRS="v2", phase="Healthy"),
        rollout(stableRS="v2", phase="Progressing"),
    ]
    told, keys = "", 0
    for state in order:
        sent, told = told_after(states[state], told)
        keys += sent
        assert told_after(states[state], told)[0] == 0
    expected = {0: 0, 1: 1, 2: 1, 3: 1, 4: 1, 5: 0}
    assert keys == sum(expected[each] for each in set(order)) + bool(order)
    assert len(json.loads(told or "{}")) == keys


def test_a_condition_without_once_per_is_told_again_after_it_did_not_hold() -> None:
    config = {**CONFIG, "trigger.bad": "- {when: app.status.health.status == 'Degraded', send: [app-health-degraded]}"}
    settings = read_settings(config, SECRET, STOCK)
    told: dict[str, int] = {}
    sent = []
    for health in ("Degraded", "Degraded", "Healthy", "Degraded"):
        annotations = {f"{SUBSCRIBE}.bad.slack": "ops", NOTIFIED: json.dumps(told)}
        app = {"metadata": {"name": "shop"}, "status": {"health": {"status": health}}}
        found = plan(ObjectMeta(name="shop", annotations=annotations), {"app": app}, settings)
        assert found.problems == ()
        told |= dict.fromkeys((each.key for each in found.notices), 5)
        told = json.loads(told_text(told, found, 9) or "{}")
        sent.append(len(found.notices))
    assert sent == [1, 0, 0, 1]


def test_what_is_told_once_per_revision_is_remembered_as_argo_does() -> None:
    annotations = {f"{SUBSCRIBE}.on-sync-succeeded.slack": "ops"}
    state = {"phase": "Succeeded", "syncResult": {"revision": "abc"}}
    health = {"status": "Healthy"}
    app = {"metadata": {"name": "shop", "namespace": "argocd"}, "status": {"operationState": state, "health": health}}
    when = "app.status.operationState.phase in ['Succeeded'] and app.status.health.status == 'Healthy'"
    once = "oncePer: app.status.operationState.syncResult.revision"
    config = {**CONFIG, "trigger.on-sync-succeeded": f'[{{when: "{when}", send: [app-sync-succeeded], {once}}}]'}
    settings = read_settings(config, SECRET, STOCK)
    (notice,) = plan(ObjectMeta(name="shop", annotations=annotations), {"app": app}, settings).notices
    # The hash is the one that Argo's own documentation shows for this condition.
    assert notice.key == "abc:on-sync-succeeded:[0].y7b5sbwa2Q329JYH755peeq-fBs:slack:ops"


def test_the_annotation_is_bounded_and_keeps_what_holds() -> None:
    held = frozenset(f"held-{number}" for number in range(300))
    told = {**dict.fromkeys(held, 1), **{f"old-{number}": number for number in range(500)}}
    kept = json.loads(told_text(told, Plan(held=held), 10**9) or "{}")
    assert set(kept) == held | {f"old-{number}" for number in range(400, 500)}


# Templates and messages


def test_argos_stock_template_makes_an_attachment() -> None:
    settings = read_settings({**CONFIG, "template.done": STOCK_SLACK}, SECRET)
    content = fill("done", settings.templates["done"], {"rollout": to_dict(rollout())})
    call = compose(settings.services["slack"], "ops", content)
    assert isinstance(call, Call)
    assert (call.method, call.url, call.slack) == ("POST", "https://slack.com/api/chat.postMessage", True)
    assert call.headers["Authorization"] == "Bearer hush-2"
    body = json.loads(call.body)
    assert (body["channel"], body["text"]) == ("ops", "Rollout shop has been completed.")
    fields = body["attachments"][0]["fields"]
    assert [each["value"] for each in fields] == ["Canary", "shop:2", "log:1"]


def test_a_webhook_has_the_templates_method_path_and_body() -> None:
    template = {"message": "m", "webhook": {"hook": {"method": "put", "path": "/a", "body": '{"n": "{{.rollout.n}}"}'}}}
    call = compose(SETTINGS.services["hook"], "", fill("t", template, {"rollout": {"n": 1}}))
    assert isinstance(call, Call)
    assert (call.method, call.url, call.body) == ("PUT", "http://hook.test/in/a", b'{"n": "1"}')
    plain = compose(SETTINGS.services["hook"], "", Content("hello"))
    assert isinstance(plain, Call)
    assert (plain.method, json.loads(plain.body)) == ("POST", {"text": "hello"})


def test_a_mail_has_subject_body_and_no_headers_from_a_template() -> None:
    content = Content("message", {"email": {"subject": "one\nBcc: all@shop.test", "body": "text"}})
    mail = compose(SETTINGS.services["email"], "ada@shop.test", content)
    assert isinstance(mail, Mail)
    assert mail.text["Subject"] == "one Bcc: all@shop.test"
    assert mail.text["Bcc"] is None
    assert mail.text.get_content() == "text\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{{.rollout.metadata.name | shout}}", "function 'shout' is not known"),
        ("{{call .repo.GetAppDetails}}", "function 'call' is not known"),
        ("{{if .rollout}}", "has no end"),
        ("{{$x}}", "there is no variable '$x'"),
    ],
)
def test_what_a_template_has_that_is_not_understood_is_refused(text: str, problem: str) -> None:
    with pytest.raises(NoticeError, match="template") as caught:
        fill("t", {"message": text}, {"rollout": {}})
    assert problem in str(caught.value)


# Settings


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("service.teams", "recipientUrls: {}", "'teams' is not there; use webhook, slack, email"),
        ("service.slack", "token: $gone", "the Secret has no key 'gone'"),
        ("service.webhook.x", "just text", "want fields"),
        ("trigger.x", "when: true", "want a list of conditions"),
        ("trigger.x", "- when: 'true'", "send: want a list of texts"),
        ("template.x", "message: [", "no YAML"),
        ("subscriptions", "x: y", "want a list"),
    ],
)
def test_a_setting_that_cannot_be_read_is_left_out_and_said(key: str, text: str, problem: str) -> None:
    settings = read_settings({**{k: v for k, v in CONFIG.items() if k != key}, key: text}, SECRET)
    assert len(settings.problems) == 1
    assert problem in settings.problems[0]
    assert "hook" in settings.services


def test_nothing_shows_a_secret() -> None:
    obj = rollout()
    metadata = subscribed(obj, **{"on-rollout-updated.slack": "ops", "on-rollout-updated.hook": ""})
    found = plan(metadata, {"rollout": to_dict(obj)}, SETTINGS, given=occasions(obj))
    assert len(found.notices) == 2
    assert "hush" not in repr(found) + repr(SETTINGS)


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(NoticeError, match="url is no http"):
        compose(Service("hook", "webhook", {"url": "file:///etc/passwd"}), "", Content("x"))
    with pytest.raises(NoticeError, match="want token, or webhookURL"):
        compose(Service("slack", "slack", {}), "ops", Content("x"))


def test_stock_triggers_have_their_templates() -> None:
    names = {name for conditions in STOCK.triggers.values() for one in conditions for name in one.send}
    assert names == set(STOCK.templates)
    assert set(STOCK.triggers) == OCCASIONS | {"on-sync-succeeded", "on-sync-failed", "on-health-degraded"}
    assert isinstance(STOCK, Settings)


def incident(version: str, uid: str = "u1", phase: str | None = "Open") -> Incident:
    tree = {
        "metadata": {"name": f"shop-{version}", "namespace": "default", "uid": f"i-{version}"},
        "spec": {
            "rollout": "shop",
            "rolloutUid": uid,
            "version": version,
            "decidedAt": "2026-03-01T12:00:00Z",
            "cause": "Analysis",
            "message": "2.1 % errors",
        },
        "status": {"phase": phase, "samples": ["GET /cart: 500", "GET /pay: 503"]},
    }
    return from_dict(tree, Incident)


def test_an_incident_of_the_present_version_is_told_with_its_samples() -> None:
    obj = replace(rollout(), metadata__uid="u1")
    of_another = [incident("v1"), incident("v2", uid="another"), incident("v2", phase=None)]
    assert not [each for each in occasions(obj, (), of_another) if each.trigger == "on-incident-recorded"]
    given = occasions(obj, (), [incident("v1"), incident("v2")])
    metadata = subscribed(obj, **{"on-incident-recorded.hook": ""})
    (notice,) = plan(metadata, {"rollout": to_dict(obj)}, SETTINGS, given=given).notices
    assert isinstance(notice.message, Call)
    told = json.loads(notice.message.body)["text"]
    assert told == (
        "Rollout default/shop was rolled back, see incident shop-v2: 2.1 % errors\nGET /cart: 500\nGET /pay: 503"
    )
