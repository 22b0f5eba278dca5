"""Service levels as pages show them: what `pilothouse slo` says, and the budget that was left day by day. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from .feeds import Digest, Source

__all__ = ["SERVICE_LEVELS", "service_level"]

_MOST_TEXT: Final = 500
_TRACKING: Final = "argocd.argoproj.io/tracking-id"
_NEVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LITTLE: Final = 25.0
_FAST_HOUR, _FAST_SIX = 14.4, 6.0
"""Burn rates over an hour and over six at which the Site Reliability Workbook (chapter 5) has somebody paged."""


def service_level(obj: Mapping[str, Any]) -> Digest:
    """Return a service level's digest. `problem` says why where it cannot be read; never raises."""
    given = obj.get("metadata")
    metadata: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
    base: Digest = {
        "namespace": _text(metadata.get("namespace")),
        "name": _text(metadata.get("name")),
        "uid": _text(metadata.get("uid")),
        "created": _text(metadata.get("creationTimestamp")),
        "application": _application(metadata),
    }
    from pilothouse.delivery.reliability.figures import ObjectiveError, objective_of  # noqa: PLC0415
    from pilothouse.delivery.reliability.showing import view_of  # noqa: PLC0415
    from pilothouse.delivery.resources.servicelevels import ServiceLevel  # noqa: PLC0415
    from pilothouse.kinds import times  # noqa: PLC0415
    from pilothouse.kinds.structs import StructError, from_dict, to_dict  # noqa: PLC0415

    try:
        level = from_dict({"spec": obj.get("spec"), "status": obj.get("status") or {}}, ServiceLevel)
        until = level.status.counted_until
        view = view_of(level, times.parse(until) if until else _NEVER)
        allowed = 1 - objective_of(level.spec)
    except (StructError, ObjectiveError, ValueError, OverflowError) as error:
        return base | {"problem": _text(error), "objective": "", "rollout": "", "days": [], "deploys": []}
    days = [
        {"day": each.day, "requests": int(each.requests), "bad": int(each.bad), "kept": each.budget_kept}
        for each in view.days
    ]
    return base | {
        "problem": "",
        "rollout": _text(view.rollout),
        "routes": [_text(each) for each in level.spec.routes][:20],
        "objective": _text(view.objective),
        "allowed": allowed,
        "window": int(view.window_days),
        "latency": _text(view.latency),
        "requests": int(view.requests),
        "attained": _text(view.attained),
        "budgetLeft": _text(view.budget_left),
        "burn1h": _text(view.burn_rate_1h),
        "burn6h": _text(view.burn_rate_6h),
        "deployCount": int(view.deploys),
        "deploysPerDay": _text(view.deploys_per_day),
        "successRate": _text(view.success_rate),
        "leadTime": None if view.lead_time_seconds is None else int(view.lead_time_seconds),
        "restore": _text(view.restore_seconds),
        "countedUntil": _text(until),
        "days": days if until else [],
        "left": _left(days, allowed) if until else [],
        "deploys": [to_dict(each) for each in reversed(view.recent_deploys)],
        "tone": _tone(view.budget_left, view.burn_rate_1h, view.burn_rate_6h),
    }


def _left(days: Sequence[Mapping[str, Any]], allowed: float) -> list[float | None]:
    """Return the share of the whole window's budget that was left at the end of each day; None before the first."""
    whole = sum(each["requests"] for each in days) * allowed
    bad, found, has_begun = 0, list[float | None](), False
    for each in days:
        has_begun = has_begun or bool(each["requests"])
        bad += each["bad"]
        found.append(round(1 - bad / whole, 4) if has_begun and whole else None)
    return found


def _tone(left: str | None, hour: str | None, six: str | None) -> str:
    """Return how a level is: bad where the budget is spent, warn where little is left or it goes fast."""
    share = _number((left or "").removesuffix("%"))
    if share is None:
        return "none"
    if share <= 0:
        return "bad"
    is_fast = (_number(hour) or 0) > _FAST_HOUR or (_number(six) or 0) > _FAST_SIX
    return "warn" if share < _LITTLE or is_fast else "good"


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _application(metadata: Mapping[str, Any]) -> str:
    """Return NAMESPACE/NAME of the application that brought it, as its mark says; empty where none did."""
    notes = metadata.get("annotations")
    mark = _text(notes.get(_TRACKING)) if isinstance(notes, Mapping) else ""
    instance, _, rest = mark.partition(":")
    if not rest:
        return ""
    namespace, sep, name = instance.partition("_")
    return f"{namespace}/{name}" if sep else f"argocd/{instance}"


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:_MOST_TEXT]


SERVICE_LEVELS: Final = Source("servicelevels", "pilothouse.dev", "v1alpha1", "ServiceLevel", service_level)
