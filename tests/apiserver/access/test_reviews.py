from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from pilothouse.apiserver.access.authenticator import RequestAuthenticator
from pilothouse.apiserver.access.rbac import RbacAuthorizer
from pilothouse.apiserver.access.reviews import KINDS, Reviews
from pilothouse.apiserver.access.tokens import StaticTokens, TokenAnswer
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Attributes, Decision
from pilothouse.kinds.status import ApiStatus, BadRequest, InternalError, Invalid
from support.accessview import MemoryView, group, person, rule, urls

BOB = User("bob", "b-1", ("devs", "system:authenticated"), {"scopes": ("a",)})


class Desk:
    def __init__(self) -> None:
        self.view = MemoryView()
        self.view.role("pods", rule("get,list", "", "pods"), urls("get", "/metrics"))
        self.view.bind("bob", "pods", person("bob"))
        rbac = RbacAuthorizer(self.view)
        tokens = StaticTokens({"good": User("carol", "c-1", ("ops",))}, api_audiences=["api"])
        self.authenticator = RequestAuthenticator(self.view, tokens=[tokens])
        self.reviews = Reviews(self.authenticator, rbac, rbac, api_audiences=["api"])

    def status(self, kind: str, spec: dict[str, Any], user: User = BOB, namespace: str = "") -> dict[str, Any]:
        made = {"apiVersion": f"{KINDS[kind]}/v1", "kind": kind, "metadata": {"creationTimestamp": None}, "spec": spec}
        answer = self.reviews.answer(kind, made, user, namespace)
        assert isinstance(answer, dict)
        assert answer["kind"] == kind
        status: dict[str, Any] = answer["status"]
        return status

    def refused(self, refusal: type[ApiStatus], kind: str, namespace: str = "", **fields: Any) -> str:
        with pytest.raises(refusal) as caught:
            self.reviews.answer(kind, {"kind": kind, "metadata": {}, **fields}, BOB, namespace)
        return caught.value.message


@pytest.fixture
def desk() -> Desk:
    return Desk()


LIST = {"verb": "list", "resource": "pods", "namespace": "default", "version": "v1"}


def test_a_good_token(desk: Desk) -> None:
    assert desk.status("TokenReview", {"token": "good"}) == {
        "authenticated": True,
        "user": {"username": "carol", "uid": "c-1", "groups": ["ops", "system:authenticated"]},
        "audiences": ["api"],
    }


def test_a_bad_token(desk: Desk) -> None:
    assert desk.status("TokenReview", {"token": "bad"}) == {"user": {}, "error": "invalid bearer token"}
    assert desk.status("TokenReview", {"token": "good", "audiences": ["vault"]})["error"] == "invalid bearer token"
    assert desk.refused(BadRequest, "TokenReview", spec={}) == "token is required for TokenReview in authentication"


class Elsewhere:
    def __init__(self, answer: TokenAnswer) -> None:
        self._answer = answer

    async def authenticate_token(self, token: str, audiences: tuple[str, ...] = ()) -> TokenAnswer | None:
        return self._answer


async def test_a_token_that_is_looked_up_elsewhere(desk: Desk) -> None:
    rbac = RbacAuthorizer(desk.view)

    async def review(answer: TokenAnswer) -> dict[str, Any]:
        authenticator = RequestAuthenticator(desk.view, tokens=[Elsewhere(answer)])
        reviews = Reviews(authenticator, rbac, rbac, api_audiences=["api"])
        found = reviews.answer("TokenReview", {"spec": {"token": "x"}}, BOB)
        assert isinstance(found, Awaitable)
        status: dict[str, Any] = (await found)["status"]
        return status

    assert (await review(TokenAnswer(User("eve"), ("api",))))["authenticated"]
    with pytest.raises(InternalError, match="error validating audiences"):
        await review(TokenAnswer(User("eve"), ("other",)))


def test_what_somebody_may_do(desk: Desk) -> None:
    allowed = desk.status("SubjectAccessReview", {"user": "bob", "resourceAttributes": LIST}, User("asker"))
    told = 'RBAC: allowed by ClusterRoleBinding "bob" of ClusterRole "pods" to User "bob"'
    assert allowed == {"allowed": True, "reason": told}
    assert desk.status("SubjectAccessReview", {"user": "eve", "resourceAttributes": LIST}) == {"allowed": False}
    path = {"user": "bob", "nonResourceAttributes": {"path": "/metrics", "verb": "get"}}
    assert desk.status("SubjectAccessReview", path)["allowed"]
    desk.view.bind("devs", "pods", group("ops"))
    assert desk.status("SubjectAccessReview", {"groups": ["ops"], "resourceAttributes": LIST})["allowed"]


