from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from pilothouse.apiserver.access import pki as room_of_keys
from pilothouse.apiserver.access.certificates import CertificateError, CertificateUsers
from pilothouse.apiserver.access.kubeconfig import KubeconfigError, kubeconfig, write_kubeconfig
from pilothouse.apiserver.access.pki import SERVICE_ADDRESS, ClientName, Pki, PkiError
from pilothouse.apiserver.access.pkibundle import SHARED, export_bundle, import_bundle
from pilothouse.apiserver.access.signing import unverified
from pilothouse.foundation.clock import FakeClock, SystemClock
from pilothouse.foundation.files import OsFileSystem
from pilothouse.foundation.tls import ReloadingContext, client_context, server_context
from support.loglines import logged

DAY = 86400
ALL = {
    "ca.crt",
    "ca.key",
    "apiserver.crt",
    "apiserver.key",
    "admin.crt",
    "admin.key",
    "apiserver-kubelet-client.crt",
    "apiserver-kubelet-client.key",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "front-proxy-client.crt",
    "front-proxy-client.key",
    "sa.key",
    "sa.pub",
}
MADE = ["ca", "front-proxy-ca", "sa", "apiserver", "admin", "front-proxy-client", "apiserver-kubelet-client"]


class Room:
    def __init__(self, directory: Path, *hosts: str) -> None:
        self.directory = directory
        self.clock = FakeClock()
        self.pki = self.again(*hosts)

    def again(self, *hosts: str) -> Pki:
        return Pki(str(self.directory), hosts, clock=self.clock)

    def certificate(self, name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.directory / f"{name}.crt").read_bytes())

    def der(self, name: str) -> bytes:
        return ssl.PEM_cert_to_DER_cert((self.directory / f"{name}.crt").read_text())

    def user(self, der: bytes) -> str:
        user = CertificateUsers(self.pki.read("ca.crt"), clock=self.clock).user(der)
        assert user is not None
        return user.name


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "pki", "me.example", "10.1.2.3")


def test_the_first_start_makes_all_with_safe_modes(room: Room) -> None:
    assert room.pki.ensure() == MADE
    assert set(os.listdir(room.directory)) == ALL
    assert stat.S_IMODE(room.directory.stat().st_mode) == 0o700
    for name in ALL:
        mode = stat.S_IMODE((room.directory / name).stat().st_mode)
        assert mode == (0o600 if name.endswith(".key") else 0o644), name
    assert room.pki.ensure() == []


