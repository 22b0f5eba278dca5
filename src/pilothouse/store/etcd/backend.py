"""`EtcdStore`: the `Store` protocol served by a real etcd cluster."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from pilothouse.foundation.grpc import GrpcError
from pilothouse.store import errors
from pilothouse.store.etcd import codec
from pilothouse.store.etcd.balancer import Balancer
from pilothouse.store.etcd.caller import Caller
from pilothouse.store.etcd.errors_map import error_from_status
from pilothouse.store.etcd.leases import LeaseKeeper
from pilothouse.store.etcd.settings import EtcdOptions, parse_url
from pilothouse.store.etcd.watches import EtcdWatch, WatchStream
from pilothouse.store.model import (
    Alarm,
    AlarmAction,
    AlarmType,
    DeleteRangeRequest,
    DeleteRangeResponse,
    HashKVResponse,
    LeaseGrantResponse,
    LeaseTimeToLiveResponse,
    Member,
    Op,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    Status,
    TxnRequest,
    TxnResponse,
    WatchRequest,
)

__all__ = ["EtcdOptions", "EtcdStore", "open_etcd"]

_KV = "/etcdserverpb.KV/"
_LEASE = "/etcdserverpb.Lease/"
_MAINTENANCE = "/etcdserverpb.Maintenance/"


async def open_etcd(url: str) -> EtcdStore:
    """Open the cluster that `etcd://a:2379,b:2379?...` names; see `parse_url` for the parameters."""
    return await EtcdStore.open(parse_url(url))


class EtcdStore:
    """A store on an etcd cluster (3.4 or later).

    Reads go to another member when one fails, within the request timeout. A write is sent again only while it is
    certain that no member has taken it; otherwise it raises `Timeout`, and the caller must look.
    """

    def __init__(self, options: EtcdOptions) -> None:
        self._options = options
        self._balancer = Balancer(options)
        self._caller = Caller(options, self._balancer)
        self._watches = WatchStream(options, self._caller)
        self._leases = LeaseKeeper(options, self._caller)

    @classmethod
    async def open(cls, options: EtcdOptions) -> EtcdStore:
        """Connect to one member and authenticate; `Unavailable` names the endpoints when none can be reached."""
        store = cls(options)
        try:
            await store.status()
        except BaseException:
            await store.close()
            raise
        return store

    @property
    def is_connected(self) -> bool:
        """Whether there is a live connection to a member; without one the next call makes it."""
        return self._balancer.connection() is not None

    async def range(self, request: RangeRequest) -> RangeResponse:
        data = await self._caller.unary(
            f"{_KV}Range", codec.encode_range(request), safe=True, local=request.serializable
        )
        return codec.decode_range_response(data)

    async def put(self, request: PutRequest) -> PutResponse:
        return codec.decode_put_response(await self._caller.unary(f"{_KV}Put", codec.encode_put(request), safe=False))

    async def delete_range(self, request: DeleteRangeRequest) -> DeleteRangeResponse:
        data = await self._caller.unary(f"{_KV}DeleteRange", codec.encode_delete_range(request), safe=False)
        return codec.decode_delete_range_response(data)

    async def txn(self, request: TxnRequest) -> TxnResponse:
        data = await self._caller.unary(f"{_KV}Txn", codec.encode_txn(request), safe=_only_reads(request))
        return codec.decode_txn_response(data)

    async def compact(self, revision: int, *, physical: bool = False) -> int:
        request = codec.encode_compact(revision, physical=physical)
        return codec.decode_header_revision(await self._caller.unary(f"{_KV}Compact", request, safe=False))

    def watch(self, request: WatchRequest) -> EtcdWatch:
        return self._watches.watch(request)

    async def lease_grant(self, ttl: int, lease_id: int = 0) -> LeaseGrantResponse:
        request = codec.encode_lease_grant(ttl, lease_id)
        return codec.decode_lease_grant_response(await self._caller.unary(f"{_LEASE}LeaseGrant", request, safe=False))

    async def lease_revoke(self, lease_id: int) -> int:
        request = codec.encode_lease_revoke(lease_id)
        return codec.decode_header_revision(await self._caller.unary(f"{_LEASE}LeaseRevoke", request, safe=False))

    async def lease_keep_alive(self, lease_id: int) -> int:
        return await self._leases.keep_alive(lease_id)

    async def lease_time_to_live(self, lease_id: int, *, keys: bool = False) -> LeaseTimeToLiveResponse:
        request = codec.encode_lease_time_to_live(lease_id, keys=keys)
        data = await self._caller.unary(f"{_LEASE}LeaseTimeToLive", request, safe=True)
        return codec.decode_lease_time_to_live_response(data)

    async def lease_leases(self) -> list[int]:
        return codec.decode_lease_leases_response(await self._caller.unary(f"{_LEASE}LeaseLeases", b"", safe=True))

    async def status(self) -> Status:
        """Return the state of the member that this store is connected to."""
        return codec.decode_status_response(
            await self._caller.unary(f"{_MAINTENANCE}Status", b"", safe=True, local=True)
        )

    async def hash_kv(self, revision: int = 0) -> HashKVResponse:
        request = codec.encode_hash_kv(revision)
        data = await self._caller.unary(f"{_MAINTENANCE}HashKV", request, safe=True, local=True)
        return codec.decode_hash_kv_response(data, revision)

    async def alarm(self, action: AlarmAction, alarm: AlarmType = AlarmType.NONE, member_id: int = 0) -> list[Alarm]:
        request = codec.encode_alarm(action, alarm, member_id)
        # Raising or clearing an alarm that is raised or cleared already changes nothing.
        return codec.decode_alarm_response(await self._caller.unary(f"{_MAINTENANCE}Alarm", request, safe=True))

    async def defragment(self) -> None:
        """Defragment every endpoint's member, one after the other, as each stops serving meanwhile."""
        for endpoint in self._balancer.endpoints:
            connection = await self._balancer.dial(endpoint)
            try:
                await self._caller.one_member(
                    connection, f"{_MAINTENANCE}Defragment", b"", self._options.maintenance_timeout
                )
            finally:
                await connection.channel.close()

    async def snapshot(self) -> AsyncIterator[bytes]:
        """Stream one member's backend file, as `etcdctl snapshot restore` takes it; it does not go on elsewhere."""
        connection, stream = await self._caller.open(f"{_MAINTENANCE}Snapshot", local=True)
        remaining = 0
        try:
            stream.send(b"")
            stream.half_close()
            async for data in stream:
                part = codec.decode_snapshot_response(data)
                remaining = part.remaining_bytes
                if part.blob:
                    yield part.blob
        except GrpcError as error:
            self._caller.lost(connection, error)
            failure = error_from_status(error.code, error.message)
            failure.add_note(f"the snapshot of {connection.endpoint} is not complete")
            raise failure from error
        finally:
            stream.cancel()
        if remaining:
            raise errors.Unavailable(f"etcd: the snapshot of {connection.endpoint} ended {remaining} bytes early")

    async def members(self) -> list[Member]:
        data = await self._caller.unary("/etcdserverpb.Cluster/MemberList", b"", safe=True, local=True)
        return codec.decode_member_list_response(data)

    async def close(self) -> None:
        await asyncio.gather(self._watches.close(), self._leases.close())
        await self._balancer.close()


def _only_reads(request: TxnRequest) -> bool:
    """Whether a transaction changes nothing, whichever branch runs."""
    ops: tuple[Op, ...] = (*request.success, *request.failure)
    return all(isinstance(op, RangeRequest) or (isinstance(op, TxnRequest) and _only_reads(op)) for op in ops)
