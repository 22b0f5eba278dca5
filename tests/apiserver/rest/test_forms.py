"""Forms of answers that a client asks for, refused or given before the object is looked for."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from pilothouse.apiserver.rest.options import boolean
from pilothouse.apiserver.rest.rendering import to_yaml
from support.apiserverkit import Api, api_server, config_map

MAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with api_server() as found:
        yield found


@pytest.mark.parametrize("path", [f"{MAPS}/none", f"{MAPS}?limit=x"])
@pytest.mark.parametrize("accept", ["text/html", "application/json;as=Foo;v=v1;g=meta.k8s.io"])
async def test_the_form_is_looked_at_first(api: Api, path: str, accept: str) -> None:
    assert (await api.get(path, headers=[("Accept", accept)])).status == 406


async def test_lists_say_that_they_could_be_watched(api: Api) -> None:
    one, many = [await api.get(path, headers=[("Accept", "text/html")]) for path in (f"{MAPS}/none", MAPS)]
    watched = ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    assert many.message == one.message + watched


async def test_heads_of_resources_are_not_served(api: Api) -> None:
    assert (await api.call("HEAD", MAPS)).status == 405


async def test_metadata_of_lists(api: Api) -> None:
    accept = "application/json;as=PartialObjectMetadata{};v=v1;g=meta.k8s.io"
    reply = await api.get(MAPS, headers=[("Accept", accept.format(""))])
    assert (
        reply.message == "you requested PartialObjectMetadata, but the requested object is a list (*core.ConfigMapList)"
    )
    reply = await api.get(f"{MAPS}?labelSelector=none", headers=[("Accept", accept.format("List"))])
    assert reply.body["items"] is None


def test_yaml_has_the_quotes_of_kube_apiserver() -> None:
    told = {"a": "1", "b": "plain text", "c": "x: y", "d": "two\nlines", "e": "", "f": "- a", "g": "true", "h": 1}
    assert to_yaml(told).decode() == (
        'a: "1"\nb: plain text\nc: "x: y"\nd: |-\n  two\n  lines\ne: ""\nf: "- a"\ng: "true"\nh: 1\n'
    )


async def test_objects_are_the_same_in_yaml(api: Api) -> None:
    import yaml

    data = {
        "a": "#",
        "b": "a #b",
        "c": " lead",
        "d": "*star",
        "e": "end:",
        "f": "t\tab",
        "g": "\u00e9",
        "h": "l\n",
        "i": "@",
    }
    made = await api.made(MAPS, config_map("odd", data))
    reply = await api.get(f"{MAPS}/odd", headers=[("Accept", "application/yaml")])
    assert yaml.safe_load(reply.raw) == made


@pytest.mark.parametrize(("text", "value"), [("", True), ("x", True), ("0", False), ("False", False), ("true", True)])
def test_booleans_of_queries(text: str, value: bool) -> None:
    assert boolean(text) is value


async def test_an_update_without_a_version_names_the_resource(api: Api) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "a"}, "spec": {}}
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    await api.made(leases, lease)
    reply = await api.put(f"{leases}/a", lease)
    want = "metadata.resourceVersion: Invalid value: 0: must be specified for an update"
    assert (reply.status, reply.message) == (422, f'leases.coordination.k8s.io "a" is invalid: {want}')
    assert reply.body["details"]["kind"] == "leases"
