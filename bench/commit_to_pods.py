"""From `git push` to pods that run the commit: push, webhook, sync, new pod Running and Ready, with a whole platform.

A bare repository is served over HTTP by the real `git http-backend`; its hook `post-receive` posts to the platform's
webhook in GitHub's form, signed. A commit changes the environment of a Deployment of two pods, or with `--rollout 1`
of a Rollout without steps. The figure is from the start of `git push` to the first pod of the commit that is Ready, as
a watch sees it; beside it are the seconds to the push's end, to the applied object, to the pod, and to all pods. Goal:
3 s at the most. No peer: Argo CD wants a cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from _kit import arguments, fraction, note, report, run, scratch
from _up import platform
from pilothouse.client import Client, ClientError
from pilothouse.kinds.status import ApiStatus
from pilothouse.kinds.structs import Namespace, ObjectMeta, Pod, Secret
from pilothouse.platform.state import read_state

_PATIENCE = 60.0
_SECRET = "a secret of the bench"
_MARK = "COMMIT"
HOOK = """\
#!{python}
import hashlib, hmac, http.client, json, ssl
body = json.dumps({{"ref": "refs/heads/main", "repository": {{"clone_url": {url!r}}}}}).encode()
proof = "sha256=" + hmac.new({secret!r}.encode(), body, hashlib.sha256).hexdigest()
context = ssl.create_default_context(cafile={ca!r})
made = http.client.HTTPSConnection("127.0.0.1", {port}, timeout=20, context=context)
headers = {{"Content-Type": "application/json", "X-GitHub-Event": "push", "X-Hub-Signature-256": proof}}
made.request("POST", "/api/webhook", body, headers)
answer = made.getresponse()
print(answer.status, answer.read().decode().strip())
"""


class _Git(BaseHTTPRequestHandler):
    """Serves what is below `root` of its server by git's own program."""

    def do_GET(self) -> None:
        """Answer."""
        path, _, query = self.path.partition("?")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        env = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": self.server.root,  # type: ignore[attr-defined]
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        done = subprocess.run(["git", "http-backend"], env=env, input=body, capture_output=True, check=False)
        head, _, data = done.stdout.partition(b"\r\n\r\n")
        self.send_response(200)
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            if value and name.lower() != "status":
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        """Answer."""
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(root: Path) -> Iterator[str]:
    """Serve repositories and yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Git)
    server.root = str(root)  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def git(place: Path, *words: str) -> str:
    """Run git and return what it prints."""
    names = {f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**os.environ, **names, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *words], cwd=place, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout + done.stderr


def workload(number: int, *, rollout: bool) -> str:
    """Return the object of a commit; its pods sleep, of the machine's own files."""
    container = {
        "name": "web",
        "image": "host",
        "command": ["/bin/sleep", "100000"],
        "env": [{"name": _MARK, "value": str(number)}],
        "readinessProbe": {"exec": {"command": ["/bin/true"]}, "periodSeconds": 1},
    }
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }
    spec: dict[str, Any] = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    if rollout:
        spec["strategy"] = {"canary": {}}
    kind = ("argoproj.io/v1alpha1", "Rollout") if rollout else ("apps/v1", "Deployment")
    return json.dumps({"apiVersion": kind[0], "kind": kind[1], "metadata": {"name": "web"}, "spec": spec})


class Seen:
    """Follows pods and the application, and notes when something was so first."""

    def __init__(self) -> None:
        self.at: dict[tuple[str, str], float] = {}
        self.ready: dict[str, set[str]] = {}
        self.changed = asyncio.Event()

    def note(self, what: str, which: str) -> None:
        """Note that something is so of a commit, by its number or hash."""
        self.at.setdefault((what, which), time.perf_counter())
        self.changed.set()

    async def pods(self, client: Client) -> None:
        """Follow pods for ever."""
        async for event in client.watch(Pod, "default"):
            pod = event.object
            number = next((each.value for one in pod.spec.containers for each in one.env if each.name == _MARK), None)
            if number is None:
                continue
            self.note("made", number)
            if pod.spec.node_name:
                self.note("bound", number)
            if pod.status.phase == "Running":
                self.note("running", number)
            if any(each.type == "Ready" and each.status == "True" for each in pod.status.conditions):
                self.note("ready", number)
                self.ready.setdefault(number, set()).add(pod.metadata.name)
                if len(self.ready[number]) == 2:
                    self.note("all", number)

    async def applied(self, client: Client, *, rollout: bool) -> None:
        """Follow the workload for ever."""
        kind = ("argoproj.io/v1alpha1", "Rollout") if rollout else ("apps/v1", "Deployment")
        async for event in client.dynamic(*kind).watch(namespace="default"):
            container = event.object["spec"]["template"]["spec"]["containers"][0]
            self.note("applied", container["env"][0]["value"])

    async def synced(self, client: Client) -> None:
        """Follow the application for ever."""
        async for event in client.dynamic("argoproj.io/v1alpha1", "Application").watch(namespace="argocd"):
            sync = event.object.get("status", {}).get("sync", {})
            if sync.get("status") == "Synced":
                self.note("synced", sync.get("revision", ""))

    async def until(self, what: str, which: str) -> float:
        """Wait until something is so and return when it was."""
        async with asyncio.timeout(_PATIENCE):
            while (what, which) not in self.at:
                self.changed.clear()
                await self.changed.wait()
        return self.at[what, which]


