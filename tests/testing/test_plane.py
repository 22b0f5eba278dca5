from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import stat
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from pilothouse.apiserver.model import User
from pilothouse.apiserver.options import ServerOptions
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.ids import SeededIds
from pilothouse.kinds.status import Forbidden, Invalid, NotFound
from pilothouse.store import StoreError
from pilothouse.testing import ControlPlane
from pilothouse.testing.bootstrap import knows_services

MAPS = "/api/v1/namespaces/default/configmaps"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def descriptors() -> set[str]:
    """What this process has open, but for what other tests' loops leave to the garbage collector."""
    gc.collect()
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
        except OSError:
            continue
    return found


@contextmanager
def nothing_is_left() -> Iterator[None]:
    """Fail where threads, descriptors or temporary files outlive the block."""
    run(lambda: asyncio.sleep(0), uvloop.new_event_loop)  # the first one opens what the program keeps
    threads, before, kept = set(threading.enumerate()), descriptors(), tempfile.tempdir
    with tempfile.TemporaryDirectory() as temporary:
        tempfile.tempdir = temporary
        try:
            yield
            assert os.listdir(temporary) == []
        finally:
            tempfile.tempdir = kept
    assert set(threading.enumerate()) - threads == set()
    assert descriptors() - before == set()


def run(work: Callable[[], Any], factory: Any = None) -> Any:
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work())


# The life of a plane


async def test_it_is_ready_when_the_block_begins() -> None:
    async with ControlPlane() as plane:
        assert await plane.call("GET", "/readyz") == "ok"
        names = {item["metadata"]["name"] for item in (await plane.call("GET", "/api/v1/namespaces"))["items"]}
        assert names == {"default", "kube-system", "kube-public", "kube-node-lease"}
        account = await plane.call("GET", "/api/v1/namespaces/default/serviceaccounts/default")
        assert account["metadata"]["name"] == "default"
        pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
        made = await plane.call("POST", "/api/v1/namespaces/default/pods", pod)
        assert made["spec"]["serviceAccountName"] == "default"


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_nothing_is_left_on_either_loop(factory: Any) -> None:
    async def work() -> None:
        before = asyncio.all_tasks()
        async with ControlPlane() as plane:
            assert plane.url
            await plane.call("POST", MAPS, config_map("a"))
            watch = plane.watch(MAPS)
            assert (await anext(watch))[0] == "ADDED"
        # the server has ended it, and what was on its way is read
        assert {kind async for kind, _ in watch} <= {"ADDED"}
        assert asyncio.all_tasks() == before

    with nothing_is_left():
        run(work, factory)


@nothing_is_left()
def test_a_plain_block_leaves_nothing() -> None:
    with ControlPlane() as plane:
        assert Path(plane.kubeconfig).exists()
        assert plane.call("POST", MAPS, config_map("a", key="value"))["data"] == {"key": "value"}
        watch = plane.watch(MAPS)
        assert next(watch)[1]["metadata"]["name"] in {"a", "kube-root-ca.crt"}
        watch.close()
    with pytest.raises(RuntimeError, match="inside of its `with` block"):
        plane.call("GET", MAPS)


@nothing_is_left()
@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_block_leaves_nothing(kind: type[BaseException]) -> None:
    def plainly() -> None:
        with ControlPlane() as plane:
            assert plane.url.startswith("https://127.0.0.1:")
            raise kind

    async def work() -> None:
        async with ControlPlane() as plane:
            assert plane.url
            raise kind

    with pytest.raises(kind):
        plainly()
    with pytest.raises(kind):
        run(work)


@nothing_is_left()
def test_one_that_is_cancelled_while_it_starts_leaves_nothing() -> None:
    async def work() -> None:
        async def use() -> None:
            async with ControlPlane():
                await asyncio.Event().wait()

        for turns in (1, 3, 10, 30, 100, 300):
            task = asyncio.ensure_future(use())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(work)


@nothing_is_left()
def test_one_that_is_interrupted_while_it_starts_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted(*_: object) -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        await asyncio.Event().wait()

    monkeypatch.setattr("pilothouse.testing.plane.seed", interrupted)
    with pytest.raises(KeyboardInterrupt), ControlPlane():
        pytest.fail("it did not start")


def test_a_plain_block_needs_no_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with ControlPlane() as plane:
        assert plane.call("GET", "/readyz") == "ok"


@nothing_is_left()
def test_one_that_cannot_start_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "data" / "store").mkdir(parents=True, mode=0o755)
    (tmp_path / "data" / "store").chmod(0o755)
    with pytest.raises(StoreError, match="chmod 700"), ControlPlane(data_dir=tmp_path / "data"):
        pytest.fail("it did start")