def test_what_i_may_do(desk: Desk) -> None:
    assert desk.status("SelfSubjectAccessReview", {"resourceAttributes": LIST})["allowed"]
    assert not desk.status("SelfSubjectAccessReview", {"resourceAttributes": LIST}, User("eve"))["allowed"]


def test_what_somebody_may_do_in_a_namespace(desk: Desk) -> None:
    spec = {"user": "bob", "resourceAttributes": LIST}
    assert desk.status("LocalSubjectAccessReview", spec, namespace="default")["allowed"]
    message = desk.refused(Invalid, "LocalSubjectAccessReview", "other", spec=spec)
    assert message == (
        'LocalSubjectAccessReview.authorization.k8s.io "" is invalid: spec.resourceAttributes.namespace: '
        'Invalid value: "default": must match metadata.namespace'
    )
    path = {"user": "bob", "nonResourceAttributes": {"path": "/x", "verb": "get"}}
    assert desk.refused(Invalid, "LocalSubjectAccessReview", "other", spec=path).endswith(
        'spec.nonResourceAttributes: Invalid value: {"Path":"/x","Verb":"get"}: disallowed on this kind of request'
    )
    metadata = {"namespace": "a"}
    assert "must match namespace: b" in desk.refused(
        BadRequest, "LocalSubjectAccessReview", "b", spec=spec, metadata=metadata
    )


def test_a_review_must_ask_one_thing(desk: Desk) -> None:
    message = desk.refused(Invalid, "SubjectAccessReview", spec={})
    assert message == (
        'SubjectAccessReview.authorization.k8s.io "" is invalid: [spec.resourceAttributes: Invalid value: null: '
        "exactly one of nonResourceAttributes or resourceAttributes must be specified, "
        'spec.user: Invalid value: "": at least one of user or group must be specified]'
    )
    both = {"resourceAttributes": LIST, "nonResourceAttributes": {"path": "/x"}}
    assert "cannot be specified in combination" in desk.refused(Invalid, "SelfSubjectAccessReview", spec=both)
    fields: dict[str, Any] = {"spec": {"resourceAttributes": LIST}, "metadata": {"name": "x"}}
    assert "metadata: Invalid value" in desk.refused(Invalid, "SelfSubjectAccessReview", **fields)


def test_a_role_that_is_missing_is_told(desk: Desk) -> None:
    desk.view.bind("broken", "gone", person("eve"))
    status = desk.status("SubjectAccessReview", {"user": "eve", "resourceAttributes": LIST})
    assert status == {
        "allowed": False,
        "reason": 'RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found',
    }


def test_my_rules(desk: Desk) -> None:
    answer = desk.reviews.answer("SelfSubjectRulesReview", {"spec": {"namespace": "default"}}, BOB)
    assert answer == {
        "spec": {},
        "status": {
            "resourceRules": [{"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]}],
            "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}],
            "incomplete": False,
        },
    }
    desk.view.bind("broken", "gone", person("bob"))
    status = desk.status("SelfSubjectRulesReview", {"namespace": "default"})
    assert status["incomplete"]
    assert status["evaluationError"] == 'clusterrole.rbac.authorization.k8s.io "gone" not found'
    assert desk.refused(BadRequest, "SelfSubjectRulesReview", spec={}) == "no namespace on request"
    master = desk.status("SelfSubjectRulesReview", {"namespace": "x"}, User("root", groups=("system:masters",)))
    assert master["resourceRules"][0] == {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}


def test_who_i_am(desk: Desk) -> None:
    assert desk.status("SelfSubjectReview", {}) == {
        "userInfo": {
            "username": "bob",
            "uid": "b-1",
            "groups": ["devs", "system:authenticated"],
            "extra": {"scopes": ["a"]},
        }
    }


def test_what_a_review_narrows_down_by_fields_is_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def authorize(attributes: Attributes) -> Decision:
        asked.append(attributes.field_selector)
        return Decision(allowed=True)

    monkeypatch.setattr(desk.reviews._authorizer, "authorize", authorize)
    one = {"key": "spec.nodeName", "operator": "In", "values": ["n1"]}
    for selector in ({"rawSelector": "a=b"}, {"requirements": [one, {**one, "operator": "NotIn"}]}, None):
        attributes = {**LIST, "fieldSelector": selector}
        desk.status("SelfSubjectAccessReview", {"resourceAttributes": attributes})
    assert asked == ["a=b", "spec.nodeName=n1", ""]
