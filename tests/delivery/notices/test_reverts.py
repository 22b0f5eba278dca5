"""Reverts by the real git: on the branch, on a new one, done already, impossible, and when the server is away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pilothouse.delivery.gitops.errors import RepositoryError
from pilothouse.delivery.gitops.git import Access
from pilothouse.delivery.notices import reverting
from pilothouse.delivery.notices.reverting import Outcome, Reverter
from pilothouse.delivery.notices.reverts import Revert, chosen, message_of, mode_of, pause_seconds, revert_of
from pilothouse.delivery.resources.applications import Application
from pilothouse.delivery.resources.incidents import Incident, IncidentSpec
from pilothouse.kinds.structs import ObjectMeta, from_dict
from support.gitrepo import GitRepo

INCIDENT = Incident(
    metadata=ObjectMeta(name="shop-v3", namespace="default"),
    spec=IncidentSpec(
        rollout="shop",
        version="v3",
        decided_at="2026-03-01T12:00:00Z",
        cause="Analysis",
        message="2.1 % errors\nof 700",
        git_revisions=("b" * 40,),
        good_revision="a" * 40,
    ),
)


class Origin:
    """A repository that others push to. It has three versions of the application, the third of them bad."""

    def __init__(self, path: Path) -> None:
        self.work = GitRepo(path / "origin")
        self.work.git("config", "receive.denyCurrentBranch", "ignore")
        self.first = self.work.commit({"app/a.yaml": "v1\n", "lib/x": "1\n"})
        self.good = self.work.commit({"app/a.yaml": "v2\n"})
        self.bad = self.work.commit({"app/a.yaml": "v3\n"})
        self.reverter = Reverter(str(path / "clones"))
        self.clones = path / "clones" / "reverts"

    def wanted(self, **changed: Any) -> Revert:
        made = Revert(
            url=self.work.url,
            revision="main",
            path="app",
            bad=self.bad,
            good=self.good,
            mode="commit",
            incident="default/shop-v3",
            message=message_of(INCIDENT),
        )
        return replace(made, **changed)

    async def revert(self, **changed: Any) -> Outcome:
        done = await self.reverter.revert(self.wanted(**changed), Access())
        assert not self.clones.exists() or not any(self.clones.iterdir())
        return done

    def show(self, path: str = "app/a.yaml", branch: str = "main") -> str:
        return self.work.git("show", f"{branch}:{path}")


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


async def test_a_commit_on_the_branch_takes_it_back_once(origin: Origin) -> None:
    done = await origin.revert()
    assert (done.state, done.branch) == ("Reverted", "main")
    assert origin.show() == "v2"
    assert origin.work.git("rev-parse", "main") == done.commit
    message = origin.work.git("show", "--no-patch", "--format=%an|%B", "main")
    assert message.startswith("Pilothouse|revert: shop was rolled back from bbbbbbbbbbbb")
    assert message.endswith("Pilothouse-Incident: default/shop-v3")
    assert await origin.revert() == replace(done, message=f"commit {done.commit[:12]} on main")
    assert origin.work.git("rev-list", "--count", "main") == "4"


async def test_a_new_branch_leaves_the_other_alone(origin: Origin) -> None:
    done = await origin.revert(mode="branch", revision="")
    assert (done.state, done.branch) == ("Reverted", f"pilothouse/revert-{origin.bad[:12]}")
    assert origin.show(branch=done.branch) == "v2"
    assert origin.show() == "v3"
    again = await origin.revert(mode="branch")
    assert (again.state, again.commit) == ("Reverted", done.commit)


async def test_only_commits_of_the_application_are_reverted_since_the_good_one(origin: Origin) -> None:
    origin.work.commit({"app/b.yaml": "also bad\n"})
    origin.work.commit({"lib/x": "2\n"})
    bad = origin.work.commit({"lib/y": "y\n"})
    origin.work.commit({"lib/z": "z\n"})
    assert (await origin.revert(bad=bad)).state == "Reverted"
    assert origin.show() == "v2"
    assert "b.yaml" not in origin.work.git("ls-tree", "--name-only", "main:app")
    assert origin.show("lib/x") == "2"


async def test_a_merge_is_reverted_as_one(origin: Origin) -> None:
    origin.work.git("checkout", "--quiet", "-b", "feature", origin.good)
    origin.work.commit({"app/c.yaml": "c\n"})
    origin.work.git("checkout", "--quiet", "main")
    origin.work.git("merge", "--quiet", "--no-ff", "--no-edit", "feature")
    merge = origin.work.git("rev-parse", "HEAD")
    assert (await origin.revert(bad=merge, good=origin.bad)).state == "Reverted"
    assert origin.show() == "v3"
    assert "c.yaml" not in origin.work.git("ls-tree", "--name-only", "main:app")


async def test_what_somebody_took_back_already_needs_nothing(origin: Origin) -> None:
    origin.work.commit({"app/a.yaml": "v2\n"})
    before = origin.work.git("rev-parse", "main")
    done = await origin.revert()
    assert done.state in {"NotNeeded", "Failed"}
    assert origin.work.git("rev-parse", "main") == before


async def test_what_later_commits_changed_too_is_left_to_people(origin: Origin) -> None:
    origin.work.commit({"app/a.yaml": "v4\n"})
    done = await origin.revert()
    assert done.state == "Failed"
    assert "do it by hand" in done.message
    assert origin.show() == "v4"


async def test_a_history_that_was_rewritten_needs_nothing(origin: Origin) -> None:
    origin.work.git("reset", "--quiet", "--hard", origin.good)
    assert (await origin.revert()).state == "NotNeeded"


@pytest.mark.parametrize("revision", ["v1.0", "a" * 40, "nowhere"])
async def test_what_is_no_branch_cannot_be_committed_to(origin: Origin, revision: str) -> None:
    origin.work.git("tag", "v1.0")
    done = await origin.revert(revision=revision)
    assert done.state == "Failed"
    assert "is no branch" in done.message


async def test_a_server_that_is_away_is_an_error_that_another_try_may_mend(origin: Origin) -> None:
    away = origin.work.path.with_name("away")
    origin.work.path.rename(away)
    with pytest.raises(RepositoryError):
        await origin.revert()
    away.rename(origin.work.path)
    assert (await origin.revert()).state == "Reverted"


async def test_a_push_that_is_refused_is_tried_again(origin: Origin) -> None:
    origin.work.git("config", "receive.denyCurrentBranch", "refuse")
    with pytest.raises(RepositoryError, match="git push"):
        await origin.revert()
    assert origin.show() == "v3"


async def test_a_deep_history_is_fetched_as_far_as_needed(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reverting, "_DEPTH", 3)
    for number in range(5):
        origin.work.commit({"lib/n": f"{number}\n"})
    assert (await origin.revert()).state == "Reverted"
    assert origin.show() == "v2"


# Plans


def app(**spec: Any) -> Application:
    source = {"repoURL": "https://git.test/shop.git", "path": "app", "targetRevision": "main"}
    return from_dict({"metadata": {"name": "shop"}, "spec": {"source": source, **spec}}, Application)


SECRETS = [{"url": "https://git.test/other", "pilothouseRevert": "commit"}, {"url": "https://git.test/shop"}]


def test_reverts_are_off_unless_the_repository_s_own_secret_allows_them() -> None:
    assert "does not allow it; set pilothouseRevert" in str(revert_of(INCIDENT, app(), SECRETS))
    allowed = [{"url": "https://git.test/shop", "pilothouseRevert": "branch"}]
    found = revert_of(INCIDENT, app(), allowed)
    assert isinstance(found, Revert)
    assert (found.mode, found.bad, found.good, found.path) == ("branch", "b" * 40, "a" * 40, "app")
    assert mode_of([{**allowed[0], "project": "other"}], "https://git.test/shop", "default") == ""
    assert mode_of([{**allowed[0], "pilothouseRevert": "yes"}], "https://git.test/shop", "default") == ""


def test_several_sources_and_charts_are_left_to_people() -> None:
    sources = [{"repoURL": "https://git.test/shop", "path": "a"}, {"repoURL": "https://git.test/b", "path": "b"}]
    assert "by hand" in str(revert_of(INCIDENT, app(source=None, sources=sources), SECRETS))
    chart = {"repoURL": "https://git.test/shop", "chart": "shop"}
    assert "by hand" in str(revert_of(INCIDENT, app(source=chart), SECRETS))


def test_commits_are_chosen_within_bounds_and_pauses_grow() -> None:
    assert chosen(["c", "b"], ["d", "c", "b"], "d") == ["c", "b"]
    assert chosen([], ["d", "c"], "d") == ["d", "c"]
    assert chosen([str(n) for n in range(30)], [str(n) for n in range(40)], "d") == ["d"]
    assert [pause_seconds(n) for n in (0, 1, 5, 50)] == [5.0, 10.0, 160.0, 300.0]


def test_the_message_names_the_incident_and_keeps_the_reason_on_a_line() -> None:
    text = message_of(INCIDENT)
    assert "2.1 % errors of 700." in text
    assert text.splitlines()[-1] == "Pilothouse-Incident: default/shop-v3"
