"""Volumes of pods without a runtime: files written whole, sub paths kept inside, owners, payloads, and the manager."""

# ruff: noqa: ASYNC240 - the files are local and small
from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.client import Client
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import ConfigMap, ObjectMeta, Pod, Secret, from_dict
from pilothouse.node.volumes.atomic import checked_path, read_back, write_files
from pilothouse.node.volumes.errors import MountError
from pilothouse.node.volumes.manager import Volumes
from pilothouse.node.volumes.payload import File, PayloadError, files_of
from pilothouse.node.volumes.places import HostPathError, check_host_path, disk_usage, make_within, set_group
from pilothouse.node.volumes.tokens import Tokens
from pilothouse.testing import ControlPlane

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="wants root to change owners")


def shown(directory: Path) -> dict[str, bytes]:
    """Return what users of a volume see."""
    found: dict[str, bytes] = {}
    for name in os.listdir(directory):
        if name.startswith(".."):
            continue
        place = directory / name
        files = [each for each in place.rglob("*") if each.is_file()] if place.is_dir() else [place]
        found |= {str(each.relative_to(directory)): each.read_bytes() for each in files}
    return found


# -- files written whole


def test_files_are_shown_through_one_link(tmp_path: Path) -> None:
    files = {"a": File(b"1", 0o644), "deep/b": File(b"2", 0o400)}
    assert write_files(str(tmp_path), files, NOW)
    assert os.readlink(tmp_path / "..data") == "..2026_01_02_03_04_05.000000678"
    assert os.readlink(tmp_path / "a") == "..data/a"
    assert os.readlink(tmp_path / "deep") == "..data/deep"
    assert shown(tmp_path) == {"a": b"1", "deep/b": b"2"}
    assert stat.S_IMODE((tmp_path / "deep/b").stat().st_mode) == 0o400
    assert read_back(str(tmp_path), "a") == b"1"


def test_what_is_the_same_is_not_written_again(tmp_path: Path) -> None:
    files = {"a": File(b"1", 0o644)}
    write_files(str(tmp_path), files, NOW)
    before = os.readlink(tmp_path / "..data")
    assert not write_files(str(tmp_path), files, NOW + timedelta(seconds=1))
    assert os.readlink(tmp_path / "..data") == before
    assert write_files(str(tmp_path), {"a": File(b"1", 0o600)}, NOW + timedelta(seconds=1))


def test_what_is_gone_leaves_nothing(tmp_path: Path) -> None:
    write_files(str(tmp_path), {"a": File(b"1", 0o644), "x/y": File(b"2", 0o644)}, NOW)
    write_files(str(tmp_path), {"b": File(b"3", 0o644)}, NOW)
    assert shown(tmp_path) == {"b": b"3"}
    assert len([name for name in os.listdir(tmp_path) if name.startswith("..2026")]) == 1


def test_what_a_crash_left_does_not_matter(tmp_path: Path) -> None:
    write_files(str(tmp_path), {"a": File(b"1", 0o644)}, NOW)
    (tmp_path / "..2025_01_01_00_00_00.000000000").mkdir()
    (tmp_path / "..data_tmp").symlink_to("..nowhere")
    assert write_files(str(tmp_path), {"a": File(b"2", 0o644)}, NOW)
    assert shown(tmp_path) == {"a": b"2"}
    shutil.rmtree(tmp_path / os.readlink(tmp_path / "..data"))
    assert write_files(str(tmp_path), {"a": File(b"2", 0o644)}, NOW)
    assert shown(tmp_path) == {"a": b"2"}


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "..data", "..x/y", "a\0b"])
def test_paths_out_of_a_volume_are_refused(path: str) -> None:
    with pytest.raises(PayloadError, match="invalid path"):
        checked_path(path)


NAMES = st.sampled_from(["a", "b", "c/d", "c/e", "f/g/h", "k"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.dictionaries(NAMES, st.binary(max_size=8), max_size=5), min_size=1, max_size=5))
def test_after_each_write_exactly_those_files_are_there(tmp_path_factory: Any, steps: list[dict[str, bytes]]) -> None:
    directory = tmp_path_factory.mktemp("volume")
    for step in steps:
        write_files(str(directory), {path: File(data, 0o644) for path, data in step.items()}, NOW)
        assert shown(directory) == step


