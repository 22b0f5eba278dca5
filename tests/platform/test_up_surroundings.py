"""`pilothouse up` in bad surroundings: disk, addresses, processes or a controller are gone; it says so and goes on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pilothouse.node.process.cgroups import detect
from support.platformkit import PATIENCE, USERS, Platform, Refused, eventually, platform_of
from support.platformload import pod, shell

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

ROOT = USERS[0]
MOUNTS = detect().mounts
IDLE = "exec sleep 1000"


def names(platform: Platform, phase: str) -> set[str]:
    return {each["metadata"]["name"] for each in platform.items("Pod") if each["status"].get("phase") == phase}


@contextmanager
def small_disk(platform: Platform, megabytes: int) -> Iterator[None]:
    """Put a platform's data on a disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("a disk of a size is made by root")
    platform.data.mkdir(mode=0o700)
    owner = "" if platform.as_root else ",uid=65534,gid=65534"
    options = f"size={megabytes}m,mode=700{owner}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "phe", str(platform.data)], check=True)
    try:
        yield
    finally:
        platform.clear()
        subprocess.run(["umount", "-l", str(platform.data)], check=True)


def fill(path: Path) -> None:
    """Write until nothing more fits."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.mark.parametrize("user", USERS)
def test_a_full_disk(user: str) -> None:
    """Whether a pod is refused its files or evicted depends on when the node looks; it rests 5 min after."""
    with platform_of(user, starts=False) as platform, small_disk(platform, 160):
        platform.start()
        platform.create(pod("before", shell(IDLE)))
        platform.until_running("before")
        parts = platform.parts()
        fill(platform.data / "fill")
        platform.create(pod("meanwhile", shell(IDLE)))  # the log has room that it took before
        eventually(lambda: no_room(platform), lambda: platform.told("default"))
        assert platform.parts() == parts
        (platform.data / "fill").unlink()
        platform.create(pod("after", shell("true"), restartPolicy="Never", tolerations=[{"operator": "Exists"}]))
        platform.until("Pod", "after", lambda it: it["spec"].get("nodeName"))
        assert platform.parts() == parts


def no_room(platform: Platform) -> bool:
    """Whether events say so."""
    told = [f"{each['reason']} {each.get('message')}" for each in platform.events()]
    return any("No space left on device" in each or each.startswith("Evicted") for each in told)


def test_a_disk_that_is_too_small_to_begin_with_is_named() -> None:
    with platform_of("user", starts=False) as platform, small_disk(platform, 16):
        done = subprocess.run(
            platform.line(), env=platform.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert done.returncode == 1
        assert f"error: {platform.data}: No space left on device" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("user", USERS)
def test_no_address_is_left(user: str) -> None:
    with platform_of(user, starts=False) as platform:
        small = f"{platform.slot.pods[platform.as_root].partition('/')[0]}/29"
        platform.start("--cluster-cidr", small)
        many = [f"pod-{number}" for number in range(6)]
        platform.create(*(pod(name, shell(IDLE)) for name in many))
        eventually(lambda: len(names(platform, "Running")) == 5, lambda: platform.told("default"))
        (left,) = {*many} - names(platform, "Running")
        platform.until_event(left, "FailedCreatePodSandBox", f"no address is left in {small}")
        platform.delete("Pod", min(names(platform, "Running")))
        platform.until_running(left)


@contextmanager
def few_processes(*pids: int) -> Iterator[Path]:
    """Let processes have no more than they have, in a group of its own; gives the file of its limit."""
    group = Path(MOUNTS["pids"]) / f"few-{os.getpid()}"
    home = Path(MOUNTS["pids"]) / "cgroup.procs"
    group.mkdir()
    try:
        for pid in pids:
            (group / "cgroup.procs").write_text(str(pid))
        (group / "pids.max").write_text((group / "pids.current").read_text())
        yield group / "pids.max"
    finally:
        for line in (group / "cgroup.procs").read_text().split():
            home.write_text(line)
        eventually(lambda: not (group / "cgroup.procs").read_text())
        group.rmdir()


@pytest.mark.skipif("pids" not in MOUNTS, reason="wants the controller pids of version 1, which groups may share")
@pytest.mark.parametrize("user", [ROOT])
def test_no_process_is_left(user: str) -> None:
    with platform_of(user) as platform:
        parts = platform.parts()
        with few_processes(parts["agent"], parts["zygote"]) as limit:
            platform.create(pod("waits", shell(IDLE)))
            platform.until_event("waits", "FailedCreatePodSandBox", "Resource temporarily unavailable")
            assert platform.parts() == parts
            limit.write_text("max")
            platform.until_running("waits")


@pytest.mark.skipif("memory" not in MOUNTS, reason="wants the controller memory of version 1, to be unmounted")
@pytest.mark.parametrize("user", [ROOT])
def test_a_controller_of_groups_vanishes(user: str) -> None:
    limited: dict[str, Any] = {"resources": {"limits": {"memory": "64Mi"}}}
    with platform_of(user, starts=False) as platform:
        platform.before = ("unshare", "--mount", "--propagation", "private")
        platform.start()
        platform.create(pod("before", shell(IDLE, **limited)))
        platform.until_running("before")
        parts = platform.parts()

        def inside(*command: str) -> None:
            """Run a command with the mounts of the platform, which are its own."""
            for pid in (parts["agent"], parts["zygote"]):
                if os.readlink(f"/proc/{pid}/ns/mnt") not in seen:
                    seen.add(os.readlink(f"/proc/{pid}/ns/mnt"))
                    subprocess.run(["nsenter", "-t", str(pid), "-m", *command], check=True)

        seen: set[str] = set()
        inside("umount", "-l", MOUNTS["memory"])
        platform.create(pod("waits", shell(IDLE, **limited)))
        platform.until_event("waits", "FailedCreatePodSandBox", "memory")
        platform.delete("Pod", "before")
        platform.until_gone("Pod", "before")
        assert platform.parts() == parts
        seen.clear()
        inside("mount", "-t", "cgroup", "-o", "memory", "cgroup", MOUNTS["memory"])
        platform.until_running("waits")


def test_a_name_that_is_taken_is_told(tmp_path: Path) -> None:
    with platform_of("user") as platform:
        done = subprocess.run(
            platform.line(), env=platform.environment, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        assert (done.returncode, "a platform runs here already" in done.stderr) == (5, True)
        with pytest.raises(Refused):
            platform.create(pod("Bad_Name", shell(IDLE)))
