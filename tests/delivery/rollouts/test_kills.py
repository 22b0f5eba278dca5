"""A controller killed after each single write, everywhere on the way: it resumes and comes to the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest
import yaml

from pilothouse.delivery.rollouts import verbs
from pilothouse.delivery.rollouts.names import HASH
from pilothouse.kinds.structs import to_dict
from support.rolloutworld import Conflict, World, rollout_of

ROUTING: Final = "trafficRouting: {plugins: {argoproj-labs/gatewayAPI: {httpRoute: shop}}}"
ANALYSIS: Final = "{analysis: {templates: [{templateName: errors}]}}"
CANARY: Final = f"""
canary:
  canaryService: shop-canary
  stableService: shop-stable
  analysis: {{templates: [{{templateName: errors}}]}}
  {ROUTING}
  steps: [{{setWeight: 30}}, {ANALYSIS}, {{pause: {{}}}}]
"""
REGIONS: Final = f"""
canary:
  canaryService: shop-canary
  stableService: shop-stable
  analysis: {{templates: [{{templateName: errors}}]}}
  {ROUTING}
  steps:
  - plugin: {{name: pilothouse.dev/regions, config: {{regions: [cn-east], weight: 60}}}}
  - {ANALYSIS}
  - pause: {{}}
"""
BLUE_GREEN: Final = """
blueGreen:
  activeService: shop-stable
  previewService: shop-canary
  autoPromotionEnabled: false
  previewReplicaCount: 1
  postPromotionAnalysis: {templates: [{templateName: errors}]}
"""


class Killed(Exception):
    """The controller is gone."""


class Killer:
    """Plays a world in which the controller is killed once, after the write of a number."""

    def __init__(self, strategy: str, at: int) -> None:
        self.world = World(rollout_of(strategy, replicas=4))
        self.world.add_route()
        self.world.add_template("errors")
        self.count = 0
        self.at = at
        self.was_killed = False
        self.world.after_write = self._write

    def _write(self, _: object) -> None:
        self.count += 1
        if self.count == self.at:
            self.was_killed = True
            raise Killed

    def settle(self) -> None:
        while True:
            try:
                self.world.settle()
            except (Killed, Conflict):
                continue
            return

    def end(self) -> dict[str, object]:
        """Return what is left when all is over."""
        self.world.wait(60)
        self.settle()
        world, status = self.world, to_dict(self.world.rollout.status)
        for name in ("conditions", "abortedAt", "duration", "pauseConditions"):
            status.pop(name, None)
        return {
            "status": status,
            "sets": {name: found.spec.replicas for name, found in world.sets.items()},
            "services": {name: found.spec.selector.get(HASH) for name, found in world.services.items()},
            "routes": [route["spec"] for route in world.routes.values()],
            "runs": {name: run.status.phase for name, run in world.runs.items()},
        }


def promoted(strategy: str, at: int) -> Killer:
    made = Killer(strategy, at)
    made.settle()
    made.world.wait(60)
    made.world.set_image("v2")
    made.settle()
    for _ in range(3):
        made.world.judge("Successful", "Step")
        made.world.judge("Successful", "PostPromotion")
        made.settle()
        if made.world.rollout.status.pause_conditions:
            made.world.verb(verbs.promote(made.world.rollout))
            made.settle()
    made.world.wait(3)
    made.settle()
    return made


def taken_back(strategy: str, at: int) -> Killer:
    made = Killer(strategy, at)
    made.settle()
    made.world.wait(60)
    made.world.set_image("v2")
    made.settle()
    if made.world.rollout.status.pause_conditions:
        made.world.verb(verbs.promote(made.world.rollout))
        made.settle()
    made.world.judge("Failed")
    made.settle()
    assert exposed(made.world) == 0
    return made


def replaced(strategy: str, at: int) -> Killer:
    made = Killer(strategy, at)
    made.settle()
    made.world.wait(60)
    made.world.set_image("v2")
    made.settle()
    made.world.set_image("v3")
    made.settle()
    made.world.set_image("v1")
    made.settle()
    return made


def rearranged(strategy: str, at: int) -> Killer:
    """Change the strategy in the midst of an update, abort, and try again."""
    made = Killer(strategy, at)
    made.settle()
    made.world.wait(60)
    made.world.set_image("v2")
    made.settle()
    made.world.change(strategy=yaml.safe_load(BLUE_GREEN if strategy != BLUE_GREEN else REGIONS))
    made.settle()
    made.world.verb(verbs.abort(made.world.rollout))
    made.settle()
    assert exposed(made.world) == 0
    made.world.verb(verbs.retry(made.world.rollout))
    made.settle()
    return made


def exposed(world: World) -> int:
    """Return which share of the traffic the second version has."""
    named = world.hash("v2")
    active = {name: found.spec.selector.get(HASH) for name, found in world.services.items()}
    if world.rollout.spec.strategy.blue_green is not None:
        return 100 if active["shop-stable"] == named else 0
    return sum(weight for name, weight in world.weights().items() if active[name] == named)


@pytest.mark.parametrize("strategy", [CANARY, REGIONS, BLUE_GREEN], ids=["canary", "regions", "bluegreen"])
@pytest.mark.parametrize("play", [promoted, taken_back, replaced, rearranged])
def test_it_comes_to_the_same_after_a_kill_at_any_write(play: Callable[[str, int], Killer], strategy: str) -> None:
    whole = play(strategy, 0)
    expected, writes = whole.end(), whole.count
    assert writes > 15
    for at in range(1, writes + 1):
        made = play(strategy, at)
        assert made.end() == expected, f"killed after write {at}"
        assert made.was_killed