async def test_a_plane_is_used_once() -> None:
    plane = ControlPlane()
    with pytest.raises(RuntimeError, match="not running"):
        _ = plane.server
    with pytest.raises(RuntimeError, match="not running"):
        _ = plane.kubeconfig
    async with plane:
        pass
    with pytest.raises(RuntimeError, match="make another"):
        await plane.__aenter__()


async def test_nobody_keeps_a_plane_alive_when_it_is_over() -> None:
    async with ControlPlane() as plane:
        server = weakref.ref(plane.server)
    del plane
    for _ in range(3):
        await asyncio.sleep(0)
        gc.collect()
    assert server() is None


async def test_several_at_once_share_nothing() -> None:
    async with ControlPlane() as one, ControlPlane() as other:
        await one.call("POST", MAPS, config_map("a"))
        with pytest.raises(NotFound):
            await other.call("GET", f"{MAPS}/a")
        assert one.url != other.url
        assert one.token != other.token
        assert one.ca != other.ca
        with ControlPlane() as third:
            assert third.call("GET", MAPS)["items"]
        roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
        first, second = [(await each.call("GET", roles))["items"] for each in (one, other)]
        assert [item["metadata"]["name"] for item in first] == [item["metadata"]["name"] for item in second]
        assert not {item["metadata"]["uid"] for item in first} & {item["metadata"]["uid"] for item in second}


async def test_a_later_plane_begins_with_the_same_objects_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(obj: Any) -> Any:
        """The object without what differs from one server to another."""
        kept = {key: value for key, value in obj["metadata"].items() if key not in {"uid", "resourceVersion"}}
        return {**obj, "metadata": kept}

    async def everything() -> Any:
        async with ControlPlane(clock=FakeClock(), lifecycle=False) as plane:
            while "apiservices.apiregistration.k8s.io" not in known:  # noqa: ASYNC110  # nobody is told
                await asyncio.sleep(0)
            return {
                path: [plain(item) for item in (await plane.call("GET", path))["items"]]
                for path in (
                    "/apis/rbac.authorization.k8s.io/v1/clusterroles",
                    "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
                    "/apis/rbac.authorization.k8s.io/v1/roles",
                    "/apis/rbac.authorization.k8s.io/v1/rolebindings",
                    "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas",
                    "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
                    "/apis/scheduling.k8s.io/v1/priorityclasses",
                    "/apis/apiregistration.k8s.io/v1/apiservices",
                )
            }

    known: dict[str, Any] = {}
    monkeypatch.setattr("pilothouse.testing.bootstrap._known", known)
    first, later = await everything(), await everything()
    assert first == later
    assert all(first.values())


async def test_a_later_plane_is_left_alone_by_its_server() -> None:
    async with ControlPlane():
        while not knows_services():  # noqa: ASYNC110  # nobody is told
            await asyncio.sleep(0)
    async with ControlPlane() as plane:
        before = plane.server.cacher.revision
        for _ in range(200):
            await asyncio.sleep(0)
        assert plane.server.cacher.revision - before < 20  # accounts and authorities of the other namespaces


# What it is set up with


async def test_a_directory_goes_on(tmp_path: Path) -> None:
    async with ControlPlane(data_dir=tmp_path / "data") as plane:
        await plane.call("POST", MAPS, config_map("a", key="value"))
        spec = {"spec": {"audiences": ["a"]}}
        token = await plane.call("POST", "/api/v1/namespaces/default/serviceaccounts/default/token", spec)
        ca = plane.ca
    async with ControlPlane(data_dir=str(tmp_path / "data")) as plane:
        assert (await plane.call("GET", f"{MAPS}/a"))["data"] == {"key": "value"}
        review = {"spec": {"token": token["status"]["token"], "audiences": ["a"]}}
        status = (await plane.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review))["status"]
        assert status["user"]["username"] == "system:serviceaccount:default:default"
        assert plane.ca == ca
    assert stat.S_IMODE((tmp_path / "data" / "store").stat().st_mode) == 0o700


async def test_the_clock_and_ids_are_those_given() -> None:
    clock = FakeClock()
    async with ControlPlane(clock=clock, ids=SeededIds(7)) as plane:
        made = await plane.call("POST", MAPS, config_map("a"))
        assert made["metadata"]["creationTimestamp"] == "2025-01-01T00:00:00Z"
        await plane.advance(3600)
        assert (await plane.call("POST", MAPS, config_map("b")))["metadata"]["creationTimestamp"].startswith(
            "2025-01-01T01:00:00"
        )
    with ControlPlane(clock=FakeClock()) as blocking:
        blocking.advance(60)
        made = blocking.call("POST", MAPS, config_map("a"))
        assert made["metadata"]["creationTimestamp"] == "2025-01-01T00:01:00Z"


