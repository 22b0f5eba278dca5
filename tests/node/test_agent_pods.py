"""The node agent end to end, as root: pods of an API server as processes of this machine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from pilothouse.node.agent.pressure import Reading
from support.agentkit import cluster, container, pod
from support.nodekit import NEEDS_ROOT, place

pytestmark = NEEDS_ROOT


async def test_a_pod_runs_tells_how_it_is_and_is_gone_when_it_is_deleted() -> None:
    async with place() as made, cluster(made) as here:
        await here.create(pod("web", "echo hello; exec sleep 60"))
        found = await here.until("web", lambda each: each["status"]["phase"] == "Running")
        status = found["status"]
        assert {each["type"]: each["status"] for each in status["conditions"]} == {
            "PodReadyToStartContainers": "True",
            "Initialized": "True",
            "Ready": "True",
            "ContainersReady": "True",
            "PodScheduled": "True",
        }
        assert status["podIP"].startswith("10.")
        assert status["podIPs"] == [{"ip": status["podIP"]}]
        assert status["hostIP"] == "127.0.0.1"
        assert status["qosClass"] == "BestEffort"
        (main,) = status["containerStatuses"]
        assert (main["ready"], main["started"], main["restartCount"], main["lastState"]) == (True, True, 0, {})
        assert main["containerID"].startswith("pilothouse-process://")
        await here.plane.call("DELETE", "/api/v1/namespaces/default/pods/web")
        await here.until_gone("web")
        reasons = [(each[1], each[2]) for each in await here.events("web")]
    assert reasons == [
        ("Pulled", 'Container image "host" already present on machine and can be accessed by the pod'),
        ("Created", "Container created"),
        ("Started", "Container started"),
        ("Killing", "Stopping container main"),
    ]


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Give a directory that everybody may write to."""
    tmp_path.chmod(0o777)
    return tmp_path


async def test_init_containers_run_in_order_and_sidecars_outlive_main_containers(shared: Path) -> None:
    mounts: dict[str, Any] = {"volumeMounts": [{"name": "out", "mountPath": "/out"}]}
    trap = "trap 'echo side-end >> /out/log; exit 0' TERM; echo side >> /out/log; while :; do sleep 0.05; done"
    inits = [
        container("echo first >> /out/log", "first", **mounts),
        container(trap, "side", restartPolicy="Always", **mounts),
        container("echo second >> /out/log", "second", **mounts),
    ]
    main = container("echo main >> /out/log; sleep 0.2; echo main-end >> /out/log", **mounts)
    volumes = [{"name": "out", "hostPath": {"path": str(shared), "type": "Directory"}}]
    async with place() as made, cluster(made) as here:
        await here.create(pod("job", main, initContainers=inits, volumes=volumes, restartPolicy="Never"))
        found = await here.until("job", lambda each: each["status"]["phase"] == "Succeeded")
        states = {
            each["name"]: each["state"]["terminated"]["reason"]
            for each in (*found["status"]["initContainerStatuses"], *found["status"]["containerStatuses"])
        }
    lines = _lines(shared)
    assert lines[0] == "first"
    assert set(lines[1:3]) == {"side", "second"}
    assert lines[3:] == ["main", "main-end", "side-end"]
    assert states == {"first": "Completed", "side": "Completed", "second": "Completed", "main": "Completed"}


