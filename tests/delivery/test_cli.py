"""The verbs of `pilothouse rollout`, end to end: the program against a control plane with rollouts' controllers."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import pytest
import yaml
from click.testing import CliRunner

from pilothouse.cli import LazyGroup, _root
from pilothouse.delivery.resources.incidents import Incident
from pilothouse.delivery.resources.installing import install_kinds
from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.foundation import refreshing
from pilothouse.kinds.structs import Deployment, from_dict
from support.rolloutkit import ROUTE, SERVICES, Fleet, fleet

ROLLOUT: Final = """
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec: {containers: [{name: shop, image: "shop:v1"}]}
  strategy:
    canary:
      canaryService: shop-canary
      stableService: shop-stable
      trafficRouting: {plugins: {argoproj-labs/gatewayAPI: {httpRoute: shop}}}
      steps:
      - plugin: {name: pilothouse.dev/regions, config: {regions: [cn-east], weight: 20}}
      - pause: {}
      - setWeight: 50
      - pause: {}
"""


class Done(NamedTuple):
    """What a command gave."""

    code: int
    out: str
    err: str


def call(*words: str) -> Done:
    """Run the program as `main` does, within this process."""
    assert isinstance(_root, LazyGroup)
    result = CliRunner().invoke(_root, words, prog_name="pilothouse", catch_exceptions=False)
    return Done(result.exit_code, result.stdout, result.stderr)


class Shop:
    """A fleet, and the program in a thread of its own."""

    def __init__(self, made: Fleet) -> None:
        self.fleet = made

    async def run(self, *words: str, settle: bool = True) -> Done:
        done = await asyncio.to_thread(call, *words, "--kubeconfig", self.fleet.plane.kubeconfig)
        if settle:
            await self.fleet.settle()
        return done

    async def said(self, *words: str) -> str:
        done = await self.run(*words)
        assert done.code == 0, done
        return done.out

    async def updated(self) -> None:
        """Begin version 2, up to its first pause."""
        assert await self.said("rollout", "set", "image", "shop", "shop=shop:v2") == "rollout 'shop' image updated\n"


@asynccontextmanager
async def opened(*manifests: str) -> AsyncIterator[Shop]:
    async with fleet(SERVICES, ROUTE, *(manifests or (ROLLOUT,))) as made:
        yield Shop(made)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with opened() as made:
        yield made


async def test_a_version_goes_step_by_step_by_the_commands(shop: Shop) -> None:
    await shop.updated()
    page = await shop.said("rollout", "get", "rollout/shop")
    assert "Status:          ॥ Paused" in page
    assert "  Step:          1/4 (pause)" in page
    assert "  SetWeight:     0 (cn-east: 20)" in page
    assert "  ActualWeight:  0 (cn-east: 20)" in page
    assert "shop:v2 (canary)" in page
    assert "shop:v1 (stable)" in page
    assert page.count("□") == 3
    assert page.index("# revision:2") < page.index("# revision:1")
    assert await shop.said("rollout", "promote", "shop") == "rollout 'shop' promoted\n"
    assert "  SetWeight:     50\n" in await shop.said("rollout", "get", "shop")
    assert await shop.fleet.weights() == {"shop-stable": 50, "shop-canary": 50}
    assert await shop.said("rollout", "promote", "shop", "--full") == "rollout 'shop' fully promoted\n"
    await shop.fleet.advance(5)
    assert (await shop.fleet.status()).phase == "Healthy"
    assert await shop.said("rollout", "status", "shop") == "Healthy\n"
    nothing = await shop.run("rollout", "promote", "shop")
    assert (nothing.code, "nothing to promote" in nothing.err) == (1, True)


async def test_abort_retry_and_undo(shop: Shop) -> None:
    await shop.updated()
    assert await shop.said("rollout", "abort", "shop") == "rollout 'shop' aborted\n"
    assert await shop.fleet.weights() == {"shop-stable": 100, "shop-canary": 0}
    ended = await shop.run("rollout", "status", "shop")
    assert ended.code == 1
    assert ended.err.startswith("error: rollout shop is Degraded: RolloutAborted: ")
    refused = await shop.run("rollout", "promote", "shop")
    assert "pilothouse rollout retry rollout shop" in refused.err
    assert await shop.said("rollout", "retry", "rollout", "shop") == "rollout 'shop' retried\n"
    assert (await shop.fleet.status()).phase == "Paused"
    again = await shop.run("rollout", "retry", "rollout", "shop")
    assert (again.code, "not aborted" in again.err) == (1, True)
    assert await shop.said("rollout", "undo", "shop") == "rollout 'shop' set to the revision before\n"
    await shop.fleet.advance(31)
    assert (await shop.fleet.status()).phase == "Healthy"
    assert await shop.fleet.selected("shop-stable") == "v1"
    missing = await shop.run("rollout", "undo", "shop", "--to-revision", "9")
    assert (missing.code, "there is no revision 9" in missing.err) == (1, True)


async def test_pause_resume_skip_and_restart(shop: Shop) -> None:
    await shop.updated()
    assert await shop.said("rollout", "pause", "ro/shop") == "rollout 'shop' paused\n"
    assert (await shop.fleet.status()).message == "manually paused"
    assert await shop.said("rollout", "resume", "shop") == "rollout 'shop' resumed\n"
    assert (await shop.fleet.status()).message == "CanaryPauseStep"
    await shop.said("rollout", "promote", "shop", "--skip-current-step")
    assert (await shop.fleet.status()).current_step_index == 3
    assert await shop.said("rollout", "restart", "shop", "--in", "10m") == "rollout 'shop' restarts in 10m\n"
    assert (await shop.fleet.rollout()).spec.restart_at is not None


async def test_status_waits_and_tells_how_it_goes_on(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    await shop.updated()
    begun, echo = threading.Event(), click.echo

    def told(*words: Any, **options: Any) -> None:
        echo(*words, **options)
        begun.set()

    monkeypatch.setattr(click, "echo", told)
    waiting = asyncio.create_task(shop.run("rollout", "status", "shop", "--timeout", "60s", settle=False))
    assert await asyncio.to_thread(begun.wait, 30)
    await shop.fleet.verb(_full())
    await shop.fleet.settle()
    await shop.fleet.advance(5)
    done = await waiting
    assert done.code == 0
    lines = done.out.splitlines()
    assert (lines[0], lines[-1]) == ("Paused at step 1/4 (pause): CanaryPauseStep", "Healthy")


def _full() -> Any:
    from pilothouse.delivery.rollouts.verbs import Change

    return Change(status={"status": {"promoteFull": True}})


async def test_status_ends_when_its_time_is_over(shop: Shop) -> None:
    await shop.updated()
    done = await shop.run("rollout", "status", "shop", "--timeout", "0.2s")
    assert done.code == 1
    assert done.out == "Paused at step 1/4 (pause): CanaryPauseStep\n"
    assert "neither Healthy nor Degraded within 0.2 s" in done.err
    assert await shop.said("rollout", "status", "shop", "--no-watch") == done.out


async def test_lists_and_data(shop: Shop) -> None:
    await shop.updated()
    lines = (await shop.said("rollout", "list")).splitlines()
    assert lines == [
        "NAME  STRATEGY  STATUS  STEP  SET-WEIGHT  READY  DESIRED  UP-TO-DATE  AVAILABLE",
        "shop  Canary    Paused  1/4   0           3/2    2        1           3",
    ]
    assert (await shop.said("rollout", "list", "-A")).startswith("NAMESPACE  NAME")
    data = json.loads(await shop.said("rollout", "get", "shop", "-o", "json"))
    assert data["setRegionWeights"] == data["actualRegionWeights"] == {"cn-east": 20}
    assert [one["revision"] for one in data["revisions"]] == [2, 1]
    assert yaml.safe_load(await shop.said("rollout", "get", "shop", "-o", "yaml")) == data


BY_REFERENCE: Final = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: "web:v1"}]}
---
apiVersion: argoproj.io/v1alpha1
kind: Rollout
metadata: {name: web}
spec:
  replicas: 1
  workloadRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  strategy: {canary: {steps: [{setWeight: 20}, {pause: {}}]}}
"""


