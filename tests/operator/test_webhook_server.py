"""Webhooks end to end: an API server calls an operator over TLS to default, judge and convert."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pilothouse.client import Client
from pilothouse.foundation import tls
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.status import ApiStatus, Forbidden, InternalError
from pilothouse.kinds.structs import (
    ConfigMap,
    CustomResourceDefinition,
    MutatingWebhookConfiguration,
    ObjectMeta,
    Secret,
    Service,
    ValidatingWebhookConfiguration,
    from_dict,
    replace,
)
from pilothouse.operator import (
    AdmissionRequest,
    CertificatePolicy,
    Denied,
    LeaderElection,
    Manager,
    OperatorError,
    Validator,
    install,
    webhook,
    webhook_answers,
    webhook_server,
)
from pilothouse.operator.crds import definition
from pilothouse.operator.health import run_checks
from pilothouse.operator.webhook_server import Webhooks
from pilothouse.testing import ControlPlane
from support.loglines import logged
from support.webhookkit import (
    CONVERSIONS,
    Page,
    PageV1,
    PageV3,
    free_port,
    manager_of,
    page,
    plane_with_pages,
    review,
)


def titled(obj: Page, request: AdmissionRequest) -> Page:
    return obj if obj.spec.title else replace(obj, spec__title=f"by {request.user.username}")


class Judge(Validator[Page]):
    async def create(self, new: Page, request: AdmissionRequest) -> Sequence[str] | None:
        if request.dry_run:
            return ["only a try"]
        if new.spec.width > 100:
            raise Denied("too wide")
        return None

    async def delete(self, old: Page, request: AdmissionRequest) -> Sequence[str] | None:
        if old.spec.title == "keep":
            raise Denied("it is kept")
        return None


def served(manager: Manager) -> Webhooks:
    assert manager.webhooks is not None
    return manager.webhooks


async def ready(manager: Manager) -> None:
    await asyncio.wait_for(served(manager).wait_ready(), 10)


async def until(condition: Any, seconds: float = 10.0, clock: FakeClock | None = None) -> None:
    """Wait for what other tasks do by sockets, which no fake clock drives; one that is given goes on meanwhile."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
            if clock is not None:
                clock.advance(1.0)


@asynccontextmanager
async def operating(client: Client, port: int = 0, **options: Any) -> AsyncIterator[Manager]:
    manager = manager_of(client, port or free_port(), **options)
    webhook(manager).for_(Page).defaulted_by(titled).validated_by(Judge()).build()
    async with manager:
        await ready(manager)
        yield manager


async def test_objects_are_changed_judged_and_refused() -> None:
    async with plane_with_pages() as (plane, client), operating(client) as manager:
        made = await client.create(page("one", width=3))
        assert made.spec.title == f"by {plane.user.name}"
        with pytest.raises(Forbidden, match=r'"validate.pages.v2.hooks.example.com" denied the request: too wide'):
            await client.create(page("two", width=101))
        await client.create(page("three", width=101), dry_run=True)
        await client.create(page("kept", title="keep"))
        with pytest.raises(Forbidden, match="it is kept"):
            await client.delete(Page, "kept")
        await client.delete(Page, "one")
        assert run_checks("readyz", manager._ready_checks()).status == 200
        shown = manager.metrics.exposition().decode() if manager.metrics else ""
        assert (
            'controller_runtime_webhook_requests_total{code="200",webhook="/mutate-hooks-example-com-v2-page"} 4'
            in shown
        )
        assert 'controller_runtime_webhook_requests_in_flight{webhook="/validate-hooks-example-com-v2-page"} 0' in shown
        assert (
            'controller_runtime_webhook_latency_seconds_count{webhook="/mutate-hooks-example-com-v2-page"} 4' in shown
        )
        assert "pilothouse_operator_webhook_ready 1" in shown
        assert "pilothouse_operator_webhook_certificate_expiry_timestamp_seconds 1" in shown
    assert served(manager).problem() == "the server does not listen"