async def test_what_fails_is_started_again_with_back_off_and_says_why() -> None:
    script = "echo why > /dev/termination-log; exit 3"
    async with place() as made, cluster(made) as here:
        await here.create(pod("bad", script))
        await here.create(pod("odd", {"name": "main", "image": "host", "command": ["/no/such/program"]}))
        waiting = await here.until("bad", lambda each: _waiting(each) == "CrashLoopBackOff")
        (main,) = waiting["status"]["containerStatuses"]
        assert main["restartCount"] >= 1
        assert main["lastState"]["terminated"]["exitCode"] == 3
        assert main["lastState"]["terminated"]["message"] == "why\n"
        assert main["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=main pod=bad_")
        assert waiting["status"]["phase"] == "Running"
        await here.until_event("bad", "BackOff", "Back-off restarting failed container main in pod bad_default(")
        odd = await here.until("odd", lambda each: _waiting(each) in {"RunContainerError", "CrashLoopBackOff"})
        assert odd["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 128
        await here.until_event("odd", "Failed", "Error: failed to start container")


async def test_probes_make_ready_and_kill() -> None:
    quick = {"periodSeconds": 1, "failureThreshold": 1}
    script = "sleep 0.3; touch /tmp/ready; exec sleep 60"
    ready = container(script, readinessProbe={"exec": {"command": ["cat", "/tmp/ready"]}, **quick})
    alive = container("exec sleep 60", livenessProbe={"exec": {"command": ["false"]}, **quick})
    served = container(
        "exec python3 -m http.server 8080 2>/dev/null",
        readinessProbe={"httpGet": {"path": "/", "port": "web"}, **quick},
        livenessProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1},
        startupProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 1, "failureThreshold": 30},
        ports=[{"name": "web", "containerPort": 8080}],
    )
    async with place() as made, cluster(made) as here:
        await here.create(pod("ready", ready))
        await here.create(pod("alive", alive))
        await here.create(pod("served", served))
        await here.until("ready", lambda each: _ready(each) is True)
        await here.until("alive", lambda each: _restarts(each) >= 1)
        await here.until("served", lambda each: _ready(each) is True)
        await here.until_event("alive", "Killing", "Container main failed liveness probe, will be restarted")
        await here.until_event("alive", "Unhealthy", "Liveness probe failed: ")


async def test_hooks_run_and_the_grace_is_theirs_too(shared: Path) -> None:
    hooks = {
        "postStart": {"exec": {"command": ["sh", "-c", "echo post >> /out/log"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "echo pre >> /out/log"]}},
    }
    volumes = [{"name": "out", "hostPath": {"path": str(shared)}}]
    mounts = [{"name": "out", "mountPath": "/out"}]
    trap = "trap 'echo term >> /out/log; exit 0' TERM; while :; do sleep 0.05; done"
    async with place() as made, cluster(made) as here:
        main = container(trap, lifecycle=hooks, volumeMounts=mounts)
        await here.create(pod("hooked", main, volumes=volumes, terminationGracePeriodSeconds=20))
        broken = container("exec sleep 60", lifecycle={"postStart": {"exec": {"command": ["false"]}}})
        await here.create(pod("broken", broken))
        await here.until("hooked", lambda each: _ready(each) is True)
        await here.until_event("broken", "FailedPostStartHook", "PostStartHook failed")
        await here.plane.call("DELETE", "/api/v1/namespaces/default/pods/hooked")
        await here.until_gone("hooked")
    assert _lines(shared) == ["post", "pre", "term"]


async def test_a_new_agent_takes_over_what_runs() -> None:
    async with place() as made, cluster(made) as here:
        await here.create(pod("web", "exec sleep 60"))
        await here.create(pod("ends", "sleep 1; exit 4", restartPolicy="Never"))
        await here.create(pod("gone", "exec sleep 60"))
        before = [await here.until(name, lambda each: _ready(each) is True) for name in ("web", "ends", "gone")]
        await here.stop()
        await here.plane.call("DELETE", "/api/v1/namespaces/default/pods/gone?gracePeriodSeconds=0")
        await asyncio.sleep(1.1)  # `ends` ends while nobody looks
        await here.start()
        ended = await here.until("ends", lambda each: each["status"]["phase"] == "Failed")
        after = await here.until("web", lambda each: _ready(each) is True)
        assert here.runtime is not None
        assert {each.metadata.name for each in await here.runtime.list_sandboxes() if each.state == "Ready"} == {"web"}
        started = [each[1] for each in await here.events("web")].count("Started")
    assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 4
    first, second = (each["status"]["containerStatuses"][0] for each in (before[0], after))
    assert (first["containerID"], second["restartCount"]) == (second["containerID"], 0)
    assert first["state"] == second["state"]
    assert started == 1


