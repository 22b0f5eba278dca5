from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.kinds import fields
from pilothouse.kinds.fields import FieldSelectorError, custom_field_labels, field_labels
from support.goldenvalues import GOLDEN, cases

POD: dict[str, Any] = {
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"nodeName": "n1", "restartPolicy": "Always", "hostNetwork": True},
    "status": {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
}


@pytest.mark.parametrize(("text", "gave"), cases("fields"))
def test_text_is_read_as_kubernetes_does(text: str, gave: dict[str, str]) -> None:
    if "error" in gave:
        with pytest.raises(FieldSelectorError) as caught:
            fields.parse(text)
        assert str(caught.value) == gave["error"]
    else:
        assert str(fields.parse(text)) == gave["string"]


@given(st.text(max_size=12).filter(bool), st.sampled_from(["=", "!="]))
def test_any_value_can_be_asked_for(value: str, sign: str) -> None:
    selector = fields.parse(f"metadata.name{sign}{fields.escape(value)}")
    assert [term.value for term in selector.terms] == [value]
    match = selector.compile(field_labels("", "v1", "ConfigMap"))
    assert match({"metadata": {"name": value}}) == (sign == "=")
    assert match({"metadata": {"name": value + "x"}}) == (sign == "!=")


@given(st.text(alphabet="ab=!,\\.é", max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        selector = fields.parse(text)
    except FieldSelectorError:
        return
    assert sorted(map(str, fields.parse(str(selector)).terms)) == sorted(map(str, selector.terms))


@pytest.mark.parametrize(
    ("selector", "taken"),
    [
        ("", True),
        ("metadata.name=web,metadata.namespace==shop", True),
        ("spec.nodeName!=n1", False),
        ("spec.host=n1", True),
        ("spec.hostNetwork=true", True),
        ("status.podIP=10.0.0.1", True),
        ("status.podIPs=10.0.0.1", False),
        ("spec.schedulerName=", True),
        ("status.nominatedNodeName!=n2,status.phase=Running", True),
    ],
)
def test_pods_are_taken_by_their_fields(selector: str, taken: bool) -> None:
    assert fields.parse(selector).compile(field_labels("", "v1", "Pod"))(POD) is taken


@pytest.mark.parametrize(
    ("kind", "selector", "obj"),
    [
        (("", "v1", "Node"), "spec.unschedulable=false", {"spec": {}}),
        (("", "v1", "Namespace"), "status.phase=Active", {"status": {"phase": "Active"}}),
        (("", "v1", "Secret"), "type=Opaque", {"type": "Opaque"}),
        (("", "v1", "Service"), "spec.type=ClusterIP", {"spec": {"type": "ClusterIP"}}),
        (("batch", "v1", "Job"), "status.successful=2", {"status": {"succeeded": 2}}),
        (("batch", "v1", "Job"), "status.successful=0", {}),
        (
            ("", "v1", "Event"),
            "involvedObject.name=x,source=kubelet",
            {"involvedObject": {"name": "x"}, "source": {"component": "kubelet"}},
        ),
        (("", "v1", "Event"), "source=c,reportingComponent=c", {"reportingComponent": "c"}),
        (("events.k8s.io", "v1", "Event"), "regarding.kind=Pod", {"regarding": {"kind": "Pod"}}),
        (
            ("certificates.k8s.io", "v1", "CertificateSigningRequest"),
            "spec.signerName=a/b",
            {"spec": {"signerName": "a/b"}},
        ),
        (("resource.k8s.io", "v1", "ResourceSlice"), "spec.driver=d", {"spec": {"driver": "d"}}),
    ],
)
def test_other_kinds_have_their_own_fields(kind: tuple[str, str, str], selector: str, obj: dict[str, Any]) -> None:
    assert fields.parse(selector).compile(field_labels(*kind))(obj)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (("", "v1", "Pod"), "field label not supported: x.y"),
        (
            ("apps", "v1", "Deployment"),
            '"x.y" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        (("batch", "v1", "Job"), 'field label "x.y" not supported for Job'),
        (
            ("resource.k8s.io", "v1", "ResourceSlice"),
            "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: x.y",
        ),
    ],
)
def test_a_field_that_a_kind_does_not_offer_is_refused(kind: tuple[str, str, str], message: str) -> None:
    for attempt in (fields.parse("x.y=1").compile, fields.parse("x.y=1").renamed):
        with pytest.raises(FieldSelectorError) as caught:
            attempt(field_labels(*kind))
        assert str(caught.value) == message


@pytest.mark.parametrize("recording", ["lists", "errors", "crds"])
def test_refusals_are_worded_as_recorded(recording: str) -> None:
    offered = {
        "pods": field_labels("", "v1", "Pod"),
        "configmaps": field_labels("", "v1", "ConfigMap"),
        "widgets": custom_field_labels([".spec.color"], namespaced=True),
    }
    seen = 0
    for step in json.loads((GOLDEN / f"{recording}.json").read_text())["steps"]:
        path, _, query = step["path"].partition("fieldSelector=")
        if not query or step["status"] != 400:
            continue
        selector = fields.parse(query.partition("&")[0].replace("%3D", "=").replace("%21", "!"))
        with pytest.raises(FieldSelectorError) as caught:
            selector.compile(offered[path.partition("?")[0].rpartition("/")[2]])
        assert str(caught.value) == step["response"]["message"]
        seen += 1
    assert seen


def test_custom_resources_offer_what_their_definition_says() -> None:
    offered = custom_field_labels([".spec.color", ".spec.on", ".spec.size"], namespaced=False)
    obj = {"metadata": {"name": "a"}, "spec": {"color": "red", "on": True, "size": 4}}
    assert fields.parse("spec.color=red,spec.on=true,spec.size=4").compile(offered)(obj)
    assert not fields.parse("spec.color=red").compile(offered)({"spec": "none"})
    assert "metadata.namespace" not in offered


def test_names_are_those_under_which_the_server_keeps_them() -> None:
    assert str(fields.parse("spec.host=n").renamed(field_labels("", "v1", "Pod"))) == "spec.nodeName=n"
    events = field_labels("events.k8s.io", "v1", "Event")
    assert str(fields.parse("regarding.name!=n").renamed(events)) == "involvedObject.name!=n"


def test_one_wanted_value_is_told() -> None:
    selector = fields.parse("metadata.name=a,status.phase!=x")
    assert (selector.exact("metadata.name"), selector.exact("status.phase")) == ("a", None)
    assert (selector.empty, fields.parse("").empty) == (False, True)
    assert repr(selector) == "FieldSelector('metadata.name=a,status.phase!=x')"
    assert selector == fields.parse("status.phase!=x,metadata.name==a")
    assert hash(selector) == hash(fields.parse("status.phase!=x,metadata.name=a"))
