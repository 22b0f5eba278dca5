"""The embedded engine against the model: answers, hashes, watches and leases, over restarts and checkpoints."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pilothouse.foundation.clock import FakeClock
from pilothouse.store.engine import EmbeddedStore, StoreOptions
from pilothouse.store.errors import Compacted, StoreError
from pilothouse.store.model import (
    DeleteRangeRequest,
    PutRequest,
    TxnRequest,
    WatchFilter,
    WatchRequest,
    WatchResponse,
)
from pilothouse.store.protocol import Watch
from support.model import PILOTHOUSE, ModelStore
from support.operations import KEYS, Action, Generator, comparable, perform
from support.watch_validators import Breach, Watched, validate

T = TypeVar("T")


class Pair:
    """An engine and the model that it has to agree with, on one clock that stands still until moved."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.model = ModelStore(self.clock.monotonic, PILOTHOUSE)
        # So small that checkpoints, rotations and sweeps happen all the time.
        self.options = StoreOptions(
            data_dir=str(directory), snapshot_entries=40, segment_bytes=64 * 1024, clock=self.clock
        )
        self.store: EmbeddedStore

    async def open(self) -> None:
        """Open the engine; leases start their time anew, as after every start."""
        self.store = await EmbeddedStore.open(self.options)
        for lease in self.model.leases.values():
            lease.expires_at = self.clock.monotonic() + lease.granted_ttl

    async def reopen(self) -> None:
        """Stop the engine and start it from its files."""
        await self.store.close()
        await self.open()

    async def act(self, action: Action) -> None:
        """Do the same on both and compare."""
        expected: object
        try:
            expected = perform(self.model, action)
        except StoreError as error:
            expected = error
        try:
            answer = await perform(self.store, action)
        except StoreError as error:
            answer = error
        assert comparable(answer) == comparable(expected), action

    async def end_one_lease(self) -> None:
        """Move the clock to where the next lease ends, in both."""
        first = min(lease.expires_at for lease in self.model.leases.values())
        tied = [key for key, lease in self.model.leases.items() if lease.expires_at == first]
        # Which of several ends first is nobody's promise.
        for lease_id in tied[1:]:
            assert await self.store.lease_revoke(lease_id) == self.model.lease_revoke(lease_id)
        self.clock.advance(max(first - self.clock.monotonic(), 0.0))
        assert self.model.expire_leases() == tied[:1]
        # Proposed after the revocation and refused, so answered when that is done, and changes nothing.
        with pytest.raises(Compacted):
            await self.store.compact(-1)
        assert sorted(await self.store.lease_leases()) == self.model.lease_leases()

    async def replay(self, request: WatchRequest) -> list[Breach]:
        """Watch from the past and return where that is not what happened."""
        async with self.store.watch(request) as watch:
            responses = await until_progress(watch, self.model.revision)
        history = [event for event in self.model.history if event.kv in set(self.model.records)]
        return validate(Watched(request, responses, request.start_revision), history)


async def until_progress(watch: Watch, revision: int) -> list[WatchResponse]:
    """Collect responses until one without events says that all up to `revision` has been delivered."""
    responses: list[WatchResponse] = []
    watch.request_progress()
    while not responses or responses[-1].events or responses[-1].revision < revision:
        responses.append(await asyncio.wait_for(anext(watch), 30))
        assert not responses[-1].canceled, responses[-1]
    return responses


