"""Experiments: their pods, services, analyses and time, decided by the pure core."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from pilothouse.delivery.resources.analyses import AnalysisRun, AnalysisTemplateSpec
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.delivery.rollouts import actions as writes
from pilothouse.delivery.rollouts.actions import Plan
from pilothouse.delivery.rollouts.experiments import ExperimentView, decide_experiment
from pilothouse.delivery.rollouts.names import HASH
from pilothouse.delivery.rollouts.view import TemplateKey
from pilothouse.kinds.structs import ReplicaSet, Service, from_dict, replace
from support.rolloutworld import START


def template(name: str, image: str, **more: Any) -> dict[str, Any]:
    labels = {"app": "shop", "version": name, HASH: "old"}
    container = {"name": "shop", "image": image, "ports": [{"containerPort": 8080}]}
    return {
        "name": name,
        "selector": {"matchLabels": {"app": "shop", "version": name, HASH: "old"}},
        "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        **more,
    }


class Lab:
    """One experiment and its objects."""

    def __init__(self, **spec: Any) -> None:
        tree = {
            "metadata": {"name": "try", "namespace": "default", "uid": "1"},
            "spec": {"templates": [template("base", "shop:1", service={}), template("new", "shop:2")], **spec},
        }
        self.experiment = from_dict(tree, Experiment)
        self.sets: dict[str, ReplicaSet] = {}
        self.services: dict[str, Service] = {}
        self.runs: dict[str, AnalysisRun] = {}
        metrics = {"metrics": [{"name": "m", "provider": {"web": {"url": "x"}}}], "args": [{"name": "hash"}]}
        self.templates: Mapping[TemplateKey, AnalysisTemplateSpec] = {
            TemplateKey(False, "compare"): from_dict(metrics, AnalysisTemplateSpec)
        }
        self.now = START
        self.broken: set[str] = set()

    def step(self) -> Plan:
        view = ExperimentView(
            self.experiment, [*self.sets.values()], [*self.services.values()], [*self.runs.values()], self.templates
        )
        plan = decide_experiment(view, self.now)
        for action in plan.actions:
            self.do(action)
        return plan

    def do(self, action: writes.Action) -> None:
        match action:
            case writes.WriteExperimentStatus(status):
                self.experiment = replace(self.experiment, status=status)
            case writes.CreateSet(wanted) | writes.UpdateSet(wanted):
                self.sets[wanted.metadata.name] = wanted
            case writes.CreateService(wanted):
                self.services[wanted.metadata.name] = wanted
            case writes.DeleteService(found):
                del self.services[found.metadata.name]
            case writes.StartRun(wanted):
                self.runs[wanted.metadata.name] = wanted
            case writes.StopRun(name):
                self.runs[name] = replace(self.runs[name], spec__terminate=True, status__phase="Successful")

    def settle(self) -> Plan:
        for _ in range(30):
            plan = self.step()
            for name, found in self.sets.items():
                ready = 0 if name in self.broken else found.spec.replicas or 0
                counts = {"replicas": found.spec.replicas or 0, "available_replicas": ready, "ready_replicas": ready}
                self.sets[name] = replace(found, **{f"status__{key}": value for key, value in counts.items()})
            if not plan.actions:
                return plan
        raise AssertionError(f"no end of it: {plan.actions}")

    def wait(self, seconds: float) -> Plan:
        self.now += timedelta(seconds=seconds)
        return self.settle()

    def judge(self, phase: str, message: str = "") -> None:
        for name, run in self.runs.items():
            self.runs[name] = replace(run, status__phase=phase, status__message=message or None)
        self.settle()

    @property
    def phase(self) -> str:
        return self.experiment.status.phase

    def sizes(self) -> dict[str, int]:
        return {name: found.spec.replicas or 0 for name, found in self.sets.items()}


COMPARE = {"name": "compare", "templateName": "compare", "args": [{"name": "hash", "value": "x"}]}


def test_it_runs_for_its_time_and_then_loses_its_pods_after_a_while() -> None:
    lab = Lab(duration="1m")
    plan = lab.settle()
    assert (lab.phase, lab.sizes()) == ("Running", {"try-base": 1, "try-new": 1})
    assert plan.again == 60
    assert {one.name: one.service_name for one in lab.experiment.status.template_statuses} == {
        "base": "try-base",
        "new": None,
    }
    lab.wait(60)
    assert (lab.phase, lab.sizes()) == ("Successful", {"try-base": 1, "try-new": 1})
    lab.wait(30)
    assert (lab.sizes(), lab.services) == ({"try-base": 0, "try-new": 0}, {})


def test_its_pods_are_nobody_else_s() -> None:
    lab = Lab()
    lab.settle()
    hashes = [found.spec.selector.match_labels[HASH] for found in lab.sets.values()]
    assert len({*hashes, "old"}) == 3
    for found in lab.sets.values():
        assert found.spec.selector.match_labels.items() <= found.spec.template.metadata.labels.items()
    assert lab.services["try-base"].spec.selector[HASH] == hashes[0]


@pytest.mark.parametrize(
    ("verdict", "phase"), [("Failed", "Failed"), ("Error", "Error"), ("Inconclusive", "Inconclusive")]
)
def test_a_verdict_ends_it(verdict: str, phase: str) -> None:
    lab = Lab(analyses=[COMPARE])
    lab.settle()
    assert [*lab.runs] == ["try-compare"]
    lab.judge(verdict, "worse than base")
    assert (lab.phase, lab.experiment.status.message) == (verdict, "worse than base")
    lab.wait(31)
    assert lab.sizes() == {"try-base": 0, "try-new": 0}


def test_without_a_time_it_ends_when_all_that_is_required_went_well() -> None:
    lab = Lab(analyses=[{**COMPARE, "requiredForCompletion": True}, {**COMPARE, "name": "other"}])
    lab.settle()
    run = lab.runs["try-compare"]
    lab.runs["try-compare"] = replace(run, status__phase="Successful")
    lab.settle()
    assert lab.phase == "Successful"
    assert lab.runs["try-other"].spec.terminate


def test_pods_that_never_come_fail_it() -> None:
    lab = Lab(progressDeadlineSeconds=20)
    lab.broken.add("try-new")
    plan = lab.settle()
    assert (lab.phase, plan.again) == ("Pending", 21)
    lab.wait(21)
    assert lab.phase == "Failed"
    assert "progressDeadlineSeconds (20)" in (lab.experiment.status.message or "")


def test_arguments_name_its_own_sets() -> None:
    value = "{{templates.new.podTemplateHash}}/{{ templates.base.replicaset.name }}"
    lab = Lab(analyses=[{**COMPARE, "args": [{"name": "hash", "value": value}]}])
    lab.settle()
    named = lab.sets["try-new"].metadata.labels[HASH]
    assert [one.value for one in lab.runs["try-compare"].spec.args] == [f"{named}/try-base"]


def test_a_template_that_is_not_there_ends_it_at_once() -> None:
    lab = Lab(analyses=[{"name": "x", "templateName": "gone"}])
    lab.settle()
    assert (lab.phase, lab.experiment.status.message) == ("Error", "AnalysisTemplate 'gone' is not there")


def test_it_is_ended_from_outside() -> None:
    lab = Lab(analyses=[COMPARE])
    lab.settle()
    lab.experiment = replace(lab.experiment, spec__terminate=True)
    lab.settle()
    assert (lab.phase, lab.runs["try-compare"].spec.terminate) == ("Successful", True)
