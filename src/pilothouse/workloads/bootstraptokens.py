"""Bootstrap tokens: the secrets by which new nodes are let in, as kubeadm has them, and when they are over. Pure.

Facts: `k8s.io/cluster-bootstrap/token/api` of Kubernetes 1.36.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final

from pilothouse.kinds import times
from pilothouse.kinds.structs import ObjectMeta, Secret

__all__ = ["GROUP", "NAMESPACE", "PREFIX", "TOKEN_TYPE", "expires_in", "token_secret"]

TOKEN_TYPE: Final = "bootstrap.kubernetes.io/token"  # noqa: S105  # a type of secrets
NAMESPACE: Final = "kube-system"
PREFIX: Final = "bootstrap-token-"
"""Before the token's id in the name of its secret."""
GROUP: Final = "system:bootstrappers:pilothouse:nodes"


def token_secret(
    identity: str, secret: str, *, now: datetime, ttl_seconds: float = 0.0, description: str = ""
) -> Secret:
    """Return the secret of a token; without a time to live it holds until it is deleted.

    identity: six of `a-z0-9`, known to all; secret: sixteen of them.
    """
    data: dict[str, str] = {
        "token-id": identity,
        "token-secret": secret,
        "usage-bootstrap-authentication": "true",
        "usage-bootstrap-signing": "true",
        "auth-extra-groups": GROUP,
    }
    if ttl_seconds:
        data["expiration"] = times.format_seconds(now + timedelta(seconds=ttl_seconds))
    if description:
        data["description"] = description
    return Secret(
        metadata=ObjectMeta(name=PREFIX + identity, namespace=NAMESPACE),
        type=TOKEN_TYPE,
        data={name: value.encode() for name, value in data.items()},
    )


def expires_in(data: Mapping[str, bytes], now: datetime) -> float | None:
    """Return in how many seconds a token is over, 0 for one that is, None for one that never ends.

    data: of its secret. A time that cannot be read is over.
    """
    text = data.get("expiration", b"").decode(errors="replace")
    if not text:
        return None
    try:
        return max(0.0, (times.parse(text) - now).total_seconds())
    except times.TimeError:
        return 0.0
