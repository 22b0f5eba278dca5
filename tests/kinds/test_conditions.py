from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import conditions

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
LATER = datetime(2024, 5, 1, 13, tzinfo=UTC)
READY = {"type": "Ready", "status": "True", "reason": "Up", "message": "", "observedGeneration": 2}

news = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["Ready", "Synced", "Stalled"]),
        "status": st.sampled_from(["True", "False", "Unknown"]),
        "reason": st.sampled_from(["A", "B"]),
        "message": st.sampled_from(["", "m"]),
    },
    optional={"observedGeneration": st.integers(1, 3)},
)


def test_a_new_condition_gets_the_time() -> None:
    listed, changed = conditions.set_condition(None, READY, NOW)
    assert changed
    assert listed == [{**READY, "lastTransitionTime": "2024-05-01T12:00:00Z"}]


def test_the_time_moves_with_the_status_only() -> None:
    listed, _ = conditions.set_condition([], READY, NOW)
    told, changed = conditions.set_condition(listed, {**READY, "reason": "Still", "observedGeneration": 3}, LATER)
    assert changed
    assert (told[0]["lastTransitionTime"], told[0]["reason"], told[0]["observedGeneration"]) == (
        "2024-05-01T12:00:00Z",
        "Still",
        3,
    )
    turned, changed = conditions.set_condition(told, {**READY, "status": "False"}, LATER)
    assert changed
    assert turned[0]["lastTransitionTime"] == "2024-05-01T13:00:00Z"
    given_time = {**READY, "lastTransitionTime": "2020-01-01T00:00:00Z"}
    assert conditions.set_condition(turned, given_time, LATER)[0][0]["lastTransitionTime"] == "2020-01-01T00:00:00Z"


def test_other_fields_are_kept_and_the_list_given_is_not_changed() -> None:
    before = [{"type": "Ready", "status": "False", "lastProbeTime": "x"}, {"type": "Other", "status": "True"}]
    after, _ = conditions.set_condition(before, READY, NOW)
    assert after[0]["lastProbeTime"] == "x"
    assert after[1] is before[1]
    assert before[0] == {"type": "Ready", "status": "False", "lastProbeTime": "x"}


def test_a_generation_that_is_not_given_goes() -> None:
    listed, _ = conditions.set_condition(None, READY, NOW)
    without = {name: value for name, value in READY.items() if name != "observedGeneration"}
    after, changed = conditions.set_condition(listed, without, NOW)
    assert changed
    assert "observedGeneration" not in after[0]


@given(st.lists(news, max_size=8))
def test_each_type_is_there_once_and_as_last_set(given_: list[dict[str, Any]]) -> None:
    listed: list[Any] = []
    for new in given_:
        listed, _ = conditions.set_condition(listed, new, NOW)
        again, changed = conditions.set_condition(listed, new, LATER)
        assert (again, changed) == (listed, False)
    last = {new["type"]: new for new in given_}
    assert len(listed) == len(last)
    for kind, new in last.items():
        assert conditions.has_status(listed, kind, new["status"])
        assert conditions.is_true(listed, kind) == (new["status"] == "True")
        assert conditions.is_false(listed, kind) == (new["status"] == "False")
        found = conditions.find(listed, kind)
        assert found is not None
        assert (found["reason"], found["message"]) == (new["reason"], new["message"])
        kept, removed = conditions.remove(listed, kind)
        assert removed
        assert conditions.find(kept, kind) is None
        assert conditions.remove(kept, kind) == (kept, False)
