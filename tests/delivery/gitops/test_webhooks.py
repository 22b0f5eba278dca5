"""Webhooks: only what is signed is looked at."""

from __future__ import annotations

import hashlib
import hmac
import json

import pytest

from pilothouse.kinds.structs import ObjectMeta, Secret
from support.gitopskit import World, config_map
from support.gitrepo import GitRepo

SECRETS = {
    "webhook.github.secret": "one",
    "webhook.gitlab.secret": "two",
    "webhook.gogs.secret": "three",
    "webhook.generic.secret": "four",
}


def digest(secret: str, body: bytes) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def with_secrets(world: World) -> None:
    labels = {"app.kubernetes.io/part-of": "argocd"}
    made = Secret(metadata=ObjectMeta(name="argocd-secret", namespace="argocd", labels=labels), string_data=SECRETS)
    await world.client.create(made)
    await world.settle(1)


@pytest.mark.parametrize("sender", ["github", "gitlab", "gitea", "generic"])
async def test_a_signed_push_is_synced_at_once(world: World, repo: GitRepo, sender: str) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make()
    await with_secrets(world)
    repo.commit({"app/a.yaml": config_map("a", x="2")})
    payload = {
        "github": {"repository": {"clone_url": repo.url}},
        "gitlab": {"project": {"git_http_url": repo.url}},
        "gitea": {"repository": {"clone_url": repo.url}},
        "generic": {"repository": repo.url},
    }[sender]
    body = json.dumps(payload).encode()
    headers = {
        "github": {"X-GitHub-Event": "push", "X-Hub-Signature-256": f"sha256={digest('one', body)}"},
        "gitlab": {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": "two"},
        "gitea": {"X-Gitea-Event": "push", "X-GitHub-Event": "push", "X-Gitea-Signature": digest("three", body)},
        "generic": {"X-Hub-Signature-256": f"sha256={digest('four', body)}"},
    }[sender]
    assert world.gitops.webhook.handle("POST", headers, body) == (200, "1 repositories are looked at")
    await world.gitops.repositories.idle()
    await world.settle()
    assert await world.data("a") == {"x": "2"}


async def test_what_is_refused(world: World, repo: GitRepo) -> None:
    receiver = world.gitops.webhook
    body = b'{"repository": "https://example.com/x"}'
    github = {"x-github-event": "push", "x-hub-signature-256": f"sha256={digest('one', body)}"}
    assert receiver.handle("POST", github, body).status == 403, "no secret is set"
    await with_secrets(world)
    assert receiver.handle("GET", github, body).status == 405
    assert receiver.handle("POST", github, b"x" * (6 << 20)).status == 413
    assert receiver.handle("POST", github, body + b" ").status == 401
    assert receiver.handle("POST", {"x-github-event": "push"}, body).status == 401
    assert receiver.handle("POST", {"x-gitlab-event": "Push Hook", "x-gitlab-token": "one"}, body).status == 401
    assert receiver.handle("POST", github, body) == (200, "0 repositories are looked at")
    ping = {**github, "x-github-event": "ping"}
    assert receiver.handle("POST", ping, body) == (200, "ping: nothing to do")
    for wrong in (b"{", b"[]", b"{}"):
        signed = {**github, "x-hub-signature-256": f"sha256={digest('one', wrong)}"}
        assert receiver.handle("POST", signed, wrong).status == 400
