"""The parts of the agent one by one: refusals, shortages, images, logs, probes, patches, heartbeats."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.grpc import GrpcServer
from pilothouse.kinds.structs import Node, Pod, from_dict, replace
from pilothouse.kinds.structs.core_containers import Container
from pilothouse.kinds.structs.core_handlers import LifecycleHandler, Probe
from pilothouse.kinds.structs.core_pod_status import PodCondition, PodStatus
from pilothouse.node.agent.admission import refusal
from pilothouse.node.agent.backoff import Backoff, go_seconds
from pilothouse.node.agent.configs import security_of
from pilothouse.node.agent.facts import requests_of
from pilothouse.node.agent.imagegc import ImageUse
from pilothouse.node.agent.logrotation import rotate
from pilothouse.node.agent.machine import MachineFacts
from pilothouse.node.agent.nodeobject import NodeView, node_status
from pilothouse.node.agent.options import AgentOptions, Thresholds
from pilothouse.node.agent.ports import ConfigError, LiteralEnvironment, MountError, SimpleMounts, expand
from pilothouse.node.agent.pressure import Pressure, Reading, eviction_message, shortages, victim
from pilothouse.node.agent.prober import Prober
from pilothouse.node.agent.statuswriter import status_patch
from pilothouse.node.config import ContainerMetadata
from pilothouse.node.runtime import ContainerStatus, ImageStatus, RuntimeStatus
from pilothouse.node.simulated import SimulatedRuntime

NODE = from_dict(
    {
        "metadata": {"name": "one", "labels": {"color": "blue", "rank": "5"}},
        "status": {"allocatable": {"cpu": "2", "memory": "1Gi", "pods": "3"}},
    },
    Node,
)


def pod(name: str = "web", requests: dict[str, str] | None = None, port: int = 0, **spec: Any) -> Pod:
    container: dict[str, Any] = {"name": "main", "image": "app:1"}
    if requests:
        container["resources"] = {"requests": requests}
    if port:
        container["ports"] = [{"containerPort": 80, "hostPort": port}]
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}"}
    return from_dict({"metadata": metadata, "spec": {"containers": [container], **spec}}, Pod)


def affinity(operator: str, key: str = "color", *values: str) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    return {"affinity": {"nodeAffinity": required}}


@pytest.mark.parametrize(
    ("wanted", "others", "reason"),
    [
        (pod(), [], None),
        (pod(requests={"cpu": "2"}), [], None),
        (pod(requests={"cpu": "1500m"}), [pod("a", {"cpu": "600m"})], "OutOfcpu"),
        (pod(requests={"memory": "2Gi"}), [], "OutOfmemory"),
        (pod(requests={"example.com/gpu": "1"}), [], "OutOfexample.com/gpu"),
        (pod(), [pod("a"), pod("b"), pod("c")], "OutOfpods"),
        (pod(nodeSelector={"color": "blue"}), [], None),
        (pod(nodeSelector={"color": "red"}), [], "NodeAffinity"),
        (pod(**affinity("In", "color", "blue", "red")), [], None),
        (pod(**affinity("NotIn", "color", "blue")), [], "NodeAffinity"),
        (pod(**affinity("Gt", "rank", "4")), [], None),
        (pod(**affinity("Lt", "rank", "4")), [], "NodeAffinity"),
        (pod(**affinity("DoesNotExist", "color")), [], "NodeAffinity"),
        (pod(port=80), [pod("a", port=80)], "NodePorts"),
        (pod(port=80), [pod("a", port=81)], None),
    ],
)
def test_pods_that_do_not_fit_are_refused(wanted: Pod, others: list[Pod], reason: str | None) -> None:
    found = refusal(wanted, others, NODE)
    assert (found and found[0]) == reason


def test_a_refusal_says_how_much_there_is() -> None:
    found = refusal(pod(requests={"cpu": "4"}), [pod("a", {"cpu": "1"})], NODE)
    assert found is not None
    assert found[1].endswith("Node didn't have enough resource: cpu, requested: 4000, used: 1000, capacity: 2000")


def test_init_containers_and_sidecars_count_as_kubernetes_counts_them() -> None:
    def container(name: str, cpu: str, **fields: Any) -> dict[str, Any]:
        return {"name": name, "resources": {"requests": {"cpu": cpu}}, **fields}

    spec = {
        "containers": [container("main", "1")],
        "initContainers": [container("side", "500m", restartPolicy="Always"), container("init", "2")],
        "overhead": {"cpu": "100m"},
    }
    assert requests_of(from_dict({"spec": spec}, Pod)) == {"cpu": 2600}


def test_shortages_are_seen_and_last_for_a_while() -> None:
    limits = Thresholds()
    low = Reading(memory_total=1 << 33, memory_available=50 << 20, disk_total=1000, disk_available=50, inodes_total=0)
    found = shortages(low, limits)
    assert [each.resource for each in found] == ["memory", "ephemeral-storage"]
    assert shortages(Reading(memory_total=1 << 33, memory_available=1 << 32), limits) == []
    pressure = Pressure(calm_seconds=300)
    pressure.saw(found, 1000)
    assert pressure.active(1299) == {"MemoryPressure", "DiskPressure"}
    assert pressure.active(1300) == set()


def test_who_uses_more_than_it_asked_for_goes_first() -> None:
    modest = pod("modest", {"memory": "500Mi"})
    greedy = pod("greedy", {"memory": "10Mi"})
    greedier = pod("greedier")
    important = pod("important", priority=1000)
    system = pod("system", priority=2_000_000_000)
    usage = {
        "uid-modest": 400 << 20,
        "uid-greedy": 100 << 20,
        "uid-greedier": 200 << 20,
        "uid-important": 900 << 20,
        "uid-system": 900 << 20,
    }
    left = [modest, greedy, greedier, important, system]
    order = []
    while (chosen := victim(left, usage, "memory")) is not None:
        order.append(chosen.metadata.name)
        left.remove(chosen)
    assert order == ["greedier", "greedy", "important", "modest"]
    (shortage,) = shortages(Reading(memory_total=1 << 33, memory_available=50 << 20), Thresholds())
    assert eviction_message(shortage, greedy, 100 << 20) == (
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container main was using 100Mi, request is 10Mi, has larger consumption of memory. "
    )


def test_images_that_nobody_has_used_for_longest_go_first() -> None:
    images = [ImageStatus(id=name, size=100) for name in "abcd"]
    use = ImageUse()
    use.saw(images, {"a", "b"}, 0)
    use.saw(images, {"b", "c"}, 1000)
    limits = Thresholds()
    chosen = use.to_remove(images, {"b"}, limits, total=1000, free=100, now=1000)
    assert [each.id for each in chosen] == ["a"]
    chosen = use.to_remove(images, {"b"}, limits, total=1000, free=0, now=1000)
    assert [each.id for each in chosen] == ["a", "d"]
    assert use.to_remove(images, {"b"}, limits, total=1000, free=200, now=1000) == []
    assert use.to_remove(images, set(), limits, total=1000, free=0, now=50) == []  # too young


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_logs_are_rotated_by_size_and_old_ones_compressed(tmp_path: Path) -> None:
    reopened: list[str] = []

    class Runtime(SimulatedRuntime):
        async def reopen_log(self, container_id: str) -> None:
            reopened.append(container_id)
            log.write_bytes(b"")

    log = tmp_path / "0.log"
    status = ContainerStatus(
        id="c",
        metadata=ContainerMetadata(name="main"),
        sandbox_id="s",
        state="Running",
        created_at=0,
        log_path=str(log),
    )
    for minute in range(7):
        log.write_bytes(b"x" * (11 if minute != 3 else 9))
        moment = datetime(2025, 1, 1, 0, minute, tzinfo=UTC)
        assert await rotate(Runtime(), status, moment, max_bytes=10, max_files=5) == (minute != 3)
    names = names_in(tmp_path)
    assert names == [
        "0.log",
        "0.log.20250101-000200.gz",
        "0.log.20250101-000400.gz",
        "0.log.20250101-000500.gz",
        "0.log.20250101-000600",
    ]
    assert gzip.decompress((tmp_path / names[1]).read_bytes()) == b"x" * 11
    assert len(reopened) == 6


@asynccontextmanager
async def answering(answer: bytes, asked: list[bytes] | None = None) -> AsyncIterator[int]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.read(4096)
        if asked is not None:
            asked.append(request)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


def prober() -> Prober:
    return Prober(SimulatedRuntime(), FakeClock())


def probe(**fields: Any) -> Probe:
    return from_dict({"timeoutSeconds": 5, **fields}, Probe)


PLAIN = from_dict({"name": "main", "ports": [{"name": "web", "containerPort": 1}]}, Container)


async def test_http_probes_ask_as_they_are_told() -> None:
    asked: list[bytes] = []
    headers = [{"name": "Host", "value": "shop.example"}, {"name": "X-Probe", "value": "1"}]
    async with answering(b"HTTP/1.1 204 No Content\r\n\r\n", asked) as port:
        action = {"path": "/healthz?full", "port": port, "httpHeaders": headers}
        assert await prober().probe(probe(httpGet=action), PLAIN, "c", "127.0.0.1") == ("success", "")
    lines = asked[0].decode().split("\r\n")
    assert lines[0] == "GET /healthz?full HTTP/1.1"
    assert {"Host: shop.example", "X-Probe: 1", "User-Agent: kube-probe/1.36"} <= set(lines)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 302 Found\r\n\r\n", ("success", "")),
        (b"HTTP/1.1 500 Oh\r\n\r\n", ("failure", "HTTP probe failed with statuscode: 500")),
        (b"", ("failure", 'Get "http://127.0.0.1:{port}/": EOF')),
    ],
)
async def test_http_probes_judge_by_the_status(answer: bytes, expected: tuple[str, str]) -> None:
    async with answering(answer) as port:
        found = await prober().probe(probe(httpGet={"path": "/", "port": port}), PLAIN, "c", "127.0.0.1")
    assert found == (expected[0], expected[1].format(port=port))


async def test_probes_of_ports_where_nobody_listens_fail_and_say_so() -> None:
    found = await prober().probe(probe(tcpSocket={"port": "web"}), PLAIN, "c", "127.0.0.1")
    assert found == ("failure", "dial tcp 127.0.0.1:1: connect: connection refused")
    found = await prober().probe(probe(httpGet={"path": "x", "port": 1}), PLAIN, "c", "127.0.0.1")
    assert found == ("failure", 'Get "http://127.0.0.1:1/x": dial tcp 127.0.0.1:1: connect: connection refused')
    found = await prober().probe(probe(tcpSocket={"port": "none"}), PLAIN, "c", "127.0.0.1")
    assert found == ("error", "couldn't find port: none")


@pytest.mark.parametrize(
    ("state", "expected"),
    [(b"\x08\x01", ("success", "")), (b"\x08\x02", ("failure", 'service unhealthy (responded with "NOT_SERVING")'))],
)
async def test_grpc_probes_ask_for_health(state: bytes, expected: tuple[str, str]) -> None:
    asked: list[bytes] = []

    def check(message: bytes, call: object) -> bytes:
        del call
        asked.append(bytes(message))
        return state

    server = GrpcServer()
    server.unary("/grpc.health.v1.Health/Check", check)
    host, port = await server.listen_tcp("127.0.0.1", 0)
    try:
        found = await prober().probe(probe(grpc={"port": port, "service": "shop"}), PLAIN, "c", host)
    finally:
        await server.close()
    assert found == expected
    assert asked == [b"\x0a\x04shop"]


async def test_a_sleeping_hook_takes_its_time() -> None:
    clock = FakeClock()
    hook = from_dict({"sleep": {"seconds": 5}}, LifecycleHandler)
    work = asyncio.create_task(Prober(SimulatedRuntime(), clock).hook(hook, PLAIN, "c", "127.0.0.1"))
    await clock.run(4.9)
    assert not work.done()
    await clock.run(0.2)
    assert await work == ""


def test_a_patch_leaves_conditions_of_others_alone_and_clears_what_is_over() -> None:
    status = PodStatus(
        phase="Running",
        reason="",
        conditions=[PodCondition(type="Ready", status="True", reason="", message="")],
        pod_ip="10.0.0.1",
    )
    assert status_patch(pod(), status) == {
        "metadata": {"uid": "uid-web"},
        "status": {
            "phase": "Running",
            "reason": None,
            "conditions": [{"type": "Ready", "status": "True", "reason": None, "message": None}],
            "podIP": "10.0.0.1",
            "containerStatuses": None,
            "initContainerStatuses": None,
            "ephemeralContainerStatuses": None,
            "podIPs": None,
            "hostIPs": None,
        },
    }


def test_conditions_of_a_node_keep_the_time_of_their_last_change() -> None:
    runtime = RuntimeStatus(name="x", version="1", runtime_ready=True, network_ready=True)
    facts = MachineFacts(cpus=2, memory=1 << 30, disk=1 << 40)
    view = NodeView(
        options=AgentOptions(name="one", root="/x", reserved_cpu=500),
        facts=facts,
        runtime=runtime,
        addresses=("192.0.2.1",),
    )
    first = node_status(view, [], "2025-01-01T00:00:00Z")
    pressed = NodeView(
        options=view.options,
        facts=facts,
        runtime=runtime,
        addresses=view.addresses,
        pressures=frozenset({"MemoryPressure"}),
    )
    second = node_status(pressed, first["conditions"], "2025-01-01T00:01:00Z")
    changed = {each["type"]: (each["status"], each["lastTransitionTime"][14:16]) for each in second["conditions"]}
    assert changed == {
        "MemoryPressure": ("True", "01"),
        "DiskPressure": ("False", "00"),
        "PIDPressure": ("False", "00"),
        "Ready": ("True", "00"),
    }
    assert first["capacity"]["cpu"] == "2"
    assert first["allocatable"]["cpu"] == "1500m"
    assert first["allocatable"]["memory"] == f"{(1 << 20) - (100 << 10)}Ki"


def test_back_off_doubles_up_to_its_cap_and_begins_again() -> None:
    backoff, now = Backoff(), 0.0
    waits = []
    for _ in range(8):
        remaining = backoff.remaining(now, now)
        waits.append(remaining)
        now += max(remaining, 0)
        backoff.next(now, now)
    assert waits == [0, 10, 20, 40, 80, 160, 300, 300]
    assert backoff.remaining(now + 601, now + 601) == 0
    assert [go_seconds(each) for each in (10, 80, 300, 3600)] == ["10s", "1m20s", "5m0s", "1h0m0s"]


@pytest.mark.parametrize(
    ("fields", "image_user", "text"),
    [
        ({"runAsUser": 0}, "", "runAsUser breaks non-root policy"),
        ({}, "", "image will run as root"),
        ({}, "www", "non-numeric user (www)"),
        ({"runAsUser": 5}, "", None),
        ({}, "5:5", None),
    ],
)
def test_root_is_refused_where_the_pod_forbids_it(fields: dict[str, int], image_user: str, text: str | None) -> None:
    wanted = pod(securityContext={"runAsNonRoot": True, **fields})

    def look() -> object:
        return security_of(wanted, wanted.spec.containers[0], image_user=image_user)

    if text is None:
        look()
    else:
        with pytest.raises(ConfigError, match=text.replace("(", r"\(").replace(")", r"\)")):
            look()


def test_variables_are_expanded_as_kubernetes_does() -> None:
    assert expand("$(A)-$(B) $$(A) $A $", {"A": "1"}) == "1-$(B) $(A) $A $"


async def test_the_plain_environment_refuses_what_it_cannot_read() -> None:
    container = from_dict(
        {"name": "main", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"}]}, Container
    )
    found = await LiteralEnvironment().variables(pod(), container, pod_ip="", host_ip="")
    assert list(found) == [("A", "1"), ("B", "12")]
    bad = from_dict({"name": "main", "envFrom": [{"secretRef": {"name": "s"}}]}, Container)
    with pytest.raises(ConfigError, match="envFrom"):
        await LiteralEnvironment().variables(pod(), bad, pod_ip="", host_ip="")


async def test_plain_mounts_are_directories_memory_and_paths_of_the_machine(tmp_path: Path) -> None:
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "host", "hostPath": {"path": str(tmp_path / "made"), "type": "DirectoryOrCreate"}},
    ]
    wanted = pod(volumes=volumes)
    mounts = [{"name": each["name"], "mountPath": f"/{each['name']}"} for each in volumes]
    main = from_dict({"name": "main", "volumeMounts": mounts}, Container)
    body = from_dict({"metadata": {"name": "web", "uid": "u"}, "spec": {"volumes": volumes}}, Pod)
    body = replace(wanted, spec=replace(body.spec, containers=[main]))
    given = SimpleMounts(str(tmp_path))
    found = (await given.prepare(body))["main"]
    assert [(each.container_path, each.type, each.size) for each in found] == [
        ("/scratch", "bind", 0),
        ("/fast", "tmpfs", 1 << 20),
        ("/host", "bind", 0),
    ]
    assert "scratch" in found[0].host_path
    assert names_in(Path(found[0].host_path)) == []
    await given.release("uid-web")
    assert names_in(tmp_path / "uid-web") == []
    with pytest.raises(MountError, match='volume "s"'):
        await given.prepare(pod(volumes=[{"name": "s", "secret": {"secretName": "s"}}]))
