"""etcd's Cluster service: one embedded member, which can be listed and not changed."""

from __future__ import annotations

from pilothouse.foundation.grpc import GrpcCode, GrpcError, GrpcServer, ServerCall
from pilothouse.store.etcd.service_context import ServiceContext

__all__ = ["ClusterService"]


class ClusterService:
    """`etcdserverpb.Cluster`."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context

    def register(self, server: GrpcServer) -> None:
        """Add the service's methods to a server."""
        prefix = "/etcdserverpb.Cluster/"
        server.unary(prefix + "MemberList", self.member_list)
        for name in ("MemberAdd", "MemberRemove", "MemberUpdate", "MemberPromote"):
            server.unary(prefix + name, self.refuse)

    async def member_list(self, message: bytes, call: ServerCall) -> bytes:
        """Answer a `MemberListRequest`."""
        del message
        self._context.require_user(call)
        return self._context.encoder.members(self._context.revision, await self._context.store.members())

    def refuse(self, message: bytes, call: ServerCall) -> bytes:
        """Refuse to change the membership."""
        del message
        self._context.require_admin(call)
        raise GrpcError(
            GrpcCode.UNIMPLEMENTED,
            f"{call.path.rpartition('/')[2]}: an embedded store has one member; for several of them run etcd, "
            "and copy the keys with etcdctl make-mirror",
        )
