"""Which rule of an audit policy matches, and what policies are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pilothouse.apiserver.audit import AuditLevel, AuditPolicy, AuditPolicyError, recommended_policy
from pilothouse.apiserver.model import RequestInfo, User

ANN = User("ann", groups=("dev", "system:authenticated"))


def policy(*rules: dict[str, Any], **more: Any) -> AuditPolicy:
    return AuditPolicy.from_dict({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more})


def info(verb: str = "get", resource: str = "pods", **more: Any) -> RequestInfo:
    return RequestInfo(True, verb, f"/api/v1/{resource}", resource=resource, version="v1", **more)


@pytest.mark.parametrize(
    ("rule", "what", "matches"),
    [
        ({}, info(), True),
        ({"users": ["ann"]}, info(), True),
        ({"users": ["bob"]}, info(), False),
        ({"userGroups": ["ops", "dev"]}, info(), True),
        ({"userGroups": ["ops"]}, info(), False),
        ({"verbs": ["list", "get"]}, info(), True),
        ({"verbs": ["list"]}, info(), False),
        ({"namespaces": [""]}, info(), True),
        ({"namespaces": ["a"]}, info(namespace="a"), True),
        ({"namespaces": ["a"]}, info(namespace="b"), False),
        ({"namespaces": [""]}, RequestInfo(False, "get", "/x"), False),
        ({"resources": [{"group": ""}]}, info(subresource="log"), True),
        ({"resources": [{"group": "apps"}]}, info(), False),
        ({"resources": [{"group": "*"}]}, info(group="apps"), True),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, info(), True),
        ({"resources": [{"group": "", "resources": ["pods"]}]}, info(subresource="log"), False),
        ({"resources": [{"group": "", "resources": ["pods/log"]}]}, info(subresource="log"), True),
        ({"resources": [{"group": "", "resources": ["pods/log"]}]}, info(), False),
        ({"resources": [{"group": "", "resources": ["*/log"]}]}, info(subresource="log"), True),
        ({"resources": [{"group": "", "resources": ["*/log"]}]}, info(), False),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, info(subresource="log"), True),
        ({"resources": [{"group": "", "resources": ["pods/*"]}]}, info(), True),
        ({"resources": [{"group": "", "resources": ["*"]}]}, info(subresource="log"), True),
        ({"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["a"]}]}, info(name="a"), True),
        ({"resources": [{"group": "", "resources": ["pods"], "resourceNames": ["a"]}]}, info(name="b"), False),
        ({"nonResourceURLs": ["*"]}, info(), False),
        ({"nonResourceURLs": ["/logs*"]}, RequestInfo(False, "get", "/logs/a"), True),
        ({"nonResourceURLs": ["/logs"]}, RequestInfo(False, "get", "/logs/a"), False),
        ({"nonResourceURLs": ["/logs"]}, RequestInfo(False, "get", "/logs"), True),
    ],
)
def test_rules_match_as_kubernetes_matches_them(rule: dict[str, Any], what: RequestInfo, matches: bool) -> None:
    found = policy({"level": "Metadata", **rule})
    for _ in range(2):
        assert found.evaluate(ANN, what).level == (AuditLevel.METADATA if matches else AuditLevel.NONE)


def test_the_first_rule_counts_and_names_are_told_apart() -> None:
    named = {"level": "Request", "resources": [{"group": "", "resources": ["pods"], "resourceNames": ["a"]}]}
    found = policy(named, {"level": "Metadata"})
    levels = [found.evaluate(ANN, info(name=name)).level for name in ("a", "b", "a")]
    assert levels == [AuditLevel.REQUEST, AuditLevel.METADATA, AuditLevel.REQUEST]
    assert found.evaluate(None, info()).level == AuditLevel.METADATA


def test_stages_add_up_and_managed_fields_are_overridden() -> None:
    found = policy(
        {"level": "Metadata", "verbs": ["get"], "omitStages": ["Panic"], "omitManagedFields": False},
        {"level": "Metadata"},
        omitStages=["RequestReceived"],
        omitManagedFields=True,
    )
    first, second = found.evaluate(ANN, info()), found.evaluate(ANN, info("list"))
    assert first.omit_stages == {"RequestReceived", "Panic"}
    assert not first.omit_managed_fields
    assert second.omit_stages == {"RequestReceived"}
    assert second.omit_managed_fields


@pytest.mark.parametrize(
    ("rules", "text"),
    [
        ([{}], "rules[0].level: Required value"),
        (
            [{"level": "All"}],
            (
                'rules[0].level: Unsupported value: "All": supported values: '
                '"None", "Metadata", "Request", "RequestResponse"'
            ),
        ),
        (
            [{"level": "None", "nonResourceURLs": ["x"]}],
            "rules[0].nonResourceURLs[0]: Invalid value: \"x\": non-resource URL rules must begin with a '/' character",
        ),
        (
            [{"level": "None", "nonResourceURLs": ["/a*b"]}],
            (
                "rules[0].nonResourceURLs[0]: Invalid value: \"/a*b\": non-resource URL wildcards '*' must be the "
                "final character of the rule"
            ),
        ),
        (
            [{"level": "None", "nonResourceURLs": ["/a"], "namespaces": ["b"]}],
            (
                'rules[0].nonResourceURLs: Invalid value: ["/a"]: rules cannot apply to both regular resources and '
                "non-resource URLs"
            ),
        ),
        (
            [{"level": "None", "resources": [{"group": "", "resourceNames": ["a"]}]}],
            'rules[0].resources.resourceNames: Invalid value: ["a"]: using resourceNames requires at least one',
        ),
        (
            [{"level": "None", "omitStages": ["Late"]}],
            (
                'rules[0].omitStages[0]: Invalid value: "Late": allowed stages are '
                "RequestReceived,ResponseStarted,ResponseComplete,Panic"
            ),
        ),
        ([{"level": "None", "resources": [{"group": "rbac/v1"}]}], "rules[0].resources.group: Invalid value:"),
        ([{"level": "None", "users": "ann"}], "rules[0].users: Invalid value:"),
        ([{"level": ["None"]}], "rules[0].level: Invalid value:"),
        (["None"], "rules: Invalid value:"),
        ([], "rules: loaded illegal policy with 0 rules"),
    ],
)
def test_bad_policies_name_the_field(rules: Any, text: str) -> None:
    with pytest.raises(AuditPolicyError) as refused:
        policy(*rules)
    assert text in str(refused.value)
    assert str(refused.value).startswith("audit policy (given): ")


@pytest.mark.parametrize("text", ["a: [", "- 1", "kind: Policy", "apiVersion: audit.k8s.io/v1beta1\nkind: Policy"])
def test_a_file_that_is_no_policy_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(AuditPolicyError, match=r"audit policy .*policy\.yaml: "):
        AuditPolicy.load(str(path))
    with pytest.raises(AuditPolicyError, match=r"missing\.yaml: No such file"):
        AuditPolicy.load(str(tmp_path / "missing.yaml"))


def test_a_file_is_read_and_unknown_fields_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nnews: 1\nrules:\n- level: Request\n  verb: [get]\n")
    assert AuditPolicy.load(str(path)).evaluate(ANN, info()).level == AuditLevel.REQUEST


def test_the_recommended_policy_keeps_secrets_to_itself() -> None:
    found = AuditPolicy.from_dict(recommended_policy())
    assert found.evaluate(ANN, info("create", "secrets")).level == AuditLevel.METADATA
    token = info("create", "serviceaccounts", subresource="token")
    assert found.evaluate(ANN, token).level == AuditLevel.METADATA
    assert found.evaluate(ANN, info("create")).level == AuditLevel.REQUEST
    assert found.evaluate(ANN, info("update", "leases", group="coordination.k8s.io")).level == AuditLevel.NONE
