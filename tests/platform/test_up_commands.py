"""The commands around `up` with pods: what status says, what down ends and leaves, a backup that brings all back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.platformkit import USERS, Platform, platform_of
from support.platformload import pod, shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module", params=USERS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform_of(request.param) as made:
        yield made


def asked(platform: Platform, *arguments: str) -> Any:
    """Return what a command of this platform's user says of its directory."""
    return json.loads(platform.run("-m", "pilothouse", *arguments, "--data-dir", str(platform.data), "-o", "json"))


def test_status_says_what_keeps_a_pod_from_running(platform: Platform) -> None:
    found = asked(platform, "status", "--wait", "50s")
    assert (found["platform"]["state"], found["problems"]) == ("ready", [])
    assert [part["name"] for part in found["parts"]] == [
        "supervisor",
        "apiserver",
        "controllers",
        "gateway",
        "agent",
    ]
    assert [(node["name"], node["state"]) for node in found["nodes"]] == [(platform.node, "Ready")]
    platform.create(pod("bad", {"name": "main", "image": "missing.invalid/none:1"}))
    platform.until_event("bad", "Failed")
    platform.until("Pod", "bad", lambda it: "waiting" in it["status"]["containerStatuses"][0]["state"])
    command = ["-m", "pilothouse", "status", "--data-dir", str(platform.data)]
    with pytest.raises(AssertionError) as caught:  # it is not well, so the code is not 0
        platform.run(*command)
    assert "pod default/bad: main: " in str(caught.value)
    platform.delete("Pod", "bad")
    platform.until_gone("Pod", "bad")


def test_down_leaves_pods_or_ends_them_and_all_that_the_node_made(platform: Platform) -> None:
    platform.create(pod("stays", shell("trap 'exit 0' TERM; while :; do sleep 1; done")))
    before = platform.until_running("stays")["status"]["containerStatuses"][0]["containerID"]
    ended = asked(platform, "down", "--keep-pods")
    assert (ended["how"], ended["pods"]) == ("stopped", None)
    assert ended["seconds"] < 5
    assert platform.process is not None
    assert platform.process.wait(20) == 0
    assert platform.leftovers()
    platform.start()
    again = platform.until_running("stays")["status"]["containerStatuses"][0]
    assert (again["containerID"], again["restartCount"]) == (before, 0)

    ended = asked(platform, "down", "--timeout", "20s")
    assert (ended["how"], ended["pods"] >= 1, ended["problems"]) == ("stopped", True, [])
    assert platform.process.wait(20) == 0
    assert platform.leftovers() == []
    assert asked(platform, "down")["pods"] == 0
    platform.start()
    platform.until_running("stays")  # objects are data, and data stays


def test_down_ends_pods_whose_platform_was_killed(platform: Platform) -> None:
    platform.create(pod("orphan", shell("while :; do sleep 1; done")))
    platform.until_running("orphan")
    platform.crash()
    ended = asked(platform, "down", "--timeout", "1s")
    assert (ended["how"], ended["pods"] >= 1) == ("not running", True)
    assert platform.leftovers() == []
    platform.start()
    platform.until_running("orphan")


def test_a_backup_brings_back_objects_and_the_data_of_volumes(platform: Platform) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }
    container = shell("echo kept > /data/file; while :; do sleep 1; done")
    container |= {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]
    platform.create(claim, pod("writes", container, volumes=volumes))
    platform.until_running("writes")
    file = platform.home / "backup.tar"
    saved = json.loads(
        platform.run(
            "-m", "pilothouse", "backup", str(file), "--data-dir", str(platform.data), "--volumes", "-o", "json"
        )
    )
    assert (saved["how"], saved["volumes"] >= 1) == ("online", True)

    asked(platform, "down", "--timeout", "1s")
    assert platform.process is not None
    platform.process.wait(20)
    platform.run("-c", "import shutil, sys; shutil.rmtree(sys.argv[1])", str(platform.data))
    platform.run("-m", "pilothouse", "restore", str(file), "--data-dir", str(platform.data))
    platform.start()
    found = platform.until_running("writes")
    (volume,) = (platform.data / "node" / "volumes").iterdir()
    assert (volume / "file").read_text() == "kept\n"
    assert found["spec"]["nodeName"] == platform.node
