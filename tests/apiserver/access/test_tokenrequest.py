from __future__ import annotations

from typing import Any

import pytest

from pilothouse.apiserver.access.serviceaccounts import ServiceAccountTokens
from pilothouse.apiserver.access.signing import KeyRing, new_key, unverified
from pilothouse.apiserver.access.tokenrequest import TokenRequests
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.ids import SeededIds
from pilothouse.kinds.status import ApiStatus, BadRequest, Conflict, Invalid, NotFound
from support.accessview import MemoryView, metadata, pod, service_account

ISSUER = "https://issuer"
KEY = new_key()


class Place:
    def __init__(self) -> None:
        self.view, self.clock = MemoryView(), FakeClock()
        self.view.put("serviceaccounts", service_account("robot"))
        self.tokens = ServiceAccountTokens(self.view, KeyRing(KEY), [ISSUER], clock=self.clock, ids=SeededIds())
        self.requests = TokenRequests(self.view, self.tokens, clock=self.clock)

    def refused(self, kind: type[ApiStatus], spec: dict[str, Any], name: str = "robot", **fields: Any) -> str:
        with pytest.raises(kind) as caught:
            self.requests.create("default", name, {"spec": spec, **fields})
        return caught.value.message


@pytest.fixture
def place() -> Place:
    return Place()


def test_a_token_with_the_defaults(place: Place) -> None:
    notes: dict[str, str] = {}
    answer = place.requests.create("default", "robot", {"spec": {}}, notes.__setitem__)
    token = answer["status"].pop("token")
    assert answer == {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": "robot", "namespace": "default", "creationTimestamp": "2025-01-01T00:00:00Z"},
        "spec": {"audiences": [ISSUER], "expirationSeconds": 3600, "boundObjectRef": None},
        "status": {"expirationTimestamp": "2025-01-01T01:00:00Z"},
    }
    claims = unverified(token) or {}
    assert claims["exp"] - claims["iat"] == 3600
    assert notes == {"authentication.kubernetes.io/issued-credential-id": f"JTI={claims['jti']}"}
    assert place.tokens.authenticate_token(token) is not None


def test_a_token_bound_to_a_pod_names_its_node(place: Place) -> None:
    place.view.put("pods", pod("web"))
    reference = {"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": "pod-1"}
    token = place.requests.issue("default", "robot", ["vault"], 600, reference)["status"]["token"]
    assert "node" not in (unverified(token) or {})["kubernetes.io"]
    placed = pod("web")
    placed["spec"]["nodeName"] = "n1"
    place.view.put("pods", placed)
    token = place.requests.issue("default", "robot", ["vault"], 600, reference)["status"]["token"]
    claims = (unverified(token) or {})["kubernetes.io"]
    assert claims["pod"] == {"name": "web", "uid": "pod-1"}
    assert claims["node"] == {"name": "n1"}
    place.view.put("nodes", {"metadata": metadata("n1", uid="node-1")})
    token = place.requests.issue("default", "robot", ["vault"], 600, reference)["status"]["token"]
    assert (unverified(token) or {})["kubernetes.io"]["node"] == {"name": "n1", "uid": "node-1"}


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (599, "599: may not specify a duration less than 10 minutes"),
        (0, "0: may not specify a duration less than 10 minutes"),
        (-1, "-1: may not specify a duration less than 10 minutes"),
        ((1 << 32) + 1, "4294967297: may not specify a duration larger than 2^32 seconds"),
    ],
)
def test_how_long_it_may_live(place: Place, seconds: int, told: str) -> None:
    message = place.refused(Invalid, {"expirationSeconds": seconds})
    assert message == (
        f'TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: {told}'
    )
    for good in (600, 1 << 32):
        place.requests.issue("default", "robot", (), good)


def test_what_it_cannot_be_bound_to(place: Place) -> None:
    def reference(kind: str, name: str = "it", **fields: str) -> dict[str, Any]:
        return {"boundObjectRef": {"apiVersion": "v1", "kind": kind, "name": name, **fields}}

    assert place.refused(BadRequest, reference("ConfigMap")) == (
        "cannot bind token to object of type /v1, Kind=ConfigMap"
    )
    assert place.refused(BadRequest, reference("Deployment", apiVersion="apps/v1")) == (
        "cannot bind token to object of type apps/v1, Kind=Deployment"
    )
    assert place.refused(NotFound, reference("Pod")) == 'pods "it" not found'
    assert place.refused(NotFound, reference("Secret")) == 'secrets "it" not found'
    assert place.refused(NotFound, reference("Node")) == 'nodes "it" not found'
    place.view.put("pods", pod("it", owner="other"))
    assert place.refused(BadRequest, reference("Pod")) == (
        'cannot bind token for serviceaccount "robot" to pod running with different serviceaccount name.'
    )
    place.view.put("pods", pod("it"))
    assert place.refused(Conflict, reference("Pod", uid="old")) == (
        'Operation cannot be fulfilled on Pod "it": the UID in the bound object reference (old) does not match the '
        "UID in record. The object might have been deleted and then recreated"
    )


def test_whose_it_is(place: Place) -> None:
    assert place.refused(NotFound, {}, "gone") == 'serviceaccounts "gone" not found'
    assert place.refused(Invalid, {}, metadata={"name": "other"}) == (
        'TokenRequest.authentication.k8s.io "robot" is invalid: metadata.name: Invalid value: "other": '
        "must match the service account name if specified"
    )
    assert "metadata.namespace" in place.refused(Invalid, {}, metadata={"namespace": "other"})
