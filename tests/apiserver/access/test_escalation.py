from __future__ import annotations

import copy
from typing import Any

import pytest

from pilothouse.apiserver.access.escalation import EscalationCheck, EscalationPlugin
from pilothouse.apiserver.access.rbac import RbacAuthorizer
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import AdmissionRequest
from pilothouse.kinds.status import Forbidden, NotFound
from support.accessview import RBAC, MemoryView, binding, person, role, rule, urls

BOB = User("bob", groups=("devs", "system:authenticated"))
MASTER = User("root", groups=("system:masters",))


@pytest.fixture
def view() -> MemoryView:
    view = MemoryView()
    view.role("pods", rule("get,list", "", "pods"))
    view.role("root", rule("*", "*", "*"), urls("*", "*"))
    view.role("local-secrets", rule("get", "", "secrets"), namespace="team")
    view.bind("bob-pods", "pods", person("bob"))
    return view


@pytest.fixture
def check(view: MemoryView) -> EscalationCheck:
    rbac = RbacAuthorizer(view)
    return EscalationCheck(rbac, rbac)


def refused(check: EscalationCheck, obj: dict[str, Any], old: dict[str, Any] | None = None) -> str:
    with pytest.raises(Forbidden) as caught:
        check.check_write(BOB, obj, old)
    return caught.value.message


def test_one_may_give_what_one_holds(check: EscalationCheck) -> None:
    check.check_write(BOB, role("r", rule("get", "", "pods"), namespace="team"))
    check.check_write(BOB, role("r", rule("list", "", "pods")))
    check.check_write(BOB, binding("b", "pods", person("eve"), namespace="team"))
    check.check_write(BOB, binding("b", "pods", person("eve")))


def test_one_may_not_give_more(check: EscalationCheck) -> None:
    wanted = role("r", rule("get,list,watch", "", "pods,secrets"), urls("get", "/metrics"), namespace="team")
    assert refused(check, wanted) == (
        'roles.rbac.authorization.k8s.io "r" is forbidden: user "bob" (groups=["devs" "system:authenticated"]) is '
        "attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["pods"], Verbs:["watch"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list" "watch"]}\n'
        '{NonResourceURLs:["/metrics"], Verbs:["get"]}'
    )


def test_one_may_not_bind_oneself_to_more(check: EscalationCheck) -> None:
    for obj in (
        binding("b", "root", person("bob"), namespace="team"),
        binding("b", "root", person("bob")),
        binding("b", "local-secrets", person("bob"), namespace="team", kind="Role"),
    ):
        message = refused(check, obj)
        kind = "rolebindings" if obj["kind"] == "RoleBinding" else "clusterrolebindings"
        assert message.startswith(f'{kind}.rbac.authorization.k8s.io "b" is forbidden: user "bob"')


def test_masters_may_give_everything(check: EscalationCheck) -> None:
    check.check_write(MASTER, role("r", rule("*", "*", "*")))
    check.check_write(MASTER, binding("b", "gone", person("x")))


def test_what_is_held_in_a_namespace_may_be_given_there_only(view: MemoryView, check: EscalationCheck) -> None:
    view.bind("bob-secrets", "local-secrets", person("bob"), namespace="team", kind="Role")
    check.check_write(BOB, role("r", rule("get", "", "secrets"), namespace="team"))
    check.check_write(BOB, binding("b", "local-secrets", person("eve"), namespace="team", kind="Role"))
    refused(check, role("r", rule("get", "", "secrets"), namespace="other"))
    refused(check, role("r", rule("get", "", "secrets")))


def test_the_verb_escalate_lets_one_write_any_role(view: MemoryView, check: EscalationCheck) -> None:
    wanted = role("r", rule("*", "*", "*"), namespace="team")
    view.role("escalators", rule("escalate", RBAC, "roles"))
    view.bind("bob-escalates", "escalators", person("bob"), namespace="team")
    check.check_write(BOB, wanted)
    refused(check, role("r", rule("*", "*", "*"), namespace="other"))
    refused(check, role("r", rule("*", "*", "*")))
    refused(check, binding("b", "root", person("bob"), namespace="team"))


