"""Python's own Kubernetes clients against the server, over HTTPS, as their users have them from a kubeconfig.

Each creates, gets, lists, watches, patches and deletes objects of the core and of a definition.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse.foundation import tls
from pilothouse.kinds.status import ApiStatus
from pilothouse.testing import BlockingPlane, ControlPlane

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    # kr8s tells which servers it was tested with
    pytest.mark.filterwarnings("ignore:Kubernetes version:UserWarning"),
]

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "harbour.example.com"
BOATS = f"/apis/{GROUP}/v1/namespaces/default/boats"
DEFINITION = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": f"boats.{GROUP}"},
    "spec": {
        "group": GROUP,
        "scope": "Namespaced",
        "names": {"plural": "boats", "singular": "boat", "kind": "Boat", "shortNames": ["bt"]},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {"status": {}},
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "properties": {
                                    "length": {"type": "integer", "minimum": 1},
                                    "crew": {"type": "array", "items": {"type": "string"}},
                                },
                            },
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


def boat(name: str, length: int = 3) -> dict[str, Any]:
    return {"apiVersion": f"{GROUP}/v1", "kind": "Boat", "metadata": {"name": name}, "spec": {"length": length}}


def established(found: Any) -> bool:
    conditions = found.get("status", {}).get("conditions") or () if found else ()
    return any(each["type"] == "Established" and each["status"] == "True" for each in conditions)


@pytest.fixture(scope="module")
def plane() -> Iterator[BlockingPlane]:
    with ControlPlane() as plane:
        plane.call("POST", DEFINITIONS, DEFINITION)
        plane.wait_for(f"{DEFINITIONS}/boats.{GROUP}", established)
        yield plane


@pytest.fixture
def kubeconfig(plane: BlockingPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("KUBECONFIG", plane.kubeconfig)
    yield plane.kubeconfig
    gc.collect()  # what clients leave open is closed while the warnings of it are ignored


def pod(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": "registry.example.com/main:1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [container]},
    }


# kubernetes


def test_kubernetes_core(kubeconfig: str) -> None:
    from kubernetes import client, config, watch

    with config.new_client_from_config(kubeconfig) as api:
        core = client.CoreV1Api(api)
        made = core.create_namespaced_config_map(
            "default", client.V1ConfigMap(metadata=client.V1ObjectMeta(name="py"), data={"a": "1"})
        )
        assert made.metadata.uid
        assert core.read_namespaced_config_map("py", "default").data == {"a": "1"}
        assert "py" in [each.metadata.name for each in core.list_namespaced_config_map("default").items]
        patched = core.patch_namespaced_config_map("py", "default", {"data": {"b": "2"}})
        assert patched.data == {"a": "1", "b": "2"}
        patched.data["a"] = "3"
        assert core.replace_namespaced_config_map("py", "default", patched).data["a"] == "3"
        made.metadata.resource_version = "1"
        with pytest.raises(client.ApiException) as raised:
            core.replace_namespaced_config_map("py", "default", made)
        assert raised.value.status == 409
        core.create_namespaced_pod("default", pod("py"))
        assert core.patch_namespaced_pod(
            "py", "default", {"metadata": {"labels": {"more": "yes"}}}
        ).metadata.labels == {
            "app": "py",
            "more": "yes",
        }
        seen = []
        watcher = watch.Watch()
        for event in watcher.stream(core.list_namespaced_pod, "default", label_selector="app=py", timeout_seconds=10):
            seen.append(event["type"])
            if event["type"] == "ADDED":
                core.delete_namespaced_pod("py", "default", grace_period_seconds=0)
            if event["type"] == "DELETED":
                watcher.stop()
        assert seen[0] == "ADDED"
        assert seen[-1] == "DELETED"
        core.delete_namespaced_config_map("py", "default")
        with pytest.raises(client.ApiException) as raised:
            core.read_namespaced_config_map("py", "default")
        assert raised.value.status == 404
        page = core.list_namespace(limit=2)
        assert len(page.items) == 2
        assert page.metadata._continue
        rest = core.list_namespace(limit=50, _continue=page.metadata._continue)
        assert {each.metadata.name for each in page.items}.isdisjoint(each.metadata.name for each in rest.items)
        assert client.VersionApi(api).get_code().major == "1"


def test_kubernetes_custom(kubeconfig: str) -> None:
    from kubernetes import client, config, watch

    with config.new_client_from_config(kubeconfig) as api:
        custom = client.CustomObjectsApi(api)
        where = (GROUP, "v1", "default", "boats")
        assert custom.create_namespaced_custom_object(*where, boat("py"))["metadata"]["generation"] == 1
        with pytest.raises(client.ApiException) as raised:
            custom.create_namespaced_custom_object(*where, boat("bad", 0))
        assert raised.value.status == 422
        assert custom.get_namespaced_custom_object(*where, "py")["spec"] == {"length": 3}
        patched = custom.patch_namespaced_custom_object(*where, "py", {"spec": {"crew": ["ann"]}})
        assert patched["spec"] == {"length": 3, "crew": ["ann"]}
        custom.patch_namespaced_custom_object_status(*where, "py", {"status": {"afloat": True}})
        listed = custom.list_namespaced_custom_object(*where)
        assert [each["status"] for each in listed["items"]] == [{"afloat": True}]
        watcher = watch.Watch()
        seen = []
        for event in watcher.stream(custom.list_namespaced_custom_object, *where, timeout_seconds=10):
            seen.append(event["type"])
            if event["type"] == "ADDED":
                custom.delete_namespaced_custom_object(*where, "py")
            else:
                watcher.stop()
        assert seen == ["ADDED", "DELETED"]


def test_kubernetes_dynamic(kubeconfig: str) -> None:
    from kubernetes import config, dynamic

    with config.new_client_from_config(kubeconfig) as api:
        client = dynamic.DynamicClient(api)
        boats = client.resources.get(api_version=f"{GROUP}/v1", kind="Boat")
        applied = boats.server_side_apply(boat("dyn"), name="dyn", namespace="default", field_manager="dynamic")
        assert applied.metadata.managedFields[0].manager == "dynamic"
        assert boats.get(name="dyn", namespace="default").spec.length == 3
        assert [each.metadata.name for each in boats.get(namespace="default").items] == ["dyn"]
        boats.patch(
            body={"spec": {"length": 4}},
            name="dyn",
            namespace="default",
            content_type="application/merge-patch+json",
        )
        boats.delete(name="dyn", namespace="default")
        maps = client.resources.get(api_version="v1", kind="ConfigMap")
        maps.create(body={"metadata": {"name": "dyn"}}, namespace="default")
        maps.delete(name="dyn", namespace="default")


# kubernetes_asyncio


async def test_kubernetes_asyncio(kubeconfig: str) -> None:
    from kubernetes_asyncio import client, config, watch

    configuration = client.Configuration()
    await config.load_kube_config(kubeconfig, client_configuration=configuration)
    async with client.ApiClient(configuration) as api:
        core, custom = client.CoreV1Api(api), client.CustomObjectsApi(api)
        await core.create_namespaced_pod("default", pod("aio"))
        assert (await core.read_namespaced_pod("aio", "default")).status.phase == "Pending"
        assert [each.metadata.name for each in (await core.list_namespaced_pod("default")).items] == ["aio"]
        patched = await core.patch_namespaced_pod("aio", "default", {"metadata": {"annotations": {"a": "b"}}})
        assert patched.metadata.annotations == {"a": "b"}
        seen = []
        async with watch.Watch() as watcher:
            async for event in watcher.stream(core.list_namespaced_pod, "default", timeout_seconds=10):
                seen.append(event["type"])
                if event["type"] == "ADDED":
                    await core.delete_namespaced_pod("aio", "default", grace_period_seconds=0)
                if event["type"] == "DELETED":
                    watcher.stop()
                    break
        assert (seen[0], seen[-1]) == ("ADDED", "DELETED")
        where = (GROUP, "v1", "default", "boats")
        await custom.create_namespaced_custom_object(*where, boat("aio"))
        await custom.patch_namespaced_custom_object(
            *where, "aio", {"spec": {"length": 5}}, _content_type="application/merge-patch+json"
        )
        assert (await custom.get_namespaced_custom_object(*where, "aio"))["spec"]["length"] == 5
        assert len((await custom.list_namespaced_custom_object(*where))["items"]) == 1
        await custom.delete_namespaced_custom_object(*where, "aio")


# kr8s


async def test_kr8s(kubeconfig: str) -> None:
    import kr8s
    from kr8s.asyncio.objects import ConfigMap, Pod, new_class

    api = await kr8s.asyncio.api(kubeconfig=kubeconfig)
    assert (await api.version())["major"] == "1"
    made = await ConfigMap({"metadata": {"name": "kr8s", "namespace": "default"}, "data": {"a": "1"}}, api=api)
    await made.create()
    await made.patch({"data": {"b": "2"}})
    assert (await ConfigMap.get("kr8s", namespace="default", api=api)).raw["data"] == {"a": "1", "b": "2"}
    assert "kr8s" in [each.name async for each in api.get("configmaps", namespace="default")]
    await made.delete()
    assert not await made.exists()
    running = await Pod(pod("kr8s"), namespace="default", api=api)
    await running.create()
    await running.label(tested="yes")
    seen = []
    async for kind, _ in api.watch("pods", namespace="default", label_selector="tested=yes"):
        seen.append(kind)
        if kind == "ADDED":
            await running.delete(grace_period=0)
        if kind == "DELETED":
            break
    assert (seen[0], seen[-1]) == ("ADDED", "DELETED")
    kind = new_class(kind="Boat", version=f"{GROUP}/v1", namespaced=True)
    own = await kind(boat("kr8s"), namespace="default", api=api)
    await own.create()
    await own.patch({"spec": {"length": 7}})
    await own.refresh()
    assert own.raw["spec"]["length"] == 7
    assert [each.name async for each in api.get(f"boats.{GROUP}", namespace="default")] == ["kr8s"]
    await own.delete()


# lightkube


def test_lightkube(kubeconfig: str) -> None:
    from lightkube import ApiError, Client, KubeConfig
    from lightkube.generic_resource import create_namespaced_resource
    from lightkube.models.core_v1 import Container, PodSpec
    from lightkube.models.meta_v1 import ObjectMeta
    from lightkube.resources.core_v1 import ConfigMap, Pod
    from lightkube.types import PatchType

    client = Client(config=KubeConfig.from_file(kubeconfig), namespace="default", field_manager="lightkube")
    client.create(ConfigMap(metadata=ObjectMeta(name="light"), data={"a": "1"}))
    assert client.get(ConfigMap, "light").data == {"a": "1"}
    assert client.patch(ConfigMap, "light", {"data": {"b": "2"}}).data == {"a": "1", "b": "2"}
    assert "light" in [each.metadata.name for each in client.list(ConfigMap)]
    applied = client.apply(
        ConfigMap(apiVersion="v1", kind="ConfigMap", metadata=ObjectMeta(name="light"), data={"c": "3"})
    )
    assert applied.data == {"a": "1", "b": "2", "c": "3"}
    client.delete(ConfigMap, "light")
    with pytest.raises(ApiError) as raised:
        client.get(ConfigMap, "light")
    assert raised.value.status.reason == "NotFound"
    client.create(
        Pod(
            metadata=ObjectMeta(name="light", labels={"app": "light"}),
            spec=PodSpec(containers=[Container(name="main", image="registry.example.com/main:1")]),
        )
    )
    seen = []
    for kind, _ in client.watch(Pod, labels={"app": "light"}, server_timeout=10):
        seen.append(kind)
        if kind == "ADDED":
            client.delete(Pod, "light", grace_period=0)
        if kind == "DELETED":
            break
    assert (seen[0], seen[-1]) == ("ADDED", "DELETED")
    boats = create_namespaced_resource(GROUP, "v1", "Boat", "boats")
    client.create(boats(boat("light")))
    client.patch(boats, "light", {"spec": {"length": 6}}, patch_type=PatchType.MERGE)
    assert client.get(boats, "light").spec["length"] == 6
    client.patch(boats.Status, "light", {"status": {"afloat": True}}, patch_type=PatchType.MERGE)
    assert [each.status for each in client.list(boats)] == [{"afloat": True}]
    client.delete(boats, "light")


# kopf


@contextmanager
def operating(registry: Any) -> Iterator[None]:
    """Run a kopf operator in a thread."""
    import kopf

    @kopf.on.login(registry=registry)  # type: ignore[untyped-decorator]
    def login(**kwargs: Any) -> Any:
        return kopf.login_with_kubeconfig(**kwargs)

    started, stop = threading.Event(), threading.Event()
    operator = kopf.operator(
        registry=registry, namespaces=["default"], standalone=True, stop_flag=stop, ready_flag=started
    )
    thread = threading.Thread(target=asyncio.run, args=[operator])
    thread.start()
    try:
        assert started.wait(10)
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def test_a_kopf_operator(plane: BlockingPlane, kubeconfig: str) -> None:
    import kopf

    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)  # type: ignore[untyped-decorator]
    def configure(settings: Any, **_: Any) -> None:
        settings.persistence.finalizer = f"{GROUP}/kopf"

    @kopf.on.create("boats", id="created", registry=registry)  # type: ignore[untyped-decorator]
    async def created(spec: Any, body: Any, name: str, namespace: str, **_: Any) -> dict[str, Any]:
        kopf.info(body, reason="Launched", message="she floats")
        child = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name}-log"}, "data": {}}
        kopf.adopt(child)
        await asyncio.to_thread(plane.call, "POST", f"/api/v1/namespaces/{namespace}/configmaps", child)
        return {"length": spec["length"]}

    @kopf.on.update("boats", id="updated", field="spec.length", registry=registry)  # type: ignore[untyped-decorator]
    def updated(old: Any, new: Any, patch: Any, **_: Any) -> None:
        patch.status["change"] = f"{old} to {new}"

    @kopf.timer("boats", id="ticking", interval=0.2, registry=registry)  # type: ignore[untyped-decorator]
    def ticking(patch: Any, status: Any, **_: Any) -> None:
        patch.status["ticks"] = min(2, status.get("ticks", 0) + 1)

    @kopf.on.delete("boats", id="deleted", registry=registry)  # type: ignore[untyped-decorator]
    async def deleted(name: str, **_: Any) -> None:
        sunk = {"metadata": {"name": f"{name}-sunk"}}
        await asyncio.to_thread(plane.call, "POST", "/api/v1/namespaces/default/configmaps", sunk)

    with operating(registry):
        plane.call("POST", BOATS, boat("kopf"))
        done = plane.wait_for(f"{BOATS}/kopf", lambda found: found and found.get("status", {}).get("created"))
        assert done["status"]["created"] == {"length": 3}
        assert done["metadata"]["finalizers"] == [f"{GROUP}/kopf"]
        plane.wait_for(
            f"/api/v1/namespaces/default/events?fieldSelector=involvedObject.uid={done['metadata']['uid']}",
            lambda found: any(each["reason"] == "Launched" for each in found),
        )
        plane.call("PATCH", f"{BOATS}/kopf", {"spec": {"length": 9}})
        plane.wait_for(f"{BOATS}/kopf", lambda found: found["status"].get("change") == "3 to 9")
        plane.wait_for(f"{BOATS}/kopf", lambda found: found["status"].get("ticks") == 2)
        plane.call("DELETE", f"{BOATS}/kopf")
        plane.wait_for(f"{BOATS}/kopf", lambda found: found is None)
        plane.wait_for("/api/v1/namespaces/default/configmaps/kopf-sunk")
        # the child goes with its owner, by the garbage collector
        plane.wait_for("/api/v1/namespaces/default/configmaps/kopf-log", lambda found: found is None)


def test_the_webhooks_of_a_kopf_operator(plane: BlockingPlane, kubeconfig: str, tmp_path: Path) -> None:
    import kopf

    registry = kopf.OperatorRegistry()
    ca = tls.make_ca("webhooks")
    certificate, key, authority = (str(tmp_path / name) for name in ("hook.crt", "hook.key", "ca.crt"))
    tls.write(tls.issue(ca, "127.0.0.1", hosts=["127.0.0.1"], server=True), certificate, key)
    Path(authority).write_bytes(ca.certificate)

    @kopf.on.startup(registry=registry)  # type: ignore[untyped-decorator]
    def configure(settings: Any, **_: Any) -> None:
        settings.admission.managed = "boats.kopf.dev"
        settings.admission.server = kopf.WebhookServer(
            addr="127.0.0.1", host="127.0.0.1", certfile=certificate, pkeyfile=key, cafile=authority
        )

    @kopf.on.validate("boats", id="short", registry=registry)  # type: ignore[untyped-decorator]
    def short(spec: Any, **_: Any) -> None:
        if spec.get("length", 0) > 100:
            raise kopf.AdmissionError("boats are at most 100 long", code=422)

    @kopf.on.mutate("boats", id="manned", registry=registry)  # type: ignore[untyped-decorator]
    def manned(patch: Any, **_: Any) -> None:
        patch.spec["crew"] = ["ann"]

    with operating(registry):
        for kind in ("validating", "mutating"):
            plane.wait_for(
                f"/apis/admissionregistration.k8s.io/v1/{kind}webhookconfigurations/boats.kopf.dev",
                lambda found: found and found.get("webhooks"),
            )
        assert plane.call("POST", BOATS, boat("manned"))["spec"] == {"length": 3, "crew": ["ann"]}
        with pytest.raises(ApiStatus, match="denied the request: boats are at most 100 long") as raised:
            plane.call("POST", BOATS, boat("long", 101))
        assert raised.value.code == 422
        plane.call("DELETE", f"{BOATS}/manned")