async def test_a_service_leads_there_too() -> None:
    async with plane_with_pages() as (_, client):
        port = free_port()
        spec = {"type": "ExternalName", "externalName": "localhost"}
        await client.create(from_dict({"metadata": {"name": "hooks", "namespace": "default"}, "spec": spec}, Service))
        options = {"service": "default/hooks", "service_port": port}
        async with operating(client, port, options=options):
            assert (await client.create(page())).spec.title
            found = await client.get(MutatingWebhookConfiguration, "pages")
            service = found.webhooks[0].client_config.service
            assert service is not None
            assert (service.namespace, service.name, service.port) == ("default", "hooks", port)
            assert (await client.get(Secret, "pages-webhooks", "default")).type == "kubernetes.io/tls"


async def test_raw_handlers_of_any_resource_and_its_subresources() -> None:
    seen: list[str] = []

    def label(request: AdmissionRequest) -> dict[str, Any] | None:
        assert request.object is not None
        request.object["metadata"]["labels"] = {"seen": "yes"}
        return request.object

    def look(request: AdmissionRequest) -> list[str]:
        seen.append(f"{request.operation} {request.resource[2]}")
        return []

    async with plane_with_pages() as (_, client):
        manager = manager_of(client, free_port())
        described = webhook(manager, "labels").for_resources("configmaps", "secrets")
        described.mutated_by(label).validated_by(look).with_options(
            operations=["CREATE"], match_conditions={"no-secrets": "request.resource.resource != 'secrets'"}
        ).build()
        async with manager:
            await ready(manager)
            made = await client.create(ConfigMap(metadata=ObjectMeta(name="a")))
            assert made.metadata.labels == {"seen": "yes"}
            assert not (await client.create(Secret(metadata=ObjectMeta(name="a")))).metadata.labels
        assert seen == ["CREATE configmaps"]


# Faults of handlers


async def test_a_handler_that_raises_is_an_error_of_the_webhook_and_the_policy_decides() -> None:
    async def broken(new: Page, request: AdmissionRequest) -> None:
        raise KeyError("colour")

    async with plane_with_pages() as (_, client):
        manager = manager_of(client, free_port())
        webhook(manager).for_(Page).validated_by(broken).build()
        webhook(manager, "ignored").for_(Page).validated_by(broken).with_options(failure_policy="Ignore").build()
        async with manager:
            await ready(manager)
            with logged(webhook_answers) as lines, pytest.raises(InternalError) as caught:
                await client.create(page())
            assert "validate.pages.v2.hooks.example.com: CREATE pages.hooks.example.com default/home: " in str(
                caught.value
            )
            assert "its handler raised KeyError: 'colour'" in str(caught.value)
            assert [line["event"] for line in lines] == ["webhook failed", "webhook failed"]
            metrics = served(manager).metrics
            assert metrics.requests["/validate-hooks-example-com-v2-page"][500] == 1
            assert metrics.requests["/validate-hooks-example-com-v2-page-ignored"][500] == 1
            assert metrics.failures == {"error": 2, "timeout": 0, "overload": 0}


async def test_a_handler_that_blocks_is_told_of_before_the_server_gives_up() -> None:
    gate, begun = threading.Event(), threading.Event()

    def blocks(new: Page, request: AdmissionRequest) -> None:
        begun.set()
        gate.wait(30)

    clock = FakeClock(datetime.now(UTC))
    async with plane_with_pages() as (_, client):
        manager = manager_of(client, free_port(), clock=clock)
        webhook(manager).for_(Page).validated_by(blocks).with_options(timeout_seconds=20).build()
        async with manager:
            await ready(manager)
            call = asyncio.ensure_future(client.create(page()))
            await until(begun.is_set)
            assert served(manager).metrics.in_flight["/validate-hooks-example-com-v2-page"] == 1
            clock.advance(17.9)
            await asyncio.sleep(0.02)
            assert not call.done()
            clock.advance(0.2)
            with pytest.raises(ApiStatus, match=r"its handler did not return within 18 s"):
                await asyncio.wait_for(call, 5)
            assert served(manager).metrics.failures["timeout"] == 1
            gate.set()


