"""Manifests in the shapes of Argo Rollouts' public examples, ours word for word: each is taken as it is, and ends well.

All of them have a Rollout `shop` of image `shop:v1`, or an Experiment of this name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest
import yaml

from pilothouse.client import Client
from pilothouse.delivery.gitops.manifests import read_manifests
from pilothouse.delivery.resources.experiments import Experiment
from pilothouse.delivery.resources.installing import install_kinds
from pilothouse.delivery.rollouts import verbs
from pilothouse.delivery.rollouts.linting import lint
from pilothouse.kinds.structs import Deployment, ReplicaSet
from pilothouse.testing import ControlPlane
from support.rolloutkit import Fleet, fleet
from support.shapes import lost

SHAPES: Final = {path.stem: path.read_text() for path in sorted((Path(__file__).parent / "shapes").glob("*.yaml"))}
ROLLOUTS: Final = [name for name in SHAPES if name != "experiment"]
ARGOS: Final = "argoproj.io/v1alpha1"


async def test_a_server_takes_each_as_it_is() -> None:
    async with ControlPlane() as plane, Client.for_transport(plane.transport, plane.user) as client:
        await install_kinds(client)
        count = 0
        for name, text in SHAPES.items():
            for tree in yaml.safe_load_all(text):
                if tree["apiVersion"] == ARGOS:
                    kept = await client.dynamic(ARGOS, tree["kind"]).apply(tree, force=True)
                    assert not [*lost(tree, kept)], name
                    count += 1
        assert count > len(SHAPES)


@pytest.mark.parametrize("name", ROLLOUTS)
def test_lint_finds_nothing_wrong(name: str) -> None:
    found = lint(read_manifests(f"{name}.yaml", SHAPES[name].encode()))
    assert [each.message for each in found if each.is_error] == []


@pytest.mark.parametrize("name", ROLLOUTS)
async def test_a_version_comes_and_stays(name: str) -> None:
    async with fleet(SHAPES[name]) as made:
        assert (await made.status()).phase == "Healthy"
        rollout = await made.rollout()
        if rollout.spec.workload_ref is not None:
            patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "shop:v2"}]
            await made.client.patch(Deployment, "shop", patch)
        else:
            await made.set_image("v2")
        await to_its_end(made)
        assert await sizes(made) == {"v1": 0, "v2": rollout.spec.replicas}


async def sizes(made: Fleet) -> Mapping[str, int]:
    """Return how many pods each version has, whether of the rollout or of an experiment."""
    found: Counter[str] = Counter()
    async for one in made.client.list(ReplicaSet):
        found[(one.spec.template.spec.containers[0].image or "").rpartition(":")[2]] += one.spec.replicas or 0
    return dict(found)


async def to_its_end(made: Fleet) -> None:
    """Let time pass, analyses go well, and somebody promote whatever waits for it."""
    for _ in range(40):
        await made.settle()
        await made.judge("Successful")
        await made.settle()
        status = await made.status()
        if status.phase == "Healthy":
            await made.advance(100)  # until replaced pods are gone
            return
        waits = status.pause_conditions or status.canary.current_experiment
        if waits:
            await made.verb(verbs.promote(await made.rollout()))
        await made.advance(31)
    raise AssertionError(f"no end of it: {status}")


@pytest.mark.parametrize("name", ["blue-green-analyses", "canary-by-pods", "experiment-step", "headers-and-mirrors"])
async def test_a_version_is_taken_back(name: str) -> None:
    async with fleet(SHAPES[name]) as made:
        made.broken.add("v2")  # so that it is on its way yet
        await made.set_image("v2")
        await made.settle()
        await made.verb(verbs.abort(await made.rollout()))
        await made.advance(100)
        status = await made.status()
        assert status.phase == "Degraded"
        assert await sizes(made) == {"v1": (await made.rollout()).spec.replicas, "v2": 0}


async def test_an_experiment_of_its_own_runs_and_ends() -> None:
    async with fleet(SHAPES["experiment"]) as made:
        assert (await made.client.get(Experiment, "shop")).status.phase == "Running"
        assert len(await made.judge("Successful")) == 2
        await made.settle()
        await made.advance(700)
        assert (await made.client.get(Experiment, "shop")).status.phase == "Successful"
        assert not sum((await sizes(made)).values())