async def test_incidents_are_listed_and_shown(shop: Shop) -> None:
    await install_kinds(shop.fleet.client, [Incident])
    done = await shop.run("rollout", "incidents", settle=False)
    assert (done.code, done.out) == (0, "")
    assert "no incidents" in done.err
    spec = {"rollout": "shop", "version": "6f9c", "decidedAt": "2026-03-01T12:00:00Z", "cause": "Analysis"}
    tree = {"metadata": {"name": "shop-6f9c", "namespace": "default"}, "spec": {**spec, "message": "2.1 % errors"}}
    await shop.fleet.client.create(from_dict(tree, Incident))
    status = {"phase": "Open", "samples": ["GET /cart: 500"]}
    await shop.fleet.client.patch(Incident, "shop-6f9c", {"status": status}, subresource="status")
    assert "shop-6f9c" in (await shop.run("rollout", "incidents", settle=False)).out
    shown = await shop.run("rollout", "incidents", "shop-6f9c", settle=False)
    assert "SAMPLES\nGET /cart: 500" in shown.out
    data = await shop.run("rollout", "incidents", "-A", "-o", "json", settle=False)
    assert json.loads(data.out)[0]["samples"] == ["GET /cart: 500"]


async def test_a_workload_that_is_named_is_changed_instead_of_the_rollout() -> None:
    async with opened(BY_REFERENCE) as shop:
        assert "web:v1 (stable)" in await shop.said("rollout", "get", "web")
        await shop.said("rollout", "set", "image", "web", "*=web:v2")
        page = await shop.said("rollout", "get", "web")
        assert "web:v2 (canary)" in page
        assert page.count("□") == 2
        assert await shop.said("rollout", "undo", "web", "--to-revision", "1") == "rollout 'web' set to revision 1\n"
        workload = await shop.fleet.client.get(Deployment, "web")
        assert workload.spec.template.spec.containers[0].image == "web:v1"
        assert await shop.said("rollout", "status", "web") == "Healthy\n"


