"""What Argo CD keeps in Secrets and ConfigMaps of its namespace: credentials, known hosts, keys, rules of health."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from pilothouse.client.informer import Informer
from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.structs import ConfigMap, Secret
from pilothouse.operator import Manager

from .addresses import Address, normalised
from .git import Access
from .health import HealthRule, read_rules
from .manifests import read_documents

__all__ = ["PART_OF", "SECRET_TYPE", "Settings", "access_of"]

SECRET_TYPE: Final = "argocd.argoproj.io/secret-type"  # noqa: S105  # the name of a label
PART_OF: Final = "app.kubernetes.io/part-of=argocd"
"""The label of Secrets and ConfigMaps of Argo CD's own, without which it does not see them either."""
_HEALTH: Final = "pilothouse.health."
_log = get_logger("pilothouse.delivery.gitops")


class Settings:
    """Reads them from caches. namespace: where they are."""

    def __init__(self, manager: Manager, namespace: str) -> None:
        self.namespace: Final = namespace
        factory = manager.factory
        self._secrets: Informer[Any] = factory.informer(Secret, namespace=namespace, labels=SECRET_TYPE)
        self._own: Informer[Any] = factory.informer(Secret, namespace=namespace, labels=PART_OF)
        self._maps: Informer[Any] = factory.informer(ConfigMap, namespace=namespace, labels=PART_OF)
        self._rules: tuple[object, dict[tuple[str, str], tuple[HealthRule, ...]]] = (None, {})

    def on_change(self, changed: Callable[[], None]) -> None:
        """Call back when credentials, keys or rules have changed."""
        for informer, name in ((self._secrets, "gitops secrets"), (self._maps, "gitops settings")):
            informer.add_handler(
                on_add=lambda *_: changed(), on_update=lambda *_: changed(), on_delete=lambda *_: changed(), name=name
            )

    def secrets(self, kind: str) -> list[dict[str, str]]:
        """Return the Secrets of a type as texts by key, with `name` of the object itself under an empty key."""
        found = [
            {"": secret.metadata.name, **_texts(secret.data)}
            for secret in self._secrets.indexer.list()
            if secret.metadata.labels.get(SECRET_TYPE) == kind
        ]
        return sorted(found, key=lambda each: each[""])

    def secret(self, name: str) -> Mapping[str, str]:
        """Return what a Secret of Argo CD's own holds, nothing where there is none."""
        found = self._own.indexer.get(f"{self.namespace}/{name}")
        return _texts(found.data) if found is not None else {}

    def clusters(self) -> list[dict[str, Any]]:
        """Return the clusters of Secrets, with name, server, project and metadata; nothing that opens them."""
        found = []
        for secret in self._secrets.indexer.list():
            if secret.metadata.labels.get(SECRET_TYPE) == "cluster":
                data = _texts(
                    {name: secret.data[name] for name in ("name", "server", "project") if name in secret.data}
                )
                metadata = {part: dict(getattr(secret.metadata, part)) for part in ("labels", "annotations")}
                found.append({"name": data.get("name", secret.metadata.name), **data, "metadata": metadata})
        return sorted(found, key=lambda each: str(each["name"]))

    def config(self, name: str) -> Mapping[str, str]:
        """Return what a ConfigMap holds, nothing where there is none."""
        found = self._maps.indexer.get(f"{self.namespace}/{name}")
        return found.data if found is not None else {}

    def access(self, address: Address, project: str = "") -> Access:
        """Return what opens a repository: its own Secret, else the credentials with the longest fitting prefix."""
        own, best, length = None, None, -1
        url = normalised(address.url)
        for each in self.secrets("repository"):
            scoped = each.get("project", "")
            if normalised(each.get("url", "")) == url and scoped in {"", project}:
                own = each
        for each in self.secrets("repo-creds"):
            prefix = normalised(each.get("url", ""))
            if each.get("project", "") not in {"", project}:
                continue
            if prefix and url.startswith(prefix) and len(prefix) > length:
                best, length = each, len(prefix)
        chosen = own or {}
        if best is not None and not any(chosen.get(name) for name in ("password", "sshPrivateKey", "bearerToken")):
            chosen = {**best, **chosen}
        hosts = self.config("argocd-ssh-known-hosts-cm").get("ssh_known_hosts", "")
        return access_of(chosen, known_hosts=hosts, ca=self.config("argocd-tls-certs-cm").get(address.host, ""))

    def health_rules(self, group: str, kind: str) -> tuple[HealthRule, ...]:
        """Return the rules for a kind: of `argocd-cm`, under `pilothouse.health.GROUP_KIND`, as a list of YAML."""
        found = self._maps.indexer.get(f"{self.namespace}/argocd-cm")
        version = found.metadata.resource_version if found is not None else None
        if self._rules[0] != version:
            self._rules = version, _all_rules(found.data if found is not None else {})
        return self._rules[1].get((group, kind), ())


def _texts(data: Mapping[str, bytes]) -> dict[str, str]:
    return {name: bytes(value).decode(errors="replace") for name, value in data.items()}


def access_of(secret: Mapping[str, str], *, known_hosts: str = "", ca: str = "") -> Access:
    """Return what a repository Secret of Argo CD opens."""
    return Access(
        username=secret.get("username", ""),
        password=secret.get("password", ""),
        bearer_token=secret.get("bearerToken", ""),
        ssh_key=secret.get("sshPrivateKey", ""),
        tls_certificate=secret.get("tlsClientCertData", ""),
        tls_key=secret.get("tlsClientCertKey", ""),
        ca=ca,
        known_hosts=known_hosts,
        insecure=secret.get("insecure") == "true" or secret.get("insecureIgnoreHostKey") == "true",
        plain_http=secret.get("insecureOCIForceHttp") == "true",
        proxy=secret.get("proxy", ""),
        scope=secret.get("project", ""),
    )


def _all_rules(data: Mapping[str, str]) -> dict[tuple[str, str], tuple[HealthRule, ...]]:
    made = {}
    for name, text in data.items():
        if not name.startswith(_HEALTH):
            continue
        group, _, kind = name.removeprefix(_HEALTH).rpartition("_")
        try:
            documents = [value for _, value in read_documents("argocd-cm", text.encode())]
            made[group, kind] = read_rules(documents[0] if documents else [])
        except Exception as error:  # noqa: BLE001  # one wrong rule must not stop everything
            _log.error("a rule of health cannot be read", key=name, error=str(error))
    return made
