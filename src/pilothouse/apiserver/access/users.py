"""The names of users and groups that Kubernetes itself gives, and what they say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pilothouse.apiserver.model import User
from pilothouse.kinds import names

__all__ = [
    "ANONYMOUS_NAME",
    "AUTHENTICATED",
    "CREDENTIAL_ID",
    "MASTERS",
    "NODES",
    "NODE_NAME",
    "NODE_UID",
    "POD_NAME",
    "POD_UID",
    "SERVICE_ACCOUNTS",
    "UNAUTHENTICATED",
    "node_of",
    "service_account_groups",
    "service_account_username",
    "split_service_account",
    "with_authenticated",
]

MASTERS: Final = "system:masters"
"""Members may do everything, whatever the rules say."""
AUTHENTICATED: Final = "system:authenticated"
UNAUTHENTICATED: Final = "system:unauthenticated"
ANONYMOUS_NAME: Final = "system:anonymous"
NODES: Final = "system:nodes"
SERVICE_ACCOUNTS: Final = "system:serviceaccounts"

CREDENTIAL_ID: Final = "authentication.kubernetes.io/credential-id"
POD_NAME: Final = "authentication.kubernetes.io/pod-name"
POD_UID: Final = "authentication.kubernetes.io/pod-uid"
NODE_NAME: Final = "authentication.kubernetes.io/node-name"
NODE_UID: Final = "authentication.kubernetes.io/node-uid"

_ACCOUNT: Final = "system:serviceaccount:"
_NODE: Final = "system:node:"


def service_account_username(namespace: str, name: str) -> str:
    """Return the user name of a service account."""
    return f"{_ACCOUNT}{namespace}:{name}"


def service_account_groups(namespace: str) -> tuple[str, ...]:
    """Return the groups of each service account of a namespace."""
    return (SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}")


def split_service_account(username: str) -> tuple[str, str] | None:
    """Return namespace and name of the service account that a user name stands for; None for other users."""
    if not username.startswith(_ACCOUNT):
        return None
    namespace, colon, name = username[len(_ACCOUNT) :].partition(":")
    if not colon or names.dns1123_label(namespace) or names.dns1123_subdomain(name):
        return None
    return namespace, name


def node_of(username: str) -> str:
    """Return the name of the node that a user name stands for; empty for other users."""
    name = username.removeprefix(_NODE)
    return "" if name == username or names.dns1123_subdomain(name) else name


def with_authenticated(user: User) -> User:
    """Return the user as a member of `system:authenticated`, unless anonymous or said to be unauthenticated."""
    if user.name == ANONYMOUS_NAME or AUTHENTICATED in user.groups or UNAUTHENTICATED in user.groups:
        return user
    extra: Mapping[str, tuple[str, ...]] = user.extra
    return User(user.name, user.uid, (*user.groups, AUTHENTICATED), extra)
