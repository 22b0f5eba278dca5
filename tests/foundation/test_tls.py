from __future__ import annotations

import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.files import OsFileSystem
from pilothouse.foundation.ids import SeededIds
from pilothouse.foundation.tls import (
    Credentials,
    ReloadingContext,
    TlsError,
    client_context,
    issue,
    make_ca,
    server_context,
    write,
)


class Files:
    """A CA, a server and a client certificate as files in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.ca = make_ca("test ca")
        self.ca_path = str(directory / "ca.crt")
        write(self.ca, self.ca_path, str(directory / "ca.key"))
        self.server = self.make(
            "server", issue(self.ca, "server", hosts=["localhost", "127.0.0.1", "::1"], server=True)
        )
        self.client = self.make("client", issue(self.ca, "ann", organizations=["devs", "ops"], client=True))

    def make(self, name: str, credentials: Credentials) -> tuple[str, str]:
        paths = str(self.directory / f"{name}.crt"), str(self.directory / f"{name}.key")
        write(credentials, *paths)
        return paths


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def shake_hands(
    server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost"
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """Do a TLS handshake, and the first read that shows a refused client certificate, in memory."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return ours, theirs


def test_mutual_tls_with_alpn(files: Files) -> None:
    server = server_context(*files.server, client_ca=files.ca_path, alpn=["h2", "http/1.1"])
    certificate, key = files.client
    client = client_context(ca=files.ca_path, certificate=certificate, key=key, alpn=["h2"])
    for name in ("localhost", "127.0.0.1", "::1"):
        ours, theirs = shake_hands(server, client, name)
        assert ours.version() == "TLSv1.3"
        assert theirs.selected_alpn_protocol() == "h2"
    shown = theirs.getpeercert(binary_form=True)
    assert shown is not None
    assert x509.load_der_x509_certificate(shown).subject.rfc4514_string() == "CN=ann,O=ops,O=devs"


def test_who_is_not_known_is_refused(files: Files) -> None:
    server = server_context(*files.server, client_ca=files.ca_path)
    certificate, key = files.client
    trusting = client_context(ca=files.ca_path)
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate"):
        shake_hands(server, trusting)
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        shake_hands(server, client_context(ca=files.ca_path, certificate=certificate, key=key), "example.org")
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(server, client_context())
    optional = server_context(*files.server, client_ca=files.ca_path, client_required=False)
    assert shake_hands(optional, trusting)[1].getpeercert() is None
    as_client = server_context(*files.client)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"purpose|mismatch"):
        shake_hands(as_client, trusting)


def test_old_versions_are_refused(files: Files) -> None:
    client = client_context(ca=files.ca_path)
    client.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        client.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        client.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        shake_hands(server_context(*files.server), client)


def test_a_certificate_says_what_it_is_for() -> None:
    clock = FakeClock(datetime(2026, 5, 1, tzinfo=UTC))
    ca = make_ca("ca", days=100, clock=clock, ids=SeededIds(1))
    both = issue(ca, "both", hosts=["a.example"], server=True, client=True, days=365, clock=clock, ids=SeededIds(2))
    made, root = x509.load_pem_x509_certificate(both.certificate), x509.load_pem_x509_certificate(ca.certificate)
    assert made.not_valid_before_utc == clock.now() - timedelta(minutes=5)
    assert made.not_valid_after_utc == root.not_valid_after_utc == clock.now() + timedelta(days=100)
    assert made.serial_number == SeededIds(2).int63()
    assert len(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == 2
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert root.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    made.verify_directly_issued_by(root)


def test_keys_are_private_and_files_whole(files: Files) -> None:
    certificate, key = files.server
    assert stat.S_IMODE(os.stat(key).st_mode) == 0o600
    assert sorted(os.listdir(files.directory)) == sorted(
        f"{name}.{end}" for name in ("ca", "client", "server") for end in ("crt", "key")
    )
    assert "PRIVATE" not in Path(certificate).read_text(encoding="ascii")
    assert "***" in repr(files.ca)
    assert files.ca.key.decode() not in repr(files.ca)


def test_a_failed_write_leaves_the_old_file(files: Files) -> None:
    class Full(OsFileSystem):
        def fsync(self, fd: int) -> None:
            raise OSError(28, "No space left on device")

    certificate, key = files.server
    before = Path(key).read_bytes()
    with pytest.raises(TlsError, match=r"server\.key: cannot be written: No space left"):
        write(files.ca, certificate, key, Full())
    assert Path(key).read_bytes() == before
    assert not [name for name in os.listdir(files.directory) if name.endswith(".tmp")]


def test_renewed_files_are_taken_up_and_broken_ones_are_not(files: Files) -> None:
    reloading = ReloadingContext(*files.server, client_ca=files.ca_path, client_required=False)
    client = client_context(ca=files.ca_path)

    def served() -> int:
        shown = shake_hands(reloading.context, client)[0].getpeercert(binary_form=True)
        assert shown is not None
        return x509.load_der_x509_certificate(shown).serial_number

    first = served()
    assert not reloading.reload_if_changed()
    files.make("server", issue(files.ca, "server", hosts=["localhost"], server=True))
    assert reloading.reload_if_changed()
    second = served()
    assert second != first
    Path(files.server[1]).write_bytes(Path(files.client[1]).read_bytes())
    for _ in range(2):
        with pytest.raises(TlsError, match=r"key file .*server\.key: does not belong to certificate"):
            reloading.reload_if_changed()
    assert served() == second


def test_errors_name_the_file_and_the_field(files: Files) -> None:
    certificate, key = files.server
    with pytest.raises(TlsError, match="certificate file /nowhere: No such file"):
        server_context("/nowhere", key)
    with pytest.raises(TlsError, match="key file /nowhere: No such file"):
        server_context(certificate, "/nowhere")
    with pytest.raises(TlsError, match="does not belong"):
        server_context(certificate, files.client[1])
    with pytest.raises(TlsError, match=r"certificate file .*server\.key: holds no valid PEM"):
        server_context(key, key)
    with pytest.raises(TlsError, match="ca file /nowhere"):
        client_context(ca="/nowhere")
    with pytest.raises(TlsError, match=r"ca file .*server\.key: holds no valid"):
        client_context(ca=key)
    with pytest.raises(TlsError, match="key: not given"):
        client_context(ca=files.ca_path, certificate=certificate)


def test_an_encrypted_key_says_the_way_out(files: Files) -> None:
    certificate, key = files.server
    plain = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    encrypted = plain.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"pass"),
    )
    Path(key).write_bytes(encrypted)
    with pytest.raises(TlsError, match=r"key file .*server\.key: is encrypted; decrypt it first"):
        server_context(certificate, key)


def test_wrong_requests_to_issue() -> None:
    ca, other = make_ca("one"), make_ca("two")
    with pytest.raises(TlsError, match="no usage"):
        issue(ca, "x")
    with pytest.raises(TlsError, match="hosts is empty"):
        issue(ca, "x", server=True)
    with pytest.raises(TlsError, match="neither an address nor an ASCII DNS name"):
        issue(ca, "x", hosts=["bücher.example"], server=True)
    with pytest.raises(TlsError, match="does not belong"):
        issue(Credentials(ca.certificate, other.key), "x", client=True)
    with pytest.raises(TlsError, match="not valid PEM"):
        issue(Credentials(b"", b""), "x", client=True)
    later = FakeClock(datetime(2100, 1, 1, tzinfo=UTC))
    with pytest.raises(TlsError, match="renew the CA"):
        issue(ca, "x", client=True, clock=later)
