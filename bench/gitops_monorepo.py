"""500 applications from one monorepo: from a commit that changes one file to the change in the cluster, and memory.

Prints one JSON line a figure. The API server runs in a process of its own; memory is that of the controllers' process
after everything is synced. No peer: Argo CD wants a cluster to run in.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

OBJECT = """\
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings-{number:03d}}}
data: {{value: "{value}"}}
---
apiVersion: v1
kind: Service
metadata: {{name: web-{number:03d}}}
spec: {{selector: {{app: web-{number:03d}}}, ports: [{{port: 80}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web-{number:03d}}}
spec:
  selector: {{matchLabels: {{app: web-{number:03d}}}}}
  template:
    metadata: {{labels: {{app: web-{number:03d}}}}}
    spec: {{containers: [{{name: web, image: "shop:1"}}]}}
"""


def git(repo: Path, *arguments: str) -> None:
    """Run git."""
    names = {f"GIT_{who}_{what}": "bench" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    env = {**os.environ, **names, "GIT_CONFIG_GLOBAL": "/dev/null"}
    subprocess.run(["git", *arguments], cwd=repo, env=env, check=True, capture_output=True)


def write(repo: Path, number: int, value: str) -> None:
    """Write the files of one application."""
    place = repo / "apps" / f"a{number:03d}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "all.yaml").write_text(OBJECT.format(number=number, value=value))


def make_repo(repo: Path, count: int) -> None:
    """Make the monorepo."""
    repo.mkdir()
    git(repo, "init", "-q", "-b", "main")
    for number in range(count):
        write(repo, number, "0")
    git(repo, "add", ".")
    git(repo, "commit", "-qm", "all")


async def serve() -> None:
    """Run the API server and print where it is."""
    from pilothouse.testing import ControlPlane

    async with ControlPlane() as plane:
        print(plane.kubeconfig, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


def _synced(listed: list[Any]) -> int:
    return sum(app.status.sync.status == "Synced" for app in listed)


def resident_mib() -> float:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


async def measure(kubeconfig: str, place: Path, count: int, changes: int) -> list[dict[str, Any]]:
    """Return the figures."""
    from pilothouse.client import Client
    from pilothouse.delivery.gitops import GitopsOptions, add_gitops, install_gitops_kinds
    from pilothouse.delivery.resources.applications import Application
    from pilothouse.kinds.structs import ConfigMap, Namespace, ObjectMeta, from_dict
    from pilothouse.operator import Manager

    repo = place / "repo"
    async with Client.from_kubeconfig(kubeconfig) as client:
        await install_gitops_kinds(client)
        await client.create(Namespace(metadata=ObjectMeta(name="argocd")))
        for number in range(count):
            name = f"a{number:03d}"
            spec = {
                "source": {"repoURL": f"file://{repo}", "path": f"apps/{name}", "targetRevision": "main"},
                "destination": {"name": "in-cluster", "namespace": "default"},
                "syncPolicy": {"automated": {"prune": True, "selfHeal": True}},
            }
            tree = {"metadata": {"name": name, "namespace": "argocd"}, "spec": spec}
            await client.create(from_dict(tree, Application))
        manager = Manager(client)
        gitops = add_gitops(manager, GitopsOptions(directory=str(place / "data")))
        began = time.perf_counter()
        async with manager:
            while _synced(manager.cached(Application).indexer.list()) < count:  # noqa: ASYNC110  # as users look
                await asyncio.sleep(0.1)
            first = time.perf_counter() - began
            await asyncio.sleep(3)
            memory, taken, fetches = resident_mib(), [], gitops.repositories.mirrors[0].fetches
            renders = gitops.evaluator.renderer.renders
            for change in range(1, changes + 1):
                number = change * 37 % count
                write(repo, number, str(change))
                git(repo, "commit", "-qam", f"change {change}")
                began = time.perf_counter()
                gitops.repositories.news(f"file://{repo}")
                name = f"settings-{number:03d}"
                while (await client.get(ConfigMap, name, "default")).data["value"] != str(change):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                taken.append(time.perf_counter() - began)
                await asyncio.sleep(1)
            fetches = gitops.repositories.mirrors[0].fetches - fetches
            renders = gitops.evaluator.renderer.renders - renders
        await gitops.aclose()
    taken.sort()
    return [
        {"name": "gitops_first_sync", "value": round(first, 2), "unit": "s", "applications": count},
        {
            "name": "gitops_change_synced",
            "value": round(taken[len(taken) // 2], 3),
            "unit": "s",
            "worst": round(taken[-1], 3),
        },
        {
            "name": "gitops_memory",
            "value": round(memory, 1),
            "unit": "MiB",
            "peak": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
        },
        {"name": "gitops_work_of_a_change", "fetches": fetches / changes, "renders": renders / changes, "unit": "each"},
    ]


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--applications", type=int, default=500)
    parser.add_argument("--changes", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help="be the API server (used by the script itself)")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve())
        return
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        make_repo(place / "repo", options.applications)
        command = [sys.executable, __file__, "--serve"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdin is not None
            assert server.stdout is not None
            kubeconfig = server.stdout.readline().strip()
            try:
                for figure in asyncio.run(measure(kubeconfig, place, options.applications, options.changes)):
                    print(json.dumps(figure))
            finally:
                server.stdin.close()


if __name__ == "__main__":
    main()