# -- places


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("none", "Directory", "is not a directory"),
        ("file", "Directory", "is not a directory"),
        ("file", "DirectoryOrCreate", "is not a directory"),
        ("dir", "File", "is not a file"),
        ("file", "Socket", "is not a socket file"),
        ("file", "CharDevice", "is not a character device"),
        ("file", "BlockDevice", "is not a block device"),
        ("file", "Sock", "unknown host path type: Sock"),
    ],
)
def test_host_paths_are_checked(tmp_path: Path, name: str, kind: str, text: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dir").mkdir()
    with pytest.raises(HostPathError, match=text):
        check_host_path(str(tmp_path / name), kind)


def test_host_paths_are_made_where_asked(tmp_path: Path) -> None:
    check_host_path(str(tmp_path / "a/b"), "DirectoryOrCreate")
    check_host_path(str(tmp_path / "a/f"), "FileOrCreate")
    assert (tmp_path / "a/b").is_dir()
    assert (tmp_path / "a/f").is_file()
    check_host_path("/dev/null", "CharDevice")


def test_sub_paths_are_made_and_stay_inside(tmp_path: Path) -> None:
    volume, outside = tmp_path / "volume", tmp_path / "outside"
    volume.mkdir()
    outside.mkdir()
    make_within(str(volume), "a/b/./c")
    assert (volume / "a/b/c").is_dir()
    (volume / "out").symlink_to(outside)
    (volume / "up").symlink_to("../outside")
    (volume / "abs").symlink_to("/etc")
    (volume / "inner").symlink_to("a")
    (volume / "loop").symlink_to("loop")
    for path in ("out/x", "up/x", "abs/x"):
        with pytest.raises(OSError):  # noqa: PT011  # which of several does not matter
            make_within(str(volume), path)
    assert list(outside.iterdir()) == []
    make_within(str(volume), "inner/d")
    assert (volume / "a/d").is_dir()
    for path in ("/x", "../x", "a/../../x"):
        with pytest.raises(ValueError, match="sub path"):
            make_within(str(volume), path)
    with pytest.raises(OSError):  # noqa: PT011
        make_within(str(volume), "loop/x")
    (volume / "file").write_text("")
    make_within(str(volume), "file")


@NEEDS_ROOT
def test_a_group_owns_a_volume_and_what_is_made_in_it(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d/f").write_text("")
    (tmp_path / "d/f").chmod(0o600)
    (tmp_path / "l").symlink_to("/etc/passwd")
    before = os.stat("/etc/passwd").st_gid
    set_group(str(tmp_path), 4321)
    assert (tmp_path / "d/f").stat().st_gid == 4321
    assert stat.S_IMODE((tmp_path / "d/f").stat().st_mode) == 0o660
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o2770
    assert os.stat("/etc/passwd").st_gid == before
    os.chown(tmp_path / "d/f", 0, 0)
    set_group(str(tmp_path), 4321, on_mismatch_only=True)
    assert (tmp_path / "d/f").stat().st_gid == 0
    set_group(str(tmp_path), 4321)
    assert (tmp_path / "d/f").stat().st_gid == 4321


def test_sizes_count_blocks_once(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 100_000)
    os.link(tmp_path / "big", tmp_path / "same")
    used, inodes = disk_usage(str(tmp_path))
    assert 100_000 <= used <= 120_000
    assert inodes == 2
    assert disk_usage(str(tmp_path / "none")) == (0, 0)


# -- what volumes show


def make_pod(*volumes: dict[str, Any], mounts: tuple[dict[str, Any], ...] = (), **spec: Any) -> Pod:
    listed = mounts or tuple({"name": each["name"], "mountPath": f"/v/{each['name']}"} for each in volumes)
    return from_dict(
        {
            "metadata": {"name": "web", "namespace": "default", "uid": "uid-1", "labels": {"app": "shop"}},
            "spec": {
                "volumes": list(volumes),
                "containers": [{"name": "c", "image": "i", "volumeMounts": list(listed)}],
                **spec,
            },
        },
        Pod,
    )


MAP = ConfigMap(metadata=ObjectMeta(name="m"), data={"a": "1", "b": "2"}, binary_data={"bin": b"\0\1"})
SECRET = Secret(metadata=ObjectMeta(name="s"), data={"k": b"v"})
KNOWN: Any = {("configmap", "m"): MAP, ("secret", "s"): SECRET, ("configmap", "none"): None, ("secret", "none"): None}


def payload(source: dict[str, Any], **spec: Any) -> dict[str, tuple[bytes, int]]:
    pod = make_pod({"name": "v", **source}, **spec)
    files = files_of(pod, pod.spec.volumes[0], KNOWN, tokens={"token": "t0ken"})
    return {path: (file.data, file.mode) for path, file in files.items()}


def test_objects_items_and_modes() -> None:
    assert payload({"configMap": {"name": "m"}}) == {"a": (b"1", 0o644), "b": (b"2", 0o644), "bin": (b"\0\1", 0o644)}
    items = [{"key": "a", "path": "x/y", "mode": 0o400}, {"key": "b", "path": "z"}]
    assert payload({"configMap": {"name": "m", "items": items, "defaultMode": 0o440}}) == {
        "x/y": (b"1", 0o400),
        "z": (b"2", 0o440),
    }
    assert payload({"secret": {"secretName": "s", "defaultMode": 0o600}}) == {"k": (b"v", 0o600)}
    assert payload({"secret": {"secretName": "none", "optional": True}}) == {}


def test_fields_and_projections() -> None:
    items = [
        {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
        {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "requests.cpu"}},
    ]
    assert payload({"downwardAPI": {"items": items}}) == {"labels": (b'app="shop"', 0o644), "cpu": (b"0", 0o644)}
    sources = [
        {"serviceAccountToken": {"path": "token"}},
        {"configMap": {"name": "m", "items": [{"key": "a", "path": "ca"}]}},
        {"secret": {"name": "s"}},
        {"downwardAPI": {"items": items[:1]}},
    ]
    found = payload({"projected": {"sources": sources}})
    assert set(found) == {"token", "ca", "k", "labels"}
    assert found["token"] == (b"t0ken", 0o644)
    own = payload({"projected": {"sources": sources}}, securityContext={"runAsUser": 1000})
    assert own["token"] == (b"t0ken", 0o600)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
        (
            {"configMap": {"name": "m", "items": [{"key": "zz", "path": "p"}]}},
            "configmap references non-existent config key: zz",
        ),
        (
            {"secret": {"secretName": "s", "items": [{"key": "zz", "path": "p"}]}},
            "references non-existent secret key: zz",
        ),
        (
            {"projected": {"sources": [{"configMap": {"name": "none"}}, {"secret": {"name": "none"}}]}},
            '[configmap "none" not found, secret "none" not found]',
        ),
    ],
)
def test_what_is_missing_is_said_in_a_kubelets_words(source: dict[str, Any], text: str) -> None:
    with pytest.raises(PayloadError) as caught:
        payload(source)
    assert str(caught.value) == text