async def test_what_cannot_run_says_why() -> None:
    async with place() as made, cluster(made) as here:
        big = container("true", resources={"requests": {"cpu": "1000"}})
        await here.create(pod("big", big))
        await here.create(pod("picky", "true", nodeSelector={"color": "green"}))
        await here.create(pod("never", {"name": "main", "image": "nope.invalid/x:1", "imagePullPolicy": "Never"}))
        await here.create(pod("name", {"name": "main", "image": "UPPER/Case", "imagePullPolicy": "IfNotPresent"}))
        mount = [{"name": "v", "hostPath": {"path": "/no/such/path", "type": "Directory"}}]
        await here.create(pod("mount", "true", volumes=mount))
        variable = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "x"}}}
        await here.create(pod("env", container("true", env=[variable])))
        found = await here.until("big", lambda each: each["status"]["phase"] == "Failed")
        assert found["status"]["reason"] == "OutOfcpu"
        found = await here.until("picky", lambda each: each["status"]["phase"] == "Failed")
        assert found["status"]["reason"] == "NodeAffinity"
        await here.until("never", lambda each: _waiting(each) == "ErrImageNeverPull")
        await here.until("name", lambda each: _waiting(each) == "InvalidImageName")
        await here.until("env", lambda each: _waiting(each) == "CreateContainerConfigError")
        await here.until_event("mount", "FailedMount", "hostPath type check failed: /no/such/path is not a directory")
        for name in ("big", "picky", "never", "name", "mount", "env"):
            await here.plane.call("DELETE", f"/api/v1/namespaces/default/pods/{name}")
            await here.until_gone(name)


async def test_containers_for_debugging_are_added_to_a_pod_that_runs() -> None:
    async with place() as made, cluster(made) as here:
        await here.create(pod("web", "exec sleep 60"))
        await here.until("web", lambda each: _ready(each) is True)
        extra = {"name": "debug", "image": "host", "command": ["sh", "-c", "exit 4"], "targetContainerName": "main"}
        path = "/api/v1/namespaces/default/pods/web/ephemeralcontainers"
        await here.plane.call("PATCH", path, {"spec": {"ephemeralContainers": [extra]}})
        found = await here.until("web", lambda each: "terminated" in _first(each, "ephemeralContainerStatuses"))
        assert _first(found, "ephemeralContainerStatuses")["terminated"]["exitCode"] == 4
        assert (_ready(found), _restarts(found)) == (True, 0)


async def test_a_pod_deleted_by_force_is_ended_too() -> None:
    async with place() as made, cluster(made) as here:
        await here.create(pod("web", "exec sleep 60"))
        await here.until("web", lambda each: _ready(each) is True)
        await here.plane.call("DELETE", "/api/v1/namespaces/default/pods/web?gracePeriodSeconds=0")
        await here.until_gone("web")
        runtime = here.runtime
        assert runtime is not None
        await here.eventually(lambda: not here.agent or not here.agent.workers)
        assert list(await runtime.list_sandboxes()) == []
        assert not os.listdir(f"{made.directory}/agent/logs")
        assert not os.listdir(f"{made.directory}/agent/pods")


async def test_the_end_of_the_log_stands_for_a_message_and_memory_has_a_limit() -> None:
    hungry = "import time\ntime.sleep(0.2)\nx = [bytearray(1 << 20) for _ in range(200)]\nprint(len(x))"
    limits = {"limits": {"memory": "48Mi"}}
    async with place() as made, cluster(made) as here:
        told = container("echo first; echo last >&2; exit 1", terminationMessagePolicy="FallbackToLogsOnError")
        await here.create(pod("told", told, restartPolicy="Never"))
        eater = {**container("", resources=limits), "command": ["python3", "-c", hungry]}
        await here.create(pod("eater", eater, restartPolicy="Never"))
        found = await here.until("told", lambda each: each["status"]["phase"] == "Failed")
        assert sorted(_first(found)["terminated"]["message"].split()) == ["first", "last"]
        found = await here.until("eater", lambda each: each["status"]["phase"] == "Failed")
        assert _first(found)["terminated"]["reason"] == "OOMKilled"
        assert _first(found)["terminated"]["exitCode"] == 137
        assert found["status"]["qosClass"] == "Burstable"


