"""What is stored is unreadable without its key, and readable with it wherever Kubernetes wrote it."""

from __future__ import annotations

import base64
import json
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.encryption import EncryptionError, Transformer, aes_cbc, aes_gcm, identity
from pilothouse.apiserver.encryption_config import Encryption, rotate

KEY = b"/registry/secrets/default/db"
SECRETS = [bytes([number]) * 32 for number in range(3)]
SECRET_TEXTS = [base64.b64encode(secret).decode() for secret in SECRETS]


def config(*providers: dict[str, Any], resources: Iterable[str] = ("secrets",)) -> dict[str, Any]:
    rule = {"resources": list(resources), "providers": list(providers)}
    return {"apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration", "resources": [rule]}


def keys(kind: str, *numbers: int) -> dict[str, Any]:
    return {kind: {"keys": [{"name": f"key{number}", "secret": SECRET_TEXTS[number]} for number in numbers]}}


@pytest.mark.parametrize("provider", [aes_gcm("a", SECRETS[0]), aes_cbc("a", SECRETS[0]), identity()], ids=str)
@given(value=st.binary(max_size=100))
def test_what_is_encrypted_comes_back(provider: Any, value: bytes) -> None:
    transformer = Transformer("secrets", [provider])
    if value.startswith(b"k8s:enc:"):
        return
    assert transformer.decrypt(KEY, transformer.encrypt(KEY, value)) == (value, False)


def test_the_format_is_that_of_kubernetes() -> None:
    transformer = Transformer("secrets", [aes_gcm("key1", SECRETS[0])])
    stored = transformer.encrypt(KEY, b"value")
    prefix = b"k8s:enc:aesgcm:v1:key1:"
    assert stored.startswith(prefix)
    rest = stored[len(prefix) :]
    assert AESGCM(SECRETS[0]).decrypt(rest[:12], rest[12:], KEY) == b"value"
    nonce = b"n" * 12
    theirs = prefix + nonce + AESGCM(SECRETS[0]).encrypt(nonce, b"other", KEY)
    assert transformer.decrypt(KEY, theirs) == (b"other", False)


def test_no_nonce_comes_twice() -> None:
    transformer = Transformer("secrets", [aes_gcm("a", SECRETS[0])])
    assert len({transformer.encrypt(KEY, b"same")[18:30] for _ in range(1000)}) == 1000


def test_a_value_is_bound_to_its_object() -> None:
    transformer = Transformer("secrets", [aes_gcm("a", SECRETS[0])])
    stored = transformer.encrypt(KEY, b"geheim")
    with pytest.raises(EncryptionError, match="cannot decrypt secrets '/registry/secrets/default/other'") as refused:
        transformer.decrypt(b"/registry/secrets/default/other", stored)
    assert "key 'a' of aesgcm: message authentication failed" in str(refused.value)
    assert "geheim" not in str(refused.value)


@given(st.integers(0, 60), st.integers(1, 255))
def test_a_changed_byte_is_noticed(position: int, flip: int) -> None:
    transformer = Transformer("secrets", [aes_gcm("a", SECRETS[0])])
    stored = bytearray(transformer.encrypt(KEY, b"x" * 20))
    stored[position % len(stored)] ^= flip
    with pytest.raises(EncryptionError):
        transformer.decrypt(KEY, bytes(stored))


@pytest.mark.parametrize("rest", [b"", b"short", b"x" * 16, b"x" * 31, b"x" * 32])
@pytest.mark.parametrize("make", [aes_gcm, aes_cbc])
def test_what_is_cut_is_refused(make: Any, rest: bytes) -> None:
    provider = make("a", SECRETS[0])
    with pytest.raises(EncryptionError):
        Transformer("secrets", [provider]).decrypt(KEY, provider.prefix + rest)


def test_all_keys_read_and_the_first_writes() -> None:
    old = Transformer("secrets", [aes_gcm("key0", SECRETS[0])])
    cbc = Transformer("secrets", [aes_cbc("key0", SECRETS[0])])
    new = Transformer(
        "secrets",
        [aes_gcm("key1", SECRETS[1]), aes_gcm("key0", SECRETS[0]), aes_cbc("key0", SECRETS[0]), identity()],
    )
    for writer in (old, cbc):
        stored = writer.encrypt(KEY, b"v")
        assert new.decrypt(KEY, stored) == (b"v", True)
        assert new.stale(stored)
    assert new.decrypt(KEY, b"{}") == (b"{}", True)
    stored = new.encrypt(KEY, b"v")
    assert new.decrypt(KEY, stored) == (b"v", False)
    assert not new.stale(stored)