async def test_a_real_clock_is_not_moved() -> None:
    async with ControlPlane() as plane:
        with pytest.raises(TypeError, match="FakeClock"):
            await plane.advance(1)


async def test_an_event_ends_when_its_hour_has_passed_by_the_fake_clock() -> None:
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"},
        "reason": "Tested",
        "type": "Normal",
    }
    events = "/api/v1/namespaces/default/events"
    async with ControlPlane(clock=FakeClock()) as plane:
        await plane.call("POST", events, event)
        assert len((await plane.call("GET", events))["items"]) == 1
        await plane.advance(2 * 3600)
        await plane.wait_for(f"{events}/e", lambda found: found is None)


async def test_without_controllers_it_is_a_bare_server() -> None:
    async with ControlPlane(lifecycle=False) as plane:
        await plane.call("POST", "/api/v1/namespaces", {"metadata": {"name": "a"}})
        assert (await plane.call("GET", "/api/v1/serviceaccounts"))["items"] == []


async def test_other_options_reach_the_server() -> None:
    options = ServerOptions(tokens={"bobs-token": User("bob")}, disable_admission=("ServiceAccount",))
    async with ControlPlane(options=options) as plane:
        assert set(plane.options.tokens) == {"bobs-token", plane.token}
        pod = {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a"}]}}
        made = await plane.call("POST", "/api/v1/namespaces/default/pods", pod)
        assert "serviceAccountName" not in made["spec"]


# Who asks


async def test_another_user_may_do_what_roles_grant() -> None:
    async with ControlPlane() as plane:
        bob = plane.as_user("bob", groups=["dev"])
        with pytest.raises(Forbidden, match='User "bob" cannot list resource "configmaps"'):
            await bob.call("GET", MAPS)
        binding = {
            "metadata": {"name": "dev"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "dev"}],
        }
        await plane.call("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", binding)
        assert (await bob.call("GET", MAPS))["kind"] == "ConfigMapList"
        with pytest.raises(Forbidden):
            await bob.call("POST", MAPS, config_map("a"))


