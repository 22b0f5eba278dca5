"""A running gateway and its owner: real traffic, the socket, the commands, and what is said where all is not well."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from pilothouse.foundation import refreshing
from pilothouse.foundation.terminal import CommandError, ExitCode
from pilothouse.traffic.admin import server
from pilothouse.traffic.admin.answers import Backends, Counters, Routes, Top
from pilothouse.traffic.admin.asking import ask
from pilothouse.traffic.admin.server import AdminServer
from pilothouse.traffic.admin.sockets import AdminSocketError, OwnedSocket, default_socket
from pilothouse.traffic.cli import gateway as group
from pilothouse.traffic.config import Backend, Configuration, Endpoint, HttpRule, OutlierEjection, Weighted
from pilothouse.traffic.control import cli as control_cli
from pilothouse.traffic.gateway import Gateway, GatewayOptions
from support.loglines import logged
from support.planekit import PATIENCE, Origin, Raw, configuration, free_port

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\ns"
BIG = b"HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n" + b"x" * 1_048_576
BAD = b"HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n"
GET = b"GET /shop HTTP/1.1\r\nHost: a.example\r\n\r\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "gateway.sock"


@contextlib.asynccontextmanager
async def running(path: Path, workers: int) -> AsyncIterator[Gateway]:
    made = Gateway(GatewayOptions(workers=workers, drain_seconds=0.1, admin_socket=path))
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


@pytest.fixture
async def gateway(path: Path) -> AsyncIterator[Gateway]:
    async with running(path, 1) as made:
        yield made


@pytest.fixture
async def pair(path: Path) -> AsyncIterator[Gateway]:
    """A gateway with two workers."""
    async with running(path, 2) as made:
        yield made


@pytest.fixture
async def alone(path: Path) -> AsyncIterator[AdminServer]:
    """The owner's side of a gateway that has no workers yet."""
    made = AdminServer(Gateway(GatewayOptions(workers=1)), path)
    await made.start()
    try:
        yield made
    finally:
        await made.close()


def two(stable: int, canary: int, port: int, generation: int = 1) -> Configuration:
    rule = HttpRule(
        backends=(
            Weighted(backend="b", version="stable", weight=9),
            Weighted(backend="c", version="canary", weight=1),
        )
    )
    config = configuration(stable, port=port, rule=rule, generation=generation)
    outliers = OutlierEjection(failures=3, seconds=600.0, most=100)
    config.backends["c"] = Backend(endpoints=(Endpoint(address="127.0.0.1", port=canary),), outliers=outliers)
    return config


def send(port: int, times: int) -> None:
    with Raw(port) as client:
        for _ in range(times):
            client.send(GET).response()


async def asked(path: Path, page: str, kind: type[Any], **query: str | int) -> Any:
    return await asyncio.to_thread(ask, path, page, kind, query)


async def command(*arguments: str) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, group, arguments)


async def until_counted(path: Path, requests: int) -> Top:
    """Wait until so many requests are over and in a whole second."""
    end = time.monotonic() + PATIENCE
    while True:
        found: Top = await asked(path, "top", Top, seconds=300)
        if found.whole.requests >= requests:
            return found
        assert time.monotonic() < end, f"only {found.whole.requests} requests are told of"
        await asyncio.sleep(0.05)


