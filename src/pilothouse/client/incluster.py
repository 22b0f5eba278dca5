"""Inside of a pod: the server's address from the environment, the service account's token and CA from their files."""

from __future__ import annotations

import os
from typing import Final

from .config import ClientConfig
from .errors import ConfigError

__all__ = ["ACCOUNT_DIRECTORY", "in_cluster", "is_in_cluster"]

ACCOUNT_DIRECTORY: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where every pod finds its service account."""

_VARIABLES: Final = ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT")


def is_in_cluster(directory: str = ACCOUNT_DIRECTORY) -> bool:
    """Say whether this process seems to run in a pod with a service account."""
    return all(os.environ.get(name) for name in _VARIABLES) and os.path.exists(os.path.join(directory, "token"))


def in_cluster(directory: str = ACCOUNT_DIRECTORY, *, namespace: str | None = None) -> ClientConfig:
    """Return how a pod reaches its cluster. Raises ConfigError outside of one."""
    for name in _VARIABLES:
        if not os.environ.get(name):
            raise ConfigError(
                f"{name}: not set, so this is no pod; use Client.from_kubeconfig() outside of the cluster"
            )
    host, port = (os.environ[name] for name in _VARIABLES)
    token, ca = os.path.join(directory, "token"), os.path.join(directory, "ca.crt")
    for path in (token, ca):
        if not os.path.exists(path):
            raise ConfigError(f"{path}: not there; the pod needs a service account: automountServiceAccountToken: true")
    return ClientConfig(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        namespace=namespace or _namespace(directory),
        ca_file=ca,
        token_file=token,
        source=f"the pod's service account in {directory}",
    )


def _namespace(directory: str) -> str:
    try:
        with open(os.path.join(directory, "namespace"), encoding="utf-8") as file:
            return file.read().strip() or "default"
    except OSError:
        return "default"
