"""ApplicationSets: generators and templates, and the applications that come of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.delivery.gitops.addresses import parse_address
from pilothouse.delivery.gitops.appsets.fasttemplate import fill, flattened
from pilothouse.delivery.gitops.appsets.generators import Sources, generate
from pilothouse.delivery.gitops.appsets.gotemplate import expand, expand_all
from pilothouse.delivery.gitops.errors import TemplateError
from pilothouse.delivery.gitops.git import Git
from pilothouse.delivery.gitops.mirrors import Limits, Mirror
from pilothouse.delivery.resources.applications import Application, ApplicationSet
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import from_dict
from support.gitopskit import World, config_map
from support.gitrepo import GitRepo

VALUES = {
    "name": "Shop Web",
    "count": 3,
    "on": True,
    "path": {"basename": "web", "segments": ["apps", "web"]},
    "labels": {"team": "a", "tier": "b"},
    "empty": "",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.name}}", "Shop Web"),
        ("{{ .path.basename }}-x", "web-x"),
        ("{{ index .path.segments 1 }}", "web"),
        ('{{ index .labels "team" }}', "a"),
        ("{{ .name | lower | replace ` ` `-` }}", "shop-web"),
        ('{{ default "none" .empty }}', "none"),
        ('{{ .missing | default "x" | quote }}', '"x"'),
        ("{{ normalize .name }}", "shop-web"),
        ("{{ .name | trunc 4 | upper }}", "SHOP"),
        ("{{if .on}}yes{{else}}no{{end}}", "yes"),
        ("{{if eq .count 4}}a{{else if eq .count 3}}b{{else}}c{{end}}", "b"),
        ("{{range .path.segments}}[{{.}}]{{end}}", "[apps][web]"),
        ("{{range .labels}}{{.}}{{end}}", "ab"),
        ("{{with .path}}{{.basename}}{{$.count}}{{end}}", "web3"),
        ("a {{- .count -}} b", "a3b"),
        ("{{/* nothing */}}x", "x"),
        ("{{ printf_ }}", None),
        ("{{ .count", None),
        ("{{ if .on }}x", None),
        ("{{ end }}", None),
        ("{{ $x := 1 }}{{ $x }}", "1"),
        ('{{ define "x" }}', None),
        ("{{ index .path.segments 9 }}", None),
        ("{{ .name.first }}", None),
        ('{{ "a}}b" }}', "a}}b"),
        ("{{ not .empty }} {{ and .on .name }} {{ or .empty .count }}", "true Shop Web 3"),
        ("{{ (index .path.segments 0) | upper }}", "APPS"),
        ("{{ .missing }}", "<no value>"),
        ("{{ len .path.segments }}", "2"),
        ('{{ join "," .path.segments }}', "apps,web"),
    ],
)
def test_go_templates(template: str, text: str | None) -> None:
    if text is None:
        with pytest.raises(TemplateError):
            expand(template, VALUES)
    else:
        assert expand(template, VALUES) == text


def test_a_missing_key_is_an_error_where_it_is_said() -> None:
    with pytest.raises(TemplateError, match="missing"):
        expand("{{ .missing }}", VALUES, strict=True)
    assert expand_all({"{{.count}}": ["{{.on}}", 5]}, VALUES) == {"3": ["true", 5]}


@given(st.text(alphabet='{}.|()ab "`ifendrg-', max_size=40))
def test_any_template_ends_in_a_text_or_a_template_error(template: str) -> None:
    try:
        expand(template, VALUES)
    except TemplateError:
        return


def test_simple_templates() -> None:
    found = flattened({"a": {"b": 1, "c": [True, "x"]}, "n": None})
    assert found == {"a.b": "1", "a.c.0": "true", "a.c[0]": "true", "a.c.1": "x", "a.c[1]": "x"}
    assert fill({"{{a.b}}": ["{{ a.c[1] }}-{{unknown}}", 7]}, found) == {"1": ["x-{{unknown}}", 7]}


@pytest.fixture
def sources(repo: GitRepo, tmp_path: Path) -> Sources:
    mirror = Mirror(parse_address(repo.url), str(tmp_path), Git(str(tmp_path / "git")), FakeClock(), Limits())

    async def repository(url: str, revision: str) -> tuple[Mirror, str]:
        commit = (await mirror.look(0)).resolve(revision)
        await mirror.ensure(commit)
        return mirror, commit

    clusters = [
        {"name": "Far.One", "server": "https://far", "metadata": {"labels": {"env": "prod"}, "annotations": {}}}
    ]
    return Sources(repository, clusters)


async def sets(generator: dict[str, Any], sources: Sources) -> list[dict[str, Any]]:
    return [each.parameters for each in await generate([generator], sources)]


async def test_lists_and_selectors(sources: Sources) -> None:
    generator = {"list": {"elements": [{"env": "dev", "n": 1}, {"env": "prod", "n": 2}]}}
    assert await sets(generator, sources) == [{"env": "dev", "n": "1"}, {"env": "prod", "n": "2"}]
    chosen = {**generator, "selector": {"matchLabels": {"env": "prod"}}}
    assert [each["n"] for each in await sets(chosen, sources)] == ["2"]


async def test_directories_of_git(sources: Sources, repo: GitRepo) -> None:
    repo.commit(
        dict.fromkeys(("apps/a/x.yaml", "apps/b.c/x.yaml", "apps/b.c/deep/y.yaml", "other/z", ".hid/x"), "x: 1\n")
    )
    rules = [{"path": "apps/*"}, {"path": "apps/a", "exclude": True}]
    (found,) = await sets({"git": {"repoURL": "r", "directories": rules, "values": {"v": "{{path}}!"}}}, sources)
    assert found == {
        "path": "apps/b.c",
        "path.basename": "b.c",
        "path.basenameNormalized": "b.c",
        "path[0]": "apps",
        "path[1]": "b.c",
        "values.v": "apps/b.c!",
    }
    all_of = await sets({"git": {"repoURL": "r", "directories": [{"path": "**"}]}}, sources)
    assert [each["path"] for each in all_of] == ["apps", "apps/a", "apps/b.c", "apps/b.c/deep", "other"]


async def test_files_of_git(sources: Sources, repo: GitRepo) -> None:
    repo.commit({"conf/a/config.json": '{"env": {"name": "dev"}}', "conf/b/config.yaml": "- {size: 1}\n- {size: 2}\n"})
    found = await sets({"git": {"repoURL": "r", "files": [{"path": "conf/**/config.*"}]}}, sources)
    assert [(each.get("env.name"), each.get("size"), each["path.basename"]) for each in found] == [
        ("dev", None, "a"),
        (None, "1", "b"),
        (None, "2", "b"),
    ]
    assert found[0]["path.filename"] == "config.json"


async def test_clusters(sources: Sources) -> None:
    names = [each["nameNormalized"] for each in await sets({"clusters": {}}, sources)]
    assert names == ["far.one", "in-cluster"]
    chosen = {"clusters": {"selector": {"matchLabels": {"env": "prod"}}, "values": {"x": "{{name}}"}}}
    (found,) = await sets(chosen, sources)
    assert (found["server"], found["metadata.labels.env"], found["values.x"]) == ("https://far", "prod", "Far.One")


async def test_combinations(sources: Sources, repo: GitRepo) -> None:
    repo.commit({"dev/a/x": "", "prod/b/x": "", "prod/c/x": ""})
    envs = {"list": {"elements": [{"env": "dev"}, {"env": "prod"}]}}
    inner = {"git": {"repoURL": "r", "directories": [{"path": "{{env}}/*"}]}}
    found = await sets({"matrix": {"generators": [envs, inner]}}, sources)
    assert [(each["env"], each["path"]) for each in found] == [("dev", "dev/a"), ("prod", "prod/b"), ("prod", "prod/c")]
    more = {"list": {"elements": [{"env": "prod", "replicas": 5}, {"env": "none", "x": 1}]}}
    merged = await sets({"merge": {"mergeKeys": ["env"], "generators": [envs, more]}}, sources)
    assert merged == [{"env": "dev"}, {"env": "prod", "replicas": "5"}]


@pytest.mark.parametrize(
    "generator",
    [
        {"pullRequest": {}},
        {"list": {}, "git": {}},
        {},
        {"git": {}},
        {"git": {"repoURL": "r"}},
        {"matrix": {"generators": [{"list": {}}]}},
        {"merge": {"generators": []}},
        {"list": {"elements": [1]}},
    ],
)
async def test_what_is_not_understood_is_said(generator: dict[str, Any], sources: Sources, repo: GitRepo) -> None:
    repo.commit({"x": ""})
    with pytest.raises(TemplateError, match="generator"):
        await sets(generator, sources)


def application_set(repo: GitRepo, **spec: Any) -> ApplicationSet:
    template = {
        "metadata": {"name": "{{path.basename}}"},
        "spec": {
            "project": "default",
            "source": {"repoURL": repo.url, "path": "{{path}}", "targetRevision": "main"},
            "destination": {"name": "in-cluster", "namespace": "default"},
            "syncPolicy": {"automated": {"prune": True}},
        },
    }
    generators = [{"git": {"repoURL": repo.url, "revision": "main", "directories": [{"path": "apps/*"}]}}]
    tree = {
        "metadata": {"name": "all", "namespace": "argocd"},
        "spec": {"generators": generators, "template": template, **spec},
    }
    return from_dict(tree, ApplicationSet)


async def names(world: World) -> list[str]:
    return sorted(app.metadata.name for app in await world.client.list_all(Application, "argocd"))


async def test_applications_come_and_go_with_directories(world: World, repo: GitRepo) -> None:
    repo.commit({"apps/a/x.yaml": config_map("a", x="1"), "apps/b/x.yaml": config_map("b", x="1")})
    await world.client.create(application_set(repo))
    await world.settle(2)
    assert await names(world) == ["a", "b"]
    assert await world.data("a") == {"x": "1"}
    await world.push({"apps/c/x.yaml": config_map("c", x="1"), "apps/b/x.yaml": None})
    await world.settle(10)
    assert await names(world) == ["a", "c"]
    assert await world.data("b") is None, "its finalizer took what it had"
    found = await world.client.get(ApplicationSet, "all", "argocd")
    said = {each["type"]: each["status"] for each in found.status.conditions}
    assert said == {"ErrorOccurred": "False", "ParametersGenerated": "True", "ResourcesUpToDate": "True"}


async def test_nothing_is_removed_where_generators_fail(world: World, repo: GitRepo) -> None:
    repo.commit({"apps/a/x.yaml": config_map("a", x="1")})
    await world.client.create(application_set(repo))
    await world.settle(2)
    wrong = [{"git": {"repoURL": f"{repo.url}-gone", "directories": [{"path": "apps/*"}]}}]
    await world.client.patch(ApplicationSet, "all", {"spec": {"generators": wrong}}, "argocd")
    await world.settle(2)
    assert await names(world) == ["a"]
    found = await world.client.get(ApplicationSet, "all", "argocd")
    assert found.status.conditions[0]["status"] == "True"


async def test_what_users_change_beside_the_template_stays_and_the_rest_comes_back(world: World, repo: GitRepo) -> None:
    repo.commit({"apps/a/x.yaml": config_map("a", x="1")})
    await world.client.create(application_set(repo))
    await world.settle(2)
    patch = {"metadata": {"labels": {"own": "1"}}, "spec": {"source": {"path": "elsewhere"}}}
    await world.client.patch(Application, "a", patch, "argocd")
    await world.settle(2)
    app = await world.app("a")
    assert app.metadata.labels["own"] == "1"
    assert app.spec.source is not None
    assert app.spec.source.path == "apps/a"


async def test_policies(world: World, repo: GitRepo) -> None:
    repo.commit({"apps/a/x.yaml": config_map("a", x="1"), "apps/b/x.yaml": config_map("b", x="1")})
    await world.client.create(application_set(repo, syncPolicy={"applicationsSync": "create-only"}))
    await world.settle(2)
    await world.push({"apps/b/x.yaml": None})
    await world.settle(2)
    assert await names(world) == ["a", "b"]