async def test_what_is_wrong_is_said_with_a_way_out(shop: Shop, tmp_path: Path) -> None:
    near = await shop.run("rollout", "get", "shpo")
    assert near.code == 4
    assert near.err == "error: namespace default: there is no rollout 'shpo'\nhint: there is shop\n"
    other = await shop.run("rollout", "get", "shop", "-n", "empty")
    assert (other.code, "-A shows" in other.err) == (4, True)
    container = await shop.run("rollout", "set", "image", "shop", "web=a:1")
    assert (container.code, "there is no container 'web'; there is shop" in container.err) == (1, True)
    kind = await shop.run("rollout", "get", "deployment/shop")
    assert (kind.code, "want a rollout" in kind.err) == (2, True)
    gone = await asyncio.to_thread(call, "rollout", "get", "shop", "--kubeconfig", str(tmp_path / "none"))
    assert (gone.code, "--kubeconfig FILE" in gone.err) == (2, True)
    context = await shop.run("rollout", "get", "shop", "--context", "other")
    assert (context.code, 'no context "other"' in context.err) == (2, True)


async def test_who_may_not_is_told_so(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "ann"
    _as(shop.fleet.plane.kubeconfig, "ann", path)
    done = await asyncio.to_thread(call, "rollout", "abort", "shop", "--kubeconfig", str(path))
    assert done.code == 1
    assert 'User "ann" cannot get resource "rollouts"' in done.err
    assert "hint: ask for a Role that grants this" in done.err


def _as(kubeconfig: str, user: str, path: Path) -> None:
    config = yaml.safe_load(Path(kubeconfig).read_text(encoding="utf-8"))
    config["users"][0]["user"]["as"] = user
    path.write_text(yaml.safe_dump(config), encoding="utf-8")


async def test_it_is_shown_again_and_again(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    loop = asyncio.get_running_loop()

    def refresh(frame: Callable[[], list[str]], seconds: float) -> None:
        assert seconds == 1.0
        seen.append("\n".join(frame()))
        asyncio.run_coroutine_threadsafe(shop.fleet.client.delete(Rollout, "shop"), loop).result(30)
        seen.append("\n".join(frame()))

    monkeypatch.setattr(refreshing, "refresh", refresh)
    assert (await shop.run("rollout", "get", "shop", "-w", settle=False)).code == 0
    assert "✔ Healthy" in seen[0]
    assert seen[1].startswith("error: namespace default: there is no rollout 'shop'\ntrying again")


def test_kinds_that_are_not_installed_are_said_and_can_be_installed(kubeconfig: str) -> None:
    done = call("rollout", "list", "--kubeconfig", kubeconfig)
    assert (done.code, "`pilothouse rollout install`" in done.err) == (3, True)
    assert "pilothouse rollout install" in call("rollout", "get", "shop", "--kubeconfig", kubeconfig).err
    installed = call("rollout", "install", "--kubeconfig", kubeconfig)
    assert (installed.code, "installed: rollouts.argoproj.io" in installed.out) == (0, True)
    assert call("rollout", "list", "--kubeconfig", kubeconfig).code == 0


def test_every_command_has_examples() -> None:
    group = _root.get_command(None, "rollout")  # type: ignore[arg-type]  # it looks at no context
    assert group is not None
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        if name != "set":
            assert "Examples:" in (command.epilog or ""), name


Lint = Callable[[str], Done]


@pytest.fixture
def lint(tmp_path: Path) -> Lint:
    def run(text: str) -> Done:
        path = tmp_path / "rollout.yaml"
        path.write_text(text, encoding="utf-8")
        done = call("rollout", "lint", "-f", str(path))
        return done._replace(out=done.out.replace(f"{tmp_path}/", ""))

    return run


def test_lint_names_file_field_and_the_way_out(lint: Lint) -> None:
    good = lint(f"{SERVICES}---\n{ROUTE}---\n{ROLLOUT}")
    assert good == (0, "1 rollout: nothing is wrong\n", "")
    alone = lint(ROLLOUT)
    assert alone.code == 0
    assert "rollout.yaml (document 1): Rollout shop: note: service 'shop-canary' is not in these files" in alone.out
    bad = lint(ROLLOUT.replace("setWeight: 50", "setWeight: 150").replace("replicas: 2", "replica: 2"))
    assert bad.code == 1
    assert "error: spec.replica: there is no such field; is it replicas?" in bad.out
    assert "error: spec.strategy.canary.steps[2]: setWeight: 150; want 0 to 100" in bad.out
    assert "2 problems in 1 rollout" in bad.err
    typed = lint(ROLLOUT.replace("replicas: 2", "replicas: two"))
    assert (typed.code, "spec.replicas" in typed.out) == (1, True)
    none = lint(SERVICES)
    assert (none.code, "there is no Rollout in it" in none.err) == (2, True)
    broken = lint("a: [")
    assert (broken.code, "no YAML" in broken.err) == (1, True)