async def test_routes_backends_and_the_busiest_of_real_traffic(pair: Gateway, path: Path) -> None:
    port = free_port()
    with Origin.answering(OK) as stable, Origin.answering(BAD) as canary:
        await pair.push(two(stable.port, canary.port, port))
        await asyncio.to_thread(send, port, 20)
        top = await until_counted(path, 20)
        assert {row.names["version"]: row.measured.requests for row in top.rows} == {"stable": 18, "canary": 2}
        assert (top.whole.errors, top.counters.requests, top.counters.workers) == (2, 20, 2)
        routes: Routes = await asked(path, "routes", Routes, seconds=300)
        assert [(row.version, row.weight, row.measured.requests, row.measured.errors) for row in routes.rows] == [
            ("stable", 9, 18, 0),
            ("canary", 1, 2, 2),
        ]
        assert 0 < routes.rows[0].measured.p50 <= routes.rows[0].measured.p95 <= routes.rows[0].measured.p99
        assert (routes.rows[0].ports, routes.rows[0].matches) == ((port,), ("/*",))
        told: Backends = await asked(path, "backends", Backends, seconds=300)
        assert [(row.backend, row.address, row.requests, row.failures, row.state) for row in told.rows] == [
            ("b", f"127.0.0.1:{stable.port}", 18, 0, "up"),
            ("c", f"127.0.0.1:{canary.port}", 2, 2, "up"),
        ]
        assert told.rows[0].idle == told.rows[0].open > 0
        assert sum(told.rows[0].workers.values()) == 2


async def test_weights_are_those_of_now(gateway: Gateway, path: Path) -> None:
    port = free_port()
    await gateway.push(configuration(1, port=port, rule=HttpRule(backends=(Weighted(backend="b", weight=5),))))
    assert [row.weight for row in (await asked(path, "routes", Routes)).rows] == [5]
    rule = HttpRule(backends=(Weighted(backend="b", weight=95), Weighted(backend="c", weight=5)))
    await gateway.push(configuration(1, port=port, rule=rule, generation=2))
    answer: Routes = await asked(path, "routes", Routes)
    assert ([row.weight for row in answer.rows], answer.generation) == ([95, 5], 2)
    assert [row.share for row in answer.rows] == [0.95, 0.05]


async def test_an_address_that_is_left_out_says_until_when(pair: Gateway, path: Path) -> None:
    port = free_port()
    with Origin.answering(BAD) as canary:
        config = two(1, canary.port, port)
        rule = HttpRule(backends=(Weighted(backend="c", version="canary"),))
        await pair.push(
            Configuration(
                generation=1,
                listeners=config.listeners,
                routes=configuration(port=port, rule=rule).routes,
                backends=config.backends,
            )
        )
        await asyncio.to_thread(send, port, 4)
        (row,) = [row for row in (await asked(path, "backends", Backends)).rows if row.backend == "c"]
        assert (row.state, row.workers) == ("ejected", {"up": 1, "ejected": 1})
        assert 0 < row.ejected_seconds <= 600
        assert row.ejected_until.endswith("Z")
        shown = await command("backends", "--admin-socket", str(path))
        assert "ejected 1/2" in shown.output


async def test_requests_under_way_are_in_flight(gateway: Gateway, path: Path) -> None:
    port, end = free_port(), time.monotonic() + PATIENCE

    def never(sock: socket.socket, number: int) -> None:
        del number
        while sock.recv(65_536):
            pass

    with Origin(never) as origin:
        await gateway.push(configuration(origin.port, port=port))
        with Raw(port) as client:
            client.send(GET)
            while True:
                rows = (await asked(path, "routes", Routes)).rows
                backends = (await asked(path, "backends", Backends)).rows
                if rows[0].measured.in_flight == backends[0].in_flight == 1:
                    break
                assert time.monotonic() < end, "the request is not in flight"
                await asyncio.sleep(0.05)
            assert (await asked(path, "top", Top)).whole.in_flight == 1


async def test_counters_prove_that_bodies_are_spliced(gateway: Gateway, path: Path) -> None:
    port = free_port()
    with Origin.answering(BIG) as origin:
        await gateway.push(configuration(origin.port, port=port))
        await asyncio.to_thread(send, port, 4)
        await until_counted(path, 4)
        counters: Counters = await asked(path, "counters", Counters)
        assert counters.bytes_spliced + counters.bytes_copied == 4 << 20  # each byte of a body is one of both
        assert counters.spliced_share > 0.8
        assert counters.pipes_made + counters.pipes_reused >= 4
        assert counters.pipe_reuse >= 0.5
        assert 0 < counters.buffer_reuse < 1
        shown = await command("top", "--admin-socket", str(path), "--seconds", "300")
        assert "4 requests since the start" in shown.output