# -- the manager


@pytest.fixture
async def plane() -> AsyncIterator[ControlPlane]:
    async with ControlPlane() as made:
        yield made


@pytest.fixture
async def client(plane: ControlPlane) -> AsyncIterator[Client]:
    async with Client.for_transport(plane.transport, plane.user) as made:
        yield made


@pytest.fixture
async def volumes(client: Client, tmp_path: Path) -> AsyncIterator[Volumes]:
    made = Volumes(client, str(tmp_path / "pods"))
    yield made
    await made.close()


async def until(true: Any, seconds: float = 10.0) -> float:
    """Wait until something is so; return how long it took."""
    begun = time.monotonic()
    while not true():
        assert time.monotonic() - begun < seconds
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


def config(name: str, **data: str) -> ConfigMap:
    return ConfigMap(metadata=ObjectMeta(name=name, namespace="default"), data=data)


async def test_a_pod_without_its_config_map_waits_for_it(volumes: Volumes, client: Client, tmp_path: Path) -> None:
    pod = make_pod({"name": "v", "configMap": {"name": "late"}})
    with pytest.raises(MountError) as caught:
        await volumes.prepare(pod)
    assert str(caught.value) == 'MountVolume.SetUp failed for volume "v" : configmap "late" not found'
    await client.create(config("late", a="1"))
    (mount,) = (await volumes.prepare(pod))["c"]
    assert (mount.container_path, mount.read_only, mount.type) == ("/v/v", True, "bind")
    assert mount.host_path == str(tmp_path / "pods/uid-1/volumes/kubernetes.io~configmap/v")
    assert shown(Path(mount.host_path)) == {"a": b"1"}


async def test_mounted_objects_follow_their_changes(volumes: Volumes, client: Client) -> None:
    await client.create(config("m", a="1"))
    await client.create(Secret(metadata=ObjectMeta(name="s", namespace="default"), data={"k": b"v"}))
    sources = [{"configMap": {"name": "m"}}, {"secret": {"name": "s", "optional": True}}]
    pod = make_pod({"name": "v", "projected": {"sources": sources}})
    (mount,) = (await volumes.prepare(pod))["c"]
    place = Path(mount.host_path)
    assert shown(place) == {"a": b"1", "k": b"v"}
    for round_ in range(3):
        await client.patch(ConfigMap, "m", {"data": {"a": f"r{round_}"}}, "default")
        assert await until(lambda wanted=round_: (place / "a").read_bytes() == b"r%d" % wanted) < 2.0
    await client.delete(Secret, "s", "default")
    await until(lambda: shown(place) == {"a": b"r2"})
    await client.delete(ConfigMap, "m", "default")
    await client.create(config("m", b="new"))
    await until(lambda: shown(place) == {"b": b"new"})


