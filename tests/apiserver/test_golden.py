"""The server answers what was recorded of a real kube-apiserver as that did, whole answers compared."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pilothouse.foundation.clock import SystemClock
from support.apiserverkit import api_server
from support.golden import GOLDEN, differences, normalised, replay

SCENARIOS = ("errors", "defaults", "patches", "lists", "crds")
ALLOWED: dict[tuple[str, str], str] = {}
"""Steps, by scenario and label, that may differ in their body, and why; docs/compatibility.md lists the same ones."""


class StandingClock(SystemClock):
    """Timers run, and the time of day stands: owners of fields are in the order of their seconds, then of their names,
    so an answer would differ where a second ends between two steps.
    """

    def __init__(self) -> None:
        self._now = datetime.now(UTC)

    def now(self) -> datetime:
        return self._now


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_answers_as_the_recorded_server(scenario: str) -> None:
    async with api_server(clock=StandingClock()) as api:
        outcomes = await replay(api, scenario)
    assert outcomes
    codes = [str(outcome) for outcome in outcomes if outcome.status != outcome.expected]
    assert not codes, "codes differ:\n" + "\n".join(codes)
    inexact = [each for each in outcomes if each.gaps and (scenario, each.label) not in ALLOWED]
    assert not inexact, "answers differ:\n" + "\n".join(map(str, inexact))
    excused = {label for name, label in ALLOWED if name == scenario}
    assert excused <= {each.label for each in outcomes if each.gaps}, "an exception is no longer needed: remove it"


def test_exceptions_are_written_down() -> None:
    page = (GOLDEN.parents[1] / "docs" / "compatibility.md").read_text()
    missing = [label for _, label in ALLOWED if f"| {label} |" not in page]
    assert not missing, f"docs/compatibility.md does not list {missing}"


def test_comparison_sees_what_differs() -> None:
    left = normalised({"a": [1, {"uid": "0f0e0d0c-0000-4000-8000-000000000001"}], "b": True, "clusterIP": "10.0.0.1"})
    right = normalised({"a": [1, {"uid": "1f0e0d0c-0000-4000-8000-000000000001"}], "b": True, "clusterIP": "10.0.0.9"})
    assert list(differences(left, right)) == []
    assert list(differences({"a": True}, {"a": 1})) == [".a: expected true, got 1"]
    assert list(differences({"a": 1}, {})) == [".a: missing, expected 1"]
    assert list(differences({}, {"a": 1})) == [".a: unexpected 1"]
    assert list(differences([1], [1, 2])) == [": expected [1], got [1, 2]"]
