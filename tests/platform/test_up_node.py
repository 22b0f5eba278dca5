"""`pilothouse up`: what the node does by its own identity: volumes' directories, private images, what outlives it."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.imagekit import Blobs, Registry, layer, serve, shell_files
from support.platformkit import USERS, Platform, eventually, platform_of
from support.platformload import shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STAYS = "trap 'exit 0' TERM; while :; do sleep 0.1; done"


@pytest.fixture(scope="module", params=USERS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform_of(request.param) as made:
        yield made


def pod(name: str, *containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    given = {"terminationGracePeriodSeconds": 1, "automountServiceAccountToken": False, "containers": [*containers]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": given | spec}


def test_the_directory_of_a_deleted_claim_is_removed(platform: Platform) -> None:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec}
    writes = shell(f"echo x > /data/file; {STAYS}", volumeMounts=[{"name": "data", "mountPath": "/data"}])
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    platform.create(claim, pod("writes", writes, volumes=[volume]))
    platform.until_running("writes")
    name = platform.get("PersistentVolumeClaim", "data")["spec"]["volumeName"]
    made = Path(platform.get("PersistentVolume", name)["spec"]["hostPath"]["path"])
    eventually((made / "file").exists)
    beside = made.parent / "of-somebody-else"
    beside.mkdir()
    platform.delete("Pod", "writes")
    platform.until_gone("Pod", "writes")
    platform.delete("PersistentVolumeClaim", "data")
    platform.until_gone("PersistentVolume", name)
    assert not made.exists()
    assert beside.exists()


@contextmanager
def registry() -> Iterator[Registry]:
    """Serve a private image in a loop of its own."""
    blobs = Blobs()
    image = blobs.image(layer(*shell_files()))
    loop, started, found = asyncio.new_event_loop(), threading.Event(), list[Registry]()
    stopping = asyncio.Event()

    async def run() -> None:
        async with serve(blobs, v1=image) as made:
            found.append(made)
            started.set()
            await stopping.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(run(),))
    thread.start()
    try:
        assert started.wait(20)
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(20)
        loop.close()


def test_a_private_image_is_pulled_with_the_secret_of_the_service_account(platform: Platform) -> None:
    with registry() as served:
        config = json.dumps({"auths": {served.address: {"username": "user", "password": "secret"}}}).encode()
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "pulls"},
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(config).decode()},
        }
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "puller"},
            "imagePullSecrets": [{"name": "pulls"}],
        }
        main = {"name": "main", "image": f"{served.address}/team/app:v1", "command": ["/bin/sh", "-c", "echo fine"]}
        main["imagePullPolicy"] = "Always"
        platform.create(secret, account)
        platform.create(pod("private", main, restartPolicy="Never", serviceAccountName="puller"))
        platform.create(pod("anybody", main, restartPolicy="Never"))
        platform.until("Pod", "private", lambda found: found["status"]["phase"] == "Succeeded")
        platform.until_event("anybody", "Failed", "pull access denied")
        platform.delete("Pod", "anybody")


def test_pods_whose_containers_share_processes_outlive_the_agent(platform: Platform) -> None:
    platform.create(pod("shares", shell(STAYS), shareProcessNamespace=True))
    before = platform.until_running("shares")["status"]["containerStatuses"][0]["containerID"]
    for _ in range(3):
        agent = platform.parts()["agent"]
        platform.kill("agent")
        eventually(functools.partial(_is_another, platform, agent))
        platform.create(pod("follows", shell("exit 0"), restartPolicy="Never"))
        platform.until("Pod", "follows", lambda found: found["status"]["phase"] == "Succeeded")
        platform.delete("Pod", "follows")
        platform.until_gone("Pod", "follows")
        status = platform.get("Pod", "shares")["status"]["containerStatuses"][0]
        assert (status["containerID"], status["restartCount"]) == (before, 0)
    assert not [each for each in platform.events() if each["reason"] == "SandboxChanged"]


def _is_another(platform: Platform, agent: int) -> bool:
    return platform.parts().get("agent", agent) != agent
