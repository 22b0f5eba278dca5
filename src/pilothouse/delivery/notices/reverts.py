"""What is to be reverted in git, and whether that is allowed: the plan of a revert. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from pilothouse.delivery.gitops.addresses import normalised
from pilothouse.delivery.resources.applications import Application, Source
from pilothouse.delivery.resources.incidents import Incident

__all__ = ["BRANCHES", "KEY", "Revert", "chosen", "message_of", "mode_of", "pause_seconds", "revert_of"]

KEY: Final = "pilothouseRevert"
"""The key of a repository's Secret that allows reverts: `commit` on the branch itself, or `branch` for a new one."""
BRANCHES: Final = "pilothouse/revert-"
TRAILER: Final = "Pilothouse-Incident"
_MODES: Final = frozenset({"commit", "branch"})
_MOST_COMMITS: Final = 20
_FIRST_PAUSE: Final = 5.0
_MOST_PAUSE: Final = 300.0


@dataclass(frozen=True, slots=True)
class Revert:
    """A revert that is to be made. bad: the commit; good: the one before it that was synced, where it is known.

    revision: the branch, as the application names it. path: of the application in the repository.
    """

    url: str
    revision: str
    path: str
    bad: str
    good: str
    mode: str
    incident: str
    message: str

    @property
    def new_branch(self) -> str:
        """The branch of mode `branch`."""
        return f"{BRANCHES}{self.bad[:12]}"


def mode_of(secrets: Iterable[Mapping[str, str]], url: str, project: str) -> str:
    """Return how reverts are allowed by a repository's own Secret: commit, branch, or empty where they are not."""
    wanted = normalised(url)
    for each in secrets:
        if normalised(each.get("url", "")) == wanted and each.get("project", "") in {"", project}:
            mode = each.get(KEY, "").strip()
            if mode in _MODES:
                return mode
    return ""


def source_of(app: Application) -> Source | None:
    """Return the one source in git of an application, None where it has several, or a chart."""
    sources = [app.spec.source] if app.spec.source is not None else [*app.spec.sources]
    if len(sources) != 1 or sources[0].chart or not sources[0].repo_url:
        return None
    return sources[0]


def revert_of(incident: Incident, app: Application, secrets: Iterable[Mapping[str, str]]) -> Revert | str:
    """Return the revert of an incident, or why there is none to be made."""
    source = source_of(app)
    if not incident.spec.git_revisions:
        return "nothing is known of the revision in git"
    if source is None:
        return "the application has several sources, or a chart; revert it by hand"
    mode = mode_of(secrets, source.repo_url, app.spec.project or "default")
    if not mode:
        return f"the repository's Secret does not allow it; set {KEY} to commit or branch"
    return Revert(
        url=source.repo_url,
        revision=source.target_revision,
        path=source.path,
        bad=incident.spec.git_revisions[0],
        good=incident.spec.good_revision or "",
        mode=mode,
        incident=f"{incident.metadata.namespace}/{incident.metadata.name}",
        message=message_of(incident),
    )


def message_of(incident: Incident) -> str:
    """Return the message of a revert commit. It names the incident, by which it is found again."""
    spec = incident.spec
    name = f"{incident.metadata.namespace}/{incident.metadata.name}"
    bad = spec.git_revisions[0] if spec.git_revisions else ""
    why = " ".join(spec.message.split())[:300]
    lines = [
        f"revert: {spec.rollout} was rolled back from {bad[:12]}",
        "",
        f"Rollout {incident.metadata.namespace}/{spec.rollout} was taken back at {spec.decided_at}:",
        f"{why}.",
        "",
        f"This reverts commit {bad}.",
        f"See it by: kubectl get incident -n {incident.metadata.namespace} {incident.metadata.name} -o yaml",
        "",
        f"{TRAILER}: {name}",
    ]
    return "\n".join(lines) + "\n"


def chosen(touching: Sequence[str], between: Sequence[str], bad: str) -> Sequence[str]:
    """Return which commits to revert, the newest first.

    touching: those since the good one that change the application's own path; between: all of them. Where nothing is
    known of a good one, or it is far away, it is the bad one alone.
    """
    for listed in (touching, between):
        if 0 < len(listed) <= _MOST_COMMITS:
            return listed
    return [bad]


def pause_seconds(attempts: int) -> float:
    """Return the seconds until a revert that failed is tried again."""
    return float(min(_FIRST_PAUSE * 2 ** min(attempts, 16), _MOST_PAUSE))
