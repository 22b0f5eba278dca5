"""Certificates in a Secret that copies share, and in a directory: who writes, and what is said where it fails."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pilothouse.client import Client
from pilothouse.foundation import tls
from pilothouse.foundation.clock import FakeClock, SystemClock
from pilothouse.kinds.structs import ObjectMeta, Secret
from pilothouse.operator import CertificateError, CertificatePolicy
from pilothouse.operator.certificates_sources import DirectoryCertificates, SecretCertificates
from pilothouse.testing import ControlPlane
from support.operatorkit import plane_and_client

HOSTS = ("hooks.space.svc",)
POLICY = CertificatePolicy(days=30, ca_days=60)


def source_of(client: Client, clock: FakeClock) -> SecretCertificates:
    return SecretCertificates(client, "default", "hooks", hosts=HOSTS, policy=POLICY, clock=clock)


async def test_of_many_copies_one_writes_and_all_have_the_same() -> None:
    async with plane_and_client(crd=False) as (_, client):
        clock = FakeClock()
        copies = [source_of(client, clock) for _ in range(5)]
        found = await asyncio.gather(*(copy.refresh(trusted=True) for copy in copies))
        assert len({material.serving.certificate for material in found}) == 1
        assert sum(copy.writes for copy in copies) == 1
        secret = await client.get(Secret, "hooks", "default")
        assert secret.type == "kubernetes.io/tls"
        assert set(secret.data) == {"tls.crt", "tls.key", "ca.crt", "ca.key"}
        clock.advance(21 * 86_400)
        renewed = await asyncio.gather(*(copy.refresh(trusted=True) for copy in copies))
        assert len({material.serving.certificate for material in renewed}) == 1
        assert renewed[0].serving != found[0].serving
        assert renewed[0].bundle == found[0].bundle
        assert sum(copy.writes for copy in copies) == 2


async def test_a_secret_without_certificates_is_filled_and_keeps_the_rest() -> None:
    async with plane_and_client(crd=False) as (_, client):
        await client.create(Secret(metadata=ObjectMeta(name="hooks", namespace="default"), data={"note": b"mine"}))
        material = await source_of(client, FakeClock()).refresh(trusted=True)
        secret = await client.get(Secret, "hooks", "default")
        assert secret.data["note"] == b"mine"
        assert secret.data["tls.crt"] == material.serving.certificate


async def test_a_secret_of_somebody_else_is_left_alone() -> None:
    async with plane_and_client(crd=False) as (_, client):
        data = {"tls.crt": b"theirs", "tls.key": b"theirs"}
        await client.create(Secret(metadata=ObjectMeta(name="hooks", namespace="default"), data=data))
        with pytest.raises(CertificateError, match=r"Secret default/hooks: it has tls.crt but no ca.key"):
            await source_of(client, FakeClock()).refresh(trusted=True)
        assert (await client.get(Secret, "hooks", "default")).data == data


async def test_a_secret_that_rbac_hides_names_the_way_out() -> None:
    async with ControlPlane(lifecycle=False) as plane:
        user = plane.as_user("system:serviceaccount:default:operator").user
        async with Client.for_transport(plane.transport, user) as client:
            with pytest.raises(
                CertificateError,
                match=r'Secret default/hooks: .* cannot get resource "secrets".*; grant get, list and watch of secrets '
                r"in namespace default to the operator, or give it certificates by certificate_dir",
            ):
                await source_of(client, FakeClock()).refresh(trusted=True)


async def test_a_namespace_that_there_is_not_is_said() -> None:
    async with plane_and_client(crd=False) as (_, client):
        source = SecretCertificates(client, "nowhere", "hooks", hosts=HOSTS, policy=POLICY, clock=FakeClock())
        with pytest.raises(CertificateError, match=r"Secret nowhere/hooks: cannot be created .*create the namespace"):
            await source.refresh(trusted=True)


async def test_a_directory_is_read_again_when_it_changes(tmp_path: Path) -> None:
    source = DirectoryCertificates(str(tmp_path), hosts=HOSTS, clock=SystemClock())
    with pytest.raises(
        CertificateError, match=r"tls.crt cannot be read \(No such file or directory\); mount the Secret .* leave out"
    ):
        await source.refresh(trusted=True)
    authority = tls.make_ca("outside")
    files = str(tmp_path / "tls.crt"), str(tmp_path / "tls.key")
    first = tls.issue(authority, "a", hosts=HOSTS, server=True)
    tls.write(first, *files)
    found = await source.refresh(trusted=True)
    assert (found.serving, found.bundle) == (first, b"")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    second = tls.issue(authority, "a", hosts=HOSTS, server=True)
    tls.write(second, *files)
    found = await source.refresh(trusted=True)
    assert (found.serving, found.bundle) == (second, authority.certificate)
    (tmp_path / "tls.key").write_bytes(first.key)
    with pytest.raises(
        CertificateError, match=r"the key does not belong to the certificate; renew tls.crt and tls.key"
    ):
        await source.refresh(trusted=True)
    late = DirectoryCertificates(str(tmp_path), hosts=HOSTS, clock=FakeClock(datetime(2100, 1, 1, tzinfo=UTC)))
    tls.write(second, *files)
    with pytest.raises(CertificateError, match="the certificate expired at"):
        await late.refresh(trusted=True)
