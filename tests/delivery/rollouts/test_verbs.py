"""What users' verbs change, field by field."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from pilothouse.delivery.resources.rollouts import Rollout
from pilothouse.delivery.rollouts import verbs
from pilothouse.kinds.structs import from_dict, to_dict
from support.rolloutworld import World, rollout_of

STEPS = [{"setWeight": 20}, {"pause": {}}]


def rollout(status: dict[str, Any] | None = None, **spec: Any) -> Rollout:
    tree = to_dict(rollout_of("canary: {}", **spec))
    tree["spec"]["strategy"]["canary"]["steps"] = STEPS
    return from_dict({**tree, "status": status or {}}, Rollout)


PAUSED = [{"reason": "CanaryPauseStep", "startTime": "2025-01-01T00:00:00Z"}]
INCONCLUSIVE = {"currentStepAnalysisRunStatus": {"name": "a", "status": "Inconclusive"}}


@pytest.mark.parametrize(
    ("found", "options", "status", "spec"),
    [
        (rollout({"pauseConditions": PAUSED}), {}, {"pauseConditions": None}, None),
        (rollout({"currentStepIndex": 0}), {}, {"pauseConditions": None, "currentStepIndex": 1}, None),
        (rollout({"currentStepIndex": 2}), {}, {"pauseConditions": None, "currentStepIndex": 2}, None),
        (
            rollout({"pauseConditions": PAUSED, "controllerPause": True, "canary": INCONCLUSIVE}),
            {},
            {"pauseConditions": None, "controllerPause": False, "currentStepIndex": 1},
            None,
        ),
        (rollout({"currentPodHash": "a", "stableRS": "b"}), {"full": True}, {"promoteFull": True}, None),
        (rollout({"currentPodHash": "a", "stableRS": "a"}), {"full": True}, None, None),
        (rollout({"pauseConditions": PAUSED}, paused=True), {"full": True}, {"promoteFull": True}, {"paused": False}),
        (rollout({"currentStepIndex": 0}), {"skip_current_step": True}, {"currentStepIndex": 1}, None),
    ],
)
def test_promote(found: Rollout, options: dict[str, bool], status: Any, spec: Any) -> None:
    change = verbs.promote(found, **options)
    assert change.status == ({} if status is None else {"status": status})
    assert change.spec == ({} if spec is None else {"spec": spec})


def test_the_others() -> None:
    found = rollout({"abort": True})
    assert verbs.abort(found).status == {"status": {"abort": True}}
    assert verbs.retry(found).status == {"status": {"abort": False}}
    assert verbs.pause(found).spec == {"spec": {"paused": True}}
    assert verbs.resume(rollout(paused=True)).spec == {"spec": {"paused": False}}
    assert verbs.resume(found).spec == {}
    moment = datetime(2025, 2, 3, 4, 5, 6, tzinfo=UTC)
    assert verbs.restart(found, moment).spec == {"spec": {"restartAt": "2025-02-03T04:05:06Z"}}
    with pytest.raises(verbs.VerbError, match="not aborted"):
        verbs.retry(rollout())
    with pytest.raises(verbs.VerbError, match="no steps"):
        verbs.promote(rollout_of("canary: {}"), skip_current_step=True)


def test_a_promotion_of_what_is_paused_by_hand_counts_whatever_is_seen_between_its_writes() -> None:
    world = World(rollout_of("canary: {steps: [{setWeight: 50}, {pause: {}}, {setWeight: 60}, {pause: {}}]}"))
    world.settle()
    world.set_image("v2")
    world.settle()
    world.verb(verbs.pause(world.rollout))
    world.settle()
    change = verbs.promote(world.rollout)
    world.verb(verbs.Change(status=change.status))
    world.settle()
    assert world.status.current_step_index == 1
    world.verb(verbs.Change(spec=change.spec))
    world.settle()
    assert (world.status.phase, world.status.current_step_index) == ("Paused", 3)


def test_images_are_set_by_container_or_all_at_once() -> None:
    found = rollout()
    (one,) = verbs.set_image(found, {"shop": "shop:2"}).json
    assert one == {"op": "add", "path": "/spec/template/spec/containers/0/image", "value": "shop:2"}
    assert verbs.set_image(found, {"*": "shop:2"}).json == (one,)
    with pytest.raises(verbs.VerbError, match="no container 'web'; there is shop"):
        verbs.set_image(found, {"web": "x"})


def test_undo_sets_the_template_of_a_revision() -> None:
    world = World(rollout_of("canary: {}"))
    for image in ("v1", "v2", "v3"):
        world.set_image(image)
        world.settle()
        world.wait(5)
    sets = [*world.sets.values()]
    (before,) = verbs.undo(world.rollout, sets).json
    assert before["value"]["spec"]["containers"][0]["image"] == "shop:v2"
    assert before["value"]["metadata"]["labels"] == {"app": "shop"}
    world.verb(verbs.undo(world.rollout, sets, 1))
    world.settle()
    assert world.rollout.metadata.annotations["rollout.argoproj.io/revision"] == "4"
    assert world.size("v1") == 10
    with pytest.raises(verbs.VerbError, match="no revision 9; there is 1, 2, 3"):
        verbs.undo(world.rollout, sets, 9)
