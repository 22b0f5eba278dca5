"""Seconds from a bad answer to its version's end: the shop's front under load, on a platform of its own.

Each run brings a version that fails for 2 % of its requests to a fifth of a region's clients, 170 requests a second,
and waits until it is taken back. Clients are the demo's, in a process of their own, and say which version answered; the
decision is when the Incident says that it was (the Rollout's `abortedAt`), beside it when the measurement failed. The
last request to reach a version is taken to be there when its answer was, which is later. Goals: first bad answer to
decision p50 <= 4 s and p99 <= 8 s, decision to last request <= 0.3 s, all within 15 s, and no request of the good
version failed. Of 20 runs the 99th percentile is the worst one.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from _kit import arguments, fraction, note, report, scratch
from _up import platform
from pilothouse.cli.shopdemo.cluster import Object, ShopCluster
from pilothouse.cli.shopdemo.figures import harm_of
from pilothouse.cli.shopdemo.records import Row, read_rows
from pilothouse.cli.shopdemo.repository import place_of_shop
from pilothouse.client import Client, ClientError
from pilothouse.kinds import times
from pilothouse.kinds.status import ApiStatus

RUNS: Final = 20
RATE: Final = 850
"""Requests a second, of which a fifth go to the new version."""
LEAST_RATE: Final = 150
PATIENCE: Final = 60.0
FIRST: Final = 10
"""The number of the first bad version; that of the good one is 1."""
SETTLING_SECONDS: Final = 1.0
_REGION: Final = "cn-east"
_NAMESPACE: Final = "shop"
_ROLLOUT: Final = "argoproj.io/v1alpha1", "Rollout"
_INCIDENT: Final = "pilothouse.dev/v1alpha1", "Incident"


class Decided(NamedTuple):
    """When a version was decided against, in seconds since 1970: as the incident has it, and the measurement."""

    version: int
    incident: float
    measurement: float


class Run(NamedTuple):
    """What a run comes to, in seconds; rate: requests a second to the bad version."""

    decision: float
    last: float
    last_of_measurement: float
    whole: float
    rate: float


def manifests() -> list[Object]:
    """Return the shop's objects; the first step goes on until somebody says something."""
    files = sorted((place_of_shop() / "manifests").glob("*.yaml"))
    found: list[Object] = [each for file in files for each in yaml.safe_load_all(file.read_text(encoding="utf-8"))]
    (rollout,) = (each for each in found if each["kind"] == "Rollout")
    rollout["spec"]["strategy"]["canary"]["steps"][1] = {"pause": {}}
    return found


async def deliver(client: Client, objects: Sequence[Object]) -> None:
    """Apply objects, again while the server does not know their kinds yet."""
    for each in ({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}}, *objects):
        of, where = (
            client.dynamic(each["apiVersion"], each["kind"]),
            _NAMESPACE if each["kind"] != "Namespace" else None,
        )
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await of.apply(each, where, field_manager="bench", force=True)
                    break
                except (ApiStatus, ClientError, OSError):
                    await asyncio.sleep(0.05)


def of_version(rollout: Object, version: int, fails: str) -> Object:
    """Return a patch that makes it another version."""
    template = copy.deepcopy(rollout["spec"]["template"])
    changed = {"VERSION": str(version), "FAIL_PERCENT": fails}
    for each in template["spec"]["containers"][0]["env"]:
        if each["name"] in changed:
            each["value"] = changed[each["name"]]
    return {"spec": {"template": template}}


def is_observed(rollout: Object) -> bool:
    """Whether what it says is of its newest template."""
    return str(rollout["metadata"]["generation"]) == str(rollout["status"].get("observedGeneration"))


