"""`pilothouse up`: whatever of it is killed, pods serve on, the platform comes back, and nothing is left."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from support.platformkit import USERS, Platform, eventually, platform_of
from support.platformload import PORT, Load, configured, deployment, pod, service, shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

KILLS = 30
SEED = 5


@pytest.fixture(scope="module", params=USERS)
def platform(request: pytest.FixtureRequest) -> Iterator[Platform]:
    with platform_of(request.param) as made:
        yield made


def serving(platform: Platform, name: str) -> str:
    """Run two pods behind a service; return its address."""
    platform.create(deployment(name, 2, configured()), service(name))
    platform.until("Deployment", name, lambda it: it["status"].get("readyReplicas") == 2)
    address = platform.get("Service", name)["spec"]["clusterIP"]
    assert isinstance(address, str)
    return address


def runs(platform: Platform, selector: str) -> dict[str, tuple[str, int]]:
    """Return the container of each pod with its number of restarts."""
    return {
        each["metadata"]["name"]: (status["containerID"], status["restartCount"])
        for each in platform.items("Pod", selector)
        for status in each["status"]["containerStatuses"]
    }


def one_more(platform: Platform, chance: random.Random) -> str:
    """Kill any of the processes that run now; return which."""
    name = ""

    def killed() -> bool:
        nonlocal name
        if not (parts := sorted(platform.parts())):
            return False
        name = chance.choice([*parts, "supervisor"])
        if name != "supervisor":
            platform.kill(name)
        return True

    eventually(killed, platform.logged)
    if name == "supervisor":  # whatever started it starts it again, as systemd does
        platform.kill_supervisor()
        platform.start()
    return name


def test_thirty_kills_at_any_moment(platform: Platform, record_property: Callable[[str, object], None]) -> None:
    """A user's services are carried by the agent itself: its connections end with it, and new ones are refused."""
    address = serving(platform, "web")
    before = runs(platform, "app=web")
    chance = random.Random(SEED)
    killed: list[str] = []
    with Load(address, PORT) as load:
        for _ in range(KILLS):
            killed.append(one_more(platform, chance))
            time.sleep(chance.uniform(0.0, 0.5))  # any moment: while it starts as well as when it is ready
        eventually(platform.is_well, platform.logged)
        load.forget()
        eventually(lambda: load.count >= 100 and len(load.pods) == 2, lambda: load.failures)
    record_property("requests", [load.answered, len(load.failures)])
    assert set(killed) == {"apiserver", "controllers", "agent", "zygote", "supervisor"}
    if platform.as_root:
        assert load.failures == []  # the kernel carries services
    assert runs(platform, "app=web") == before
    platform.create(deployment("after", 1, configured()), service("after"))
    platform.until("Deployment", "after", lambda it: it["status"].get("readyReplicas") == 1)
    with Load(platform.get("Service", "after")["spec"]["clusterIP"], PORT) as load:
        eventually(lambda: load.count >= 20)
    for name in ("web", "after"):
        platform.delete("Deployment", name)
    eventually(lambda: not platform.items("Pod"), lambda: [each["status"] for each in platform.items("Pod")])


def test_the_next_platform_takes_over_the_pods_of_one_that_crashed(platform: Platform) -> None:
    address = serving(platform, "kept")
    platform.create(pod("ends", shell("sleep 2; exit 7"), restartPolicy="Never"))
    platform.until("Pod", "ends", lambda it: it["status"]["phase"] == "Running")
    before = runs(platform, "app=kept")
    with Load(address, PORT) as load:
        platform.crash()
        if platform.as_root:
            load.forget()
            eventually(lambda: load.count >= 100)
        platform.start()
        load.forget()
        eventually(lambda: load.count >= 100 and len(load.pods) == 2, lambda: load.failures)
    if platform.as_root:
        assert load.failures == []
    assert runs(platform, "app=kept") == before
    ended = platform.until("Pod", "ends", lambda it: it["status"]["phase"] == "Failed")
    assert state_of(ended)["terminated"]["exitCode"] == 7  # it ended while nobody looked
    platform.delete("Deployment", "kept")


def state_of(found: dict[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = found["status"]["containerStatuses"][0]["state"]
    return state


def test_a_stop_takes_less_than_five_seconds_and_pods_run_on(platform: Platform) -> None:
    platform.create(pod("lives", shell("trap '' TERM; exec sleep 1000")))
    platform.until_running("lives")
    before = runs(platform, "")
    assert platform.process is not None
    platform.process.send_signal(signal.SIGINT)
    assert platform.process.wait(5) == 0
    platform.start()
    assert runs(platform, "")["lives"] == before["lives"]
