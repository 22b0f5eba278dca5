"""The demo's application: the manifests of `examples/guestbook`, and what is to be known of its pods."""

from __future__ import annotations

import asyncio
import copy
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final

from pilothouse.client import Client
from pilothouse.foundation.terminal import CommandError

__all__ = ["Guestbook", "Object", "manifests", "of_version", "processes_of", "restarts", "with_greeting"]

Object = dict[str, Any]

_NAMESPACE: Final = "default"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PYTHON: Final = "python3"
_PLACES: Final = (
    Path(__file__).parent / "guestbook",  # installed
    Path(__file__).parents[3] / "examples" / "guestbook",  # a checkout
)
_PATIENCE: Final = 60.0
_MAX_WARNINGS: Final = 5
_LEFT_OUT: Final = frozenset({"Ingress"})
"""The demo asks the Service itself: it takes no port of this machine that somebody may want."""


def manifests() -> list[Object]:
    """Return the example's objects in their order. Where pods would not find `python3` they get this program's.

    Raises CommandError.
    """
    import yaml

    place = next((each for each in _PLACES if each.is_dir()), None)
    if place is None:
        raise CommandError("the example is not in this installation", hint=f"wanted {_PLACES[0]}")
    texts = [file.read_text("utf-8") for file in sorted(place.glob("*.yaml"))]
    found = [each for text in texts for each in yaml.safe_load_all(text) if each["kind"] not in _LEFT_OUT]
    if shutil.which(_PYTHON, path=_PATH) is None:
        for container in (each for one in found for each in _containers(one)):
            container["command"][0] = os.path.realpath(sys.executable)
    return found


def of_version(objects: Sequence[Object], version: str) -> Object:
    """Return the Deployment of the first tier as it is to be in a version."""
    made = copy.deepcopy(next(each for each in objects if each["kind"] == "Deployment"))
    for variable in _containers(made)[0]["env"]:
        if variable["name"] == "VERSION":
            variable["value"] = version
    return made


def with_greeting(objects: Sequence[Object], greeting: str) -> Object:
    """Return the config map of the pages' texts with another greeting."""
    made = copy.deepcopy(next(each for each in objects if each["metadata"]["name"] == "guestbook-texts"))
    made["data"]["greeting"] = greeting
    return made


def _containers(found: Object) -> list[Object]:
    template = found.get("spec", {}).get("template", {}) if isinstance(found.get("spec"), dict) else {}
    containers: list[Object] = template.get("spec", {}).get("containers", [])
    return containers


def processes_of(pod: str, program: str) -> list[int]:
    """Return the processes of this machine that run a program of the example in a pod."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
            with open(f"/proc/{name}/environ", "rb") as file:
                environment = file.read().split(b"\0")
        except OSError:
            continue  # it is somebody else's, or has ended
        runs = any(each.endswith(f"/{program}".encode()) for each in arguments)
        if runs and f"POD_NAME={pod}".encode() in environment:
            found.append(int(name))
    return found


def restarts(pod: Object) -> int:
    """Return how often a pod's container was started again."""
    return sum(each["restartCount"] for each in pod["status"].get("containerStatuses", ()))


def _is_ready(pod: Object) -> bool:
    return any(
        each["type"] == "Ready" and each["status"] == "True" for each in pod.get("status", {}).get("conditions", ())
    )


def _version(pod: Object) -> str:
    variables = {each["name"]: each.get("value", "") for each in pod["spec"]["containers"][0]["env"]}
    return str(variables["VERSION"])


class Guestbook:
    """The guestbook on a cluster. What is waited for is said by a CommandError if it does not come within a minute."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._pods = client.dynamic("v1", "Pod")

    async def apply(self, objects: Sequence[Object]) -> None:
        """Apply objects as a server does it for `kubectl apply --server-side`."""
        for each in objects:
            of = self._client.dynamic(each["apiVersion"], each["kind"])
            await of.apply(each, _NAMESPACE, field_manager="pilothouse-demo", force=True)

    async def url(self) -> str:
        """Return where its Service is."""
        found = await self._client.dynamic("v1", "Service").get("front", _NAMESPACE)
        return f"http://{found['spec']['clusterIP']}:{found['spec']['ports'][0]['port']}"

    async def pods(self, tier: str) -> list[Object]:
        """Return the pods of a tier that are ready and not on their way out."""
        found = await self._pods.list_all(_NAMESPACE, labels=f"app.kubernetes.io/name={tier}")
        return [each for each in found if _is_ready(each) and "deletionTimestamp" not in each["metadata"]]

    async def until_running(self) -> None:
        """Wait until a first pod runs."""
        await self._until(
            "", lambda pods: any(each["status"]["phase"] == "Running" for each in pods), "a pod that runs"
        )

    async def until_ready(self) -> None:
        """Wait until both tiers have all their pods."""
        await self._until("store", lambda pods: any(map(_is_ready, pods)), "the store's pod to be ready")
        await self._until("front", lambda pods: sum(map(_is_ready, pods)) >= 2, "two pods of the front to be ready")

    async def until_rolled_out(self, version: str) -> int:
        """Wait until all pods of the front are of a version and ready, and others are gone; return how many."""

        def done(pods: Sequence[Object]) -> bool:
            return len(pods) >= 2 and all(_is_ready(each) and _version(each) == version for each in pods)

        return len(await self._until("front", done, f"all pods of the front to be of version {version}"))

    async def until_restarted(self, pod: Object) -> Object:
        """Wait until a pod's container was started again and is ready; return the pod."""
        name, before = pod["metadata"]["name"], restarts(pod)

        def again(pods: Sequence[Object]) -> bool:
            return any(
                each["metadata"]["name"] == name and restarts(each) > before and _is_ready(each) for each in pods
            )

        tier = pod["metadata"]["labels"]["app.kubernetes.io/name"]
        found = await self._until(tier, again, f"pod {name} to be started again")
        return next(each for each in found if each["metadata"]["name"] == name)

    async def _until(self, tier: str, true: Callable[[Sequence[Object]], bool], what: str) -> list[Object]:
        """Wait until something is so of a tier's pods, of all for none."""
        labels = f"app.kubernetes.io/name={tier}" if tier else ""
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self._watch(labels, true)
        except TimeoutError:
            hint = "\n".join(await self._warnings()) or "no warning was recorded"
            raise CommandError(f"waited {_PATIENCE:g} s for {what}, in vain", hint=hint) from None

    async def _watch(self, labels: str, true: Callable[[Sequence[Object]], bool]) -> list[Object]:
        async with aclosing(self._pods.pages(_NAMESPACE, labels=labels, limit=0)) as pages:
            page = await anext(pages)
        pods = {each["metadata"]["name"]: each for each in page.items}
        if true([*pods.values()]):
            return [*pods.values()]
        since = page.metadata.resource_version
        async with aclosing(self._pods.watch(_NAMESPACE, labels=labels, since=since, resume=True)) as events:
            async for event in events:
                pods[event.object["metadata"]["name"]] = event.object
                if event.type == "DELETED":
                    del pods[event.object["metadata"]["name"]]
                if true([*pods.values()]):
                    break
        return [*pods.values()]

    async def _warnings(self) -> list[str]:
        events = await self._client.dynamic("v1", "Event").list_all(_NAMESPACE)
        warnings = [each for each in events if each.get("type") == "Warning"]
        # Those of pods say most, and of them the newest.
        warnings.sort(key=lambda each: (each["involvedObject"]["kind"] == "Pod", each.get("lastTimestamp") or ""))
        return [f"{each['involvedObject']['name']}: {each['message']}" for each in warnings[: -_MAX_WARNINGS - 1 : -1]]
