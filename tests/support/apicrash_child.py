"""Serve from a directory under writes until killed, reporting each answer and each event of a watch as it comes.

Run as `python -m support.apicrash_child DIRECTORY RUN SINCE WRITERS`. Each line of standard output is one report as
JSON, written with one system call: `opened` (all objects by name), `asked` and `answered` (writes), `seen` (events of
a watch from the version SINCE on), `end`. Without writers it ends when the watch has caught up.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from typing import Any

from pilothouse.store import EmbeddedStore, StoreOptions
from support.apiserverkit import Api, api_server, config_map

MAPS = "/api/v1/namespaces/default/configmaps"


def report(kind: str, **fields: Any) -> None:
    os.write(1, json.dumps({"kind": kind, **fields}).encode() + b"\n")


async def write_forever(api: Api, writer: int, rng: random.Random, run: int) -> None:
    """Create, change and delete objects that no other writer touches."""
    for count in range(1_000_000):
        name = f"w{writer}-{rng.randrange(4)}"
        value = f"{run}-{count}"
        verb = rng.choice(("POST", "PATCH", "PATCH", "APPLY", "DELETE"))
        report("asked", name=name, verb=verb, value=value)
        body = config_map(name, {"v": value})
        if verb == "POST":
            reply = await api.post(MAPS, body)
        elif verb == "APPLY":
            reply = await api.apply(f"{MAPS}/{name}", body, "tests", force=True)
        elif verb == "PATCH":
            reply = await api.merge(f"{MAPS}/{name}", {"data": {"v": value}})
        else:
            reply = await api.delete(f"{MAPS}/{name}")
        found = reply.body
        version = int(found["metadata"].get("resourceVersion") or 0) if reply.status < 300 and verb != "DELETE" else 0
        report("answered", name=name, verb=verb, value=value, code=reply.status, version=version)


async def watch(api: Api, since: str, until: int) -> None:
    """Report events; with `until` end once all up to that version have come."""
    watcher = await api.watch(f"{MAPS}?resourceVersion={since}")
    while True:
        event = await watcher.next(3600)
        if event is None or event["type"] == "ERROR":
            report("broken", event=event)
            return
        obj = event["object"]
        version = int(obj["metadata"]["resourceVersion"])
        report("seen", type=event["type"], name=obj["metadata"]["name"], version=version, value=obj["data"]["v"])
        if until and version >= until:
            await watcher.close()
            return


async def main(directory: str, run: int, since: str, writers: int) -> None:
    options = StoreOptions(data_dir=directory, snapshot_entries=60, segment_bytes=64 * 1024)
    async with (
        await EmbeddedStore.open(options) as store,
        api_server(store, ready=False, compact_seconds=0) as api,
    ):
        answer = (await api.get(f"{MAPS}?labelSelector=!system")).body
        items = {item["metadata"]["name"]: item for item in answer["items"] if item["metadata"]["name"][0] == "w"}
        held = {name: [item["metadata"]["resourceVersion"], item["data"]["v"]] for name, item in items.items()}
        report("opened", objects=held, revision=int(answer["metadata"]["resourceVersion"]))
        since = since or answer["metadata"]["resourceVersion"]
        if not writers:
            mark = await api.made(MAPS, config_map("w-mark", {"v": "mark"}))
            await watch(api, since, int(mark["metadata"]["resourceVersion"]))
            report("end")
            return
        rng = random.Random(run)
        work = [write_forever(api, writer, random.Random(rng.random()), run) for writer in range(writers)]
        await asyncio.gather(watch(api, since, 0), *work)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