async def test_reviews_beyond_the_bound_and_requests_that_are_none_are_refused() -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def waits(new: Page, request: AdmissionRequest) -> None:
        begun.set()
        await gate.wait()

    async with plane_with_pages() as (_, client):
        port = free_port()
        manager = manager_of(client, port, options={"max_in_flight": 1})
        (hook,) = webhook(manager).for_(Page).validated_by(waits).build()
        async with manager:
            await ready(manager)
            body = review({"metadata": {}, "spec": {}})
            first = asyncio.ensure_future(posted(client, port, hook.path, body))
            await begun.wait()
            status, told = await posted(client, port, hook.path, body)
            assert (status, told["reason"]) == (503, "ServiceUnavailable")
            gate.set()
            assert (await first)[1]["response"]["allowed"] is True
            assert (await posted(client, port, "/nowhere", body))[0] == 404
            assert (await posted(client, port, hook.path, body, method="GET"))[0] == 405
            assert (await posted(client, port, hook.path, body, kind="text/plain"))[0] == 415
            status, told = await posted(client, port, hook.path, b"{}")
            assert (status, told["reason"]) == (400, "BadRequest")
            assert "want admission.k8s.io/v1 AdmissionReview" in told["message"]
            assert (await posted(client, port, hook.path, b" " * (8 << 20)))[0] == 413


async def posted(
    client: Client, port: int, path: str, body: bytes, *, method: str = "POST", kind: str = "application/json"
) -> tuple[int, Any]:
    """Send a request over TLS by hand, trusting what the Secret says."""
    secret = await client.get(Secret, "pages-webhooks", "default")
    context = ssl.create_default_context(cadata=secret.data["ca.crt"].decode())
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    head = f"{method} {path}?timeout=5s HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\nconnection: close\r\n"
    with contextlib.suppress(ConnectionError):
        writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        await writer.drain()
    found = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    answer = found.partition(b"\r\n\r\n")[2]
    return int(found.split(b" ")[1]), json.loads(answer) if answer.startswith(b"{") else answer


async def handshake(port: int, bundle: bytes) -> None:
    """Connect as a server does that trusts this bundle. Raises SSLError where it does not trust what is shown."""
    context = ssl.create_default_context(cadata=bundle.decode())
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    assert writer.get_extra_info("ssl_object").version() in {"TLSv1.2", "TLSv1.3"}
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


# Conversion


async def test_objects_are_converted_between_three_versions_by_our_functions() -> None:
    async with plane_with_pages() as (plane, client):
        manager = manager_of(client, free_port())
        webhook(manager).for_(Page).converted_by(*CONVERSIONS).validated_by(Judge()).build()
        async with manager:
            await ready(manager)
            conversion = (await client.get(CustomResourceDefinition, "pages.hooks.example.com")).spec.conversion
            assert conversion is not None
            assert conversion.strategy == "Webhook"
            old = {
                "apiVersion": "hooks.example.com/v1",
                "kind": "Page",
                "metadata": {"name": "old", "labels": {"a": "b"}, "annotations": {"title": "Old"}},
                "spec": {"size": "3x4"},
            }
            made = await plane.call("POST", "/apis/hooks.example.com/v1/namespaces/default/pages", old)
            assert made["spec"] == {"size": "3x4"}
            stored = await client.get(Page, "old")
            assert (stored.spec.width, stored.spec.height, stored.spec.title) == (3, 4, "Old")
            await client.create(page("new", width=7, height=8))
            newest = [found async for found in client.list(PageV3)]
            assert {found.metadata.name: list(found.spec.size) for found in newest} == {"old": [3, 4], "new": [7, 8]}
            assert newest[1].metadata.labels == {"a": "b"}
            oldest = await client.get(PageV1, "new")
            assert oldest.spec.size == "7x8"
            with pytest.raises(ApiStatus, match=r"objects\[0\], hooks.example.com/v1 Page default/bad to .*ValueError"):
                await plane.call(
                    "POST",
                    "/apis/hooks.example.com/v1/namespaces/default/pages",
                    {**old, "metadata": {"name": "bad"}, "spec": {"size": "wide"}},
                )
            # The validator is of v2, and is asked about changes in any version.
            with pytest.raises(Forbidden, match="too wide"):
                await plane.call(
                    "POST",
                    "/apis/hooks.example.com/v1/namespaces/default/pages",
                    {**old, "metadata": {"name": "wide"}, "spec": {"size": "200x1"}},
                )


