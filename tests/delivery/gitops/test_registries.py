"""Charts out of a real registry and dependencies of charts, by the real helm."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilothouse.delivery.gitops.charts import Charts
from pilothouse.delivery.gitops.errors import SourceError
from pilothouse.delivery.gitops.git import Access
from pilothouse.delivery.resources.applications import AppProject
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.tls import issue, make_ca, write
from pilothouse.kinds.structs import ConfigMap, ObjectMeta, Secret, from_dict
from support.clientskit import CLIENTS
from support.gitopskit import Begin, World
from support.gitrepo import GitRepo
from support.registry import MISSING, PASSWORD, REGISTRY, USER, Registry, registry

HELM = shutil.which("helm") or str(CLIENTS / "helm")
pytestmark = [
    pytest.mark.skipif(not Path(HELM).exists(), reason="helm is not there: run scripts/real-clients"),
    pytest.mark.skipif(REGISTRY is None, reason=MISSING),
]
TEMPLATE = (
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-{{ .Chart.Name }}}\n"
    "data: {x: {{ .Values.x | quote }}, version: {{ .Chart.Version | quote }}}\n"
)
PLAIN = Access(username=USER, password=PASSWORD, plain_http=True)


def helm(place: Path, *words: str) -> None:
    env = {"HOME": str(place), "PATH": "/usr/bin:/bin"}
    done = subprocess.run([HELM, *words], env=env, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def publish(place: Path, where: Registry, version: str, name: str = "shop", *options: str) -> None:
    """Pack a version of a chart and push it."""
    chart = place / f"{name}-{version}"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: {name}\nversion: {version}\n")
    (chart / "values.yaml").write_text("x: plain\n")
    (chart / "prod.yaml").write_text("x: prod\n")
    (chart / "templates" / "a.yaml").write_text(TEMPLATE)
    helm(place, "package", str(chart), "-d", str(place))
    words = ["--username", USER, "--password", PASSWORD]
    helm(
        place,
        "push",
        *(options or ["--plain-http"]),
        *words,
        f"{place}/{name}-{version}.tgz",
        f"oci://{where.host}/charts",
    )


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Give a registry that wants a login, with versions of two charts."""
    place = tmp_path_factory.mktemp("registry")
    with registry(place / "registry", login=True) as made:
        for version in ("1.0.0", "1.1.0", "2.0.0-rc.1"):
            publish(place, made, version)
        publish(place, made, "0.3.0", "cache")
        yield made


@pytest.fixture
def pulling(tmp_path: Path) -> Charts:
    return Charts(str(tmp_path / "pulled"), FakeClock(), programs=str(CLIENTS))


async def secret(world: World, kind: str = "repository", **data: str) -> None:
    labels = {"argocd.argoproj.io/secret-type": kind}
    made = Secret(metadata=ObjectMeta(name=kind, namespace="argocd", labels=labels), string_data=data)
    await world.client.create(made)
    await world.settle(1)


@pytest.mark.parametrize(
    ("wanted", "version"),
    [("1.0.0", "1.0.0"), ("^1.0", "1.1.0"), ("~1.0.0", "1.0.0"), ("", "1.1.0"), (">=2.0.0-0", "2.0.0-rc.1")],
)
async def test_versions(shelf: Registry, pulling: Charts, wanted: str, version: str) -> None:
    for prefix in ("oci://", ""):
        assert (await pulling.pull(f"{prefix}{shelf.host}/charts", "shop", wanted, PLAIN)).version == version
    assert pulling.pulls == 1, "both are the same registry"


@pytest.mark.parametrize(
    ("chart", "version", "access", "why"),
    [
        ("shop", "9.x", PLAIN, "could not locate a version matching"),
        ("shop", "9.9.9", PLAIN, "not found"),
        ("none", "1.0.0", PLAIN, "not found"),
        ("shop", "1.0.0", Access(plain_http=True), "is username and password in a repository Secret, and right"),
        ("shop", "1.0.0", Access(username=USER, password="hunter3", plain_http=True), "unauthorized|401"),
        ("shop", "1.0.0", Access(username=USER, password=PASSWORD), "HTTP response to HTTPS client"),
    ],
)
async def test_what_fails_has_the_words_of_helm(
    shelf: Registry, pulling: Charts, chart: str, version: str, access: Access, why: str
) -> None:
    with pytest.raises(SourceError, match=why) as raised:
        await pulling.pull(f"oci://{shelf.host}/charts", chart, version, access)
    assert str(raised.value).startswith("helm ")
    assert "hunter" not in str(raised.value)


