"""Python's etcd clients from PyPI against our service.

Each runs in an interpreter of its own, for their protobuf descriptors would meet in one. `etcd3` was generated before
protobuf 3.20 and therefore runs on protobuf's pure-Python implementation. Left out: etcetra, which pins grpcio 1.62 and
protobuf 4, and the clients of etcd's JSON gateway, which is not served.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from support.service import serve_process

pytestmark = pytest.mark.slow

BLOCKING = """
import importlib, io, sys

library = importlib.import_module(sys.argv[2])
client = library.client(host="127.0.0.1", port=int(sys.argv[1]), timeout=10)

client.put("a/1", "one")
client.put("a/2", b"two")
assert client.get("a/1")[0] == b"one"
assert client.get("none")[0] is None
assert [value for value, _ in client.get_prefix("a/")] == [b"one", b"two"]
assert [meta.key for _, meta in client.get_prefix("a/", sort_order="descend", sort_target="key")] == [b"a/2", b"a/1"]
assert client.replace("a/1", "one", "1") is True
assert client.replace("a/1", "one", "2") is False
assert client.put_if_not_exists("a/3", "three") is True
assert client.put_if_not_exists("a/3", "four") is False

done, answers = client.transaction(
    compare=[client.transactions.value("a/1") == "1", client.transactions.version("a/2") > 0],
    success=[client.transactions.put("t", "yes"), client.transactions.get("a/2")],
    failure=[client.transactions.put("t", "no")],
)
assert done, answers
assert client.get("t")[0] == b"yes"

events, cancel = client.watch_prefix("w/")
client.put("w/1", "x")
client.delete("w/1")
first, second = next(events), next(events)
assert (type(first).__name__, first.key, first.value) == ("PutEvent", b"w/1", b"x")
assert (type(second).__name__, second.key) == ("DeleteEvent", b"w/1")
cancel()

lease = client.lease(60)
client.put("bound", "v", lease=lease)
assert client.get_lease_info(lease.id).grantedTTL == 60
assert lease.refresh()[0].TTL == 60
lease.revoke()
assert client.get("bound")[0] is None

with client.lock("mutex", ttl=20) as lock:
    assert lock.is_acquired()
assert client.status().leader.name == "pilothouse"
assert [member.name for member in client.members] == ["pilothouse"]
saved = io.BytesIO()
client.snapshot(saved)
assert len(saved.getvalue()) % 512 == 32
revision = client.get("a/1")[1].mod_revision
client.compact(revision)
client.defragment()
assert list(client.list_alarms()) == []
assert client.delete_prefix("a/").deleted == 3
client.close()
print("done")
"""

ASYNCIO = """
import asyncio, sys

import aetcd


async def main():
    async with aetcd.Client(host="127.0.0.1", port=int(sys.argv[1]), timeout=10) as client:
        for number in range(3):
            await client.put(b"a/%d" % number, b"v%d" % number)
        found = await client.get(b"a/1")
        assert (found.value, found.version) == (b"v1", 1)
        assert await client.get(b"none") is None
        assert [one.key for one in await client.get_prefix(b"a/")] == [b"a/0", b"a/1", b"a/2"]
        assert await client.replace(b"a/1", b"v1", b"new")
        done, _ = await client.transaction(
            compare=[client.transactions.value(b"a/1") == b"new"],
            success=[client.transactions.put(b"t", b"yes")],
            failure=[client.transactions.put(b"t", b"no")],
        )
        assert done
        watch = await client.watch_prefix(b"w/")
        await client.put(b"w/1", b"x")
        await client.delete(b"w/1")
        seen = []
        async for event in watch:
            seen.append((str(event.kind), event.kv.key))
            if len(seen) == 2:
                break
        assert seen == [("PUT", b"w/1"), ("DELETE", b"w/1")], seen
        await watch.cancel()
        lease = await client.lease(60)
        await client.put(b"bound", b"v", lease=lease)
        await lease.refresh()
        assert await lease.remaining_ttl() > 50
        await lease.revoke()
        assert await client.get(b"bound") is None
        async with client.lock(b"mutex", ttl=20):
            pass
        assert (await client.status()).version.startswith("3.5.")
        assert await client.delete_prefix(b"a/")
    print("done")


asyncio.run(main())
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[str]:
    with serve_process(tmp_path / "data") as url:
        yield url.rpartition(":")[2]


@pytest.mark.parametrize(
    ("library", "script", "implementation"),
    [("aetcd", ASYNCIO, "upb"), ("pyetcd", BLOCKING, "upb"), ("etcd3", BLOCKING, "python")],
)
def test_a_client_library_works(library: str, script: str, implementation: str, port: str, tmp_path: Path) -> None:
    if find_spec(library) is None:
        pytest.skip(f"the library {library} is not installed; the dependency group `test` has it")
    file = tmp_path / "client.py"
    file.write_text(script)
    done = subprocess.run(
        [sys.executable, str(file), port, library],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": implementation},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
