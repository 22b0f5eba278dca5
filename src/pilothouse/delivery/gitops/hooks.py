"""What annotations of an object say of its sync: hooks, waves, options; Argo's, and those of Helm charts."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Final

__all__ = ["APPROVED", "HOOK_PHASES", "delete_policies_of", "is_hook", "options_of", "phases_of", "wave_of"]

HOOK: Final = "argocd.argoproj.io/hook"
POLICY: Final = "argocd.argoproj.io/hook-delete-policy"
WAVE: Final = "argocd.argoproj.io/sync-wave"
OPTIONS: Final = "argocd.argoproj.io/sync-options"
APPROVED: Final = "argocd.argoproj.io/deletion-approved"
"""The annotation of an application that lets go of what says `Prune=confirm`."""
HOOK_PHASES: Final = frozenset({"PreSync", "Sync", "PostSync", "SyncFail", "PreDelete", "PostDelete", "Skip"})
_HELM: Final = {
    "pre-install": "PreSync",
    "pre-upgrade": "PreSync",
    "post-install": "PostSync",
    "post-upgrade": "PostSync",
    "pre-delete": "PreDelete",
    "post-delete": "PostDelete",
    "pre-rollback": "Skip",
    "post-rollback": "Skip",
    "test": "Skip",
    "test-success": "Skip",
    "test-failure": "Skip",
}
_HELM_POLICIES: Final = {
    "before-hook-creation": "BeforeHookCreation",
    "hook-succeeded": "HookSucceeded",
    "hook-failed": "HookFailed",
}


def annotations_of(obj: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the annotations of an object."""
    return (obj.get("metadata") or {}).get("annotations") or {}


def _words(text: str) -> list[str]:
    return [word for each in text.split(",") if (word := each.strip())]


def phases_of(obj: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the phases in which an object is made as a hook; none for one that is no hook."""
    annotations = annotations_of(obj)
    found = [word for word in _words(annotations.get(HOOK, "")) if word in HOOK_PHASES]
    if HOOK in annotations:
        return tuple(dict.fromkeys(found))
    helm = [_HELM[word] for word in _words(annotations.get("helm.sh/hook", "")) if word in _HELM]
    real = [phase for phase in helm if phase != "Skip"] or helm
    return tuple(dict.fromkeys(real))


def is_hook(obj: Mapping[str, Any]) -> bool:
    """Whether an object is a hook."""
    return bool(phases_of(obj))


def wave_of(obj: Mapping[str, Any]) -> int:
    """Return the wave of an object; 0 where none is given, or what is given is no number."""
    annotations = annotations_of(obj)
    for name in (WAVE, "helm.sh/hook-weight"):
        with contextlib.suppress(ValueError):
            if name in annotations:
                return int(annotations[name])
    return 0


def delete_policies_of(obj: Mapping[str, Any]) -> tuple[str, ...]:
    """Return when a hook is deleted: BeforeHookCreation unless it says otherwise."""
    annotations = annotations_of(obj)
    known = set(_HELM_POLICIES.values())
    found = [word for word in _words(annotations.get(POLICY, "")) if word in known]
    words = _words(annotations.get("helm.sh/hook-delete-policy", ""))
    found += [_HELM_POLICIES[word] for word in words if word in _HELM_POLICIES]
    return tuple(dict.fromkeys(found)) or ("BeforeHookCreation",)


def options_of(obj: Mapping[str, Any]) -> frozenset[str]:
    """Return the sync options of one object."""
    return frozenset(_words(annotations_of(obj).get(OPTIONS, "")))
