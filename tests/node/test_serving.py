"""The node's server without a runtime's processes: log lines and files, who may ask, figures as others read them."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.model import Peer, Request, Response
from pilothouse.client import Client
from pilothouse.foundation import tls
from pilothouse.foundation.clock import FakeClock, SystemClock
from pilothouse.kinds.status import BadRequest
from pilothouse.kinds.structs import Pod, from_dict
from pilothouse.node.config import ContainerMetadata, SandboxMetadata
from pilothouse.node.runtime import ContainerStats, ContainerStatus, RuntimeStatus, SandboxStatus
from pilothouse.node.serving.access import Access, Refused
from pilothouse.node.serving.figures import NodeFigures, Sampler
from pilothouse.node.serving.keys import NodeKeys
from pilothouse.node.serving.logfiles import log_files, read_log
from pilothouse.node.serving.loglines import LogOptions, LogWriter, options_of, tail_offset
from pilothouse.node.serving.logstatus import choose_run
from pilothouse.node.serving.server import NodeServer
from pilothouse.node.serving.summary import cadvisor_metrics, resource_metrics, summary
from pilothouse.testing import ControlPlane

NOW = datetime(2026, 1, 2, 3, 4, 10, tzinfo=UTC)


def line(second: int, text: str, *, stream: str = "stdout", tag: str = "F") -> bytes:
    return f"2026-01-02T03:04:{second:02d}.000000500Z {stream} {tag} {text}\n".encode()


# -- lines


def chosen(options: LogOptions, *lines: bytes) -> bytes:
    return LogWriter(options).feed(b"".join(lines))


def test_lines_lose_their_heads() -> None:
    assert chosen(LogOptions(), line(1, "a"), line(2, ""), line(3, "c d")) == b"a\n\nc d\n"


def test_parts_are_one_line_with_one_time() -> None:
    parts = (line(1, "aa", tag="P"), line(2, "other", stream="stderr"), line(3, "bb"), line(4, "c"))
    assert chosen(LogOptions(), *parts) == b"aaother\nbb\nc\n"
    found = chosen(LogOptions(timestamps=True, stream="stdout"), *parts)
    assert found == b"2026-01-02T03:04:01.000000500Z aabb\n2026-01-02T03:04:04.000000500Z c\n"


def test_since_limit_and_stream() -> None:
    lines = (line(1, "a"), line(5, "b", stream="stderr"), line(8, "c"))
    assert chosen(options_of({"sinceSeconds": 6}, NOW), *lines) == b"b\nc\n"
    assert chosen(options_of({"sinceTime": NOW - timedelta(seconds=2)}, NOW), *lines) == b"c\n"
    assert chosen(options_of({"stream": "Stderr"}, NOW), *lines) == b"b\n"
    writer = LogWriter(LogOptions(limit=3))
    assert (writer.feed(b"".join(lines)), writer.done) == (b"a\nb", True)


def test_short_times_compare_as_long_ones() -> None:
    short = b"2026-01-02T03:04:05.5Z stdout F x\n"
    assert chosen(options_of({"sinceTime": NOW - timedelta(seconds=5)}, NOW), short) == b"x\n"
    assert chosen(options_of({"sinceTime": NOW - timedelta(seconds=4)}, NOW), short) == b""


def test_torn_lines_are_left_out() -> None:
    assert chosen(LogOptions(), b"garbage\n", line(1, "a"), b"2026 stdout\n", b"\n") == b"a\n"


@given(st.lists(st.text(alphabet="ab \\", max_size=5), max_size=8), st.integers(1, 7))
def test_pieces_do_not_matter(texts: list[str], size: int) -> None:
    data = b"".join(line(1, text) for text in texts)
    writer = LogWriter(LogOptions())
    found = b"".join(writer.feed(data[place : place + size]) for place in range(0, len(data), size))
    assert found == "".join(f"{text}\n" for text in texts).encode()


@given(st.lists(st.binary(max_size=4).filter(lambda text: b"\n" not in text), max_size=8), st.integers(0, 9))
def test_the_last_lines_of_a_block(lines: list[bytes], wanted: int) -> None:
    block = b"".join(text + b"\n" for text in lines)
    place, count = tail_offset(block, wanted)
    assert count == len(lines)
    if count > wanted:
        assert block[place:] == b"".join(text + b"\n" for text in lines[len(lines) - wanted :])
    else:
        assert place == -1


# -- files


def rotated(directory: Path) -> str:
    path = directory / "0.log"
    first = b"".join(line(n, f"first {n}") for n in range(3))
    with gzip.open(directory / "0.log.20260102-030405.gz", "wb") as file:
        file.write(first)
    (directory / "0.log.20260102-030406").write_bytes(b"".join(line(n, f"second {n}") for n in range(3, 6)))
    path.write_bytes(b"".join(line(n, f"third {n}") for n in range(6, 9)))
    (directory / "0.log.tmp").write_bytes(b"no log")
    (directory / "1.log").write_bytes(b"another's")
    return str(path)


async def whole(path: str, **options: Any) -> list[str]:
    found: list[bytes] = []

    async def write(data: bytes) -> None:
        found.append(data)

    async def running() -> bool:
        return False

    await read_log(path, LogOptions(**options), write, running=running, clock=SystemClock())
    return b"".join(found).decode().splitlines()


async def test_rotated_files_are_read_in_order(tmp_path: Path) -> None:
    path = rotated(tmp_path)
    assert [Path(name).name for name in log_files(path)] == [
        "0.log.20260102-030405.gz",
        "0.log.20260102-030406",
        "0.log",
    ]
    everything = (
        [f"first {n}" for n in range(3)] + [f"second {n}" for n in range(3, 6)] + [f"third {n}" for n in range(6, 9)]
    )
    assert await whole(path) == everything
    for tail in range(11):
        assert await whole(path, tail=tail) == everything[max(0, 9 - tail) :], tail
    assert await whole(path, follow=True, tail=2) == everything[-2:]


async def test_a_long_file_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "0.log"
    path.write_bytes(b"".join(line(1, f"{n:06d} {'x' * 90}") for n in range(5_000)))
    assert [text[:6] for text in await whole(str(path), tail=1_500)] == [f"{n:06d}" for n in range(3_500, 5_000)]


async def test_no_log_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await whole(str(tmp_path / "0.log"))


async def test_a_log_is_followed_over_rotations_to_its_end(tmp_path: Path) -> None:
    path, clock = tmp_path / "0.log", FakeClock()
    path.write_bytes(line(1, "a"))
    found: list[bytes] = []
    runs = True

    async def write(data: bytes) -> None:
        found.append(data)

    async def running() -> bool:
        return runs

    task = asyncio.create_task(read_log(str(path), LogOptions(follow=True), write, running=running, clock=clock))
    await clock.run(1)
    assert found == [b"a\n"]
    with path.open("ab") as file:
        file.write(line(2, "b")[:10])
        file.flush()
        await clock.run(1)
        assert found == [b"a\n"]
        file.write(line(2, "b")[10:])
    await clock.run(1)
    with path.open("ab") as old:
        path.rename(tmp_path / "0.log.20260102-030405")
        path.write_bytes(line(4, "d"))
        old.write(line(3, "c"))
    await clock.run(1)
    runs = False
    with path.open("ab") as file:
        file.write(line(5, "e"))
    await clock.run(3)
    await asyncio.wait_for(task, 5)
    assert b"".join(found) == b"a\nb\nc\nd\ne\n"


# -- which run


def run(attempt: int, state: Any) -> ContainerStatus:
    return ContainerStatus(
        id=f"id{attempt}",
        metadata=ContainerMetadata(name="c", attempt=attempt),
        sandbox_id="s",
        state=state,
        created_at=1,
    )


def pod_with(**state: Any) -> Pod:
    statuses = [{"name": "c", "state": state}] if state else []
    return from_dict(
        {
            "metadata": {"name": "web"},
            "spec": {"containers": [{"name": "c"}]},
            "status": {"containerStatuses": statuses},
        },
        Pod,
    )


@pytest.mark.parametrize(
    ("pod", "runs", "previous", "expected"),
    [
        (pod_with(running={}), [run(0, "Exited"), run(1, "Running")], False, "id1"),
        (pod_with(running={}), [run(0, "Exited"), run(1, "Running")], True, "id0"),
        (pod_with(waiting={"reason": "CrashLoopBackOff"}), [run(0, "Exited"), run(1, "Exited")], False, "id1"),
        (pod_with(waiting={"reason": "CrashLoopBackOff"}), [run(0, "Exited"), run(1, "Exited")], True, "id1"),
        (pod_with(terminated={}), [run(0, "Exited")], False, "id0"),
        (pod_with(terminated={}), [run(0, "Exited")], True, 'previous terminated container "c" in pod "web" not found'),
        (pod_with(running={}), [run(0, "Running")], True, 'previous terminated container "c" in pod "web" not found'),
        (
            pod_with(waiting={"reason": "ContainerCreating"}),
            [],
            False,
            'container "c" in pod "web" is waiting to start: ContainerCreating',
        ),
        (
            pod_with(waiting={"reason": "ImagePullBackOff"}),
            [run(0, "Created")],
            False,
            'container "c" in pod "web" is waiting to start: trying and failing to pull image',
        ),
        (
            pod_with(waiting={"reason": "ErrImagePull"}),
            [],
            False,
            'container "c" in pod "web" is waiting to start: image can\'t be pulled',
        ),
        (pod_with(), [], False, 'container "c" in pod "web" is not available'),
    ],
)
def test_the_run_that_is_meant(pod: Pod, runs: list[ContainerStatus], previous: bool, expected: str) -> None:
    try:
        found = choose_run(pod, "c", runs, previous=previous).id
    except BadRequest as error:
        found = error.message
    assert found == expected


# -- who may ask


def request(path: str, *, token: str = "", certificate: bytes | None = None, method: str = "GET") -> Request:
    headers = {"authorization": f"Bearer {token}"} if token else {}
    target, _, query = path.partition("?")
    return Request(method, path, target, query, headers, b"", Peer("127.0.0.1", certificate))


async def refused(access: Access, asked: Request) -> tuple[int, str]:
    try:
        await access.check(asked)
    except Refused as error:
        return error.code, str(error)
    return 200, ""


async def test_who_may_ask() -> None:
    import ssl

    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        authority = plane.server.pki.authority("ca")
        access = Access(client, "n1", authorities=plane.ca)

        def certificate(name: str, *groups: str, ca: Any = authority) -> bytes:
            made = tls.issue(ca, name, organizations=groups, client=True)
            return ssl.PEM_cert_to_DER_cert(made.certificate.decode())

        assert await refused(access, request("/pods")) == (401, "Unauthorized")
        assert await refused(access, request("/pods", token="nobody's")) == (401, "Unauthorized")
        stranger = certificate("kube-apiserver", "system:masters", ca=tls.make_ca("other"))
        assert await refused(access, request("/pods", certificate=stranger)) == (401, "Unauthorized")
        master = certificate("kube-apiserver-kubelet-client", "system:masters")
        assert await refused(access, request("/exec/default/web/c", certificate=master, method="POST")) == (200, "")
        jane = certificate("jane")
        assert await refused(access, request("/metrics/resource", certificate=jane)) == (
            403,
            "Forbidden (user=jane, verb=get, resource=nodes, subresource(s)=[metrics])",
        )
        role = {
            "metadata": {"name": "m"},
            "rules": [{"apiGroups": [""], "resources": ["nodes/stats"], "verbs": ["get"]}],
        }
        await plane.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles", role)
        binding = {
            "metadata": {"name": "m"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "m"},
            "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "jane"}],
        }
        await plane.call("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
        assert await refused(access, request("/stats/summary", certificate=jane)) == (200, "")
        assert (await refused(access, request("/run/default/web/c", certificate=jane, method="POST")))[0] == 403
        token = (await client.create_token("default", "default")).status.token
        told = "(user=system:serviceaccount:default:default, verb=get, resource=nodes, subresource(s)=[pods, proxy])"
        assert await refused(access, request("/pods", token=token)) == (403, f"Forbidden {told}")


def issuer(directory: Path) -> str:
    from cryptography import x509

    return x509.load_pem_x509_certificate((directory / "kubelet.crt").read_bytes()).issuer.rfc4514_string()


async def test_the_nodes_certificate_is_made_or_asked_for(tmp_path: Path) -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        clock = FakeClock(datetime.now(UTC))
        authority = plane.server.pki.authority("ca")

        def keys(name: str, **fields: Any) -> NodeKeys:
            directory = str(tmp_path / name)
            return NodeKeys(client, "n1", ["127.0.0.1"], directory, client_ca=plane.ca, clock=clock, **fields)

        made = keys("made", authority=authority)
        await made.context()
        assert issuer(tmp_path / "made") == "CN=kubernetes"
        before = (tmp_path / "made/kubelet.crt").read_bytes()
        await keys("made", authority=authority).context()
        assert (tmp_path / "made/kubelet.crt").read_bytes() == before
        clock.advance(300 * 86400)
        await keys("made", authority=authority).context()
        assert (tmp_path / "made/kubelet.crt").read_bytes() != before

        asked = NodeKeys(client, "n1", ["127.0.0.1"], str(tmp_path / "asked"), client_ca=plane.ca, approve=True)
        await asked.context()
        assert issuer(tmp_path / "asked") == "CN=n1-ca"
        running = asyncio.create_task(asked.run())
        for _ in range(1000):
            if issuer(tmp_path / "asked") == "CN=kubernetes":
                break
            await asyncio.sleep(0.01)
        assert issuer(tmp_path / "asked") == "CN=kubernetes"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


# -- figures and answers


class FakeRuntime:
    """One pod with one container whose CPU time is set by hand."""

    def __init__(self) -> None:
        self.cpu, self.at = 0, 0

    async def status(self) -> RuntimeStatus:
        return RuntimeStatus(name="fake", version="1", runtime_ready=True, network_ready=True)

    async def list_sandboxes(self) -> Sequence[SandboxStatus]:
        meta = SandboxMetadata(name="web", uid="u1", namespace="ns")
        return [SandboxStatus(id="s", metadata=meta, state="Ready", created_at=10**18)]

    async def list_containers(self, sandbox_id: str | None = None) -> Sequence[ContainerStatus]:
        return [run(0, "Running")]

    async def container_stats(self, container_id: str) -> ContainerStats:
        return ContainerStats(
            id=container_id,
            timestamp=self.at,
            cpu_usage_ns=self.cpu,
            memory_usage_bytes=3 << 20,
            memory_working_set_bytes=2 << 20,
            memory_rss_bytes=1 << 20,
            pids=4,
        )


def machine() -> NodeFigures:
    return NodeFigures(
        timestamp=10**18,
        started_at=10**17,
        cpu_ns=5 * 10**9,
        memory_capacity=8 << 30,
        memory_available=6 << 30,
        memory_working_set=2 << 30,
        memory_rss=1 << 30,
    )


async def test_rates_come_with_the_second_sample() -> None:
    clock, runtime = FakeClock(), FakeRuntime()
    runtime.at = 10**18
    sampler = Sampler(runtime, clock=clock, machine=machine)  # type: ignore[arg-type]
    assert (await sampler.now()).pods[0].containers[0].cpu_nanocores is None
    clock.advance(10)
    runtime.cpu, runtime.at = 5 * 10**9, 10**18 + 10 * 10**9
    found = await sampler.now()
    assert found.pods[0].containers[0].cpu_nanocores == 5 * 10**8
    assert (await sampler.now()) is found
    told = summary("n1", found)["pods"][0]
    assert told["podRef"] == {"name": "web", "namespace": "ns", "uid": "u1"}
    assert told["cpu"]["usageNanoCores"] == told["containers"][0]["cpu"]["usageNanoCores"] == 5 * 10**8
    assert told["memory"]["workingSetBytes"] == 2 << 20
    text = resource_metrics(found)
    assert 'container_cpu_usage_seconds_total{container="c",namespace="ns",pod="web"} 5.0 1000000010000\n' in text
    assert f"node_memory_working_set_bytes {2 << 30} 1000000000000\n" in text
    assert 'pod_memory_working_set_bytes{namespace="ns",pod="web"} 2097152 ' in text
    assert 'container_processes{container="c",id="/id0",namespace="ns",pod="web"} 4 ' in cadvisor_metrics(found)


class OnePod:
    def __init__(self) -> None:
        self.pod = from_dict(
            {
                "metadata": {"name": "web", "namespace": "ns", "uid": "u1"},
                "spec": {"nodeName": "n1", "containers": [{"name": "c"}]},
            },
            Pod,
        )

    def pods(self) -> Sequence[Pod]:
        return [self.pod]

    def find(self, namespace: str, name: str) -> Pod | None:
        return self.pod if (namespace, name) == ("ns", "web") else None


@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        ("/healthz", 200, "ok"),
        ("/pods", 200, '"kind":"PodList"'),
        ("/stats/summary", 200, '"nodeName":"n1"'),
        ("/metrics/resource", 200, "node_cpu_usage_seconds_total"),
        ("/metrics/cadvisor", 200, "machine_memory_bytes"),
        ("/metrics/probes", 200, ""),
        ("/metrics", 200, ""),
        ("/nosuch", 404, "404 page not found"),
        ("/", 404, "404 page not found"),
        ("/containerLogs/ns/none/c", 404, "pod does not exist"),
        ("/containerLogs/ns/web/none", 404, 'container "none" not found in pod "web"'),
        ("/containerLogs/ns", 404, "404 page not found"),
        ("/exec/ns/web/other-uid/c?command=x&output=1", 404, "pod does not exist"),
        ("/containerLogs/ns/web/c?tailLines=-1", 422, "must be greater than or equal to 0"),
        ("/run/ns/web/c", 405, "Method Not Allowed"),
        ("/exec/ns/web/u1/c", 400, "Upgrade request required"),
    ],
)
async def test_answers(path: str, status: int, text: str) -> None:
    runtime: Any = FakeRuntime()
    server = NodeServer("n1", runtime, OnePod(), access=None)
    answer = await server.handle(request(path))
    assert isinstance(answer, Response)
    body = answer.body if isinstance(answer.body, bytes) else b"".join(answer.body)
    assert answer.status == status, body
    assert text in body.decode()
    if path == "/pods":
        assert json.loads(body)["items"][0]["metadata"]["uid"] == "u1"
