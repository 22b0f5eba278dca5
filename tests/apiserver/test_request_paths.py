"""What a method, a path and a query ask for."""

from __future__ import annotations

import pytest

from pilothouse.apiserver import paths
from pilothouse.apiserver.model import User
from support.apiserverkit import api_server

PODS = "/api/v1/namespaces/a/pods"


@pytest.mark.parametrize(
    ("method", "path", "query", "verb", "name", "selector"),
    [
        ("GET", PODS, "fieldSelector=spec.nodeName%3Dn1", "list", "", "spec.nodeName=n1"),
        ("GET", PODS, "fieldSelector=metadata.name=x&watch=1", "watch", "x", "metadata.name=x"),
        ("DELETE", PODS, "fieldSelector=metadata.name!=x", "deletecollection", "", "metadata.name!=x"),
        ("GET", f"{PODS}/p", "fieldSelector=metadata.name=x", "get", "p", ""),
        ("POST", PODS, "fieldSelector=metadata.name=x", "create", "", ""),
        ("GET", PODS, "fieldSelector=%21%21", "list", "", "!!"),
    ],
)
def test_field_selectors_are_told(method: str, path: str, query: str, verb: str, name: str, selector: str) -> None:
    info = paths.parse(method, path, query)
    assert (info.verb, info.name, info.field_selector) == (verb, name, selector)


async def test_a_node_may_list_its_own_pods_and_no_others() -> None:
    node = User("system:node:n1", "", ("system:nodes", "system:authenticated"))
    async with api_server() as api:
        kubelet = api.as_user(node)
        own = await kubelet.get("/api/v1/pods?fieldSelector=spec.nodeName%3Dn1")
        assert (own.status, own.body["items"]) == (200, [])
        for query in ("", "?fieldSelector=spec.nodeName%3Dn2"):
            refused = await kubelet.get(f"/api/v1/pods{query}")
            assert refused.status == 403
            assert "can only list/watch pods with spec.nodeName field selector" in refused.message
