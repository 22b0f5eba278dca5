"""The control loop's core: golden traces of what an end means, and its bounds under any sequence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.operator.loop import Failed, Forget, LoopCore, LoopOptions, Outcome, Retry, RetryAfter, Succeeded
from support.traces import replay, traces_in

OPTIONS = LoopOptions(failures=3, rounds=6, quiet_seconds=5, max_keys=4)


class Machine:
    """Reads the commands of a trace."""

    def __init__(self) -> None:
        self.core: LoopCore[str] = LoopCore(OPTIONS)
        self.now = 0.0

    def __call__(self, name: str, words: list[str]) -> list[str]:
        if name == "time":
            self.now += float(words[0])
            return []
        if name == "known":
            return [f"known {len(self.core)}"]
        if name == "forget":
            self.core.forget(words[0])
            return []
        if name in {"failing", "unconverged"}:
            found = self.core.failing() if name == "failing" else self.core.unconverged(self.now)
            return [f"{name}: {one}" for one in found] or [f"{name}: none"]
        assert name == "ended"
        return self._ended(words[0], words[1])

    def _ended(self, key: str, how: str) -> list[str]:
        word, _, value = how.partition("=")
        well = word in {"ok", "after"}
        outcome = Succeeded(float(value) if value else None) if well else Failed(value, word)  # type: ignore[arg-type]
        action, report, recovered = self.core.ended(key, outcome, self.now)
        if isinstance(action, RetryAfter):
            shown = f"forget, again after {action.seconds:g} s"
        else:
            shown = "forget" if isinstance(action, Forget) else "back off"
        return [
            f"{key}: {shown}{', recovered' if recovered else ''}",
            *([] if report is None else [f"report: {report}"]),
        ]


@pytest.mark.parametrize("path", traces_in("operator", "loop"), ids=lambda path: path.stem)
def test_traces(path: Path) -> None:
    replay(path, Machine())


_outcomes = st.one_of(
    st.just(Succeeded()),
    st.floats(0, 100).map(Succeeded),
    st.sampled_from([Failed("x"), Failed("y", "terminal"), Failed("z", "timeout")]),
)


@given(st.lists(st.tuples(st.integers(0, 9), _outcomes, st.floats(0, 20)), max_size=60))
def test_every_end_has_its_action_and_the_memory_is_bounded(ends: list[tuple[int, Outcome, float]]) -> None:
    core: LoopCore[int] = LoopCore(OPTIONS)
    now = 0.0
    for key, outcome, pause in ends:
        now += pause
        step = core.ended(key, outcome, now)
        assert len(core) <= OPTIONS.max_keys
        failing = {one.key: one for one in core.failing()}
        if isinstance(outcome, Failed):
            assert isinstance(step.action, Forget if outcome.how == "terminal" else Retry)
            assert failing[key].last_error == outcome.error
        else:
            assert key not in failing
            assert isinstance(step.action, Forget if outcome.requeue_after is None else RetryAfter)
        if step.report is not None:
            assert step.report.failures >= OPTIONS.failures or step.report.reconciles >= OPTIONS.rounds
            assert step.report in core.unconverged(now)


def test_a_report_says_key_count_and_last_error() -> None:
    core: LoopCore[str] = LoopCore(LoopOptions(failures=2))
    core.ended("shop/web", Failed("no route"), 0)
    report = core.ended("shop/web", Failed("refused"), 1.5).report
    assert str(report) == (
        "shop/web does not converge: reconciled 2 times in 1.5 s, 2 times in a row with an error; last error: refused"
    )


def test_keys_that_have_settled_are_forgotten_when_there_are_many() -> None:
    core: LoopCore[int] = LoopCore()
    for key in range(10_000):
        core.ended(key, Succeeded(), float(key))
        assert len(core) <= 128


def test_any_number_of_reconciles_is_fine_where_that_is_said_and_failures_still_count() -> None:
    core: LoopCore[str] = LoopCore(LoopOptions(failures=3, rounds=0))
    assert all(core.ended("a", Succeeded(), float(now)).report is None for now in range(500))
    ends = [core.ended("a", Failed("it broke"), 500.0).report for _ in range(3)]
    assert ends[:2] == [None, None]
    assert ends[2] is not None
    assert ends[2].last_error == "it broke"