async def test_only_the_owner_may_use_the_socket_and_it_goes_with_the_gateway(path: Path) -> None:
    made = Gateway(GatewayOptions(workers=1, admin_socket=path))
    await made.start()
    try:
        assert made.admin_socket == path
        assert [stat.filemode(each.stat().st_mode) for each in (path, path.parent)] == ["srw-------", "drwx------"]
    finally:
        await made.stop()
    assert not path.parent.exists()
    with pytest.raises(CommandError, match="no gateway at"):
        ask(path, "routes", Routes, {})


async def test_a_socket_is_one_gateways_and_no_other_thing_is_overwritten(alone: AdminServer, path: Path) -> None:
    assert alone.path == path
    with pytest.raises(AdminSocketError, match="another gateway has it"):
        await Gateway(GatewayOptions(workers=1, admin_socket=path)).start()
    other = Gateway(GatewayOptions(workers=1))
    with logged(server) as lines:
        assert await server.open_admin(other, path, is_needed=False) is None
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("the gateway goes without an admin socket", f"admin socket {path}: another gateway has it")
    ]
    assert (await asked(path, "routes", Routes)).rows == []
    file = path.with_name("notes")
    file.write_text("mine")
    with pytest.raises(AdminSocketError, match="something else of that name"):
        OwnedSocket(file)
    assert file.read_text() == "mine"
    assert sorted(each.name for each in path.parent.iterdir()) == ["gateway.sock", "gateway.sock.lock", "notes"]


@pytest.mark.usefixtures("alone")
async def test_questions_that_make_no_sense_are_refused(path: Path) -> None:
    cases: tuple[tuple[str, dict[str, str | int], str], ...] = (
        ("routes", {"seconds": 0}, "seconds: '0', want a number from 1 to 300"),
        ("backends", {"seconds": "x"}, "seconds: 'x'"),
        ("top", {"most": 10**20}, "most: "),
        ("top", {"by": "colour"}, "by: 'colour' is none of route, rule, backend, version, region"),
        ("nothing", {}, "there are: /routes /backends /top /counters /metrics"),
    )
    for page, query, wanted in cases:
        with pytest.raises(CommandError, match="admin socket") as caught:
            await asked(path, page, Routes, **query)
        assert wanted in caught.value.message
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"POST /routes HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"405"
    writer.close()


@pytest.mark.usefixtures("alone")
async def test_connections_beyond_what_is_served_get_none_and_the_others_go_on(path: Path) -> None:
    held = [await asyncio.open_unix_connection(path) for _ in range(16)]
    for _, writer in held:
        writer.write(b"GET /rou")
        await writer.drain()
    end = time.monotonic() + PATIENCE
    message = ""
    while not message:
        try:
            await asked(path, "counters", Counters)
        except CommandError as error:
            message = error.message.lower()
        assert time.monotonic() < end, "more connections are served than there should be"
    assert "too many connections" in message or "reset" in message
    held[0][1].write(b"tes HTTP/1.1\r\nhost: x\r\n\r\n")
    assert (await held[0][0].readline()).split()[1] == b"200"
    for _, writer in held:
        writer.close()


async def test_the_metrics_are_those_of_prometheus(gateway: Gateway, path: Path) -> None:
    port = free_port()
    with Origin.answering(OK) as origin:
        await gateway.push(configuration(origin.port, port=port))
        await asyncio.to_thread(send, port, 3)
        await until_counted(path, 3)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    assert 'pilothouse_gateway_requests_total{backend="b",code="200",region="",route="default/r"' in text