async def test_fields_follow_the_pod(volumes: Volumes) -> None:
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]
    pod = make_pod({"name": "v", "downwardAPI": {"items": items}})
    (mount,) = (await volumes.prepare(pod))["c"]
    assert shown(Path(mount.host_path)) == {"labels": b'app="shop"'}
    raw = {"metadata": {"name": "web", "namespace": "default", "uid": "uid-1", "labels": {"app": "new"}}}
    from pilothouse.kinds.structs import replace

    volumes.seen(replace(pod, metadata=from_dict(raw, Pod).metadata))
    await until(lambda: shown(Path(mount.host_path)) == {"labels": b'app="new"'})


async def test_only_what_pods_use_is_read(volumes: Volumes, client: Client) -> None:
    for name in ("mine", "other"):
        await client.create(config(name, a="1"))
    await volumes.prepare(make_pod({"name": "v", "configMap": {"name": "mine"}}))
    assert len(volumes.objects) == 1
    await volumes.release("uid-1")
    assert len(volumes.objects) == 0


async def test_directories_go_with_the_pod_and_after_a_crash(volumes: Volumes, client: Client, tmp_path: Path) -> None:
    pod = make_pod({"name": "e", "emptyDir": {}}, {"name": "f", "emptyDir": {"sizeLimit": "1Mi"}})
    mounts = (await volumes.prepare(pod))["c"]
    Path(mounts[0].host_path, "data").write_bytes(b"x" * 5000)
    assert (await volumes.prepare(pod))["c"] == mounts
    assert Path(mounts[0].host_path, "data").exists()
    used = {each.volume: each for each in await volumes.usage(pod)}
    assert used["e"].used_bytes >= 5000
    assert used["f"].limit_bytes == 1 << 20
    assert stat.S_IMODE(Path(mounts[0].host_path).stat().st_mode) == 0o777
    again = Volumes(client, str(tmp_path / "pods"))
    assert await again.prune({"uid-1"}) == []
    assert await again.prune(set()) == ["uid-1"]
    assert list((tmp_path / "pods").iterdir()) == []
    await volumes.release("uid-1")
    await volumes.release("uid-1")


async def test_memory_sub_paths_and_read_only(volumes: Volumes) -> None:
    mounts = (
        {"name": "m", "mountPath": "/m", "subPath": "in"},
        {"name": "e", "mountPath": "/e", "subPathExpr": "$(WHO)/logs", "mountPropagation": "HostToContainer"},
        {"name": "e", "mountPath": "/r", "readOnly": True},
    )
    pod = make_pod(
        {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "4Mi"}},
        {"name": "e", "emptyDir": {}},
        mounts=mounts,
    )
    raw = from_dict({"name": "c", "env": [{"name": "WHO", "value": "web"}]}, type(pod.spec.containers[0]))
    from pilothouse.kinds.structs import replace

    container = replace(pod.spec.containers[0], env=raw.env)
    pod = replace(pod, spec=replace(pod.spec, containers=(container,)))
    memory, disk, read_only = (await volumes.prepare(pod))["c"]
    assert (memory.type, memory.name, memory.size, memory.sub_path) == ("tmpfs", "m", 4 << 20, "in")
    assert (disk.sub_path, disk.propagation, disk.read_only) == ("web/logs", "HostToContainer", False)
    assert Path(disk.host_path, "web/logs").is_dir()
    assert read_only.read_only
    bad = replace(container, env=())
    with pytest.raises(MountError, match="missing value for 'WHO'"):
        await volumes.prepare(replace(pod, spec=replace(pod.spec, containers=(bad,))))


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ({"nfs": {"server": "s", "path": "/p"}}, "nfs: this node has no driver for it"),
        ({"csi": {"driver": "d"}}, "csi: this node has no driver for it"),
        (
            {"hostPath": {"path": "/nosuch", "type": "Directory"}},
            "hostPath type check failed: /nosuch is not a directory",
        ),
        (
            {"persistentVolumeClaim": {"claimName": "none"}},
            (
                "error processing PVC default/none: failed to fetch PVC from API server: "
                'persistentvolumeclaims "none" not found'
            ),
        ),
    ],
)
async def test_what_cannot_be_mounted_is_said(volumes: Volumes, source: dict[str, Any], text: str) -> None:
    with pytest.raises(MountError) as caught:
        await volumes.prepare(make_pod({"name": "v", **source}))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("notes", "mode"), [({}, 0o755), ({"pv.kubernetes.io/provisioned-by": "pilothouse.dev/local-path"}, 0o777)]
)
async def test_claims_lead_to_directories(
    volumes: Volumes, plane: ControlPlane, tmp_path: Path, notes: dict[str, str], mode: int
) -> None:
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    claim = await plane.call("POST", claims, {"metadata": {"name": "data"}, "spec": {**spec, "volumeName": "pv"}})
    pod = make_pod({"name": "v", "persistentVolumeClaim": {"claimName": "data"}})
    with pytest.raises(MountError, match="error processing PVC default/data: PVC is not bound"):
        await volumes.prepare(pod)
    reference = {
        "kind": "PersistentVolumeClaim",
        "namespace": "default",
        "name": "data",
        "uid": claim["metadata"]["uid"],
    }
    path = str(tmp_path / "disk")
    volume = {
        "metadata": {"name": "pv", "annotations": notes},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": path, "type": "DirectoryOrCreate"},
            "claimRef": reference,
        },
    }
    await plane.call("POST", "/api/v1/persistentvolumes", volume)
    status = {**claim, "status": {"phase": "Bound"}}
    await plane.call("PUT", f"{claims}/data/status", status)
    (mount,) = (await volumes.prepare(pod))["c"]
    assert mount.host_path == path
    await volumes.release("uid-1")
    assert os.path.isdir(path)
    # Any user of a pod may write to what was provisioned; a path of the machine is what it is.
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