def test_two_keys_of_one_name_are_both_tried() -> None:
    stored = Transformer("secrets", [aes_gcm("key", SECRETS[0])]).encrypt(KEY, b"v")
    both = Transformer("secrets", [aes_gcm("key", SECRETS[1]), aes_gcm("key", SECRETS[0])])
    assert both.decrypt(KEY, stored) == (b"v", True)


def test_identity_first_decrypts_everything_step_by_step() -> None:
    plain = Transformer("secrets", [identity(), aes_gcm("a", SECRETS[0])])
    stored = Transformer("secrets", [aes_gcm("a", SECRETS[0])]).encrypt(KEY, b"v")
    assert plain.decrypt(KEY, stored) == (b"v", True)
    assert plain.stale(stored)
    assert plain.encrypt(KEY, b"v") == b"v"
    assert not plain.stale(b"v")


def test_a_missing_key_is_named() -> None:
    transformer = Transformer("secrets", [aes_gcm("new", SECRETS[0])])
    stored = Transformer("secrets", [aes_gcm("old", SECRETS[1])]).encrypt(KEY, b"v")
    with pytest.raises(
        EncryptionError, match="written with key 'old' of aesgcm, which is not configured; add that key"
    ):
        transformer.decrypt(KEY, stored)
    with pytest.raises(EncryptionError, match="written with no encryption"):
        transformer.decrypt(KEY, b"{}")


def test_wear_is_told_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("pilothouse.apiserver.encryption._WRITES", 3)
    transformer = Transformer("secrets", [aes_gcm("worn", SECRETS[0])])
    for _ in range(5):
        transformer.encrypt(KEY, b"")
    output = "".join(capsys.readouterr())
    assert output.count("rotate the encryption keys") == 1
    assert SECRET_TEXTS[0] not in output


def test_a_first_start_makes_a_private_key(tmp_path: Path) -> None:
    path = tmp_path / "pki" / "encryption.json"
    encryption = Encryption.ensure(str(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = encryption.transformer("secrets")
    assert found is not None
    assert found is encryption.transformer("secrets")
    assert encryption.transformer("pods") is None
    stored = found.encrypt(KEY, b"v")
    assert stored.startswith(b"k8s:enc:aesgcm:v1:key1:")
    again = Encryption.ensure(str(path)).transformer("secrets")
    assert again is not None
    assert again.decrypt(KEY, stored) == (b"v", False)
    assert again.decrypt(KEY, b"{}") == (b"{}", True)


def test_a_file_of_kubernetes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "encryption.yaml"
    path.write_text(
        "kind: EncryptionConfiguration\napiVersion: apiserver.config.k8s.io/v1\nresources:\n"
        "- resources: [secrets, '*.apps']\n  providers:\n  - aesgcm:\n      keys:\n"
        f"      - name: key1\n        secret: {SECRET_TEXTS[1]}\n  - identity: {{}}\n"
    )
    encryption = Encryption.load(str(path))
    assert encryption.transformer("deployments.apps") is not None
    assert encryption.transformer("configmaps") is None


def test_wildcards_cover_groups() -> None:
    core = Encryption(config(keys("aesgcm", 0), resources=["*."]))
    assert core.transformer("pods") is not None
    assert core.transformer("deployments.apps") is None
    everything = Encryption(config(keys("aesgcm", 0), resources=["*.*"]))
    assert everything.transformer("deployments.apps") is not None
    assert everything.transformer("pods") is not None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([], "kind: "),
        (config() | {"apiVersion": "v1"}, "apiVersion: Unsupported value"),
        (config() | {"resources": []}, "resources: Required value"),
        (config(), "resources[0].providers: Required value: at least one resources[0].providers is required"),
        (config({}), "resources[0].providers[0]: Invalid value"),
        (config({"aesgcm": {}, "identity": {}}), "more than one provider specified in a single element"),
        (config({"aesgcm": {"keys": []}}), "resources[0].providers[0].aesgcm.keys: Required value"),
        (config({"aesgcm": {"keys": [{"name": "a"}]}}), "aesgcm.keys[0].secret: Required value"),
        (config({"aesgcm": {"keys": [{"secret": SECRET_TEXTS[0]}]}}), "aesgcm.keys[0].name: Required value"),
        (config({"aesgcm": {"keys": [{"name": "a", "secret": "?geheim"}]}}), "secrets must be base64 encoded"),
        (
            config({"aesgcm": {"keys": [{"name": "a", "secret": "Z2VoZWlt"}]}}),
            "secret is not of the expected length, got 6, expected one of [16 24 32]",
        ),
        (config({"secretbox": {"keys": []}}), "providers[0].secretbox: Invalid value"),
        (config(keys("aesgcm", 0), resources=["Secrets"]), "resource name should not contain capital letters"),
        (config(keys("aesgcm", 0), resources=["*"]), "use '*.' to encrypt all the resources"),
    ],
)
def test_bad_configurations_name_the_field_and_no_key(data: Any, text: str) -> None:
    with pytest.raises(EncryptionError) as refused:
        Encryption(data)
    assert text in str(refused.value)
    assert "geheim" not in str(refused.value)
    assert "Z2VoZWlt" not in str(refused.value)


