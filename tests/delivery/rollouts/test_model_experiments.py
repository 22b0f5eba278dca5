"""A model check of experiments: whatever happens in whatever order, what has ended stays so, and nothing is left."""

from __future__ import annotations

from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilothouse.delivery.resources.experiments import ExperimentStatus
from pilothouse.delivery.rollouts import actions as writes
from pilothouse.delivery.rollouts.experiments import ExperimentView
from pilothouse.delivery.rollouts.runs import DONE
from pilothouse.kinds.structs import replace
from support.experimentlab import COMPARE, Lab
from support.rolloutworld import Conflict

SPECS: Final[dict[str, dict[str, Any]]] = {
    "for a time": {"duration": "1m", "analyses": [COMPARE]},
    "until it is judged": {"analyses": [{**COMPARE, "requiredForCompletion": True}, {**COMPARE, "name": "other"}]},
    "until it is ended": {},
}
PARTS: Final = ("experiment", "sets", "services", "runs")
NAMES: Final = ("try-base", "try-new")

small = st.integers(0, 6)
events = st.one_of(
    st.tuples(st.just("decide"), st.none()),
    st.tuples(st.just("settle"), st.integers(1, 8)),
    st.tuples(st.just("settle"), st.integers(1, 8)),
    st.tuples(st.just("kill"), st.integers(0, 6)),
    st.tuples(st.just("stale"), st.lists(small, min_size=len(PARTS), max_size=len(PARTS))),
    st.tuples(st.just("break"), st.sampled_from(NAMES)),
    st.tuples(st.just("heal"), st.none()),
    st.tuples(st.just("judge"), st.sampled_from(["Running", "Successful", "Failed", "Error", "Inconclusive"])),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 31.0, 61.0, 700.0])),
    st.tuples(st.just("terminate"), st.none()),
    st.tuples(st.just("hand"), st.tuples(st.sampled_from(["size", "set", "service", "run"]), small)),
)


class Model:
    """A lab, what it was, and what has to hold after each write."""

    def __init__(self, spec: str) -> None:
        self.lab = Lab(**SPECS[spec])
        self.history = [self.lab.view()]
        self.verdict = ""
        self.lab.after_write = self.check

    def check(self, action: writes.Action) -> None:
        phase = self.lab.phase
        if self.verdict:
            assert phase == self.verdict, f"{action}: it had ended as {self.verdict}"
        elif phase in DONE:
            self.verdict = phase
        for name, found in self.lab.sets.items():
            assert (found.spec.replicas or 0) in range(7), name
        if isinstance(action, writes.StartRun):
            assert action.wanted.metadata.name in {one.analysis_run for one in self.lab.experiment.status.analysis_runs}

    def play(self, event: str, value: Any) -> None:  # noqa: C901  one row an event
        lab = self.lab
        match event:
            case "decide":
                self.decide(lab.view(), None)
            case "settle":
                for _ in range(value):
                    self.decide(lab.view(), None)
                    lab.play_pods()
            case "kill":
                self.decide(lab.view(), value)
            case "stale":
                self.decide(self.stale(value), None)
            case "break":
                lab.broken.add(value)
            case "heal":
                lab.broken.clear()
            case "judge":
                self.judge(value)
            case "wait":
                lab.now += lab.now.resolution * round(value * 1e6)
            case "terminate":
                lab.experiment = lab.changed(lab.experiment, spec__terminate=True)
            case "hand":
                self.hand(*value)
        self.history.append(lab.view())

    def decide(self, view: ExperimentView, limit: int | None) -> None:
        try:
            self.lab.step(view, limit)
        except Conflict:
            return

    def stale(self, ages: list[int]) -> ExperimentView:
        """Return a view of which each part is as old as caches may be."""
        parts: dict[str, Any] = {}
        for part, age in zip(PARTS, ages, strict=True):
            parts[part] = getattr(self.history[max(len(self.history) - 1 - age, 0)], part)
        return ExperimentView(**parts, templates=self.lab.templates)

    def judge(self, phase: str) -> None:
        for name, run in self.lab.runs.items():
            if run.status.phase not in DONE:
                self.lab.runs[name] = replace(run, status__phase=phase)

    def hand(self, what: str, number: int) -> None:
        """Somebody changes an object that the experiment has made."""
        lab = self.lab
        known: dict[str, dict[str, Any]] = {"service": lab.services, "run": lab.runs}
        objects = known.get(what, lab.sets)
        if not objects:
            return
        name = [*objects][number % len(objects)]
        if what == "size":
            objects[name] = lab.changed(objects[name], spec__replicas=number)
        else:
            del objects[name]

    def finish(self) -> None:
        """Be fair from now on: pods get ready, runs end well, somebody ends what has no end; then nothing is left."""
        lab = self.lab
        lab.broken.clear()
        for number in range(8):
            lab.settle()
            self.judge("Successful")
            lab.settle()
            if number == 2 and lab.phase not in DONE:
                lab.experiment = lab.changed(lab.experiment, spec__terminate=True)
            lab.wait(61)
        assert lab.phase in DONE, lab.experiment.status
        assert not any(lab.sizes().values())
        assert not lab.services
        assert all(run.status.phase in DONE for run in lab.runs.values())


@pytest.mark.parametrize("spec", sorted(SPECS))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.lists(events, max_size=40))
def test_experiments_end_and_leave_nothing(spec: str, happens: list[tuple[str, Any]]) -> None:
    model = Model(spec)
    for event, value in happens:
        model.play(event, value)
    model.finish()


def test_the_model_can_fail() -> None:
    """An experiment that forgets how it ended would be noticed."""
    model = Model("for a time")
    model.play("settle", 8)
    model.play("wait", 61.0)
    model.play("settle", 4)
    assert model.verdict == "Successful"
    model.lab.experiment = model.lab.changed(model.lab.experiment, status=ExperimentStatus())
    with pytest.raises(AssertionError, match="it had ended"):
        model.lab.wait(31)
