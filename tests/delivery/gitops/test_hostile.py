"""Whatever a repository holds: an error that says where and what to do, nothing half applied, all bounded."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest

from pilothouse.delivery.gitops import helm, rendering, tools
from pilothouse.delivery.gitops.addresses import parse_address
from pilothouse.delivery.gitops.errors import RepositoryError, SourceError, ToolError
from pilothouse.delivery.gitops.git import Git
from pilothouse.delivery.gitops.helm import ReleaseFacts
from pilothouse.delivery.gitops.mirrors import Limits, Mirror
from pilothouse.delivery.gitops.rendering import At, Rendered, Renderer
from pilothouse.delivery.resources.applications import Application, AppProject, Source
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import Namespace, ObjectMeta, from_dict
from support.clientskit import CLIENTS
from support.gitopskit import Begin, World, config_map
from support.gitrepo import GitRepo

HELM = shutil.which("helm") or (CLIENTS / "helm").exists()
KUBECTL = shutil.which("kubectl") or (CLIENTS / "kubectl").exists()
with_helm = pytest.mark.skipif(not HELM, reason="helm is not there: run scripts/real-clients")
with_kustomize = pytest.mark.skipif(not KUBECTL, reason="neither kustomize nor kubectl is there")
OBJECT = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(9)
)
LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
JSON = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}, "data": %s}'

# What is in the file beside a good change, and what is said of it.
FILES: dict[str, tuple[str, str | bytes, str]] = {
    "a bomb of anchors": ("b.yaml", OBJECT + BOMB, "app/b.yaml, document 1: it holds more than 200000 values"),
    "deep nesting": (
        "b.yaml",
        OBJECT + "x: " + "[" * 900 + "]" * 900,
        "line 4: it is nested deeper than 100 levels",
    ),
    "too many values": ("b.yaml", "- a\n" * 2_500_000, "app/b.yaml, document 1: it holds more than 200000 values"),
    "too many documents": (
        "b.yaml",
        "--- 1\n" * 20_000,
        "document 10001: it has more than 10000 documents",
    ),
    "too much": ("b.yaml", b"\0" * (100 << 20), "app/b.yaml: it has 104857600 bytes; at most 10485760 are read"),
    "a binary": ("b.yaml", bytes(range(256)) * 40, "app/b.yaml: it is no UTF-8 text"),
    "zeros": ("b.yaml", b"\0" * 4096, "app/b.yaml, document 1: no YAML"),
    "an object twice": ("b.yaml", config_map("a", x="3"), "ConfigMap default/a is also in app/a.yaml; leave one out"),
    "a template": ("b.yaml", OBJECT + "data: {x: {{ .Values.x }}}", "app/b.yaml, document 1: line 4: a key is no text"),
    "a name of a template": ("b.yaml", OBJECT.replace("name: b", "name: '{{name}}'"), "a template that nothing filled"),
    "no kind": ("b.yaml", "apiVersion: v1\nmetadata: {name: b}", "app/b.yaml, document 1: kind is missing"),
    "an unknown kind": ("b.yaml", OBJECT.replace("ConfigMap", "Confid"), "Confid"),
    "a wrong field": ("b.yaml", OBJECT + "data: [x]", "ConfigMap default/b"),
    "a wrong name": ("b.yaml", OBJECT.replace("name: b", "name: 'B B'"), "ConfigMap default/B B"),
    "a pointer of LFS": ("b.yaml", LFS, "app/b.yaml: it is a pointer of Git LFS, whose files are not fetched"),
    "JSON with a key twice": ("b.json", '{"a": 1, "a": 2}', "app/b.json, document 1: the key 'a' is there twice"),
    "deep JSON": ("b.json", JSON % ("[" * 200 + "]" * 200), "app/b.json, document 1: it is nested deeper than 100"),
    "half a character": ("b.json", JSON % '{"x": "\\ud800"}', "app/b.json, document 1: '\\ud800' is no text"),
    "half a character as key": ("b.json", JSON % '{"\\udfff": "x"}', "app/b.json, document 1: '\\udfff' is no text"),
    "no number": ("b.json", JSON % '{"x": NaN}', "app/b.json, document 1: nan is no number"),
    "a kind that the project forbids": ("b.yaml", OBJECT.replace("ConfigMap", "Secret"), "namespaceResourceBlacklist"),
    "a kind of the cluster": ("b.yaml", OBJECT.replace("ConfigMap", "Namespace"), "clusterResourceWhitelist"),
    "another namespace": (
        "b.yaml",
        OBJECT.replace("name: b", "name: b, namespace: kube-system"),
        "ConfigMap kube-system/b is not permitted in project strict: destinations do not have namespace kube-system",
    ),
    "a name that is no text": ("\udcff.yaml", "x: 1", "app/\\xff.yaml, document 1: apiVersion is missing"),
    "a name like an option": ("--help.yaml", "x: 1", "app/--help.yaml, document 1: apiVersion is missing"),
    "a name with a line": ("b\nc.yaml", "x: 1", "apiVersion is missing"),
}
PROJECT = {
    "metadata": {"name": "strict", "namespace": "argocd"},
    "spec": {
        "sourceRepos": ["file://*"],
        "destinations": [{"server": "https://kubernetes.default.svc", "namespace": "default"}],
        "namespaceResourceBlacklist": [{"group": "", "kind": "Secret"}],
    },
}


def said(app: Application) -> str:
    state = app.status.operation_state
    parts = [each.message for each in app.status.conditions]
    if state is not None:
        parts += [
            state.message,
            *(each.message or "" for each in (state.sync_result.resources if state.sync_result else ())),
        ]
    return " ".join(parts)


async def test_a_bad_file_is_named_and_nothing_beside_it_is_applied(world: World, repo: GitRepo) -> None:
    await world.client.create(from_dict(PROJECT, AppProject))
    good = config_map("a", x="1")
    repo.commit({"app/a.yaml": good})
    await world.make(project="strict", sync={"automated": {"prune": True}})
    await world.settle()
    assert await world.data("a") == {"x": "1"}
    wrong: dict[str, str] = {}
    for what, (name, data, why) in FILES.items():
        began = time.process_time()
        await world.push({"app/a.yaml": config_map("a", x="2"), f"app/{name}": data})
        text = said(await world.app())
        if why not in text or "Traceback" in text:
            wrong[what] = text[:500]
        if await world.data("a") != {"x": "1"}:
            wrong[what] = "what was beside it was applied"
        assert time.process_time() - began < 60, f"{what}: it is bounded"
        await world.push({"app/a.yaml": good, f"app/{name}": None})
        if (await world.sync_of())[0] != "Synced":
            wrong[what] = "it does not get over it"
    assert wrong == {}


REVISIONS = [
    "-x",
    "--upload-pack=touch x",
    "main:app",
    "main^{tree}",
    "main@{1}",
    "main~1",
    ":/x",
    "a\nb",
    "main ",
]


async def test_revisions_that_are_no_names(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    repo.commit({"app/a.yaml": config_map("a", x="2")})
    for revision in REVISIONS:
        await world.make("evil", source={"targetRevision": revision})
        await world.settle()
        message = (await world.app("evil")).status.conditions[0].message
        assert message.startswith(f"targetRevision {revision!r}: "), message
        assert await world.data("a") is None
        await world.client.delete(Application, "evil", "argocd")
        await world.settle()


PATHS = ["..", "../..", "app/../../x", "/etc/..", "app/.git", "-x", "a\\b", "app\n", "none", "app/a.yaml"]


async def test_paths_that_lead_elsewhere(world: World, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    for path in PATHS:
        await world.make("evil", path=path)
        await world.settle()
        message = (await world.app("evil")).status.conditions[0].message
        assert message.startswith(f"path {path!r}"), message
        await world.client.delete(Application, "evil", "argocd")
        await world.settle()
    assert await world.data("a") is None


# Limits of repositories


class Bench:
    def __init__(self, repo: GitRepo, tmp_path: Path, limits: Limits | None = None) -> None:
        git = Git(str(tmp_path / "git"), max_output=4 << 20)
        self.repo = repo
        self.mirror = Mirror(parse_address(repo.url), str(tmp_path / "m"), git, FakeClock(), limits or Limits())
        self.renderer = Renderer(programs=str(CLIENTS))

    async def render(self, path: str = "app", refs: dict[str, At] | None = None, **source: Any) -> Rendered:
        tree = {"repoURL": self.repo.url, "path": path, **source}
        return await self.renderer.render(from_dict(tree, Source), await self.at(), ReleaseFacts("a", "d"), refs or {})

    async def at(self) -> At:
        commit = (await self.mirror.look(0)).resolve("main")
        await self.mirror.ensure(commit)
        return At(self.mirror, commit)


@pytest.fixture
def bench(repo: GitRepo, tmp_path: Path) -> Bench:
    return Bench(repo, tmp_path)


async def test_a_repository_that_is_too_large_is_not_kept(repo: GitRepo, tmp_path: Path) -> None:
    bench = Bench(repo, tmp_path, Limits(mirror_bytes=200_000))
    repo.commit({"app/a.yaml": config_map("a"), "big": os.urandom(400_000)})
    with pytest.raises(RepositoryError, match=r"takes \d+ bytes; at most 200000 are allowed"):
        await bench.render()
    assert os.listdir(tmp_path / "m") == []
    repo.commit({"big": None})
    repo.git("checkout", "--quiet", "--orphan", "new")
    repo.commit()
    repo.git("branch", "--force", "main", "new")
    assert len((await bench.render()).objects) == 1


async def test_a_directory_with_too_many_files(repo: GitRepo, tmp_path: Path) -> None:
    bench = Bench(repo, tmp_path, Limits(entries=20))
    repo.commit({f"app/{number}.yaml": config_map(f"a{number}") for number in range(21)})
    with pytest.raises(RepositoryError, match="a directory has 21 files; at most 20 are allowed"):
        await bench.render()


async def test_a_tree_that_multiplies(bench: Bench, repo: GitRepo) -> None:
    """Ten directories, each ten times in the one above: a few hundred bytes, and 10^10 files."""
    blob = repo.git("hash-object", "-w", "--stdin", stdin=b"x")
    made = f"100644 blob {blob}\tx.yaml\n"
    for _ in range(10):
        tree = repo.git("mktree", stdin=made.encode())
        made = "".join(f"040000 tree {tree}\td{number}\n" for number in range(10))
    commit = repo.git("commit-tree", repo.git("mktree", stdin=f"040000 tree {tree}\tapp\n".encode()), "-m", "evil")
    repo.git("update-ref", "refs/heads/main", commit)
    began = time.monotonic()
    whole: list[dict[str, Any]] = [{"directory": {"recurse": True}}, {"kustomize": {}}, {"helm": {}}]
    for options in whole:
        with pytest.raises(RepositoryError, match="printed more than"):
            await bench.render(**options)
    assert time.monotonic() - began < 60
    assert (await bench.render(directory={"recurse": False})).objects == ()


async def test_a_file_that_is_small_in_the_pack_and_huge_outside(bench: Bench, repo: GitRepo) -> None:
    repo.commit({"app/a.yaml": config_map("a"), "elsewhere": b"\0" * (60 << 20)})
    assert len((await bench.render()).objects) == 1


async def test_a_source_within_a_submodule(bench: Bench, repo: GitRepo) -> None:
    repo.write({"app/a.yaml": config_map("a")})
    repo.git("add", "--all")
    repo.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},app/s")
    repo.git("commit", "--quiet", "--message", "submodule")
    for path in ("app/s", "app/s/deploy"):
        with pytest.raises(SourceError, match=f"path '{path}': 'app/s' is a submodule, which is not fetched"):
            await bench.render(path)


async def test_a_repository_that_comes_back_after_it_was_gone(world: World, repo: GitRepo, tmp_path: Path) -> None:
    repo.commit({"app/a.yaml": config_map("a", x="1")})
    await world.make()
    await world.settle()
    os.rename(repo.path, tmp_path / "aside")
    await world.news()
    assert [each.type for each in (await world.app()).status.conditions] == ["RepositoryWarning"]
    os.rename(tmp_path / "aside", repo.path)
    await world.push({"app/a.yaml": config_map("a", x="2")})
    assert not (await world.app()).status.conditions
    assert await world.data("a") == {"x": "2"}


# Charts and overlays

CHART = {"app/Chart.yaml": "apiVersion: v2\nname: app\nversion: 1.0.0\n", "app/templates/a.yaml": config_map("a")}
OVERLAY = {"app/kustomization.yaml": "resources: [a.yaml]\n", "app/a.yaml": config_map("a")}


@with_helm
@with_kustomize
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "../secret.yaml", "b.yaml", "none"])
@pytest.mark.parametrize("name", ["app/templates/b.yaml", "app/values.yaml", "app/charts/b.yaml", "app/b.yaml"])
async def test_links_that_lead_out_of_charts_and_overlays(bench: Bench, repo: GitRepo, name: str, target: str) -> None:
    files = OVERLAY if name == "app/b.yaml" else CHART
    repo.write({**files, "secret.yaml": "x: hidden\n"})
    (repo.path / name).parent.mkdir(exist_ok=True)
    os.symlink(f"../{target}" if name.count("/") > 1 and target == "../secret.yaml" else target, repo.path / name)
    repo.commit()
    with pytest.raises(SourceError, match=f"{name}: this link leads") as raised:
        await bench.render()
    assert "hidden" not in str(raised.value)


CHARTS: dict[str, tuple[dict[str, str | bytes], str]] = {
    "memory": (
        {"app/templates/b.yaml": "{{ range until 2000000000 }}a{{ end }}"},
        "it wants more than 300 MiB",
    ),
    "a template that holds itself": (
        {"app/templates/b.yaml": "{{ define `f` }}{{ include `f` . }}{{ end }}{{ include `f` . }}"},
        "rendering template has a nested reference name: f",
    ),
    "anchors in values": ({"app/values.yaml": BOMB}, "excessive aliasing"),
    "deep values": ({"app/values.yaml": "a: " + "[" * 20_000 + "]" * 20_000}, "exceeded max depth"),
    "a bomb in charts": ({"app/charts/x.tgz": b""}, "decompressed chart is larger than the maximum size"),
    "a pointer of LFS in charts": ({"app/charts/x.tgz": LFS}, "app/charts/x.tgz: it is a pointer of Git LFS"),
    "a pointer of LFS as values": ({"app/values.yaml": LFS}, "app/values.yaml: it is a pointer of Git LFS"),
    "words of its own": ({"app/templates/b.yaml": '{{ fail "say region" }}'}, "say region"),
    "no chart": ({"app/Chart.yaml": "x: 1"}, "helm template, app: "),
    "values that are no map": ({"app/values.yaml": "- a"}, "helm template, app: "),
    "what the environment has": ({"app/templates/b.yaml": "{{ env `HOME` }}"}, 'function "env" not defined'),
    "what it gives is no object": ({"app/templates/b.yaml": "- 1\n"}, "app"),
    "what it gives has an object twice": ({"app/templates/b.yaml": "a: 1\na: 2\n"}, "app"),
}


@with_helm
@pytest.mark.parametrize("what", CHARTS)
async def test_charts_that_fail(bench: Bench, repo: GitRepo, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "_MEMORY", 300 << 20)
    files, why = CHARTS[what]
    if what == "a bomb in charts":
        files = {"app/charts/x.tgz": packed_bomb()}
    repo.commit({**CHART, **files})
    with pytest.raises(SourceError) as raised:
        await bench.render()
    assert why in str(raised.value)
    assert len(str(raised.value)) < 3000
    assert "goroutine" not in str(raised.value)


def packed_bomb() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in (
            ("x/Chart.yaml", b"apiVersion: v2\nname: x\nversion: 1.0.0\n"),
            ("x/big", b"\0" * (130 << 20)),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


@with_helm
async def test_a_chart_sees_nothing_of_the_machine(bench: Bench, repo: GitRepo) -> None:
    inner = (
        "{{ .Files.Get `/etc/passwd` }}{{ .Files.Get `../../../../../../etc/passwd` }}{{ getHostByName `localhost` }}"
    )
    template = config_map("a").replace("data:\n", f"data:\n  x: [{inner}]\n  l: {{{{ lookup `v1` `Secret` `` `` }}}}\n")
    repo.commit({**CHART, "app/templates/a.yaml": template.replace("[", '"').replace("]\n", '"\n')})
    (found,) = (await bench.render()).objects
    assert b"root:" not in found.data
    assert b'"x":""' in found.data


@with_helm
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"fileParameters": [{"name": "x=/etc/passwd,y", "path": "values.yaml"}]}, "is no name of a parameter"),
        ({"fileParameters": [{"name": "x", "path": "/etc/passwd"}]}, "path 'etc/passwd'"),
        ({"fileParameters": [{"name": "x", "path": "../../etc/passwd"}]}, "leads out of the repository"),
        ({"releaseName": '{{ env "HOME" }}'}, "is no name of a release"),
        ({"releaseName": "--help"}, "is no name of a release"),
        ({"valueFiles": ["../../etc/passwd"]}, "leads out of the repository"),
        ({"valueFiles": ["$conf/../../etc/passwd"]}, "leaves the repository"),
        ({"valueFiles": ["$none/x.yaml"]}, "no source has the ref 'none'"),
    ],
)
async def test_what_helm_must_not_be_told(bench: Bench, repo: GitRepo, options: dict[str, Any], why: str) -> None:
    repo.commit({**CHART, "app/values.yaml": "x: 1\n"})
    with pytest.raises(SourceError) as raised:
        await bench.render(refs={"conf": await bench.at()}, helm=options)
    assert why in str(raised.value)


@with_helm
async def test_names_of_files_with_commas_are_one_file(bench: Bench, repo: GitRepo, tmp_path: Path) -> None:
    """Helm's options are lists with commas: behind one, a file of the machine could be named."""
    secret = tmp_path / "secret.yaml"
    secret.write_text("hidden: found-it\n")
    inner = f"app/a,b={secret}".replace("//", "/")
    template = config_map("a") + "  all: {{ .Values | toJson | quote }}\n"
    repo.commit({**CHART, "app/templates/a.yaml": template, inner: "good: here\n", f"app/v,{secret}": "good: values\n"})
    (found,) = (await bench.render(helm={"valueFiles": [f"v,{secret}"]})).objects
    assert b"found-it" not in found.data
    assert b"values" in found.data
    (found,) = (await bench.render(helm={"fileParameters": [{"name": "x", "path": f"a,b={secret}"}]})).objects
    assert b"found-it" not in found.data
    assert b"good: here" in found.data