@pytest.mark.parametrize("text", ["a: [geheim", "{geheim"])
def test_what_is_no_configuration_is_not_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "encryption.yaml"
    path.write_text(text)
    with pytest.raises(EncryptionError, match="neither JSON nor YAML") as refused:
        Encryption.load(str(path))
    assert "geheim" not in str(refused.value)


class Stored:
    """Objects as they are stored, written again through the transformer."""

    def __init__(self, encryption: Encryption) -> None:
        self.transformer = encryption.transformer("secrets")
        self.held: dict[bytes, bytes] = {}
        self.stuck = False

    async def list(self, resource: str) -> Iterable[tuple[bytes, bytes]]:
        return list(self.held.items())

    async def rewrite(self, resource: str, key: bytes) -> None:
        if self.transformer is not None and not self.stuck:
            value, _ = self.transformer.decrypt(key, self.held[key])
            self.held[key] = self.transformer.encrypt(key, value)


async def test_rotation_writes_all_and_forgets_old_keys(tmp_path: Path) -> None:
    path = tmp_path / "encryption.json"
    encryption = Encryption.ensure(str(path))
    stored = Stored(encryption)
    assert stored.transformer is not None
    stored.held = {
        f"/{number}".encode(): stored.transformer.encrypt(f"/{number}".encode(), b"v") for number in range(9)
    }
    stored.held[b"/plain"] = b"{}"
    assert await rotate(encryption, ["secrets", "pods"], stored.list, stored.rewrite) == ["key1"]
    assert all(value.startswith(b"k8s:enc:aesgcm:v1:key2:") for value in stored.held.values())
    fresh = Encryption.load(str(path)).transformer("secrets")
    assert fresh is not None
    assert fresh.decrypt(b"/plain", stored.held[b"/plain"]) == (b"{}", False)
    assert "key1" not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_rotation_that_fails_keeps_all_keys(tmp_path: Path) -> None:
    path = tmp_path / "encryption.json"
    encryption = Encryption.ensure(str(path))
    stored = Stored(encryption)
    assert stored.transformer is not None
    stored.held = {KEY: stored.transformer.encrypt(KEY, b"v")}
    stored.stuck = True
    with pytest.raises(EncryptionError, match="1 objects are still not written with the new key, the first is secrets"):
        await rotate(encryption, ["secrets"], stored.list, stored.rewrite)
    stored.stuck = False
    assert await rotate(encryption, ["secrets"], stored.list, stored.rewrite) == ["key1", "key2"]
    assert stored.transformer.decrypt(KEY, stored.held[KEY]) == (b"v", False)
    names = [key["name"] for key in json.loads(path.read_text())["resources"][0]["providers"][0]["aesgcm"]["keys"]]
    assert names == ["key3"]


async def test_only_aesgcm_rotates() -> None:
    with pytest.raises(EncryptionError, match="no key can rotate"):
        Encryption(config({"identity": {}}, keys("aesgcm", 0))).add_key()


def test_a_reload_reaches_what_is_in_use(tmp_path: Path) -> None:
    path = tmp_path / "encryption.json"
    path.write_text(json.dumps(config(keys("aesgcm", 0))))
    encryption = Encryption.load(str(path))
    transformer = encryption.transformer("secrets")
    assert transformer is not None
    stored = transformer.encrypt(KEY, b"v")
    path.write_text(json.dumps(config(keys("aesgcm", 1, 0))))
    encryption.reload()
    assert transformer.decrypt(KEY, stored) == (b"v", True)
    path.write_text("{}")
    with pytest.raises(EncryptionError):
        encryption.reload()
    assert transformer.decrypt(KEY, stored) == (b"v", True)
    path.write_text(json.dumps(config(keys("aesgcm", 2), resources=["configmaps"])))
    encryption.reload()
    assert transformer.decrypt(KEY, stored) == (b"v", True)
    assert transformer.encrypt(KEY, b"v") == b"v"