async def test_commands_print_tables_json_and_yaml(gateway: Gateway, path: Path) -> None:
    port = free_port()
    where = ("--admin-socket", str(path), "--seconds", "300")
    with Origin.answering(OK) as stable, Origin.answering(OK) as canary:
        await gateway.push(two(stable.port, canary.port, port))
        await asyncio.to_thread(send, port, 10)
        await until_counted(path, 10)
        table = (await command("routes", *where)).output.splitlines()
        assert " ".join(table[0].split()) == (
            "ROUTE RULE HOSTS MATCH BACKEND VERSION WEIGHT RPS ERRORS P50 P95 P99 IN FLIGHT"
        )
        assert table[1].split()[:7] == ["default/r", "0", "*", "/*", "b", "stable", "9"]
        wide = (await command("routes", *where, "-o", "wide")).output.splitlines()
        assert wide[1].split()[:4] == ["default/r", "0", "web", str(port)]
        told = json.loads((await command("routes", *where, "-o", "json")).output)
        assert [(row["version"], row["measured"]["requests"]) for row in told["rows"]] == [("stable", 9), ("canary", 1)]
        assert yaml.safe_load((await command("backends", *where, "-o", "yaml")).output)["rows"][0]["total"] == 9
        top = (await command("top", *where, "--by", "version", "--rows", "1")).output.splitlines()
        assert top[0].startswith("0.0 requests/s over 300 s, 0% errors")
        assert top[3].split()[0] == "VERSION"
        assert top[4].split()[0] == "stable"
        assert top[5] == "… 1 more"
        refused = await command("routes", *where, "--watch", "-o", "json")
        assert (refused.exit_code, "--watch is for tables" in refused.output) == (2, True)


async def test_a_view_that_is_watched_outlives_its_gateway(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Gateway(GatewayOptions(workers=1, admin_socket=path))
    await made.start()
    loop = asyncio.get_running_loop()
    frames: list[list[str]] = []

    def refresh(frame: Any, seconds: float) -> None:
        assert seconds == 1.0
        frames.append(frame())
        asyncio.run_coroutine_threadsafe(made.stop(), loop).result(PATIENCE)
        frames.append(frame())

    monkeypatch.setattr(refreshing, "refresh", refresh)
    assert (await command("routes", "-w", "--admin-socket", str(path))).exit_code == 0
    assert frames[0][0].split()[0] == "ROUTE"
    assert frames[1] == [f"error: no gateway at {path}", "trying again each second; Ctrl-C ends it"]


# What is wrong


def test_no_gateway_no_socket_and_one_left_behind(tmp_path: Path) -> None:
    def explained(path: Path) -> CommandError:
        with pytest.raises(CommandError) as caught:
            ask(path, "routes", Routes, {})
        return caught.value

    missing = explained(tmp_path / "none" / "gateway.sock")
    assert (missing.exit_code, "no gateway at" in missing.message) == (ExitCode.UNAVAILABLE, True)
    assert "pilothouse gateway run" in missing.hint
    file = tmp_path / "file"
    file.write_text("")
    assert explained(file).message == f"{file} is no socket"
    left = tmp_path / "left.sock"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(left))
    behind = explained(left)
    assert (behind.exit_code, "left behind when it was killed" in behind.message) == (ExitCode.UNAVAILABLE, True)
    OwnedSocket(left).close()
    assert not left.exists()


