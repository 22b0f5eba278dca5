"""The demo from its first commit to its last: each part of it a function, and what happened as moments."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from pilothouse.cli.demo_platform import Platform
from pilothouse.foundation.clock import SystemClock
from pilothouse.foundation.retry import Backoff, retry
from pilothouse.foundation.terminal import CommandError

from .cluster import REJECTED, Object, ShopCluster, step_said
from .figures import harm_of
from .records import Row, read_rows
from .report import Moment, Recording
from .repository import VERSIONS, Repository, application

__all__ = ["RATES", "Narrator", "Story", "faulty_of", "load", "play"]

RATES: Final[Mapping[str, int]] = {"cn-east": 760, "cn-north": 120, "us-west": 120}
"""Requests a second of each region: 20 % of the first are more than 150."""
_GOOD: Final = 2
_START_SECONDS: Final = 60.0
_ROLLOUT_SECONDS: Final = 90.0
_DECISION_SECONDS: Final = 60.0
_PIN_SECONDS: Final = 20.0
_BASELINE_SECONDS: Final = 3.0
_AFTER_SECONDS: Final = 3.0
_MOST_SECONDS: Final = 15.0
"""From the first bad answer to the last one."""
_LOAD: Final = (sys.executable, "-m", "pilothouse.cli.shopdemo.load")


def faulty_of(fault: str) -> int:
    """Return the version that has a fault: errors or slow."""
    return {"errors": 3, "slow": 4}[fault]


class Story:
    """What has happened, told as it happens. tell: is given what is being done."""

    def __init__(self, faulty: int, tell: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self.faulty: Final = faulty
        self.began = clock()
        self.moments: list[Moment] = []
        self.rows: list[Row] = []
        self.problems: list[str] = []
        self.url = ""
        self.orders = 0
        self._tell, self._clock = tell, clock

    def doing(self, what: str) -> None:
        """Say what comes now."""
        self._tell(what)

    def moment(self, kind: str, event: str, detail: str = "", at: float | None = None) -> Moment:
        """Note that something has happened, now or at a time of this machine's clock."""
        made = Moment(self._clock() if at is None else at, kind, event, detail)
        self.moments.append(made)
        self.moments.sort(key=lambda each: each.at)
        return made

    def at(self, kind: str) -> float | None:
        """Return when the last moment of a kind was."""
        return next((each.at for each in reversed(self.moments) if each.kind == kind), None)

    @property
    def recording(self) -> Recording:
        """What the report is made of: from when the load began on."""
        began = self.rows[0].sent if self.rows else self.began
        moments = [each for each in self.moments if each.at >= began]
        return Recording(began, self.rows, moments, self.faulty, VERSIONS[self.faulty].fault)

    def conclude(self) -> None:
        """Add what only the clients know, and say what should not have been."""
        harm = harm_of(self.rows, self.faulty)
        decision = self.at("decision")
        if lost := max(0, self._ordered - self.orders):
            self.problems.append(f"orders that were acknowledged and are lost: {lost}")
        if failed := sum(row.is_failed for row in self.rows if row.version != self.faulty):
            self.problems.append(f"requests that failed, but for those of version {self.faulty}: {failed}")
        if harm.first_bad is None or harm.last_bad is None or harm.last_sent is None:
            self.problems.append(f"version {self.faulty} gave no bad answer: it was not seen at all")
            return
        self.moment("bad", "first bad answer", at=harm.first_bad)
        self.moment("bad", "last bad answer", f"{harm.hit} of {harm.users} users hit", at=harm.last_bad)
        if decision is None:
            self.problems.append(f"version {self.faulty} was not taken back")
        elif harm.last_sent - decision > 1:
            self.problems.append(
                f"requests still went to version {self.faulty} {harm.last_sent - decision:.1f} s later"
            )
        if harm.last_bad - harm.first_bad > _MOST_SECONDS:
            self.problems.append(f"there were bad answers for {harm.last_bad - harm.first_bad:.1f} s")

    @property
    def _ordered(self) -> int:
        """How many orders were acknowledged to clients."""
        return sum(row.status == HTTPStatus.CREATED for row in self.rows)

    def figures(self) -> dict[str, Any]:
        """Return what it comes to, for programs."""
        harm, decision = harm_of(self.rows, self.faulty), self.at("decision")
        found: dict[str, Any] = {
            "requests": len(self.rows),
            "orders": self._ordered,
            "orders_lost": max(0, self._ordered - self.orders),
            "failed_of_other_versions": sum(row.is_failed for row in self.rows if row.version != self.faulty),
            "users": harm.users,
            "users_hit": harm.hit,
            "users_hit_share": round(harm.share, 6),
        }
        if decision is not None and harm.first_bad is not None and harm.last_sent is not None:
            found["first_bad_to_decision_seconds"] = round(decision - harm.first_bad, 3)
            found["decision_to_last_request_seconds"] = round(harm.last_sent - decision, 3)
        return found


