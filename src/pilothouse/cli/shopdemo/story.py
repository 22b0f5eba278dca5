"""The demo from its first commit to its last: each part of it a function, and what happened as moments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from pilothouse.cli.demo_platform import Platform
from pilothouse.foundation.clock import SystemClock
from pilothouse.foundation.retry import Backoff, retry
from pilothouse.foundation.terminal import CommandError

from .cluster import REJECTED, Object, ShopCluster
from .records import read_rows
from .repository import VERSIONS, Repository, application
from .telling import Narrator, Story

__all__ = ["RATES", "faulty_of", "load", "play"]

RATES: Final[Mapping[str, int]] = {"cn-east": 760, "cn-north": 120, "us-west": 120}
"""Requests a second of each region: 20 % of the first are more than 150."""
_GOOD: Final = 2
_START_SECONDS: Final = 60.0
_ROLLOUT_SECONDS: Final = 90.0
_DECISION_SECONDS: Final = 60.0
_PIN_SECONDS: Final = 20.0
_BASELINE_SECONDS: Final = 2.0
_CALM_SECONDS: Final = 2.0
"""Before a bad version and after it, to see by the plots that all is well."""
_LOAD: Final = (sys.executable, "-m", "pilothouse.cli.shopdemo.load")


def faulty_of(fault: str) -> Sequence[int]:
    """Return the versions that have a fault: errors, slow, or both."""
    return {"errors": (3,), "slow": (4,), "both": (3, 4)}[fault]


async def play(platform: Platform, shop: ShopCluster, story: Story) -> None:
    """Play all of it on a platform that runs. What was seen is in the story, also when it ends early."""
    repository = Repository(platform.directory / "shop")
    await begin(shop, repository, story)
    async with load(story, platform.directory / "rows"):
        await asyncio.sleep(_BASELINE_SECONDS)
        await roll_out(shop, repository, story)
        for version in story.faulty:
            await asyncio.sleep(_CALM_SECONDS)
            commit = await take_back(shop, repository, story, version)
            await pin(shop, repository, story, commit)
        await asyncio.sleep(_CALM_SECONDS)
    story.orders = await asyncio.to_thread(_orders, story.url)
    story.conclude()


async def begin(shop: ShopCluster, repository: Repository, story: Story) -> None:
    """Make the repository and wait until its first version sells."""
    repository.directory.mkdir()
    story.doing("making a git repository out of examples/shop, and an Application that follows it")
    commit = await repository.begin()
    story.moment("commit", "version 1 is committed", commit[:10])
    await shop.deliver(application(repository.url))
    await shop.allow_reverts(repository.url)
    await shop.application(_is_healthy, "the application to be healthy", _START_SECONDS)
    story.url = await shop.url(_START_SECONDS)
    patience = Backoff(base=0.05, cap=0.2, attempts=150)
    await retry(lambda: asyncio.to_thread(_ask, story.url), patience, SystemClock(), OSError)
    story.moment("done", "the shop sells", f"version 1 at {story.url}")


def _ask(url: str) -> None:
    """Ask once. Raises OSError, also where the answer is not 200."""
    with urllib.request.urlopen(f"{url}/", timeout=5) as answer:  # noqa: S310  # of our own gateway
        answer.read()


def _orders(url: str) -> int:
    """Return how many orders the shop has. Raises OSError."""
    with urllib.request.urlopen(f"{url}/api/orders?limit=1", timeout=5) as answer:  # noqa: S310
        return int(json.load(answer)["total"])


@asynccontextmanager
async def load(story: Story, file: Path) -> AsyncIterator[None]:
    """Have clients of all regions ask until the block ends; then their rows are the story's."""
    rates = [f"--rate={region}={rate}" for region, rate in RATES.items()]
    story.doing(f"clients from {len(RATES)} regions send {sum(RATES.values())} requests a second")
    process = await asyncio.create_subprocess_exec(
        *_LOAD, story.url, str(file), *rates, stdin=asyncio.subprocess.DEVNULL, start_new_session=True
    )
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(20):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        story.rows = read_rows(file)


