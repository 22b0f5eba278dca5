"""The API server as a program: kubeconfigs of the platform's processes, and where it says that it is reached."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from pilothouse.apiserver import program as room
from pilothouse.apiserver.access.pki import Pki
from pilothouse.apiserver.allocation import AllocationOptions
from pilothouse.apiserver.options import ServerOptions
from pilothouse.apiserver.program import Program, ProgramOptions
from pilothouse.client import Client
from pilothouse.client.kubeconfig import load_kubeconfig
from pilothouse.foundation.clock import FakeClock, SystemClock
from pilothouse.foundation.metrics import Metrics
from pilothouse.kinds.structs import ConfigMap, Endpoints, EndpointSlice, SelfSubjectReview
from pilothouse.store import StoreError
from support.apiserverkit import until

ALL = "0.0.0.0"  # TLS, for as long as the test takes


@asynccontextmanager
async def running(directory: Path, *, server: dict[str, Any] | None = None, **options: Any) -> AsyncIterator[Program]:
    settings = ServerOptions(metrics=Metrics(), **(server or {}))
    program = await Program.start(ProgramOptions(data_dir=str(directory), port=0, server=settings, **options))
    try:
        await program.server.background.wait_started()
        yield program
    finally:
        await program.close()


async def who(path: Path) -> tuple[str, tuple[str, ...]]:
    async with Client.from_config(load_kubeconfig(path)) as client:
        user = (await client.create(SelfSubjectReview())).status.user_info
    return user.username, tuple(user.groups)


def hosts(program: Program) -> set[str]:
    certificate = x509.load_pem_x509_certificate(program.pki.read("apiserver.crt"))
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


async def test_processes_of_the_platform_come_as_themselves(tmp_path: Path) -> None:
    async with running(tmp_path, components=True, node="one"):
        for name in ("admin", "controllers", "agent"):
            assert stat.S_IMODE((tmp_path / f"{name}.kubeconfig").stat().st_mode) == 0o600
        assert await who(tmp_path / "controllers.kubeconfig") == (
            "system:pilothouse:controllers",
            ("system:authenticated",),
        )
        assert await who(tmp_path / "agent.kubeconfig") == (
            "system:node:one",
            ("system:nodes", "system:authenticated"),
        )
    async with running(tmp_path, node="two"):
        assert (await who(tmp_path / "agent.kubeconfig"))[0] == "system:node:two"


async def test_a_bare_server_writes_the_administrators_alone(tmp_path: Path) -> None:
    async with running(tmp_path) as program:
        assert [each for each in os.listdir(tmp_path) if each.endswith(".kubeconfig")] == ["admin.kubeconfig"]
        assert program.server.view.get("clusterroles.rbac.authorization.k8s.io", "", "system:node") is not None
        roles = program.server.view.list("clusterroles.rbac.authorization.k8s.io")
        assert not [each for each in roles if "pilothouse" in each["metadata"]["name"]]


async def test_kubeconfigs_follow_when_the_ca_is_exchanged(tmp_path: Path) -> None:
    clock = FakeClock(SystemClock().now())
    async with running(tmp_path, node="one", server={"clock": clock}) as program:
        before = (tmp_path / "agent.kubeconfig").read_bytes()
        others = Pki(str(tmp_path / "pki"), clock=clock)
        assert others.rotate_ca() == "announced"
        await clock.run(11)
        announced = (tmp_path / "agent.kubeconfig").read_bytes()
        assert others.rotate_ca() == "switched"
        await clock.run(11)
        assert len({before, announced, (tmp_path / "agent.kubeconfig").read_bytes()}) == 3
        authority = x509.load_pem_x509_certificate(program.pki.authority().certificate)
        x509.load_pem_x509_certificate(program.pki.read("agent.crt")).verify_directly_issued_by(authority)
        assert await who(tmp_path / "agent.kubeconfig") == (
            "system:node:one",
            ("system:nodes", "system:authenticated"),
        )


async def test_a_server_on_all_addresses_is_found_at_the_machines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "own_address", lambda: "192.0.2.7")
    monkeypatch.setattr(room, "own_addresses", lambda: ("192.0.2.7", "198.51.100.7"))
    monkeypatch.setattr("socket.gethostname", lambda: "Machine_One")
    services = {"allocation": AllocationOptions("10.112.0.0/16")}
    async with running(tmp_path, host=ALL, server=services) as program:
        assert hosts(program) >= {"192.0.2.7", "198.51.100.7", "10.112.0.1", "127.0.0.1"}
        assert "machine_one" not in hosts(program)  # no name of a certificate has such a letter
        assert load_kubeconfig(tmp_path / "admin.kubeconfig").server.startswith("https://127.0.0.1:")
        assert await published(program) == ("192.0.2.7", "192.0.2.7")


async def test_where_it_is_reached_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Machine-One")
    async with running(tmp_path, host=ALL, advertise="192.0.2.9") as program:
        assert hosts(program) >= {"192.0.2.9", "machine-one"}
        assert await published(program) == ("192.0.2.9", "192.0.2.9")
    async with running(tmp_path, advertise="192.0.2.10") as program:
        assert await published(program, "192.0.2.10") == ("192.0.2.10", "192.0.2.10")


async def test_loopback_is_published_only_where_pods_share_it(tmp_path: Path) -> None:
    async with running(tmp_path / "a", server={"loopback_endpoints": True}) as program:
        assert await published(program) == ("127.0.0.1", "127.0.0.1")
    async with running(tmp_path / "b") as program:
        view = program.server.view
        await until(lambda: view.get("services", "default", "kubernetes") is not None)
        assert view.get("endpointslices.discovery.k8s.io", "default", "kubernetes") is None


async def published(program: Program, wanted: str = "") -> tuple[str, str]:
    """Return the addresses of the service `kubernetes`: of its slice, of its Endpoints."""
    view = program.server.view

    def there() -> bool:
        found = view.get("endpointslices.discovery.k8s.io", "default", "kubernetes")
        return found is not None and (not wanted or found["endpoints"][0]["addresses"] == [wanted])

    await until(there)
    async with Client.from_config(load_kubeconfig(program.kubeconfig)) as client:
        part = await client.get(EndpointSlice, "kubernetes", "default")
        whole = await client.get(Endpoints, "kubernetes", "default")
    return part.endpoints[0].addresses[0], whole.subsets[0].addresses[0].ip


async def test_the_platform_tells_strangers_where_it_is_now(tmp_path: Path) -> None:
    platform = {"platform": True}
    async with running(tmp_path, advertise="192.0.2.9", server=platform) as program:
        first = await told(program, "192.0.2.9")
        assert base64.b64encode(program.pki.read("ca.crt")).decode() in first
        async with Client.from_config(load_kubeconfig(program.kubeconfig)) as client:
            kept = {"data": {"jws-kubeconfig-abcdef": "somebody's"}}
            await client.patch(ConfigMap, "cluster-info", kept, "kube-public")
    async with running(tmp_path, advertise="192.0.2.10", server=platform) as program:
        await told(program, "192.0.2.10")
        found = program.server.view.get("configmaps", "kube-public", "cluster-info")
        assert found is not None
        assert found["data"]["jws-kubeconfig-abcdef"] == "somebody's"
    async with running(tmp_path / "bare") as program:
        await until(lambda: program.server.view.get("services", "default", "kubernetes") is not None)
        assert program.server.view.get("configmaps", "kube-public", "cluster-info") is None


async def told(program: Program, address: str) -> str:
    """Wait until strangers are told of an address, and return the whole text."""

    def text() -> str:
        found = program.server.view.get("configmaps", "kube-public", "cluster-info")
        return "" if found is None else str(found["data"]["kubeconfig"])

    await until(lambda: f"https://{address}:" in text())
    return text()


async def test_what_cannot_start_is_closed_again(tmp_path: Path) -> None:
    async with running(tmp_path):
        with pytest.raises(StoreError):
            await Program.start(ProgramOptions(data_dir=str(tmp_path), port=0))
