"""Keeps the watch cache in step with the store: loads what is there, then follows one watch of everything.

With the embedded engine a change is in the cache before the write that made it is answered, so a read never waits.
With etcd the watch runs behind; who needs a revision waits for it.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pilothouse.apiserver.cache.changes import Change
from pilothouse.apiserver.cache.entries import Entry, Form, decode, encode, form_of
from pilothouse.apiserver.cache.resourcecache import ResourceCache
from pilothouse.foundation.clock import Clock, Timer
from pilothouse.foundation.retry import Backoff, retry
from pilothouse.store import Event, KeyValue, RangeRequest, Store, StoreError, WatchRequest, prefix_end
from pilothouse.store.errors import Compacted
from pilothouse.store.model import SortOrder, SortTarget

__all__ = ["PREFIX", "Cacher", "Decrypt", "key_of", "prefix_of"]

_log = logging.getLogger(__name__)

PREFIX = b"/registry/"
_HISTORY = 10_000
"""Revisions before the start that watchers may still start from."""
_METADATA = b'"metadata":{'
_HEAD_LENGTH = 1024
_PROGRESS_SECONDS = 0.1
_PAUSE_SECONDS = 0.2
_ENCRYPTED = b"k8s:enc:"
_PARTS = 4
"""Of the shortest key: an empty one, `registry`, the resource, a name."""


class Decrypt(Protocol):
    """Makes the stored form of a resource's objects readable."""

    def decrypt(self, key: bytes, stored: bytes) -> tuple[bytes, bool]:
        """Return the plain bytes, and whether they should be written again with the newest key."""


def prefix_of(group: str, resource: str, *, custom: bool) -> bytes:
    """Return where the objects of a resource lie in the store."""
    return b"/registry/%b/%b/" % (group.encode(), resource.encode()) if custom else b"/registry/%b/" % resource.encode()


def _no_object(kv: KeyValue) -> StoreError:
    key = kv.key.decode()
    if kv.value.startswith(_ENCRYPTED):
        return StoreError(f"key {key!r} of the store is encrypted; give the configuration that has its key")
    return StoreError(f"key {key!r} of the store holds no Kubernetes object in JSON; delete it or write it anew")


def key_of(namespace: str, name: str) -> str:
    """Return the key of an object within its resource."""
    return f"{namespace}/{name}" if namespace else name


