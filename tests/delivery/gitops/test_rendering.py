"""Helm charts and Kustomize overlays by the real programs, several sources, and what is rendered again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pilothouse.delivery.gitops.addresses import parse_address
from pilothouse.delivery.gitops.errors import SourceError, ToolError
from pilothouse.delivery.gitops.git import Git
from pilothouse.delivery.gitops.helm import ReleaseFacts
from pilothouse.delivery.gitops.mirrors import Limits, Mirror
from pilothouse.delivery.gitops.rendering import At, Rendered, Renderer
from pilothouse.delivery.resources.applications import Source
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import from_dict
from support.clientskit import CLIENTS
from support.gitopskit import World, config_map
from support.gitrepo import GitRepo

KUBECTL = shutil.which("kubectl") or (CLIENTS / "kubectl").exists()
HELM = shutil.which("helm") or (CLIENTS / "helm").exists()
with_kustomize = pytest.mark.skipif(not KUBECTL, reason="neither kustomize nor kubectl is there")
with_helm = pytest.mark.skipif(not HELM, reason="helm is not there: run scripts/real-clients")
FACTS = ReleaseFacts("shop", "d")

CHART = {
    "chart/Chart.yaml": "apiVersion: v2\nname: shop\nversion: 1.0.0\n",
    "chart/values.yaml": "x: '1'\nmore: {}\n",
    "chart/prod.yaml": "x: prod\n",
    "chart/templates/a.yaml": (
        "apiVersion: v1\nkind: ConfigMap\n"
        "metadata:\n  name: {{ .Release.Name }}-a\n  namespace: {{ .Release.Namespace }}\n"
        "data:\n  x: {{ .Values.x | quote }}\n  z: {{ .Values.z | default `none` | quote }}\n"
    ),
    "chart/templates/hook.yaml": (
        "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: h\n"
        "  annotations: {helm.sh/hook: 'pre-install,pre-upgrade'}\n"
    ),
    "chart/crds/c.yaml": "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: c}\n",
}


class Bench:
    def __init__(self, repo: GitRepo, tmp_path: Path) -> None:
        git = Git(str(tmp_path / "git"))
        self.repo = repo
        self.mirror = Mirror(parse_address(repo.url), str(tmp_path / "m"), git, FakeClock(), Limits())
        self.renderer = Renderer(programs=str(CLIENTS))

    async def at(self) -> At:
        commit = (await self.mirror.look(0)).resolve("main")
        await self.mirror.ensure(commit)
        return At(self.mirror, commit)

    async def render(self, path: str, refs: dict[str, At] | None = None, **source: Any) -> Rendered:
        tree = {"repoURL": self.repo.url, "path": path, **source}
        return await self.renderer.render(from_dict(tree, Source), await self.at(), FACTS, refs or {})


@pytest.fixture
def bench(repo: GitRepo, tmp_path: Path) -> Bench:
    return Bench(repo, tmp_path)


def shown(rendered: Rendered) -> str:
    return " ".join(each.data.decode() for each in rendered.objects)


async def test_only_what_changed_is_rendered_again(bench: Bench, repo: GitRepo) -> None:
    repo.commit({"a/x.yaml": config_map("x", v="1"), "b/y.yaml": config_map("w", v="1")})
    first = [await bench.render("a"), await bench.render("b")]
    repo.commit({"b/y.yaml": config_map("w", v="2")})
    again = [await bench.render("a"), await bench.render("b")]
    assert again[0] is first[0]
    assert again[1] is not first[1]
    assert (bench.renderer.renders, bench.renderer.reused) == (3, 1)


async def test_what_is_kept_is_bounded(bench: Bench, repo: GitRepo) -> None:
    bench.renderer = Renderer(max_bytes=3000)
    repo.commit({f"a{number}/x.yaml": config_map("x", v="x" * 1000) for number in range(5)})
    for number in range(5):
        await bench.render(f"a{number}")
    assert len(bench.renderer._kept) <= 2


async def test_files_are_chosen(bench: Bench, repo: GitRepo) -> None:
    names = ("a/one.yaml", "a/two.yml", "a/deep/three.json", "a/skip/four.yaml", "a/readme.md")
    json = '{"apiVersion": "v1", "kind": "X", "metadata": {"name": "three"}}'
    files = {name: config_map(Path(name).stem) for name in names}
    repo.commit({**files, "a/deep/three.json": json, "a/readme.md": "no {{ manifest }}"})

    async def found(**directory: Any) -> list[str]:
        return [Path(each.file).stem for each in (await bench.render("a", directory=directory)).objects]

    assert await found() == ["one", "two"]
    assert await found(recurse=True) == ["three", "one", "four", "two"]
    assert await found(recurse=True, exclude="{skip/*,*.yml}") == ["three", "one"]
    assert await found(recurse=True, include="*.yaml") == ["one", "four"]
    repo.commit({"a/x.jsonnet": "{}"})
    with pytest.raises(SourceError, match="Jsonnet"):
        await found()


@with_helm
async def test_a_chart(bench: Bench, repo: GitRepo) -> None:
    repo.commit(CHART)
    plain = await bench.render("chart")
    assert plain.kind == "Helm"
    assert '"name":"shop-a","namespace":"d"' in shown(plain)
    assert {'"x":"1"', '"z":"none"'} <= set(shown(plain).replace("{", " ").replace("}", " ").replace(",", " ").split())
    assert "CustomResourceDefinition" in shown(plain)
    helm = {
        "releaseName": "other",
        "valueFiles": ["prod.yaml"],
        "parameters": [{"name": "z", "value": "1,2", "forceString": True}],
        "skipCrds": True,
    }
    changed = await bench.render("chart", helm=helm)
    assert '"x":"prod"' in shown(changed)
    assert '"z":"1,2"' in shown(changed)
    assert "other-a" in shown(changed)
    assert "CustomResourceDefinition" not in shown(changed)
    inline = await bench.render("chart", helm={"valuesObject": {"x": "object"}, "values": "x: text"})
    assert '"x":"object"' in shown(inline)
    assert await bench.render("chart") is plain


@with_helm
async def test_values_of_another_source(bench: Bench, repo: GitRepo) -> None:
    repo.commit({**CHART, "env/prod.yaml": "x: far\n"})
    refs = {"conf": await bench.at()}
    found = await bench.render("chart", refs, helm={"valueFiles": ["$conf/env/prod.yaml"]})
    assert '"x":"far"' in shown(found)
    outside = await bench.render("chart", helm={"valueFiles": ["../env/prod.yaml"]})
    assert '"x":"far"' in shown(outside)


@with_helm
@pytest.mark.parametrize(
    ("helm", "why"),
    [
        ({"valueFiles": ["none.yaml"]}, "is not there"),
        ({"valueFiles": ["../../etc/passwd"]}, "out of the repository"),
        ({"valueFiles": ["https://example.com/v.yaml"]}, "remote"),
        ({"valueFiles": ["$no/v.yaml"]}, "no source has the ref"),
    ],
)
async def test_values_that_are_refused(bench: Bench, repo: GitRepo, helm: dict[str, Any], why: str) -> None:
    repo.commit(CHART)
    with pytest.raises(SourceError, match=why):
        await bench.render("chart", helm=helm)


@with_helm
async def test_a_chart_that_fails_says_why(bench: Bench, repo: GitRepo) -> None:
    repo.commit({**CHART, "chart/templates/bad.yaml": '{{ fail "no region" }}'})
    with pytest.raises(ToolError, match="no region") as raised:
        await bench.render("chart")
    assert "/tmp" not in str(raised.value)


OVERLAY = {
    "base/kustomization.yaml": "resources: [cm.yaml]\n",
    "base/cm.yaml": config_map("a", x="1"),
    "over/prod/kustomization.yaml": "resources: [../../base]\nnamePrefix: prod-\n",
    "elsewhere/secret.yaml": config_map("secret"),
}


@with_kustomize
async def test_an_overlay(bench: Bench, repo: GitRepo) -> None:
    repo.commit(OVERLAY)
    plain = await bench.render("over/prod")
    assert plain.kind == "Kustomize"
    assert "prod-a" in shown(plain)
    options = {"namePrefix": "own-", "commonLabels": {"team": "shop"}, "namespace": "n"}
    changed = await bench.render("over/prod", kustomize=options)
    assert '"name":"own-a","namespace":"n"' in shown(changed)
    assert '"team":"shop"' in shown(changed)
    repo.commit({"elsewhere/secret.yaml": config_map("other")})
    assert await bench.render("over/prod") is plain
    repo.commit({"base/cm.yaml": config_map("a", x="2")})
    assert '"x":"2"' in shown(await bench.render("over/prod"))


@with_kustomize
async def test_overlays_that_are_refused(bench: Bench, repo: GitRepo) -> None:
    for text, why in (
        ("resources: ['https://github.com/x/y//base']", "remote"),
        ("resources: ['../../../etc']", "out of the repository"),
        ("helmCharts: [{name: x}]", "helmCharts"),
        ("resources: [nothing.yaml]", "resources: 'nothing.yaml' is not there"),
        ("resources: [../../base]\nnamePrefix: [a]", "kustomize, path over/prod"),
    ):
        repo.commit({**OVERLAY, "over/prod/kustomization.yaml": text})
        with pytest.raises(SourceError, match=why):
            await bench.render("over/prod")


async def test_a_missing_program_is_named(bench: Bench, repo: GitRepo, monkeypatch: pytest.MonkeyPatch) -> None:
    repo.commit({**OVERLAY, **CHART})
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(ToolError, match="install one of them"):
        await bench.render("over/prod")
    with pytest.raises(ToolError, match=r"helm\.sh"):
        await bench.render("chart")


async def test_plugins_and_paths_that_are_not_there(bench: Bench, repo: GitRepo) -> None:
    repo.commit({"a/x.yaml": config_map("x")})
    plugin: dict[str, Any] = {"plugin": {"name": "x"}}
    for path, more, why in (("a", plugin, "plugins"), ("b", {}, "does not have"), ("a/x.yaml", {}, "no dir")):
        with pytest.raises(SourceError, match=why):
            await bench.render(path, **more)


async def test_several_sources_of_one_application(world: World, repo: GitRepo) -> None:
    repo.commit({"a/x.yaml": config_map("x", v="1"), "b/y.yaml": config_map("w", v="1")})
    sources = [{"repoURL": repo.url, "path": path, "targetRevision": "main"} for path in ("a", "b")]
    app = await world.make(source=None, sources=[*sources, {"repoURL": repo.url, "ref": "values"}])
    await world.settle()
    assert app.spec.sources[2].ref == "values"
    assert await world.data("x") == {"v": "1"}
    assert await world.data("w") == {"v": "1"}
    found = await world.app()
    assert len(found.status.sync.revisions) == 3
    assert len(found.status.history[0].revisions) == 3
    await world.push({"b/y.yaml": config_map("w", v="2")})
    assert await world.data("w") == {"v": "2"}


async def test_an_object_in_two_files_is_refused(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1"), "app/b.yaml": config_map("a", x="2")})
    await world.make()
    await world.settle()
    message = (await world.app()).status.conditions[0].message
    assert message == "app/b.yaml, document 1: ConfigMap default/a is also in app/a.yaml; leave one out"
