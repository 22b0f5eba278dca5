"""Webhooks of GitHub, GitLab, Gitea, Gogs and others: a push is looked at once, if its signature holds.

No server: whoever has one calls `WebhookReceiver.handle` with what it received. Secrets are those of Argo CD, in the
Secret `argocd-secret`: `webhook.github.secret`, `webhook.gitlab.secret`, `webhook.gogs.secret` (Gitea, Forgejo and
Gogs), and `webhook.generic.secret` for anything else, which signs as GitHub does and posts
`{"repository": "https://..."}`. Without its secret a sender is refused.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from pilothouse.foundation.logs import get_logger

from .repositories import Repositories
from .settings import Settings

__all__ = ["PATH", "WebhookAnswer", "WebhookReceiver"]

PATH: Final = "/api/webhook"
"""Where Argo CD has it."""
MAX_BYTES: Final = 5 << 20
_MAX_ADDRESSES: Final = 20
_PUSHES: Final = frozenset({"push", "Push Hook", "Tag Push Hook", "create", "delete", "release"})
_FIELDS: Final = (
    "clone_url",
    "ssh_url",
    "html_url",
    "git_url",
    "git_http_url",
    "git_ssh_url",
    "web_url",
    "http_url",
    "url",
)
_log = get_logger("pilothouse.delivery.gitops")


class WebhookAnswer(NamedTuple):
    """What to answer: status of HTTP and a text."""

    status: int
    text: str


class _Sender(NamedTuple):
    name: str
    secret: str
    event: str
    """The header with the kind of event."""
    signature: str
    """The header with the signature or token."""


_SENDERS: Final = (
    # Gitea also sends GitHub's headers, so it comes first.
    _Sender("gitea", "webhook.gogs.secret", "x-gitea-event", "x-gitea-signature"),
    _Sender("gogs", "webhook.gogs.secret", "x-gogs-event", "x-gogs-signature"),
    _Sender("gitlab", "webhook.gitlab.secret", "x-gitlab-event", "x-gitlab-token"),
    _Sender("github", "webhook.github.secret", "x-github-event", "x-hub-signature-256"),
    _Sender("generic", "webhook.generic.secret", "", "x-hub-signature-256"),
)


class WebhookReceiver:
    """Takes webhooks."""

    def __init__(self, repositories: Repositories[Any], settings: Settings) -> None:
        self._repositories = repositories
        self._settings = settings

    def handle(self, method: str, headers: Mapping[str, str], body: bytes) -> WebhookAnswer:
        """Take a request and return the answer; what it means is done beside it. headers: names in any case."""
        if method != "POST":
            return WebhookAnswer(405, "webhooks are posted")
        if len(body) > MAX_BYTES:
            return WebhookAnswer(413, f"more than {MAX_BYTES} bytes")
        given = {name.lower(): value for name, value in headers.items()}
        sender = next(one for one in _SENDERS if not one.event or one.event in given)
        secret = self._settings.secret("argocd-secret").get(sender.secret, "")
        if not secret:
            return WebhookAnswer(403, f"{sender.name}: set {sender.secret} in the Secret argocd-secret")
        if not _holds(sender, secret, given.get(sender.signature, ""), body):
            _log.warning("a webhook's signature does not hold", sender=sender.name)
            return WebhookAnswer(401, f"{sender.signature}: it does not hold")
        event = given.get(sender.event, "push")
        if event not in _PUSHES:
            return WebhookAnswer(200, f"{event}: nothing to do")
        return self._news(body)

    def _news(self, body: bytes) -> WebhookAnswer:
        try:
            payload = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return WebhookAnswer(400, "the body is no JSON")
        addresses = _addresses(payload)
        if not addresses:
            return WebhookAnswer(400, "the body names no repository")
        found = self._repositories.matching(addresses)
        for url in found:
            self._repositories.news(url)
        return WebhookAnswer(200, f"{len(found)} repositories are looked at")


def _holds(sender: _Sender, secret: str, given: str, body: bytes) -> bool:
    if sender.name == "gitlab":
        return hmac.compare_digest(given.encode(), secret.encode())
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    wanted = f"sha256={digest}" if sender.signature == "x-hub-signature-256" else digest
    return hmac.compare_digest(given.encode(), wanted.encode())


def _addresses(payload: Any) -> list[str]:
    found: list[str] = []
    if not isinstance(payload, dict):
        return found
    for name in ("repository", "project"):
        part = payload.get(name)
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, dict):
            found += [part[field] for field in _FIELDS if isinstance(part.get(field), str)]
    return [each for each in dict.fromkeys(found) if each][:_MAX_ADDRESSES]
