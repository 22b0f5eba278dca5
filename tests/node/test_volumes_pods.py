"""Volumes and environments in running pods: what programs see of them, live updates, and nothing left afterwards."""

# ruff: noqa: ASYNC240 - the files are local and small
from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from support.agentkit import container, pod
from support.nodekit import NEEDS_ROOT, place
from support.servingkit import ServedCluster, served_cluster

pytestmark = [NEEDS_ROOT, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]
NS = "/api/v1/namespaces/default"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[ServedCluster]:
    async with place() as room, served_cluster(room) as made:
        yield made


async def output(cluster: ServedCluster, name: str) -> str:
    """Wait for a pod that ends, and return what it wrote."""
    found = await cluster.until(name, lambda it: it["status"].get("phase") in {"Succeeded", "Failed"})
    meta = found["metadata"]
    path = Path(f"{cluster.place.directory}/agent/logs/default_{name}_{meta['uid']}/main/0.log")
    return "".join(each.split(" ", 3)[3] for each in path.read_text().splitlines(keepends=True))


async def gone(cluster: ServedCluster, name: str) -> None:
    """Delete a pod and see that its directory goes."""
    uid = (await cluster.get(name) or {})["metadata"]["uid"]
    await cluster.plane.call("DELETE", f"{NS}/pods/{name}")
    await cluster.until_gone(name)
    directory = f"{cluster.place.directory}/agent/pods/{uid}"
    for _ in range(500):
        if not os.path.exists(directory):
            return
        import asyncio

        await asyncio.sleep(0.02)
    raise AssertionError(f"{directory} is still there: {list(Path(directory).rglob('*'))}")


async def test_a_container_sees_its_environment(cluster: ServedCluster) -> None:
    await cluster.plane.call("POST", f"{NS}/configmaps", {"metadata": {"name": "env"}, "data": {"COLOR": "red"}})
    secret = {"metadata": {"name": "env"}, "stringData": {"password": "hunter2"}}
    await cluster.plane.call("POST", f"{NS}/secrets", secret)
    env = [
        {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "env", "key": "password"}}},
        {"name": "BOTH", "value": "$(POD)-$(COLOR)-$$(X)"},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}},
    ]
    main = container(
        'echo "$POD $COLOR $PASSWORD $BOTH $CPU"; test -n "$IP" && echo has an address',
        env=env,
        envFrom=[{"configMapRef": {"name": "env"}}],
        resources={"limits": {"cpu": "250m"}},
    )
    await cluster.create(pod("env", main, restartPolicy="Never"))
    assert await output(cluster, "env") == "env red hunter2 env-red-$(X) 250\nhas an address\n"
    await gone(cluster, "env")


