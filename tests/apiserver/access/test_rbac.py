from __future__ import annotations

import pytest

from pilothouse.apiserver.access.authorizers import UnionAuthorizer
from pilothouse.apiserver.access.forbidden import forbidden_because, forbidden_for
from pilothouse.apiserver.access.rbac import RbacAuthorizer, RoleMissing
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Attributes, Decision
from support.accessview import MemoryView, account, asks, asks_path, binding, group, person, role, rule, urls

ALICE = User("alice", groups=("devs", "system:authenticated"))
BOB = User("bob", groups=("system:authenticated",))
ROBOT = User("system:serviceaccount:default:robot", groups=("system:serviceaccounts", "system:authenticated"))
ROOT = User("root", groups=("system:masters",))


@pytest.fixture
def view() -> MemoryView:
    view = MemoryView()
    view.role("reader", rule("get,list,watch", "", "pods,pods/log"))
    view.role("scaler", rule("get,update", "*", "*/scale"))
    view.role("everything", rule("*", "*", "*"), urls("*", "*"))
    view.role("probes", urls("get", "/healthz,/metrics/*"))
    view.role("one-secret", rule("get", "", "secrets", "db"), namespace="default")
    return view


@pytest.fixture
def rbac(view: MemoryView) -> RbacAuthorizer:
    return RbacAuthorizer(view)


def test_nobody_may_do_anything_without_a_binding(rbac: RbacAuthorizer) -> None:
    assert rbac.authorize(asks(ALICE, "get", "pods", "default", "x")) == Decision(allowed=False)


def test_masters_may_do_everything_without_one(rbac: RbacAuthorizer) -> None:
    assert rbac.authorize(asks(ROOT, "delete", "nodes")).allowed
    assert rbac.authorize(asks_path(ROOT, "get", "/metrics")).allowed


def test_who_may_do_what_where(view: MemoryView, rbac: RbacAuthorizer) -> None:
    view.bind("readers", "reader", group("devs"))
    view.bind("local", "everything", person("bob"), namespace="sandbox")
    view.bind("probes", "probes", group("system:authenticated"))
    view.bind("scalers", "scaler", account("robot", "default"))
    view.bind("db", "one-secret", account("robot"), namespace="default", kind="Role")
    matrix = {
        (ALICE, "get", "pods", "default"): True,
        (ALICE, "list", "pods", ""): True,
        (ALICE, "get", "pods/log", "default"): True,
        (ALICE, "get", "pods/exec", "default"): False,
        (ALICE, "create", "pods", "default"): False,
        (ALICE, "get", "secrets", "default"): False,
        (BOB, "get", "pods", "default"): False,
        (BOB, "create", "pods", "sandbox"): True,
        (BOB, "create", "pods/exec", "sandbox"): True,
        (BOB, "list", "pods", ""): False,
        (ROBOT, "update", "deployments/scale", "default"): True,
        (ROBOT, "update", "deployments", "default"): False,
        (ROBOT, "update", "deployments/status", "default"): False,
        (ROBOT, "patch", "deployments/scale", "default"): False,
        (ROBOT, "get", "secrets", "default"): False,
    }
    found = {key: rbac.authorize(asks(*key)).allowed for key in matrix}
    assert found == matrix
    # twice, so that remembered decisions are the same
    assert {key: rbac.authorize(asks(*key)).allowed for key in matrix} == matrix
    assert rbac.authorize(asks(ROBOT, "get", "secrets", "default", "db")).allowed
    assert not rbac.authorize(asks(ROBOT, "get", "secrets", "default", "other")).allowed
    assert not rbac.authorize(asks(ROBOT, "get", "secrets", "sandbox", "db")).allowed


@pytest.mark.parametrize(
    ("path", "verb", "allowed"),
    [
        ("/healthz", "get", True),
        ("/healthz/etcd", "get", False),
        ("/metrics/", "get", True),
        ("/metrics/slis", "get", True),
        ("/metrics", "get", False),
        ("/healthz", "post", False),
    ],
)
def test_paths_that_are_no_resources(
    view: MemoryView,
    rbac: RbacAuthorizer,
    path: str,
    verb: str,
    allowed: bool,
) -> None:
    view.bind("probes", "probes", person("bob"))
    assert rbac.authorize(asks_path(BOB, verb, path)).allowed is allowed


