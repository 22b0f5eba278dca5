"""Webhooks: only what is signed is looked at."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from typing import Any

import msgspec
import pytest

from pilothouse.delivery.gitops.webhooks import MAX_BYTES, _Payload
from pilothouse.kinds.structs import ObjectMeta, Secret
from support.gitopskit import World, config_map
from support.gitrepo import GitRepo

SECRETS = {
    "webhook.github.secret": "one",
    "webhook.gitlab.secret": "two",
    "webhook.gogs.secret": "three",
    "webhook.generic.secret": "four",
    "webhook.bitbucket.uuid": "{five}",
    "webhook.bitbucketserver.secret": "$elsewhere:hook",
    "webhook.azuredevops.username": "seven",
    "webhook.azuredevops.password": "$eight",
    "eight": "8",
}
LABELS = {"app.kubernetes.io/part-of": "argocd"}


def digest(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def with_secrets(world: World) -> None:
    for name, texts in (("argocd-secret", SECRETS), ("elsewhere", {"hook": "six"})):
        metadata = ObjectMeta(name=name, namespace="argocd", labels=LABELS)
        await world.client.create(Secret(metadata=metadata, string_data=texts))
    await world.settle(1)


def posted(sender: str, url: str) -> tuple[dict[str, str], bytes]:
    """Return headers and body as a sender has them."""
    clone: dict[str, Any] = {"repository": {"clone_url": url, "id": 1}, "commits": [{"added": ["a"]}]}
    links = {"html": {"href": "https://example.com/other"}, "clone": [{"name": "ssh", "href": url}]}
    payload = {
        "github": clone,
        "gitlab": {"project": {"git_http_url": url}, "repository": {"name": "x"}},
        "gitea": clone,
        "gogs": clone,
        "generic": {"repository": url},
        "bitbucket": {"push": {"changes": []}, "repository": {"links": {"html": {"href": url}}}},
        "bitbucketserver": {"repository": {"slug": "x", "links": links}},
        "azuredevops": {"eventType": "git.push", "resource": {"repository": {"remoteUrl": url}}},
    }[sender]
    body = json.dumps(payload).encode()
    basic = base64.b64encode(b"seven:8").decode()
    headers = {
        "github": {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={digest('one', body)}"},
        "gitlab": {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": "two"},
        "gitea": {"X-Gitea-Event": "push", "X-GitHub-Event": "push", "X-Gitea-Signature": digest("three", body)},
        "gogs": {"X-Gogs-Event": "push", "X-GitHub-Event": "push", "X-Gogs-Signature": digest("three", body)},
        "generic": {"X-Hub-Signature-256": f"sha256={digest('four', body)}"},
        "bitbucket": {"X-Event-Key": "repo:push", "X-Hook-UUID": "{five}"},
        "bitbucketserver": {
            "X-Event-Key": "repo:refs_changed",
            "X-Hub-Signature": f"sha256={digest('six', body)}",
        },
        "azuredevops": {"X-Vss-ActivityId": "x", "Authorization": f"Basic {basic}"},
    }[sender]
    return headers, body


SENDERS = ["github", "gitlab", "gitea", "gogs", "generic", "bitbucket", "bitbucketserver", "azuredevops"]
PROOFS = ("signature", "token", "uuid", "authorization")


async def test_a_signed_push_is_synced_at_once(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="0")})
    await world.make()
    await with_secrets(world)
    for number, sender in enumerate(SENDERS, 1):
        repo.commit({"app/a.yaml": config_map("a", x=str(number))})
        headers, body = posted(sender, repo.url)
        assert world.gitops.webhook.handle("POST", headers, body) == (200, "1 repositories are looked at"), sender
        await world.gitops.repositories.idle()
        await world.settle()
        assert await world.data("a") == {"x": str(number)}, sender


@pytest.mark.parametrize("sender", SENDERS)
async def test_a_sender_without_the_right_proof_is_refused(world: World, repo: GitRepo, sender: str) -> None:
    headers, body = posted(sender, repo.url)
    receiver = world.gitops.webhook
    refused = receiver.handle("POST", headers, body)
    assert (refused.status, "namespace argocd, label app.kubernetes.io/part-of=argocd" in refused.text) == (403, True)
    await with_secrets(world)
    assert receiver.handle("POST", headers, body).status == 200
    for wrong in ("", "x", "sha256=", "Basic x", "é"):
        forged = {
            name: wrong if any(proof in name.lower() for proof in PROOFS) else value for name, value in headers.items()
        }
        answer = receiver.handle("POST", forged, body)
        assert answer.status == 401, wrong
        assert not any(secret in answer.text for secret in ("one", "{five}", "seven"))


async def test_a_push_is_matched_whatever_transport_and_port_the_application_has(world: World) -> None:
    for number, url in enumerate(("ssh://git@git.example.com:2222/org/repo.git", "git@ssh.example.org:org/other")):
        await world.make(f"a{number}", source={"repoURL": url})
    await world.settle()
    matching = world.gitops.repositories.matching
    assert matching(["https://git.example.com/org/repo"]) == ["ssh://git.example.com:2222/org/repo"]
    assert matching(["https://example.org/org/other"]) == ["ssh://ssh.example.org/org/other"]
    assert matching(["https://git.example.com/org/repository", "https://example.com/org/repo"]) == []


@pytest.mark.parametrize("comes", [True, False])
async def test_a_webhook_that_is_earlier_than_its_commit_is_not_lost(world: World, repo: GitRepo, comes: bool) -> None:
    first = repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make()
    await with_secrets(world)
    second = repo.commit({"app/a.yaml": config_map("a", x="2")})
    repo.git("update-ref", "refs/heads/main", first)
    (mirror,) = world.gitops.repositories.mirrors
    before = mirror.polls
    body = json.dumps({"ref": "refs/heads/main", "after": second, "repository": {"clone_url": repo.url}}).encode()
    headers = {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={digest('one', body)}"}
    assert world.gitops.webhook.handle("POST", headers, body).status == 200
    await world.gitops.repositories.idle()
    assert (mirror.polls - before, await world.data("a")) == (1, {"x": "1"})
    if comes:
        repo.git("update-ref", "refs/heads/main", second)
    await world.settle(0.6)
    await world.gitops.repositories.idle()
    await world.settle()
    assert await world.data("a") == {"x": "2" if comes else "1"}
    await world.settle(1.1)
    await world.gitops.repositories.idle()
    assert mirror.polls - before == (2 if comes else 3), "it is asked again only while the commit is missing"
    for _ in range(30):
        await world.settle(1)
        await world.gitops.repositories.idle()
    asked = mirror.polls
    for _ in range(30):
        await world.settle(1)
        await world.gitops.repositories.idle()
    assert mirror.polls - asked <= 10, "one that never comes is given up, and only the usual looks go on"


@pytest.mark.parametrize(
    ("told", "commit"),
    [
        ({"after": "a" * 40}, "a" * 40),
        ({"after": "a" * 40, "ref": "refs/heads/x"}, "a" * 40),
        ({"after": "a" * 40, "ref": "refs/tags/x"}, ""),
        ({"after": "0" * 40}, ""),
        ({"after": "--upload-pack=x"}, ""),
        ({"after": 3, "ref": []}, ""),
        ({}, ""),
    ],
)
def test_only_commits_of_branches_are_waited_for(told: Any, commit: str) -> None:
    assert msgspec.json.decode(json.dumps(told), type=_Payload).commit == commit


async def test_what_is_refused(world: World, repo: GitRepo) -> None:
    receiver = world.gitops.webhook
    body = b'{"repository": "https://example.com/x"}'
    github = {"x-github-event": "push", "x-hub-signature-256": f"sha256={digest('one', body)}"}
    assert receiver.handle("POST", github, body).status == 403, "no secret is set"
    await with_secrets(world)
    assert receiver.handle("GET", github, body).status == 405
    assert receiver.handle("POST", github, b"x" * (MAX_BYTES + 1)).status == 413
    assert receiver.handle("POST", github, body + b" ").status == 401
    assert receiver.handle("POST", {"x-github-event": "push"}, body).status == 401
    assert receiver.handle("POST", {"x-gitlab-event": "Push Hook", "x-gitlab-token": "one"}, body).status == 401
    assert receiver.handle("POST", github, body) == (200, "0 repositories are looked at")
    ping = {**github, "x-github-event": "ping"}
    assert receiver.handle("POST", ping, body) == (200, "ping: nothing to do")
    form = b"payload=%7B%7D"
    refused = receiver.handle("POST", {**github, "x-hub-signature-256": f"sha256={digest('one', form)}"}, form)
    assert (refused.status, "choose the content type application/json" in refused.text) == (415, True)
    tried = receiver.handle("POST", {"x-event-key": "diagnostics:ping"}, b"{}")
    assert tried == (200, "diagnostics:ping: nothing to do")
    moved = json.dumps({"eventType": "workitem.created", "resource": {"repository": {"remoteUrl": "x"}}}).encode()
    azure, _ = posted("azuredevops", "x")
    assert receiver.handle("POST", azure, moved) == (200, "nothing to do")
    for wrong in (b"{", b"[]", b"{}", b'{"repository": 3, "resource": {"repository": []}}', b"\xff"):
        signed = {**github, "x-hub-signature-256": f"sha256={digest('one', wrong)}"}
        assert receiver.handle("POST", signed, wrong).status == 400
