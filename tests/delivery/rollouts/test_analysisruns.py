"""Analysis runs out of templates: what goes together, and what is said where it does not."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.delivery.errors import AnalysisInvalid
from pilothouse.delivery.resources.analyses import AnalysisRunArgument, AnalysisTemplateRef, AnalysisTemplateSpec
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts.analysisruns import given_arguments, missing_templates, run_spec
from pilothouse.delivery.rollouts.view import TemplateKey
from pilothouse.kinds.structs import from_dict

ROLLOUT = from_dict(
    {
        "metadata": {"name": "shop", "namespace": "web", "labels": {"a.b/c": "one"}},
        "spec": {"replicas": 4, "paused": True, "template": {"spec": {"containers": [{"image": "x:1"}]}}},
    },
    Rollout,
)
HASHES = {"Latest": "new", "Stable": "old"}


def template(name: str, *args: Any, **more: Any) -> tuple[TemplateKey, AnalysisTemplateSpec]:
    metric = {"name": name, "provider": {"web": {"url": "http://x"}}}
    tree = {"metrics": [metric], "args": list(args), **more}
    return TemplateKey(False, name), from_dict(tree, AnalysisTemplateSpec)


def refs(*names: str) -> list[AnalysisTemplateRef]:
    return [AnalysisTemplateRef(template_name=name) for name in names]


def argument(name: str, **fields: Any) -> AnalysisRunArgument:
    return from_dict({"name": name, **fields}, AnalysisRunArgument)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "shop"),
        ("metadata.labels['a.b/c']", "one"),
        ("metadata.annotations['none']", ""),
        ("spec.replicas", "4"),
        ("spec.paused", "true"),
        ("spec.template.spec.containers.0.image", "x:1"),
    ],
)
def test_fields_of_the_rollout_are_filled_in(path: str, value: str) -> None:
    wanted = argument("a", valueFrom={"fieldRef": {"fieldPath": path}})
    assert [one.value for one in given_arguments([wanted], ROLLOUT, HASHES)] == [value]


@pytest.mark.parametrize(("path", "problem"), [("spec.gone", "no such field"), ("spec.template", "no single value")])
def test_fields_that_are_none_are_named(path: str, problem: str) -> None:
    wanted = argument("a", valueFrom={"fieldRef": {"fieldPath": path}})
    with pytest.raises(AnalysisInvalid, match=problem):
        given_arguments([wanted], ROLLOUT, HASHES)


def test_hashes_are_filled_in_and_secrets_are_not_read() -> None:
    secret = {"secretKeyRef": {"name": "s", "key": "k"}}
    wanted = [
        argument("new", valueFrom={"podTemplateHashValue": "Latest"}),
        argument("old", valueFrom={"podTemplateHashValue": "Stable"}),
        argument("token", valueFrom=secret),
    ]
    new, old, token = given_arguments(wanted, ROLLOUT, HASHES)
    assert (new.value, old.value, token.value) == ("new", "old", None)
    assert token.value_from is not None
    assert token.value_from.secret_key_ref is not None
    with pytest.raises(AnalysisInvalid, match="want Stable or Latest"):
        given_arguments([argument("x", valueFrom={"podTemplateHashValue": "Newest"})], ROLLOUT, HASHES)


def test_templates_that_name_templates_are_measured_together() -> None:
    templates = dict(
        [
            template("a", {"name": "x", "value": "1"}, templates=[{"templateName": "b"}], dryRun=[{"metricName": "a"}]),
            template("b", {"name": "y"}, templates=[{"templateName": "a"}]),
        ]
    )
    given = given_arguments([argument("y", value="2"), argument("other", value="3")], ROLLOUT, HASHES)
    spec = run_spec(refs("a"), templates, given)
    assert [one.name for one in spec.metrics] == ["a", "b"]
    assert {one.name: one.value for one in spec.args} == {"x": "1", "y": "2"}
    assert [one.metric_name for one in spec.dry_run] == ["a"]


def test_what_does_not_go_together_is_named() -> None:
    twice = dict([template("a"), (TemplateKey(True, "b"), template("a")[1])])
    both = [*refs("a"), AnalysisTemplateRef(template_name="b", cluster_scope=True)]
    with pytest.raises(AnalysisInvalid, match="metric 'a' is in two"):
        run_spec(both, twice, [])
    with pytest.raises(AnalysisInvalid, match="argument 'x' has no value"):
        run_spec(refs("a"), dict([template("a", {"name": "x"})]), [])
    values = dict([template("a", {"name": "x", "value": "1"}), template("b", {"name": "x", "value": "2"})])
    with pytest.raises(AnalysisInvalid, match="argument 'x' has two values"):
        run_spec(refs("a", "b"), values, [])
    with pytest.raises(AnalysisInvalid, match="AnalysisTemplate 'gone' is not there"):
        run_spec(refs("gone"), {}, [])
    nested = dict([template("a", templates=[{"templateName": "b", "clusterScope": True}])])
    assert missing_templates(refs("a"), nested) == ["ClusterAnalysisTemplate 'b'"]