def test_reasons_name_the_binding_as_kubernetes_does(view: MemoryView, rbac: RbacAuthorizer) -> None:
    view.bind("readers", "reader", person("alice"))
    view.bind("local", "reader", account("robot"), namespace="default")
    told = rbac.authorize(asks(ALICE, "get", "pods", "default"))
    assert told.reason == 'RBAC: allowed by ClusterRoleBinding "readers" of ClusterRole "reader" to User "alice"'
    told = rbac.authorize(asks(ROBOT, "get", "pods", "default"))
    assert told.reason == (
        'RBAC: allowed by RoleBinding "local/default" of ClusterRole "reader" to ServiceAccount "robot/default"'
    )


def test_a_service_account_elsewhere_is_another_user(view: MemoryView, rbac: RbacAuthorizer) -> None:
    view.bind("local", "reader", account("robot"), namespace="other")
    assert not rbac.authorize(asks(ROBOT, "get", "pods", "other")).allowed
    view.bind("cluster", "reader", account("robot"))
    assert not rbac.authorize(asks(ROBOT, "get", "pods", "other")).allowed


def test_a_role_that_is_missing_is_told_and_harms_no_other(view: MemoryView, rbac: RbacAuthorizer) -> None:
    view.bind("broken", "gone", person("alice"))
    view.bind("local", "nowhere", person("alice"), namespace="default", kind="Role")
    denied = rbac.authorize(asks(ALICE, "get", "pods", "default"))
    assert not denied.allowed
    assert denied.reason == (
        'RBAC: [clusterrole.rbac.authorization.k8s.io "gone" not found, '
        'role.rbac.authorization.k8s.io "nowhere" not found]'
    )
    assert denied.error in denied.reason
    view.bind("readers", "reader", group("devs"))
    assert rbac.authorize(asks(ALICE, "get", "pods", "default")).allowed
    with pytest.raises(RoleMissing, match='"gone" not found'):
        rbac.role_rules("ClusterRole", "", "gone")


def test_a_decision_lasts_until_the_rules_change(view: MemoryView, rbac: RbacAuthorizer) -> None:
    wanted = asks(BOB, "get", "pods", "default", "x")
    assert not rbac.authorize(wanted).allowed
    view.bind("readers", "reader", person("bob"))
    assert rbac.authorize(wanted).allowed
    reads = view.reads
    for number in range(100):
        assert rbac.authorize(asks(BOB, "get", "pods", "default", f"p{number}")).allowed
    assert view.reads == reads
    view.role("reader", rule("list", "", "pods"))
    assert not rbac.authorize(wanted).allowed
    view.role("reader", rule("get", "", "pods"))
    view.remove("clusterrolebindings.rbac.authorization.k8s.io", "", "readers")
    assert not rbac.authorize(wanted).allowed
    view.bind("local", "reader", person("bob"), namespace="default")
    assert rbac.authorize(wanted).allowed
    view.remove("clusterroles.rbac.authorization.k8s.io", "", "reader")
    assert not rbac.authorize(wanted).allowed


def test_names_are_told_apart_only_where_a_rule_names_some(view: MemoryView, rbac: RbacAuthorizer) -> None:
    view.bind("db", "one-secret", person("bob"), namespace="default", kind="Role")
    view.bind("all", "reader", person("alice"))
    for number in range(50):
        assert not rbac.authorize(asks(BOB, "get", "secrets", "default", f"s{number}")).allowed
        assert rbac.authorize(asks(ALICE, "get", "pods", "default", f"p{number}")).allowed
    assert rbac.authorize(asks(BOB, "get", "secrets", "default", "db")).allowed
    assert len(rbac._memo) == 1
    assert len(rbac._named) == 51


def test_a_rule_that_names_some_counts_only_for_what_it_is_about(view: MemoryView, rbac: RbacAuthorizer) -> None:
    view.bind("a", "reader", person("alice"))
    view.bind("b", "one-secret", person("alice"), namespace="default", kind="Role")
    for number in range(50):
        assert rbac.authorize(asks(ALICE, "get", "pods", "default", f"x{number}")).allowed
        assert not rbac.authorize(asks(ALICE, "delete", "secrets", "default", f"x{number}")).allowed
    assert (len(rbac._memo), len(rbac._named)) == (2, 0)
    assert rbac.authorize(asks(ALICE, "get", "secrets", "default", "db")).allowed
    assert not rbac.authorize(asks(ALICE, "get", "secrets", "default", "x")).allowed
    assert (len(rbac._memo), len(rbac._named)) == (2, 2)


