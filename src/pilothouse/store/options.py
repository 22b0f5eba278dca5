"""How an embedded store is set up."""

from __future__ import annotations

from dataclasses import dataclass, field

from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.foundation.files import FileSystem, OsFileSystem
from pilothouse.foundation.ids import Ids, SystemIds
from pilothouse.foundation.metrics import PROGRAM, Metrics
from pilothouse.store.errors import InvalidRequest
from pilothouse.store.model import MAX_OPS_PER_TXN, MAX_REQUEST_BYTES

__all__ = ["StoreOptions"]

_MIB = 1024 * 1024
_LEAST = {
    "snapshot_entries": 1,
    "segment_bytes": 1024,
    "commit_queue": 1,
    "proposals": 1,
    "quota_bytes": 1,
    "max_request_bytes": 1,
    "max_txn_ops": 1,
    "auto_compaction_revisions": 0,
    "auto_compaction_seconds": 0,
    "watch_buffer_events": 1,
    "watch_buffer_bytes": 1,
    "progress_seconds": 0.1,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreOptions:
    """Settings of an `EmbeddedStore`; the defaults are etcd's where etcd has the setting.

    data_dir: where everything is kept; made if missing, mode 0700.
    snapshot_entries: applied commands between two checkpoints.
    segment_bytes: size of a log segment, allocated ahead.
    commit_queue: commands that may be durable and not yet applied; `store status` gives advice from what it measures.
    proposals: commands that may wait for the log; more are refused with `TooManyRequests`.
    quota_bytes: keys, values and history that may be held; more raises the NOSPACE alarm.
    auto_compaction_revisions, auto_compaction_seconds: history kept, by count or age; 0 keeps all until asked.
    watch_buffer_events, watch_buffer_bytes: what may wait for one watcher before it is cancelled.
    progress_seconds: how long a quiet watcher with `progress_notify` waits for a report.
    """

    data_dir: str
    name: str = "pilothouse"
    snapshot_entries: int = 10_000
    segment_bytes: int = 64 * _MIB
    commit_queue: int = 1024
    proposals: int = 65_536
    quota_bytes: int = 2048 * _MIB
    max_request_bytes: int = MAX_REQUEST_BYTES
    max_txn_ops: int = MAX_OPS_PER_TXN
    auto_compaction_revisions: int = 0
    auto_compaction_seconds: float = 0.0
    watch_buffer_events: int = 10_000
    watch_buffer_bytes: int = 64 * _MIB
    progress_seconds: float = 600.0
    filesystem: FileSystem = field(default_factory=OsFileSystem)
    clock: Clock = field(default_factory=SystemClock)
    ids: Ids = field(default_factory=SystemIds)
    metrics: Metrics = PROGRAM

    def __post_init__(self) -> None:
        """Refuse settings that cannot work, naming the one and its least value."""
        if not self.data_dir:
            raise InvalidRequest("store option data_dir: empty; name the directory to keep everything in")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value < least:
                raise InvalidRequest(f"store option {name}: {value} is too small; want {least} or more")
