"""The keys of encryption at rest: Kubernetes' EncryptionConfiguration, made on first start and rotated."""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import stat
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from pilothouse.apiserver.encryption import EncryptionError, Provider, Transformer, aes_cbc, aes_gcm, identity
from pilothouse.foundation import logs
from pilothouse.foundation.files import FileSystem, OsFileSystem, write_all
from pilothouse.kinds.fielderrors import ErrorList, Path

__all__ = ["Encryption", "rotate"]

_VERSIONS: Final = ("apiserver.config.k8s.io/v1", "apiserver.k8s.io/v1")
_KINDS: Final = ("kms", "aesgcm", "aescbc", "secretbox", "identity")
_SIZES: Final = (16, 24, 32)
_KEY_BYTES = 32
_PASSES = 5
_LARGEST = 1024 * 1024
_log = logs.get_logger(__name__)


class Encryption:
    """One configuration and the transformers made of it. Its file is the truth; `reload` reads it again."""

    def __init__(self, data: Mapping[str, Any], path: str = "(given)", files: FileSystem | None = None) -> None:
        """Use a decoded EncryptionConfiguration. Raises EncryptionError, which names the file and the field."""
        self.path = path
        self._files = files or OsFileSystem()
        self._data: dict[str, Any] = {}
        self._rules: list[tuple[tuple[str, ...], list[Provider]]] = []
        self._transformers: dict[str, Transformer] = {}
        self._use(data)

    @classmethod
    def load(cls, path: str, files: FileSystem | None = None) -> Encryption:
        """Read a configuration from a JSON or YAML file. Raises EncryptionError."""
        files = files or OsFileSystem()
        return cls(_read(path, files), path, files)

    @classmethod
    def ensure(cls, path: str, resources: Sequence[str] = ("secrets",), files: FileSystem | None = None) -> Encryption:
        """Read the configuration, or make one (mode 0600) with a new key where there is none.

        What was stored before is read as plain text and is stale, so that it gets encrypted.
        """
        files = files or OsFileSystem()
        if not files.exists(path):
            providers = [{"aesgcm": {"keys": [_new_key(())]}}, {"identity": {}}]
            rule = {"resources": list(resources), "providers": providers}
            _write(path, {"kind": "EncryptionConfiguration", "apiVersion": _VERSIONS[0], "resources": [rule]}, files)
        return cls.load(path, files)

    def transformer(self, resource: str) -> Transformer | None:
        """Return what encrypts a resource (`secrets`, `deployments.apps`); None where it is kept plain."""
        found = self._transformers.get(resource)
        if found is None and (providers := self._providers(resource)):
            found = self._transformers[resource] = Transformer(resource, providers)
        return found

    def key_names(self) -> list[str]:
        """Return the names of all keys, sorted."""
        return sorted(_names(self._data))

    def reload(self) -> None:
        """Read the file again and go by it. Raises EncryptionError, and then stays as it is."""
        self._use(_read(self.path, self._files))

    def add_key(self) -> str:
        """Put a new key before the others wherever AES-GCM writes; keep it in the file, then use it.

        Returns its name. Raises EncryptionError where nothing is encrypted with AES-GCM.
        """
        key: dict[str, str] | None = None
        data = _copy(self._data)
        for rule in data["resources"]:
            first = rule["providers"][0]
            if "aesgcm" in first:
                key = key or _new_key(_names(data))
                first["aesgcm"]["keys"].insert(0, dict(key))
        if key is None:
            raise EncryptionError(
                f"encryption {self.path}: no resource has `aesgcm` as its first provider, so no key can rotate"
            )
        _write(self.path, data, self._files)
        self._use(data)
        return key["name"]

    def prune(self) -> list[str]:
        """Forget all keys but those that write; only after everything was written again. Returns their names."""
        data = _copy(self._data)
        for rule in data["resources"]:
            first = rule["providers"][0]
            for settings in first.values():
                if isinstance(settings, dict) and settings.get("keys"):
                    settings["keys"] = settings["keys"][:1]
            # Other resources may still be kept plain, and new rules may cover what was: reading that stays possible.
            rule["providers"] = [first, *({"identity": {}} for each in rule["providers"][1:] if "identity" in each)]
        gone = sorted(_names(self._data) - _names(data))
        _write(self.path, data, self._files)
        self._use(data)
        return gone

    def _use(self, data: Mapping[str, Any]) -> None:
        errors = _check(data)
        if errors:
            raise EncryptionError(f"encryption {self.path}: {errors.message()}")
        rules = [
            (tuple(rule["resources"]), [each for part in rule["providers"] for each in _make(part)])
            for rule in data["resources"]
        ]
        self._data, self._rules = _copy(data), rules
        for resource, transformer in self._transformers.items():
            # What is no longer named must stay readable; it is written plain.
            former = [provider for _, provider in transformer._providers]
            transformer.use(self._providers(resource) or [identity(), *former])

    def _providers(self, resource: str) -> list[Provider]:
        """Return the providers of all rules that name a resource, in order, as Kubernetes does."""
        group = resource.partition(".")[2]
        names = {resource, f"*.{group}", "*.*"}
        return [each for resources, providers in self._rules if names.intersection(resources) for each in providers]


