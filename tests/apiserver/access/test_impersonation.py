from __future__ import annotations

import pytest

from pilothouse.apiserver.access.impersonation import impersonated, wanted_user
from pilothouse.apiserver.access.rbac import RbacAuthorizer
from pilothouse.apiserver.model import Request, User
from pilothouse.kinds.status import BadRequest, Forbidden
from support.accessview import MemoryView, asks, person, request, rule

AUTH = "authentication.k8s.io"
BOB = User("bob", groups=("system:authenticated",))
LIST = asks(BOB, "list", "pods", "default")


@pytest.fixture
def view() -> MemoryView:
    return MemoryView()


@pytest.fixture
def rbac(view: MemoryView) -> RbacAuthorizer:
    return RbacAuthorizer(view)


def may(view: MemoryView, *rules: dict[str, list[str]], who: str = "bob") -> None:
    view.role(f"{who}-may", *rules)
    view.bind(f"{who}-may", f"{who}-may", person(who))


def acts(rbac: RbacAuthorizer, *headers: tuple[str, str], who: User = BOB) -> User:
    wanted = wanted_user(request(*headers))
    assert wanted is not None
    return impersonated(wanted, asks(who, "list", "pods", "default"), rbac)


def refused(rbac: RbacAuthorizer, *headers: tuple[str, str]) -> str:
    with pytest.raises(Forbidden) as caught:
        acts(rbac, *headers)
    return caught.value.message


def as_user(name: str) -> tuple[str, str]:
    return "Impersonate-User", name


def as_group(name: str) -> tuple[str, str]:
    return "Impersonate-Group", name


LEGACY = rule("impersonate", "", "users", "jane")


def test_without_headers_nobody_is_wanted() -> None:
    assert wanted_user(request(("Accept", "*/*"))) is None
    assert wanted_user(request(("Impersonate-Other", "x"))) is None


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        (request(as_group("a")), 'Groups:[]string{"a"}, Extra:map[string][]string(nil)'),
        (
            request(("Impersonate-Extra-B", "1"), ("Impersonate-Extra-A%2fb", "2")),
            'Groups:[]string(nil), Extra:map[string][]string{"a/b":[]string{"2"}, "b":[]string{"1"}}',
        ),
    ],
)
def test_nothing_without_a_user_name(asked: Request, shown: str) -> None:
    with pytest.raises(BadRequest) as caught:
        wanted_user(asked)
    told = f'requested &user.DefaultInfo{{Name:"", UID:"", {shown}}} without impersonating a user name'
    assert caught.value.message == told


def test_headers_are_read_whole() -> None:
    asked = request(
        as_user("jane"),
        ("Impersonate-Uid", "u-1"),
        as_group("a"),
        as_group("b"),
        ("Impersonate-Extra-Scopes", "x"),
        ("Impersonate-Extra-Scopes", "y"),
    )
    assert wanted_user(asked) == User("jane", "u-1", ("a", "b"), {"scopes": ("x", "y")})


def test_nobody_may_without_a_rule(rbac: RbacAuthorizer) -> None:
    assert refused(rbac, as_user("jane")) == (
        'pods is forbidden: User "bob" cannot impersonate-on:user-info:list resource "pods" in API group "" '
        'in the namespace "default"'
    )


def test_the_right_for_everything(view: MemoryView, rbac: RbacAuthorizer) -> None:
    may(view, LEGACY)
    assert acts(rbac, as_user("jane")) == User("jane", groups=("system:authenticated",))
    refused(rbac, as_user("root"))
    refused(rbac, as_user("jane"), as_group("system:masters"))
    refused(rbac, as_user("jane"), ("Impersonate-Uid", "1"))
    refused(rbac, as_user("jane"), ("Impersonate-Extra-Scopes", "x"))


def test_each_part_is_asked_for(view: MemoryView, rbac: RbacAuthorizer) -> None:
    may(
        view,
        LEGACY,
        rule("impersonate", "", "groups", "devs"),
        rule("impersonate", AUTH, "userextras/scopes", "x"),
        rule("impersonate", AUTH, "uids", "u-1"),
    )
    headers = [as_user("jane"), as_group("devs"), ("Impersonate-Uid", "u-1"), ("Impersonate-Extra-Scopes", "x")]
    found = acts(rbac, *headers)
    assert found == User("jane", "u-1", ("devs", "system:authenticated"), {"scopes": ("x",)})
    refused(rbac, *headers, as_group("ops"))
    refused(rbac, *headers, ("Impersonate-Extra-Scopes", "y"))
    refused(rbac, *headers, ("Impersonate-Extra-Other", "x"))


def test_groups_that_say_who_is_authenticated(view: MemoryView, rbac: RbacAuthorizer) -> None:
    may(view, rule("impersonate", "", "users,groups"))
    assert acts(rbac, as_user("system:anonymous")).groups == ("system:unauthenticated",)
    assert acts(rbac, as_user("x"), as_group("system:unauthenticated")).groups == ("system:unauthenticated",)
    assert acts(rbac, as_user("x"), as_group("system:authenticated")).groups == ("system:authenticated",)


