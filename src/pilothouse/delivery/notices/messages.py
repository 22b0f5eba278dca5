"""What is sent for one notification: a template filled in, as the request or the mail that a service wants. Pure."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from pilothouse.delivery.errors import NoticeError
from pilothouse.delivery.gitops.appsets.gotemplate import expand_all
from pilothouse.delivery.gitops.errors import TemplateError

from .settings import Service

__all__ = ["Call", "Content", "Mail", "Message", "compose", "fill"]

_SLACK: Final = "https://slack.com/api"
_METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Content:
    """A template filled in. parts: what is for one service alone, such as `slack`."""

    message: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request; only its host may be shown. slack: the answer says `ok` in its body as Slack's API does."""

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    insecure: bool = False
    slack: bool = False

    @property
    def host(self) -> str:
        """Where it goes, without what may be secret."""
        return urlsplit(self.url).hostname or "?"


@dataclass(frozen=True, slots=True)
class Mail:
    """An e-mail, and the server that takes it."""

    host: str
    port: int
    sender: str
    recipient: str
    text: EmailMessage = field(repr=False)
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    insecure: bool = False


Message: TypeAlias = Call | Mail


def fill(name: str, template: Mapping[str, Any], values: Mapping[str, Any]) -> Content:
    """Fill in a template. Raises NoticeError for what it has that is not understood."""
    try:
        made = expand_all(dict(template), values)
    except TemplateError as error:
        raise NoticeError(f"template.{name}: {error}") from None
    return Content(str(made.get("message") or ""), {each: part for each, part in made.items() if each != "message"})


def compose(service: Service, recipient: str, content: Content, *, now: float = 0.0) -> Message:
    """Return what a service is to be sent. now: seconds since 1970, for mail. Raises NoticeError."""
    if service.kind == "webhook":
        return _webhook(service, content)
    if service.kind == "slack":
        return _slack(service, recipient, content)
    return _mail(service, recipient, content, now)


# Webhook


def _webhook(service: Service, content: Content) -> Call:
    options = service.options
    own = _part(_part(content.parts, "webhook"), service.name)
    if not own:
        # What Slack and everything like it takes; Argo sends a GET, which tells nothing.
        own = {"method": "POST", "body": json.dumps({"text": content.message})}
    method = str(own.get("method") or "GET").upper()
    if method not in _METHODS:
        raise NoticeError(f"service.webhook.{service.name}: method '{method}' is not allowed")
    headers = {str(each.get("name")): str(each.get("value")) for each in options.get("headers") or ()}
    if (pair := options.get("basicAuth")) is not None:
        secret = f"{pair.get('username', '')}:{pair.get('password', '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
    path = str(own.get("path") or "")
    url = _url(service, "url")
    url = f"{url.rstrip('/')}/{path.lstrip('/')}" if path else url
    body = str(own.get("body") or "") or content.message
    return Call(method, url, headers, body.encode(), insecure=bool(options.get("insecureSkipVerify")))


def _url(service: Service, name: str) -> str:
    url = str(service.options.get(name) or "")
    if urlsplit(url).scheme not in {"http", "https"} or not urlsplit(url).hostname:
        raise NoticeError(f"service.{service.kind} {service.name}: {name} is no http(s) address")
    return url


# Slack


def _slack(service: Service, recipient: str, content: Content) -> Call:
    options, own = service.options, _part(content.parts, "slack")
    body: dict[str, Any] = {"text": content.message}
    for name in ("attachments", "blocks"):
        if own.get(name):
            body[name] = _json(f"slack.{name}", own[name])
    for name, wanted in (("username", "username"), ("icon", "icon_emoji")):
        if options.get(name):
            icon = name == "icon" and str(options[name]).startswith("http")
            body["icon_url" if icon else wanted] = options[name]
    headers = {"Content-Type": "application/json; charset=utf-8"}
    if options.get("webhookURL"):
        return Call("POST", _url(service, "webhookURL"), headers, json.dumps(body).encode())
    if not options.get("token"):
        raise NoticeError(f"service.slack {service.name}: want token, or webhookURL of an incoming webhook")
    if not recipient:
        raise NoticeError(f"service.slack {service.name}: a subscription names no channel")
    url = f"{str(options.get('apiURL') or _SLACK).rstrip('/')}/chat.postMessage"
    headers["Authorization"] = f"Bearer {options['token']}"
    insecure = bool(options.get("insecureSkipVerify"))
    return Call("POST", url, headers, json.dumps({"channel": recipient, **body}).encode(), insecure, slack=True)


def _json(where: str, text: Any) -> Any:
    if not isinstance(text, str):
        return text
    try:
        return json.loads(text, strict=False)
    except ValueError as error:
        raise NoticeError(f"{where}: it is no JSON once filled in: {error}") from None


# E-mail


def _mail(service: Service, recipient: str, content: Content, now: float) -> Mail:
    options, own = service.options, _part(content.parts, "email")
    host, sender = str(options.get("host") or ""), str(options.get("from") or options.get("username") or "")
    if not host or not sender:
        raise NoticeError(f"service.email {service.name}: want host and from")
    subject = str(own.get("subject") or content.message.strip().partition("\n")[0])
    text = EmailMessage()
    try:
        text["From"], text["To"], text["Subject"] = sender, recipient, " ".join(subject.split())[:900]
        text["Date"], text["Message-ID"] = formatdate(now), make_msgid(domain="pilothouse.invalid")
        port = int(options.get("port") or 587)
    except ValueError as error:
        raise NoticeError(f"service.email {service.name}: {error}") from None
    body = str(own.get("body") or content.message)
    text.set_content(body, subtype="html" if options.get("html") else "plain")
    return Mail(
        host,
        port,
        sender,
        recipient,
        text,
        str(options.get("username") or ""),
        str(options.get("password") or ""),
        insecure=bool(options.get("insecure_skip_verify")),
    )


def _part(parts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = parts.get(name)
    return found if isinstance(found, Mapping) else {}
