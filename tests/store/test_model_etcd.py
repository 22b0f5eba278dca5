r"""The model against a real etcd, answer by answer: what makes the model a reference for the engine.

Debian's etcd is 3.4; where it deviates from 3.6 the model has a profile (`ETCD_3_4`), explained in `support.model`.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from typing import Any

import pytest

from pilothouse.store.errors import StoreError
from pilothouse.store.etcd.backend import EtcdStore, open_etcd
from pilothouse.store.model import DeleteRangeRequest, Event, PutRequest, WatchRequest
from support.etcd_json import EtcdJson, running_etcd
from support.model import ETCD_3_4, ModelStore
from support.operations import KEYS, Action, Call, Generator, comparable, perform

pytestmark = pytest.mark.etcd


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_etcd(tmp_path_factory.mktemp("etcd")) as port:
        yield port


@pytest.fixture
def etcd(port: int) -> Iterator[EtcdJson]:
    client = EtcdJson(port)
    yield client
    client.close()


def outcome(store: Any, action: Action) -> object:
    try:
        answer = perform(store, action)
    except StoreError as error:
        answer = error
    return comparable(answer, exact_time=False)


def caught_up(etcd: EtcdJson) -> ModelStore:
    """Return a model in the state of an etcd whose keys and leases have been deleted and history compacted."""
    for lease_id in etcd.lease_leases():
        etcd.lease_revoke(lease_id)
    etcd.put(PutRequest(b"once more"))
    revision = etcd.delete_range(DeleteRangeRequest(b"\0", b"\0")).revision
    etcd.compact(revision)
    model = ModelStore(clock=lambda: 0.0, profile=ETCD_3_4)
    model.revision = model.compact_revision = revision
    return model


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_answers_agree_over_random_operations(etcd: EtcdJson, seed: int) -> None:
    model = ModelStore(clock=lambda: 0.0, profile=ETCD_3_4) if seed == 0 else caught_up(etcd)
    rng = random.Random(seed)
    generator = Generator(rng)
    for number in range(1500):
        action = generator.action(model.revision, model.compact_revision)
        expected = outcome(model, action)
        assert outcome(etcd, action) == expected, f"seed {seed}, operation {number}: {action}"
    assert etcd.hash_kv() == model.hash_kv()


REFUSED_UNSEEN = {"EmptyKey", "UnknownCompare", "TooManyOps", "DuplicateKey"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_the_client_agrees_over_random_operations(port: int, etcd: EtcdJson, seed: int) -> None:
    model = caught_up(etcd)
    # The client refuses these guards itself, since no etcd does.
    model.profile = ETCD_3_4._replace(refuse_unknown_compare=True)
    generator = Generator(random.Random(20 + seed))
    store = await open_etcd(f"etcd://127.0.0.1:{port}")
    try:
        for number in range(1500):
            action = generator.action(model.revision, model.compact_revision)
            expected = outcome(model, action)
            answer = await answered(store, action)
            # Client and server look for different faults, so of several either may be named.
            if not {str(expected), str(answer)} <= REFUSED_UNSEEN:
                assert answer == expected, f"seed {seed}, operation {number}: {action}"
    finally:
        await store.close()


async def answered(store: EtcdStore, action: Action) -> object:
    """Return the client's answer; compactions are waited for, so that hashes can be compared."""
    try:
        if isinstance(action, Call) and action.method == "compact":
            return await store.compact(*action.args, physical=True)
        return comparable(await perform(store, action), exact_time=False)
    except StoreError as error:
        return comparable(error)


def sentinel(model: ModelStore, etcd: EtcdJson, key: bytes) -> int:
    """Write a key that ends a watch and return its revision."""
    request = PutRequest(key, b"sentinel")
    assert etcd.put(request) == model.put(request)
    return model.revision


def watched(port: int, request: WatchRequest, last: int) -> list[tuple[object, ...]]:
    """Collect a real watcher's events up to revision `last`."""
    client = EtcdJson(port)
    events: list[tuple[object, ...]] = []
    try:
        for result in client.watch(request.key, request.range_end, request.start_revision, prev_kv=request.prev_kv):
            events += [_wire(event) for event in result.get("events", [])]
            if events and events[-1][2] == last:
                return events
    finally:
        client.close()
    raise AssertionError(f"the watch ended before revision {last}: {events}")


def _wire(event: dict[str, Any]) -> tuple[object, ...]:
    kv, prev = event["kv"], event.get("prev_kv")
    return (
        "delete" if event.get("type") == "DELETE" else "put",
        base64.b64decode(kv["key"]),
        int(kv["mod_revision"]),
        base64.b64decode(kv.get("value", "")),
        int(kv.get("version", 0)),
        prev and (int(prev["mod_revision"]), base64.b64decode(prev.get("value", ""))),
    )


def _model_event(event: Event) -> tuple[object, ...]:
    kv, prev = event.kv, event.prev_kv
    return (
        "delete" if event.is_delete else "put",
        kv.key,
        kv.mod_revision,
        kv.value,
        kv.version,
        prev and (prev.mod_revision, prev.value),
    )


@pytest.mark.slow
def test_watches_agree_over_random_operations(port: int, etcd: EtcdJson) -> None:
    model = caught_up(etcd)
    rng = random.Random(11)
    generator = Generator(rng, hashes=False)
    for _ in range(25):
        for _ in range(30):
            action = generator.action(model.revision, model.compact_revision)
            outcome(model, action)
            outcome(etcd, action)
        key, end = rng.choice(KEYS), rng.choice((b"", b"\0", b"b", b"c"))
        if end and end != b"\0" and end <= key:
            end = b""
        last = sentinel(model, etcd, key)
        # At the compaction point itself what was there before is gone, so prev_kv is asked for only after it.
        start = rng.randint(max(model.compact_revision, 1), last)
        request = WatchRequest(key, end, start_revision=start, prev_kv=start > model.compact_revision)
        assert watched(port, request, last) == [_model_event(event) for event in model.events(request)]


def test_a_compacted_watch_is_cancelled_with_the_revision(port: int, etcd: EtcdJson) -> None:
    model = caught_up(etcd)
    client = EtcdJson(port)
    results = client.watch(b"a", b"", model.compact_revision - 1)
    assert next(results)["created"]
    cancelled = next(results)
    assert cancelled["canceled"]
    assert int(cancelled["compact_revision"]) == model.compact_revision
    client.close()