async def roll_out(shop: ShopCluster, repository: Repository, story: Story) -> None:
    """Commit a good version and wait until everybody has it."""
    commit = await _committed(shop, repository, story, _GOOD)
    narrator = Narrator(story, _GOOD)

    def done(rollout: Object) -> bool:
        narrator.see(rollout)
        if narrator.is_aborted:
            raise CommandError(f"version {_GOOD} was taken back", hint=str(rollout["status"].get("message", "")))
        return narrator.is_done

    await shop.rollout(done, f"version {_GOOD} to be everywhere", _ROLLOUT_SECONDS)
    story.moment("done", f"version {_GOOD} is everywhere", version=_GOOD)
    await shop.application(_is_synced_to(commit), "the application to say so", _START_SECONDS)


async def take_back(shop: ShopCluster, repository: Repository, story: Story, version: int) -> str:
    """Commit a bad version and wait until it is judged; return the commit."""
    since = datetime.now(UTC)
    commit = await _committed(shop, repository, story, version)
    narrator = Narrator(story, version)

    def decided(rollout: Object) -> bool:
        narrator.see(rollout)
        if narrator.is_done:
            raise CommandError(f"version {version} has gone everywhere though {VERSIONS[version].fault}")
        return narrator.is_aborted

    await shop.rollout(decided, f"version {version} to be taken back", _DECISION_SECONDS)
    at, message = await shop.verdict(since)
    event = f"decision: version {version} is taken back"
    story.moment("decision", event, message, version=version, at=at.timestamp())
    return commit


async def pin(shop: ShopCluster, repository: Repository, story: Story, commit: str) -> None:
    """Wait until the bad commit is rejected, so that nothing brings it back, and until git is without it again."""
    story.doing("traffic is back; the bad commit is pinned and reverted in git")
    try:
        await shop.application(_rejects(commit), f"commit {commit[:10]} to be rejected", _PIN_SECONDS)
        story.moment("done", f"commit {commit[:10]} is rejected", "nothing brings it back")
        await shop.incident(_is_reverted(commit), f"commit {commit[:10]} to be reverted in git", _PIN_SECONDS)
        newest, subject = (await repository.subjects())[0]
        story.moment("done", "git is without it", f"{newest[:10]} {subject}")
        await shop.refresh()
        await shop.application(_is_synced_to(newest), "the application to be healthy again", _PIN_SECONDS)
        story.moment("done", "the application is healthy", f"at {newest[:10]}")
    except CommandError as error:
        story.problems.append(f"{error}: {error.hint}")


async def _committed(shop: ShopCluster, repository: Repository, story: Story, number: int) -> str:
    version = VERSIONS[number]
    story.doing(f"committing version {number}: {version.message}" + (f" ({version.fault})" if version.fault else ""))
    commit = await repository.commit(number)
    event = f"version {number} is committed"
    story.moment("commit", event, f"{commit[:10]} {version.message}", version=number)
    await shop.refresh()
    return commit


def _is_healthy(app: Object) -> bool:
    status = app["status"]
    synced, health = status.get("sync", {}).get("status"), status.get("health", {}).get("status")
    return (synced, health) == ("Synced", "Healthy")


def _is_synced_to(commit: str) -> Callable[[Object], bool]:
    return lambda app: _is_healthy(app) and app["status"]["sync"].get("revision") == commit


def _is_reverted(commit: str) -> Callable[[Object], bool]:
    def true(incident: Object) -> bool:
        is_of_it = commit in incident["spec"].get("gitRevisions", ())
        return is_of_it and bool(incident["status"].get("git", {}).get("state") == "Reverted")

    return true


def _rejects(commit: str) -> Callable[[Object], bool]:
    return lambda app: commit in app["metadata"].get("annotations", {}).get(REJECTED, "")