async def play(platform: Platform, shop: ShopCluster, story: Story) -> None:
    """Play all of it on a platform that runs. What was seen is in the story, also when it ends early."""
    repository = Repository(platform.directory / "shop")
    await begin(shop, repository, story)
    async with load(story, platform.directory / "rows"):
        await asyncio.sleep(_BASELINE_SECONDS)
        await roll_out(shop, repository, story)
        commit = await take_back(shop, repository, story)
        await pin(shop, repository, story, commit)
        await asyncio.sleep(_AFTER_SECONDS)
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
    story.moment("done", f"version {_GOOD} is everywhere")
    await shop.application(_is_synced_to(commit), "the application to say so", _START_SECONDS)


async def take_back(shop: ShopCluster, repository: Repository, story: Story) -> str:
    """Commit a bad version, a while after the good one, and wait until it is judged; return the commit."""
    await asyncio.sleep(_BASELINE_SECONDS)
    commit = await _committed(shop, repository, story, story.faulty)
    narrator = Narrator(story, story.faulty)

    def decided(rollout: Object) -> bool:
        narrator.see(rollout)
        if narrator.is_done:
            raise CommandError(f"version {story.faulty} has gone everywhere though {VERSIONS[story.faulty].fault}")
        return narrator.is_aborted

    await shop.rollout(decided, f"version {story.faulty} to be taken back", _DECISION_SECONDS)
    at, message = await shop.verdict()
    story.moment("decision", f"decision: version {story.faulty} is taken back", message, at=at.timestamp())
    return commit


async def pin(shop: ShopCluster, repository: Repository, story: Story, commit: str) -> None:
    """Wait until the bad commit is rejected, so that nothing brings it back, and until git is without it again."""
    story.doing("traffic is back; the bad commit is pinned and reverted in git")
    try:
        await shop.application(_rejects(commit), f"commit {commit[:10]} to be rejected", _PIN_SECONDS)
        story.moment("done", f"commit {commit[:10]} is rejected", "nothing brings it back")
        await shop.incident(_is_reverted, f"commit {commit[:10]} to be reverted in git", _PIN_SECONDS)
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
    story.moment("commit", f"version {number} is committed", f"{commit[:10]} {version.message}")
    await shop.refresh()
    return commit


class Narrator:
    """Notes the steps of a rollout to a version as it goes on."""

    def __init__(self, story: Story, version: int) -> None:
        self._story, self._version = story, version
        self._seen = 0
        self._began = False
        self.is_aborted = self.is_done = False

    def see(self, rollout: Object) -> None:
        """Look at it once more."""
        status = rollout["status"]
        if not self._is_of_version(rollout) or str(rollout["metadata"].get("generation")) != str(
            status.get("observedGeneration")
        ):
            return
        steps = rollout["spec"]["strategy"]["canary"]["steps"]
        is_under_way = status.get("currentPodHash") != status.get("stableRS")
        self._began = self._began or is_under_way
        if is_under_way:
            index = status.get("currentStepIndex") or 0
            for number in range(self._seen, min(index, len(steps))):
                if said := step_said(steps[number]):
                    self._story.moment("step", f"version {self._version}: {said}")
            self._seen = max(self._seen, index)
        self.is_aborted = bool(status.get("abort"))
        self.is_done = self._began and not is_under_way and status.get("phase") == "Healthy"

    def _is_of_version(self, rollout: Object) -> bool:
        variables = rollout["spec"]["template"]["spec"]["containers"][0]["env"]
        return {"name": "VERSION", "value": str(self._version)} in variables


def _is_healthy(app: Object) -> bool:
    status = app["status"]
    synced, health = status.get("sync", {}).get("status"), status.get("health", {}).get("status")
    return (synced, health) == ("Synced", "Healthy")


def _is_synced_to(commit: str) -> Callable[[Object], bool]:
    return lambda app: _is_healthy(app) and app["status"]["sync"].get("revision") == commit


def _is_reverted(incident: Object) -> bool:
    return bool(incident["status"].get("git", {}).get("state") == "Reverted")


def _rejects(commit: str) -> Callable[[Object], bool]:
    return lambda app: commit in app["metadata"].get("annotations", {}).get(REJECTED, "")
