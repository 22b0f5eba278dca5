"""What a real kube-apiserver said once, said again: informers ask the same and end with the same caches.

The live server is asked in `tests/operator/test_real_server.py`, where it is built; these streams are of it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from support.recorded import Replayer, read_take
from support.watchscenes import SCENES, Scene, follow, until

REAL = Path(__file__).resolve().parents[1] / "golden" / "client" / "real"

WITNESSES = {
    "streamed": ('"k8s.io/initial-events-end":"true"', '"type":"DELETED"'),
    "listed": ('"kind":"ConfigMapList"', '"type":"MODIFIED"'),
    "ended": ('"type":"BOOKMARK"', "! end"),
    "expired-streamed": ('"code":410', "! broken"),
    "expired-listed": ('"code":410', '"kind":"ConfigMapList"'),
    "selected": ('"type":"DELETED"', "labelSelector=app%3Dweb"),
    "metadata": ('"kind":"PartialObjectMetadata"', '"k8s.io/initial-events-end":"true"'),
    "future-streamed": ("Too large resource version", '"type":"ERROR"'),
    "future-listed": ("Too large resource version", '"reason":"ResourceVersionTooLarge"'),
}


@pytest.mark.parametrize("cut", [1 << 30, 61], ids=["whole", "in pieces"])
@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
async def test_recorded_streams_lead_to_the_same_cache_and_notifications(scene: Scene, cut: int) -> None:
    take = read_take(REAL / f"{scene.name}.txt")
    replayer = Replayer(take, cut=cut)
    followed = await follow(scene, replayer, f"recorded-{scene.name}")
    async with followed.informer as informer:
        async with asyncio.timeout(10):
            await informer.wait_synced()
        await until(lambda: followed.outcome() == take.outcome or replayer.surprises, 10)
        assert replayer.surprises == []
        assert followed.outcome() == take.outcome
        assert replayer.left == []
        assert informer.core.counts.skipped == 0


@pytest.mark.parametrize("name", SCENES)
def test_a_recording_shows_what_it_is_for(name: str) -> None:
    text = (REAL / f"{name}.txt").read_text(encoding="utf-8")
    assert [witness for witness in WITNESSES[name] if witness not in text] == []


def test_there_is_a_recording_for_each_scene_and_no_other() -> None:
    assert {path.stem for path in REAL.glob("*.txt")} == set(SCENES)