def test_a_gateway_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
        sock.listen()
        with pytest.raises(CommandError, match=r"did not answer within 0.1 s"):
            ask(tmp_path / "s", "routes", Routes, {}, seconds=0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user's socket needs root to be made")
def test_another_users_socket_says_whose_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    owned = OwnedSocket(tmp_path / "s")
    pid = os.fork()
    if pid == 0:  # the parents of tmp_path are closed to others, so it goes there before it gives up its rights
        status = 1
        with contextlib.suppress(BaseException):
            os.chdir(tmp_path)
            os.setgroups([])
            os.setresgid(65_534, 65_534, 65_534)
            os.setresuid(65_534, 65_534, 65_534)
            try:
                ask(Path("s"), "routes", Routes, {})
            except CommandError as error:
                expected = "admin socket s: only user root may ask this gateway"
                status = (
                    0 if (error.message, error.hint) == (expected, "run it as user root, for example by sudo") else 2
                )
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    owned.close()


def test_long_names_of_directories_are_no_hindrance(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 100) / ("e" * 100) / "s"
    owned = OwnedSocket(path)
    assert stat.S_ISSOCK(path.stat().st_mode)
    owned.close()
    assert list(tmp_path.iterdir()) == []


def test_directories_that_cannot_be_made_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AdminSocketError, match=r"cannot be made: (Not a directory|File exists)"):
        OwnedSocket(tmp_path / "file" / "run" / "s")


def test_the_socket_is_in_the_users_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_socket(None) == tmp_path / "pilothouse" / "run" / "gateway.sock"
    assert default_socket(tmp_path / "d") == tmp_path / "d" / "run" / "gateway.sock"


async def test_a_user_without_a_home_names_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("PILOTHOUSE_DATA_DIR", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    shown = await command("top")
    assert (shown.exit_code, "name the gateway's socket with --admin-socket" in shown.output) == (1, True)
    assert control_cli._admin_socket(None, None) is None


# The program


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, int]:
    port = free_port()
    path = tmp_path / "routes.yaml"
    path.write_text(
        f"""
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{name: front}}
spec: {{gatewayClassName: pilothouse, listeners: [{{name: http, port: {port}, protocol: HTTP}}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: web}}
spec: {{parentRefs: [{{name: front}}], rules: [{{backendRefs: [{{name: web, port: 80}}]}}]}}
---
apiVersion: pilothouse.dev/v1alpha1
kind: Backend
metadata: {{name: web}}
spec: {{endpoints: ["127.0.0.1:9"]}}
"""
    )
    return path, port


def test_a_program_that_is_killed_leaves_a_socket_that_the_next_takes_over(
    files: tuple[Path, int], tmp_path: Path
) -> None:
    data = tmp_path / "data"
    python = [sys.executable, "-m", "pilothouse", "gateway"]
    where = ["--data-dir", str(data)]

    def start() -> subprocess.Popen[str]:
        made = subprocess.Popen(
            [*python, "run", "--config", str(files[0]), "--workers", "1", *where], stdout=subprocess.PIPE, text=True
        )
        assert made.stdout is not None
        assert made.stdout.readline() == f"admin socket {data / 'run' / 'gateway.sock'}\n"
        assert made.stdout.readline() == f"HTTP on *:{files[1]} for *\n"
        return made

    def routes() -> subprocess.CompletedProcess[str]:
        return subprocess.run([*python, "routes", *where], capture_output=True, text=True, check=False, timeout=60)

    first = start()
    try:
        assert "default/web" in routes().stdout
    finally:
        first.kill()
        first.communicate()
    told = routes()
    assert (told.returncode, "left behind when it was killed" in told.stderr) == (3, True)
    second = start()
    try:
        assert "default/web" in routes().stdout
        asked_for = [*python, "run", "--config", str(files[0]), "--admin-socket", str(data / "run" / "gateway.sock")]
        refused = subprocess.run(asked_for, capture_output=True, text=True, check=False, timeout=60)
        assert (refused.returncode, "another gateway has it" in refused.stderr) == (5, True)
    finally:
        second.send_signal(signal.SIGTERM)
        second.communicate(timeout=60)
    assert second.returncode == 0
    assert list((data / "run").iterdir()) == []


@pytest.mark.parametrize("name", ["routes", "backends", "top", "run"])
def test_help_has_examples(name: str) -> None:
    shown = CliRunner().invoke(group, [name, "--help"]).output
    assert f"$ pilothouse gateway {name}" in shown
    assert "--admin-socket" in shown