class Shop:
    """The shop on a platform."""

    def __init__(self, client: Client) -> None:
        self.cluster = ShopCluster(client)
        self._rollouts = client.dynamic(*_ROLLOUT)

    async def be(self, version: int, fails: str) -> None:
        """Have its front become a version."""
        now = await self._rollouts.get("front", _NAMESPACE)
        await self._rollouts.patch("front", of_version(now, version, fails), _NAMESPACE)

    async def healthy(self) -> None:
        """Wait until there is one version, and it is well."""

        def is_well(rollout: Object) -> bool:
            return is_observed(rollout) and rollout["status"].get("phase") == "Healthy"

        await self.cluster.rollout(is_well, "the rollout to be healthy", PATIENCE)

    async def decided(self, version: int) -> Decided:
        """Bring a bad version, and wait until it is decided against; return when."""
        since = datetime.now(UTC)
        await self.be(version, "2")
        found = await self.cluster.rollout(
            lambda rollout: is_observed(rollout) and bool(rollout["status"].get("abort")), "a decision", PATIENCE
        )
        # An incident has its status a moment after it is there.
        incident = await self.cluster.incident(
            lambda each: each["spec"]["version"] == found["status"]["currentPodHash"], "an incident", PATIENCE
        )
        measured, _ = await self.cluster.verdict(since)
        return Decided(version, times.parse(incident["spec"]["decidedAt"]).timestamp(), measured.timestamp())


@contextlib.asynccontextmanager
async def load(url: str, file: Path, rate: int) -> AsyncIterator[None]:
    """Have clients ask until the block ends."""
    command = [sys.executable, "-m", "pilothouse.cli.shopdemo.load", url, str(file), f"--rate={_REGION}={rate}"]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def run_of(rows: Sequence[Row], decided: Decided) -> Run:
    """Return what clients saw of a run. Raises SystemExit where they saw no bad answer."""
    harm = harm_of(rows, decided.version)
    own = [row for row in rows if row.version == decided.version]
    if harm.first_bad is None:
        raise SystemExit(f"version {decided.version} was taken back though none of {len(own)} answers was bad")
    last = max(row.ended for row in own)
    return Run(
        decided.incident - harm.first_bad,
        last - decided.incident,
        last - decided.measurement,
        last - harm.first_bad,
        len(own) / (own[-1].sent - own[0].sent),
    )


async def measure(directory: Path, runs: int, rate: int) -> tuple[list[Row], list[Decided]]:
    """Return all that clients saw, and the decisions."""
    addresses = f"127.94.{os.getpid() % 250}.0/24"
    async with platform(directory / "platform", f"--gateway-address={addresses}") as (_, client):
        shop = Shop(client)
        await deliver(client, manifests())
        await shop.healthy()
        url = await shop.cluster.url(PATIENCE)
        found = []
        async with load(url, directory / "rows", rate):
            await asyncio.sleep(3)
            for number in range(runs):
                found.append(await shop.decided(FIRST + number))
                await asyncio.sleep(SETTLING_SECONDS)
                await shop.be(1, "0")
                await shop.healthy()
                run = run_of(read_rows(directory / "rows"), found[-1])
                note(f"run {number + 1}: " + ", ".join(f"{name} {value:.2f}" for name, value in run._asdict().items()))
        return read_rows(directory / "rows"), found


def main() -> None:
    """Measure and print one JSON line."""
    options = arguments(__doc__, runs=RUNS, rate=RATE)
    with scratch() as directory:
        directory.chmod(0o755)  # pods are other users
        rows, decided = asyncio.run(measure(directory, 2 if options.quick else options.runs, options.rate))
    found = [run_of(rows, each) for each in decided]
    bad = {each.version for each in decided}
    took = sorted(each.decision for each in found)
    context: dict[str, Any] = {
        "p99": round(fraction(took, 0.99), 2),
        "goal_p99": 8,
        "decision_to_last_request_p50": round(fraction(sorted(each.last for each in found), 0.5), 3),
        "decision_to_last_request_worst": round(max(each.last for each in found), 3),
        "goal_last_request": 0.3,
        "failed_measurement_to_last_request_worst": round(max(each.last_of_measurement for each in found), 3),
        "first_bad_answer_to_last_request_worst": round(max(each.whole for each in found), 2),
        "goal_whole": 15,
        "canary_rate_least": round(min(each.rate for each in found)),
        "goal_canary_rate": LEAST_RATE,
        "failed_of_good_versions": sum(row.is_failed for row in rows if row.version not in bad),
        "requests": len(rows),
    }
    report("detection_real/p50", fraction(took, 0.5), "s", digits=3, goal=4, runs=len(found), **context)


if __name__ == "__main__":
    main()
