"""MutatingAdmissionPolicy with real expressions: merged configurations, patches, reinvocation, failures."""

from __future__ import annotations

from typing import Any

import pytest

from pilothouse.apiserver.admission.chain import Admission
from pilothouse.apiserver.admission.mutating_policies import MutatingPolicies
from pilothouse.apiserver.admission.plugin import Plugin
from pilothouse.apiserver.ports import AdmissionRequest, Object
from pilothouse.kinds import status
from support.dictview import DictView, Rules, Told, write

RULE = {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}


def pod(**labels: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "labels": labels},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }


def applied(expression: str) -> Object:
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def patched(expression: str) -> Object:
    return {"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}


class World:
    def __init__(self) -> None:
        self.view = DictView()
        self.view.namespace("n", {"env": "prod"})
        kinds = {("v1", "ConfigMap"): ("configmaps", True)}
        self.step = MutatingPolicies(self.view, lambda version, kind: kinds.get((version, kind)), Rules())
        self.admission = Admission([self.step])

    def policy(self, *mutations: Object, name: str = "m", binding: Object | None = None, **spec: Any) -> World:
        made = {"matchConstraints": {"resourceRules": [RULE]}, "mutations": list(mutations), **spec}
        self.view.put(self.step.POLICIES, {"metadata": {"name": name, "generation": 1}, "spec": made})
        bound = {"metadata": {"name": f"{name}-b"}, "spec": {"policyName": name, **(binding or {})}}
        self.view.put(self.step.BINDINGS, bound)
        return self

    async def run(self, item: Object | None = None, **more: Any) -> Object:
        request: AdmissionRequest = write(more.pop("operation", "CREATE"), "pods", item or pod(), told=Told(), **more)
        pending = self.admission.admit(request)
        if pending is not None:
            await pending
        assert request.object is not None
        return request.object

    async def refused(self, item: Object | None = None) -> status.ApiStatus:
        with pytest.raises(status.ApiStatus) as caught:
            await self.run(item)
        return caught.value


@pytest.fixture
def world() -> World:
    return World()


async def test_apply_configurations_are_merged(world: World) -> None:
    world.policy(
        applied(
            "Object{metadata: Object.metadata{labels: {'a': 'b'}}, spec: Object.spec{"
            "terminationGracePeriodSeconds: 5, initContainers: [Object.spec.initContainers{name: 'mesh', image: 'm:1', "
            "restartPolicy: 'Always'}]}}"
        )
    )
    made = await world.run(pod(own="x"))
    assert made["metadata"]["labels"] == {"own": "x", "a": "b"}
    assert made["spec"]["containers"][0]["name"] == "c"
    (mesh,) = made["spec"]["initContainers"]
    assert (mesh["name"], mesh["restartPolicy"], mesh["imagePullPolicy"]) == ("mesh", "Always", "IfNotPresent")
    assert made["spec"]["terminationGracePeriodSeconds"] == 5


async def test_list_items_are_merged_by_key(world: World) -> None:
    world.policy(
        applied(
            "Object{spec: Object.spec{containers: object.spec.containers.map(c, Object.spec.containers{name: c.name, "
            "imagePullPolicy: 'Always'})}}"
        )
    )
    made = await world.run()
    assert [(one["image"], one["imagePullPolicy"]) for one in made["spec"]["containers"]] == [("i", "Always")]


async def test_patches(world: World) -> None:
    world.policy(
        patched(
            "[JSONPatch{op: 'test', path: '/spec/containers/0/image', value: 'i'}, "
            "JSONPatch{op: 'replace', path: '/spec/containers/0/image', value: 'registry/' + "
            "object.spec.containers[0].image}, "
            "JSONPatch{op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: 'x'}, "
            "JSONPatch{op: 'add', path: '/spec/nodeSelector', value: {'disk': 'fast'}}, "
            "JSONPatch{op: 'add', path: '/spec/securityContext', value: Object.spec.securityContext{runAsUser: 7}}]"
        )
    )
    made = await world.run()
    assert made["spec"]["containers"][0]["image"] == "registry/i"
    assert made["metadata"]["labels"] == {"a/b": "x"}
    assert made["spec"]["nodeSelector"] == {"disk": "fast"}
    assert made["spec"]["securityContext"]["runAsUser"] == 7


async def test_a_failed_test_leaves_the_object(world: World) -> None:
    world.policy(
        patched(
            "[JSONPatch{op: 'test', path: '/metadata/name', value: 'q'}, "
            "JSONPatch{op: 'add', path: '/metadata/labels/x', value: 'y'}]"
        )
    )
    item = pod()
    assert await world.run(item) is item


async def test_mutations_see_what_former_ones_left(world: World) -> None:
    world.policy(
        applied("Object{metadata: Object.metadata{labels: {'a': 'b'}}}"),
        patched("has(object.metadata.labels.a) ? [JSONPatch{op: 'add', path: '/metadata/labels/c', value: 'd'}] : []"),
    )
    assert (await world.run())["metadata"]["labels"] == {"a": "b", "c": "d"}


async def test_variables_params_and_conditions(world: World) -> None:
    world.policy(
        applied("Object{metadata: Object.metadata{labels: {'env': variables.env, 'team': params.data.team}}}"),
        variables=[{"name": "env", "expression": "namespaceObject.metadata.labels.env"}],
        matchConditions=[{"name": "c", "expression": "!has(object.metadata.labels.skip)"}],
        paramKind={"apiVersion": "v1", "kind": "ConfigMap"},
        binding={"paramRef": {"name": "teams", "parameterNotFoundAction": "Deny"}},
    )
    assert (await world.refused()).message == (
        "policy 'm' with binding 'm-b' denied request: failed to configure binding: no params found for policy binding "
        "with `Deny` parameterNotFoundAction"
    )
    world.view.put("configmaps", {"metadata": {"name": "teams", "namespace": "n"}, "data": {"team": "blue"}})
    assert (await world.run())["metadata"]["labels"] == {"env": "prod", "team": "blue"}
    assert (await world.run(pod(skip="y")))["metadata"]["labels"] == {"skip": "y"}


@pytest.mark.parametrize(
    ("mutation", "why"),
    [
        (
            applied("Object{spec: Object.spec{nope: 1}}"),
            "error applying patch: failed to convert patch object to typed",
        ),
        (
            applied("Object{spec: Object.spec{containers: [Object.spec.containers{name: 'c', args: ['x']}]}}"),
            (
                "error applying patch: invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: "
                ".spec.containers[0].args"
            ),
        ),
        (
            applied("Object{spec: Object.wrong{}}"),
            (
                'type mismatch: unexpected type name "Object.wrong", expected "Object.spec", which matches field name '
                "path from root Object type"
            ),
        ),
        (applied("{'a': 1}"), "must evaluate to Object"),
        (patched("[1]"), "must evaluate to list(JSONPatch)"),
        (applied("Object{"), "compilation failed: ERROR: <input>:1:"),
        (applied("Object{metadata: Object.metadata{name: object.none}}"), "no such key: none"),
        (patched("[JSONPatch{op: 'remove', path: '/none'}]"), "JSON Patch: "),
    ],
)
async def test_failures(world: World, mutation: Object, why: str) -> None:
    world.policy(mutation)
    error = await world.refused()
    assert error.message.startswith("policy 'm' with binding 'm-b' denied request: ")
    assert why in error.message
    assert (error.code, error.reason) == (403, "Invalid")
    assert error.causes == [{"message": error.message}]
    world.policy(mutation, name="m", failurePolicy="Ignore")
    found = world.view.get(world.step.POLICIES, "", "m")
    assert found is not None
    world.view.put(world.step.POLICIES, {**found, "metadata": {**found["metadata"], "generation": 2}})
    item = pod()
    assert await world.run(item) is item


async def test_reinvocation(world: World) -> None:
    world.policy(
        applied("Object{metadata: Object.metadata{annotations: {'count': string(size(object.spec.containers))}}}"),
        name="a",
        reinvocationPolicy="IfNeeded",
    )
    side = "JSONPatch{op: 'add', path: '/spec/containers/-', value: Object.spec.containers{name: 'side', image: 's'}}"
    world.policy(patched(f"size(object.spec.containers) == 1 ? [{side}] : []"), name="b")
    made = await world.run()
    assert len(made["spec"]["containers"]) == 2
    assert made["metadata"]["annotations"] == {"count": "2"}


async def test_reinvocation_after_other_steps(world: World) -> None:
    class Later(Plugin):
        OPERATIONS = frozenset({"CREATE"})
        RESOURCES = frozenset({("", "pods")})
        name = "later"

        def mutate(self, request: AdmissionRequest) -> None:
            assert request.object is not None
            request.object["metadata"]["labels"].setdefault("late", "x")
            request.reinvocation["reinvocation needed"] = True

    world.policy(
        applied("Object{metadata: Object.metadata{annotations: {'late': string(has(object.metadata.labels.late))}}}"),
        reinvocationPolicy="IfNeeded",
    )
    world.admission = Admission([world.step, Later()])
    assert (await world.run())["metadata"]["annotations"] == {"late": "true"}


async def test_deletions_are_left_alone(world: World) -> None:
    world.policy(applied("Object{metadata: Object.metadata{labels: {'a': 'b'}}}"))
    request = write("DELETE", "pods", None, old=pod())
    assert world.admission.admit(request) is None
    assert request.object is None


async def test_kinds_without_schema(world: World) -> None:
    world.policy(
        applied("Object{metadata: Object.metadata{labels: {'a': 'b'}}}"),
        matchConstraints={"resourceRules": [{**RULE, "apiGroups": ["*"], "resources": ["*"]}]},
    )
    request = write("CREATE", "pods", {**pod(), "apiVersion": "example.com/v1", "kind": "Boat"})
    request.kind, request.resource = ("example.com", "v1", "Boat"), ("example.com", "v1", "boats")
    with pytest.raises(status.ApiStatus, match=r"Resource kind example\.com/v1, Kind=Boat not found"):
        world.admission.admit(request)


def test_nothing_is_done_where_nothing_matches(world: World) -> None:
    world.policy(applied("Object{}"))
    assert not world.admission.concerns("CREATE", ("", "v1", "configmaps"), "")
    assert not world.admission.concerns(
        "CREATE", ("admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies"), ""
    )
    assert world.admission.concerns("UPDATE", ("", "v1", "pods"), "")
