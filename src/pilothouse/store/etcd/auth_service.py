"""etcd's Auth service: logins, users, roles and their permissions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pilothouse.foundation.grpc import GrpcServer, ServerCall
from pilothouse.foundation.grpc.calls import UnaryHandler
from pilothouse.store.auth import (
    AuthDisable,
    AuthEnable,
    Permission,
    PermissionType,
    RoleAdd,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    UserAdd,
    UserChangePassword,
    UserDelete,
    UserGrantRole,
    UserRevokeRole,
)
from pilothouse.store.auth_commands import AuthCommand
from pilothouse.store.auth_errors import AUTH_OLD_REVISION
from pilothouse.store.auth_tokens import hash_password, verify_password
from pilothouse.store.errors import AuthError, InvalidRequest, TooManyRequests
from pilothouse.store.etcd import etcd_pb2 as pb
from pilothouse.store.etcd.requests import decode_message
from pilothouse.store.etcd.service_context import ServiceContext, encoded

__all__ = ["AuthService"]

_Result = TypeVar("_Result")

_HASHES_AT_ONCE = 2
_HASHES_WAITING = 64
_LOGIN_ATTEMPTS = 5


class AuthService:
    """`etcdserverpb.Auth`. Passwords are hashed and verified in threads, a few at a time: it is slow on purpose."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._store = context.store
        self._auth = context.auth
        self._encoder = context.encoder
        self._hashing = asyncio.Semaphore(_HASHES_AT_ONCE)
        self._waiting = 0

    def register(self, server: GrpcServer) -> None:
        """Add the service's methods to a server."""
        methods: dict[str, UnaryHandler] = {
            "AuthEnable": self.enable,
            "AuthDisable": self.disable,
            "AuthStatus": self.status,
            "Authenticate": self.authenticate,
            "UserAdd": self.user_add,
            "UserGet": self.user_get,
            "UserList": self.user_list,
            "UserDelete": self.user_delete,
            "UserChangePassword": self.user_change_password,
            "UserGrantRole": self.user_grant_role,
            "UserRevokeRole": self.user_revoke_role,
            "RoleAdd": self.role_add,
            "RoleGet": self.role_get,
            "RoleList": self.role_list,
            "RoleDelete": self.role_delete,
            "RoleGrantPermission": self.role_grant_permission,
            "RoleRevokePermission": self.role_revoke_permission,
        }
        for name, handler in methods.items():
            server.unary("/etcdserverpb.Auth/" + name, handler)

    # The switch and logins

    def enable(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer an `AuthEnableRequest`."""
        del message
        return self._change(call, AuthEnable())

    def disable(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer an `AuthDisableRequest`."""
        del message
        return self._change(call, AuthDisable())

    def status(self, message: bytes, call: ServerCall) -> bytes:
        """Answer an `AuthStatusRequest`."""
        del message
        self._context.require_admin(call)
        rest = pb.AuthStatusResponse(enabled=self._auth.enabled, authRevision=self._auth.revision)
        return self._header() + rest.SerializeToString()

    async def authenticate(self, message: bytes, call: ServerCall) -> bytes:
        """Answer an `AuthenticateRequest` with a token."""
        del call
        request = decode_message(pb.AuthenticateRequest, message)
        for _ in range(_LOGIN_ATTEMPTS):
            password_hash, revision = self._auth.credentials(request.name)
            verified = await self._verified(request.password, password_hash)
            try:
                token = self._auth.login(request.name, verified, revision)
            except AuthError as error:
                if error.message == AUTH_OLD_REVISION[0]:
                    continue
                raise
            return self._header() + pb.AuthenticateResponse(token=token).SerializeToString()
        raise AuthError(*AUTH_OLD_REVISION)

    # Users

    async def user_add(self, message: bytes, call: ServerCall) -> bytes:
        """Answer an `AuthUserAddRequest`."""
        request = decode_message(pb.AuthUserAddRequest, message)
        self._context.require_admin(call)
        no_password = request.options.no_password
        password_hash = b"" if no_password else await self._hashed(request.password, request.hashedPassword)
        await self._store.propose(UserAdd(request.name, password_hash, no_password))
        return self._header()

    async def user_change_password(self, message: bytes, call: ServerCall) -> bytes:
        """Answer an `AuthUserChangePasswordRequest`."""
        request = decode_message(pb.AuthUserChangePasswordRequest, message)
        self._context.require_admin(call)
        password_hash = await self._hashed(request.password, request.hashedPassword)
        await self._store.propose(UserChangePassword(request.name, password_hash))
        return self._header()

    def user_get(self, message: bytes, call: ServerCall) -> bytes:
        """Answer an `AuthUserGetRequest`."""
        name = decode_message(pb.AuthUserGetRequest, message).name
        if self._auth.enabled:
            self._auth.require_user_get(self._context.identify(call), name)
        return self._header() + pb.AuthUserGetResponse(roles=self._auth.user_get(name)).SerializeToString()

    def user_list(self, message: bytes, call: ServerCall) -> bytes:
        """Answer an `AuthUserListRequest`."""
        del message
        self._context.require_admin(call)
        return self._header() + pb.AuthUserListResponse(users=self._auth.user_list()).SerializeToString()

    def user_delete(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer an `AuthUserDeleteRequest`."""
        return self._change(call, UserDelete(decode_message(pb.AuthUserDeleteRequest, message).name))

    def user_grant_role(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer an `AuthUserGrantRoleRequest`."""
        request = decode_message(pb.AuthUserGrantRoleRequest, message)
        return self._change(call, UserGrantRole(request.user, request.role))

    def user_revoke_role(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer an `AuthUserRevokeRoleRequest`."""
        request = decode_message(pb.AuthUserRevokeRoleRequest, message)
        return self._change(call, UserRevokeRole(request.name, request.role))

    # Roles

    def role_add(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer an `AuthRoleAddRequest`."""
        return self._change(call, RoleAdd(decode_message(pb.AuthRoleAddRequest, message).name))

    def role_get(self, message: bytes, call: ServerCall) -> bytes:
        """Answer an `AuthRoleGetRequest`."""
        name = decode_message(pb.AuthRoleGetRequest, message).role
        if self._auth.enabled:
            self._auth.require_role_get(self._context.identify(call), name)
        held = [
            pb.Permission(permType=each.perm_type, key=each.key, range_end=each.range_end)
            for each in self._auth.role_get(name)
        ]
        return self._header() + pb.AuthRoleGetResponse(perm=held).SerializeToString()

    def role_list(self, message: bytes, call: ServerCall) -> bytes:
        """Answer an `AuthRoleListRequest`."""
        del message
        self._context.require_admin(call)
        return self._header() + pb.AuthRoleListResponse(roles=self._auth.role_list()).SerializeToString()

    def role_delete(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer an `AuthRoleDeleteRequest`."""
        return self._change(call, RoleDelete(decode_message(pb.AuthRoleDeleteRequest, message).role))

    def role_grant_permission(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer an `AuthRoleGrantPermissionRequest`."""
        request = decode_message(pb.AuthRoleGrantPermissionRequest, message)
        permission = None
        if request.HasField("perm"):
            try:
                kind = PermissionType(request.perm.permType)
            except ValueError:
                raise InvalidRequest(
                    f"etcdserver: permission type {request.perm.permType} is not READ, WRITE or READWRITE"
                ) from None
            permission = Permission(kind, request.perm.key, request.perm.range_end)
        return self._change(call, RoleGrantPermission(request.name, permission))

    def role_revoke_permission(self, message: bytes, call: ServerCall) -> Awaitable[bytes]:
        """Answer an `AuthRoleRevokePermissionRequest`."""
        request = decode_message(pb.AuthRoleRevokePermissionRequest, message)
        return self._change(call, RoleRevokePermission(request.role, request.key, request.range_end))

    # What they share

    def _header(self, _: object = None) -> bytes:
        return self._encoder.header(self._context.revision)

    def _change(self, call: ServerCall, command: AuthCommand) -> Awaitable[bytes]:
        self._context.require_admin(call)
        return encoded(self._store.propose(command), self._header)

    async def _hashed(self, password: str, foreign_hash: str) -> bytes:
        if foreign_hash and not password:
            raise InvalidRequest("etcdserver: hashedPassword is not taken over; send the password itself over TLS")
        return await self._in_turn(lambda: hash_password(password))

    async def _verified(self, password: str, password_hash: bytes) -> bool:
        return await self._in_turn(lambda: verify_password(password, password_hash))

    async def _in_turn(self, work: Callable[[], _Result]) -> _Result:
        if self._waiting >= _HASHES_WAITING:
            raise TooManyRequests(f"{TooManyRequests.text}: {_HASHES_WAITING} passwords wait for their hash")
        self._waiting += 1
        try:
            async with self._hashing:
                return await asyncio.to_thread(work)
        finally:
            self._waiting -= 1
