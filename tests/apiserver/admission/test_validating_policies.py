"""ValidatingAdmissionPolicy with real expressions: bindings, parameters, actions, messages, failures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pilothouse.apiserver.admission.chain import Admission
from pilothouse.apiserver.admission.policies import ValidatingPolicies
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import AdmissionRequest, Object
from pilothouse.kinds import status
from support.dictview import DictView, Rules, Told, write

KINDS = {
    ("v1", "ConfigMap"): ("configmaps", True),
    ("v1", "Node"): ("nodes", False),
    ("example.com/v1", "Limit"): ("limits", True),
}
RULE = {"operations": ["CREATE", "UPDATE", "DELETE"], "apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["*"]}


def deployment(replicas: int = 3, **labels: str) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "n", "labels": labels},
        "spec": {"replicas": replicas},
    }


class World:
    def __init__(self) -> None:
        self.view = DictView()
        self.view.namespace("n", {"env": "prod"})
        self.rules = Rules()
        self.step = ValidatingPolicies(self.view, lambda version, kind: KINDS.get((version, kind)), self.rules)
        self.admission = Admission([self.step])
        self.told = Told()

    def policy(self, *validations: Object | str, name: str = "x", **spec: Any) -> World:
        made = [{"expression": one} if isinstance(one, str) else one for one in validations]
        spec = {"matchConstraints": {"resourceRules": [RULE]}, "validations": made, **spec}
        self.view.put(self.step.POLICIES, {"metadata": {"name": name, "generation": 1}, "spec": spec})
        return self

    def binding(self, *actions: str, name: str = "y", policy: str = "x", **spec: Any) -> World:
        made = {"policyName": policy, "validationActions": list(actions or ("Deny",)), **spec}
        self.view.put(self.step.BINDINGS, {"metadata": {"name": name}, "spec": made})
        return self

    def request(self, item: Object | None = None, **more: Any) -> AdmissionRequest:
        self.told = Told()
        operation = more.pop("operation", "CREATE")
        return write(operation, "deployments.apps", item or deployment(), told=self.told, **more)

    def ask(self, item: Object | None = None, **more: Any) -> None:
        assert self.admission.validate(self.request(item, **more)) is None

    def refused(self, item: Object | None = None, **more: Any) -> status.ApiStatus:
        with pytest.raises(status.ApiStatus) as caught:
            self.ask(item, **more)
        return caught.value


@pytest.fixture
def world() -> World:
    return World()


PREFIX = "ValidatingAdmissionPolicy 'x' with binding 'y' denied request: "


def test_denials(world: World) -> None:
    world.policy("object.spec.replicas <= 5").binding()
    world.ask()
    error = world.refused(deployment(6))
    message = f"{PREFIX}failed expression: object.spec.replicas <= 5"
    assert error.to_dict() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f'deployments.apps "web" is forbidden: {message}',
        "reason": "Invalid",
        "details": {"name": "web", "group": "apps", "kind": "deployments", "causes": [{"message": message}]},
        "code": 422,
    }


def test_reasons_and_messages(world: World) -> None:
    world.policy(
        {
            "expression": "object.spec.replicas <= 5",
            "message": " too many ",
            "messageExpression": "'at most 5, not ' + string(object.spec.replicas)",
            "reason": "Forbidden",
        }
    ).binding()
    error = world.refused(deployment(6))
    assert (error.code, error.reason) == (403, "Forbidden")
    assert error.message.endswith(f"{PREFIX}at most 5, not 6")


@pytest.mark.parametrize("expression", ["object.none.x", "'a\\nb'", "''"])
def test_messages_that_cannot_be_used(world: World, expression: str) -> None:
    world.policy({"expression": "false", "message": "plain", "messageExpression": expression}).binding()
    assert world.refused().message.endswith(f"{PREFIX}plain")


def test_without_binding_nothing_happens(world: World) -> None:
    world.policy("false")
    assert not world.admission.concerns("CREATE", ("apps", "v1", "deployments"), "")
    world.binding()
    assert world.admission.concerns("CREATE", ("apps", "v1", "deployments"), "")
    assert not world.admission.concerns("CREATE", ("", "v1", "pods"), "")
    world.view.drop(world.step.BINDINGS, "", "y")
    assert not world.admission.concerns("CREATE", ("apps", "v1", "deployments"), "")


def test_actions(world: World) -> None:
    world.policy({"expression": "false", "message": "no"}).binding("Warn", "Audit")
    world.ask()
    assert world.told.warnings == [
        "Validation failed for ValidatingAdmissionPolicy 'x' with binding 'y': no",
    ]
    assert json.loads(world.told.annotations["validation.policy.admission.k8s.io/validation_failure"]) == [
        {
            "message": "no",
            "policy": "x",
            "binding": "y",
            "expressionIndex": 0,
            "validationActions": ["Warn", "Audit"],
        }
    ]


def test_what_expressions_see(world: World) -> None:
    world.policy(
        "request.operation == 'UPDATE' && request.userInfo.username == 'eve'",
        "oldObject.spec.replicas < object.spec.replicas",
        "namespaceObject.metadata.labels.env == 'prod' && namespaceObject.metadata.name == request.namespace",
        "authorizer.requestResource.check('scale').allowed()",
        "request.resource.resource == 'deployments' && request.kind.kind == 'Deployment'",
    ).binding()
    world.rules.allowed.add(("eve", "scale", "deployments", "web"))
    world.ask(operation="UPDATE", old=deployment(1), user=User("eve"))
    assert (
        "failed expression: oldObject" in world.refused(operation="UPDATE", old=deployment(9), user=User("eve")).message
    )


def test_deletions(world: World) -> None:
    world.policy("object == null && oldObject.metadata.name != 'web'").binding()
    request = write("DELETE", "deployments.apps", None, old=deployment())
    with pytest.raises(status.ApiStatus, match="denied request"):
        world.admission.validate(request)


def test_variables(world: World) -> None:
    world.policy(
        {"expression": "variables.twice <= 10", "messageExpression": "'twice is ' + string(variables.twice)"},
        variables=[
            {"name": "count", "expression": "object.spec.replicas"},
            {"name": "twice", "expression": "variables.count * 2"},
            {"name": "unused", "expression": "object.none"},
        ],
    ).binding()
    world.ask()
    assert world.refused(deployment(6)).message.endswith(f"{PREFIX}twice is 12")


def test_variables_that_fail(world: World) -> None:
    world.policy("variables.bad", variables=[{"name": "bad", "expression": "object.none"}]).binding()
    assert world.refused().message.endswith(
        f"{PREFIX}expression 'variables.bad' resulted in error: composited variable \"bad\" fails to evaluate: "
        "no such key: none"
    )


def test_errors_follow_the_failure_policy(world: World) -> None:
    world.policy("object.none == 1").binding()
    error = world.refused()
    assert error.message.endswith(f"{PREFIX}expression 'object.none == 1' resulted in error: no such key: none")
    assert error.reason == "Invalid"
    world.policy("object.none == 1", failurePolicy="Ignore")
    world.view.get(world.step.POLICIES, "", "x")["metadata"]["generation"] = 2  # type: ignore[index]
    world.ask()


def test_what_does_not_compile(world: World) -> None:
    world.policy("object.spec.replicas <=").binding()
    assert f"{PREFIX}compilation error: compilation failed: ERROR: <input>:1:" in world.refused().message
    world.policy("params.x == 1", name="z").binding(name="z", policy="z")
    world.view.drop(world.step.POLICIES, "", "x")
    assert "undeclared reference to 'params'" in world.refused().message


def test_conditions(world: World) -> None:
    world.policy("false", matchConditions=[{"name": "c", "expression": "object.spec.replicas > 5"}]).binding()
    world.ask()
    world.refused(deployment(6))
    world.policy("true", name="w", matchConditions=[{"name": "c", "expression": "object.none"}]).binding(
        name="w", policy="w"
    )
    assert "no such key: none" in world.refused().message


def test_parameters(world: World) -> None:
    kind = {"apiVersion": "v1", "kind": "ConfigMap"}
    world.policy(
        {
            "expression": "object.spec.replicas <= int(params.data.max)",
            "messageExpression": "params.metadata.name + ' says at most ' + params.data.max",
        },
        paramKind=kind,
    )
    world.binding(paramRef={"name": "limit", "parameterNotFoundAction": "Deny"})
    assert world.refused().message.endswith(
        f"{PREFIX}failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
    )
    world.view.put("configmaps", {"metadata": {"name": "limit", "namespace": "n"}, "data": {"max": "5"}})
    world.ask()
    assert world.refused(deployment(6)).message.endswith(f"{PREFIX}limit says at most 5")
    world.binding(paramRef={"name": "none", "parameterNotFoundAction": "Allow"})
    world.ask(deployment(6))
    world.binding(paramRef={"name": "limit", "namespace": "other", "parameterNotFoundAction": "Allow"})
    world.ask(deployment(6))


def test_parameters_by_selector(world: World) -> None:
    world.policy("object.spec.replicas <= int(params.data.max)", paramKind={"apiVersion": "v1", "kind": "ConfigMap"})
    selector = {"matchLabels": {"use": "limits"}}
    world.binding(paramRef={"selector": selector, "parameterNotFoundAction": "Deny"})
    for name, most in (("a", "9"), ("b", "4")):
        meta = {"name": name, "namespace": "n", "labels": {"use": "limits"}}
        world.view.put("configmaps", {"metadata": meta, "data": {"max": most}})
    world.ask(deployment(4))
    world.refused(deployment(5))


def test_parameters_that_are_misconfigured(world: World) -> None:
    world.policy("true", paramKind={"apiVersion": "example.com/v2", "kind": "None"}).binding()
    assert world.refused().message.endswith(
        "ValidatingAdmissionPolicy 'x' denied request: failed to configure policy: failed to find resource referenced "
        "by paramKind: 'example.com/v2, Kind=None'"
    )
    world.policy("true", name="w", paramKind={"apiVersion": "v1", "kind": "Node"})
    world.binding(name="w", policy="w", paramRef={"name": "x", "namespace": "n"})
    world.view.drop(world.step.POLICIES, "", "x")
    assert "paramRef.namespace must not be provided for a cluster-scoped `paramKind`" in world.refused().message


def test_bindings_narrow(world: World) -> None:
    selector = {"namespaceSelector": {"matchLabels": {"env": "test"}}}
    world.policy("false").binding(matchResources=selector)
    world.ask()
    world.binding(name="z", matchResources={"objectSelector": {"matchLabels": {"strict": "yes"}}})
    world.ask()
    assert "with binding 'z'" in world.refused(deployment(strict="yes")).message


def test_audit_annotations(world: World) -> None:
    world.policy(
        auditAnnotations=[
            {
                "key": "many",
                "valueExpression": "object.spec.replicas > 2 ? 'many: ' + string(object.spec.replicas) : ''",
            },
            {"key": "empty", "valueExpression": "null"},
        ]
    ).binding()
    world.ask()
    assert world.told.annotations == {"x/many": "many: 3"}
    world.ask(deployment(1))
    assert world.told.annotations == {}
    world.policy(auditAnnotations=[{"key": "bad", "valueExpression": "object.none"}], name="w")
    world.binding(name="w", policy="w")
    assert "no such key: none" in world.refused().message


def test_the_first_denial_counts_and_dear_expressions_are_stopped(world: World) -> None:
    nested = "[1,2,3,4,5,6,7,8,9,10]"
    loops = "".join(f"{nested}.all(v{n}, " for n in range(8)) + "true" + ")" * 8
    world.policy(loops).binding()
    assert "cost limit exceeded" in world.refused().message or "cost budget" in world.refused().message


def test_policies_are_compiled_once_a_generation(world: World) -> None:
    world.policy("object.spec.replicas <= 5").binding()
    world.ask()
    first = world.step._policies.all()[0][0]
    world.binding(name="another")
    assert world.step._policies.all()[0][0] is first
    found = world.view.get(world.step.POLICIES, "", "x")
    assert found is not None
    world.view.put(world.step.POLICIES, {**found, "metadata": {**found["metadata"], "generation": 2}})
    assert world.step._policies.all()[0][0] is not first


async def test_other_versions_are_converted(world: World) -> None:
    async def convert(item: Object, version: str) -> Object:
        return {**item, "apiVersion": version}

    world.policy(
        "object.apiVersion == 'apps/v2' && request.kind.version == 'v2' && request.requestKind.version == 'v1'",
        matchConstraints={"resourceRules": [{**RULE, "apiVersions": ["v2"]}]},
    ).binding()
    other = (("apps", "v2", "deployments"), ("apps", "v2", "Deployment"))
    pending = world.admission.validate(world.request(convert=convert, equivalents=[other]))
    assert pending is not None
    await pending