def application(url: str) -> dict[str, Any]:
    """Return the application that follows the repository."""
    return {
        "metadata": {"name": "web", "namespace": "argocd"},
        "spec": {
            "project": "default",
            "source": {"repoURL": url, "path": "deploy", "targetRevision": "main"},
            "destination": {"name": "in-cluster", "namespace": "default"},
            "syncPolicy": {"automated": {"prune": True, "selfHeal": True}},
        },
    }


async def prepare(client: Client, url: str) -> None:
    """Make the webhook's secret and the application, as soon as the server takes them."""
    labels = {"app.kubernetes.io/part-of": "argocd"}
    hook = Secret(
        metadata=ObjectMeta(name="argocd-secret", namespace="argocd", labels=labels),
        string_data={"webhook.github.secret": _SECRET},
    )
    async with asyncio.timeout(_PATIENCE):
        while True:
            try:
                await client.create(Namespace(metadata=ObjectMeta(name="argocd")))
                break
            except (ApiStatus, ClientError, OSError):
                await asyncio.sleep(0.05)
    await client.create(hook)
    await client.dynamic("argoproj.io/v1alpha1", "Application").create(application(url))


async def webhook_port(data: Path) -> int:
    """Return where the platform takes webhooks, once it does."""
    async with asyncio.timeout(_PATIENCE):
        while True:
            state = read_state(str(data))
            for part in state.parts.values() if state is not None else ():
                if "webhook" in part.told:
                    return int(part.told["webhook"].rpartition(":")[2].partition("/")[0])
            await asyncio.sleep(0.05)


def commit(work: Path, number: int, *, rollout: bool) -> str:
    """Commit a change and return its hash; it is not pushed yet."""
    (work / "deploy").mkdir(exist_ok=True)
    (work / "deploy" / "web.json").write_text(workload(number, rollout=rollout))
    git(work, "add", ".")
    git(work, "commit", "-q", "-m", f"commit {number}")
    return git(work, "rev-parse", "HEAD").strip()


async def once(seen: Seen, work: Path, number: int, *, rollout: bool) -> dict[str, float]:
    """Push a commit and return the seconds until each thing was so."""
    done = commit(work, number, rollout=rollout)
    begun = time.perf_counter()
    said = await asyncio.to_thread(git, work, "push", "-q", "origin", "main")
    found = {"pushed": time.perf_counter() - begun}
    if number and "200 1 repositories" not in said:
        raise RuntimeError(f"the webhook said: {said}")
    for what in ("applied", "made", "bound", "running", "ready", "all"):
        found[what] = await seen.until(what, str(number)) - begun
    found["synced"] = await seen.until("synced", done) - begun
    return found


async def measure(commits: int, pause: float, *, rollout: bool) -> list[dict[str, float]]:
    """Return what was found of each commit but the first."""
    with scratch() as directory, served(directory / "git") as url:
        origin, work, data = directory / "git" / "web.git", directory / "work", directory / "data"
        origin.mkdir(parents=True)
        git(origin, "init", "-q", "--bare", "-b", "main")
        git(directory, "clone", "-q", str(origin), str(work))
        git(work, "checkout", "-q", "-B", "main")
        async with platform(data, "--webhook", "127.0.0.1:0") as (_, client):
            port = await webhook_port(data)
            hook = origin / "hooks" / "post-receive"
            hook.write_text(
                HOOK.format(
                    python=sys.executable,
                    url=f"{url}/web.git",
                    secret=_SECRET,
                    port=port,
                    ca=str(data / "pki" / "ca.crt"),
                )
            )
            hook.chmod(0o755)
            first = commit(work, 0, rollout=rollout)
            note(f"first commit {first[:7]}")
            git(work, "push", "-q", "origin", "main")
            await prepare(client, f"{url}/web.git")
            seen, found = Seen(), []
            following = [
                asyncio.create_task(seen.pods(client)),
                asyncio.create_task(seen.applied(client, rollout=rollout)),
                asyncio.create_task(seen.synced(client)),
            ]
            await seen.until("all", "0")
            await seen.until("synced", first)
            for number in range(1, commits + 1):
                await asyncio.sleep(pause)
                found.append(await once(seen, work, number, rollout=rollout))
                note(" ".join(f"{name} {seconds:.2f}" for name, seconds in found[-1].items()))
            for task in following:
                task.cancel()
            await asyncio.wait(following)
            return found


async def main() -> None:
    """Measure."""
    options = arguments(__doc__, commits=12, pause=4, rollout=0)
    commits = 3 if options.quick else options.commits
    found = await measure(commits, float(options.pause), rollout=bool(options.rollout))
    part = {name: sorted(each[name] for each in found) for name in found[0]}
    others: dict[str, Any] = {f"{name}_s": fraction(part[name], 0.5) for name in part if name != "ready"}
    report(
        "commit_to_pods/rollout" if options.rollout else "commit_to_pods",
        fraction(part["ready"], 0.5),
        "s",
        digits=3,
        goal=3.0,
        commits=len(found),
        worst=part["ready"][-1],
        **others,
    )


if __name__ == "__main__":
    run(main())
