"""Webhooks called by three servers: ours in process and over HTTPS, and a real kube-apiserver where it is built."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator

import msgspec
import pytest

from pilothouse.foundation import tls
from pilothouse.kinds.fielderrors import ErrorList, Path
from pilothouse.kinds.status import ApiStatus, InternalError, Invalid
from pilothouse.kinds.structs import MutatingWebhookConfiguration, ObjectMeta, ValidatingWebhookConfiguration, replace
from pilothouse.operator import AdmissionRequest, Denied, Manager, install, webhook
from pilothouse.operator.crds import definition
from support.servers import Place, in_process, kube_or_skip, over_http
from support.webhookkit import CONVERSIONS, Page, PageV1, PageV3, free_port, manager_of, page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["in process", "https", "kube-apiserver"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "in process":
        yield in_process
    elif request.param == "https":
        yield over_http
    else:
        with kube_or_skip() as server:
            yield server.meet


def titled(obj: Page, request: AdmissionRequest) -> Page:
    return obj if obj.spec.title else replace(obj, spec__title=f"{request.operation} {request.dry_run}")


def judged(new: Page, request: AdmissionRequest) -> list[str]:
    if new.spec.title == "raise":
        raise LookupError("colour")
    errors = ErrorList()
    if new.spec.width > 100:
        errors.invalid(Path("spec.width"), new.spec.width, "may not be over 100")
    if errors:
        raise Denied(errors=errors)
    request.annotate("width", str(new.spec.width))
    return ["narrow"] if new.spec.width < 2 else []


async def ready(manager: Manager) -> None:
    assert manager.webhooks is not None
    await asyncio.wait_for(manager.webhooks.wait_ready(), 20)


async def test_every_server_understands_what_we_say(place: Place) -> None:
    async with place() as meeting:
        client = meeting.direct
        await install(client, definition(PageV1, Page, PageV3))
        manager = manager_of(client, free_port())
        webhook(manager).for_(Page).defaulted_by(titled).validated_by(judged).converted_by(*CONVERSIONS).with_options(
            match_conditions={"not-free": "object.metadata.name != 'free'"}, timeout_seconds=5
        ).build()
        async with manager:
            await ready(manager)
            for _ in range(100):  # a real server learns of configurations a little later
                made = await client.create(page("try"), dry_run=True)
                if made.spec.title:
                    break
                await asyncio.sleep(0.05)
            assert made.spec.title == "CREATE True"
            assert (await client.create(page("one", width=3, height=4))).spec.title == "CREATE False"
            with pytest.raises(Invalid) as caught:
                await client.create(page("two", width=101))
            assert caught.value.causes == [
                {
                    "reason": "FieldValueInvalid",
                    "message": "Invalid value: 101: may not be over 100",
                    "field": "spec.width",
                }
            ]
            assert str(caught.value) == (
                'admission webhook "validate.pages.v2.hooks.example.com" denied the request: Page.hooks.example.com '
                '"two" is invalid: spec.width: Invalid value: 101: may not be over 100'
            )
            with pytest.raises(InternalError) as failed:
                await client.create(page("three", title="raise"))
            assert "its handler raised LookupError: colour" in str(failed.value)
            assert (await client.create(page("free", width=101))).spec.width == 101
            oldest = {found.metadata.name: found.spec.size async for found in client.list(PageV1)}
            assert oldest == {"one": "3x4", "free": "101x0"}
            newest = await client.get(PageV3, "one")
            assert (list(newest.spec.size), newest.spec.title) == ([3, 4], "CREATE False")
            old = PageV1(metadata=ObjectMeta(name="bad"))
            with pytest.raises(ApiStatus, match=r"objects\[0\], hooks.example.com/v1 Page default/bad to .*ValueError"):
                await client.create(old)
            await configurations_rest(manager)
            for kind in (MutatingWebhookConfiguration, ValidatingWebhookConfiguration):
                await client.delete(kind, "pages")


async def configurations_rest(manager: Manager) -> None:
    """What the server fills in is no reason to write again, and a bundle that is changed is put right."""
    webhooks, client = manager.webhooks, manager.client
    assert webhooks is not None
    await asyncio.sleep(0.2)
    before = webhooks.metrics.corrections
    webhooks.wake()
    await asyncio.sleep(0.2)
    assert webhooks.metrics.corrections == before == 3
    assert webhooks.problem() == ""
    path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/pages"
    stranger = base64.b64encode(tls.make_ca("stranger").certificate).decode()
    patch = [{"op": "replace", "path": "/webhooks/0/clientConfig/caBundle", "value": stranger}]
    body = msgspec.json.encode(patch)
    await client.request("PATCH", path, body, content_type="application/json-patch+json")
    for _ in range(200):
        if webhooks.metrics.corrections > before and not webhooks.problem():
            break
        await asyncio.sleep(0.02)
    assert webhooks.metrics.corrections == before + 1