async def test_plain_http_of_other_machines_is_refused(pulling: Charts) -> None:
    with pytest.raises(SourceError, match="insecureOCIForceHttp is for registries on this machine alone"):
        await pulling.pull("oci://registry.example.com/charts", "shop", "1.0.0", PLAIN)


async def test_secrets_are_on_no_command_line_and_no_file_stays(
    shelf: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools, noted = tmp_path / "bin", tmp_path / "noted"
    tools.mkdir()
    (tools / "helm").write_text(f'#!/bin/sh\necho "$@" >> {noted}\nexec {HELM} "$@"\n')
    (tools / "helm").chmod(0o755)
    pulled = Charts(str(tmp_path / "pulled"), FakeClock(), programs=str(tools))
    await pulled.pull(f"oci://{shelf.host}/charts", "shop", "1.0.0", PLAIN)
    assert "registry login" in noted.read_text()
    assert "hunter2" not in noted.read_text()
    there = [Path(root, name) for root, _, names in os.walk(tmp_path / "pulled") for name in names]
    assert not [each for each in there if "hunter2" in each.read_text()]
    assert not [each for each in there if each.name in {"config.json", "repositories.yaml"}]


async def test_a_registry_with_tls_and_a_ca_of_its_own(begin: Begin, tmp_path: Path) -> None:
    ca = make_ca("test")
    files = tmp_path / "server.crt", tmp_path / "server.key"
    write(issue(ca, "registry", hosts=["127.0.0.1"], server=True), str(files[0]), str(files[1]))
    with registry(tmp_path / "registry", tls=files) as made:
        publish(tmp_path, made, "1.0.0", "shop", "--insecure-skip-tls-verify")
        async with begin(programs=str(CLIENTS)) as world:
            chart = {"repoURL": f"{made.host}/charts", "chart": "shop", "targetRevision": "1.0.0", "path": ""}
            await world.make(source=chart)
            await world.settle(1)
            assert "certificate" in (await world.app()).status.conditions[0].message
            labels = {"app.kubernetes.io/part-of": "argocd"}
            metadata = ObjectMeta(name="argocd-tls-certs-cm", namespace="argocd", labels=labels)
            await world.client.create(ConfigMap(metadata=metadata, data={"127.0.0.1": ca.certificate.decode()}))
            await world.settle(1)
            assert await world.data("shop-shop") == {"x": "plain", "version": "1.0.0"}
        access = Access(insecure=True)
        again = Charts(str(tmp_path / "again"), FakeClock(), programs=str(CLIENTS))
        assert (await again.pull(f"oci://{made.host}/charts", "shop", "1.0.0", access)).version == "1.0.0"


async def test_an_application_of_a_registry(begin: Begin, shelf: Registry) -> None:
    async with begin(programs=str(CLIENTS)) as world:
        url = f"{shelf.host}/charts"
        data = {"type": "helm", "enableOCI": "true", "insecureOCIForceHttp": "true"}
        await secret(world, url=url, username=USER, password=PASSWORD, **data)
        helm = {"valueFiles": ["prod.yaml"], "parameters": [{"name": "x", "value": "a,b"}]}
        await world.make(source={"repoURL": url, "chart": "shop", "targetRevision": "1.*", "path": "", "helm": helm})
        await world.settle(1)
        assert await world.data("shop-shop") == {"x": "a,b", "version": "1.1.0"}
        app = await world.app()
        assert (app.status.sync.revision, app.status.sync.status) == ("1.1.0", "Synced")


# Dependencies


def umbrella(*dependencies: dict[str, str], **files: str) -> dict[str, str]:
    line = "- {{name: {name}, version: '{version}', repository: '{repository}'}}\n"
    listed = "".join(line.format(**each) for each in dependencies)
    return {
        "app/Chart.yaml": f"apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies:\n{listed}",
        "app/values.yaml": "x: own\ncache: {x: above}\n",
        "app/templates/a.yaml": TEMPLATE,
        **files,
    }


def library(place: str) -> dict[str, str]:
    return {
        f"{place}/Chart.yaml": "apiVersion: v2\nname: cache\nversion: 0.3.0\n",
        f"{place}/values.yaml": "x: below\n",
        f"{place}/templates/a.yaml": TEMPLATE,
    }


async def test_dependencies_of_a_registry_with_and_without_a_lock(begin: Begin, shelf: Registry, repo: GitRepo) -> None:
    url = f"oci://{shelf.host}/charts"
    repo.commit(umbrella({"name": "cache", "version": "0.x", "repository": url}))
    async with begin(programs=str(CLIENTS)) as world:
        await secret(world, "repo-creds", url=shelf.host, username=USER, password=PASSWORD, insecureOCIForceHttp="true")
        await world.make()
        await world.settle(1)
        assert await world.data("shop-cache") == {"x": "above", "version": "0.3.0"}, (await world.app()).status
        locked = f"dependencies:\n- {{name: cache, repository: '{url}', version: 0.2.0}}\n"
        lock = f"{locked}digest: sha256:00\ngenerated: '2024-01-01T00:00:00Z'\n"
        await world.push({"app/Chart.lock": lock})
        message = (await world.app()).status.conditions[0].message
        assert message.startswith("helm dependency build, app: ")
        assert "Chart.lock) is out of sync" in message
        assert await world.data("shop-cache") == {"x": "above", "version": "0.3.0"}


async def test_a_project_that_does_not_allow_the_registry(begin: Begin, shelf: Registry, repo: GitRepo) -> None:
    repo.commit(umbrella({"name": "cache", "version": "0.x", "repository": f"oci://{shelf.host}/charts"}))
    spec = {"sourceRepos": [repo.url], "destinations": [{"server": "*", "namespace": "*"}]}
    project = {"metadata": {"name": "strict", "namespace": "argocd"}, "spec": spec}
    async with begin(programs=str(CLIENTS)) as world:
        await world.client.create(from_dict(project, AppProject))
        await world.make(project="strict")
        await world.settle(1)
        message = (await world.app()).status.conditions[0].message
        assert message == f"project strict does not allow the chart repository oci://{shelf.host}/charts: sourceRepos"


@pytest.mark.parametrize("where", ["charts", "neighbour", "absent from charts"])
async def test_dependencies_of_the_same_repository(begin: Begin, repo: GitRepo, where: str) -> None:
    far = "" if where == "charts" else "file://../libs/cache"
    place = "app/charts/cache" if where == "charts" else "libs/cache"
    files = umbrella({"name": "cache", "version": "0.3.0", "repository": far}, **library(place))
    if where == "absent from charts":
        files |= {each.replace("libs/cache", "app/charts/other"): text for each, text in library("libs/cache").items()}
        files["app/charts/other/Chart.yaml"] = "apiVersion: v2\nname: other\nversion: 1.0.0\n"
    repo.commit(files)
    async with begin(programs=str(CLIENTS)) as world:
        await world.make()
        await world.settle(1)
        assert await world.data("shop-cache") == {"x": "above", "version": "0.3.0"}, (await world.app()).status
        assert await world.data("shop-app") == {"x": "own", "version": "1.0.0"}


@pytest.mark.parametrize(
    ("repository", "why"),
    [
        ("file:///etc", "app/Chart.yaml: dependencies: 'file:///etc' leads out of the repository"),
        ("file://../../etc", "'../../etc' leads out of the repository"),
        ("file://../none", "path 'none': the commit does not have it"),
        ("@stable", "names of repositories are not known; write its URL"),
        ("s3://bucket", "charts come by https, oci or file"),
        ("--help", "charts come by https, oci or file"),
        ("http://example.com/charts", "plain HTTP is for this machine alone"),
        ("https://ada:hunter2@example.com/charts", "a password; put it into a repository Secret"),
        ("", "cache"),
    ],
)
async def test_dependencies_that_are_refused(begin: Begin, repo: GitRepo, repository: str, why: str) -> None:
    repo.commit(umbrella({"name": "cache", "version": "0.3.0", "repository": repository}))
    async with begin(programs=str(CLIENTS)) as world:
        await world.make()
        await world.settle(1)
        app: Any = await world.app()
        assert why in app.status.conditions[0].message
        assert "hunter2" not in app.status.conditions[0].message
        assert await world.data("shop-app") is None