def test_memory_is_bounded(view: MemoryView, rbac: RbacAuthorizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.apiserver.access.rbac._MEMO", 10)
    monkeypatch.setattr("pilothouse.apiserver.access.rbac._GRANTS", 10)
    monkeypatch.setattr("pilothouse.apiserver.access.rbac._NAMESPACES", 10)
    for number in range(100):
        rbac.authorize(asks(BOB, "get", "pods", f"n{number}"))
    assert len(rbac._memo) + len(rbac._named) <= 10
    assert len(rbac._granted) <= 10
    assert len(rbac._namespaces) <= 10


def test_long_questions_are_answered_and_forgotten(view: MemoryView, rbac: RbacAuthorizer) -> None:
    view.bind("probes", "probes", person("bob"))
    assert rbac.authorize(asks_path(BOB, "get", "/metrics/" + "x" * 10_000)).allowed
    assert not rbac.authorize(asks(BOB, "get", "pods", "n" * 10_000, "p")).allowed
    assert not rbac._memo
    assert not rbac._named
    assert not rbac._namespaces


def test_it_stops_listening(view: MemoryView, rbac: RbacAuthorizer) -> None:
    assert view.listeners() == 4
    rbac.close()
    assert view.listeners() == 0


def test_rules_for_a_user(view: MemoryView, rbac: RbacAuthorizer) -> None:
    view.bind("readers", "reader", person("bob"))
    view.bind("local", "one-secret", person("bob"), namespace="default", kind="Role")
    view.bind("broken", "gone", person("bob"))
    rules, errors = rbac.rules_for(BOB, "default")
    assert rules == [rule("get,list,watch", "", "pods,pods/log"), rule("get", "", "secrets", "db")]
    assert errors == ['clusterrole.rbac.authorization.k8s.io "gone" not found']
    assert rbac.rules_for(BOB)[0] == rules[:1]


def test_a_binding_without_subjects_or_rules_gives_nothing(view: MemoryView, rbac: RbacAuthorizer) -> None:
    bare = binding("bare", "empty")
    del bare["subjects"]
    view.put("clusterrolebindings.rbac.authorization.k8s.io", bare)
    empty = role("empty")
    empty["rules"] = None
    view.put("clusterroles.rbac.authorization.k8s.io", empty)
    view.bind("to", "empty", person("bob"))
    assert not rbac.authorize(asks(BOB, "get", "pods")).allowed


class _Says:
    def __init__(self, decision: Decision) -> None:
        self._decision = decision

    def authorize(self, attributes: Attributes) -> Decision:
        return self._decision


def test_the_first_that_allows_or_denies_decides() -> None:
    silent, also = Decision(allowed=False, reason="a"), Decision(allowed=False, reason="b", error="c")
    allowed, denied = Decision(allowed=True), Decision(allowed=False, denied=True, reason="no")

    def union(*decisions: Decision) -> Decision:
        return UnionAuthorizer([_Says(one) for one in decisions]).authorize(asks(BOB, "get", "pods"))

    assert union(silent, allowed, denied) == allowed
    assert union(silent, denied, allowed) == denied
    assert union(silent, also) == Decision(allowed=False, reason="a\nb", error="c")


@pytest.mark.parametrize(
    ("wanted", "message", "details"),
    [
        (
            asks(BOB, "get", "pods", "default", "x"),
            'pods "x" is forbidden: User "bob" cannot get resource "pods" in API group "" in the namespace "default"',
            {"name": "x", "kind": "pods"},
        ),
        (
            asks(BOB, "list", "deployments/scale", api_group="apps"),
            (
                'deployments.apps is forbidden: User "bob" cannot list resource "deployments/scale" '
                'in API group "apps" at the cluster scope'
            ),
            {"group": "apps", "kind": "deployments"},
        ),
        (asks_path(BOB, "get", "/metrics"), 'forbidden: User "bob" cannot get path "/metrics"', {}),
        (asks_path(BOB, "get", "/<a>&"), 'forbidden: User "bob" cannot get path "/&lt;a&gt;&amp;"', {}),
    ],
)
def test_refusals_read_as_those_of_kube_apiserver(wanted: Attributes, message: str, details: dict[str, str]) -> None:
    error = forbidden_for(wanted, Decision(allowed=False))
    assert (error.code, error.message, error.details and error.details.to_dict()) == (403, message, details)
    assert forbidden_because(wanted, "because").message == f"{message}: because"
