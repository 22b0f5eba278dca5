"""What those who want to join learn without being known: where the cluster is, and its authorities.

It is the ConfigMap `cluster-info` that kubeadm makes. Nobody believes it for itself: who joins has a digest of the
authority's key from elsewhere, as a part of the token.
"""

from __future__ import annotations

from typing import Final

from pilothouse.apiserver.access.kubeconfig import kubeconfig_of_cluster
from pilothouse.apiserver.ports import Local, View
from pilothouse.kinds.status import AlreadyExists

__all__ = ["NAME", "NAMESPACE", "publish_cluster_info"]

NAMESPACE: Final = "kube-public"
NAME: Final = "cluster-info"
_PATH: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
_KEY: Final = "kubeconfig"


async def publish_cluster_info(view: View, local: Local, server: str, ca: bytes) -> None:
    """Write it where it is not there as it should be; what others put beside stays.

    server: URL. ca: PEM, may hold several. Raises ApiStatus.
    """
    data = {_KEY: kubeconfig_of_cluster(server, ca)}
    found = view.get("configmaps", NAMESPACE, NAME)
    if found is None:
        made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": data}
        try:
            await local.call("POST", _PATH, made)
        except AlreadyExists:
            found = {}  # another server of the cluster was first
    if found is not None and (found.get("data") or {}).get(_KEY) != data[_KEY]:
        await local.call("PATCH", f"{_PATH}/{NAME}", {"data": data}, content_type="application/merge-patch+json")
