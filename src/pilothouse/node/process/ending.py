"""Ending containers, each by its own signal first; and all pods of a runtime's directory when no agent is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import Final

from pilothouse.foundation.ids import SystemIds
from pilothouse.node.errors import NodeError, NotFound

from .cgroups import detect
from .directory import lock
from .events import Events
from .ipam import AddressPool
from .links import Refused
from .options import Options
from .pods import Container, Pod, kill_marked, kill_zygotes
from .sandboxes import Sandboxes

__all__ = ["GRACE", "end_container", "end_pods"]

GRACE: Final = "io.kubernetes.pod.terminationGracePeriod"
"""The annotation of a container that says how many seconds it has to end, as a kubelet's."""

_DEFAULT_GRACE: Final = 30.0
_KILL_SECONDS: Final = 10.0
_MARGIN: Final = 15.0
_AT_ONCE: Final = 16


async def end_container(pod: Pod, container: Container, grace: float) -> None:
    """Send a container its signal, and SIGKILL after `grace` seconds. Raises `NodeError` where it stays."""
    if container.record.state != "Running" or pod.link is None:
        return
    for number, seconds in ((container.stored.stop_signal, grace), (signal.SIGKILL, _KILL_SECONDS)):
        if number != signal.SIGKILL and grace <= 0:
            continue
        if pod.link is not None:
            with contextlib.suppress(Refused, NotFound):
                await pod.link.ask("kill", container=container.stored.id, signal=int(number))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await container.exited.wait()
                return
    raise NodeError(f'container "{container.stored.id}" does not end, {_KILL_SECONDS:g} s after SIGKILL')


async def end_pods(options: Options, *, grace: float | None, at_most: float) -> int:
    """End and remove all pods of a runtime's directory; return how many there were.

    grace: seconds from a container's signal to SIGKILL; each one's own where None, never more than `at_most`. Needs no
    agent and no zygote, and may be called again after it was killed. Raises `RuntimeUnavailable` while an agent has the
    directory, `OSError`.
    """
    if not os.path.isdir(options.root):  # noqa: ASYNC240  # nothing ran here
        return 0
    held = lock(options.root)
    try:
        # Before anything is looked at: it might fork one more keeper meanwhile.
        await asyncio.to_thread(kill_zygotes, options.root)
        # Of ranges only the files of addresses matter here, and whatever mode the pods have, "plain" looks everywhere.
        pool = AddressPool(f"{options.root}/addresses", options.pod_cidr or "10.244.0.0/24")
        sandboxes = Sandboxes(options, "plain", detect(options.cgroup_prefix), pool, SystemIds(), Events())
        await sandboxes.adopt()
        pods = list(sandboxes.pods.values())
        ids = {container_id for pod in pods for container_id in pod.containers}
        limit = asyncio.Semaphore(_AT_ONCE)
        await asyncio.gather(*(_stop(pod, grace, at_most) for pod in pods))
        await asyncio.gather(*(_remove(sandboxes, pod, limit) for pod in pods))
        await sandboxes.close()
        await asyncio.to_thread(_sweep, options.root, ids)
        await asyncio.to_thread(sandboxes.remove_empty_groups)
        return len(pods)
    finally:
        os.close(held)


async def _stop(pod: Pod, grace: float | None, at_most: float) -> None:
    """Have all containers of a pod end side by side; a keeper that does not do its part ends with them."""
    ending = [
        end_container(pod, each, min(_grace_of(each) if grace is None else grace, at_most))
        for each in pod.containers.values()
    ]
    try:
        async with asyncio.timeout(at_most + _MARGIN):
            await asyncio.gather(*ending)
    except (TimeoutError, NodeError):
        with contextlib.suppress(ProcessLookupError):
            if pod.pid:
                os.kill(pod.pid, signal.SIGKILL)


def _sweep(root: str, ids: set[str]) -> None:
    """End what was on its way while its pod was ended: first what runs no program yet, then what does by now."""
    kill_zygotes(root, keepers=True)
    kill_marked(ids)


async def _remove(sandboxes: Sandboxes, pod: Pod, limit: asyncio.Semaphore) -> None:
    async with limit:
        await sandboxes.remove(pod.stored.id)


def _grace_of(container: Container) -> float:
    with contextlib.suppress(ValueError):
        return float(container.stored.config.annotations.get(GRACE, _DEFAULT_GRACE))
    return _DEFAULT_GRACE
