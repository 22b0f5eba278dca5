"""`pilothouse up --webhook`: a push makes pods run, and what is not signed, or too much, is refused."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import json
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner

from pilothouse.cli.up import up
from pilothouse.delivery.gitops.webhooks import MAX_BYTES
from pilothouse.platform.state import read_state
from support.githttp import GitServer, git_server
from support.gitrepo import GitRepo
from support.platformkit import Platform, eventually, is_ready, platform_of

pytestmark = [pytest.mark.timeout(300)]

Object = dict[str, Any]
SECRET = "what GitHub signs with"
APPLICATIONS = "/apis/argoproj.io/v1alpha1/namespaces/argocd/applications"


class World(NamedTuple):
    """A platform with webhooks, and a repository that is served by HTTP, which is asked for news every two minutes."""

    platform: Platform
    repo: GitRepo
    server: GitServer

    @property
    def url(self) -> str:
        return f"{self.server.url}/repo/.git"

    def address(self) -> str:
        """Return where webhooks are taken, empty while they are not."""
        state = read_state(str(self.platform.data))
        return state.parts["gateway"].told.get("webhook", "") if state is not None else ""

    def post(self, body: bytes, **headers: str) -> tuple[int, str]:
        """Post to the webhook; the cluster's authority stands for its certificate."""
        host, _, path = self.address().removeprefix("https://").partition("/")
        context = ssl.create_default_context(cafile=str(self.platform.data / "pki" / "ca.crt"))
        with contextlib.closing(http.client.HTTPSConnection(host, timeout=30, context=context)) as connection:
            connection.request(
                "POST", f"/{path}", body, {name.replace("_", "-"): text for name, text in headers.items()}
            )
            answer = connection.getresponse()
            return answer.status, answer.read().decode().strip()

    def push(self, secret: str = SECRET) -> tuple[int, str]:
        """Tell of a push as GitHub does."""
        body = json.dumps({"ref": "refs/heads/main", "repository": {"clone_url": self.url}}).encode()
        proof = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        return self.post(body, x_github_event="push", x_hub_signature_256=f"sha256={proof}")

    def status(self) -> Object:
        """Return how the application is."""
        found: Object = self.platform.call("GET", f"{APPLICATIONS}/web").get("status", {})
        return found

    def synced(self) -> str:
        """Return the commit that is applied, empty where there is none."""
        sync: Object = self.status().get("sync", {})
        return str(sync.get("revision", "")) if sync.get("status") == "Synced" else ""

    def has_pods_of(self, version: str) -> bool:
        """Whether all pods are of a version and ready."""
        pods = self.platform.items("Pod", "app=web")
        versions = {each["spec"]["containers"][0]["env"][0]["value"] for each in pods}
        return versions == {version} and all(map(is_ready, pods))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("git")
    repo = GitRepo(place / "repo")
    with git_server(place) as server, platform_of("user", "--webhook", "127.0.0.1:0") as platform:
        yield World(platform, repo, server)
    shutil.rmtree(place)


def workload(version: str) -> str:
    container = {
        "name": "web",
        "image": "host",
        "command": ["/bin/sleep", "100000"],
        "env": [{"name": "VERSION", "value": version}],
    }
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    return json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec})


@pytest.mark.slow
def test_who_posts_before_there_is_a_secret_is_told_where_it_belongs(world: World) -> None:
    assert "gateway" in world.platform.parts(), "it runs though nothing is delivered yet"
    status, text = world.push()
    assert status == 403
    assert "set webhook.github.secret in the Secret argocd-secret (namespace argocd, label" in text
    assert f"webhook     {world.address()}" in world.platform.logged()
    shown = world.platform.run("-m", "pilothouse", "status", "--data-dir", str(world.platform.data), "--wait", "50s")
    assert f"webhook     {world.address()}" in shown


@pytest.mark.slow
def test_a_push_makes_pods_run(world: World) -> None:
    platform = world.platform
    first = world.repo.commit({"deploy/web.json": workload("1")})
    labels = {"app.kubernetes.io/part-of": "argocd"}
    hook = {"name": "argocd-secret", "namespace": "argocd", "labels": labels}
    data = {"webhook.github.secret": SECRET}
    platform.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "argocd"}})
    platform.create({"apiVersion": "v1", "kind": "Secret", "metadata": hook, "stringData": data})
    spec = {
        "project": "default",
        "source": {"repoURL": world.url, "path": "deploy", "targetRevision": "main"},
        "destination": {"name": "in-cluster", "namespace": "default"},
        "syncPolicy": {"automated": {"prune": True, "selfHeal": True}},
    }
    body = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Application", "metadata": {"name": "web"}, "spec": spec}
    platform.call("POST", APPLICATIONS, body)
    eventually(lambda: world.synced() == first, lambda: (world.status(), platform.logged()))
    second = world.repo.commit({"deploy/web.json": workload("2")})
    assert world.push() == (200, "1 repositories are looked at")
    eventually(lambda: world.synced() == second, lambda: (world.status(), platform.logged()))
    eventually(lambda: world.has_pods_of("2"), lambda: (world.status(), platform.told("default")))


@pytest.mark.slow
def test_a_wrong_signature_and_an_oversize_body_are_refused_and_nothing_is_looked_at(world: World) -> None:
    asked = len(world.server.requests)
    status, text = world.push("something else")
    assert (status, text) == (401, "github: x-hub-signature-256 does not hold for what is in argocd-secret")
    assert world.post(b"{}", x_github_event="push")[0] == 401
    status, text = world.post(b"", content_length=str(MAX_BYTES + 1), x_github_event="push")
    assert (status, f"at most {MAX_BYTES} are taken" in text) == (413, True)
    assert world.post(b"{}", x_gitlab_event="Push Hook", x_gitlab_token=SECRET)[0] == 403
    assert len(world.server.requests) == asked
    logged = world.platform.logged()
    assert "a webhook's signature does not hold" in logged
    assert SECRET not in logged


@pytest.mark.slow
def test_it_is_there_again_after_its_process_was_killed(world: World) -> None:
    before = world.address()
    world.platform.kill("gateway")

    def answers() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return world.push()[0] == 200
        return False

    eventually(answers, world.platform.logged)
    assert world.address() == before


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--webhook", "nowhere"], "want HOST:PORT"),
        (["--webhook", "127.0.0.1:0", "--without", "delivery"], "it is of delivery"),
        (["--webhook", "127.0.0.1:0", "--webhook-key", "x.key"], "want both or neither"),
        (["--webhook-certificate", "x.crt", "--webhook-key", "x.key"], "without --webhook HOST:PORT"),
    ],
)
def test_wrong_options_are_explained(tmp_path: Path, options: list[str], why: str) -> None:
    told = CliRunner().invoke(up, ["--data-dir", str(tmp_path / "data"), *options])
    assert (told.exit_code, why in told.output) == (2, True), told.output
    assert not (tmp_path / "data").exists()
