"""Incidents as pages show them: why a version was taken back, by what numbers, and what became of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .feeds import Digest, Source

__all__ = ["INCIDENTS", "incident"]

_MOST: Final = 40
_MOST_TEXT: Final = 1_000


def incident(obj: Mapping[str, Any]) -> Digest:
    """Return an incident's digest. Never raises."""
    metadata, spec, status = _map(obj.get("metadata")), _map(obj.get("spec")), _map(obj.get("status"))
    git = _map(status.get("git"))
    return {
        "namespace": _text(metadata.get("namespace")),
        "name": _text(metadata.get("name")),
        "rollout": _text(spec.get("rollout")),
        "revision": _text(spec.get("revision")),
        "cause": _text(spec.get("cause")),
        "message": _text(spec.get("message")),
        "decided": _text(spec.get("decidedAt")),
        "commits": [_text(each) for each in _list(spec.get("gitRevisions"))],
        "people": [_text(each) for each in _list(spec.get("people"))],
        "phase": _text(status.get("phase")),
        "evidence": [_evidence(_map(each)) for each in _list(status.get("evidence"))],
        "samples": [_text(each) for each in _list(status.get("samples"))],
        "timeline": [
            {name: _text(_map(each).get(name)) for name in ("at", "what", "message")}
            for each in _list(status.get("timeline"))
        ],
        "git": {name: _text(git.get(name)) for name in ("state", "message", "commit", "branch")},
    }


def _evidence(each: Mapping[str, Any]) -> Digest:
    numbers = {
        side: {_text(key): _text(value) for key, value in [*_map(each.get(side)).items()][:_MOST]}
        for side in ("canary", "stable")
    }
    return {name: _text(each.get(name)) for name in ("metric", "phase", "message")} | numbers


def _map(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> Sequence[Any]:
    return value[:_MOST] if isinstance(value, list) else ()


def _text(value: Any) -> str:
    return "" if value is None else str(value)[:_MOST_TEXT]


INCIDENTS: Final = Source("incidents", "pilothouse.dev", "v1alpha1", "Incident", incident)
