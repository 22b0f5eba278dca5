"""Which steps are on, in which order, and that a whole pod goes through them."""

from __future__ import annotations

import pytest

from pilothouse.apiserver.admission.assembly import assemble
from pilothouse.apiserver.admission.builtins import DEFAULT_OFF, ORDER, UnknownPlugin, standard
from pilothouse.apiserver.admission.chain import Admission
from pilothouse.apiserver.admission.deferred import Deferred
from pilothouse.apiserver.admission.expression_checks import ExpressionChecks
from pilothouse.apiserver.admission.plugin import Plugin
from pilothouse.apiserver.ports import AdmissionPlugin, Object
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.ids import SeededIds
from pilothouse.kinds import status
from support.dictview import DictLocal, DictView, Rules, write


class Hooks(Plugin):
    name = "MutatingAdmissionWebhook"


def steps(view: DictView, **more: object) -> list[AdmissionPlugin]:
    return standard(view, Rules(), DictLocal(view), SeededIds(1), FakeClock(), **more)  # type: ignore[arg-type]


def test_order() -> None:
    names = [one.name for one in steps(DictView(), dynamic=[Hooks()], enable=["NodeRestriction"])]
    assert names == [one for one in ORDER if one in names]
    assert names[-2:] == ["MutatingAdmissionWebhook", "ResourceQuota"]
    assert "NodeRestriction" in names
    assert not DEFAULT_OFF.intersection(one.name for one in steps(DictView()))
    assert "Priority" not in [one.name for one in steps(DictView(), disable=["Priority"])]
    with pytest.raises(UnknownPlugin, match="there are NamespaceLifecycle, LimitRanger"):
        steps(DictView(), enable=["AlwaysAdmit"])


def test_a_pod_goes_through_all() -> None:
    view = DictView()
    view.namespace("n")
    view.put("serviceaccounts", {"metadata": {"name": "default", "namespace": "n"}})
    chain = Admission(steps(view))
    item: Object = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    request = write("CREATE", "pods", item)
    assert chain.admit(request) is None
    assert chain.validate(request) is None
    assert set(item["spec"]) == {
        "containers",
        "preemptionPolicy",
        "priority",
        "serviceAccount",
        "serviceAccountName",
        "tolerations",
        "volumes",
    }


class TestExpressionChecks:
    def refused(self, resource: str, item: Object) -> str:
        request = write("CREATE", f"{resource}.admissionregistration.k8s.io", {"metadata": {"name": "x"}, **item})
        step = ExpressionChecks()
        assert step.handles(request.operation, request.resource, "")
        with pytest.raises(status.Invalid) as caught:
            step.validate(request)
        step.validate(write("UPDATE", f"{resource}.admissionregistration.k8s.io", request.object, old=request.object))
        return caught.value.message

    def test_policies(self) -> None:
        spec = {
            "variables": [{"name": "a", "expression": "1 +"}],
            "validations": [{"expression": "1", "messageExpression": "2"}, {"expression": "true"}],
            "matchConditions": [{"name": "c", "expression": "params.x"}],
            "auditAnnotations": [{"key": "k", "valueExpression": "[1]"}],
        }
        told = self.refused("validatingadmissionpolicies", {"spec": spec})
        assert told.startswith('ValidatingAdmissionPolicy.admissionregistration.k8s.io "x" is invalid: [')
        for part in (
            'spec.variables[0].expression: Invalid value: "1 +": compilation failed: ERROR: <input>:1:',
            'spec.validations[0].expression: Invalid value: "1": must evaluate to bool',
            'spec.validations[0].messageExpression: Invalid value: "2": must evaluate to string',
            "undeclared reference to 'params'",
            'spec.auditAnnotations[0].valueExpression: Invalid value: "[1]": must evaluate to one of [string null',
        ):
            assert part in told

    def test_mutations_and_webhooks(self) -> None:
        mutation = {"patchType": "JSONPatch", "jsonPatch": {"expression": "1"}}
        told = self.refused("mutatingadmissionpolicies", {"spec": {"mutations": [mutation]}})
        assert 'spec.mutations[0].jsonPatch.expression: Invalid value: "1": must evaluate to list(JSONPatch)' in told
        hook = {"name": "h", "matchConditions": [{"name": "c", "expression": "object.x +"}]}
        told = self.refused("validatingwebhookconfigurations", {"webhooks": [hook]})
        assert 'webhooks[0].matchConditions[0].expression: Invalid value: "object.x +": compilation failed' in told


async def test_assembled() -> None:
    view = DictView()
    made = assemble(view, Rules(), DictLocal(view), SeededIds(1), FakeClock(), find=lambda version, kind: None)
    names = [one.name for one in made.chain.plugins]
    assert names == [one for one in ORDER if one in names]
    assert names[-6:] == [
        "ExpressionChecks",
        "MutatingAdmissionPolicy",
        "MutatingAdmissionWebhook",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionWebhook",
        "ResourceQuota",
    ]
    await made.close()


async def test_what_nothing_configures_is_not_made() -> None:
    view = DictView()
    view.namespace("n")
    made = assemble(view, Rules(), DictLocal(view), SeededIds(1), FakeClock(), find=lambda version, kind: None)
    chain = made.chain
    step = next(one for one in chain.plugins if one.name == "ValidatingAdmissionPolicy")
    request = write("CREATE", "configmaps", {"metadata": {"name": "x", "namespace": "n"}})
    assert chain.validate(request) is None
    assert isinstance(step, Deferred)
    assert step._made is None
    group = "admissionregistration.k8s.io"
    rule = {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false"}]}
    view.put(f"validatingadmissionpolicies.{group}", {"metadata": {"name": "x", "generation": 1}, "spec": spec})
    assert chain.validate(request) is None
    bound = {"policyName": "x", "validationActions": ["Deny"]}
    view.put(f"validatingadmissionpolicybindings.{group}", {"metadata": {"name": "y"}, "spec": bound})
    with pytest.raises(status.Invalid, match="failed expression: false"):
        chain.validate(request)
    view.drop(f"validatingadmissionpolicybindings.{group}", "", "y")
    assert chain.validate(request) is None
    mutating = next(one for one in chain.plugins if one.name == "MutatingAdmissionWebhook")
    assert isinstance(mutating, Deferred)
    assert mutating._made is None
    await made.close()
