"""What Argo's ConfigMap and Secret say of notifications: services, triggers, templates, subscriptions. Pure.

What cannot be read is left out and told in `problems`; the rest works. `$key` in a service is that key of the Secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pilothouse.delivery.errors import NoticeError
from pilothouse.delivery.gitops.errors import ManifestError
from pilothouse.delivery.gitops.manifests import read_documents

__all__ = ["Condition", "Service", "Settings", "Subscription", "read_settings"]

KINDS: Final = ("webhook", "slack", "email")
_KEY: Final = re.compile(r"\$([A-Za-z0-9_.-]*[A-Za-z0-9_-])")
_MOST_TEXT: Final = 64 << 10
_MOST: Final = 500


@dataclass(frozen=True, slots=True)
class Service:
    """Where notifications go. kind: webhook, slack or email; options: as the ConfigMap has them, with secrets."""

    name: str
    kind: str
    options: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Condition:
    """One of a trigger. when: an expression; once_per: an expression for what it is told once for."""

    send: tuple[str, ...]
    when: str = ""
    once_per: str = ""


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who is told without an annotation. recipients: SERVICE:RECIPIENT; selector: of labels."""

    recipients: tuple[str, ...]
    triggers: tuple[str, ...]
    selector: str = ""


@dataclass(frozen=True, slots=True)
class Settings:
    """What is set. defaults: triggers of subscriptions that name none, by service, of all under an empty name."""

    services: Mapping[str, Service] = field(default_factory=dict)
    triggers: Mapping[str, tuple[Condition, ...]] = field(default_factory=dict)
    templates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    subscriptions: tuple[Subscription, ...] = ()
    defaults: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    context: Mapping[str, str] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def read_settings(data: Mapping[str, str], secret: Mapping[str, bytes], stock: Settings | None = None) -> Settings:
    """Return what a ConfigMap and its Secret say; stock: what there is where they say nothing of it."""
    services: dict[str, Service] = {}
    triggers = dict(stock.triggers) if stock is not None else {}
    templates = dict(stock.templates) if stock is not None else {}
    subscriptions: tuple[Subscription, ...] = ()
    defaults: dict[str, tuple[str, ...]] = {}
    context: dict[str, str] = {}
    problems: list[str] = []
    for key in sorted(data)[:_MOST]:
        group, _, name = key.partition(".")
        try:
            value = _parsed(key, data[key])
            if group == "service":
                made = _service(name, value, secret)
                services[made.name] = made
            elif group == "trigger":
                triggers[name] = _conditions(key, value)
            elif group == "template":
                templates[name] = _mapping(key, value)
            elif group == "subscriptions":
                subscriptions = _subscriptions(key, value)
            elif group == "defaultTriggers":
                defaults[name] = _texts(key, value)
            elif group == "context":
                context = {str(each): str(text) for each, text in _mapping(key, value).items()}
        except NoticeError as error:
            problems.append(str(error))
    return Settings(services, triggers, templates, subscriptions, defaults, context, tuple(problems))


def _parsed(key: str, text: str) -> Any:
    if len(text) > _MOST_TEXT:
        raise NoticeError(f"{key}: {len(text)} characters; {_MOST_TEXT} are the most")
    try:
        return next((value for _, value in read_documents(key, text.encode())), None)
    except ManifestError as error:
        raise NoticeError(str(error)) from None


def _service(name: str, value: Any, secret: Mapping[str, bytes]) -> Service:
    kind, _, own = name.partition(".")
    if kind not in KINDS:
        raise NoticeError(f"service.{name}: '{kind}' is not there; use {', '.join(KINDS)}")
    options = _filled(f"service.{name}", _mapping(f"service.{name}", value), secret)
    return Service(own or kind, kind, options)


def _filled(key: str, value: Any, secret: Mapping[str, bytes]) -> Any:
    """Return a value with `$key` replaced in its texts. Raises NoticeError for a key that the Secret has not."""
    if isinstance(value, Mapping):
        return {name: _filled(key, each, secret) for name, each in value.items()}
    if isinstance(value, list):
        return [_filled(key, each, secret) for each in value]
    if not isinstance(value, str):
        return value

    def put(found: re.Match[str]) -> str:
        if found[1] not in secret:
            raise NoticeError(f"{key}: the Secret has no key '{found[1]}'")
        return bytes(secret[found[1]]).decode("utf-8", "replace").strip()

    return _KEY.sub(put, value)


def _conditions(key: str, value: Any) -> tuple[Condition, ...]:
    if not isinstance(value, list):
        raise NoticeError(f"{key}: want a list of conditions, each with `send`")
    return tuple(_condition(key, _mapping(key, each)) for each in value)


def _condition(key: str, value: Mapping[str, Any]) -> Condition:
    when = value.get("when")
    when = "" if when is None else str(when).lower() if isinstance(when, bool) else str(when)
    return Condition(_texts(f"{key}: send", value.get("send")), when, str(value.get("oncePer") or ""))


def _subscriptions(key: str, value: Any) -> tuple[Subscription, ...]:
    if not isinstance(value, list):
        raise NoticeError(f"{key}: want a list, each with recipients and triggers")
    made = []
    for each in value:
        one = _mapping(key, each)
        recipients, triggers = _texts(key, one.get("recipients")), _texts(key, one.get("triggers") or [])
        made.append(Subscription(recipients, triggers, str(one.get("selector") or "")))
    return tuple(made)


def _mapping(key: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise NoticeError(f"{key}: want fields, not {type(value).__name__}")
    return value


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise NoticeError(f"{key}: want a list of texts")
    return tuple(value)
