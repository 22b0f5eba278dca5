"""Who is to be told what of an object now, and what of that was told before. Pure.

What was told is in the annotation `notified.notifications.argoproj.io`, as Argo keeps it: a JSON object from
`ONCEPER:TRIGGER:CONDITION:SERVICE:RECIPIENT` to the second since 1970.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from pilothouse.delivery.analysis.expressions import ExpressionError, compiled
from pilothouse.delivery.errors import NoticeError
from pilothouse.delivery.gitops.errors import ManifestError
from pilothouse.delivery.gitops.manifests import read_documents
from pilothouse.kinds import labels as selectors
from pilothouse.kinds.structs import ObjectMeta

from .messages import Message, compose, fill
from .occasions import OCCASIONS, Occasion
from .settings import Condition, Settings

__all__ = ["NOTIFIED", "Destination", "Notice", "Plan", "destinations", "plan", "read_told", "told_text"]

_PREFIX: Final = "notifications.argoproj.io/"
_SUBSCRIBE: Final = f"{_PREFIX}subscribe."
NOTIFIED: Final = "notified.notifications.argoproj.io"
_KEPT: Final = 100
"""Of what holds no more."""
_MOST: Final = 100
"""Destinations of one object."""


class Destination(NamedTuple):
    """Who is told, by which service, of which trigger."""

    trigger: str
    service: str
    recipient: str


@dataclass(frozen=True, slots=True)
class Notice:
    """One message to one recipient. key: under which it is remembered that it was told."""

    key: str
    destination: Destination
    message: Message


@dataclass(frozen=True, slots=True)
class Plan:
    """notices: to be sent now. held: keys of all that holds now, told or not. problems: for people.

    forgotten: keys of what holds no more, so that it is told again when it does.
    """

    notices: tuple[Notice, ...] = ()
    held: frozenset[str] = frozenset()
    forgotten: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()


def plan(
    metadata: ObjectMeta,
    values: Mapping[str, Any],
    settings: Settings,
    *,
    given: Sequence[Occasion] | None = None,
    now: float = 0.0,
) -> Plan:
    """Return what is to be sent. values: what expressions and templates see, such as `app`. now: seconds since 1970.

    given: what there is to tell of a rollout; triggers of OCCASIONS are told once for each, if their condition, where
    they have one, is met too. All others are told by their conditions alone.
    """
    making = _Making(values, settings, read_told(metadata), given, now)
    for destination in destinations(metadata, settings, making.problems):
        conditions = settings.triggers.get(destination.trigger)
        if conditions is None:
            making.problems.append(f"a subscription names trigger '{destination.trigger}', which is not there")
        elif destination.service not in settings.services:
            making.problems.append(f"a subscription names service '{destination.service}', which is not there")
        else:
            for number, condition in enumerate(conditions):
                making.take(destination, condition, f"[{number}].{_hash(condition.when)}")
    problems = tuple(dict.fromkeys(making.problems))
    return Plan(tuple(making.notices), frozenset(making.held), frozenset(making.forgotten), problems)


@dataclass(slots=True)
class _Making:
    values: Mapping[str, Any]
    settings: Settings
    told: Mapping[str, int]
    given: Sequence[Occasion] | None
    now: float
    notices: list[Notice] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    forgotten: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def take(self, destination: Destination, condition: Condition, where: str) -> None:
        rest = f"{destination.trigger}:{where}:{destination.service}:{destination.recipient}"
        try:
            found = self._occasions(destination.trigger, condition)
            for occasion in found:
                self._tell(f"{occasion.key}:{rest}" if occasion.key else rest, destination, condition, occasion)
            if not found:
                self.forgotten |= {key for key in self.told if key == rest or key.startswith(f"{rest}#")}
        except (ExpressionError, NoticeError) as error:
            self.problems.append(f"trigger {destination.trigger}: {error}")

    def _occasions(self, trigger: str, condition: Condition) -> list[Occasion]:
        if self.given is not None and trigger in OCCASIONS:
            found = [each for each in self.given if each.trigger == trigger]
            return [each for each in found if _is_met(condition.when, {**self.values, **each.values})]
        if not condition.when and self.given is not None:
            raise NoticeError("it is none of those that rollouts tell, and has no `when`")
        if not _is_met(condition.when, self.values):
            return []
        once = compiled(condition.once_per)(self.values) if condition.once_per else ""
        return [Occasion(trigger, "" if once is None else str(once))]

    def _tell(self, key: str, destination: Destination, condition: Condition, occasion: Occasion) -> None:
        service = self.settings.services[destination.service]
        for number, name in enumerate(condition.send):
            # Several templates of one condition are remembered one by one, as one of them may fail.
            own = f"{key}#{name}" if number else key
            self.held.add(own)
            if own in self.told:
                continue
            template = self.settings.templates.get(name)
            if template is None:
                raise NoticeError(f"template '{name}' is not there")
            content = fill(name, template, self._seen(destination, service.kind, occasion))
            message = compose(service, destination.recipient, content, now=self.now)
            self.notices.append(Notice(own, destination, message))

    def _seen(self, destination: Destination, kind: str, occasion: Occasion) -> Mapping[str, Any]:
        more = {"recipient": destination.recipient, "serviceType": kind, "context": dict(self.settings.context)}
        return {**self.values, **occasion.values, **more}


def _is_met(when: str, values: Mapping[str, Any]) -> bool:
    if not when:
        return True
    found = compiled(when)(values)
    if not isinstance(found, bool):
        raise ExpressionError(f"condition '{when}' is neither true nor false")
    return found


# Who


def destinations(metadata: ObjectMeta, settings: Settings, problems: list[str] | None = None) -> list[Destination]:
    """Return whom an object's annotations and the settings' own subscriptions name, each once."""
    found: dict[Destination, None] = {}
    for name in sorted(metadata.annotations):
        if name.startswith(_SUBSCRIBE):
            trigger, _, service = name.removeprefix(_SUBSCRIBE).rpartition(".")
            recipients = [each.strip() for each in metadata.annotations[name].split(";")]
            _add(found, settings, [trigger] if trigger else [], service, recipients)
        elif name == f"{_PREFIX}subscriptions":
            _listed(found, settings, metadata.annotations[name], problems)
    for each in settings.subscriptions:
        try:
            if each.selector and not selectors.parse(each.selector).matches(metadata.labels):
                continue
        except selectors.SelectorError as error:
            _note(problems, f"subscriptions: selector '{each.selector}': {error}")
            continue
        for recipient in each.recipients:
            service, _, name = recipient.partition(":")
            _add(found, settings, each.triggers, service, [name])
    if len(found) > _MOST:
        _note(problems, f"{len(found)} subscriptions; the first {_MOST} count")
    return [*found][:_MOST]


def _add(
    found: dict[Destination, None],
    settings: Settings,
    triggers: Iterable[str],
    service: str,
    recipients: Iterable[str],
) -> None:
    chosen = [*triggers] or settings.defaults.get(service) or settings.defaults.get("") or ()
    for trigger in chosen:
        for recipient in dict.fromkeys(recipients):
            found[Destination(trigger, service, recipient)] = None


def _listed(found: dict[Destination, None], settings: Settings, text: str, problems: list[str] | None) -> None:
    try:
        listed: Any = next((value for _, value in read_documents("subscriptions", text[: 64 << 10].encode())), [])
        for each in listed:
            triggers = each.get("trigger") or []
            triggers = [triggers] if isinstance(triggers, str) else triggers
            for one in each.get("destinations") or ():
                _add(found, settings, triggers, str(one["service"]), [str(x) for x in one.get("recipients") or [""]])
    except (ManifestError, AttributeError, KeyError, TypeError):
        _note(problems, f"annotation {_PREFIX}subscriptions: want a list of trigger and destinations")


def _note(problems: list[str] | None, text: str) -> None:
    if problems is not None:
        problems.append(text)


# What was told


def read_told(metadata: ObjectMeta) -> dict[str, int]:
    """Return what the annotation says was told; nothing where it cannot be read."""
    try:
        found = json.loads(metadata.annotations.get(NOTIFIED) or "{}")
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: at for key, at in found.items() if isinstance(at, int)}


def told_text(told: Mapping[str, int], made: Plan, now: float) -> str | None:
    """Return what the annotation becomes, None where nothing is to be remembered.

    told: what was told, with what was told just now. All that holds is kept, of the rest what was told last.
    """
    kept = {key: at for key, at in told.items() if key not in made.forgotten}
    past = sorted(((at, key) for key, at in kept.items() if key not in made.held), reverse=True)[:_KEPT]
    chosen = made.held | {key for _, key in past}
    kept = {key: min(at, int(now)) for key, at in sorted(kept.items()) if key in chosen}
    return json.dumps(kept, separators=(",", ":")) if kept else None


def _hash(text: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha1(text.encode(), usedforsecurity=False).digest()).decode().rstrip("=")