@with_kustomize
@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"app/kustomization.yaml": "resources: [a.yaml]\nx:\n- " + BOMB.replace("\n", "\n  ")}, "200000 values"),
        ({"app/a.yaml": "a: " + "[" * 20_000 + "]" * 20_000}, "exceeded max depth"),
        ({"app/a.yaml": LFS}, "app/a.yaml: it is a pointer of Git LFS"),
        ({"app/a.yaml": "data: {x: {{ .Values.x }}}"}, "kustomize, path app"),
        (
            {"app/kustomization.yaml": "resources: [a.yaml, a.yaml]"},
            "already registered id",
        ),
    ],
)
async def test_overlays_that_fail(bench: Bench, repo: GitRepo, files: dict[str, str], why: str) -> None:
    repo.commit({**OVERLAY, **files})
    with pytest.raises(SourceError) as raised:
        await bench.render()
    assert why in str(raised.value)
    assert len(str(raised.value)) < 3000


@with_helm
async def test_what_took_long_to_fail_is_not_tried_again_at_once(
    bench: Bench, repo: GitRepo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendering, "SLOW_SECONDS", 0.0)
    repo.commit({**CHART, "app/templates/b.yaml": '{{ fail "slowly" }}'})
    ran: list[str] = []
    real = helm.render_helm

    async def counted(*args: Any) -> Any:
        ran.append("helm")
        return await real(*args)

    monkeypatch.setattr(rendering, "render_helm", counted)
    for _ in range(3):
        with pytest.raises(ToolError, match="slowly"):
            await bench.render()
    assert len(ran) == 1
    bench.renderer.forget()
    repo.commit({"app/templates/b.yaml": "x: {{ .Release.Name }}\napiVersion: v1\nkind: X\nmetadata: {name: b}\n"})
    assert len((await bench.render()).objects) == 2


async def test_a_failing_chart_is_a_condition_with_the_words_of_helm(begin: Begin, repo: GitRepo) -> None:
    if not HELM:
        pytest.skip("helm is not there: run scripts/real-clients")
    repo.commit({**CHART, "app/templates/b.yaml": '{{ required "say values.region" .Values.region }}'})
    async with begin(programs=str(CLIENTS)) as world:
        await world.client.create(Namespace(metadata=ObjectMeta(name="elsewhere")))
        await world.make()
        await world.settle()
        (condition,) = (await world.app()).status.conditions
        assert condition.type == "ComparisonError"
        assert condition.message.startswith("helm template, app: ")
        assert "say values.region" in condition.message
        await world.client.patch(
            Application,
            "shop",
            {"spec": {"source": {"helm": {"parameters": [{"name": "region", "value": "x"}]}}}},
            "argocd",
        )
        await world.settle()
        assert "say values.region" not in said(await world.app())
