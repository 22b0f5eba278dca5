"""ServiceAccount: who a pod runs as, and the volume with its token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from typing import Any, Final

from pilothouse.apiserver.admission.plugin import Plugin, annotations_of, containers, forbid, not_found_text, requested
from pilothouse.apiserver.ports import AdmissionRequest, Gvr, Object, Operation, View
from pilothouse.foundation.clock import Clock
from pilothouse.foundation.ids import Ids

__all__ = ["MIRROR", "ServiceAccount", "config_map_names", "secret_names"]

MIRROR: Final = "kubernetes.io/config.mirror"
"""The annotation of a pod that only mirrors one that a node runs from a file."""

_DEFAULT: Final = "default"
_MOUNT_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
_PREFIX: Final = "kube-api-access-"
_EXPIRY: Final = 3607
"""Seconds. An hour, and seven seconds by which such tokens are told from others."""
_ENFORCE: Final = "kubernetes.io/enforce-mountable-secrets"
_TRUE: Final = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_PATIENCE: Final = 1.5
"""Seconds for which a pod waits for the default account of a namespace made just now."""


class ServiceAccount(Plugin):
    """Gives pods their account, its image pull secrets and a volume with a token; refuses those without account.

    ids: name the volumes. clock: times the wait for a default account that is still to be made.
    """

    name = "ServiceAccount"

    def __init__(self, view: View, ids: Ids, clock: Clock, patience: float = _PATIENCE) -> None:
        self._view = view
        self._ids = ids
        self._clock = clock
        self._patience = patience

    def handles(self, operation: Operation, resource: Gvr, subresource: str) -> bool:
        """Look at new pods, and at containers added to a running one."""
        if (resource[0], resource[2]) != ("", "pods"):
            return False
        return (operation == "CREATE" and not subresource) or (
            operation == "UPDATE" and subresource == "ephemeralcontainers"
        )

    def mutate(self, request: AdmissionRequest) -> Awaitable[None] | None:
        """Complete a new pod. Raises Forbidden."""
        pod = requested(request)
        if request.operation != "CREATE":
            return None
        if MIRROR in annotations_of(pod):
            _check_mirror(request, pod)
            return None
        spec = pod.setdefault("spec", {})
        if not spec.get("serviceAccountName"):
            spec["serviceAccountName"] = _DEFAULT
        name = spec["serviceAccountName"]
        account = self._view.get("serviceaccounts", request.namespace, name)
        if account is None and name == _DEFAULT and self._patience > 0:
            return self._wait(request, pod)
        self._complete(request, pod, account)
        return None

    def validate(self, request: AdmissionRequest) -> None:
        """Check the pod as it was left by other steps. Raises Forbidden."""
        pod = requested(request)
        spec = pod.get("spec") or {}
        if request.operation == "CREATE" and MIRROR in annotations_of(pod):
            _check_mirror(request, pod)
            return
        name = spec.get("serviceAccountName") or ""
        if not name and request.operation == "UPDATE":
            return
        if not name:
            raise forbid(request, f"no service account specified for pod {request.namespace}/{request.name}")
        account = self._view.get("serviceaccounts", request.namespace, name)
        if account is None:
            raise _missing(request, name)
        if annotations_of(account).get(_ENFORCE) in _TRUE:
            for why in _unmountable(account, spec, ephemeral=request.operation == "UPDATE"):
                raise forbid(request, why)

    async def _wait(self, request: AdmissionRequest, pod: Object) -> None:
        """Wait until the default account is there, or patience is at its end."""
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def settle() -> None:
            if not arrived.done():
                arrived.set_result(None)

        def changed(namespace: str, name: str) -> None:
            if (namespace, name) == wanted:
                settle()

        wanted = (request.namespace, _DEFAULT)
        stop = self._view.notify("serviceaccounts", changed)
        timer = self._clock.call_later(self._patience, settle)
        try:
            await arrived
        finally:
            timer.cancel()
            stop()
        self._complete(request, pod, self._view.get("serviceaccounts", request.namespace, _DEFAULT))

    def _complete(self, request: AdmissionRequest, pod: Object, account: Object | None) -> None:
        spec = pod["spec"]
        name = spec["serviceAccountName"]
        if account is None:
            raise _missing(request, name)
        # The old name of the field is kept in step, as Kubernetes' conversion does.
        spec["serviceAccount"] = name
        if _automounts(account, spec):
            self._mount(spec)
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(one) for one in account["imagePullSecrets"]]

    def _mount(self, spec: Object) -> None:
        """Add the volume with the token, and a mount to each container that has nothing there yet."""
        volumes = spec.get("volumes") or []
        volume = next((one["name"] for one in volumes if str(one.get("name")).startswith(_PREFIX)), "")
        fresh = not volume
        if fresh:
            volume = f"{_PREFIX}{self._ids.name_suffix(5)}"
        mounted = False
        for container in containers(spec, ephemeral=False):
            mounts = container.get("volumeMounts") or []
            if all(one.get("mountPath") != _MOUNT_PATH for one in mounts):
                container["volumeMounts"] = [*mounts, {"name": volume, "readOnly": True, "mountPath": _MOUNT_PATH}]
                mounted = True
        if fresh and mounted:
            spec["volumes"] = [*volumes, _token_volume(volume)]


def _missing(request: AdmissionRequest, name: str) -> Exception:
    why = not_found_text("", "serviceaccount", name)
    return forbid(request, f"error looking up service account {request.namespace}/{name}: {why}")


def _automounts(account: Object, spec: Object) -> bool:
    """Whether the pod wants a token; what the pod says goes before what the account says."""
    for said in (spec.get("automountServiceAccountToken"), account.get("automountServiceAccountToken")):
        if said is not None:
            return bool(said)
    return True


def _token_volume(name: str) -> Object:
    own = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "name": name,
        "projected": {
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": _EXPIRY, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": own}]}},
            ],
            "defaultMode": 420,
        },
    }


def _check_mirror(request: AdmissionRequest, pod: Object) -> None:
    """Refuse mirror pods that refer to what the node may not see."""
    spec = pod.get("spec") or {}
    if spec.get("serviceAccountName"):
        raise forbid(request, "a mirror pod may not reference service accounts")
    if any(True for _ in secret_names(spec)):
        raise forbid(request, "a mirror pod may not reference secrets")
    for volume in spec.get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            if source.get("serviceAccountToken") is not None:
                raise forbid(request, "a mirror pod may not use ServiceAccountToken volume projections")


_VOLUME_SECRETS: Final = ("azureFile",)
_VOLUME_SECRET_REFS: Final = ("cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos")


def secret_names(spec: Object) -> Iterator[str]:
    """Give the names of all secrets that a pod's spec refers to."""
    for one in spec.get("imagePullSecrets") or ():
        yield one.get("name", "")
    for container in containers(spec):
        yield from _referred(container, "secretRef", "secretKeyRef")
    for volume in spec.get("volumes") or ():
        yield from _volume_secrets(volume)


