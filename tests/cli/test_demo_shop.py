"""`pilothouse demo shop` as its users run it, and the parts that it is made of."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from click.testing import CliRunner

from pilothouse.cli.demo import demo
from pilothouse.cli.shopdemo import command
from pilothouse.cli.shopdemo.cluster import ShopCluster, step_said
from pilothouse.cli.shopdemo.records import Row
from pilothouse.cli.shopdemo.repository import VERSIONS, Repository, application, place_of_shop
from pilothouse.cli.shopdemo.story import RATES
from pilothouse.cli.shopdemo.telling import Narrator, Story
from pilothouse.foundation.terminal import CommandError
from support.shoprecording import BEGAN, DECISIONS, made_up

_SECONDS = 200
_PYTHON = os.path.realpath(sys.executable)


# -- the whole


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="phshop"))
    path.chmod(0o777)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.mark.slow
def test_a_good_version_reaches_everybody_and_bad_ones_are_taken_back(home: Path) -> None:
    if shutil.which("git") is None:
        pytest.skip("wants git")
    done = subprocess.run(
        [sys.executable, "-m", "pilothouse", "demo", "shop", "-o", "json"],
        capture_output=True, text=True, timeout=_SECONDS, check=False, cwd=home,
        env={**os.environ, "TMPDIR": str(home), "HOME": str(home), "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    events = [each["event"] for each in told["timeline"]]
    of_clients = ("bad answer", "decision", "rejected")  # which may come in another order, or late
    assert [each for each in events if not any(word in each for word in of_clients)] == [
        "the platform is ready", "version 1 is committed", "the shop sells", "version 2 is committed",
        "version 2: 20 % of cn-east", "version 2: all of cn-east", "version 2: all regions", "version 2 is everywhere",
        "version 3 is committed", "version 3: 20 % of cn-east", "git is without it", "the application is healthy",
        "version 4 is committed", "version 4: 20 % of cn-east", "git is without it", "the application is healthy",
    ]  # fmt: skip
    for version in (3, 4):
        wanted = {f"version {version}: first bad answer", f"version {version}: last bad answer"}
        assert wanted | {f"decision: version {version} is taken back"} < set(events)
    figures = told["figures"]
    assert figures["failed_of_other_versions"] == 0
    assert figures["orders_lost"] == 0 < figures["orders"]
    assert [each["version"] for each in figures["bad_versions"]] == [3, 4]
    for each in figures["bad_versions"]:
        assert 0 < each["users_hit"] < each["users"] < figures["requests"]
    text = (home / "shop-demo.html").read_text()
    assert all(f"Version {version} was taken back by itself" in text for version in (3, 4))
    assert [each.name for each in home.iterdir() if each.name.startswith("pilothouse-demo-")] == []


def test_each_step_gets_enough_requests_to_be_judged() -> None:
    assert sum(RATES.values()) >= 600
    assert 0.2 * RATES["cn-east"] >= 150


# -- its repository


def variables(repository: Repository) -> dict[str, str]:
    front = yaml.safe_load_all((repository.directory / "manifests" / "50-front.yaml").read_text())
    (rollout,) = (each for each in front if each["kind"] == "Rollout")
    env = rollout["spec"]["template"]["spec"]["containers"][0]["env"]
    return {each["name"]: each["value"] for each in env if "value" in each}


async def test_versions_are_commits_that_change_nothing_but_variables(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    repository = Repository(tmp_path / "shop")
    commits = [await repository.begin()]
    first = variables(repository)
    for number in VERSIONS:
        commits.append(await repository.commit(number))
        now = variables(repository)
        assert now["VERSION"] == str(number)
        faults = {"FAIL_PERCENT"} if number == 3 else {"SLOW_PERCENT"} if number == 4 else set()
        assert {name for name, value in now.items() if first[name] != value} == {
            "VERSION", "HEADLINE", "COLOUR", *faults
        }  # fmt: skip
    log = await repository.subjects()
    assert [commit for commit, _ in reversed(log)] == commits
    assert log[0][1] == VERSIONS[4].message
    assert application(repository.url)["spec"]["source"] == {
        "repoURL": (tmp_path / "shop").as_uri(), "targetRevision": "main", "path": "manifests"
    }  # fmt: skip


async def test_a_manifest_that_is_not_the_shops_is_told(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    repository = Repository(tmp_path / "shop")
    await repository.begin()
    (tmp_path / "shop" / "manifests" / "50-front.yaml").write_text("{}")
    with pytest.raises(CommandError, match=r"50-front.yaml has 0 variables VERSION; want one"):
        await repository.commit(2)


async def test_where_pods_find_no_python_they_get_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    await Repository(tmp_path / "shop").begin()
    text = "".join(each.read_text() for each in (tmp_path / "shop" / "manifests").glob("[345]*.yaml"))
    assert text.count(f"command: [{_PYTHON}, /app/") == 3


def test_the_example_is_where_the_demo_looks() -> None:
    assert (place_of_shop() / "application.yaml").is_file()


# -- what it asks


class Runs:
    """Stands for a client: the analysis runs of two versions, one after the other."""

    def dynamic(self, *_: str) -> Runs:
        return self

    async def list_all(self, _: str) -> list[dict[str, Any]]:
        ended = [("Failed", "2026-03-01T12:00:04.5Z", "2 % fail"), ("Failed", "2026-03-01T12:01:00Z", "slow")]
        measured = [{"phase": phase, "finishedAt": at, "message": said} for phase, at, said in ended]
        measured.append({"phase": "Successful", "finishedAt": "2026-03-01T12:09:00Z"})
        return [{"status": {"metricResults": [{"measurements": [each]}]}} for each in measured] + [{}]


async def test_a_verdict_is_of_the_version_that_was_committed_last() -> None:
    cluster = ShopCluster(cast("Any", Runs()))
    at, said = await cluster.verdict(datetime(2026, 3, 1, 12, 0, tzinfo=UTC))
    assert (at.minute, said) == (1, "slow")
    since = datetime(2026, 3, 1, 12, 5, tzinfo=UTC)
    at, said = await cluster.verdict(since)  # somebody else has taken it back
    assert (at > since, said) == (True, "")


# -- its story


def story(*faulty: int) -> Story:
    made = Story(faulty or (3, 4), lambda _: None, clock=lambda: BEGAN)
    made.rows = [*made_up(scale=5).rows]
    return made


def decided(*faulty: int) -> Story:
    made = story(*faulty)
    for version, at in DECISIONS.items():
        made.moment("decision", "decision", version=version, at=BEGAN + at)
    return made


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"setWeight": 5}, "5 % of all"),
        ({"pause": {}}, ""),
        ({"plugin": {"name": "other/one", "config": {}}}, ""),
        (
            {"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["a", "b"], "weight": 20}}},
            "20 % of a, b",
        ),
        ({"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["a"], "weight": 100}}}, "all of a"),
        ({"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["*"], "weight": 100}}}, "all regions"),
        (
            {"plugin": {"name": "pilothouse.dev/regions", "config": {"regions": ["*"], "weight": 50}}},
            "50 % of all regions",
        ),
    ],
)
def test_steps_are_said_in_words(step: dict[str, Any], said: str) -> None:
    assert step_said(step) == said


def rollout(version: int = 2, *, observed: int = 1, **status: Any) -> dict[str, Any]:
    steps = [{"setWeight": 20}, {"pause": {}}, {"setWeight": 100}]
    env = [{"name": "VERSION", "value": str(version)}, {"name": "POD_IP", "valueFrom": {}}]
    return {
        "metadata": {"generation": 1},
        "spec": {
            "strategy": {"canary": {"steps": steps}},
            "template": {"spec": {"containers": [{"env": env}]}},
        },
        "status": {"observedGeneration": str(observed), "phase": "Progressing", "stableRS": "old", **status},
    }


def test_a_rollout_is_told_step_by_step_and_steps_that_were_missed_too() -> None:
    told = story()
    narrator = Narrator(told, 2)
    narrator.see(rollout(1, currentPodHash="old", phase="Healthy"))  # the version before
    narrator.see(rollout(observed=0, currentPodHash="old", phase="Healthy"))  # nobody has looked at it yet
    assert not narrator.is_done
    narrator.see(rollout(currentPodHash="new", currentStepIndex=0))
    narrator.see(rollout(currentPodHash="new", currentStepIndex=1))
    narrator.see(rollout(currentPodHash="new", currentStepIndex=1))
    narrator.see(rollout(currentPodHash="new", currentStepIndex=3))
    assert [each.event for each in told.moments] == ["version 2: 20 % of all", "version 2: 100 % of all"]
    assert not narrator.is_done
    narrator.see(rollout(currentPodHash="new", stableRS="new", phase="Healthy", currentStepIndex=3))
    assert (narrator.is_done, narrator.is_aborted) == (True, False)
    narrator.see(rollout(currentPodHash="new", abort=True))
    assert narrator.is_aborted


def test_what_clients_saw_is_put_into_the_timeline() -> None:
    told = decided()
    told.conclude()
    assert told.problems == []
    bad = [each for each in told.moments if each.kind == "bad"]
    assert [(each.version, each.event) for each in bad] == [
        (version, f"version {version}: {which} bad answer") for version in (3, 4) for which in ("first", "last")
    ]
    assert [bool(each.detail) for each in bad] == [False, True, False, True]
    figures = told.figures()
    assert [each["version"] for each in figures["bad_versions"]] == [3, 4]
    for each in figures["bad_versions"]:
        assert each["first_bad_to_decision_seconds"] > 0
        assert -0.5 < each["decision_to_last_request_seconds"] < 0.5
        assert 0 < each["users_hit"] < each["users"]
    assert told.recording.rows == told.rows
    assert [each.version for each in told.recording.faults] == [3, 4]


def test_a_version_that_was_not_tried_is_no_bad_one() -> None:
    told = decided(3)
    told.rows = [row for row in told.rows if row.version != 4]
    told.conclude()
    assert (told.problems, len(told.figures()["bad_versions"])) == ([], 1)


def failed(version: int, at: float) -> Row:
    return Row(BEGAN + at, 0.01, 1, 500, 0, version)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            lambda told: told.rows.append(failed(2, 30)),
            "requests that failed, but for those of version 3 and version 4: 1",
        ),
        (lambda told: told.rows.append(failed(3, 59.9)), "requests still went to version 3 8.7 s later"),
        (lambda told: told.rows.append(failed(4, 66.4)), "requests still went to version 4 3.0 s later"),
        (lambda told: told.rows.insert(0, failed(3, 1)), "version 3 gave bad answers for"),
        (lambda told: told.moments.clear(), "version 4 was not taken back"),
        (
            lambda told: told.rows.append(failed(2, 30)._replace(status=201)),
            "orders that were acknowledged and are lost: 1",
        ),
        (lambda told: told.rows.clear(), "version 3 gave no bad answer"),
    ],
)
def test_what_should_not_have_been_is_said(change: Callable[[Story], None], problem: str) -> None:
    told = decided()
    change(told)
    told.conclude()
    assert any(each.startswith(problem) for each in told.problems), told.problems


# -- its command


@pytest.mark.parametrize(("problems", "code"), [([], 0), (["it went wrong"], 1)])
@pytest.mark.parametrize("faulty", [(3, 4), (4,)])
def test_the_end_is_told_and_the_exit_code_says_how_it_went(
    monkeypatch: pytest.MonkeyPatch, faulty: tuple[int, ...], problems: list[str], code: int
) -> None:
    async def run(told: Story, *, keep: bool, path: Path) -> None:
        assert (told.faulty, keep, path) == (faulty, True, Path("x.html"))
        told.rows, told.problems = [*made_up().rows], problems
        told.moment("commit", "version 2 is committed")

    monkeypatch.setattr(command, "_run", run)
    chosen = [] if len(faulty) > 1 else ["--fault", "slow"]
    done = CliRunner().invoke(demo, ["shop", *chosen, "--keep", "--report", "x.html"])
    assert done.exit_code == code
    assert "version 2 is committed" in done.stdout
    assert "the plots are in x.html" in done.stdout
    assert [line.split()[0] for line in done.stdout.splitlines() if "of its answers" in line] == [
        str(version) for version in faulty
    ]
    assert ("it went wrong" in done.stderr) == bool(problems)
