"""Objects without managed fields, cut out of their bytes; and the collector that is paused meanwhile."""

from __future__ import annotations

import asyncio
import gc
import json
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.client import Client
from pilothouse.client.collector import collector_paused
from pilothouse.client.factory import SharedInformerFactory
from pilothouse.client.lean import cut_managed_fields
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import ConfigMap, ObjectMeta
from pilothouse.testing import ControlPlane
from support.informerkit import FakeServer

FIELDS = st.recursive(
    st.one_of(st.text(), st.integers(), st.sampled_from(['"managedFields":[', "}],", '\\"managedFields\\":'])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@given(
    before=st.dictionaries(st.sampled_from(["name", "labels", "annotations"]), FIELDS),
    managed=FIELDS,
    after=st.dictionaries(st.sampled_from(["x", "finalizers"]), FIELDS),
    rest=st.dictionaries(st.sampled_from(["spec", "apiVersion"]), FIELDS),
    first=st.booleans(),
)
def test_managed_fields_are_cut_and_nothing_else(
    before: dict[str, Any], managed: Any, after: dict[str, Any], rest: dict[str, Any], first: bool
) -> None:
    whole = {"metadata": {**before, "managedFields": managed, **after}}
    tree = {**rest, **whole} if first else {**whole, **rest}
    data = json.dumps(tree, separators=(",", ":")).encode()
    cut = json.loads(cut_managed_fields(data))
    if cut["metadata"].pop("managedFields", None) is not None:
        # Only where an earlier name of this sort hides it, which takes an odd object.
        assert data.index(b'"managedFields"') < data.index(
            b'"managedFields":' + json.dumps(managed, separators=(",", ":")).encode()
        )
    tree["metadata"].pop("managedFields")
    assert cut == tree


@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (b'{"metadata":{"name":"a","managedFields":[{"x":{}}]},"spec":{}}', b'{"metadata":{"name":"a"},"spec":{}}'),
        (b'{"metadata":{"managedFields":[],"name":"a"}}', b'{"metadata":{"name":"a"}}'),
        (b'{"metadata":{"managedFields":null}}', b'{"metadata":{}}'),
        (b'{"metadata":{"name":"a"}}', b'{"metadata":{"name":"a"}}'),
        (b'{"spec":{"managedFields":[1]}}', b'{"spec":{"managedFields":[1]}}'),
        (b'{"metadata":{"managedFields" : [1]}}', b'{"metadata":{"managedFields" : [1]}}'),
        (b'{"metadata":{"managedFields":[', b'{"metadata":{"managedFields":['),
        (b"[]", b"[]"),
    ],
)
def test_cuts(data: bytes, cut: bytes) -> None:
    assert cut_managed_fields(data) == cut


async def test_a_factory_leaves_them_out_if_asked() -> None:
    async with ControlPlane(lifecycle=False) as plane, Client.for_transport(plane.transport, plane.user) as client:
        made = await client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default"), data={"x": "x"}))
        assert made.metadata.managed_fields
        factory = SharedInformerFactory(client, namespace="default", metrics=Metrics())
        lean, full = factory.informer(ConfigMap, managed_fields=False), factory.informer(ConfigMap)
        assert lean is not full
        async with factory:
            await factory.wait_for_sync(10)
            cached = lean.lister().namespaced("default").get("a")
            assert not cached.metadata.managed_fields
            assert full.lister().namespaced("default").get("a") == made
            seen = asyncio.Event()
            lean.add_handler(on_update=lambda _, new: seen.set() if not new.metadata.managed_fields else None)
            kept = await client.update(cached)
            assert kept.metadata.managed_fields == made.metadata.managed_fields
            await client.patch(ConfigMap, "a", {"data": {"x": "y"}}, "default")
            async with asyncio.timeout(5):
                await seen.wait()


def test_an_event_that_does_not_fit_says_why_and_has_its_version() -> None:
    async def nothing(*_: object) -> None: ...

    client = Client.for_transport(SimpleNamespace(request=nothing, aclose=nothing))
    lean = client.list_watch(ConfigMap, "default").without_managed_fields()
    object_ = b'{"metadata":{"name":"a","resourceVersion":"7","managedFields":[{}]},"data":%s}'
    good = lean._read(b'{"type":"MODIFIED","object":%s}' % (object_ % b'{"x":"y"}'))
    assert (good.type, good.resource_version, good.error) == ("MODIFIED", "7", None)
    assert good.object is not None
    assert good.object.data == {"x": "y"}
    assert not good.object.metadata.managed_fields
    bad = lean._read(b'{"type":"MODIFIED","object":%s}' % (object_ % b"3"))
    assert (bad.type, bad.object, bad.resource_version) == ("MODIFIED", None, "7")
    assert "data" in str(bad.error)
    mark = lean._read(b'{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}')
    assert (mark.type, mark.object, mark.resource_version) == ("BOOKMARK", None, "9")


async def test_informers_of_dictionaries_and_of_metadata_alone() -> None:
    async with ControlPlane(lifecycle=False) as plane, Client.for_transport(plane.transport, plane.user) as client:
        await client.create(ConfigMap(metadata=ObjectMeta(name="a", namespace="default"), data={"x": "x"}))
        factory = SharedInformerFactory(client, namespace="default", metrics=Metrics())
        whole = await factory.informer_for(client.dynamic("v1", "ConfigMap"))
        head = await factory.informer_for(client.metadata_of(ConfigMap))
        assert await factory.informer_for(client.dynamic("v1", "ConfigMap")) is whole
        async with factory:
            await factory.wait_for_sync(10)
            assert whole.lister().namespaced("default").get("a")["data"] == {"x": "x"}
            partial = head.lister().namespaced("default").get("a")
            assert (partial.metadata.name, partial.kind) == ("a", "PartialObjectMetadata")
            assert not hasattr(partial, "data")
            nodes = await factory.informer_for(client.dynamic("v1", "Node"))
            await nodes.wait_synced()


def test_what_is_no_clients_cannot_leave_them_out() -> None:
    class Lists:
        def list_watch(self, kind: Any, namespace: str = "*", *, labels: str = "", fields: str = "") -> Any:
            return FakeServer()

    with pytest.raises(TypeError, match="use a transform"):
        SharedInformerFactory(Lists(), metrics=Metrics()).informer(ConfigMap, managed_fields=False)


def test_the_collector_is_paused_by_several_at_once_and_not_for_long() -> None:
    clock = FakeClock()
    assert gc.isenabled()
    with collector_paused(clock):
        with collector_paused(clock):
            assert not gc.isenabled()
        assert not gc.isenabled()
        clock.advance(11)
        assert gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with collector_paused(clock):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
