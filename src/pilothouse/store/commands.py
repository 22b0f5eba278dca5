"""What the log holds: every change of state as a typed command, encoded as MessagePack.

A command carries all that its application needs, so that applying the log again gives the same state.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from pilothouse.store.auth_commands import AuthCommand
from pilothouse.store.model import AlarmType, DeleteRangeRequest, PutRequest, TxnRequest

__all__ = ["Command", "Compact", "GrantLease", "RevokeLease", "SetAlarm", "decode", "encode"]


class Compact(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="compact"):
    """Forget revisions before `revision`."""

    revision: int


class GrantLease(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="grant"):
    """Create a lease; `ttl` in seconds."""

    lease_id: int
    ttl: int


class RevokeLease(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="revoke"):
    """End a lease and delete its keys."""

    lease_id: int


class SetAlarm(msgspec.Struct, frozen=True, gc=False, array_like=True, tag="alarm"):
    """Raise or clear an alarm of a member."""

    member_id: int
    alarm: AlarmType
    active: bool


Command: TypeAlias = (
    PutRequest | DeleteRangeRequest | TxnRequest | Compact | GrantLease | RevokeLease | SetAlarm | AuthCommand
)

encode = msgspec.msgpack.Encoder().encode
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


def decode(payload: bytes) -> Command:
    """Return the command that `encode` wrote; raise `msgspec.DecodeError` on anything else."""
    return _decoder.decode(payload)
