"""Charts of a chart repository, by the real helm and a server that wants a password."""

from __future__ import annotations

import base64
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from pilothouse.delivery.gitops.charts import Charts
from pilothouse.delivery.gitops.errors import SourceError
from pilothouse.delivery.gitops.git import Access
from pilothouse.foundation.clock import FakeClock
from pilothouse.kinds.structs import ObjectMeta, Secret
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
        for words in (["package", str(chart), "-d", str(self.place)], ["repo", "index", str(self.place)]):
            subprocess.run([HELM, *words], env=env, check=True, capture_output=True)


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
