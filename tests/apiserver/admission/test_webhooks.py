"""Webhooks against a real TLS server: what is sent, what the answers do, and all ways to fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pilothouse.apiserver.admission.chain import Admission
from pilothouse.apiserver.admission.webhook_client import (
    MAX_RESPONSE,
    CallError,
    Target,
    WebhookClient,
    service_resolver,
)
from pilothouse.apiserver.admission.webhooks import MutatingWebhooks, ValidatingWebhooks
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import AdmissionRequest, Object
from pilothouse.foundation.clock import FakeClock, SystemClock
from pilothouse.foundation.ids import SeededIds
from pilothouse.kinds import status
from support.dictview import DictView, Told, write
from support.webhookserver import WebhookServer, patch_of

MUTATING = MutatingWebhooks.RESOURCE
VALIDATING = ValidatingWebhooks.RESOURCE


def pod(**more: Any) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "n", "labels": {}},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
        **more,
    }


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[WebhookServer]:
    found = await WebhookServer().start(tmp_path)
    yield found
    await found.stop()


class World:
    def __init__(self, server: WebhookServer) -> None:
        self.server = server
        self.view = DictView()
        self.view.namespace("n")
        self.client = WebhookClient(service_resolver(self.view), SystemClock())
        self.told = Told()
        self.admission = Admission(
            [
                MutatingWebhooks(self.view, self.client, SeededIds(1)),
                ValidatingWebhooks(self.view, self.client, SeededIds(2)),
            ]
        )

    def hook(self, resource: str, name: str = "h", path: str = "/", configuration: str = "c", **more: Any) -> None:
        config = {"url": self.server.url(path), "caBundle": self.server.authority}
        rule = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
        made = {
            "name": name,
            "clientConfig": config,
            "rules": [rule],
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 10,
            **more,
        }
        found = self.view.get(resource, "", configuration) or {"metadata": {"name": configuration}, "webhooks": []}
        self.view.put(resource, {**found, "webhooks": [*found["webhooks"], made]})

    def write(self, item: Object | None = None, **more: Any) -> AdmissionRequest:
        self.told = Told()
        operation = more.pop("operation", "CREATE")
        return write(operation, more.pop("resource", "pods"), item or pod(), told=self.told, **more)

    async def run(self, request: AdmissionRequest) -> AdmissionRequest:
        for step in (self.admission.admit, self.admission.validate):
            pending = step(request)
            if pending is not None:
                await pending
        return request


@pytest.fixture
async def world(server: WebhookServer) -> AsyncIterator[World]:
    found = World(server)
    yield found
    await found.client.close()


async def refused(world: World, request: AdmissionRequest | None = None) -> status.ApiStatus:
    with pytest.raises(status.ApiStatus) as caught:
        await world.run(request or world.write())
    return caught.value


async def test_nothing_is_awaited_without_webhooks(world: World) -> None:
    assert world.admission.admit(world.write()) is None
    assert world.admission.validate(world.write()) is None
    world.hook(VALIDATING, rules=[{"operations": ["DELETE"], "apiGroups": [""], "apiVersions": ["v1"]}])
    assert world.admission.validate(world.write()) is None


async def test_what_is_sent(world: World) -> None:
    world.server.answers["/"] = lambda review: {"allowed": True}
    world.hook(VALIDATING, timeoutSeconds=3)
    user = User("eve", "7", ("g",), {"scopes": ("a", "b")})
    await world.run(world.write(operation="UPDATE", old=pod(), user=user, dry_run=True))
    ((_, review),) = world.server.reviews
    assert world.server.queries == ["timeout=3s"]
    asked = review["request"]
    assert (review["apiVersion"], review["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    assert asked.pop("uid") == SeededIds(2).uuid()
    assert asked == {
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "resource": {"group": "", "version": "v1", "resource": "pods"},
        "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
        "requestResource": {"group": "", "version": "v1", "resource": "pods"},
        "name": "p",
        "namespace": "n",
        "operation": "UPDATE",
        "userInfo": {"username": "eve", "uid": "7", "groups": ["g"], "extra": {"scopes": ["a", "b"]}},
        "object": pod(),
        "oldObject": pod(),
        "dryRun": True,
        "options": {"kind": "UpdateOptions", "apiVersion": "meta.k8s.io/v1"},
    }


async def test_denials(world: World) -> None:
    answer: Object = {"allowed": False}
    world.server.answers["/"] = lambda review: answer
    world.hook(VALIDATING, name="deny.example.com")
    error = await refused(world)
    assert (error.message, error.code, error.reason) == (
        'admission webhook "deny.example.com" denied the request without explanation',
        400,
        "",
    )
    answer["status"] = {"message": "no", "code": 403, "reason": "Forbidden", "details": {"causes": [{"message": "c"}]}}
    error = await refused(world)
    assert isinstance(error, status.Forbidden)
    assert error.message == 'admission webhook "deny.example.com" denied the request: no'
    assert (error.code, list(error.causes)) == (403, [{"message": "c"}])
    answer["status"] = {"reason": "Busy", "code": 200}
    error = await refused(world)
    assert error.to_dict() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'admission webhook "deny.example.com" denied the request: Busy',
        "reason": "Busy",
        "code": 400,
    }


async def test_warnings_and_annotations(world: World) -> None:
    world.server.answers["/"] = lambda review: {
        "allowed": True,
        "warnings": ["care\r\nful", "\n"],
        "auditAnnotations": {"k": "v"},
    }
    world.hook(VALIDATING, name="w")
    await world.run(world.write())
    assert world.told.warnings == ["careful"]
    assert world.told.annotations == {"w/k": "v"}


async def test_patches_and_defaults(world: World) -> None:
    sidecar = {"name": "side", "image": "s:1"}
    world.server.answers["/"] = lambda review: {
        "allowed": True,
        **patch_of({"op": "add", "path": "/spec/containers/-", "value": sidecar}),
    }
    world.hook(MUTATING, name="inject")
    request = await world.run(world.write())
    assert request.object is not None
    made = request.object["spec"]["containers"][1]
    assert (made["name"], made["imagePullPolicy"]) == ("side", "IfNotPresent")
    assert json.loads(world.told.annotations["mutation.webhook.admission.k8s.io/round_0_index_0"]) == {
        "configuration": "c",
        "webhook": "inject",
        "mutated": True,
    }
    assert json.loads(world.told.annotations["patch.webhook.admission.k8s.io/round_0_index_0"])["patchType"] == (
        "JSONPatch"
    )


async def test_objects_of_subresources_keep_their_fields(world: World) -> None:
    add = {"op": "add", "path": "/metadata/annotations", "value": {"x": "y"}}
    world.server.answers["/"] = lambda review: {"allowed": True, **patch_of(add)}
    world.hook(MUTATING)
    binding: Object = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "p", "namespace": "n"},
        "target": {"kind": "Node", "name": "node"},
    }
    request = await world.run(world.write(binding, subresource="binding"))
    assert request.object is not None
    assert request.object["target"] == {"kind": "Node", "name": "node"}
    assert request.object["metadata"]["annotations"] == {"x": "y"}


async def test_in_order_of_configurations_and_each_sees_what_the_former_left(world: World) -> None:
    for name in ("b", "a"):
        world.hook(MUTATING, name=name, path=f"/{name}", configuration=name)
        world.server.answers[f"/{name}"] = lambda review, name=name: {
            "allowed": True,
            **patch_of({"op": "add", "path": f"/metadata/labels/{name}", "value": "x"}),
        }
    await world.run(world.write())
    assert [path for path, _ in world.server.reviews] == ["/a", "/b"]
    assert world.server.reviews[1][1]["request"]["object"]["metadata"]["labels"] == {"a": "x"}


async def test_reinvocation(world: World) -> None:
    world.hook(MUTATING, name="first", path="/first", configuration="1", reinvocationPolicy="IfNeeded")
    world.hook(MUTATING, name="never", path="/never", configuration="2")
    world.hook(MUTATING, name="last", path="/last", configuration="3")
    world.server.answers["/first"] = world.server.answers["/never"] = lambda review: {"allowed": True}
    add = {"op": "add", "path": "/metadata/labels/late", "value": "x"}
    world.server.answers["/last"] = lambda review: {"allowed": True, **patch_of(add)}
    await world.run(world.write())
    assert [path for path, _ in world.server.reviews] == ["/first", "/never", "/last", "/first"]
    assert world.server.reviews[3][1]["request"]["object"]["metadata"]["labels"] == {"late": "x"}
    assert "mutation.webhook.admission.k8s.io/round_1_index_0" in world.told.annotations


async def test_no_reinvocation_where_nothing_changed_later(world: World) -> None:
    world.hook(MUTATING, name="first", configuration="1", reinvocationPolicy="IfNeeded")
    add = {"op": "add", "path": "/metadata/labels/x", "value": "x"}
    world.server.answers["/"] = lambda review: {"allowed": True, **patch_of(add)}
    await world.run(world.write())
    assert len(world.server.reviews) == 1


async def test_validating_webhooks_are_asked_at_the_same_time(world: World) -> None:
    everybody = asyncio.Barrier(3)

    async def answer(review: Object) -> Object:
        await everybody.wait()
        return {"allowed": review["request"]["uid"] is None or "/1" not in review, "status": {"message": "x"}}

    for name in ("a", "b", "c"):
        world.hook(VALIDATING, name=name)
    world.server.answers["/"] = answer
    await asyncio.wait_for(world.run(world.write()), 5)
    assert len(world.server.reviews) == 3


async def test_connections_are_kept(world: World) -> None:
    world.server.answers["/"] = lambda review: {"allowed": True}
    world.hook(VALIDATING)
    for _ in range(3):
        await world.run(world.write())
    assert len(world.server.peers) == 1


FAILURES = [
    (b"{", "failed to call webhook: couldn't get version/kind; json parse error"),
    (b"[]", "failed to call webhook: couldn't get version/kind; json parse error"),
    (b'{"kind":"AdmissionReview"}', "received invalid webhook response: webhook response was absent"),
    (b"", "failed to call webhook: 0-length response with status code: 200 and content type: application/json"),
    (b"x" * (MAX_RESPONSE + 1), "the response has more than 3145728 bytes"),
    (
        b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"x","allowed":true}}',
        'received invalid webhook response: expected response.uid="',
    ),
    (b'{"response":{"allowed":"yes"}}', "failed to call webhook: json: cannot unmarshal response.allowed"),
]


@pytest.mark.parametrize(("body", "why"), FAILURES, ids=range(len(FAILURES)))
async def test_answers_that_are_none(world: World, body: bytes, why: str) -> None:
    world.server.answers["/"] = lambda review: body
    world.hook(VALIDATING, name="v")
    error = await refused(world)
    assert isinstance(error, status.InternalError)
    assert error.message.startswith('Internal error occurred: failed calling webhook "v": ')
    assert why in error.message


RESPONSES = [
    ({"allowed": True, "patch": "!!!", "patchType": "JSONPatch"}, "response.patch: illegal base64 data"),
    ({"allowed": True, "patch": "e30="}, "webhook returned response.patch but not response.patchType"),
    ({"allowed": True, "patchType": "JSONPatch"}, "webhook returned response.patchType but not response.patch"),
    ({"allowed": True, "patch": "bm8=", "patchType": "JSONPatch"}, "received undecodable patch in webhook response"),
    ({"allowed": True, **patch_of({"op": "add"}), "patchType": "Other"}, 'unsupported patch type "Other"'),
    (
        {"allowed": True, **patch_of({"op": "remove", "path": "/none"})},
        "Internal error occurred: error in remove for path: '/none': Unable",
    ),
    ({"allowed": True, **patch_of({"op": "add", "path": "/spec/containers", "value": 5})}, "cannot unmarshal number"),
]


@pytest.mark.parametrize(("answer", "why"), RESPONSES, ids=range(len(RESPONSES)))
async def test_bad_patches(world: World, answer: Object, why: str) -> None:
    world.server.answers["/"] = lambda review: answer
    world.hook(MUTATING, name="m")
    error = await refused(world)
    assert isinstance(error, status.InternalError)
    assert why in error.message


async def test_validating_webhooks_may_not_patch(world: World) -> None:
    world.server.answers["/"] = lambda review: {"allowed": True, **patch_of()}
    world.hook(VALIDATING)
    assert "validating webhook may not return response.patch" in (await refused(world)).message


async def test_a_deletion_cannot_be_patched(world: World) -> None:
    add = patch_of({"op": "add", "path": "/metadata/labels/x", "value": "x"})
    world.server.answers["/"] = lambda review: {"allowed": True, **add}
    world.hook(MUTATING, name="m")
    request = write("DELETE", "pods", None, old=pod())
    assert (await refused(world, request)).message == (
        'Internal error occurred: admission webhook "m" attempted to modify the object, which is not supported for '
        "this operation"
    )
    assert world.server.reviews[0][1]["request"]["object"] is None
    assert world.server.reviews[0][1]["request"]["options"]["kind"] == "DeleteOptions"


async def test_failing_open(world: World) -> None:
    world.server.answers["/"] = lambda review: b"{"
    world.hook(MUTATING, name="m", failurePolicy="Ignore")
    world.hook(VALIDATING, name="v", failurePolicy="Ignore")
    await world.run(world.write())
    assert world.told.annotations["failed-open.mutation.webhook.admission.k8s.io/round_0_index_0"] == "m"
    assert world.told.annotations["failed-open.validating.webhook.admission.k8s.io/round_0_index_0"] == "v"


async def test_status_codes(world: World) -> None:
    world.server.answers["/"] = lambda review: web.Response(status=404, text="nothing here")
    world.hook(VALIDATING, name="v")
    assert (await refused(world)).message == (
        'Internal error occurred: failed calling webhook "v": failed to call webhook: the server could not find the '
        "requested resource"
    )
    world.server.answers["/"] = lambda review: web.Response(status=500, text="boom")
    assert 'an error on the server ("boom") has prevented the request from succeeding' in (await refused(world)).message
    elsewhere = {"Location": world.server.url("/other")}
    world.server.answers["/"] = lambda review: web.Response(status=307, headers=elsewhere)
    assert "status code 307" in (await refused(world)).message
    assert {path for path, _ in world.server.reviews} == {"/"}


async def test_dry_runs(world: World) -> None:
    world.hook(VALIDATING, name="v", sideEffects="Some", failurePolicy="Ignore")
    error = await refused(world, world.write(dry_run=True))
    assert isinstance(error, status.BadRequest)
    assert error.message == 'admission webhook "v" does not support dry run'
    assert world.server.reviews == []


async def test_unknown_versions(world: World) -> None:
    world.hook(VALIDATING, name="v", admissionReviewVersions=["v9"])
    assert (await refused(world)).message == (
        'Internal error occurred: failed calling webhook "v": could not create admission objects: webhook does not '
        "accept known AdmissionReview versions (v1, v1beta1)"
    )


async def test_old_version_is_lenient(world: World) -> None:
    add = {"op": "add", "path": "/metadata/labels/x", "value": "x"}
    answer = {"response": {"allowed": True, "patch": patch_of(add)["patch"]}}
    world.server.answers["/"] = lambda review: json.dumps(answer).encode()
    world.hook(MUTATING, admissionReviewVersions=["v1beta1", "v1"])
    request = await world.run(world.write())
    assert request.object is not None
    assert request.object["metadata"]["labels"] == {"x": "x"}
    assert world.server.reviews[0][1]["apiVersion"] == "admission.k8s.io/v1beta1"


async def test_conditions_decide(world: World) -> None:
    world.server.answers["/"] = lambda review: {"allowed": False}
    world.hook(VALIDATING, matchConditions=[{"name": "x", "expression": "object.metadata.name != 'p'"}])
    await world.run(world.write())
    assert world.server.reviews == []
    world.hook(VALIDATING, configuration="d", matchConditions=[{"name": "x", "expression": "object.none == 1"}])
    error = await refused(world)
    assert isinstance(error, status.Forbidden)
    assert error.message == (
        "pods \"p\" is forbidden: expression 'object.none == 1' resulted in error: no such key: none"
    )


async def test_what_configures_admission_is_exempt(world: World) -> None:
    world.hook(VALIDATING)
    assert not world.admission.concerns("CREATE", ("admissionregistration.k8s.io", "v1", VALIDATING.split(".")[0]), "")
    assert world.admission.concerns("CREATE", ("", "v1", "pods"), "")


async def test_other_versions_are_converted(world: World) -> None:
    seen: list[str] = []

    async def convert(item: Object, version: str) -> Object:
        seen.append(version)
        return {**item, "apiVersion": version}

    add = patch_of({"op": "add", "path": "/metadata/labels", "value": {"x": "y"}})
    world.server.answers["/"] = lambda review: {"allowed": True, **add}
    world.hook(
        MUTATING,
        rules=[{"operations": ["*"], "apiGroups": ["example.com"], "apiVersions": ["v2"], "resources": ["boats"]}],
    )
    boat: Object = {"apiVersion": "example.com/v1", "kind": "Boat", "metadata": {"name": "b", "namespace": "n"}}
    equivalents = [(("example.com", version, "boats"), ("example.com", version, "Boat")) for version in ("v1", "v2")]
    request = AdmissionRequest(
        "CREATE", ("example.com", "v1", "Boat"), ("example.com", "v1", "boats"), "", "n", "b", boat, None, {}, False,
        User("u"), convert=convert, equivalents=equivalents,
    )  # fmt: skip
    await world.run(request)
    asked = world.server.reviews[0][1]["request"]
    assert asked["kind"]["version"] == "v2"
    assert asked["requestKind"]["version"] == "v1"
    assert asked["object"]["apiVersion"] == "example.com/v2"
    assert seen == ["example.com/v2", "example.com/v1"]
    assert request.object is not None
    assert request.object["metadata"]["labels"] == {"x": "y"}
    assert request.object["apiVersion"] == "example.com/v1"


class TestClient:
    async def failure(self, client: WebhookClient, target: Target, seconds: float = 10) -> str:
        with pytest.raises(CallError) as caught:
            await client.call(target, b"{}", seconds)
        return str(caught.value)

    async def test_services(self, server: WebhookServer) -> None:
        view = DictView()
        client = WebhookClient(service_resolver(view), SystemClock())
        service = {"namespace": "space", "name": "hook", "path": "go"}
        target = Target.read({"service": service, "caBundle": server.authority})
        assert target.url == "https://hook.space.svc:443/go"
        assert await self.failure(client, target) == (
            'Post "https://hook.space.svc:443/go?timeout=10s": service "hook" not found'
        )
        meta = {"name": "hook", "namespace": "space"}
        spec = {"clusterIP": "None", "ports": [{"name": "web", "port": 443}]}
        view.put("services", {"metadata": dict(meta), "spec": spec})
        assert 'no endpoints available for service "hook"' in await self.failure(client, target)
        labels = {"kubernetes.io/service-name": "hook"}
        endpoints = [
            {"addresses": ["192.0.2.1"], "conditions": {"ready": False}},
            {"addresses": ["127.0.0.1"], "conditions": {"ready": True}},
        ]
        view.put(
            "endpointslices.discovery.k8s.io",
            {
                "metadata": {**meta, "labels": labels},
                "ports": [{"name": "web", "port": server.port}, {"name": "other", "port": 1}],
                "endpoints": endpoints,
            },
        )
        server.answers["/go"] = lambda review: b"yes"
        assert await client.call(target, b"{}", 10) == b"yes"
        missing = Target.read({"service": {**service, "port": 8443}})
        assert 'no service port 8443 found for service "hook"' in await self.failure(client, missing)
        await client.close()

    def test_cluster_addresses(self) -> None:
        view = DictView()
        meta = {"name": "hook", "namespace": "space"}
        view.put("services", {"metadata": meta, "spec": {"clusterIP": "10.0.0.7", "ports": [{"port": 443}]}})
        assert service_resolver(view)("space", "hook", 443) == ("10.0.0.7", 443)

    async def test_authorities(self, server: WebhookServer) -> None:
        client = WebhookClient(service_resolver(DictView()), SystemClock())
        for bundle in (server.stranger, ""):
            told = await self.failure(client, Target.read({"url": server.url(), "caBundle": bundle}))
            assert told.endswith("tls: failed to verify certificate: x509: certificate signed by unknown authority")
        named = Target.read({"url": server.url().replace("127.0.0.1", "127.0.0.2"), "caBundle": server.authority})
        told = await self.failure(client, named)
        assert "x509" in told or "connection refused" in told
        bad = Target.read({"url": server.url(), "caBundle": "bm9uZQ=="})
        assert "unable to load root certificates" in await self.failure(client, bad)
        await client.close()

    async def test_nobody_there(self, server: WebhookServer) -> None:
        client = WebhookClient(service_resolver(DictView()), SystemClock())
        await server.stop()
        told = await self.failure(client, Target(server.url()))
        assert told == (
            f'Post "{server.url()}?timeout=10s": dial tcp 127.0.0.1:{server.port}: connect: connection refused'
        )
        await client.close()

    async def test_time_limits(self, server: WebhookServer) -> None:
        clock = FakeClock()
        client = WebhookClient(service_resolver(DictView()), clock)
        asked, release = asyncio.Event(), asyncio.Event()

        async def never(review: Object) -> Object:
            asked.set()
            await release.wait()
            return {"allowed": True}

        server.answers["/"] = never
        target = Target.read({"url": server.url("/?a=b"), "caBundle": server.authority})
        calling = asyncio.ensure_future(client.call(target, b"{}", 2))
        await asyncio.wait_for(asked.wait(), 5)
        clock.advance(1.9)
        await asyncio.sleep(0)
        assert not calling.done()
        clock.advance(0.2)
        with pytest.raises(CallError) as caught:
            await calling
        assert str(caught.value) == f'Post "{server.url("/?a=b")}&timeout=2s": context deadline exceeded'
        release.set()
        await client.close()

    def test_bad_configurations(self) -> None:
        with pytest.raises(CallError, match="must have either service or URL"):
            Target.read({})