class Cacher:
    """All resources' caches. `await start()` before use, `await close()` after.

    builtin: the full name of each built-in resource by its plural; keys of others tell their group themselves.
    decrypts: by full name of a resource.
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        builtin: Mapping[str, str],
        decrypts: Mapping[str, Decrypt] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._builtin = builtin
        self._decrypts = dict(decrypts or {})
        self._by_prefix: dict[bytes, ResourceCache] = {}
        self._by_name: dict[str, ResourceCache] = {}
        self._forms: dict[bytes, Form] = {}
        self._target = 0
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._asking: Timer | None = None
        self._started = False
        self._unreadable: dict[bytes, str] = {}
        """By key what of the past could not be read while starting, and was not written anew since."""
        self._watch: Any = None
        self._since = 0
        self._sequence = 0
        self._gap = False
        """Whether changes were compacted away before they were seen."""
        self.revision = 0
        """The store's revision up to which the cache knows everything."""
        self.behind: str = ""
        """Why the cache cannot follow the store now, empty while it can."""
        self.reloading: list[Callable[[], None]] = []
        """Called before changes are told whose order and revisions are not those of the store."""

    @property
    def shared(self) -> bool:
        """Whether others may write to the store, so that a read has to ask it how far it is."""
        return not hasattr(self._store, "hub")

    # Resources

    def resource(self, full_name: str, group: str, plural: str, *, custom: bool) -> ResourceCache:
        """Return the cache of a resource, made when it is first asked for."""
        found = self._by_name.get(full_name)
        if found is None:
            prefix = prefix_of(group, plural, custom=custom)
            found = self._made(prefix, full_name, custom=custom)
        return found

    def _made(self, prefix: bytes, full_name: str, *, custom: bool) -> ResourceCache:
        made = ResourceCache(full_name, prefix, custom=custom, since=self._since)
        self._by_prefix[prefix] = self._by_name[full_name] = made
        return made

    def named(self, full_name: str) -> ResourceCache | None:
        """Return the cache of a resource by its full name, where there is one."""
        found = self._by_name.get(full_name)
        if found is None:
            plural, _, group = full_name.partition(".")
            if self._builtin.get(plural) == full_name:
                return self.resource(full_name, group, plural, custom=False)
        return found

    def caches(self) -> Sequence[ResourceCache]:
        """Return the caches of all resources seen so far."""
        return list(self._by_prefix.values())

    def _place(self, key: bytes) -> tuple[ResourceCache, str]:
        parts = key.split(b"/", 4)
        if not key.isascii() or not parts[-1] or len(parts) < _PARTS:
            raise StoreError(f"key {key!r} of the store is none of an API server's")
        custom = b"." in parts[2]
        prefix = b"/".join(parts[: 4 if custom else 3]) + b"/"
        cache = self._by_prefix.get(prefix)
        if cache is None:
            if custom:
                name = f"{parts[3].decode()}.{parts[2].decode()}"
            else:
                name = self._builtin.get(parts[2].decode(), parts[2].decode())
            cache = self._made(prefix, name, custom=custom)
        return cache, key[len(prefix) :].decode()

    # Loading and following

    async def start(self) -> None:
        """Load all objects and begin to follow. Raises StoreError where the store cannot be read."""
        await self._load()
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="watch cache")
        await self.wait(self._target)
        if self.behind:
            raise RuntimeError(self.behind)
        self._started = True
        if self._unreadable:
            await self.close()
            raise StoreError(next(iter(self._unreadable.values())))

    async def _load(self) -> None:
        status = await self._store.status()
        since = max(status.compact_revision, status.revision - _HISTORY, 1)
        try:
            answer = await self._store.range(RangeRequest(PREFIX, prefix_end(PREFIX), revision=since))
        except Compacted:
            # Another server has compacted it; without a past there is nothing that watchers could start from.
            answer = await self._store.range(RangeRequest(PREFIX, prefix_end(PREFIX), revision=status.revision))
            since = status.revision
        self._target = await self._newest(status.revision) if self.shared else status.revision
        self._since = self.revision = since
        known: dict[ResourceCache, dict[str, Entry]] = {}
        for kv in answer.kvs:
            cache, key = self._place(kv.key)
            known.setdefault(cache, {})[key] = self._entry(cache, key, kv)
        for cache, found in known.items():
            cache.items.update(found)
            cache.version += 1
        for cache in self._by_prefix.values():
            cache.compact(since)
        self._listen(since + 1)

    async def _newest(self, revision: int) -> int:
        """Return when the newest object was written. Older etcd tells a watch of nothing that is not its own."""
        newest = RangeRequest(
            PREFIX,
            prefix_end(PREFIX),
            limit=1,
            revision=revision,
            sort_order=SortOrder.DESCEND,
            sort_target=SortTarget.MOD,
            keys_only=True,
        )
        found = (await self._store.range(newest)).kvs
        return found[0].mod_revision if found else 0

    def _listen(self, start: int) -> None:
        request = WatchRequest(PREFIX, prefix_end(PREFIX), start_revision=start, progress_notify=True)
        self._watch = self._store.watch(request)
        watcher = getattr(self._watch, "watcher", None)
        if watcher is not None:
            # The embedded engine: changes are taken in the moment they are applied, before the writer hears of it.
            watcher.on_ready = lambda: self._take_from(watcher)

    def _take_from(self, watcher: Any) -> None:
        while responses := watcher.take():
            for response in responses:
                self._take(response)

    async def _follow(self) -> None:
        watcher = getattr(self._watch, "watcher", None)
        if watcher is not None:
            self._take_from(watcher)
            return
        while True:
            began = self.revision
            await self._consume()
            if self.revision == began and not self._gap:
                # Nothing came of it: whatever ended it may do so again at once.
                await self._clock.sleep(_PAUSE_SECONDS)
            backoff = Backoff(base=0.1, cap=5.0, attempts=None)
            await retry(self._again, backoff, self._clock, (StoreError, OSError), name="watch of the store")

    async def _consume(self) -> None:
        try:
            async for response in self._watch:
                if response.canceled:
                    self.behind = f"the store ended the watch: {response.cancel_reason or 'compacted'}"
                    self._gap = response.compact_revision > self.revision
                    break
                self._take(response)
        except (StoreError, OSError) as error:
            self.behind = f"the watch of the store failed: {error}"
        _log.warning("watch cache: %s; starting again from revision %d", self.behind or "ended", self.revision)

    async def _again(self) -> None:
        await self._watch.cancel()
        status = await self._store.status()
        # Not every store says up to where it is compacted before it is asked for something older.
        if self._gap or status.compact_revision > self.revision:
            await self._reload()
        else:
            self._listen(self.revision + 1)
        self._gap, self.behind = False, ""

    async def _reload(self) -> None:
        """Bring the cache to what the store has now, after changes that can no longer be read one by one."""
        answer = await self._store.range(RangeRequest(PREFIX, prefix_end(PREFIX)))
        there = {kv.key: kv for kv in answer.kvs}
        for callback in self.reloading:
            callback()
        for cache in self.caches():
            for key in list(cache.items):
                if cache.prefix + key.encode() not in there:
                    self._delete(cache, key, answer.revision)
        for kv in sorted(answer.kvs, key=lambda kv: kv.mod_revision):
            cache, key = self._place(kv.key)
            have = cache.get(key)
            if have is None or have.rv != kv.mod_revision:
                self._put(cache, key, kv)
        for cache in self.caches():
            cache.compact(answer.revision)
        self._reached(answer.revision)
        self._listen(answer.revision + 1)

    def _take(self, response: Any) -> None:
        if response.canceled:
            self.behind = f"the store ended the watch: {response.cancel_reason}"
            return
        event: Event
        for event in response.events:
            try:
                self._take_event(event)
                self._unreadable.pop(event.kv.key, None)
            except StoreError as error:
                if not self._started:
                    self._unreadable[event.kv.key] = error.message
                    continue
                # Only others than API servers write such things, and what they write must stop nobody.
                _log.error("watch cache: %s; it is left out", error.message)  # the text says all
        self._reached(response.revision)

    def _take_event(self, event: Event) -> None:
        cache, key = self._place(event.kv.key)
        if event.kv.version == 0:
            self._delete(cache, key, event.kv.mod_revision)
            return
        try:
            self._put(cache, key, event.kv)
        except StoreError:
            self._delete(cache, key, event.kv.mod_revision)
            raise

    def _put(self, cache: ResourceCache, key: str, kv: KeyValue) -> None:
        old = cache.get(key)
        entry = self._entry(cache, key, kv)
        self._apply(cache, key, Change(entry, old, deleted=False))

    def _delete(self, cache: ResourceCache, key: str, revision: int) -> None:
        old = cache.get(key)
        if old is not None:
            gone = Entry(key, old.value, revision, old.form)
            self._apply(cache, key, Change(gone, old, deleted=True))

    def _apply(self, cache: ResourceCache, key: str, change: Change) -> None:
        # The revision counts before anybody is told, for who is told may look.
        self.revision = max(self.revision, change.rv)
        cache.apply(change, key)

    def entry(self, cache: ResourceCache, kv: KeyValue) -> Entry:
        """Return the entry of a key of this resource as the store has it, in whatever revision."""
        return self._entry(cache, kv.key[len(cache.prefix) :].decode(), kv)

    def _entry(self, cache: ResourceCache, key: str, kv: KeyValue) -> Entry:
        value = kv.value
        decrypt = self._decrypts.get(cache.name)
        if decrypt is not None:
            try:
                value, _ = decrypt.decrypt(kv.key, value)
            except Exception as error:
                raise StoreError(f"key {kv.key.decode()!r} of the store: {error}") from error
        form = self._form(value, custom=cache.custom)
        if form is None:
            # Written by another program, whose fields stand in another order.
            try:
                value = encode(decode(value))
            except (ValueError, KeyError, TypeError):
                raise _no_object(kv) from None
            form = self._form(value, custom=cache.custom)
            if form is None:
                raise _no_object(kv)
        return Entry(key, value, kv.mod_revision, form)

    def _form(self, value: bytes, *, custom: bool) -> Form | None:
        end = value.find(_METADATA, 0, _HEAD_LENGTH)
        if end < 0:
            return None
        head = value[: end + len(_METADATA)]
        found = self._forms.get(head)
        if found is None:
            try:
                said = decode(head + b"}}")
                made = form_of(said["apiVersion"], said["kind"], custom=custom)
            except (ValueError, KeyError):
                return None
            if made.head != head:
                return None
            found = self._forms[head] = made
        return found

    def _reached(self, revision: int) -> None:
        self.revision = max(self.revision, revision)
        while self._waiting and self._waiting[0][0] <= self.revision:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)

    async def wait(self, revision: int) -> None:
        """Wait until the cache knows everything up to a revision."""
        if revision <= self.revision:
            return
        future = asyncio.get_running_loop().create_future()
        self._sequence += 1
        heapq.heappush(self._waiting, (revision, self._sequence, future))
        if self._watch is not None:
            self._watch.request_progress()
        if self._asking is None:
            self._asking = self._clock.call_later(_PROGRESS_SECONDS, self._ask_progress)
        await future

    def _ask_progress(self) -> None:
        """Ask the store how far the watch is until nobody waits: etcd does not answer while a watch catches up."""
        while self._waiting and self._waiting[0][2].done():
            heapq.heappop(self._waiting)
        self._asking = None
        if self._waiting:
            self._asking = self._clock.call_later(_PROGRESS_SECONDS, self._ask_progress)
            if self._watch is not None:
                self._watch.request_progress()

    async def current(self) -> int:
        """Wait until the cache is as new as the store is now, whoever wrote to it; return that revision."""
        if not self.shared:
            return self.revision
        answer = await self._store.range(RangeRequest(PREFIX, count_only=True))
        await self.wait(answer.revision)
        return answer.revision

    def compacted(self, revision: int) -> None:
        """Forget changes up to a revision that the store has compacted."""
        self._since = max(self._since, revision)
        for cache in self._by_prefix.values():
            cache.compact(revision)

    async def close(self) -> None:
        """Stop following the store."""
        if self._asking is not None:
            self._asking.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._watch is not None:
            await self._watch.cancel()
