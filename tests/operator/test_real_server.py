"""One set of scenes against three servers: ours in process and over HTTPS, and a real kube-apiserver where it is built.

What a handler is told must be the same with each of them, and the same as was recorded.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pilothouse.client import Client
from pilothouse.client.election_core import ElectionOptions
from pilothouse.client.leaderelection import LeaderElector, LeaseLock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.status import Conflict, NotFound
from pilothouse.kinds.structs import ConfigMap, Deployment, Lease, Namespace, ObjectMeta, Service
from pilothouse.operator import Context, Harness, Reconciler, Result, controller, install
from pilothouse.operator.crds import definition
from pilothouse.operator.finalizers import add_finalizer, is_being_deleted, remove_finalizer
from support.recorded import Recorder, read_take
from support.servers import Place, in_process, kube_or_skip, over_http
from support.watchscenes import SCENES, Scene, play, until

ROOT = Path(__file__).resolve().parents[2]
REAL = ROOT / "tests" / "golden" / "client" / "real"

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


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_an_informer_is_told_the_same_by_every_server(scene: Scene, place: Place) -> None:
    async with place() as meeting:
        recorder = Recorder(meeting.transport)
        followed = await play(scene, meeting, recorder, f"live-{scene.name}")
    assert followed.told == read_take(REAL / f"{scene.name}.txt").outcome["told"].split()
    requests = " ".join(exchange.request for exchange in recorder.exchanges)
    assert [part for part in scene.asked if part not in requests] == []
    if scene.name.startswith("expired"):
        assert any(b'"code":410' in exchange.body for exchange in recorder.exchanges)
    if scene.name.startswith("future"):
        assert b"Too large resource version" in recorder.exchanges[0].body
    assert followed.informer.restarts == 0


async def test_two_appliers_share_an_object_and_are_told_what_is_the_others(place: Place) -> None:
    async with place() as meeting:
        client = Client(meeting.transport)
        await client.create(Namespace(metadata=ObjectMeta(name="live-apply")))

        def wanted(**data: str) -> ConfigMap:
            return ConfigMap(metadata=ObjectMeta(name="shared", namespace="live-apply"), data=data)

        await client.apply(wanted(a="1", b="1"), field_manager="first")
        await client.apply(wanted(c="1"), field_manager="second")
        with pytest.raises(Conflict, match=r'conflict with "first".*\.data\.a'):
            await client.apply(wanted(a="2"), field_manager="second")
        await client.apply(wanted(a="2"), field_manager="second", force=True)
        assert (await client.apply(wanted(b="1"), field_manager="first")).data == {"a": "2", "b": "1"}


async def test_leaders_take_turns_on_one_lease(place: Place) -> None:
    async with place() as meeting:
        client = Client(meeting.transport)
        await client.create(Namespace(metadata=ObjectMeta(name="live-leaders")))
        options = ElectionOptions(lease_seconds=3, renew_seconds=2, retry_seconds=0.2)
        turns: list[str] = []

        def candidate(name: str) -> tuple[LeaderElector, asyncio.Task[None]]:
            elector = LeaderElector(LeaseLock(client, "live-leaders", "one"), name, options, metrics=Metrics())

            async def lead() -> None:
                turns.append(name)
                await asyncio.Event().wait()

            return elector, asyncio.create_task(elector.run(lead))

        first, leading = candidate("first")
        await until(lambda: first.is_leader)
        second, waiting = candidate("second")
        await asyncio.sleep(0.6)  # some renewals
        assert (first.is_leader, second.is_leader) == (True, False)
        leading.cancel()
        await until(lambda: second.is_leader)
        lease = await client.get(Lease, "one", "live-leaders")
        assert (lease.spec.holder_identity, lease.spec.lease_transitions) == ("second", 1)
        # Somebody takes it by force: whoever led must notice and stop.
        await client.patch(Lease, "one", {"spec": {"holderIdentity": "thief"}}, "live-leaders")
        await asyncio.wait([waiting], timeout=10)
        assert "thief" in str(waiting.exception())
        assert turns == ["first", "second"]


class Cleaner(Reconciler[ConfigMap]):
    """Cleans up before an object goes."""

    def __init__(self) -> None:
        self.cleaned: list[str] = []

    async def reconcile(self, obj: ConfigMap, context: Context) -> Result | None:
        if obj.metadata.labels.get("app") != "kept":
            return None
        if not is_being_deleted(obj):
            await add_finalizer(context.client, obj, "example.com/clean")
        elif obj.metadata.finalizers:
            self.cleaned.append(obj.metadata.name)
            await remove_finalizer(context.client, obj, "example.com/clean")
        return None


async def test_a_finalizer_holds_an_object_until_it_is_cleaned_up(place: Place) -> None:
    async with place() as meeting:
        client = Client(meeting.transport, namespace="live-finalizers")
        await client.create(Namespace(metadata=ObjectMeta(name="live-finalizers")))
        cleaner = Cleaner()
        harness = Harness(client, namespace="live-finalizers")
        controller(harness.manager, "cleaner").for_(ConfigMap).build(cleaner)
        async with harness:
            await client.create(ConfigMap(metadata=ObjectMeta(name="one", labels={"app": "kept"})))
            await harness.converge()
            assert (await client.get(ConfigMap, "one")).metadata.finalizers == ["example.com/clean"]
            assert cleaner.cleaned == []
            await client.delete(ConfigMap, "one")
            await harness.converge()
            assert cleaner.cleaned == ["one"]
            with pytest.raises(NotFound):
                await client.get(ConfigMap, "one")


@pytest.fixture(scope="module")
def website() -> ModuleType:
    spec = importlib.util.spec_from_file_location("website_on_servers", ROOT / "examples" / "website.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_website_operator_converges_and_survives_a_gone_version(website: ModuleType, place: Place) -> None:
    async with place() as meeting:
        client = Client(meeting.transport)
        await install(client, definition(website.Website))
        harness = Harness(client, namespace="default")
        website.build(harness.manager)
        async with harness:
            spec = website.WebsiteSpec(html="<p>a", replicas=2)
            await client.create(website.Website(metadata=ObjectMeta(name="live"), spec=spec))
            await harness.converge()
            assert (await client.get(Deployment, "live")).spec.replicas == 2
            there = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 2)
            await client.patch(Deployment, "live", {"status": {"observedGeneration": 1, **there}}, subresource="status")
            await harness.converge()
            found = await client.get(website.Website, "live")
            assert [(each.type, each.status) for each in found.status.conditions] == [("Ready", "True")]
            await harness.assert_stable()

            async def changed(direct: Client) -> None:
                await direct.delete(Service, "live", "default")
                await direct.patch(ConfigMap, "live", {"data": {"index.html": "defaced"}}, "default")
                await direct.patch(Deployment, "live", {"spec": {"replicas": 0}}, "default")

            await meeting.forget(changed)
            async with asyncio.timeout(30):
                while not (await repaired(meeting.direct) and await harness._is_current()):
                    await harness.clock.run(1)  # waits before the next watch
                    await asyncio.sleep(0.02)
            await harness.converge()
            await harness.assert_stable()


async def repaired(direct: Client) -> bool:
    services = {found.metadata.name for found in await direct.list_all(Service, "default")}
    pages = await direct.get(ConfigMap, "live", "default")
    deployment = await direct.get(Deployment, "live", "default")
    return "live" in services and pages.data == {"index.html": "<p>a"} and deployment.spec.replicas == 2
