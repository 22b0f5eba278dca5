"""Who may do what through the whole server, and the ways around that there must not be."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pilothouse.apiserver.audit import AuditPolicy
from pilothouse.apiserver.encryption import Transformer, aes_gcm
from pilothouse.apiserver.model import User
from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.server import ApiServer
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.store import RangeRequest, StoreError
from support.apiserverkit import TOKEN, Api, Watcher, api_server, config_map, memory_store, until
from support.httpkit import Client, serving

RBAC = "/apis/rbac.authorization.k8s.io/v1"
AUTHENTICATED = "system:authenticated"
GROUP = "rbac.authorization.k8s.io"


def role(kind: str, name: str, *rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/v1", "kind": kind, "metadata": {"name": name}, "rules": list(rules), **fields}


def rule(verbs: str, resources: str, groups: str = "", names: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {
        "verbs": verbs.split(","),
        "apiGroups": groups.split(","),
        "resources": resources.split(","),
    }
    return {**made, "resourceNames": names.split(",")} if names else made


def binding(kind: str, name: str, to: str, user: str, role_kind: str = "ClusterRole") -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": kind,
        "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": to},
        "subjects": [{"kind": "User", "apiGroup": GROUP, "name": user}],
    }


def user(name: str, *groups: str) -> User:
    return User(name, groups=(*groups, AUTHENTICATED))


@pytest.fixture
async def clock() -> FakeClock:
    return FakeClock(datetime(2026, 1, 1, tzinfo=UTC))


async def with_roles(api: Api) -> None:
    """Give each of four people one of the roles for users in one namespace, and let two namespaces have objects."""
    await until(lambda: bool((api.server.view.get(f"clusterroles.{GROUP}", "", "view") or {}).get("rules")))
    for namespace in ("ours", "theirs"):
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
        await api.made("/api/v1/namespaces", body)
        await api.made(f"/api/v1/namespaces/{namespace}/configmaps", config_map("a", {"x": "y"}))
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "hunter2"}}
        await api.made(f"/api/v1/namespaces/{namespace}/secrets", secret)
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await api.made(f"/api/v1/namespaces/{namespace}/serviceaccounts", account)
    for name in ("view", "edit", "admin"):
        await api.made(f"{RBAC}/namespaces/ours/rolebindings", binding("RoleBinding", name, name, f"the-{name}"))
    await api.made(f"{RBAC}/clusterrolebindings", binding("ClusterRoleBinding", "boss", "cluster-admin", "the-boss"))


@pytest.fixture
async def api(clock: FakeClock) -> AsyncIterator[Api]:
    async with api_server(clock=clock) as found:
        await with_roles(found)
        yield found


WHO = ("nobody", "the-view", "the-edit", "the-admin", "the-boss")
CASES = [
    # method, path, who may
    ("GET", "/api/v1/namespaces/ours/configmaps", "view edit admin boss"),
    ("GET", "/api/v1/namespaces/ours/configmaps/a", "view edit admin boss"),
    ("GET", "/api/v1/namespaces/ours/configmaps?watch=1", "view edit admin boss"),
    ("GET", "/api/v1/watch/namespaces/ours/configmaps", "view edit admin boss"),
    ("GET", "/api/v1/watch/namespaces/ours/configmaps/a", "view edit admin boss"),
    ("GET", "/api/v1/namespaces/theirs/configmaps", "boss"),
    ("GET", "/api/v1/configmaps", "boss"),
    ("GET", "/api/v1/configmaps?fieldSelector=metadata.namespace%3Dours", "boss"),
    ("GET", "/api/v1/namespaces/ours/secrets", "edit admin boss"),
    ("GET", "/api/v1/namespaces/ours/secrets/s", "edit admin boss"),
    ("GET", "/api/v1/namespaces/ours/secrets/", "edit admin boss"),
    ("GET", "/api/v1/watch/namespaces/ours/secrets", "edit admin boss"),
    ("HEAD", "/api/v1/namespaces/ours/secrets/s", "edit admin boss"),
    ("GET", "/api/v1/namespaces/theirs/secrets/s", "boss"),
    ("POST", "/api/v1/namespaces/ours/configmaps?dryRun=All", "edit admin boss"),
    ("PUT", "/api/v1/namespaces/ours/configmaps/a?dryRun=All", "edit admin boss"),
    ("PATCH", "/api/v1/namespaces/ours/configmaps/a?dryRun=All", "edit admin boss"),
    ("DELETE", "/api/v1/namespaces/ours/configmaps/a?dryRun=All", "edit admin boss"),
    ("DELETE", "/api/v1/namespaces/ours/configmaps?dryRun=All", "edit admin boss"),
    ("DELETE", "/api/v1/namespaces/theirs/configmaps/a?dryRun=All", "boss"),
    ("GET", f"{RBAC}/namespaces/ours/rolebindings", "admin boss"),
    ("POST", f"{RBAC}/namespaces/ours/roles?dryRun=All", "admin boss"),
    ("GET", f"{RBAC}/clusterroles", "boss"),
    ("GET", "/api/v1/namespaces", "boss"),
    ("GET", "/api/v1/namespaces/ours", "view edit admin boss"),
    ("DELETE", "/api/v1/namespaces/ours?dryRun=All", "boss"),
    ("PUT", "/api/v1/namespaces/ours/finalize?dryRun=All", "boss"),
    ("GET", "/api/v1/nodes", "boss"),
    ("POST", "/api/v1/namespaces/ours/pods/none/eviction", "edit admin boss"),
    ("POST", "/api/v1/namespaces/ours/pods/none/binding", "boss"),
    ("GET", "/api/v1/namespaces/ours/pods/none/log", "view edit admin boss"),
    ("GET", "/api/v1/namespaces/ours/pods/none/exec", "edit admin boss"),
    ("POST", "/api/v1/namespaces/ours/pods/none/exec", "edit admin boss"),
    ("GET", "/api/v1/namespaces/ours/pods/none/proxy/x", "edit admin boss"),
    ("POST", "/api/v1/namespaces/ours/serviceaccounts/default/token", "edit admin boss"),
    ("POST", "/api/v1/namespaces/theirs/serviceaccounts/default/token", "boss"),
    ("PATCH", "/apis/apps/v1/namespaces/ours/deployments/none/status", "boss"),
    ("PATCH", "/apis/apps/v1/namespaces/ours/deployments/none/scale", "edit admin boss"),
    ("GET", "/apis/apps/v1/namespaces/ours/deployments/none/scale", "view edit admin boss"),
    ("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", "boss"),
    ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "nobody view edit admin boss"),
    ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", "boss"),
    ("POST", "/apis/authorization.k8s.io/v1/namespaces/ours/localsubjectaccessreviews", "admin boss"),
    ("POST", "/apis/authentication.k8s.io/v1/tokenreviews", "boss"),
    ("GET", "/api", "nobody view edit admin boss"),
    ("GET", "/apis/apps/v1", "nobody view edit admin boss"),
    ("GET", "/openapi/v3", "nobody view edit admin boss"),
    ("GET", "/healthz", "nobody view edit admin boss"),
    ("GET", "/version", "nobody view edit admin boss"),
    ("GET", "/metrics", "boss"),
    ("GET", "/logs", "boss"),
    ("GET", "/debug/pprof", "boss"),
    ("GET", "/healthz/../metrics", ""),
    ("GET", "/api/v1/namespaces/ours/configmaps/../secrets/s", ""),
    ("GET", "/api/v1/namespaces/ours/configmaps/..%2fsecrets/s", ""),
    ("GET", "/api/v1/namespaces/ours/configmaps/%2e%2e/%2e%2e/theirs/secrets/s", ""),
    ("GET", "/healthz/%2e%2e/api/v1/secrets", ""),
]


async def test_who_may_do_what(api: Api) -> None:
    wrong = []
    bodies = {"POST": b"{}", "PUT": b"{}", "PATCH": b"{}"}
    for method, path, may in CASES:
        allowed = {name if name == "nobody" else f"the-{name}" for name in may.split()}
        for name in WHO:
            headers = [("content-type", "application/merge-patch+json" if method == "PATCH" else "application/json")]
            answer = await api.as_user(user(name)).send(method, path, bodies.get(method, b""), headers)
            await answer.aclose()
            forbidden = answer.status in ({403} if allowed else {403, 404})
            if forbidden is (name in allowed):
                wrong.append(f"{name}: {method} {path} gave {answer.status} {answer.body[:200]!r}")
    assert not wrong, "\n".join(wrong)


async def test_nobody_known_sees_health_and_version_only(api: Api) -> None:
    stranger = api.as_user(None)
    assert (await stranger.get("/healthz")).status == 200
    assert (await stranger.get("/version")).status == 200
    for path in ("/api", "/apis", "/openapi/v3", "/metrics", "/api/v1/pods", "/", "/openid/v1/jwks", "/apis/apps/v1"):
        reply = await stranger.get(path)
        assert reply.status == 403, path
        assert 'User "system:anonymous"' in reply.message
    reply = await stranger.get("/healthz", headers=[("authorization", "Bearer wrong")])
    assert reply.status == 401, "who shows a wrong token is not anonymous"


async def test_anonymous_can_be_off() -> None:
    async with api_server(anonymous=False) as api:
        assert (await api.as_user(None).get("/healthz")).status == 401


class TestImpersonation:
    async def test_only_those_who_may(self, api: Api) -> None:
        for name in ("nobody", "the-view", "the-admin"):
            for headers in (
                [("impersonate-user", "the-boss")],
                [("impersonate-user", "x"), ("impersonate-group", "system:masters")],
                [("Impersonate-User", "system:apiserver")],
                [("impersonate-user", name), ("impersonate-group", "system:masters")],
                [("impersonate-user", "system:serviceaccount:ours:default")],
                [("impersonate-user", name), ("impersonate-uid", "1")],
                [("impersonate-user", name), ("impersonate-extra-scopes", "all")],
            ):
                reply = await api.as_user(user(name)).get("/api/v1/namespaces/theirs/secrets", headers=headers)
                assert reply.status == 403, (name, headers)

    async def test_they_get_what_the_other_may(self, api: Api) -> None:
        boss = api.as_user(user("the-boss"))
        headers = [("impersonate-user", "the-view")]
        assert (await boss.get("/api/v1/namespaces/ours/configmaps", headers=headers)).status == 200
        reply = await boss.get("/api/v1/namespaces/ours/secrets", headers=headers)
        assert reply.status == 403
        assert 'User "the-view"' in reply.message

    async def test_one_who_may_for_one_may_not_for_others(self, api: Api) -> None:
        one = role("ClusterRole", "as-view", rule("impersonate", "users", names="the-view"))
        await api.made(f"{RBAC}/clusterroles", one)
        await api.made(f"{RBAC}/clusterrolebindings", binding("ClusterRoleBinding", "x", "as-view", "eve"))
        eve = api.as_user(user("eve"))
        path = "/api/v1/namespaces/ours/configmaps"
        assert (await eve.get(path, headers=[("impersonate-user", "the-view")])).status == 200
        assert (await eve.get(path, headers=[("impersonate-user", "the-admin")])).status == 403
        both = [("impersonate-user", "the-view"), ("impersonate-group", "system:masters")]
        assert (await eve.get(path, headers=both)).status == 403
        twice = [("impersonate-user", "the-view"), ("impersonate-user", "the-boss")]
        assert (await eve.get("/api/v1/namespaces/theirs/secrets", headers=twice)).status == 403

    async def test_headers_of_a_proxy_are_not_believed(self, api: Api) -> None:
        headers = [("x-remote-user", "the-boss"), ("x-remote-group", "system:masters")]
        assert (await api.as_user(None).get("/api/v1/secrets", headers=headers)).status == 403


class TestEscalation:
    async def test_rights_that_one_lacks_cannot_be_handed_out(self, api: Api) -> None:
        admin = api.as_user(user("the-admin"))
        roles, bindings = f"{RBAC}/namespaces/ours/roles", f"{RBAC}/namespaces/ours/rolebindings"
        own = role("Role", "own", rule("get", "configmaps"))
        assert (await admin.post(roles, own)).status == 201
        for bad in (
            role("Role", "bad", rule("*", "*", "*")),
            role("Role", "bad", rule("get", "nodes")),
            role("Role", "bad", rule("create", "pods/binding")),
            role("Role", "bad", rule("get", "configmaps"), rule("escalate", "roles", GROUP)),
        ):
            reply = await admin.post(roles, bad)
            assert (reply.status, reply.reason) == (403, "Forbidden"), bad
            assert (await admin.put(f"{roles}/own", {**bad, "metadata": {"name": "own"}})).status == 403
            assert (await admin.merge(f"{roles}/own", {"rules": bad["rules"]})).status == 403
            reply = await admin.apply(f"{roles}/own", {**bad, "metadata": {"name": "own"}}, "m", force=True)
            assert reply.status == 403
            reply = await admin.apply(f"{roles}/new", {**bad, "metadata": {"name": "new"}}, "m")
            assert reply.status == 403
        assert (await api.get(f"{roles}/own")).body["rules"] == own["rules"]
        assert (await admin.post(bindings, binding("RoleBinding", "x", "cluster-admin", "the-admin"))).status == 403
        assert (await admin.put(f"{bindings}/x", binding("RoleBinding", "x", "cluster-admin", "me"))).status == 403
        assert (await admin.post(bindings, binding("RoleBinding", "y", "edit", "friend"))).status == 201
        changed = {"subjects": [{"kind": "Group", "apiGroup": GROUP, "name": "x"}]}
        assert (await admin.merge(f"{bindings}/y", changed)).status == 200

    async def test_roles_are_not_gathered_into_more_than_one_has(self, api: Api) -> None:
        rights = rule("create,update,patch,get", "clusterroles", GROUP)
        await api.made(f"{RBAC}/clusterroles", role("ClusterRole", "role-maker", rights))
        await api.made(f"{RBAC}/clusterrolebindings", binding("ClusterRoleBinding", "eve", "role-maker", "eve"))
        eve = api.as_user(user("eve"))
        gathers = {"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"x": "y"}}]}}
        made = role("ClusterRole", "gather", **gathers)
        assert (await eve.post(f"{RBAC}/clusterroles", made)).status == 403
        aggregated = role("ClusterRole", "into-view", rule("*", "*", "*"))
        aggregated["metadata"]["labels"] = {f"{GROUP}/aggregate-to-view": "true"}
        assert (await eve.post(f"{RBAC}/clusterroles", aggregated)).status == 403
        assert (await eve.merge(f"{RBAC}/clusterroles/role-maker", gathers)).status == 403


class TestNames:
    async def test_who_may_see_one_name_sees_one(self, api: Api) -> None:
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"}, "stringData": {"p": "q"}}
        await api.made("/api/v1/namespaces/ours/secrets", secret)
        only = role("Role", "only", rule("get,list,watch,deletecollection", "secrets", names="s"))
        await api.made(f"{RBAC}/namespaces/ours/roles", only)
        await api.made(f"{RBAC}/namespaces/ours/rolebindings", binding("RoleBinding", "only", "only", "eve", "Role"))
        eve, path = api.as_user(user("eve")), "/api/v1/namespaces/ours/secrets"
        assert (await eve.get(f"{path}/s")).status == 200
        assert (await eve.get(f"{path}/other")).status == 403
        assert (await eve.get(path)).status == 403
        selected = "fieldSelector=metadata.name%3Ds"
        for query in (
            selected,
            f"{selected}&fieldSelector=metadata.name%3Dother",
            f"{selected},metadata.name!%3Dx",
            f"{selected}&limit=1",
        ):
            found = await eve.get(f"{path}?{query}")
            assert [item["metadata"]["name"] for item in found.body["items"]] == ["s"], query
        for query in (
            "fieldSelector=metadata.name!%3Dother",
            "fieldSelector=metadata.name%3Dother",
            "fieldSelector=metadata.name%3Dother&fieldSelector=metadata.name%3Ds",
            "labelSelector=x",
        ):
            assert (await eve.get(f"{path}?{query}")).status == 403, query
        assert (await eve.delete(path)).status == 403
        for old in (f"/api/v1/watch/namespaces/ours/secrets/s", f"{path}?watch=1&{selected}"):  # noqa: F541
            answer = await eve.send("GET", old)
            assert answer.stream is not None, answer.body
            watcher = Watcher(answer.stream)
            assert (await watcher.next() or {})["object"]["metadata"]["name"] == "s"
            await api.merge(f"{path}/other", {"metadata": {"labels": {"n": str(len(old))}}})
            await api.merge(f"{path}/s", {"metadata": {"labels": {"n": str(len(old))}}})
            assert (await watcher.next() or {})["object"]["metadata"]["name"] == "s"
            await watcher.close()


class TestTokens:
    async def test_a_token_ends_with_its_time(self, api: Api, clock: FakeClock) -> None:
        token = await issued(api, 600)
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
        headers = [("authorization", f"Bearer {token}")]
        stranger = api.as_user(None)
        reply = await stranger.post(path, review, headers=headers)
        assert reply.body["status"]["userInfo"]["username"] == "system:serviceaccount:ours:default"
        clock.advance(590)
        assert (await stranger.post(path, review, headers=headers)).status == 201
        clock.advance(71)  # as in Kubernetes a minute of leeway passes before it counts
        reply = await stranger.post(path, review, headers=headers)
        assert (reply.status, reply.message) == (401, "Unauthorized")

    async def test_a_token_ends_with_its_account(self, api: Api) -> None:
        token = await issued(api, 3600)
        headers = [("authorization", f"Bearer {token}")]
        stranger = api.as_user(None)
        assert (await stranger.get("/api", headers=headers)).status == 200
        await api.delete("/api/v1/namespaces/ours/serviceaccounts/default")
        assert (await stranger.get("/api", headers=headers)).status == 401
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        await api.made("/api/v1/namespaces/ours/serviceaccounts", account)
        assert (await stranger.get("/api", headers=headers)).status == 401, "a new account of the name is another one"

    async def test_a_changed_token_is_worth_nothing(self, api: Api) -> None:
        head, body, signature = (await issued(api, 3600)).split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=="))
        claims["sub"] = "system:serviceaccount:kube-system:default"
        forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
        none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
        stranger = api.as_user(None)
        for token in (
            f"{head}.{forged}.{signature}",
            f"{none}.{forged}.",
            f"{none}.{body}.{signature}",
            f"{head}.{body}.{signature[:-2]}",
            f"{head}.{body}",
        ):
            reply = await stranger.get("/api", headers=[("authorization", f"Bearer {token}")])
            assert reply.status == 401, token


async def issued(api: Api, seconds: int) -> str:
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": seconds}}
    reply = await api.post("/api/v1/namespaces/ours/serviceaccounts/default/token", body)
    assert reply.status == 201, reply.raw
    token: str = reply.body["status"]["token"]
    return token


POLICY = AuditPolicy.from_dict({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]})


async def test_secrets_stay_out_of_logs_and_audit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    log = tmp_path / "audit.log"
    coded = base64.b64encode(b"hunter2").decode()
    said = []
    async with api_server(audit_log=str(log), audit_policy=POLICY) as api:
        await with_roles(api)
        path = "/api/v1/namespaces/ours/secrets"
        token = await issued(api, 600)
        sent: list[tuple[str, str, dict[str, Any]]] = [
            ("POST", path, {"metadata": {"name": "BAD NAME"}, "stringData": {"p": "hunter2"}}),
            ("POST", path, {"metadata": {"name": "x"}, "stringData": {"p/": "hunter2"}}),
            ("POST", path, {"metadata": {"name": "x"}, "type": "kubernetes.io/tls", "data": {"p": coded}}),
            ("PUT", f"{path}/s", {"metadata": {"name": "s"}, "type": "changed", "data": {"p": coded}}),
            ("POST", path, {"metadata": {"name": "s"}, "stringData": {"p": "hunter2"}}),
        ]
        for method, target, body in sent:
            said.append((await api.call(method, target, {"apiVersion": "v1", "kind": "Secret", **body})).raw)
            said.append((await api.as_user(user("eve")).call(method, target, body)).raw)
        await api.as_user(None).get("/api", headers=[("authorization", f"Bearer {token}")])
        await api.as_user(None).get("/api", headers=[("authorization", f"Bearer {TOKEN}")])
        await api.as_user(None).get("/api", headers=[("authorization", "Bearer hunter2")])
    texts = [raw.decode() for raw in said] + [log.read_text(), caplog.text]
    assert "/api/v1/namespaces/ours/secrets" in log.read_text()
    for text in texts:
        for word in ("hunter2", coded, token, TOKEN):
            assert word not in text, text[:500]


async def test_refused_impersonations_are_audited(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    async with api_server(audit_log=str(log), audit_policy=POLICY) as api:
        eve = api.as_user(user("eve"))
        assert (await eve.get("/api/v1/pods", headers=[("impersonate-user", "the-boss")])).status == 403
    events = [json.loads(line) for line in log.read_text().splitlines()]
    (event,) = [each for each in events if each["user"]["username"] == "eve" and each["stage"] == "ResponseComplete"]
    assert event["responseStatus"]["code"] == 403


class TestOverSockets:
    """The same as bytes on a connection, where nothing has been tidied up by a client."""

    async def ask(self, port: int, head: str, *headers: str) -> tuple[int, bytes]:
        client = await Client.connect(port)
        lines = [head, "Host: x", *headers, "", ""]
        await client.send("\r\n".join(lines).encode("latin-1"))
        status, _, body = await client.answer()
        await client.close()
        return status, body

    async def test_paths_that_climb(self, api: Api) -> None:
        good = f"Authorization: Bearer {TOKEN}"
        async with serving(api.server.handle) as (_, port):
            status, body = await self.ask(port, "GET /api/v1/namespaces/ours/secrets/s HTTP/1.1", good)
            assert status == 200
            assert b"aHVudGVyMg==" in body
            for path in (
                "/healthz/../api/v1/namespaces/ours/secrets/s",
                "/healthz/%2e%2e/api/v1/namespaces/ours/secrets/s",
                "/healthz/..%2fapi/v1/namespaces/ours/secrets/s",
                "/version/./../api/v1/namespaces/ours/secrets/s",
                "//api/v1/namespaces/ours/secrets/s",
                "/api/v1//namespaces/ours/secrets/s",
                "/api/v1/namespaces/ours//secrets/s",
                "/API/v1/namespaces/ours/secrets/s",
                "/healthz#/api/v1/namespaces/ours/secrets/s",
                "http://x/api/v1/namespaces/ours/secrets/s",
                "\\api\\v1\\namespaces\\ours\\secrets\\s",
            ):
                status, body = await self.ask(port, f"GET {path} HTTP/1.1")
                assert status in {400, 403, 404} or body == b"ok", (path, status)
                assert b"aHVudGVyMg==" not in body, path

    async def test_headers_that_come_twice(self, api: Api) -> None:
        path = "GET /api/v1/namespaces/ours/secrets/s HTTP/1.1"
        good, bad = f"Authorization: Bearer {TOKEN}", "Authorization: Bearer wrong"
        async with serving(api.server.handle) as (_, port):
            for headers in (
                (bad, good),
                ("Authorization: Basic x", good),
                (" Authorization: Bearer " + TOKEN,),
                ("Authorization : Bearer " + TOKEN,),
                ("X: y\r\n Authorization: Bearer " + TOKEN,),
                ("X: y\nAuthorization: Bearer " + TOKEN,),
                ("X: y\rAuthorization: Bearer " + TOKEN,),
                ("Authorization_: Bearer " + TOKEN,),
                ("X-Remote-User: admin", "X-Remote-Group: system:masters"),
                ("Impersonate-User: admin", "Impersonate-Group: system:masters"),
            ):
                status, body = await self.ask(port, path, *headers)
                assert status in {400, 401, 403}, (headers, status)
                assert b"aHVudGVyMg==" not in body


async def test_secrets_lie_encrypted_in_the_store() -> None:
    """What the store holds tells nothing, what the API answers is plain: also from the past, and after a restart."""
    ciphers = {"secrets": Transformer("secrets", [aes_gcm("one", b"k" * 32)])}
    store = await memory_store()
    path = "/api/v1/namespaces/default/secrets"
    for restarted in (False, True):
        async with ApiServer(store, ServerOptions(metrics=Metrics()), ciphers=ciphers) as server:
            api = Api(server)
            if not restarted:
                for name in ("a", "b", "c"):
                    body = {"metadata": {"name": name}, "stringData": {"p": f"hunter2-{name}"}}
                    await api.made(path, {"apiVersion": "v1", "kind": "Secret", **body})
            token = (await api.get(f"{path}?limit=1")).body["metadata"]["continue"]
            await api.merge(f"{path}/b", {"metadata": {"labels": {"n": str(restarted)}}})
            pages = (await api.get(f"{path}?continue={token}")).body["items"]
            found = [base64.b64decode(item["data"]["p"]).decode() for item in pages]
            assert found == ["hunter2-b", "hunter2-c"]
            watcher = await api.watch(path)
            assert (await watcher.next() or {})["object"]["data"]
            await watcher.close()
        kvs = (await store.range(RangeRequest(b"/registry/secrets/", b"/registry/secrets0"))).kvs
        assert len(kvs) == 3
        for kv in kvs:
            assert kv.value.startswith(b"k8s:enc:aesgcm:v1:one:")
            assert b"hunter2" not in kv.value
            assert base64.b64encode(b"hunter2-a")[:8] not in kv.value
    without_key = "/registry/secrets/default/.* is encrypted; give the configuration"
    with pytest.raises(StoreError, match=without_key):
        await ApiServer(store, ServerOptions(metrics=Metrics())).start()
    await store.compact((await store.status()).revision)
    with pytest.raises(StoreError, match=without_key):
        await ApiServer(store, ServerOptions(metrics=Metrics())).start()
    await store.close()