def random_watch(rng: random.Random, model: ModelStore) -> WatchRequest:
    key = rng.choice(KEYS)
    start = rng.randint(max(model.compact_revision, 1), model.revision + 1)
    ends = [end for end in (b"b", b"c", b"\xff\xff\xff") if end > key]
    return WatchRequest(
        key=key,
        range_end=rng.choice((b"", b"\0", *ends)),
        start_revision=start,
        # What was there before the compaction point is gone.
        prev_kv=start > model.compact_revision and rng.random() < 0.5,
        filters=rng.choice(((), (WatchFilter.NOPUT,), (WatchFilter.NODELETE,))),
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_agrees_over_random_operations(tmp_path: Path, seed: int) -> None:
    pair = Pair(tmp_path / "store")
    rng = random.Random(seed)
    generator = Generator(rng, invalid_sort=True)
    await pair.open()
    try:
        for _ in range(1500):
            await pair.act(generator.action(pair.model.revision, pair.model.compact_revision))
            dice = rng.random()
            if dice < 0.01:
                await pair.reopen()
            elif dice < 0.03:
                assert await pair.replay(random_watch(rng, pair.model)) == []
            elif dice < 0.04 and pair.model.leases:
                await pair.end_one_lease()
        assert await pair.store.hash_kv() == pair.model.hash_kv()
    finally:
        await pair.store.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_live_watchers_see_what_the_model_did(tmp_path: Path, seed: int) -> None:
    pair = Pair(tmp_path / "store")
    rng = random.Random(seed)
    generator = Generator(rng, hashes=False)
    await pair.open()
    try:
        requests = [random_watch(rng, pair.model) for _ in range(12)]
        watches = [pair.store.watch(request) for request in requests]
        for _ in range(800):
            await pair.act(generator.action(pair.model.revision, pair.model.compact_revision))
        for request, watch in zip(requests, watches, strict=True):
            responses = await until_progress(watch, pair.model.revision)
            await watch.cancel()
            assert validate(Watched(request, responses, request.start_revision), pair.model.history) == []
    finally:
        await pair.store.close()


async def test_a_key_put_and_deleted_in_one_revision_looks_the_same_live_and_late(tmp_path: Path) -> None:
    def put_and_delete(key: bytes) -> TxnRequest:
        put, delete = PutRequest(key, b"new"), DeleteRangeRequest(key)
        return TxnRequest(success=(TxnRequest(success=(put,)), TxnRequest(success=(delete,))))

    pair = Pair(tmp_path / "store")
    await pair.open()
    try:
        request = WatchRequest(b"\0", b"\0", start_revision=2, prev_kv=True)
        live = pair.store.watch(request)
        for action in (PutRequest(b"old", b"1"), put_and_delete(b"old"), put_and_delete(b"fresh")):
            await pair.act(action)
        responses = await until_progress(live, pair.model.revision)
        await live.cancel()
        assert validate(Watched(request, responses, 2), pair.model.history) == []
        assert await pair.replay(request) == []
        await pair.reopen()
        assert await pair.replay(request) == []
        assert await pair.store.hash_kv() == pair.model.hash_kv()
    finally:
        await pair.store.close()


class EmbeddedMachine(RuleBasedStateMachine):
    """Lets hypothesis look for, and shrink, a sequence of operations on which engine and model differ."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="pilothouse-model-"))
        self.pair = Pair(self.directory / "store")
        self.run_(self.pair.open())

    def run_(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @rule(rng=st.randoms(use_true_random=False))
    def act(self, rng: random.Random) -> None:
        generator = Generator(rng, invalid_sort=True)
        self.run_(self.pair.act(generator.action(self.pair.model.revision, self.pair.model.compact_revision)))

    @rule(rng=st.randoms(use_true_random=False))
    def watch(self, rng: random.Random) -> None:
        assert self.run_(self.pair.replay(random_watch(rng, self.pair.model))) == []

    @rule()
    def reopen(self) -> None:
        self.run_(self.pair.reopen())

    @precondition(lambda self: self.pair.model.leases)
    @rule()
    def end_one_lease(self) -> None:
        self.run_(self.pair.end_one_lease())

    @rule(seconds=st.floats(0, 1))
    def pass_time(self, seconds: float) -> None:
        if all(lease.expires_at > self.pair.clock.monotonic() + seconds for lease in self.pair.model.leases.values()):
            self.pair.clock.advance(seconds)

    @invariant()
    def revisions_agree(self) -> None:
        assert self.run_(self.pair.store.status()).revision == self.pair.model.revision

    def teardown(self) -> None:
        self.run_(self.pair.store.close())
        self.runner.close()
        shutil.rmtree(self.directory)


TestEmbeddedMachine = pytest.mark.slow(EmbeddedMachine.TestCase)
EmbeddedMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
