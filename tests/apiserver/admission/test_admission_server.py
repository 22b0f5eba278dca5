"""Admission in a whole server: what clients see of quotas, standards, policies and webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from support.apiserverkit import Api, api_server
from support.webhookserver import WebhookServer, patch_of

Object = dict[str, Any]
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with api_server() as found:
        await found.made("/api/v1/namespaces", {"metadata": {"name": "n"}})
        await found.made("/api/v1/namespaces/n/serviceaccounts", {"metadata": {"name": "default"}})
        yield found


def pod(name: str = "p", **container: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i", **container}]},
    }


async def test_namespaces(api: Api) -> None:
    reply = await api.post("/api/v1/namespaces/none/configmaps", {"metadata": {"name": "x"}})
    assert (reply.status, reply.message) == (404, 'namespaces "none" not found')
    reply = await api.delete("/api/v1/namespaces/default")
    assert (reply.status, reply.message) == (
        403,
        'namespaces "default" is forbidden: this namespace may not be deleted',
    )


async def test_standards(api: Api) -> None:
    labels = {"pod-security.kubernetes.io/enforce": "baseline"}
    reply = await api.merge("/api/v1/namespaces/n", {"metadata": {"labels": labels}})
    assert reply.status == 200
    reply = await api.post("/api/v1/namespaces/n/pods", pod(securityContext={"privileged": True}))
    assert (reply.status, reply.message) == (
        403,
        (
            'pods "p" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set '
            "securityContext.privileged=true)"
        ),
    )
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod(securityContext={"privileged": True})["spec"]}
    body = {
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
    reply = await api.post("/apis/apps/v1/namespaces/n/deployments", body)
    assert reply.status == 201
    assert any("would violate PodSecurity" in one for one in reply.warnings)


async def test_quotas(api: Api) -> None:
    quota = await api.made(
        "/api/v1/namespaces/n/resourcequotas",
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"pods": "3"}}},
    )
    quota["status"] = {"hard": {"pods": "3"}, "used": {"pods": "0"}}
    reply = await api.put("/api/v1/namespaces/n/resourcequotas/q/status", quota)
    assert reply.status == 200, reply.raw
    replies = await asyncio.gather(*(api.post("/api/v1/namespaces/n/pods", pod(f"p{one}")) for one in range(8)))
    assert sorted(one.status for one in replies) == [201] * 3 + [403] * 5
    refused = next(one for one in replies if one.status == 403)
    assert refused.message.endswith("exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3")
    found = await api.get("/api/v1/namespaces/n/resourcequotas/q")
    assert found.body["status"]["used"] == {"pods": "3"}


async def test_policies(api: Api) -> None:
    rule = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
    policy: Object = {
        "metadata": {"name": "named"},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "'owner' in object.data", "message": "say who owns it"}],
        },
    }
    bad = {"metadata": {"name": "bad"}, "spec": {**policy["spec"], "validations": [{"expression": "1 +"}]}}
    reply = await api.post(f"{CONFIGURATIONS}/validatingadmissionpolicies", bad)
    assert reply.status == 422
    assert "spec.validations[0].expression" in reply.message
    await api.made(f"{CONFIGURATIONS}/validatingadmissionpolicies", policy)
    reply = await api.post("/api/v1/namespaces/n/configmaps", {"metadata": {"name": "x"}, "data": {"a": "b"}})
    assert reply.status == 201
    bound = {"metadata": {"name": "b"}, "spec": {"policyName": "named", "validationActions": ["Deny"]}}
    await api.made(f"{CONFIGURATIONS}/validatingadmissionpolicybindings", bound)
    reply = await api.post("/api/v1/namespaces/n/configmaps", {"metadata": {"name": "y"}, "data": {"a": "b"}})
    assert (reply.status, reply.message) == (
        422,
        (
            "configmaps \"y\" is forbidden: ValidatingAdmissionPolicy 'named' with binding 'b' denied request: say who "
            "owns it"
        ),
    )
    reply = await api.post("/api/v1/namespaces/n/configmaps", {"metadata": {"name": "y"}, "data": {"owner": "me"}})
    assert reply.status == 201


async def test_webhooks(api: Api, tmp_path: Path) -> None:
    server = await WebhookServer().start(tmp_path)
    try:
        add = {"op": "add", "path": "/data/added", "value": "yes"}
        server.answers["/change"] = lambda review: {"allowed": True, "warnings": ["changed"], **patch_of(add)}
        server.answers["/check"] = lambda review: {
            "allowed": review["request"]["object"]["data"].get("bad") is None,
            "status": {"message": "it is bad", "code": 403},
        }
        rule = {"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}
        for kind, path in (("mutating", "/change"), ("validating", "/check")):
            hook = {
                "name": f"{kind}.example.com",
                "clientConfig": {"url": server.url(path), "caBundle": server.authority},
                "rules": [rule],
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
            }
            body = {"metadata": {"name": kind}, "webhooks": [hook]}
            await api.made(f"{CONFIGURATIONS}/{kind}webhookconfigurations", body)
        reply = await api.post("/api/v1/namespaces/n/configmaps", {"metadata": {"name": "x"}, "data": {"a": "b"}})
        assert reply.body["data"] == {"a": "b", "added": "yes"}
        assert reply.warnings == ['299 - "changed"']
        reply = await api.post("/api/v1/namespaces/n/configmaps", {"metadata": {"name": "y"}, "data": {"bad": "b"}})
        assert (reply.status, reply.message) == (
            403,
            'admission webhook "validating.example.com" denied the request: it is bad',
        )
        reply = await api.delete("/api/v1/namespaces/n/configmaps/x")
        assert reply.status == 500
        assert "attempted to modify the object, which is not supported for this operation" in reply.message
    finally:
        await server.stop()