def config_map_names(spec: Object) -> Iterator[str]:
    """Give the names of all configuration maps that a pod's spec refers to."""
    for container in containers(spec):
        yield from _referred(container, "configMapRef", "configMapKeyRef")
    for volume in spec.get("volumes") or ():
        if volume.get("configMap") is not None:
            yield volume["configMap"].get("name", "")
        for source in (volume.get("projected") or {}).get("sources") or ():
            if source.get("configMap") is not None:
                yield source["configMap"].get("name", "")


def _referred(container: Object, whole: str, key: str) -> Iterator[str]:
    for source in container.get("envFrom") or ():
        if source.get(whole) is not None:
            yield source[whole].get("name", "")
    for variable in container.get("env") or ():
        reference = (variable.get("valueFrom") or {}).get(key)
        if reference is not None:
            yield reference.get("name", "")


def _volume_secrets(volume: Object) -> Iterator[str]:
    if volume.get("secret") is not None:
        yield volume["secret"].get("secretName", "")
    for kind in _VOLUME_SECRETS:
        if (volume.get(kind) or {}).get("secretName"):
            yield volume[kind]["secretName"]
    for kind in _VOLUME_SECRET_REFS:
        if (volume.get(kind) or {}).get("secretRef"):
            yield volume[kind]["secretRef"].get("name", "")
    if ((volume.get("csi") or {}).get("nodePublishSecretRef")) is not None:
        yield volume["csi"]["nodePublishSecretRef"].get("name", "")
    for source in (volume.get("projected") or {}).get("sources") or ():
        if source.get("secret") is not None:
            yield source["secret"].get("name", "")


def _unmountable(account: Object, spec: Object, *, ephemeral: bool) -> Iterator[str]:
    """Give what is wrong with secrets of a pod whose account says which may be mounted."""
    name = account["metadata"]["name"]
    allowed = {one.get("name") for one in account.get("secrets") or ()}
    ending = f"is not allowed because service account {name} does not reference that secret"
    if ephemeral:
        yield from _unmountable_env(spec.get("ephemeralContainers"), "ephemeral container", allowed, ending)
        return
    for volume in spec.get("volumes") or ():
        secret = (volume.get("secret") or {}).get("secretName")
        if volume.get("secret") is not None and secret not in allowed:
            yield f'volume with secret.secretName="{secret}" {ending}'
    yield from _unmountable_env(spec.get("initContainers"), "init container", allowed, ending)
    yield from _unmountable_env(spec.get("containers"), "container", allowed, ending)
    pulls = {one.get("name") for one in account.get("imagePullSecrets") or ()}
    for position, one in enumerate(spec.get("imagePullSecrets") or ()):
        if one.get("name") not in pulls:
            yield (
                f'imagePullSecrets[{position}].name="{one.get("name", "")}" is not allowed because service account '
                f"{name} does not reference that imagePullSecret"
            )


def _unmountable_env(listed: Any, what: str, allowed: set[Any], ending: str) -> Iterator[str]:
    for container in listed or ():
        for variable in container.get("env") or ():
            reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
            if reference is not None and reference.get("name") not in allowed:
                yield (
                    f"{what} {container.get('name', '')} with envVar {variable.get('name', '')} referencing "
                    f'secret.secretName="{reference.get("name", "")}" {ending}'
                )
        for source in container.get("envFrom") or ():
            reference = source.get("secretRef")
            if reference is not None and reference.get("name") not in allowed:
                yield (
                    f"{what} {container.get('name', '')} with envFrom referencing "
                    f'secret.secretName="{reference.get("name", "")}" {ending}'
                )
