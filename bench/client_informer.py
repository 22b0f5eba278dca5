"""Start on 20,000 pods of our server in another process, over TLS: seconds until all are cached, and memory then.

Goals: 1.0 s and 150 MB. A pod has 2 KB as sent and about 7 KB as stored, two thirds of which are managed fields; its
images, settings, labels and annotations are its own, since caches may keep what is alike once. Each client runs in a
process of its own, against the same server with the same pods; seconds count from its first call on, with what a client
imports only then, and are to be had as wall time and as processor time of its own. The server shares the two cores.

Ours is a shared informer of typed pods, as it comes and without managed fields, which has indexes, handlers and the
watch that goes on. It keeps pods packed as they came and reads one when somebody asks; so what it takes to read them
all once is a figure of its own, beside others that have read theirs. kopf fills an index of its body objects, and is
given 6 s for its tasks to end before its memory is measured. kubernetes, kubernetes_asyncio and lightkube list into a
dictionary and then watch; kr8s, whose lists have no version to go on from, only watches. Memory is resident, unique is
what is of this process alone, peak the most it had been. A client that is not done when its time is up is shown with
`peer_complete` false and how many pods it had: its figures are then the least they would have been. In one process: our
informer beside the server, without a network.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _apiserver import PODS, pod, prepare, serving
from _clients import write_config
from _followers import LEAN, OURS, Followed, follow, installed
from _kit import Spread, arguments, note, report, run, scratch
from client_list import fill

COUNT, LIMIT = 20_000, 45


def varied(name: str) -> dict[str, Any]:
    """Return a pod of the same size as others have, with values of its own."""
    source = random.Random(name)
    made = pod(name)
    made["metadata"]["labels"] |= {
        "app": f"web-{source.randrange(200)}",
        "pod-template-hash": f"{source.getrandbits(40):010x}",
    }
    made["metadata"]["annotations"] |= {"example.com/note": f"{source.getrandbits(480):0120x}"}
    for container in made["spec"]["containers"]:
        container["image"] = f"registry.example/app/service-{source.randrange(500)}:1.{source.randrange(99)}"
        for variable in container["env"]:
            variable["value"] = f"{source.getrandbits(48):012x}"
    return made


async def in_process(directory: Path, count: int, rounds: int) -> dict[bool, list[float]]:
    """Return the seconds that an informer takes to start on so many pods of a server in the same process.

    They are by whether managed fields were left out.
    """
    from pilothouse.client import Client
    from pilothouse.client.factory import SharedInformerFactory
    from pilothouse.kinds.structs import Pod
    from pilothouse.testing import ControlPlane

    times: dict[bool, list[float]] = {False: [], True: []}
    async with ControlPlane(data_dir=directory, lifecycle=False) as plane:
        await plane.call("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
        for start in range(0, count, 64):
            numbers = range(start, min(start + 64, count))
            await asyncio.gather(*(plane.call("POST", PODS, varied(f"pod-{number}")) for number in numbers))
        async with Client.for_transport(plane.transport, plane.user) as client:
            for lean in [False, True] * rounds:
                gc.unfreeze()
                gc.collect()
                begun = time.perf_counter()
                factory = SharedInformerFactory(client, namespace="default")
                informer = factory.informer(Pod, managed_fields=not lean)
                async with factory:
                    await informer.wait_synced()
                    times[lean].append(time.perf_counter() - begun)
                    if len(informer.indexer) != count:
                        raise SystemExit(f"the cache has {len(informer.indexer)} pods instead of {count}")
    return times


def started(client: str, config: str, count: int, limit: float) -> Followed | None:
    """Start one client, and tell the person who waits."""
    found = follow(client, config, count, limit=limit)
    if found is not None:
        whole = "" if found.complete else f", only {found.objects:,} pods"
        megabytes = f"{found.resident / 1e6:,.0f} MB resident, {found.peak / 1e6:,.0f} MB at most"
        note(f"{client}: {found.seconds:.3f} s, {found.cpu:.3f} s of its own, {megabytes}{whole}")
    return found


def tell(what: str, runs: Sequence[Followed], peers: dict[str, Followed]) -> None:
    """Report the time and the memory of one of ours beside all peers."""
    seconds = Spread.of([run.seconds for run in runs])
    cpu = Spread.of([run.cpu for run in runs]).median
    resident = Spread.of([run.resident / 1e6 for run in runs])
    unique, peak = (Spread.of([value / 1e6 for value in values]).median for values in _memory(runs))
    own: list[dict[str, Any]] = [
        {"digits": 3, "goal": 1.0, "client_seconds": cpu},
        {"digits": 0, "goal": 150, "unique": unique, "peak": peak},
    ]
    report(f"client informer start, {what}", seconds, "s", **own[0])
    report(f"client informer memory, {what}", resident, "MB", **own[1])
    for client, found in peers.items():
        shared: dict[str, Any] = {"peer": client, "peer_complete": found.complete, "peer_objects": found.objects}
        ended: dict[str, Any] = {"peer_spread": found.seconds, "peer_client_seconds": found.cpu}
        report(f"client informer start, {what}", seconds, "s", **shared, **ended, **own[0])
        (unique,), (peak,) = _memory([found])
        held: dict[str, Any] = {"peer_spread": found.resident / 1e6, "peer_unique": unique / 1e6}
        report(f"client informer memory, {what}", resident, "MB", **shared, **held, peer_peak=peak / 1e6, **own[1])
    each = Spread.of([(run.resident - run.before) / run.objects for run in runs])
    report(f"client informer memory of one pod, {what}", each, "B", digits=0)
    read = Spread.of([run.read_seconds for run in runs])
    report(f"client informer, processor time to look at each cached object once, {what}", read, "s", digits=3)


def _memory(runs: Sequence[Followed]) -> tuple[list[int], list[int]]:
    return [run.unique for run in runs], [run.peak for run in runs]


def main() -> None:
    """Measure in one process, then every client."""
    options = arguments(__doc__, pods=COUNT, limit=LIMIT)
    count, limit, rounds = (500, 20.0, 1) if options.quick else (options.pods, float(options.limit), 3)
    kinds = {OURS: f"{count:,} typed pods", LEAN: f"{count:,} typed pods without managed fields"}
    with scratch() as directory:
        for lean, times in run(in_process(directory, count, rounds)).items():
            report(
                f"client informer start, {kinds[LEAN if lean else OURS]}, in process", Spread.of(times), "s", digits=3
            )
    with scratch() as directory, serving(directory) as server:
        prepare(server)
        config = write_config(server)
        asyncio.run(fill(config, count, 0, varied))
        ours = {client: [started(client, config, count, limit) for _ in range(rounds)] for client in kinds}
        found = {client: started(client, config, count, limit) for client in installed(build=not options.quick)}
        peers = {client: one for client, one in found.items() if one is not None}
        for client, runs in ours.items():
            done = [one for one in runs if one is not None and one.complete]
            if len(done) != rounds:
                raise SystemExit(f"{client}: it did not see all pods")
            tell(kinds[client], done, peers if client == OURS else {})


if __name__ == "__main__":
    main()
