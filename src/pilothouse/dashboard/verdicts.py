"""How a rollout stands, in a word and a sentence. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

__all__ = ["DEFAULT_LIMITS", "Stand", "limits_of", "stand_of"]

DEFAULT_LIMITS: Final = {"errors": 0.003, "p95": 0.8}
"""What our own judgement goes by where nothing else is said: share of errors, seconds."""
_BAD: Final = frozenset({"Failed", "Error"})
_UNITS: Final = {"ms": 1e-3, "us": 1e-6, "s": 1.0, "m": 60.0}


class Stand(NamedTuple):
    """tone: good, busy, wait, warn or bad."""

    word: str
    tone: str
    text: str = ""


def stand_of(rollout: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> Stand:
    """Return how a rollout stands. runs: digests of the analysis runs that count now."""
    message = str(rollout["message"])
    bad = next((each for each in runs if each["phase"] in _BAD), None)
    if rollout["aborted"]:
        return Stand("Rolled back", "bad", (_why(bad) if bad else "") or message or "the new version was taken back")
    if bad is not None:
        return Stand("Failed", "bad", _why(bad) or message)
    if rollout["phase"] == "Degraded":
        return Stand("Degraded", "bad", message)
    unsure = next((each for each in runs if each["phase"] == "Inconclusive"), None)
    if unsure is not None:
        return Stand("Inconclusive", "warn", _why(unsure) or "too little was seen to judge by")
    running = next((each for each in runs if each["phase"] == "Running"), None)
    seen = _why(running) if running else ""
    if rollout["userPaused"]:
        return Stand("Paused", "wait", "somebody paused it; resume or promote it to go on")
    if rollout["pauses"]:
        return Stand("Waiting", "wait", seen or _waits(rollout))
    if rollout["phase"] == "Healthy":
        return Stand("Healthy", "good", seen or message or "all traffic is on one version")
    if running is not None:
        return Stand("Healthy so far", "busy", seen or "nothing speaks against the new version")
    return Stand("Progressing", "busy", message)


def _waits(rollout: Mapping[str, Any]) -> str:
    """Say what is waited for; controllers' own messages are names such as CanaryPauseStep."""
    steps, at = rollout["steps"], rollout["step"]
    if at < len(steps) and steps[at]["kind"] == "pause" and steps[at]["text"] != "wait for promotion":
        return f"it waits at step {at + 1} of {len(steps)} and goes on by itself: {steps[at]['text']}"
    where = f"at step {at + 1} of {len(steps)}" if at < len(steps) else "at a pause"
    return f"it waits {where} until somebody promotes it"


def _why(run: Mapping[str, Any] | None) -> str:
    if run is None:
        return ""
    telling = [each for each in run["metrics"] if each["phase"] == run["phase"] and each["message"]]
    return str(telling[0]["message"]) if telling else str(run["message"])


def limits_of(runs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the limits that traffic is judged by: those of the first metric that says so, else the defaults."""
    found = dict(DEFAULT_LIMITS)
    for limits in (metric["limits"] for run in runs for metric in run["metrics"] if metric["limits"]):
        errors, p95 = _share(limits.get("errors", "")), _seconds(limits.get("p95", ""))
        return found | ({} if errors is None else {"errors": errors}) | ({} if p95 is None else {"p95": p95})
    return found


def _share(text: str) -> float | None:
    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        return None


def _seconds(text: str) -> float | None:
    unit = next((each for each in _UNITS if text.endswith(each)), "")
    try:
        return float(text.removesuffix(unit)) * _UNITS.get(unit, 1.0)
    except ValueError:
        return None
