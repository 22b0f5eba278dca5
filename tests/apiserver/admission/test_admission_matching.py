"""Rules and selectors: operations, versions, subresources, scopes, namespaces, objects, equivalents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.admission.expressions import Conditions, ConditionsFailed, activation, request_value
from pilothouse.apiserver.admission.matching import Criteria, Match, Rule
from pilothouse.apiserver.ports import Gvk, Gvr, Object
from pilothouse.kinds import status
from support.dictview import ADMIN, DictView, Rules, write

PODS: Gvr = ("", "v1", "pods")


def rule(**more: Any) -> Object:
    return {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"], **more}


def pod(**labels: str) -> Object:
    return {"metadata": {"name": "p", "namespace": "n", "labels": labels}, "spec": {"containers": []}}


@pytest.fixture
def view() -> DictView:
    found = DictView()
    found.namespace("n", {"env": "prod"})
    return found


@pytest.mark.parametrize(
    ("told", "operation", "resource", "subresource", "holds"),
    [
        ({"resources": ["pods"]}, "CREATE", PODS, "", True),
        ({"resources": ["pods"]}, "CREATE", PODS, "status", False),
        ({"resources": ["pods/*"]}, "CREATE", PODS, "status", True),
        ({"resources": ["pods/status"]}, "CREATE", PODS, "", False),
        ({"resources": ["*"]}, "CREATE", PODS, "", True),
        ({"resources": ["*"]}, "CREATE", PODS, "exec", False),
        ({"resources": ["*/exec"]}, "CONNECT", PODS, "exec", True),
        ({"operations": ["UPDATE"]}, "CREATE", PODS, "", False),
        ({"apiGroups": ["apps"]}, "CREATE", PODS, "", False),
        ({"apiVersions": ["v2"]}, "CREATE", PODS, "", False),
        ({"apiGroups": [""], "apiVersions": ["v1"]}, "CREATE", PODS, "", True),
    ],
)
def test_rules(told: Object, operation: str, resource: Gvr, subresource: str, holds: bool) -> None:
    assert Rule.read(rule(**told)).takes(operation, resource, subresource) is holds


def test_scopes(view: DictView) -> None:
    for scope, of_pod, of_node, of_namespace in [
        ("Namespaced", True, False, False),
        ("Cluster", False, True, True),
        ("*", True, True, True),
    ]:
        criteria = Criteria([rule(scope=scope)], {})
        found = [
            criteria.match(write("CREATE", "pods", pod()), view),
            criteria.match(write("CREATE", "nodes", {"metadata": {"name": "x"}}), view),
            criteria.match(write("CREATE", "namespaces", {"metadata": {"name": "x"}}), view),
        ]
        assert [one is not None for one in found] == [of_pod, of_node, of_namespace]


def test_namespaces(view: DictView) -> None:
    criteria = Criteria([rule()], {"namespaceSelector": {"matchLabels": {"env": "prod"}}})
    assert criteria.match(write("CREATE", "pods", pod()), view)
    assert criteria.match(write("CREATE", "nodes", {"metadata": {"name": "x"}}), view)
    fresh = {"metadata": {"name": "x", "labels": {"env": "prod"}}}
    assert criteria.match(write("CREATE", "namespaces", fresh), view)
    assert not criteria.match(write("CREATE", "namespaces", {"metadata": {"name": "x"}}), view)
    gone = view.namespace("old", {"env": "prod"})
    assert criteria.match(write("DELETE", "namespaces", None, old=gone), view)
    stranger = {"metadata": {"name": "p", "namespace": "missing"}}
    with pytest.raises(status.NotFound, match='namespaces "missing" not found'):
        criteria.match(write("CREATE", "pods", stranger), view)


def test_objects(view: DictView) -> None:
    criteria = Criteria([rule()], {"objectSelector": {"matchLabels": {"a": "b"}}})
    assert criteria.match(write("CREATE", "pods", pod(a="b")), view)
    assert criteria.match(write("UPDATE", "pods", pod(), old=pod(a="b")), view)
    assert criteria.match(write("DELETE", "pods", None, old=pod(a="b")), view)
    assert not criteria.match(write("CREATE", "pods", pod(a="c")), view)


def test_equivalents(view: DictView) -> None:
    other: tuple[Gvr, Gvk] = (("policy", "v9", "pods"), ("policy", "v9", "Pod"))
    told = rule(apiVersions=["v9"])
    request = write("CREATE", "pods", pod(), equivalents=[((*PODS,), ("", "v1", "Pod")), other])
    assert Criteria([told], {}).match(request, view) == Match(*other)
    assert Criteria([told], {"matchPolicy": "Exact"}).match(request, view) is None
    assert Criteria([told], {}).concerns("CREATE", PODS, "")
    assert not Criteria([told], {"matchPolicy": "Exact"}).concerns("CREATE", PODS, "")


def test_policies(view: DictView) -> None:
    criteria = Criteria.of_resources(
        {"resourceRules": [rule(resources=["pods"])], "excludeResourceRules": [rule(resourceNames=["p"])]}
    )
    assert not criteria.match(write("CREATE", "pods", pod()), view)
    other = pod()
    other["metadata"]["name"] = "q"
    assert criteria.match(write("CREATE", "pods", other), view)
    assert Criteria.of_resources(None).match(write("CREATE", "pods", pod()), view)


def test_bad_selectors_refuse_what_they_are_asked(view: DictView) -> None:
    bad = {"matchExpressions": [{"key": "a", "operator": "Nope"}]}
    criteria = Criteria([rule(resources=["pods"])], {"namespaceSelector": bad})
    assert criteria.match(write("CREATE", "configmaps", pod()), view) is None
    with pytest.raises(status.InternalError):
        criteria.match(write("CREATE", "pods", pod()), view)


def hold(*texts: str, policy: str = "Fail", authorizer: Rules | None = None) -> bool:
    request = write("CREATE", "pods", pod(a="b"))
    found = Conditions([{"name": str(number), "expression": text} for number, text in enumerate(texts)], policy)
    match = Match(request.resource, request.kind)
    return found.hold(activation(request, match, request.object, request.old, authorizer or Rules()))


def test_conditions() -> None:
    assert hold("object.metadata.labels.a == 'b'", "oldObject == null", "request.operation == 'CREATE'")
    assert hold("request.userInfo.username == 'admin' && 'system:masters' in request.userInfo.groups")
    assert not hold("object.spec.none", "false")
    assert not hold("object.spec.none", policy="Ignore")
    with pytest.raises(ConditionsFailed) as caught:
        hold("object.spec.none == 1", "true")
    assert str(caught.value) == "expression 'object.spec.none == 1' resulted in error: no such key: none"
    with pytest.raises(ConditionsFailed, match="compilation error: "):
        hold("1 +")


def test_conditions_ask_the_authorizer() -> None:
    rules = Rules(("admin", "breakglass", "pods", "p"))
    assert hold("authorizer.requestResource.check('breakglass').allowed()", authorizer=rules)
    assert not hold("authorizer.group('').resource('pods').check('x').allowed()", authorizer=rules)


def test_the_request_as_expressions_see_it() -> None:
    request = write("UPDATE", "pods", pod(), old=pod(), dry_run=True)
    assert request_value(request, Match(request.resource, request.kind)) == {
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "requestResource": {"group": "", "version": "v1", "resource": "pods"},
        "name": "p",
        "namespace": "n",
        "operation": "UPDATE",
        "userInfo": {"username": ADMIN.name, "groups": list(ADMIN.groups)},
        "dryRun": True,
        "options": {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"},
    }


words = st.lists(st.sampled_from(["*", "a", "b", ""]), max_size=2)
told_rules = st.fixed_dictionaries(
    {
        "operations": st.lists(st.sampled_from(["*", "CREATE", "UPDATE"]), max_size=2),
        "apiGroups": words,
        "apiVersions": words,
        "resources": st.lists(st.sampled_from(["*", "a", "b", "a/x", "*/x", "*/*", "a/*"]), max_size=2),
        "scope": st.sampled_from(["*", "Namespaced", "Cluster"]),
    }
)
resources = st.tuples(*[st.sampled_from(["a", "b", ""])] * 2, st.sampled_from(["a", "b"]))


@given(
    st.lists(told_rules, max_size=3), resources, st.sampled_from(["a", "b", ""]), st.sampled_from(["", "x"]),
    st.sampled_from(["Exact", "Equivalent"]),
)  # fmt: skip
def test_what_matches_was_said_to_concern(
    rules: list[Object], resource: Gvr, version: str, subresource: str, policy: str
) -> None:
    """Whatever a request's object is, it matches only where the chain would have asked at all."""
    other = (resource[0], version, resource[2])
    request = write("CREATE", "pods", pod(), subresource=subresource, equivalents=[(other, (*other[:2], "X"))])
    request.resource = resource
    criteria = Criteria(rules, {"matchPolicy": policy})
    if criteria.match(request, DictView()) is not None:
        assert criteria.concerns("CREATE", resource, subresource)
