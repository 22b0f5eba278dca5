"""Charts of a chart repository, by the real helm and a server that wants a password."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pilothouse.delivery.gitops.charts import Charts
from pilothouse.delivery.gitops.conditions import conditions_of
from pilothouse.delivery.gitops.errors import SourceError
from pilothouse.delivery.gitops.git import Access
from pilothouse.delivery.resources.applications import ApplicationCondition
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import ObjectMeta, Secret, from_dict
from support.clientskit import CLIENTS
from support.gitopskit import Begin, config_map
from support.gitrepo import GitRepo

HELM = shutil.which("helm") or str(CLIENTS / "helm")
pytestmark = pytest.mark.skipif(not Path(HELM).exists(), reason="helm is not there: run scripts/real-clients")
TEMPLATE = (
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\n"
    "data: {x: {{ .Values.x | quote }}, version: {{ .Chart.Version | quote }}}\n"
)


class Repository:
    """Charts in a directory, served with a password."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        wanted = "Basic " + base64.b64encode(b"ada:hunter2").decode()

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.headers.get("Authorization") != wanted:
                    self.send_error(401)
                    return
                super().do_GET()

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *a: Handler(*a, directory=str(place)))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def add(self, version: str, **files: str) -> None:
        """Pack a version of the chart."""
        chart = self.place / "src" / "shop"
        (chart / "templates").mkdir(parents=True, exist_ok=True)
        (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: shop\nversion: {version}\n")
        (chart / "values.yaml").write_text("x: plain\n")
        (chart / "prod.yaml").write_text("x: prod\n")
        (chart / "templates" / "a.yaml").write_text(TEMPLATE)
        env = {"HOME": str(self.place), "PATH": "/usr/bin:/bin"}
        for name, data in files.items():
            (chart / name.replace("__", ".")).write_text(data)
        for words in (["package", str(chart), "-d", str(self.place)], ["repo", "index", str(self.place)]):
            subprocess.run([HELM, *words], env=env, check=True, capture_output=True)

    def add_raw(self, *members: tuple[tarfile.TarInfo, bytes]) -> None:
        """Serve an archive as version 6.6.6, whatever is in it."""
        with tarfile.open(self.place / "raw.tgz", "w:gz") as archive:
            for member, data in members:
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        self.index("6.6.6", "raw.tgz")

    def index(self, version: str, url: str) -> None:
        entry = {"name": "shop", "version": version, "urls": [url]}
        text = json.dumps({"apiVersion": "v1", "entries": {"shop": [entry]}})
        (self.place / "index.yaml").write_text(text)


def member(name: str, data: bytes, kind: bytes = tarfile.REGTYPE, link: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, data


@pytest.fixture
def charts(tmp_path: Path) -> Iterator[Repository]:
    made = Repository(tmp_path / "charts")
    thread = threading.Thread(target=made.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


async def test_versions_are_pulled_once_and_ranges_again(charts: Repository, tmp_path: Path) -> None:
    charts.add("1.0.0")
    clock = FakeClock()
    pulling = Charts(str(tmp_path / "pulled"), clock, programs=str(CLIENTS))
    access = Access(username="ada", password="hunter2")
    for _ in range(2):
        assert (await pulling.pull(charts.url, "shop", "1.0.0", access)).version == "1.0.0"
        assert (await pulling.pull(charts.url, "shop", "^1.0", access)).version == "1.0.0"
    assert pulling.pulls == 2
    charts.add("1.1.0")
    clock.advance(130)
    assert (await pulling.pull(charts.url, "shop", "^1.0", access)).version == "1.1.0"
    assert (await pulling.pull(charts.url, "shop", "1.0.0", access)).version == "1.0.0"
    assert pulling.pulls == 3


@pytest.mark.parametrize(
    ("url", "chart", "version"),
    [
        ("", "-x", "1"),
        ("", "../x", "1"),
        ("", "shop", "--help"),
        ("", "shop", "9.9.9"),
        ("file:///etc", "shop", ""),
        ("http://example.com", "shop", ""),
    ],
)
async def test_what_is_refused(charts: Repository, tmp_path: Path, url: str, chart: str, version: str) -> None:
    charts.add("1.0.0")
    pulling = Charts(str(tmp_path / "pulled"), FakeClock(), programs=str(CLIENTS))
    access = Access(username="ada", password="hunter2")
    with pytest.raises(SourceError) as raised:
        await pulling.pull(url or charts.url, chart, version, access)
    assert "hunter2" not in str(raised.value)


async def test_an_application_of_a_chart_with_values_of_git(begin: Begin, charts: Repository, repo: GitRepo) -> None:
    charts.add("1.0.0")
    repo.commit({"env/prod.yaml": "x: far\n", "app/a.yaml": config_map("a", x="1")})
    async with begin(programs=str(CLIENTS)) as world:
        labels = {"argocd.argoproj.io/secret-type": "repository"}
        data = {"url": charts.url, "type": "helm", "username": "ada", "password": "hunter2"}
        made = Secret(metadata=ObjectMeta(name="charts", namespace="argocd", labels=labels), string_data=data)
        await world.client.create(made)
        await world.settle(1)
        chart: dict[str, Any] = {"repoURL": charts.url, "chart": "shop", "targetRevision": "1.x"}
        values = {**chart, "helm": {"valueFiles": ["prod.yaml", "$conf/env/prod.yaml"], "releaseName": "two"}}
        await world.make("one", source={**chart, "path": ""})
        sources = [values, {"repoURL": repo.url, "targetRevision": "main", "ref": "conf"}]
        await world.make("two", sources=sources)
        await world.settle(1)
        assert await world.data("one") == {"x": "plain", "version": "1.0.0"}
        assert await world.data("two") == {"x": "far", "version": "1.0.0"}
        app = await world.app("one")
        assert (app.status.sync.revision, app.status.source_type) == ("1.0.0", "Helm")


CHART = member("shop/Chart.yaml", b"apiVersion: v2\nname: shop\nversion: 6.6.6\n")
BAD = {
    "a bomb in one file": (CHART, member("shop/templates/a.yaml", b"\0" * (120 << 20))),
    "a bomb of files": (CHART, *(member(f"shop/files/{n}", b"\0" * (4 << 20)) for n in range(30))),
    "a file above": (CHART, member("shop/../../evil", b"x")),
    "no chart": (member("other/x", b"x"),),
    "no version": (member("shop/Chart.yaml", b"apiVersion: v2\nname: shop\n"),),
    "another name": (member("shop/Chart.yaml", b"apiVersion: v2\nname: ../x\nversion: 1.0.0\n"),),
    "no archive": (),
}


@pytest.mark.parametrize("what", BAD)
async def test_archives_that_are_refused_leave_nothing(charts: Repository, tmp_path: Path, what: str) -> None:
    charts.add_raw(*BAD[what])
    if what == "no archive":
        (charts.place / "raw.tgz").write_bytes(b"\x1f\x8bno")
    pulling = Charts(str(tmp_path / "pulled"), FakeClock(), programs=str(CLIENTS))
    with pytest.raises(SourceError) as raised:
        await pulling.pull(charts.url, "shop", "6.6.6", Access(username="ada", password="hunter2"))
    assert "shop" in str(raised.value)
    assert os.listdir(tmp_path / "pulled") == []
    assert "evil" not in files_below(tmp_path)


def files_below(place: Path) -> dict[str, str]:
    return {each.name: each.read_text(errors="replace") for each in place.rglob("*") if each.is_file()}


async def test_links_of_archives_lead_nowhere(charts: Repository, tmp_path: Path) -> None:
    secret = tmp_path / "secret.yaml"
    secret.write_text("x: hidden\n")
    template = member("shop/templates/a.yaml", TEMPLATE.encode())
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
        charts.add_raw(CHART, template, member("shop/link.yaml", b"", kind, str(secret)))
        pulling = Charts(str(tmp_path / f"pulled{kind!r}"), FakeClock(), programs=str(CLIENTS))
        try:
            found = await pulling.pull(charts.url, "shop", "6.6.6", Access(username="ada", password="hunter2"))
        except SourceError:
            continue
        assert "hidden" not in " ".join(files_below(Path(found.directory)).values())


async def test_an_index_that_leads_elsewhere_takes_no_password_along(charts: Repository, tmp_path: Path) -> None:
    seen: list[str | None] = []

    class Other(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_error(404)

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        charts.index("6.6.6", f"http://127.0.0.1:{server.server_address[1]}/shop.tgz")
        pulling = Charts(str(tmp_path / "pulled"), FakeClock(), programs=str(CLIENTS))
        with pytest.raises(SourceError, match="404"):
            await pulling.pull(charts.url, "shop", "6.6.6", Access(username="ada", password="hunter2"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert seen
    assert set(seen) == {None}


async def test_dependencies_of_a_chart_repository(begin: Begin, charts: Repository, repo: GitRepo) -> None:
    charts.add("1.0.0")
    chart = "apiVersion: v2\nname: app\nversion: 1.0.0\ndependencies:\n"
    dependency = f"- {{name: shop, version: 1.x, repository: '{charts.url}'}}\n"
    repo.commit({"app/Chart.yaml": chart + dependency, "app/values.yaml": "shop: {x: above}\n"})
    async with begin(programs=str(CLIENTS)) as world:
        await world.make()
        await world.settle(1)
        message = (await world.app()).status.conditions[0].message
        assert message.startswith("helm repo update, app: ")
        assert "is username and password in a repository Secret, and right?" in message
        labels = {"argocd.argoproj.io/secret-type": "repository"}
        data = {"url": charts.url, "type": "helm", "username": "ada", "password": "hunter2"}
        made = Secret(metadata=ObjectMeta(name="charts", namespace="argocd", labels=labels), string_data=data)
        await world.client.create(made)
        await world.settle(1)
        assert await world.data("shop") == {"x": "above", "version": "1.0.0"}, (await world.app()).status


def test_what_programs_say_otherwise_each_time_is_the_same_condition() -> None:
    """Otherwise each status would be another one, and the application worked out again without an end."""
    first = "helm, app: dial tcp 10.0.0.1:4711->10.0.0.2:443: after 3 ms: /tmp/pilothouse-render-ab_1cd2e/home"
    later = first.replace("4711", "4712").replace("3 ms", "17 ms").replace("ab_1cd2e", "zz_1cd2e")
    made = conditions_of([("ComparisonError", first)], [], "then")
    known = [from_dict(each, ApplicationCondition) for each in made]
    assert conditions_of([("ComparisonError", later)], known, "now") == made
    other = conditions_of([("ComparisonError", later.replace("10.0.0.2", "10.0.0.3"))], known, "now")
    assert other[0]["lastTransitionTime"] == "now"