async def rotate(
    encryption: Encryption,
    resources: Iterable[str],
    list_stored: Callable[[str], Awaitable[Iterable[tuple[bytes, bytes]]]],
    rewrite: Callable[[str, bytes], Awaitable[None]],
) -> list[str]:
    """Replace the key: add a new one, write every object of the resources again, forget the old ones.

    list_stored: gives key and stored bytes of each object of a resource. rewrite: writes one object again, unchanged;
    one that is gone meanwhile is fine. May be called again after a crash at any point. Returns the names of the keys
    that are gone. Raises EncryptionError where objects stay stale; then all keys are kept.
    """
    encryption.add_key()
    todo = {name: found for name in resources if (found := encryption.transformer(name)) is not None}
    left: list[tuple[str, bytes]] = []
    for _ in range(_PASSES):
        left = []
        for name, transformer in todo.items():
            left += [(name, key) for key, stored in await list_stored(name) if transformer.stale(stored)]
        if not left:
            return encryption.prune()
        for name, key in left:
            await rewrite(name, key)
    name, key = left[0]
    raise EncryptionError(
        f"rotation: {len(left)} objects are still not written with the new key, the first is {name} "
        f"{key.decode(errors='replace')!r}; all keys are kept, rotate again"
    )


def _read(path: str, files: FileSystem) -> Any:
    try:
        mode = files.mode(path)
        fd = files.open(path, os.O_RDONLY)
        try:
            raw = files.pread(fd, _LARGEST, 0)
        finally:
            files.close(fd)
    except OSError as error:
        raise EncryptionError(f"encryption {path}: {error.strerror or error}") from error
    if stat.S_IMODE(mode) & 0o077:
        _log.warning("others can read the encryption keys; chmod 600 the file", file=path)
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    import yaml  # noqa: PLC0415 - what is made here is JSON

    try:
        return yaml.safe_load(raw)
    except (yaml.YAMLError, UnicodeDecodeError):
        # The parser's own text quotes the line, which may hold a key.
        raise EncryptionError(f"encryption {path}: neither JSON nor YAML") from None


def _write(path: str, data: Mapping[str, Any], files: FileSystem) -> None:
    """Replace the file whole, durably and before any value is written with its keys."""
    body = msgspec.json.format(msgspec.json.encode(data), indent=2) + b"\n"
    folder, temporary = os.path.dirname(os.path.abspath(path)), f"{path}.tmp"
    try:
        files.makedirs(folder)
        with contextlib.suppress(FileNotFoundError):
            files.unlink(temporary)
        fd = files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            write_all(files.pwrite, fd, body, 0)
            files.fsync(fd)
        finally:
            files.close(fd)
        files.rename(temporary, path)
        files.sync_directory(folder)
    except OSError as error:
        raise EncryptionError(f"encryption {path}: cannot write it: {error.strerror or error}") from error


def _copy(data: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(data))
    return found


def _new_key(taken: Iterable[str]) -> dict[str, str]:
    numbers = [int(name[3:]) for name in taken if name.startswith("key") and name[3:].isdecimal()]
    secret = base64.b64encode(os.urandom(_KEY_BYTES)).decode()
    return {"name": f"key{max(numbers, default=0) + 1}", "secret": secret}


