"""Every namespace has its account and the cluster's CA; secrets of accounts have their tokens."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from support.apiserverkit import Api, api_server, until

Object = dict[str, Any]
SPACE = "/api/v1/namespaces/default"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with api_server(lifecycle=True) as found:
        await until(lambda: _get(found, "serviceaccounts", "default") is not None)
        await until(lambda: _get(found, "configmaps", "kube-root-ca.crt") is not None)
        yield found


def _get(api: Api, resource: str, name: str) -> Object | None:
    return api.server.view.get(resource, "default", name)


def namespace(name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


async def test_new_namespace_gets_account_and_certificate(api: Api) -> None:
    await api.made("/api/v1/namespaces", namespace("fresh"))
    await until(lambda: api.server.view.get("serviceaccounts", "fresh", "default") is not None)
    await until(lambda: api.server.view.get("configmaps", "fresh", "kube-root-ca.crt") is not None)
    found = (await api.get("/api/v1/namespaces/fresh/configmaps/kube-root-ca.crt")).body
    assert found["data"] == {"ca.crt": api.server.pki.read("ca.crt").decode()}
    assert "kubernetes.io/description" in found["metadata"]["annotations"]


async def test_deleted_ones_come_back(api: Api) -> None:
    for resource, name in (("serviceaccounts", "default"), ("configmaps", "kube-root-ca.crt")):
        before = _get(api, resource, name)
        assert before is not None
        await api.delete(f"{SPACE}/{resource}/{name}")
        uid = before["metadata"]["uid"]
        await until(lambda: (_get(api, resource, name) or before)["metadata"]["uid"] != uid)  # noqa: B023


async def test_changed_certificate_is_put_right(api: Api) -> None:
    path = f"{SPACE}/configmaps/kube-root-ca.crt"
    await api.merge(path, {"data": {"ca.crt": "bad", "more": "x"}, "metadata": {"labels": {"mine": "yes"}}})
    want = {"ca.crt": api.server.pki.read("ca.crt").decode()}
    await until(lambda: (_get(api, "configmaps", "kube-root-ca.crt") or {}).get("data") == want)
    assert (await api.get(path)).body["metadata"]["labels"] == {"mine": "yes"}


def token_secret(account: str, **annotations: str) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "s", "annotations": {"kubernetes.io/service-account.name": account, **annotations}},
    }


async def test_secret_is_filled_and_its_token_works(api: Api) -> None:
    await api.made(f"{SPACE}/secrets", token_secret("default"))
    await until(lambda: bool((_get(api, "secrets", "s") or {}).get("data")))
    found = _get(api, "secrets", "s")
    assert found is not None
    assert sorted(found["data"]) == ["ca.crt", "namespace", "token"]
    token = base64.b64decode(found["data"]["token"]).decode()
    anybody = api.as_user(None)
    path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = await anybody.call("POST", path, review, headers=[("authorization", f"Bearer {token}")])
    assert answer.body["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"


async def test_tokens_go_with_their_account(api: Api) -> None:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
    await api.made(f"{SPACE}/serviceaccounts", account)
    await api.made(f"{SPACE}/secrets", token_secret("robot"))
    await until(lambda: bool((_get(api, "secrets", "s") or {}).get("data")))
    await api.delete(f"{SPACE}/serviceaccounts/robot")
    await until(lambda: _get(api, "secrets", "s") is None)


async def test_secret_of_another_account_of_that_name_is_deleted(api: Api) -> None:
    uid = {"kubernetes.io/service-account.uid": "00000000-0000-0000-0000-000000000001"}
    await api.post(f"{SPACE}/secrets", token_secret("default", **uid))
    await until(lambda: _get(api, "secrets", "s") is None)


async def test_nothing_is_made_without_the_part() -> None:
    async with api_server(lifecycle=False) as api:
        assert api.server.background.lifecycle is None
        await api.made("/api/v1/namespaces", namespace("fresh"))
        assert not api.server.view.list("serviceaccounts")


async def test_deleted_secret_is_no_longer_listed(api: Api) -> None:
    await api.made(f"{SPACE}/secrets", token_secret("default"))
    await api.merge(f"{SPACE}/serviceaccounts/default", {"secrets": [{"name": "s"}, {"name": "other"}]})
    await api.delete(f"{SPACE}/secrets/s")
    await until(lambda: (_get(api, "serviceaccounts", "default") or {}).get("secrets") == [{"name": "other"}])


async def test_another_certificate_reaches_all_that_tell_of_it(api: Api) -> None:
    await api.made(f"{SPACE}/secrets", token_secret("default"))
    await until(lambda: bool((_get(api, "secrets", "s") or {}).get("data")))
    before = (_get(api, "secrets", "s") or {})["data"]["token"]
    lifecycle = api.server.background.lifecycle
    assert lifecycle is not None
    lifecycle.publish(b"another\n")
    view = api.server.view
    await until(lambda: (_get(api, "configmaps", "kube-root-ca.crt") or {}).get("data") == {"ca.crt": "another\n"})
    await until(
        lambda: (view.get("configmaps", "kube-system", "kube-root-ca.crt") or {})["data"]["ca.crt"] == "another\n"
    )
    wanted = base64.b64encode(b"another\n").decode()
    await until(lambda: (_get(api, "secrets", "s") or {})["data"]["ca.crt"] == wanted)
    assert (_get(api, "secrets", "s") or {})["data"]["token"] == before
