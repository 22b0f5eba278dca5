"""Filter, sort and cut what a range found, as etcd does."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter

from pilothouse.store.model import KeyValue, RangeRequest, RangeResponse, SortOrder, SortTarget

__all__ = ["answer", "is_plain"]

_SORT_KEYS: dict[int, Callable[[KeyValue], bytes | int]] = {
    SortTarget.KEY: attrgetter("key"),
    SortTarget.VERSION: attrgetter("version"),
    SortTarget.CREATE: attrgetter("create_revision"),
    SortTarget.MOD: attrgetter("mod_revision"),
    SortTarget.VALUE: attrgetter("value"),
}


def is_plain(request: RangeRequest) -> bool:
    """Whether the first keys in order are the answer, so that a limit may cut the read itself."""
    return not (
        request.sort_order
        or request.sort_target
        or request.min_mod_revision
        or request.max_mod_revision
        or request.min_create_revision
        or request.max_create_revision
    )


def answer(request: RangeRequest, kvs: list[KeyValue], count: int, revision: int) -> RangeResponse:
    """Make the response from the keys found: `kvs` in key order, one more than the limit if there are that many."""
    if not is_plain(request):
        kvs = _sorted(request, _filtered(request, kvs))
    more = 0 < request.limit < len(kvs)
    if more:
        kvs = kvs[: request.limit]
    if request.keys_only:
        kvs = [KeyValue(kv.key, b"", kv.create_revision, kv.mod_revision, kv.version, kv.lease, kv.sub) for kv in kvs]
    return RangeResponse(revision, kvs, count, more)


def _filtered(request: RangeRequest, kvs: list[KeyValue]) -> list[KeyValue]:
    if request.max_mod_revision:
        kvs = [kv for kv in kvs if kv.mod_revision <= request.max_mod_revision]
    if request.min_mod_revision:
        kvs = [kv for kv in kvs if kv.mod_revision >= request.min_mod_revision]
    if request.max_create_revision:
        kvs = [kv for kv in kvs if kv.create_revision <= request.max_create_revision]
    if request.min_create_revision:
        kvs = [kv for kv in kvs if kv.create_revision >= request.min_create_revision]
    return kvs


def _sorted(request: RangeRequest, kvs: list[KeyValue]) -> list[KeyValue]:
    descending = request.sort_order == SortOrder.DESCEND
    if request.sort_target == SortTarget.KEY:
        return kvs[::-1] if descending else kvs
    return sorted(kvs, key=_SORT_KEYS[request.sort_target], reverse=descending)