def _names(data: Mapping[str, Any]) -> set[str]:
    return {
        key["name"]
        for rule in data["resources"]
        for provider in rule["providers"]
        for settings in provider.values()
        for key in (settings or {}).get("keys") or ()
    }


def _make(part: Mapping[str, Any]) -> list[Provider]:
    ((kind, settings),) = part.items()
    if kind == "identity":
        return [identity()]
    make = aes_gcm if kind == "aesgcm" else aes_cbc
    return [make(key["name"], base64.b64decode(key["secret"])) for key in settings["keys"]]


def _check(data: Any) -> ErrorList:
    errors, root = ErrorList(), Path("resources")
    if not isinstance(data, Mapping) or data.get("kind") != "EncryptionConfiguration":
        errors.invalid(Path("kind"), "", "must be EncryptionConfiguration")
        return errors
    if data.get("apiVersion") not in _VERSIONS:
        errors.not_supported(Path("apiVersion"), str(data.get("apiVersion")), _VERSIONS)
    rules = data.get("resources")
    if not isinstance(rules, list) or not rules:
        errors.required(root, "at least one resources is required")
        return errors
    for position, rule in enumerate(rules):
        _check_rule(errors, root.index(position), rule)
    return errors


def _check_rule(errors: ErrorList, at: Path, rule: Any) -> None:
    rule = rule if isinstance(rule, Mapping) else {}
    for field in ("resources", "providers"):
        if not isinstance(rule.get(field), list) or not rule[field]:
            errors.required(at.child(field), f"at least one {at.child(field)} is required")
            return
    for index, name in enumerate(rule["resources"]):
        _check_name(errors, at.child("resources").index(index), str(name))
    for index, part in enumerate(rule["providers"]):
        _check_provider(errors, at.child("providers").index(index), part)


def _check_name(errors: ErrorList, at: Path, name: str) -> None:
    if name != name.lower():
        errors.invalid(at, name, "resource name should not contain capital letters")
    elif name == "*":
        text = "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources"
        errors.invalid(at, name, text)
    elif name.endswith(".events.k8s.io"):
        text = "objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file"
        errors.invalid(at, name, f"'*.events.k8s.io' {text}")


def _check_provider(errors: ErrorList, at: Path, part: Any) -> None:
    kinds = [kind for kind in _KINDS if isinstance(part, Mapping) and kind in part]
    if not kinds:
        text = "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"
        errors.invalid(at, "REDACTED", text)
    elif len(part) > 1:
        text = "more than one provider specified in a single element, should split into different list elements"
        errors.invalid(at, "REDACTED", text)
    elif kinds[0] in {"kms", "secretbox"}:
        text = "is not supported here: write the objects again with an aesgcm key first, then remove this provider"
        errors.invalid(at.child(kinds[0]), "REDACTED", text)
    elif kinds[0] != "identity":
        settings = part[kinds[0]]
        keys = settings.get("keys") if isinstance(settings, Mapping) else None
        place = at.child(kinds[0], "keys")
        if not isinstance(keys, list) or not keys:
            errors.required(place, "at least one keys is required")
            return
        for index, key in enumerate(keys):
            _check_key(errors, place.index(index), key if isinstance(key, Mapping) else {})


def _check_key(errors: ErrorList, at: Path, key: Mapping[str, Any]) -> None:
    name, secret = key.get("name"), key.get("secret")
    if not isinstance(name, str) or not name:
        errors.required(at.child("name"), "name is a mandatory field for a key")
    elif ":" in name:
        errors.invalid(at.child("name"), name, "must not contain ':'")
    if not isinstance(secret, str) or not secret:
        errors.required(at.child("secret"), "secret is a mandatory field for a key")
        return
    try:
        size = len(base64.b64decode(secret, validate=True))
    except (binascii.Error, ValueError):
        errors.invalid(at.child("secret"), "REDACTED", "secrets must be base64 encoded")
        return
    if size not in _SIZES:
        sizes = " ".join(map(str, _SIZES))
        text = f"secret is not of the expected length, got {size}, expected one of [{sizes}]"
        errors.invalid(at.child("secret"), "REDACTED", text)
