"""What authentication refuses with: etcd's texts and gRPC codes, as arguments of `AuthError`."""

from __future__ import annotations

__all__ = [
    "AUTH_FAILED",
    "AUTH_NOT_ENABLED",
    "AUTH_OLD_REVISION",
    "INVALID_AUTH_MGMT",
    "INVALID_AUTH_TOKEN",
    "PERMISSION_DENIED",
    "PERMISSION_NOT_GIVEN",
    "PERMISSION_NOT_GRANTED",
    "ROLE_ALREADY_EXIST",
    "ROLE_EMPTY",
    "ROLE_NOT_FOUND",
    "ROLE_NOT_GRANTED",
    "ROOT_ROLE_NOT_EXIST",
    "ROOT_USER_NOT_EXIST",
    "USER_ALREADY_EXIST",
    "USER_EMPTY",
    "USER_NOT_FOUND",
]

_INVALID_ARGUMENT, _PERMISSION_DENIED, _FAILED_PRECONDITION, _UNAUTHENTICATED = 3, 7, 9, 16

ROOT_USER_NOT_EXIST = "etcdserver: root user does not exist", _FAILED_PRECONDITION
ROOT_ROLE_NOT_EXIST = "etcdserver: root user does not have root role", _FAILED_PRECONDITION
USER_ALREADY_EXIST = "etcdserver: user name already exists", _FAILED_PRECONDITION
USER_EMPTY = "etcdserver: user name is empty", _INVALID_ARGUMENT
USER_NOT_FOUND = "etcdserver: user name not found", _FAILED_PRECONDITION
ROLE_ALREADY_EXIST = "etcdserver: role name already exists", _FAILED_PRECONDITION
ROLE_NOT_FOUND = "etcdserver: role name not found", _FAILED_PRECONDITION
ROLE_EMPTY = "etcdserver: role name is empty", _INVALID_ARGUMENT
AUTH_FAILED = "etcdserver: authentication failed, invalid user ID or password", _INVALID_ARGUMENT
PERMISSION_NOT_GIVEN = "etcdserver: permission not given", _INVALID_ARGUMENT
PERMISSION_DENIED = "etcdserver: permission denied", _PERMISSION_DENIED
ROLE_NOT_GRANTED = "etcdserver: role is not granted to the user", _FAILED_PRECONDITION
PERMISSION_NOT_GRANTED = "etcdserver: permission is not granted to the role", _FAILED_PRECONDITION
AUTH_NOT_ENABLED = "etcdserver: authentication is not enabled", _FAILED_PRECONDITION
INVALID_AUTH_TOKEN = "etcdserver: invalid auth token", _UNAUTHENTICATED
INVALID_AUTH_MGMT = "etcdserver: invalid auth management", _INVALID_ARGUMENT
AUTH_OLD_REVISION = "etcdserver: revision of auth store is old", _INVALID_ARGUMENT
