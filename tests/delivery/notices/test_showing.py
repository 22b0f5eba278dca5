"""The pages of incidents: a list, and one with all that is known."""

from __future__ import annotations

from datetime import UTC, datetime

from pilothouse.delivery.notices.showing import COLUMNS, page_of, row_of, view_of
from pilothouse.delivery.resources.incidents import Incident
from pilothouse.kinds.structs import from_dict

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SAMPLE = "2026-03-01T12:00:01Z GET /cart: 500 in 12 ms by shop-canary, for cn-east, trace 0af7"
TREE = {
    "metadata": {"name": "shop-6f9c", "namespace": "default"},
    "spec": {
        "rollout": "shop",
        "version": "6f9c",
        "decidedAt": "2026-03-01T12:00:04Z",
        "cause": "Analysis",
        "message": "2.1 % errors",
        "application": "argocd/shop",
        "gitRevisions": ["0123456789abcdef"],
        "people": ["ada"],
    },
    "status": {
        "phase": "Closed",
        "firstBadAt": "2026-03-01T12:00:01Z",
        "trafficBackAt": "2026-03-01T12:00:05Z",
        "evidence": [
            {
                "run": "shop-1",
                "metric": "errors",
                "phase": "Failed",
                "message": "too many\x1b[31m",
                "canary": {"errorRatio": "2.10%"},
                "stable": {"errorRatio": "0.01%"},
            }
        ],
        "samples": [SAMPLE],
        "git": {"state": "Reverted", "message": "reverted in abc"},
        "timeline": [{"at": "2026-03-01T12:00:04Z", "what": "Decided", "message": "2.1 % errors"}],
    },
}


def test_a_page_has_why_what_was_measured_samples_and_moments() -> None:
    view = view_of(from_dict(TREE, Incident))
    assert view.back_seconds == 4.0
    page = "\n".join(page_of(view, NOW))
    for text in ("Analysis: 2.1 % errors", SAMPLE, "Back in:      4s", "0123456789ab", "Reverted: reverted in abc"):
        assert text in page
    assert "errorRatio=2.10%" in page
    assert "errorRatio=0.01%" in page
    assert "Decided" in page
    assert "\x1b" not in page  # what answers said cannot move the terminal


def test_a_list_has_a_line_and_what_is_not_known_is_a_dash() -> None:
    bare = {**TREE, "status": {}}
    row = row_of(view_of(from_dict(bare, Incident)), NOW)
    assert tuple(row) == COLUMNS
    assert (row["decided"], row["back in"], row["git"], row["phase"]) == ("29m", "-", "-", "-")
    assert "\nSAMPLES" not in "\n".join(page_of(view_of(from_dict(bare, Incident)), NOW))
