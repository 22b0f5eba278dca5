"""Users, roles and permissions as the log and the snapshot hold them (etcd v3's `auth.proto`)."""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

__all__ = [
    "AuthCommand",
    "AuthDisable",
    "AuthEnable",
    "AuthState",
    "Permission",
    "PermissionType",
    "Role",
    "RoleAdd",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
    "User",
    "UserAdd",
    "UserChangePassword",
    "UserDelete",
    "UserGrantRole",
    "UserRevokeRole",
]


class PermissionType(enum.IntEnum):
    """What a permission allows."""

    READ = 0
    WRITE = 1
    READWRITE = 2


class Permission(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Access to `key`, or to [key, range_end); a `range_end` of one zero byte means to the end of all keys."""

    perm_type: PermissionType
    key: bytes
    range_end: bytes = b""


class User(msgspec.Struct, frozen=True, array_like=True):
    """A user with its roles in order."""

    name: str
    password_hash: bytes = b""
    roles: tuple[str, ...] = ()
    no_password: bool = False

    def __repr__(self) -> str:
        return f"User(name={self.name!r}, roles={self.roles!r}, no_password={self.no_password})"


class Role(msgspec.Struct, frozen=True, array_like=True):
    """A role with its permissions in the order of their keys."""

    name: str
    permissions: tuple[Permission, ...] = ()


class AuthState(msgspec.Struct, frozen=True, array_like=True):
    """All of it, for a snapshot; users and roles in the order of their names."""

    enabled: bool = False
    revision: int = 1
    users: tuple[User, ...] = ()
    roles: tuple[Role, ...] = ()


class AuthEnable(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="auth-enable"):
    """Check every request from now on."""


class AuthDisable(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="auth-disable"):
    """Check nothing any more."""


class UserAdd(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="user-add"):
    """Add a user; one with `no_password` can be known by a client certificate only."""

    name: str
    password_hash: bytes = b""
    no_password: bool = False

    def __repr__(self) -> str:
        return f"UserAdd(name={self.name!r}, no_password={self.no_password})"


class UserDelete(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="user-delete"):
    """Remove a user and end its logins."""

    name: str


class UserChangePassword(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="user-change-password"):
    """Change a user's password and end its logins."""

    name: str
    password_hash: bytes

    def __repr__(self) -> str:
        return f"UserChangePassword(name={self.name!r})"


class UserGrantRole(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="user-grant-role"):
    """Give a user a role."""

    name: str
    role: str


class UserRevokeRole(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="user-revoke-role"):
    """Take a role from a user."""

    name: str
    role: str


class RoleAdd(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="role-add"):
    """Add a role without permissions."""

    name: str


class RoleDelete(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="role-delete"):
    """Remove a role, from its users too."""

    name: str


class RoleGrantPermission(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="role-grant-permission"):
    """Give a role a permission, or change the kind of the one it has for the same keys."""

    name: str
    permission: Permission | None = None


class RoleRevokePermission(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="role-revoke-permission"):
    """Take the permission for exactly these keys from a role."""

    name: str
    key: bytes
    range_end: bytes = b""


AuthCommand: TypeAlias = (
    AuthEnable
    | AuthDisable
    | UserAdd
    | UserDelete
    | UserChangePassword
    | UserGrantRole
    | UserRevokeRole
    | RoleAdd
    | RoleDelete
    | RoleGrantPermission
    | RoleRevokePermission
)
