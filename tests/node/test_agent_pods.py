"""The node agent end to end, as root: pods of an API server as processes of this machine."""

from __future__ import annotations

from support.agentkit import cluster, pod
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