# -- tokens


class FakeServer:
    """Answers TokenRequests, or fails."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.down = False

    async def request(self, method: str, path: str, body: bytes) -> bytes:
        import msgspec

        if self.down:
            raise ConnectionError("no server")
        self.asked.append(msgspec.json.decode(body))
        seconds = self.asked[-1]["spec"]["expirationSeconds"]
        answer = {"spec": {"expirationSeconds": seconds}, "status": {"token": f"{path} {len(self.asked)}"}}
        return msgspec.json.encode(answer)


async def test_tokens_are_bound_and_renewed_at_four_fifths() -> None:
    clock, server = FakeClock(), FakeServer()
    tokens = Tokens(server, clock=clock)  # type: ignore[arg-type]
    pod = make_pod(
        {"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t", "audience": "vault"}}]}}
    )
    wanted = pod.spec.volumes[0].projected.sources[0].service_account_token
    assert wanted is not None
    first = await tokens.get(pod, wanted)
    assert first == "/api/v1/namespaces/default/serviceaccounts/default/token 1"
    assert server.asked[0]["spec"] == {
        "audiences": ["vault"],
        "expirationSeconds": 3600,
        "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web", "uid": "uid-1"},
    }
    clock.advance(2879)
    assert await tokens.get(pod, wanted) == first
    clock.advance(2)
    server.down = True
    assert await tokens.get(pod, wanted) == first
    server.down = False
    assert (await tokens.get(pod, wanted)).endswith(" 2")
    server.down = True
    clock.advance(3601)
    with pytest.raises(ConnectionError):
        await tokens.get(pod, wanted)
    tokens.forget("uid-1")
    assert tokens.due("uid-1") is None


async def test_a_mounted_token_is_a_real_one(volumes: Volumes, plane: ControlPlane) -> None:
    body = {
        "metadata": {"name": "web"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "automountServiceAccountToken": False},
    }
    made = await plane.call("POST", "/api/v1/namespaces/default/pods", body)
    from pilothouse.kinds.structs import replace

    pod = make_pod({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}})
    pod = replace(pod, metadata=from_dict(made, Pod).metadata)
    (mount,) = (await volumes.prepare(pod))["c"]
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": Path(mount.host_path, "token").read_text()},
    }
    found = await plane.call("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert found["status"]["user"]["username"] == "system:serviceaccount:default:default"
    assert found["status"]["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["web"]


@pytest.mark.parametrize(("number", "raised"), [(errno.EPERM, False), (errno.EINVAL, False), (errno.EIO, True)])
def test_owners_stay_where_they_cannot_be_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, raised: bool
) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "chown", refused)
    with pytest.raises(OSError, match=os.strerror(number)) if raised else contextlib.nullcontext():
        set_group(str(tmp_path), 10001)