def test_who_the_certificates_are_for(room: Room) -> None:
    room.pki.ensure()
    names = room.certificate("apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
    services = {"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
    assert found == {"me.example", "10.1.2.3", "localhost", "127.0.0.1", "::1", SERVICE_ADDRESS, *services}
    users = CertificateUsers(room.pki.read("ca.crt"), clock=room.clock)
    admin = users.user(room.der("admin"))
    assert admin is not None
    assert (admin.name, admin.groups) == ("kubernetes-admin", ("system:masters", "system:authenticated"))
    for other in ("apiserver", "front-proxy-client"):
        with pytest.raises(CertificateError):
            users.user(room.der(other))


def test_programs_of_the_platform_have_certificates_of_their_own(room: Room) -> None:
    def ensured(name: str) -> list[str]:
        agent = ClientName("agent", f"system:node:{name}", ("system:nodes",))
        room.pki = Pki(str(room.directory), clock=room.clock, clients=[agent], service_address="127.96.0.1")
        return room.pki.ensure()

    assert ensured("one") == [*MADE, "agent"]
    user = CertificateUsers(room.pki.read("ca.crt"), clock=room.clock).user(room.der("agent"))
    assert user is not None
    assert (user.name, user.groups) == ("system:node:one", ("system:nodes", "system:authenticated"))
    assert ensured("one") == []
    assert ensured("two") == ["agent"]
    assert room.user(room.der("agent")) == "system:node:two"
    names = room.certificate("apiserver").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "127.96.0.1" in map(str, names.get_values_for_type(x509.IPAddress))


def test_without_the_cas_key_there_are_no_certificates_of_programs(room: Room) -> None:
    room.pki.ensure()
    (room.directory / "ca.key").unlink()
    pki = Pki(str(room.directory), clock=room.clock, clients=[ClientName("agent", "system:node:n")])
    assert pki.ensure() == []
    assert not (room.directory / "agent.crt").exists()


def test_the_keys_work_in_a_handshake(tmp_path: Path) -> None:
    pki = Pki(str(tmp_path), clock=SystemClock())
    pki.ensure()
    server = server_context(pki.path("apiserver.crt"), pki.path("apiserver.key"), client_ca=pki.path("ca.crt"))
    client = client_context(ca=pki.path("ca.crt"), certificate=pki.path("admin.crt"), key=pki.path("admin.key"))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = client.wrap_bio(to_client, to_server, server_hostname="kubernetes.default.svc")
    right = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (left, right):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    der = right.getpeercert(binary_form=True)
    assert der is not None
    user = CertificateUsers(pki.read("ca.crt")).user(der)
    assert user is not None
    assert user.name == "kubernetes-admin"


def test_certificates_are_renewed_before_they_end(room: Room) -> None:
    room.pki.ensure()
    old = room.certificate("apiserver")
    room.clock.advance(240 * DAY)
    assert room.pki.ensure() == []
    room.clock.advance(5 * DAY)
    assert room.pki.ensure() == ["apiserver", "admin", "front-proxy-client", "apiserver-kubelet-client"]
    assert room.certificate("apiserver").not_valid_after_utc > old.not_valid_after_utc


@pytest.fixture
def weekly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at what ends soon less often, so that a year is short."""
    monkeypatch.setattr("pilothouse.apiserver.access.pki._CHECK_EVERY", 5.0 * DAY)


@pytest.mark.usefixtures("weekly")
async def test_they_are_renewed_while_the_server_runs(tmp_path: Path) -> None:
    room = Room(tmp_path / "pki")
    room.pki.ensure()
    told: list[list[str]] = []
    task = asyncio.create_task(room.pki.run(lambda names: told.append(list(names))))
    await room.clock.run(240 * DAY)
    assert told == []
    (room.directory / "ca.key").rename(room.directory / "aside")
    (room.directory / "ca.crt").write_text("nonsense")
    with logged(room_of_keys) as logs:
        await room.clock.run(5 * DAY)
    assert any(entry["log_level"] in {"error", "warning"} for entry in logs)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.usefixtures("weekly")
async def test_a_serving_context_takes_up_what_was_renewed(tmp_path: Path) -> None:
    room = Room(tmp_path / "pki")
    room.pki.ensure()
    paths = room.pki.path("apiserver.crt"), room.pki.path("apiserver.key")
    context = ReloadingContext(*paths, client_ca=room.pki.path("ca.crt"))
    reloads: list[bool] = []
    task = asyncio.create_task(room.pki.run(lambda names: reloads.append(context.reload_if_changed())))
    await room.clock.run(250 * DAY)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert reloads == [True]


def test_another_host_makes_another_serving_certificate(room: Room) -> None:
    room.pki.ensure()
    assert room.again("me.example", "10.1.2.3").ensure() == []
    assert room.again("other.example").ensure() == ["apiserver"]


def test_addresses_and_names_are_compared_as_what_they_are(room: Room) -> None:
    hosts = ("0:0:0:0:0:0:0:5", "ME.Example")
    room.again(*hosts).ensure()
    assert room.again(*hosts).ensure() == []


@pytest.mark.parametrize("damage", ["missing key", "missing certificate", "foreign key", "nonsense"])
def test_what_is_damaged_is_made_anew(room: Room, damage: str) -> None:
    room.pki.ensure()
    certificate, key = room.directory / "admin.crt", room.directory / "admin.key"
    if damage == "missing key":
        key.unlink()
    elif damage == "missing certificate":
        certificate.unlink()
    elif damage == "foreign key":
        key.write_bytes((room.directory / "apiserver.key").read_bytes())
    else:
        certificate.write_text("nonsense")
    assert room.pki.ensure() == ["admin"]
    assert room.user(room.der("admin")) == "kubernetes-admin"


def test_an_authority_that_was_used_is_not_replaced_in_silence(room: Room) -> None:
    room.pki.ensure()
    (room.directory / "ca.crt").unlink()
    with pytest.raises(PkiError, match=r"ca.crt: is missing, but apiserver.crt is there"):
        room.pki.ensure()


def test_an_authority_cut_off_while_it_was_made_is_made_again(room: Room) -> None:
    room.directory.mkdir()
    (room.directory / "ca.key").write_bytes(b"of a start that was killed")
    assert room.pki.ensure() == MADE


def test_keys_that_do_not_match_are_told(room: Room) -> None:
    room.pki.ensure()
    (room.directory / "ca.key").write_bytes((room.directory / "sa.key").read_bytes())
    with pytest.raises(PkiError, match=r"no certificate in it belongs to ca.key"):
        room.pki.ensure()
    (room.directory / "ca.key").write_text("nonsense")
    with pytest.raises(PkiError, match=r"ca.key: is no unencrypted PEM private key"):
        room.pki.ensure()


def test_a_foreign_authority_is_used_without_its_key(room: Room) -> None:
    room.pki.ensure()
    (room.directory / "ca.key").unlink()
    assert room.pki.ensure() == []
    with pytest.raises(PkiError, match="what this CA signs cannot be signed here"):
        room.pki.authority()
    room.clock.advance(300 * DAY)
    with logged(room_of_keys) as logs:
        assert room.pki.ensure() == ["front-proxy-client"]
    assert {entry["file"] for entry in logs if "file" in entry} == {"apiserver", "admin", "apiserver-kubelet-client"}
    (room.directory / "admin.crt").unlink()
    with pytest.raises(PkiError, match=r"without ca.key it cannot be made here"):
        room.pki.ensure()


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PkiError, match="file"):
        Pki(str(tmp_path / "file" / "pki")).ensure()


def test_an_authority_is_exchanged_in_three_steps(room: Room) -> None:
    room.pki.ensure()
    old_admin, old_ca = room.der("admin"), room.pki.read("ca.crt")
    assert room.pki.rotate_ca() == "announced"
    assert room.pki.ensure() == []
    assert room.pki.read("ca.crt").startswith(old_ca)
    assert room.pki.read("ca.crt").count(b"BEGIN") == 2
    with pytest.raises(PkiError, match="does not sign yet"):
        room.pki.retire_ca()
    assert room.pki.rotate_ca() == "switched"
    new_admin = room.der("admin")
    assert new_admin != old_admin
    assert room.user(old_admin) == room.user(new_admin) == "kubernetes-admin"
    assert set(os.listdir(room.directory)) == ALL
    # who still has the old ca.crt believed both from the first step on; who has the first step's believes the new
    room.pki.retire_ca()
    assert room.user(new_admin) == "kubernetes-admin"
    with pytest.raises(CertificateError, match="unknown authority"):
        room.user(old_admin)
    assert room.pki.ensure() == []


@pytest.mark.parametrize("stop", range(1, 12))
def test_an_exchange_that_is_killed_is_finished_later(tmp_path: Path, stop: int) -> None:
    class Killed(BaseException):
        pass

    class Dying(OsFileSystem):
        left = 10**9

        def rename(self, source: str, target: str) -> None:
            self._step()
            super().rename(source, target)

        def unlink(self, path: str) -> None:
            if not path.endswith(".tmp"):
                self._step()
            super().unlink(path)

        def _step(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Killed

    files, clock = Dying(), FakeClock()
    pki = Pki(str(tmp_path), clock=clock, files=files)
    pki.ensure()
    old = CertificateUsers(pki.read("ca.crt"), clock=clock)
    admin = ssl.PEM_cert_to_DER_cert(pki.read("admin.crt").decode())
    assert old.user(admin) is not None
    files.left = stop
    try:
        steps = [pki.rotate_ca(), pki.rotate_ca()]
    except Killed:
        steps = []
    files.left = 10**9
    pki.ensure()
    for _ in range(3):
        if "switched" in steps:
            break
        steps.append(pki.rotate_ca())
    assert "switched" in steps
    users = CertificateUsers(pki.read("ca.crt"), clock=clock)
    assert users.user(admin) is not None
    fresh = users.user(ssl.PEM_cert_to_DER_cert(pki.read("admin.crt").decode()))
    assert fresh is not None
    assert pki.ensure() == []


def test_the_key_of_tokens_is_exchanged(room: Room) -> None:
    room.pki.ensure()
    old = room.pki.key_ring().sign({"a": 1})
    room.pki.rotate_signing_key()
    ring = room.pki.key_ring()
    assert ring.verify(old) == {"a": 1}
    new = ring.sign({"a": 2})
    assert unverified(new) == {"a": 2}
    room.pki.retire_signing_keys()
    ring = room.pki.key_ring()
    assert ring.verify(new) == {"a": 2}
    with pytest.raises(ValueError, match="no keys found"):
        ring.verify(old)
    assert room.pki.ensure() == []


def test_a_lost_key_of_tokens_is_not_replaced_in_silence(room: Room) -> None:
    room.pki.ensure()
    (room.directory / "sa.key").unlink()
    with pytest.raises(PkiError, match=r"sa.key: is missing, but not sa.pub"):
        room.pki.ensure()
    with pytest.raises(PkiError, match=r"sa.key: is missing; start the server once"):
        room.pki.key_ring()


@pytest.mark.parametrize("key", [None, b"k" * 32])
def test_another_server_joins_with_a_bundle(tmp_path: Path, key: bytes | None) -> None:
    first, second = Room(tmp_path / "one", "one"), Room(tmp_path / "two", "two")
    first.pki.ensure()
    bundle = export_bundle(first.pki, key)
    assert (b"PRIVATE" in bundle) is (key is None)
    assert import_bundle(str(second.directory), bundle, key) == list(SHARED)
    assert second.pki.ensure() == ["apiserver", "admin", "front-proxy-client", "apiserver-kubelet-client"]
    assert first.user(second.der("admin")) == "kubernetes-admin"
    assert second.pki.key_ring().verify(first.pki.key_ring().sign({"a": 1})) == {"a": 1}
    assert import_bundle(str(second.directory), bundle, key) == []
    for name in ("ca.key", "sa.key"):
        assert stat.S_IMODE((second.directory / name).stat().st_mode) == 0o600


def test_a_bundle_into_a_cluster_of_its_own_replaces_its_keys(tmp_path: Path) -> None:
    first, second = Room(tmp_path / "one"), Room(tmp_path / "two")
    first.pki.ensure()
    second.pki.ensure()
    import_bundle(str(second.directory), export_bundle(first.pki))
    assert second.pki.ensure() == ["apiserver", "admin", "front-proxy-client", "apiserver-kubelet-client"]


@pytest.mark.parametrize(
    ("bundle", "told"),
    [
        (b"", "is no bundle of keys"),
        (b"[]", "is no bundle of keys"),
        (b"x" * (1 << 21), "at most 1048576 are read"),
        (json.dumps({"version": 2}).encode(), "has version 2; this program reads version 1"),
        (json.dumps({"version": 1, "files": {"ca.crt": "x"}}).encode(), "is not whole"),
        (json.dumps({"version": 1, "files": {"../../etc/passwd": "x"}}).encode(), "is not whole"),
    ],
)
def test_a_wrong_bundle_writes_nothing(tmp_path: Path, bundle: bytes, told: str) -> None:
    with pytest.raises(PkiError, match=told):
        import_bundle(str(tmp_path / "pki"), bundle)
    assert not (tmp_path / "pki").exists()


def test_a_bundle_is_bound_to_its_key(room: Room) -> None:
    room.pki.ensure()
    bundle = export_bundle(room.pki, b"k" * 32)
    for key, told in ((None, "is encrypted"), (b"x" * 32, "cannot be decrypted"), (b"x", "has 1 bytes")):
        with pytest.raises(PkiError, match=told):
            import_bundle(str(room.directory), bundle, key)
    for damaged in (bundle[:-1], bundle[:20], bundle[:-1] + b"\0"):
        with pytest.raises(PkiError, match="cannot be decrypted"):
            import_bundle(str(room.directory), damaged, b"k" * 32)
    with pytest.raises(PkiError, match="has 3 bytes"):
        export_bundle(room.pki, b"abc")


def test_a_kubeconfig_is_for_the_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "admin.kubeconfig"
    write_kubeconfig(str(path), "https://host:6443", b"CA", b"CERT", b"KEY", name='na"me: x', namespace="team")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["admin.kubeconfig"]
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    assert found == {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": 'na"me: x',
        "preferences": {},
        "clusters": [
            {
                "name": 'na"me: x',
                "cluster": {
                    "server": "https://host:6443",
                    "certificate-authority-data": base64.b64encode(b"CA").decode(),
                },
            }
        ],
        "contexts": [{"name": 'na"me: x', "context": {"cluster": 'na"me: x', "user": "admin", "namespace": "team"}}],
        "users": [
            {
                "name": "admin",
                "user": {
                    "client-certificate-data": base64.b64encode(b"CERT").decode(),
                    "client-key-data": base64.b64encode(b"KEY").decode(),
                },
            }
        ],
    }


def test_a_kubeconfig_with_a_token() -> None:
    found = yaml.safe_load(kubeconfig("http://127.0.0.1:1", b"", token="a: b", user="u"))
    assert found["users"] == [{"name": "u", "user": {"token": "a: b"}}]
    assert found["clusters"][0]["cluster"] == {"server": "http://127.0.0.1:1"}


def test_a_kubeconfig_has_one_way_to_prove_who_one_is(tmp_path: Path) -> None:
    for user in ({}, {"certificate": b"c"}, {"key": b"k"}, {"certificate": b"c", "key": b"k", "token": "t"}):
        with pytest.raises(KubeconfigError, match="user: "):
            kubeconfig("https://x", b"CA", **user)
    (tmp_path / "file").write_text("")
    with pytest.raises(KubeconfigError, match="cannot be written"):
        write_kubeconfig(str(tmp_path / "file" / "config"), "https://x", b"CA", token="t")
