"""What every namespace has: the default service account, the cluster's CA, and tokens in secrets that ask for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from pilothouse.apiserver.access.serviceaccounts import SECRET_TYPE, ServiceAccountTokens
from pilothouse.apiserver.cache.cacher import Cacher
from pilothouse.apiserver.cache.changes import Change
from pilothouse.apiserver.cache.entries import Entry
from pilothouse.apiserver.lifecycle.calls import caller, delete_options
from pilothouse.apiserver.lifecycle.workqueue import WorkQueue
from pilothouse.apiserver.model import Handler
from pilothouse.apiserver.ports import Object, View
from pilothouse.foundation.clock import Clock
from pilothouse.kinds.status import AlreadyExists, Conflict, Forbidden, NotFound

__all__ = ["CA_CONFIG_MAP", "Accounts"]

CA_CONFIG_MAP: Final = "kube-root-ca.crt"
_ACCOUNTS: Final = "serviceaccounts"
_SECRETS: Final = "secrets"
_CONFIG_MAPS: Final = "configmaps"
_NAMESPACES: Final = "namespaces"
_DEFAULT: Final = "default"
_NAME: Final = "kubernetes.io/service-account.name"
_UID: Final = "kubernetes.io/service-account.uid"
_TYPE: Final = f'"{SECRET_TYPE}"'.encode()
_ABOUT: Final = "kubernetes.io/description"
_TEXT: Final = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the "
    "internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes "
    "clusters."
)


class _Feed:
    """Tells of the changes of one resource."""

    def __init__(self, note: Callable[[Change], None]) -> None:
        self.feed = note


class Accounts:
    """Keeps these objects as they should be, from `start` to `close`.

    ca: PEM; without it no ConfigMap is published. tokens: makes what secrets of service accounts lack.
    """

    def __init__(
        self,
        view: View,
        cacher: Cacher,
        handler: Handler,
        tokens: ServiceAccountTokens,
        ca: bytes,
        clock: Clock,
    ) -> None:
        self._view = view
        self._cacher = cacher
        self._tokens = tokens
        self._ca = ca
        self._creator = caller(handler, "service-account-controller")
        self._publisher = caller(handler, "root-ca-cert-publisher")
        self._filler = caller(handler, "tokens-controller")
        self.accounts = WorkQueue[str]("default service accounts", self._account, clock, workers=8)
        self.certificates = WorkQueue[str]("published CA", self._certificate, clock, workers=8)
        self.secrets = WorkQueue[str]("tokens in secrets", self._secret, clock, workers=8)
        self._stops: list[Callable[[], None]] = []

    def start(self) -> None:
        """Look at all that is there, and follow what changes."""
        followed = [(_NAMESPACES, self._namespace_changed), (_ACCOUNTS, self._account_changed)]
        followed += [(_SECRETS, self._secret_changed), (_CONFIG_MAPS, self._config_map_changed)]
        for name, note in followed:
            cache = self._cacher.named(name)
            if cache is None:
                raise LookupError(name)
            self._stops.append(cache.subscribe(_Feed(note)))
            if name in {_NAMESPACES, _SECRETS}:
                for entry in cache.entries():
                    note(Change(entry, None, deleted=False))

    async def close(self) -> None:
        """Stop; what is on its way to the server may still happen."""
        for stop in self._stops:
            stop()
        for queue in (self.accounts, self.certificates, self.secrets):
            await queue.close()

    def publish(self, ca: bytes) -> None:
        """Have another CA than before, and bring all that tells of it up to date."""
        self._ca = ca
        for name, queue in ((_NAMESPACES, self.certificates), (_SECRETS, self.secrets)):
            cache = self._cacher.named(name)
            queue.add_all(entry.key for entry in (cache.entries() if cache is not None else ()))

    # Changes

    def _namespace_changed(self, change: Change) -> None:
        if not change.deleted:
            self.accounts.add(change.entry.key)
            self.certificates.add(change.entry.key)

    def _account_changed(self, change: Change) -> None:
        namespace, _, name = change.entry.key.partition("/")
        if change.deleted and name == _DEFAULT:
            self.accounts.add(namespace)
        if change.deleted or change.old is None:
            self.secrets.add_all(entry.key for entry in self._token_secrets(namespace))

    def _config_map_changed(self, change: Change) -> None:
        namespace, _, name = change.entry.key.partition("/")
        if name == CA_CONFIG_MAP:
            self.certificates.add(namespace)

    def _secret_changed(self, change: Change) -> None:
        if _TYPE in change.entry.value:
            self.secrets.add(change.entry.key)

    def _token_secrets(self, namespace: str) -> list[Entry]:
        cache = self._cacher.named(_SECRETS)
        return [] if cache is None else [entry for entry in cache.entries(namespace) if _TYPE in entry.value]

    # Work

    def _is_active(self, name: str) -> bool:
        namespace = self._view.get(_NAMESPACES, "", name)
        if namespace is None or namespace["metadata"].get("deletionTimestamp"):
            return False
        return bool((namespace.get("status") or {}).get("phase") != "Terminating")

    async def _account(self, namespace: str) -> None:
        """Make the default service account where there is none."""
        if self._view.get(_ACCOUNTS, namespace, _DEFAULT) is not None or not self._is_active(namespace):
            return
        made: Object = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": _DEFAULT}}
        try:
            await self._creator.call("POST", _path(namespace, _ACCOUNTS), made)
        except AlreadyExists:
            return
        except (Forbidden, NotFound):
            if self._is_active(namespace):
                raise

    async def _certificate(self, namespace: str) -> None:
        """Publish the cluster's CA, or put right what was published."""
        if not self._ca or not self._is_active(namespace):
            return
        data = {"ca.crt": self._ca.decode()}
        found = self._view.get(_CONFIG_MAPS, namespace, CA_CONFIG_MAP)
        path = _path(namespace, _CONFIG_MAPS)
        try:
            if found is None:
                metadata = {"name": CA_CONFIG_MAP, "annotations": {_ABOUT: _TEXT}}
                made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
                await self._publisher.call("POST", path, made)
                return
            annotations = found["metadata"].get("annotations") or {}
            if found.get("data") == data and not found.get("binaryData") and annotations.get(_ABOUT):
                return
            metadata = {**found["metadata"], "annotations": {**annotations, _ABOUT: _TEXT}}
            changed = {**found, "metadata": metadata, "data": data}
            changed.pop("binaryData", None)
            await self._publisher.call("PUT", f"{path}/{CA_CONFIG_MAP}", changed)
        except AlreadyExists:
            self.certificates.add(namespace)
        except (Forbidden, NotFound):
            if self._is_active(namespace):
                raise

    async def _secret(self, key: str) -> None:
        """Fill a secret that asks for a token, or delete it where its account is gone."""
        namespace, _, name = key.partition("/")
        secret = self._view.get(_SECRETS, namespace, name)
        if secret is None:
            await self._forget_secret(namespace, name)
            return
        if secret.get("type") != SECRET_TYPE or secret["metadata"].get("deletionTimestamp"):
            return
        metadata = secret["metadata"]
        annotations = metadata.get("annotations") or {}
        account = self._view.get(_ACCOUNTS, namespace, annotations.get(_NAME) or "")
        wanted = annotations.get(_UID)
        path = f"{_path(namespace, _SECRETS)}/{quote(name, safe='')}"
        try:
            if account is None or (wanted and wanted != account["metadata"].get("uid")):
                await self._filler.call("DELETE", path, delete_options("Background", uid=metadata["uid"]))
                return
            filled = self._tokens.filled_secret(account, secret, self._ca)
            if filled is not None:
                await self._filler.call("PUT", path, filled)
        except (NotFound, Conflict):
            return  # a change of it is on its way

    async def _forget_secret(self, namespace: str, name: str) -> None:
        """Take a secret that is gone from the accounts that list it."""
        for account in self._view.list(_ACCOUNTS, namespace):
            listed = account.get("secrets") or []
            left = [each for each in listed if each.get("name") != name]
            if len(left) == len(listed) or account["metadata"].get("deletionTimestamp"):
                continue
            path = f"{_path(namespace, _ACCOUNTS)}/{quote(account['metadata']['name'], safe='')}"
            try:
                await self._filler.call("PUT", path, {**account, "secrets": left})
            except NotFound:
                continue


def _path(namespace: str, resource: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace)}/{resource}"