async def test_pods_on_the_network_of_the_machine_have_its_address() -> None:
    async with place() as made, cluster(made) as here:
        await here.create(pod("host", "exec sleep 60", hostNetwork=True))
        found = await here.until("host", lambda each: _ready(each) is True)
        assert found["status"]["podIP"] == found["status"]["hostIP"] == "127.0.0.1"


async def test_a_node_that_is_short_of_memory_ends_a_pod() -> None:
    async with place() as made, cluster(made) as here:
        await here.create(pod("web", "exec sleep 60"))
        await here.until("web", lambda each: _ready(each) is True)
        assert here.agent is not None
        here.agent.housekeeping.read = lambda root: Reading(memory_total=1 << 33, memory_available=1 << 20)
        await here.agent.housekeeping.relieve()
        found = await here.until("web", lambda each: each["status"]["phase"] == "Failed")
        assert found["status"]["reason"] == "Evicted"
        assert found["status"]["message"].startswith("The node was low on resource: memory. Threshold quantity: 100Mi")
        target = [each for each in found["status"]["conditions"] if each["type"] == "DisruptionTarget"]
        assert [(each["status"], each["reason"]) for each in target] == [("True", "TerminationByKubelet")]
        await here.agent.presence.refresh()
        node = await here.plane.call("GET", "/api/v1/nodes/one")
        assert [each["status"] for each in node["status"]["conditions"] if each["type"] == "MemoryPressure"] == ["True"]


async def test_the_node_is_there_with_lease_and_conditions() -> None:
    async with place() as made, cluster(made, labels={"color": "blue"}) as here:
        node = await here.plane.wait_for("/api/v1/nodes/one", lambda each: each and each["status"].get("conditions"))
        lease = await here.plane.wait_for("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/one")
        assert here.agent is not None
        assert here.agent.problems() == []
        taint = {"key": "example.com/mine", "effect": "NoSchedule"}
        await here.plane.call("PATCH", "/api/v1/nodes/one", {"spec": {"taints": [taint]}})
        unheard = {"conditions": [{"type": "Ready", "status": "Unknown"}]}
        await here.plane.call("PATCH", "/api/v1/nodes/one/status", {"status": unheard})
        await here.agent.presence.refresh(every=1e9)
        again = await here.plane.call("GET", "/api/v1/nodes/one")
    assert [each["status"] for each in again["status"]["conditions"] if each["type"] == "Ready"] == ["True"]
    assert taint.items() <= again["spec"]["taints"][-1].items()
    assert node["metadata"]["labels"]["color"] == "blue"
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "one"
    assert {each["type"]: each["status"] for each in node["status"]["conditions"]} == {
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "Ready": "True",
    }
    assert node["status"]["capacity"]["cpu"] == str(os.cpu_count())
    assert node["status"]["nodeInfo"]["kubeletVersion"].startswith("v1.36")
    assert lease["spec"]["holderIdentity"] == "one"
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


def _main(found: dict[str, object]) -> dict[str, object]:
    status = found["status"]
    assert isinstance(status, dict)
    listed = status.get("containerStatuses") or [{}]
    return dict(listed[0])


def _waiting(found: dict[str, object]) -> object:
    state = _main(found).get("state", {})
    assert isinstance(state, dict)
    return state.get("waiting", {}).get("reason")


def _ready(found: dict[str, object]) -> object:
    return _main(found).get("ready")


def _restarts(found: dict[str, object]) -> int:
    return int(str(_main(found).get("restartCount", 0)))


def _first(found: dict[str, Any], kind: str = "containerStatuses") -> dict[str, Any]:
    state: dict[str, Any] = (found["status"].get(kind) or [{"state": {}}])[0]["state"]
    return state


def _lines(directory: Path) -> list[str]:
    return (directory / "log").read_text().split()