async def test_conversion_waits_for_a_definition_that_is_not_there_yet() -> None:
    async with ControlPlane(lifecycle=False) as plane, Client.for_transport(plane.transport, plane.user) as client:
        manager = manager_of(client, free_port())
        webhook(manager).for_(Page).converted_by(*CONVERSIONS).build()
        async with manager:
            await until(lambda: "there is none; install the definition" in served(manager).problem())
            assert run_checks("readyz", manager._ready_checks()).status == 500
            await install(client, definition(PageV1, Page, PageV3))
            await ready(manager)


# Certificates and configurations


async def test_what_others_change_is_put_right() -> None:
    async with plane_with_pages() as (_, client), operating(client) as manager:
        kind, name = ValidatingWebhookConfiguration, "pages"
        right = (await client.get(kind, name)).webhooks[0]
        before = served(manager).metrics.corrections
        await client.patch(
            kind, name, [{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "eA=="}]
        )
        await until(lambda: served(manager).metrics.corrections > before)
        await ready(manager)
        assert (await client.get(kind, name)).webhooks[0] == right
        await client.patch(kind, name, [{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"}])
        await until(lambda: served(manager).metrics.corrections > before + 1)
        await client.delete(kind, name)
        await until(lambda: served(manager).metrics.corrections > before + 2)
        await ready(manager)
        assert (await client.get(kind, name)).webhooks[0] == right


async def test_who_changes_it_again_and_again_is_not_fought() -> None:
    async with plane_with_pages() as (_, client), operating(client) as manager:
        path = "/webhooks/0/timeoutSeconds"
        tries = 0
        while not any("changed again and again" in one for one in manager.problems()) and tries < 8:
            tries += 1
            await client.patch(ValidatingWebhookConfiguration, "pages", [{"op": "replace", "path": path, "value": 11}])
            seen = served(manager).metrics.corrections
            with contextlib.suppress(TimeoutError):
                await until(lambda seen=seen: served(manager).metrics.corrections > seen, 0.1)
        assert any("see in its managedFields who else writes it" in one for one in manager.problems())
        assert served(manager).problem() == ""
        assert served(manager).metrics.corrections <= 6
        assert (await client.create(page())).metadata.name == "home"  # it serves nevertheless


async def test_two_managers_share_one_secret_and_both_serve_though_one_leads() -> None:
    async with plane_with_pages() as (_, client):
        ports = free_port(), free_port()
        url = f"https://127.0.0.1:{ports[0]}"
        managers = [
            manager_of(
                client,
                port,
                options={"url": url, "secret": "default/pages-webhooks"},
                leader_election=LeaderElection(name="pages", identity=str(port)),
            )
            for port in ports
        ]
        for manager in managers:
            webhook(manager).for_(Page).defaulted_by(titled).validated_by(Judge()).build()
        async with managers[0], managers[1]:
            for manager in managers:
                await ready(manager)
            await until(lambda: any(manager.is_leading for manager in managers))
            assert sum(manager.is_leading for manager in managers) == 1
            (hook, _) = served(managers[0]).hooks
            for port in ports:
                status, told = await posted(client, port, hook.path, review({"metadata": {}, "spec": {}}))
                assert (status, told["response"]["allowed"]) == (200, True)
            assert served(managers[0])._serving == served(managers[1])._serving
            other = next(manager for manager in managers if not manager.is_leading)
            kind = MutatingWebhookConfiguration
            await client.patch(
                kind, "pages", [{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": "eA=="}]
            )
            bundle = (await client.get(Secret, "pages-webhooks", "default")).data["ca.crt"]
            for _ in range(400):
                found = (await client.get(kind, "pages")).webhooks[0].client_config.ca_bundle
                if found == bundle:
                    break
                await asyncio.sleep(0.005)
            assert found == bundle
            assert served(other).problem() == "" or "changed meanwhile" in served(other).problem()


async def test_a_copy_that_does_not_lead_puts_the_bundle_right_and_leaves_the_rest() -> None:
    async with plane_with_pages() as (_, client):
        port = free_port()
        manager = manager_of(client, port, leader_election=LeaderElection(name="pages", identity="me"))
        webhook(manager).for_(Page).validated_by(Judge()).build()
        await client.create(
            from_dict(
                {
                    "metadata": {"name": "pages", "namespace": "default"},
                    "spec": {
                        "holderIdentity": "another",
                        "leaseDurationSeconds": 3600,
                        "renewTime": "2099-01-01T00:00:00.000000Z",
                    },
                },
                _lease(),
            )
        )
        async with manager:
            await ready(manager)
            path = "/webhooks/0"
            patch: list[dict[str, Any]] = [
                {"op": "replace", "path": f"{path}/clientConfig/caBundle", "value": "eA=="},
                {"op": "replace", "path": f"{path}/timeoutSeconds", "value": 7},
            ]
            corrections = served(manager).metrics.corrections
            await client.patch(ValidatingWebhookConfiguration, "pages", patch)
            await until(lambda: served(manager).metrics.corrections > corrections)
            await ready(manager)
            found = (await client.get(ValidatingWebhookConfiguration, "pages")).webhooks[0]
            assert found.timeout_seconds == 7
            assert (
                found.client_config.ca_bundle == (await client.get(Secret, "pages-webhooks", "default")).data["ca.crt"]
            )
            assert not manager.is_leading


def _lease() -> Any:
    from pilothouse.kinds.structs import Lease

    return Lease


async def test_rotation_of_authority_and_certificate_without_a_refused_request() -> None:
    """The fake clock runs in the past, so that what it makes is valid by the machine's clock, which TLS looks at."""
    clock = FakeClock(datetime.now(UTC) - timedelta(days=45))
    policy = CertificatePolicy(days=30, ca_days=60, overlap_seconds=86_400)
    async with plane_with_pages() as (_, client):
        manager = manager_of(client, free_port(), clock=clock, options={"policy": policy})
        webhook(manager).for_(Page).defaulted_by(titled).build()
        webhooks, turn = served(manager), asyncio.Lock()

        async def moved(days: float) -> tuple[bytes, bytes]:
            """Move the clock and wait until the copy has done what is due; return certificate and bundle in use."""
            for _ in range(max(int(days * 2), 1)):
                async with turn:  # a handler's time limit goes by the fake clock too
                    clock.advance(days * 86_400 / max(int(days * 2), 1))
                await asyncio.sleep(0.02)
            for _ in range(5):
                await asyncio.sleep(0.02)
                async with turn:
                    clock.advance(2)
            await ready(manager)
            assert webhooks._serving is not None
            found = (await client.get(MutatingWebhookConfiguration, "pages")).webhooks[0].client_config.ca_bundle
            return webhooks._serving.certificate, found

        async with manager:
            await ready(manager)
            first = await moved(1)
            second = await moved(20.5)
            assert second[0] != first[0]
            assert second[1] == first[1]
            stop, made, bundles = asyncio.Event(), 0, [second[1]]

            async def calls() -> None:
                nonlocal made
                while not stop.is_set():
                    async with turn:
                        await client.create(page(f"p{made}"))
                    await handshake(webhooks.port, bundles[-1])
                    made += 1

            calling = asyncio.ensure_future(calls())
            both = await moved(19)
            bundles.append(both[1])
            assert both[1].count(b"BEGIN CERTIFICATE") == 2
            assert both[0] == second[0]
            assert both[1].endswith(second[1])
            switched = await moved(1.5)
            assert switched[1] == both[1]
            assert switched[0] != both[0]
            stop.set()
            await calling
            assert made > 5
            assert all([found.spec.title async for found in client.list(Page)])
            assert webhooks.metrics.certificate_loads == 3


async def test_a_directory_without_certificates_is_said_and_taken_up_when_it_has_some(tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(UTC))
    async with plane_with_pages() as (_, client):
        options = {"certificate_dir": str(tmp_path)}
        manager = manager_of(client, free_port(), clock=clock, options=options)
        webhook(manager).for_(Page).defaulted_by(titled).build()
        with logged(webhook_server) as lines:
            async with manager:
                await until(lambda: "tls.crt cannot be read" in served(manager).problem())
                assert any("mount the Secret" in problem for problem in manager.problems())
                assert served(manager).metrics.certificate_errors >= 1
                page_of_ready = run_checks("readyz", manager._ready_checks())
                assert page_of_ready.status == 500
                assert b"[-]webhooks failed: certificate directory" in page_of_ready.body
                assert "pilothouse_operator_webhook_ready 0" in (manager.metrics or Metrics()).exposition().decode()
                authority = tls.make_ca("outside")
                (tmp_path / "ca.crt").write_bytes(authority.certificate)
                files = str(tmp_path / "tls.crt"), str(tmp_path / "tls.key")
                tls.write(tls.issue(authority, "a", hosts=["127.0.0.1"], server=True), *files)
                await until(lambda: not served(manager).problem(), clock=clock)
                assert (await client.create(page())).spec.title
                tls.write(tls.issue(authority, "b", hosts=["127.0.0.1"], server=True), *files)
                await until(lambda: served(manager).metrics.certificate_loads == 2, clock=clock)
                assert (await client.create(page("more"))).spec.title
                (tmp_path / "tls.key").write_bytes(tls.issue(authority, "c", hosts=["x"], server=True).key)
                await until(lambda: "does not belong to the" in served(manager).problem(), clock=clock)
                assert (await client.create(page("still"))).spec.title  # with what it has
        assert "webhooks cannot be called" in {line["event"] for line in lines}
        assert "PRIVATE" not in str(lines)


async def test_without_rights_it_says_which_and_the_rest_of_the_operator_works() -> None:
    async with plane_with_pages() as (plane, admin):
        account = "system:serviceaccount:default:operator"
        for verb, resource in (("create", "secrets"), ("get", "secrets"), ("list", "secrets"), ("watch", "secrets")):
            await _grant(
                plane, account, f"{verb}-{resource}", {"apiGroups": [""], "resources": [resource], "verbs": [verb]}
            )
        user = plane.as_user(account).user
        async with Client.for_transport(plane.transport, user) as client:
            manager = manager_of(client, free_port())
            webhook(manager).for_(Page).defaulted_by(titled).build()
            async with manager:
                await until(lambda: "grant get, list, watch, create and patch of mutating" in served(manager).problem())
                assert "MutatingWebhookConfiguration pages" in served(manager).problem()
                rule = {
                    "apiGroups": ["admissionregistration.k8s.io"],
                    "resources": ["mutatingwebhookconfigurations"],
                    "verbs": ["get", "list", "watch", "patch", "create"],
                }
                await _grant(plane, account, "hooks", rule)
                await asyncio.wait_for(served(manager).wait_ready(), 20)
                assert (await admin.create(page())).spec.title


async def _grant(plane: ControlPlane, account: str, name: str, rule: dict[str, Any]) -> None:
    group = "rbac.authorization.k8s.io"
    role = {"apiVersion": f"{group}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": [rule]}
    await plane.call("POST", f"/apis/{group}/v1/clusterroles", role)
    subject = {"kind": "User", "apiGroup": group, "name": account}
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name},
        "subjects": [subject],
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
    }
    await plane.call("POST", f"/apis/{group}/v1/clusterrolebindings", binding)


async def test_a_taken_address_is_an_error_at_the_start() -> None:
    async with plane_with_pages() as (_, client), operating(client) as manager:
        other = manager_of(client, served(manager).port)
        webhook(other).for_(Page).defaulted_by(titled).build()
        with pytest.raises(OperatorError, match=r"webhook address 127.0.0.1:\d+: cannot listen there"):
            await other.run()


async def test_a_stop_lets_the_answer_out() -> None:
    gate, begun = asyncio.Event(), asyncio.Event()

    async def waits(new: Page, request: AdmissionRequest) -> None:
        begun.set()
        await gate.wait()

    async with plane_with_pages() as (_, client):
        manager = manager_of(client, free_port())
        webhook(manager).for_(Page).validated_by(waits).build()
        async with manager:
            await ready(manager)
            call = asyncio.ensure_future(client.create(page()))
            await begun.wait()
            manager.stop()
            await asyncio.sleep(0.05)
            gate.set()
            assert (await asyncio.wait_for(call, 5)).metadata.name == "home"


async def test_who_keeps_certificates_is_begun_anew_when_it_dies() -> None:
    async with plane_with_pages() as (_, client), operating(client) as manager:
        task = served(manager)._task
        assert task is not None
        task.cancel()
        await asyncio.wait([task])
        assert served(manager).problem() == "what keeps certificates has ended"
        manager.problems()
        await until(lambda: not served(manager).problem())


async def test_without_configuring_it_only_serves() -> None:
    async with plane_with_pages() as (_, client), operating(client, options={"configure": False}) as manager:
        assert [one async for one in client.list(MutatingWebhookConfiguration)] == []
        (hook, _) = served(manager).hooks
        status, told = await posted(client, served(manager).port, hook.path, review({"spec": {}}))
        assert (status, told["response"]["patchType"]) == (200, "JSONPatch")
        assert json.loads(base64.b64decode(told["response"]["patch"])) == [
            {"op": "add", "path": "/spec/title", "value": "by ada"}
        ]


async def test_an_upgrade_does_not_wait_for_itself() -> None:
    """The new copy is ready while the old one leads, writes nothing until it leads, and then all of it."""
    async with plane_with_pages() as (_, client):
        ports = free_port(), free_port()
        old, new = (
            manager_of(
                client,
                port,
                options={"url": f"https://127.0.0.1:{ports[0]}"},
                leader_election=LeaderElection(name="pages", identity=str(port)),
            )
            for port in ports
        )
        webhook(old).for_(Page).validated_by(Judge()).build()
        webhook(new).for_(Page).validated_by(Judge()).build()
        webhook(new, "second").for_(Page).validated_by(Judge()).build()

        async def names() -> list[str]:
            return [hook.name for hook in (await client.get(ValidatingWebhookConfiguration, "pages")).webhooks]

        async with old:
            await until(lambda: old.is_leading)
            await ready(old)
            async with new:
                await ready(new)
                assert await names() == ["validate.pages.v2.hooks.example.com"]
                assert served(new).metrics.corrections == 0
                assert new.problems() == []
                old.stop()
                await until(lambda: new.is_leading)
                await until(lambda: served(new).metrics.corrections == 1)
                await ready(new)
                assert len(await names()) == 2


async def test_a_manager_with_nothing_built_serves_nothing() -> None:
    async with plane_with_pages() as (_, client):
        manager = manager_of(client, free_port())
        async with manager:
            assert served(manager).problem() == ""
            assert [one async for one in client.list(Secret)] == []
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", served(manager).port)


async def test_the_watchdog_begins_anew_what_has_died() -> None:
    clock = FakeClock(datetime.now(UTC))
    async with plane_with_pages() as (_, client), operating(client, clock=clock) as manager:
        tasks = [served(manager)._task, *(informer._task for informer in served(manager)._informers)]
        dying = [task for task in tasks if task is not None]
        assert len(dying) == 4
        for task in dying:
            task.cancel()
        await asyncio.wait(dying)
        clock.advance(61)
        await until(lambda: not served(manager).problem())
        assert all(informer.restarts == 1 for informer in served(manager)._informers)


async def test_a_certificate_that_expired_is_said_though_it_cannot_be_renewed(tmp_path: Path) -> None:
    clock = FakeClock(datetime.now(UTC))
    authority = tls.make_ca("outside")
    files = str(tmp_path / "tls.crt"), str(tmp_path / "tls.key")
    tls.write(tls.issue(authority, "a", hosts=["127.0.0.1"], server=True, days=30), *files)
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    options = {"certificate_dir": str(tmp_path)}
    async with plane_with_pages() as (_, client), operating(client, clock=clock, options=options) as manager:
        clock.advance(29 * 86_400)
        assert served(manager).problem() == ""
        clock.advance(2 * 86_400)
        assert served(manager).problem().startswith("the certificate expired at ")
        await until(lambda: "renew tls.crt and tls.key there" in served(manager).problem(), clock=clock)
        assert run_checks("readyz", manager._ready_checks()).status == 500
