"""Users, roles and what they may do: etcd v3's auth store as a deterministic state machine with checks.

`apply` changes it, from the log and in the same way on every replay; the checks read it. Texts and codes of its
errors are etcd's, which its clients compare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pilothouse.store.auth_commands import (
    AuthCommand,
    AuthDisable,
    AuthEnable,
    AuthState,
    Permission,
    PermissionType,
    Role,
    RoleAdd,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    User,
    UserAdd,
    UserChangePassword,
    UserDelete,
    UserGrantRole,
    UserRevokeRole,
)
from pilothouse.store.auth_errors import (
    AUTH_FAILED,
    AUTH_NOT_ENABLED,
    AUTH_OLD_REVISION,
    INVALID_AUTH_MGMT,
    INVALID_AUTH_TOKEN,
    PERMISSION_DENIED,
    PERMISSION_NOT_GIVEN,
    PERMISSION_NOT_GRANTED,
    ROLE_ALREADY_EXIST,
    ROLE_EMPTY,
    ROLE_NOT_FOUND,
    ROLE_NOT_GRANTED,
    ROOT_ROLE_NOT_EXIST,
    ROOT_USER_NOT_EXIST,
    USER_ALREADY_EXIST,
    USER_EMPTY,
    USER_NOT_FOUND,
)
from pilothouse.store.auth_ranges import KeyRanges, interval
from pilothouse.store.auth_tokens import DUMMY_HASH, SimpleTokens
from pilothouse.store.errors import AuthError
from pilothouse.store.model import DeleteRangeRequest, Op, PutRequest, RangeRequest

__all__ = [
    "Auth",
    "AuthCommand",
    "AuthDisable",
    "AuthEnable",
    "AuthInfo",
    "AuthState",
    "Permission",
    "PermissionType",
    "RoleAdd",
    "RoleDelete",
    "RoleGrantPermission",
    "RoleRevokePermission",
    "UserAdd",
    "UserChangePassword",
    "UserDelete",
    "UserGrantRole",
    "UserRevokeRole",
]

ROOT = "root"

_ROOT_PERMISSION = Permission(PermissionType.READWRITE, b"", b"\0")


class AuthInfo(NamedTuple):
    """Who asks, and the auth revision at which that was found out."""

    username: str
    revision: int


class _Grants(NamedTuple):
    read: KeyRanges
    write: KeyRanges


class Auth:
    """The auth store.

    `tokens`, where given, are the logins; the changes that must end them do. Every `require_` method returns None
    or raises `AuthError`; all of them allow everything while authentication is not enabled.
    """

    def __init__(self, tokens: SimpleTokens | None = None) -> None:
        self.tokens = tokens
        self.enabled = False
        self.revision = 1
        self._users: dict[str, User] = {}
        self._roles: dict[str, Role] = {}
        self._grants: dict[str, _Grants] = {}
        # Each returns whether it changed anything but the switch: that is what a new auth revision stands for.
        self._handlers: dict[type, Callable[..., bool]] = {
            AuthEnable: self._enable,
            AuthDisable: self._disable,
            UserAdd: self._user_add,
            UserDelete: self._user_delete,
            UserChangePassword: self._user_change_password,
            UserGrantRole: self._user_grant_role,
            UserRevokeRole: self._user_revoke_role,
            RoleAdd: self._role_add,
            RoleDelete: self._role_delete,
            RoleGrantPermission: self._role_grant_permission,
            RoleRevokePermission: self._role_revoke_permission,
        }

    # Changes

    def apply(self, command: AuthCommand) -> None:
        """Apply one command from the log; raise `AuthError`, with nothing changed, where it is refused."""
        if self._handlers[type(command)](command):
            self.revision += 1
            self._grants.clear()

    def dump(self) -> AuthState:
        """Return everything, for a snapshot. Tokens are not a part of it: clients authenticate anew."""
        users = tuple(self._users[name] for name in sorted(self._users))
        roles = tuple(self._roles[name] for name in sorted(self._roles))
        return AuthState(self.enabled, self.revision, users, roles)

    def load(self, state: AuthState) -> None:
        """Replace everything by what a snapshot holds."""
        self.enabled, self.revision = state.enabled, state.revision
        self._users = {user.name: user for user in state.users}
        self._roles = {role.name: role for role in state.roles}
        self._grants.clear()
        if self.tokens is not None:
            self.tokens.clear()

    def _enable(self, _: AuthEnable) -> bool:
        if not self.enabled:
            root = self._users.get(ROOT)
            if root is None:
                raise AuthError(*ROOT_USER_NOT_EXIST)
            if ROOT not in root.roles:
                raise AuthError(*ROOT_ROLE_NOT_EXIST)
            self.enabled = True
        return False

    def _disable(self, _: AuthDisable) -> bool:
        if not self.enabled:
            return False
        self.enabled = False
        if self.tokens is not None:
            self.tokens.clear()
        return True

    def _user_add(self, command: UserAdd) -> bool:
        if not command.name:
            raise AuthError(*USER_EMPTY)
        if command.name in self._users:
            raise AuthError(*USER_ALREADY_EXIST)
        kept = b"" if command.no_password else command.password_hash
        self._users[command.name] = User(command.name, kept, (), command.no_password)
        return True

    def _user_delete(self, command: UserDelete) -> bool:
        if self.enabled and command.name == ROOT:
            raise AuthError(*INVALID_AUTH_MGMT)
        self._user(command.name)
        del self._users[command.name]
        self._end_logins(command.name)
        return True

    def _user_change_password(self, command: UserChangePassword) -> bool:
        user = self._user(command.name)
        kept = b"" if user.no_password else command.password_hash
        self._users[user.name] = User(user.name, kept, user.roles, user.no_password)
        self._end_logins(command.name)
        return True

    def _user_grant_role(self, command: UserGrantRole) -> bool:
        user = self._user(command.name)
        # The root role means all keys and needs no permissions, so etcd does not ask whether it was added.
        if command.role != ROOT and command.role not in self._roles:
            raise AuthError(*ROLE_NOT_FOUND)
        if command.role in user.roles:
            return False
        self._set_roles(user, sorted((*user.roles, command.role)))
        return True

    def _user_revoke_role(self, command: UserRevokeRole) -> bool:
        if self.enabled and command.name == command.role == ROOT:
            raise AuthError(*INVALID_AUTH_MGMT)
        user = self._user(command.name)
        if command.role not in user.roles:
            raise AuthError(*ROLE_NOT_GRANTED)
        self._set_roles(user, [role for role in user.roles if role != command.role])
        return True

    def _role_add(self, command: RoleAdd) -> bool:
        if not command.name:
            raise AuthError(*ROLE_EMPTY)
        if command.name in self._roles:
            raise AuthError(*ROLE_ALREADY_EXIST)
        self._roles[command.name] = Role(command.name)
        return True

    def _role_delete(self, command: RoleDelete) -> bool:
        if self.enabled and command.name == ROOT:
            raise AuthError(*INVALID_AUTH_MGMT)
        self._role(command.name)
        del self._roles[command.name]
        for user in [user for user in self._users.values() if command.name in user.roles]:
            self._set_roles(user, [role for role in user.roles if role != command.name])
        return True

    def _role_grant_permission(self, command: RoleGrantPermission) -> bool:
        new = command.permission
        if new is None:
            raise AuthError(*PERMISSION_NOT_GIVEN)
        if not new.key or (new.range_end not in {b"", b"\0"} and new.range_end <= new.key):
            raise AuthError(*INVALID_AUTH_MGMT)
        others = _without(self._role(command.name), new.key, new.range_end)
        permissions = sorted((*others, new), key=lambda each: (each.key, each.range_end))
        self._roles[command.name] = Role(command.name, tuple(permissions))
        return True

    def _role_revoke_permission(self, command: RoleRevokePermission) -> bool:
        role = self._role(command.name)
        rest = _without(role, command.key, command.range_end)
        if len(rest) == len(role.permissions):
            raise AuthError(*PERMISSION_NOT_GRANTED)
        self._roles[command.name] = Role(command.name, rest)
        return True

    def _set_roles(self, user: User, roles: Sequence[str]) -> None:
        self._users[user.name] = User(user.name, user.password_hash, tuple(roles), user.no_password)

    def _end_logins(self, name: str) -> None:
        if self.tokens is not None:
            self.tokens.invalidate_user(name)

    # Questions

    def user_list(self) -> list[str]:
        """Return the names of all users in order."""
        return sorted(self._users)

    def role_list(self) -> list[str]:
        """Return the names of all roles in order."""
        return sorted(self._roles)

    def user_get(self, name: str) -> list[str]:
        """Return the roles of a user in order."""
        return list(self._user(name).roles)

    def role_get(self, name: str) -> list[Permission]:
        """Return the permissions of a role in the order of their keys; the root role has them all."""
        role = self._role(name)
        return [_ROOT_PERMISSION] if name == ROOT else list(role.permissions)

    def has_role(self, name: str, role: str) -> bool:
        """Whether a user exists and has the role."""
        user = self._users.get(name)
        return user is not None and role in user.roles

    # Who asks

    def credentials(self, name: str) -> tuple[bytes, int]:
        """Return the hash to verify a password against, off the event loop, and the auth revision for `login`.

        An unknown user, and one without a password, get a hash that matches nothing. Raises `AuthError` while
        authentication is not enabled.
        """
        if not self.enabled:
            raise AuthError(*AUTH_NOT_ENABLED)
        user = self._users.get(name)
        return (user.password_hash if user is not None else b"") or DUMMY_HASH, self.revision

    def login(self, name: str, verified: bool, revision: int) -> str:
        """Return a token for a user whose password was `verified` against `credentials` of that revision.

        Raises `AuthError`: authentication failed, or the auth store changed meanwhile (start again).
        """
        if not self.enabled or self.tokens is None:
            raise AuthError(*AUTH_NOT_ENABLED)
        if not verified or name not in self._users:
            raise AuthError(*AUTH_FAILED)
        if revision != self.revision:
            raise AuthError(*AUTH_OLD_REVISION)
        return self.tokens.assign(name)

    def identify(self, token: str) -> AuthInfo | None:
        """Return who holds a token, None where there is none to ask for or none was sent; raise `AuthError` if bad."""
        if not self.enabled or not token:
            return None
        name = None if self.tokens is None else self.tokens.user(token.removeprefix("Bearer "))
        if name is None:
            raise AuthError(*INVALID_AUTH_TOKEN)
        return AuthInfo(name, self.revision)

    # What they may do

    def require_admin(self, info: AuthInfo | None) -> None:
        """Allow only users that have the root role: all changes of users and roles, and maintenance."""
        if not self.enabled:
            return
        if info is None or not info.username:
            raise AuthError(*USER_EMPTY)
        if ROOT not in self._user(info.username).roles:
            raise AuthError(*PERMISSION_DENIED)

    def require_user_get(self, info: AuthInfo | None, name: str) -> None:
        """Allow a user to read its own roles, and administrators to read all."""
        if info is None or info.username != name:
            self.require_admin(info)

    def require_role_get(self, info: AuthInfo | None, name: str) -> None:
        """Allow users to read the roles they have, and administrators to read all."""
        if info is None or not self.has_role(info.username, name):
            self.require_admin(info)

    def require_read(self, info: AuthInfo | None, key: bytes, range_end: bytes = b"") -> None:
        """Allow reading and watching a key or a range."""
        self._require(info, key, range_end, write=False)

    def require_write(self, info: AuthInfo | None, key: bytes, range_end: bytes = b"") -> None:
        """Allow putting a key, or deleting it or a range."""
        self._require(info, key, range_end, write=True)

    def require_lease_write(self, info: AuthInfo | None, keys: Iterable[bytes]) -> None:
        """Allow revoking, renewing or binding to a lease: whoever ends it deletes all of its `keys`.

        Whoever asks must be known, also where it has none.
        """
        if self._is_admin(info):
            return
        _require_known(info)
        for key in keys:
            self.require_write(info, key)

    def require_lease_read(self, info: AuthInfo | None, keys: Iterable[bytes]) -> None:
        """Allow reading a lease with its `keys`; as in etcd, whoever asks must be known."""
        if self._is_admin(info):
            return
        _require_known(info)
        for key in keys:
            self.require_read(info, key)

    def require(self, info: AuthInfo | None, request: Op, lease_keys: Callable[[int], Iterable[bytes]]) -> None:
        """Allow a range, put, delete or transaction; `lease_keys` returns the keys bound to a lease.

        Both branches of a transaction must be allowed, and its guards are reads; whoever asks must be known, also for
        an empty one.
        """
        if not self.enabled:
            return
        _require_known(info)
        if isinstance(request, RangeRequest):
            self.require_read(info, request.key, request.range_end)
        elif isinstance(request, PutRequest):
            self.require_write(info, request.key)
            if request.lease:
                self.require_lease_write(info, lease_keys(request.lease))
            if request.prev_kv:
                self.require_read(info, request.key)
        elif isinstance(request, DeleteRangeRequest):
            self.require_write(info, request.key, request.range_end)
            if request.prev_kv:
                self.require_read(info, request.key, request.range_end)
        else:
            for compare in request.compare:
                self.require_read(info, compare.key, compare.range_end)
            for op in (*request.success, *request.failure):
                self.require(info, op, lease_keys)

    def _require(self, info: AuthInfo | None, key: bytes, range_end: bytes, *, write: bool) -> None:
        if not self.enabled:
            return
        if info is None or not info.revision:
            raise AuthError(*USER_EMPTY)
        if info.revision < self.revision:
            raise AuthError(*AUTH_OLD_REVISION)
        user = self._users.get(info.username)
        if user is None:
            raise AuthError(*PERMISSION_DENIED)
        if ROOT in user.roles:
            return
        grants = self._grants_of(user)
        ranges = grants.write if write else grants.read
        if not ranges.contain(*interval(key, range_end)):
            raise AuthError(*PERMISSION_DENIED)

    def _is_admin(self, info: AuthInfo | None) -> bool:
        return not self.enabled or (info is not None and self.has_role(info.username, ROOT))

    def _grants_of(self, user: User) -> _Grants:
        found = self._grants.get(user.name)
        if found is None:
            held = [each for name in user.roles if name in self._roles for each in self._roles[name].permissions]
            found = self._grants[user.name] = _Grants(
                read=_reached(held, PermissionType.READ), write=_reached(held, PermissionType.WRITE)
            )
        return found

    def _user(self, name: str) -> User:
        user = self._users.get(name)
        if user is None:
            raise AuthError(*USER_NOT_FOUND)
        return user

    def _role(self, name: str) -> Role:
        role = self._roles.get(name)
        if role is None:
            raise AuthError(*ROLE_NOT_FOUND)
        return role


def _require_known(info: AuthInfo | None) -> None:
    if info is None:
        raise AuthError(*USER_EMPTY)


def _without(role: Role, key: bytes, range_end: bytes) -> tuple[Permission, ...]:
    return tuple(each for each in role.permissions if (each.key, each.range_end) != (key, range_end))


def _reached(permissions: Iterable[Permission], kind: PermissionType) -> KeyRanges:
    wanted = {kind, PermissionType.READWRITE}
    return KeyRanges(interval(each.key, each.range_end) for each in permissions if each.perm_type in wanted)