def test_escalate_for_one_name_holds_for_updates(view: MemoryView, check: EscalationCheck) -> None:
    view.role("escalators", rule("escalate", RBAC, "clusterroles", "r"))
    view.bind("bob-escalates", "escalators", person("bob"))
    wanted = role("r", rule("*", "*", "*"))
    check.check_write(BOB, wanted, role("r"))
    refused(check, wanted)
    refused(check, role("s", rule("*", "*", "*")), role("s"))


def test_the_verb_bind_lets_one_bind_that_role(view: MemoryView, check: EscalationCheck) -> None:
    view.role("binders", rule("bind", RBAC, "clusterroles", "root"))
    view.bind("bob-binds", "binders", person("bob"), namespace="team")
    check.check_write(BOB, binding("b", "root", person("bob"), namespace="team"))
    refused(check, binding("b", "root", person("bob"), namespace="other"))
    refused(check, binding("b", "root", person("bob")))


def test_a_binding_to_no_role_is_not_found(check: EscalationCheck) -> None:
    for kind, shown in (("ClusterRole", "clusterrole"), ("Role", "role")):
        with pytest.raises(NotFound) as caught:
            check.check_write(BOB, binding("b", "gone", person("x"), namespace="team", kind=kind))
        assert caught.value.message == f'{shown}.rbac.authorization.k8s.io "gone" not found'
    with pytest.raises(NotFound, match="unsupported role reference kind"):
        check.check_write(BOB, binding("b", "gone", person("x"), kind="Other"))


def test_gathering_rules_needs_everything(view: MemoryView, check: EscalationCheck) -> None:
    wanted = {**role("r"), "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}}
    told = (
        'clusterroles.rbac.authorization.k8s.io "r" is forbidden: '
        "must have cluster-admin privileges to use an aggregationRule"
    )
    assert refused(check, wanted) == told
    assert refused(check, role("r", rule("get", "", "pods")), wanted) == told
    view.bind("bob-root", "root", person("bob"))
    check.check_write(BOB, wanted)


def test_what_the_garbage_collector_changes_is_not_checked(check: EscalationCheck) -> None:
    old = role("r", rule("*", "*", "*"))
    new = copy.deepcopy(old)
    new["metadata"] |= {"finalizers": ["x"], "ownerReferences": [{"name": "o"}]}
    check.check_write(BOB, new, old)
    new["metadata"]["labels"] = {"a": "b"}
    refused(check, new, old)


def test_missing_roles_are_told_with_the_refusal(view: MemoryView, check: EscalationCheck) -> None:
    view.bind("broken", "gone", person("bob"))
    message = refused(check, role("r", rule("get", "", "secrets")))
    assert message.endswith('; resolution errors: [clusterrole.rbac.authorization.k8s.io "gone" not found]')


def test_other_kinds_pass(check: EscalationCheck) -> None:
    check.check_write(BOB, {"kind": "Pod", "metadata": {"name": "x"}})


def test_the_check_is_a_step_of_admission(check: EscalationCheck) -> None:
    plugin = EscalationPlugin(check)
    gvr = (RBAC, "v1", "roles")
    assert plugin.handles("CREATE", gvr, "")
    assert plugin.handles("UPDATE", (RBAC, "v1", "clusterrolebindings"), "")
    assert not plugin.handles("DELETE", gvr, "")
    assert not plugin.handles("CREATE", ("", "v1", "pods"), "")
    assert plugin.revision == 0

    def asked(*rules: dict[str, Any]) -> AdmissionRequest:
        wanted = {"metadata": {"name": "r"}, "rules": list(rules)}
        kind = (RBAC, "v1", "Role")
        return AdmissionRequest("CREATE", kind, gvr, "", "team", "r", wanted, None, {}, dry_run=False, user=BOB)

    plugin.mutate(asked())
    plugin.validate(asked(rule("get", "", "pods")))
    with pytest.raises(Forbidden):
        plugin.validate(asked(rule("delete", "", "pods")))