async def test_a_service_account_is_in_its_groups() -> None:
    async with ControlPlane() as plane:
        account = plane.as_user("system:serviceaccount:default:default", ["more"])
        review = await account.call("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {})
        assert review["status"]["userInfo"]["groups"] == [
            "more",
            "system:serviceaccounts",
            "system:serviceaccounts:default",
            "system:authenticated",
        ]


def test_another_user_of_a_blocking_plane() -> None:
    with ControlPlane() as plane:
        bob = plane.as_user("bob")
        assert bob.user.name == "bob"
        with pytest.raises(Forbidden):
            bob.call("GET", MAPS)
        with pytest.raises(Forbidden):
            next(bob.watch(MAPS))
        with pytest.raises(Forbidden):
            bob.wait_for(MAPS)


# Calls


async def test_a_patch_is_what_its_body_says() -> None:
    async with ControlPlane() as plane:
        await plane.call("POST", MAPS, config_map("a", one="1"))
        assert (await plane.call("PATCH", f"{MAPS}/a", {"data": {"two": "2"}}))["data"] == {"one": "1", "two": "2"}
        step = [{"op": "remove", "path": "/data/one"}]
        assert (await plane.call("PATCH", f"{MAPS}/a", step))["data"] == {"two": "2"}
        applied = await plane.call(
            "PATCH",
            f"{MAPS}/b?fieldManager=me",
            config_map("b", three="3"),
            content_type="application/apply-patch+yaml",
        )
        assert applied["metadata"]["managedFields"][0]["manager"] == "me"
        deleted = await plane.call("DELETE", f"{MAPS}/a")
        assert deleted["status"] == "Success"


async def test_a_refusal_is_raised_with_its_causes() -> None:
    async with ControlPlane() as plane:
        with pytest.raises(Invalid, match="Invalid value"):
            await plane.call("POST", MAPS, config_map("Bad_Name"))
        with pytest.raises(NotFound):
            await plane.call("GET", "/apis/nothing.example.com/v1/things")
        with pytest.raises(NotFound):
            await anext(plane.watch("/apis/nothing.example.com/v1/things"))
        answer = await plane.request("GET", "/nothing")
        assert answer.status == 404


# Waiting


async def test_one_waits_for_what_becomes_of_an_object() -> None:
    async with ControlPlane() as plane:
        waiting = asyncio.ensure_future(
            plane.wait_for(f"{MAPS}/a", lambda found: found and found["data"].get("state") == "done")
        )
        gone = asyncio.ensure_future(plane.wait_for(f"{MAPS}/b", lambda found: found is None))
        assert await gone is None
        await plane.call("POST", MAPS, config_map("a", state="new"))
        await asyncio.sleep(0)
        assert not waiting.done()
        await plane.call("PATCH", f"{MAPS}/a", {"data": {"state": "done"}})
        found = await waiting
        assert (found["kind"], found["apiVersion"], found["data"]) == ("ConfigMap", "v1", {"state": "done"})
        assert (await plane.wait_for(f"{MAPS}/a"))["kind"] == "ConfigMap"


async def test_one_waits_for_a_collection() -> None:
    async with ControlPlane() as plane:
        path = f"{MAPS}?labelSelector=app"
        waiting = asyncio.ensure_future(plane.wait_for(path, lambda found: len(found) == 2))
        for name in ("a", "b", "c"):
            labelled = config_map(name)
            labelled["metadata"]["labels"] = {"app": "x"} if name != "b" else {}
            await plane.call("POST", MAPS, labelled)
        assert [found["metadata"]["name"] for found in await waiting] == ["a", "c"]


async def test_what_does_not_come_is_said() -> None:
    async with ControlPlane() as plane:
        await plane.call("POST", MAPS, config_map("a", key="x" * 500))
        with pytest.raises(
            TimeoutError, match=r"configmaps/a: what was waited for .* 0.05 s; .*\"kind\":\"ConfigMap\".*…"
        ):
            await plane.wait_for(f"{MAPS}/a", lambda _: False, timeout=0.05)
        with pytest.raises(TimeoutError, match="null"):
            await plane.wait_for(f"{MAPS}/b", timeout=0.05)


async def test_waiting_goes_on_when_a_watch_has_ended() -> None:
    async with ControlPlane() as plane:
        waiting = asyncio.ensure_future(plane.wait_for(f"{MAPS}/a"))
        for _ in range(20):
            await asyncio.sleep(0)
        plane.server.watching.end_all()
        await plane.call("POST", MAPS, config_map("a"))
        assert (await waiting)["metadata"]["name"] == "a"


async def test_garbage_is_collected_and_a_namespace_emptied() -> None:
    async with ControlPlane() as plane:
        owner = await plane.call("POST", MAPS, config_map("owner"))
        owned = config_map("owned")
        owned["metadata"]["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
        ]
        await plane.call("POST", MAPS, owned)
        await plane.call("DELETE", f"{MAPS}/owner")
        await plane.wait_for(f"{MAPS}/owned", lambda found: found is None)
        await plane.call("POST", "/api/v1/namespaces", {"metadata": {"name": "a"}})
        await plane.wait_for("/api/v1/namespaces/a/serviceaccounts/default")
        await plane.call("DELETE", "/api/v1/namespaces/a")
        await plane.wait_for("/api/v1/namespaces/a", lambda found: found is None)


# Over HTTPS


def test_the_kubeconfig_is_for_its_owner_and_leads_to_the_server() -> None:
    import ssl
    import urllib.request

    import yaml

    with ControlPlane() as plane:
        path = Path(plane.kubeconfig)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert config["clusters"][0]["cluster"]["server"] == plane.url
        assert config["users"][0]["user"]["token"] == plane.token
        context = ssl.create_default_context(cadata=plane.ca.decode())
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context))
        headers = {"Authorization": f"Bearer {plane.token}"}
        with opener.open(urllib.request.Request(f"{plane.url}/api/v1/nodes", headers=headers)) as answer:
            assert b'"NodeList"' in answer.read()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", int(plane_port(config)))):
        pass


def plane_port(config: Any) -> str:
    return str(config["clusters"][0]["cluster"]["server"]).rpartition(":")[2]


async def test_no_socket_is_opened_before_somebody_wants_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        pytest.fail("a socket was opened")

    monkeypatch.setattr(socket, "create_server", refuse)
    async with ControlPlane() as plane:
        await plane.call("POST", MAPS, config_map("a"))
        assert plane.ca.startswith(b"-----BEGIN CERTIFICATE-----")


def test_the_token_is_not_shown() -> None:
    plane = ControlPlane()
    assert plane.token not in repr(plane)
    assert "in memory" in repr(plane)
