"""Experiments: their pods, services, analyses and time, decided by the pure core."""

from __future__ import annotations

import pytest

from pilothouse.delivery.rollouts.names import HASH
from pilothouse.kinds.structs import replace
from support.experimentlab import COMPARE, Lab


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