def test_a_service_account_has_its_groups(view: MemoryView, rbac: RbacAuthorizer) -> None:
    may(view, rule("impersonate", "", "serviceaccounts"))
    found = acts(rbac, as_user("system:serviceaccount:team:robot"))
    assert found.groups == ("system:serviceaccounts", "system:serviceaccounts:team", "system:authenticated")
    refused(rbac, as_user("jane"))
    refused(rbac, as_user("system:serviceaccount:Team:robot"))


def test_masters_can_be_impersonated_by_the_broad_right_only(view: MemoryView, rbac: RbacAuthorizer) -> None:
    narrow = [rule("impersonate:user-info", AUTH, "users,groups"), rule("impersonate-on:user-info:list", "", "pods")]
    may(view, *narrow)
    assert acts(rbac, as_user("jane"), as_group("devs")).name == "jane"
    message = refused(rbac, as_user("jane"), as_group("system:masters"))
    assert message.endswith(": impersonating the system:masters group is not allowed")
    may(view, rule("impersonate", "", "users,groups"))
    assert "system:masters" in acts(rbac, as_user("jane"), as_group("system:masters")).groups


def test_the_narrow_right_is_for_one_verb(view: MemoryView, rbac: RbacAuthorizer) -> None:
    may(view, rule("impersonate:user-info", AUTH, "users", "jane"), rule("impersonate-on:user-info:list", "", "pods"))
    assert acts(rbac, as_user("jane")).name == "jane"
    wanted = User("jane")
    for attributes in (asks(BOB, "delete", "pods", "default"), asks(BOB, "list", "secrets", "default")):
        with pytest.raises(Forbidden):
            impersonated(wanted, attributes, rbac)
    refused(rbac, as_user("joe"))


def test_extra_that_is_wrong(view: MemoryView, rbac: RbacAuthorizer) -> None:
    may(view, rule("impersonate:user-info", AUTH, "*"), rule("impersonate-on:user-info:list", "", "pods"))
    assert acts(rbac, as_user("jane"), ("Impersonate-Extra-Acme.io%2fa", "x")).extra == {"acme.io/a": ("x",)}
    assert "impersonating an invalid key in extra" in refused(rbac, as_user("jane"), ("Impersonate-Extra-Scopes", "x"))
    assert "empty string value" in refused(rbac, as_user("jane"), ("Impersonate-Extra-Acme.io%2fa", ""))
    assert "empty string group" in refused(rbac, as_user("jane"), as_group(""))


def test_many_groups_are_asked_for_at_once(view: MemoryView, rbac: RbacAuthorizer) -> None:
    groups = [as_group(name) for name in "abcde"]
    on = rule("impersonate-on:user-info:list", "", "pods")
    may(view, rule("impersonate:user-info", AUTH, "users"), rule("impersonate:user-info", AUTH, "groups", "*"), on)
    assert acts(rbac, as_user("jane"), *groups).groups[:5] == tuple("abcde")
    may(view, rule("impersonate:user-info", AUTH, "users"), rule("impersonate:user-info", AUTH, "groups", "a,b"), on)
    refused(rbac, as_user("jane"), *groups)


def test_nodes_and_accounts_in_the_narrow_way(view: MemoryView, rbac: RbacAuthorizer) -> None:
    agent = User("system:serviceaccount:kube-system:agent", extra={"authentication.kubernetes.io/node-name": ("n1",)})
    may(
        view,
        rule("impersonate:associated-node", AUTH, "nodes"),
        rule("impersonate-on:associated-node:list", "", "pods"),
        who=agent.name,
    )
    found = acts(rbac, as_user("system:node:n1"), who=agent)
    assert found == User("system:node:n1", groups=("system:nodes", "system:authenticated"))
    with pytest.raises(Forbidden):
        acts(rbac, as_user("system:node:n2"), who=agent)
    with pytest.raises(Forbidden):
        acts(rbac, as_user("system:node:n1"), as_group("system:masters"), who=agent)
    may(
        view,
        rule("impersonate:arbitrary-node", AUTH, "nodes", "n3"),
        rule("impersonate-on:arbitrary-node:list", "", "pods"),
        rule("impersonate:serviceaccount", AUTH, "serviceaccounts", "robot"),
        rule("impersonate-on:serviceaccount:list", "", "pods"),
    )
    assert acts(rbac, as_user("system:node:n3")).groups == ("system:nodes", "system:authenticated")
    assert acts(rbac, as_user("system:serviceaccount:a:robot")).groups[0] == "system:serviceaccounts"
    refused(rbac, as_user("system:node:n4"))
    refused(rbac, as_user("system:serviceaccount:a:other"))
