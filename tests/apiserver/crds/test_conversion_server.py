"""A resource in two versions between which a webhook converts, in a whole server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from support.apiserverkit import Api, api_server
from support.webhookserver import Review, WebhookServer

Object = dict[str, Any]
V1, V2 = (
    "/apis/harbour.example.com/v1/namespaces/default/ships",
    "/apis/harbour.example.com/v2/namespaces/default/ships",
)
CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ships.harbour.example.com"


def _version(name: str, properties: Object, *, storage: bool) -> Object:
    spec = {"type": "object", "properties": properties}
    schema = {"type": "object", "properties": {"spec": spec}}
    columns = [{"name": "Port", "type": "string", "jsonPath": ".spec.port"}]
    return {
        "name": name,
        "served": True,
        "storage": storage,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": columns if name == "v2" else [],
    }


def definition(webhook: WebhookServer) -> Object:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "ships.harbour.example.com"},
        "spec": {
            "group": "harbour.example.com",
            "scope": "Namespaced",
            "names": {"plural": "ships", "singular": "ship", "kind": "Ship", "listKind": "ShipList"},
            "versions": [
                _version("v1", {"place": {"type": "string"}}, storage=True),
                _version("v2", {"country": {"type": "string"}, "port": {"type": "string"}}, storage=False),
            ],
            "conversion": {
                "strategy": "Webhook",
                "webhook": {
                    "clientConfig": {"url": webhook.url("/convert"), "caBundle": webhook.authority},
                    "conversionReviewVersions": ["v1"],
                },
            },
        },
    }


def _converted(obj: Object, wanted: str) -> Object:
    """`place: NL/Rotterdam` in v1 is `country: NL, port: Rotterdam` in v2."""
    spec = obj.get("spec") or {}
    if wanted.endswith("/v2"):
        country, _, port = spec.get("place", "/").partition("/")
        return {**obj, "apiVersion": wanted, "spec": {"country": country, "port": port}}
    return {**obj, "apiVersion": wanted, "spec": {"place": f"{spec.get('country', '')}/{spec.get('port', '')}"}}


def answer(review: Review) -> web.Response:
    request = review["request"]
    objects = [_converted(obj, request["desiredAPIVersion"]) for obj in request["objects"]]
    response = {"uid": request["uid"], "result": {"status": "Success"}, "convertedObjects": objects}
    return web.json_response({"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response})


def failing(review: Review) -> web.Response:
    result = {"status": "Failure", "message": "the harbour is frozen"}
    response = {"uid": review["request"]["uid"], "result": result, "convertedObjects": []}
    return web.json_response({"apiVersion": review["apiVersion"], "kind": "ConversionReview", "response": response})


@pytest.fixture
async def webhook(tmp_path: Path) -> AsyncIterator[WebhookServer]:
    server = await WebhookServer().start(tmp_path)
    server.answers["/convert"] = answer
    yield server
    await server.stop()


@pytest.fixture
async def api(webhook: WebhookServer) -> AsyncIterator[Api]:
    async with api_server() as found:
        await found.made("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition(webhook))
        async with asyncio.timeout(20):
            while (await found.get(V2)).status != 200:  # noqa: ASYNC110  # that it is served has no event
                await asyncio.sleep(0.005)
        yield found


def ship(name: str, version: str = "v1", **spec: str) -> Object:
    return {
        "apiVersion": f"harbour.example.com/{version}",
        "kind": "Ship",
        "metadata": {"name": name},
        "spec": spec,
    }


async def test_each_version_is_read_and_written(api: Api) -> None:
    await api.made(V1, ship("a", place="NL/Rotterdam"))
    assert (await api.get(f"{V2}/a")).body["spec"] == {"country": "NL", "port": "Rotterdam"}
    await api.made(V2, ship("b", "v2", country="DE", port="Kiel"))
    assert (await api.get(f"{V1}/b")).body["spec"] == {"place": "DE/Kiel"}
    reply = await api.merge(f"{V2}/a", {"spec": {"port": "Delft"}})
    assert reply.body["spec"] == {"country": "NL", "port": "Delft"}
    assert (await api.get(f"{V1}/a")).body["spec"] == {"place": "NL/Delft"}
    listed = (await api.get(V2)).body
    assert [item["spec"]["port"] for item in listed["items"]] == ["Delft", "Kiel"]
    assert {item["apiVersion"] for item in listed["items"]} == {"harbour.example.com/v2"}


async def test_apply_in_the_other_version(api: Api) -> None:
    await api.made(V1, ship("a", place="NL/Rotterdam"))
    reply = await api.apply(f"{V2}/a", ship("a", "v2", country="NL", port="Breda"), "pilot", force=True)
    assert (reply.status, reply.body["spec"]) == (200, {"country": "NL", "port": "Breda"})
    managers = {entry["manager"]: entry["apiVersion"] for entry in reply.body["metadata"]["managedFields"]}
    assert managers["pilot"] == "harbour.example.com/v2"
    again = await api.apply(f"{V2}/a", ship("a", "v2", country="NL", port="Breda"), "pilot")
    assert again.version == reply.version, "nothing changed, so nothing is written"
    assert (await api.get(f"{V1}/a")).body["spec"] == {"place": "NL/Breda"}


async def test_watches_and_tables_are_converted(api: Api) -> None:
    for number in range(150):  # more than are sent at once
        await api.made(V1, ship(f"s{number:03}", place=f"NL/{number}"))
    watcher = await api.watch(
        f"{V2}?watch=true&resourceVersion=0&sendInitialEvents=true&allowWatchBookmarks=true"
        "&resourceVersionMatch=NotOlderThan"
    )
    events = await watcher.take(151)
    assert [event["object"]["spec"]["port"] for event in events[:-1]] == [str(number) for number in range(150)]
    assert (events[-1]["type"], events[-1]["object"]["apiVersion"]) == ("BOOKMARK", "harbour.example.com/v2")
    await api.merge(f"{V1}/s007", {"spec": {"place": "BE/Gent"}})
    await api.delete(f"{V1}/s007")
    changed, gone = await watcher.take(2)
    assert (changed["type"], changed["object"]["spec"]) == ("MODIFIED", {"country": "BE", "port": "Gent"})
    assert (gone["type"], gone["object"]["spec"]) == ("DELETED", {"country": "BE", "port": "Gent"})
    await watcher.close()
    table = (await api.get(f"{V2}/s000", headers=[("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")])).body
    assert table["rows"][0]["cells"][:2] == ["s000", "0"]


async def test_what_cannot_be_converted_is_told_and_nothing_written(api: Api, webhook: WebhookServer) -> None:
    await api.made(V1, ship("a", place="NL/Rotterdam"))
    watcher = await api.watch(f"{V2}?watch=true")
    await watcher.take(1)
    await api.made(V1, ship("z", place="NL/Sneek"))
    await watcher.take(1)
    webhook.answers["/convert"] = failing
    assert (await api.get(f"{V2}/a")).status == 200, "what was converted is known as long as it does not change"
    await api.made(f"{V1}", ship("c", place="NL/Rotterdam"))
    (event,) = await watcher.take(1)
    assert (event["type"], event["object"]["code"]) == ("ERROR", 500)
    assert await watcher.next() is None, "the watch ends, its client lists anew"
    reply = await api.get(f"{V2}/c")
    assert reply.status == 500
    assert reply.message.endswith("failed: the harbour is frozen")
    assert (await api.post(V2, ship("b", "v2", country="DE", port="Kiel"))).status == 500
    assert (await api.get(f"{V1}/b")).status == 404
    assert (await api.get(f"{V1}/a")).status == 200
    assert (await api.get(V2)).status == 500
    webhook.answers["/convert"] = answer
    assert [item["spec"]["port"] for item in (await api.get(V2)).body["items"]] == ["Rotterdam", "Rotterdam", "Sneek"]


async def test_a_dry_run_leaves_nothing_behind(api: Api) -> None:
    await api.made(V1, ship("a", place="NL/Rotterdam"))
    seen = (await api.get(f"{V2}/a")).body
    tried = await api.put(f"{V2}/a?dryRun=All", {**seen, "spec": {"country": "XX", "port": "nowhere"}})
    assert tried.body["spec"]["port"] == "nowhere"
    written = await api.put(f"{V2}/a", {**seen, "spec": {"country": "NL", "port": "Breda"}})
    assert written.body["spec"] == {"country": "NL", "port": "Breda"}
    assert (await api.get(f"{V1}/a")).body["spec"] == {"place": "NL/Breda"}


async def test_lists_are_converted_together(api: Api, webhook: WebhookServer) -> None:
    for number in range(30):
        await api.made(V1, ship(f"s{number:03}", place=f"NL/{number}"))
    webhook.reviews.clear()
    assert len((await api.get(V2)).body["items"]) == 30
    assert [len(review["request"]["objects"]) for _, review in webhook.reviews] == [30]
    assert len((await api.get(V2)).body["items"]) == 30
    assert len(webhook.reviews) == 1, "what was converted is remembered"


async def test_the_storage_version_moves(api: Api, webhook: WebhookServer) -> None:
    await api.made(V1, ship("a", place="NL/Rotterdam"))
    versions = definition(webhook)["spec"]["versions"]
    for version in versions:
        version["storage"] = version["name"] == "v2"
    reply = await api.merge(CRD, {"spec": {"versions": versions}})
    assert reply.status == 200, reply.raw
    assert reply.body["status"]["storedVersions"] == ["v1", "v2"]
    assert (await api.get(f"{V2}/a")).body["spec"] == {"country": "NL", "port": "Rotterdam"}
    before = (await api.get(f"{V1}/a")).version
    written = await api.put(f"{V1}/a", (await api.get(f"{V1}/a")).body)
    assert written.version != before, "an update without a change moves an object into the storage version"
    webhook.answers["/convert"] = failing
    assert (await api.get(f"{V2}/a")).body["spec"]["port"] == "Rotterdam", "kept in v2, it needs no conversion"


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ("x", "json: cannot unmarshal string into Go value of type v1.ObjectMeta"),
        ({"name": -1}, "json: cannot unmarshal number into Go struct field ObjectMeta.name of type string"),
    ],
)
async def test_faults_of_its_own_metadata_are_told_by_the_decoder_alone(api: Api, metadata: Any, why: str) -> None:
    reply = await api.post(V1, {**ship("a", place="NL/Rotterdam"), "metadata": metadata})
    assert (reply.status, reply.message) == (400, f'Ship in version "v1" cannot be handled as a Ship: {why}')