async def test_what_is_missing_is_told(cluster: ServedCluster) -> None:
    late = {"name": "V", "valueFrom": {"configMapKeyRef": {"name": "late", "key": "k"}}}
    await cluster.create(pod("waits", container('echo "$V"', env=[late]), restartPolicy="Never"))
    waiting = await cluster.until(
        "waits",
        lambda it: any(
            each["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError"
            for each in it["status"].get("containerStatuses", ())
        ),
    )
    state = waiting["status"]["containerStatuses"][0]["state"]["waiting"]
    assert state["message"] == 'configmap "late" not found'
    volume = {"name": "v", "secret": {"secretName": "nosuch"}}
    mounting = container("true", volumeMounts=[{"name": "v", "mountPath": "/v"}])
    await cluster.create(pod("mounts", mounting, volumes=[volume]))
    found = await cluster.until_event("mounts", "FailedMount")
    assert found[2] == 'MountVolume.SetUp failed for volume "v" : secret "nosuch" not found'
    await gone(cluster, "waits")
    await gone(cluster, "mounts")


async def test_volumes_of_all_kinds_in_one_pod(cluster: ServedCluster, tmp_path: Path) -> None:
    host = Path(cluster.place.directory) / "host"
    host.mkdir()
    (host / "file").write_text("of the host\n")
    await cluster.plane.call(
        "POST", f"{NS}/configmaps", {"metadata": {"name": "files"}, "data": {"a": "A\n", "b": "B\n"}}
    )
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.namespace"}}]
    sources = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
        {"configMap": {"name": "files", "items": [{"key": "a", "path": "deep/a", "mode": 0o400}]}},
        {"downwardAPI": {"items": items}},
    ]
    volumes: list[dict[str, Any]] = [
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "config", "configMap": {"name": "files"}},
        {"name": "all", "projected": {"sources": sources}},
        {"name": "host", "hostPath": {"path": str(host), "type": "Directory"}},
    ]
    steps = [
        "cat /config/a /one /all/deep/a /host/file",
        "cat /all/labels && echo",
        "test $(wc -c < /all/token) -gt 100",
        "stat -L -c %a-%g /all/deep/a",
        "stat -c %g /disk && touch /disk/x && stat -c %g /disk/x",
        "! touch /config/x 2>/dev/null && ! touch /host/x 2>/dev/null",
        "touch /part/here && ls /disk/sub",
        "! head -c 2000000 /dev/zero > /memory/big 2>/dev/null",
        "rm /memory/big && echo kept > /memory/in/f && cat /within/f",
        "grep -c ' /memory tmpfs ' /proc/mounts",
    ]
    mounts = [
        {"name": "disk", "mountPath": "/disk"},
        {"name": "disk", "mountPath": "/part", "subPath": "sub"},
        {"name": "memory", "mountPath": "/memory"},
        {"name": "memory", "mountPath": "/within", "subPath": "in"},
        {"name": "config", "mountPath": "/config"},
        {"name": "config", "mountPath": "/one", "subPath": "b"},
        {"name": "all", "mountPath": "/all"},
        {"name": "host", "mountPath": "/host", "readOnly": True},
    ]
    await cluster.create(
        pod(
            "kinds",
            container(" && ".join(steps), volumeMounts=mounts),
            volumes=volumes,
            restartPolicy="Never",
            securityContext={"fsGroup": 2000},
        )
    )
    assert await output(cluster, "kinds") == ("A\nB\nA\nof the host\ndefault\n440-2000\n2000\n2000\nhere\nkept\n1\n")
    await gone(cluster, "kinds")
    assert (host / "file").exists()


async def test_a_running_container_sees_new_data(cluster: ServedCluster) -> None:
    await cluster.plane.call("POST", f"{NS}/configmaps", {"metadata": {"name": "live"}, "data": {"a": "1"}})
    script = "until grep -q 2 /config/a; do sleep 0.05; done; cat /config/a; echo; ls /config"
    main = container(script, volumeMounts=[{"name": "c", "mountPath": "/config"}])
    volumes = [{"name": "c", "configMap": {"name": "live"}}]
    await cluster.create(pod("live", main, volumes=volumes, restartPolicy="Never"))
    await cluster.until("live", lambda it: it["status"].get("phase") == "Running")
    body = {"metadata": {"name": "live"}, "data": {"a": "2", "b": "new"}}
    await cluster.plane.call("PUT", f"{NS}/configmaps/live", body)
    assert await output(cluster, "live") == "2\na\nb\n"
    await gone(cluster, "live")


async def test_a_full_empty_dir_ends_its_pod(cluster: ServedCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilothouse.node.serving.equipment._LOOK_SECONDS", 0.1)
    await cluster.again()
    volumes = [{"name": "e", "emptyDir": {"sizeLimit": "1Mi"}}]
    script = "head -c 3000000 /dev/zero > /e/big; exec sleep 1000"
    main = container(script, volumeMounts=[{"name": "e", "mountPath": "/e"}])
    await cluster.create(pod("full", main, volumes=volumes))
    found = await cluster.until("full", lambda it: it["status"].get("phase") == "Failed")
    told = 'Usage of EmptyDir volume "e" exceeds the limit "1Mi". '
    assert (found["status"]["reason"], found["status"]["message"]) == ("Evicted", told)
    await gone(cluster, "full")


async def test_a_link_of_a_volume_leads_nowhere_else(cluster: ServedCluster) -> None:
    host = Path(cluster.place.directory) / "trap"
    host.mkdir()
    (host / "out").symlink_to("/etc")
    volumes = [{"name": "h", "hostPath": {"path": str(host)}}]
    main = container("ls /m", volumeMounts=[{"name": "h", "mountPath": "/m", "subPath": "out/passwd"}])
    await cluster.create(pod("trap", main, volumes=volumes, restartPolicy="Never"))
    found = await cluster.until_event("trap", "FailedMount")
    assert 'failed to prepare subPath for volumeMount "h" of container "main"' in found[2]
    await gone(cluster, "trap")
