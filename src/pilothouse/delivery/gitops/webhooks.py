"""Webhooks of GitHub, GitLab, Gitea, Bitbucket and others: a push is looked at once, if it proves whose it is.

No server: whoever has one calls `WebhookReceiver.handle` with what it received, as `hookserver` does. Secrets are those
of Argo CD, in the Secret `argocd-secret`: `webhook.github.secret`, `webhook.gitlab.secret`, `webhook.gogs.secret`
(Gitea, Forgejo and Gogs), `webhook.bitbucket.uuid`, `webhook.bitbucketserver.secret`, `webhook.azuredevops.username`
and `.password`; beside them `webhook.generic.secret` for anything else, which signs as GitHub does and posts
`{"repository": "https://..."}`. Without its secret a sender is refused.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from pilothouse.foundation.logs import get_logger

from .repositories import Repositories
from .settings import PART_OF, Settings

__all__ = ["MAX_BYTES", "PATH", "WebhookAnswer", "WebhookReceiver"]

PATH: Final = "/api/webhook"
"""Where Argo CD has it."""
MAX_BYTES: Final = 25 << 20
"""Of a body; GitHub sends no larger ones."""
_SECRET: Final = "argocd-secret"  # noqa: S105  # the name of a Secret
_MAX_ADDRESSES: Final = 20
_PUSHES: Final = frozenset(
    {
        "push", "Push Hook", "Tag Push Hook", "create", "delete", "release", "repo:push", "repo:refs_changed",
        "git.push",
    }
)  # fmt: skip
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
    "remoteUrl",
)
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_log = get_logger("pilothouse.delivery.gitops")


class WebhookAnswer(NamedTuple):
    """What to answer: status of HTTP and a text."""

    status: int
    text: str


class _Sender(NamedTuple):
    name: str
    keys: tuple[str, ...]
    """Of the Secret: what proves that it is this one."""
    mark: str
    """The header by which it is known; without one it is anybody."""
    event: str
    """The header with the kind of event."""
    proof: str
    """The header with the signature, token or credentials."""
    prefix: str = ""
    """Of a signature; the rest is the SHA-256 HMAC of the body."""
    ping: str = ""
    """An event that only tries whether somebody listens, and is not signed."""


_HUB: Final = "x-hub-signature-256"
_SENDERS: Final = (
    _Sender(
        "azuredevops",
        ("webhook.azuredevops.username", "webhook.azuredevops.password"),
        "x-vss-activityid",
        "",
        "authorization",
    ),
    # Gitea also sends GitHub's headers, so it comes first.
    _Sender("gitea", ("webhook.gogs.secret",), "x-gitea-event", "x-gitea-event", "x-gitea-signature"),
    _Sender("gogs", ("webhook.gogs.secret",), "x-gogs-event", "x-gogs-event", "x-gogs-signature"),
    _Sender("github", ("webhook.github.secret",), "x-github-event", "x-github-event", _HUB, "sha256="),
    _Sender("gitlab", ("webhook.gitlab.secret",), "x-gitlab-event", "x-gitlab-event", "x-gitlab-token"),
    _Sender("bitbucket", ("webhook.bitbucket.uuid",), "x-hook-uuid", "x-event-key", "x-hook-uuid"),
    _Sender(
        "bitbucketserver",
        ("webhook.bitbucketserver.secret",),
        "x-event-key",
        "x-event-key",
        "x-hub-signature",
        "sha256=",
        "diagnostics:ping",
    ),
    _Sender("generic", ("webhook.generic.secret",), "", "", _HUB, "sha256="),
)
_PLAIN: Final = frozenset({"gitlab", "bitbucket"})
"""Those that send the secret itself."""


class _Resource(msgspec.Struct):
    """Azure DevOps has what happened here."""

    repository: Any = None


class _Payload(msgspec.Struct):
    """What is read of a body; the rest, which may be long, is skipped."""

    repository: Any = None
    project: Any = None
    resource: _Resource = msgspec.field(default_factory=_Resource)
    event: str = msgspec.field(default="", name="eventType")
    ref: Any = None
    after: Any = None

    @property
    def commit(self) -> str:
        """The commit that a branch has now, empty where none is named. A tag has an object of its own."""
        is_branch = not isinstance(self.ref, str) or self.ref.startswith("refs/heads/")
        is_commit = isinstance(self.after, str) and _COMMIT.fullmatch(self.after) is not None
        return self.after if is_branch and is_commit and self.after.strip("0") else ""


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
        sender = next(one for one in _SENDERS if not one.mark or one.mark in given)
        event = given.get(sender.event, "")
        if sender.ping and event == sender.ping:
            return WebhookAnswer(200, f"{event}: nothing to do")
        secrets = [self._secret(key) for key in sender.keys]
        if not all(secrets):
            missing = ", ".join(key for key, secret in zip(sender.keys, secrets, strict=True) if not secret)
            where = f"the Secret {_SECRET} (namespace {self._settings.namespace}, label {PART_OF})"
            return WebhookAnswer(403, f"{sender.name}: set {missing} in {where}")
        if not _holds(sender, secrets, given.get(sender.proof, ""), body):
            _log.warning("a webhook's signature does not hold", sender=sender.name)
            return WebhookAnswer(401, f"{sender.name}: {sender.proof} does not hold for what is in {_SECRET}")
        if event and event not in _PUSHES:
            return WebhookAnswer(200, f"{event}: nothing to do")
        return self._news(sender.name, body)

    def _secret(self, key: str) -> str:
        """Return a secret; as in Argo CD it may name a key of another Secret: `$NAME:KEY`."""
        text = self._settings.secret(_SECRET).get(key, "")
        if not text.startswith("$"):
            return text
        name, is_other, other = text[1:].partition(":")
        if is_other:
            return self._settings.secret(name).get(other, "")
        return self._settings.secret(_SECRET).get(name, text)

    def _news(self, sender: str, body: bytes) -> WebhookAnswer:
        try:
            payload = msgspec.json.decode(body, type=_Payload)
        except msgspec.ValidationError:
            payload = _Payload()
        except (msgspec.DecodeError, UnicodeDecodeError):
            if body.startswith(b"payload="):
                return WebhookAnswer(415, "the body is a form; choose the content type application/json at the sender")
            return WebhookAnswer(400, "the body is no JSON")
        if payload.event and payload.event not in _PUSHES:
            return WebhookAnswer(200, "nothing to do")
        addresses = _addresses(payload)
        if not addresses:
            return WebhookAnswer(400, "the body names no repository")
        found = self._repositories.matching(addresses)
        for url in found:
            self._repositories.news(url, payload.commit)
        _log.info("a webhook was taken", sender=sender, repositories=len(found))
        return WebhookAnswer(200, f"{len(found)} repositories are looked at")


def _holds(sender: _Sender, secrets: list[str], given: str, body: bytes) -> bool:
    if sender.name in _PLAIN:
        wanted = secrets[0]
    elif sender.name == "azuredevops":
        wanted = "Basic " + base64.b64encode(":".join(secrets).encode()).decode()
    else:
        wanted = sender.prefix + hmac.new(secrets[0].encode(), body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(given.encode(), wanted.encode())


def _addresses(payload: _Payload) -> list[str]:
    found: list[str] = []
    for part in (payload.repository, payload.project, payload.resource.repository):
        found += _named(part)
    return [each for each in dict.fromkeys(found) if each][:_MAX_ADDRESSES]


def _named(part: Any) -> Iterator[str]:
    """Yield the addresses by which a sender calls a repository; Bitbucket has them as links."""
    if isinstance(part, str):
        yield part
    if not isinstance(part, dict):
        return
    for field in _FIELDS:
        if isinstance(part.get(field), str):
            yield part[field]
    links = part.get("links")
    if not isinstance(links, dict):
        return
    for name in ("html", "clone"):
        many = links.get(name)
        for link in many if isinstance(many, list) else [many]:
            if isinstance(link, dict) and isinstance(link.get("href"), str):
                yield link["href"]
