"""Does what a sync says: applies, replaces and deletes objects, as Argo CD's field manager, so many at once."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pilothouse.client.errors import BadAnswer, UnknownKind
from pilothouse.delivery.resources.applications import IgnoreDifferences
from pilothouse.delivery.rollouts.claims import Claim
from pilothouse.kinds.conditions import is_true
from pilothouse.kinds.status import AlreadyExists, ApiStatus, Conflict, Invalid, NotFound

from .comparing import MANAGER, Ignored, ignored_for
from .hooks import annotations_of, options_of
from .keeping import is_shared, noted, written
from .live import LiveObjects
from .selections import remove_expression
from .syncing import KIND_ORDER, Result, Task
from .targets import Key

__all__ = ["OPERATION", "Executor", "Options"]

OPERATION: Final = "pilothouse.dev/operation"
"""The annotation of a hook with the sync that made it, so that one that was begun is not made twice."""
_AT_ONCE: Final = 8
_DEFINITION: Final = "CustomResourceDefinition"
_GONE_SECONDS: Final = 20.0
_STEP_SECONDS: Final = 0.05
_TRIES: Final = 5
_POLICIES: Final = {"background": "Background", "foreground": "Foreground", "orphan": "Orphan"}


@dataclass(frozen=True, slots=True)
class Options:
    """What an application's syncOptions say, and what is at work. operation: when the sync began, as its name.

    planned: what the rollouts that come with the sync will write into other objects. forbidden: by the project, any of
    which ends the sync before it begins.
    """

    options: frozenset[str] = frozenset()
    operation: str = ""
    ignored: Sequence[IgnoreDifferences] = ()
    denied: Mapping[Key, str] | None = None
    force: bool = False
    planned: Mapping[Key, tuple[Claim, ...]] = field(default_factory=dict)
    forbidden: frozenset[Key] = frozenset()

    def has(self, option: str, own: frozenset[str] = frozenset()) -> bool:
        """Whether an option such as `Replace=true` holds: what an object says goes before what the application does."""
        name = option.partition("=")[0]
        said = [each for each in own if each.partition("=")[0] == name]
        return option in said if said else option in self.options

    @property
    def propagation(self) -> str:
        """How what an object owns is deleted with it."""
        said = next((each.partition("=")[2] for each in self.options if each.startswith("PrunePropagationPolicy=")), "")
        return _POLICIES.get(said.lower(), "Foreground")


class Executor:
    """Runs tasks."""

    def __init__(self, live: LiveObjects) -> None:
        self._live = live
        self.requests = 0
        """Writes that were asked of the server, those that only try included."""

    async def try_out(
        self, tasks: Iterable[Task], options: Options, later: frozenset[str]
    ) -> dict[tuple[Key, str], Result]:
        """Ask the server whether it would take what is to be applied; return what it refuses.

        later: namespaces and kinds that the same sync makes; what needs them cannot be tried.
        """
        gate = asyncio.Semaphore(_AT_ONCE)
        refused: dict[tuple[Key, str], Result] = {}

        async def one(task: Task) -> None:
            async with gate:
                problem = await self._trial(task, options, later)
            if problem:
                hook = task.phase if task.is_hook else ""
                refused[task.key, task.phase] = Result("SyncFailed", "Failed", problem, hook)

        await asyncio.gather(*(one(task) for task in tasks if task.target is not None and not task.in_sync))
        return refused

    async def _trial(self, task: Task, options: Options, later: frozenset[str]) -> str:
        target = task.target
        if target is None or options.has("Replace=true", target.options) or options.has("Force=true", target.options):
            return ""
        if task.is_hook or task.key.namespace in later:
            return ""
        self.requests += 1
        try:
            handle = self._live.handle(target.api_version, task.key.kind)
            wanted = self._wanted(task, task.live, options)
            await handle.apply(wanted, force=True, field_manager=MANAGER, dry_run=True)
        except UnknownKind as error:
            return "" if task.key.kind in later else str(error)
        except NotFound as error:
            return "" if later else str(error)
        except (ApiStatus, BadAnswer, ValueError) as error:
            return str(error)
        return ""

    async def run(self, tasks: Sequence[Task], options: Options) -> dict[tuple[Key, str], Result]:
        """Run the tasks of a wave: kind by kind in their order, those of a kind side by side; return their results.

        After a failure the kinds that come later are left.
        """
        gate = asyncio.Semaphore(_AT_ONCE)
        done: dict[tuple[Key, str], Result] = {}

        async def one(task: Task) -> None:
            async with gate:
                done[task.key, task.phase] = await self._run(task, options)

        for _, group in itertools.groupby(tasks, lambda task: (task.target is None, KIND_ORDER.get(task.key.kind, 0))):
            listed = [*group]
            await asyncio.gather(*(one(task) for task in listed))
            if any(result.state == "Failed" for result in done.values()):
                break
            await self._established([task for task in listed if task.key.kind == _DEFINITION and not task.in_sync])
        return done

    async def _established(self, tasks: Sequence[Task]) -> None:
        """Wait until the kinds of definitions are served, for what comes next may be of them."""
        if not any(task.target is not None for task in tasks):
            return
        with contextlib.suppress(TimeoutError, ApiStatus):
            async with asyncio.timeout(_GONE_SECONDS):
                for task in tasks:
                    await self._served(task)
        self._live.forget_kinds()

    async def _served(self, task: Task) -> None:
        handle = self._live.handle("apiextensions.k8s.io/v1", _DEFINITION)
        while task.target is not None:
            found = await handle.get(task.key.name)
            if is_true(found.get("status", {}).get("conditions"), "Established"):
                return
            await asyncio.sleep(_STEP_SECONDS)

    async def _run(self, task: Task, options: Options) -> Result:
        hook = task.phase if task.is_hook else ""
        denied = (options.denied or {}).get(task.key)
        if denied:
            return Result("SyncFailed", "Failed", denied, hook)
        try:
            if task.target is None:
                return await self._prune(task, options)
            if task.in_sync and not options.force and not options.has("Replace=true", task.target.options):
                return Result("Synced", "Running", "unchanged")
            if task.is_hook:
                return await self._hook(task, options)
            message = await self._write(task, options)
        except (ApiStatus, UnknownKind, BadAnswer, ValueError) as error:
            return Result("SyncFailed", "Failed", str(error)[:1000], hook)
        return Result("Synced", "Running", message, hook)

    async def _write(self, task: Task, options: Options) -> str:
        target = task.target
        assert target is not None  # noqa: S101  # asked before
        handle = self._live.handle(target.api_version, task.key.kind)
        self.requests += 1
        forced = options.force or options.has("Force=true", target.options)
        if options.has("Replace=true", target.options):
            made, message = await self._replace(task, options, forced=forced)
        else:
            try:
                made, message = await self._apply(task, options), "serverside-applied"
            except Invalid:
                if not forced or task.live is None:
                    raise
                await self._delete_and_wait(task.key, task.live)
                wanted = self._wanted(task, task.live, options)
                made, message = await handle.apply(wanted, force=True, field_manager=MANAGER), "deleted and made anew"
        self._live.wrote(task.key, made)
        kind = task.key.kind.lower() + (f".{task.key.group}" if task.key.group else "")
        return f"{kind}/{task.key.name} {message}"

    def _wanted(self, task: Task, live: Mapping[str, Any] | None, options: Options) -> dict[str, Any]:
        """Return what is written over a live object: as git says, but for what others have a say in."""
        assert task.target is not None  # noqa: S101  # asked before
        obj, key = task.target.object, task.key
        if is_shared(key):
            obj = written(obj, live, self._live.claims(key), options.planned.get(key, ()))
        if live is not None and options.has("RespectIgnoreDifferences=true"):
            obj = _respecting(obj, live, ignored_for(key, options.ignored))
        return obj

    async def _apply(self, task: Task, options: Options) -> dict[str, Any]:
        """Apply an object; where a part of it is a rollout's, only over the very version that this was read from."""
        assert task.target is not None  # noqa: S101  # asked before
        handle = self._live.handle(task.target.api_version, task.key.kind)
        live = task.live
        for left in reversed(range(_TRIES)):
            wanted = self._wanted(task, live, options)
            guarded = live is not None and bool(self._live.claims(task.key))
            if live is not None and guarded:
                metadata = {**wanted["metadata"], "resourceVersion": live["metadata"]["resourceVersion"]}
                wanted = {**wanted, "metadata": metadata}
            try:
                return await handle.apply(wanted, force=True, field_manager=MANAGER)
            except Conflict:
                if not guarded or not left:
                    raise
            try:
                live = await handle.get(task.key.name, task.key.namespace or None)
            except NotFound:
                live = None
        raise AssertionError("the last try returns or raises")

    async def _replace(self, task: Task, options: Options, *, forced: bool) -> tuple[dict[str, Any], str]:
        assert task.target is not None  # noqa: S101  # asked before
        handle = self._live.handle(task.target.api_version, task.key.kind)
        obj = self._wanted(task, task.live, options)
        try:
            return await handle.create(obj, field_manager=MANAGER), "created"
        except AlreadyExists:
            if forced and task.live is not None:
                await self._delete_and_wait(task.key, task.live)
                return await handle.create(obj, field_manager=MANAGER), "deleted and made anew"
            present = await handle.get(task.key.name, task.key.namespace or None)
            obj = noted(self._wanted(task, present, options), present)
            metadata = {**obj["metadata"], "resourceVersion": present["metadata"]["resourceVersion"]}
            return await handle.update({**obj, "metadata": metadata}, field_manager=MANAGER), "replaced"

    async def _hook(self, task: Task, options: Options) -> Result:
        target = task.target
        assert target is not None  # noqa: S101  # asked before
        handle = self._live.handle(target.api_version, task.key.kind)
        obj = target.object
        annotations = {**(obj["metadata"].get("annotations") or {}), OPERATION: options.operation}
        metadata = {**obj["metadata"], "name": task.key.name, "annotations": annotations}
        metadata.pop("generateName", None)
        try:
            live = await handle.get(task.key.name, task.key.namespace or None)
        except NotFound:
            live = None
        self.requests += 1
        if live is not None and annotations_of(live).get(OPERATION) != options.operation:
            if "BeforeHookCreation" not in target.policies:
                return Result(
                    "SyncFailed", "Failed", f"{task.key} is there from before; say BeforeHookCreation", task.phase
                )
            await self._delete_and_wait(task.key, live)
            live = None
        if live is None:
            live = await handle.apply({**obj, "metadata": metadata}, force=True, field_manager=MANAGER)
        self._live.wrote(task.key, live)
        return Result("Synced", "Running", f"{task.key} created", task.phase)

    async def _prune(self, task: Task, options: Options) -> Result:
        live = task.live
        if live is None:
            return Result("Pruned", "Succeeded", "gone")
        if "Prune=false" in options_of(live):
            return Result("PruneSkipped", "Succeeded", "ignored (no prune)")
        if live["metadata"].get("deletionTimestamp"):
            return Result("Pruned", "Succeeded", "is being deleted")
        await self.delete(task.key, live, options.propagation)
        return Result("Pruned", "Succeeded", "pruned")

    async def delete(self, key: Key, live: Mapping[str, Any], propagation: str = "Background") -> None:
        """Delete this very object; one that is gone, or another one by now, is fine."""
        handle = self._live.handle(live["apiVersion"], key.kind)
        self.requests += 1
        with contextlib.suppress(NotFound, Conflict):
            await handle.delete(
                key.name,
                key.namespace or None,
                propagation=propagation,  # type: ignore[arg-type]  # one of the three
                uid=live["metadata"].get("uid") or "",
            )
        self._live.deleted(key, live)

    async def _delete_and_wait(self, key: Key, live: Mapping[str, Any]) -> None:
        await self.delete(key, live)
        handle = self._live.handle(live["apiVersion"], key.kind)
        try:
            async with asyncio.timeout(_GONE_SECONDS):
                while True:
                    found = await handle.get(key.name, key.namespace or None)
                    if found["metadata"].get("uid") != live["metadata"].get("uid"):
                        return
                    await asyncio.sleep(_STEP_SECONDS)
        except NotFound:
            return
        except TimeoutError:
            raise ValueError(f"{key}: it was deleted, and is not gone after {_GONE_SECONDS:g} s: finalizers?") from None


def _respecting(wanted: dict[str, Any], live: Mapping[str, Any], ignored: Ignored) -> dict[str, Any]:
    """Return what is wanted with fields that do not count as the live object has them."""
    for pointer in ignored.pointers:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.removeprefix("/").split("/")]
        _copy(wanted, live, parts)
    for expression in ignored.expressions:
        remove_expression(wanted, expression)
    return wanted


def _copy(wanted: Any, live: Any, parts: Sequence[str]) -> None:
    first, rest = parts[0], parts[1:]
    if (
        isinstance(wanted, list)
        and isinstance(live, list)
        and first.isdigit()
        and int(first) < min(len(wanted), len(live))
    ):
        if rest:
            _copy(wanted[int(first)], live[int(first)], rest)
        else:
            wanted[int(first)] = copy.deepcopy(live[int(first)])
    elif isinstance(wanted, dict) and isinstance(live, Mapping):
        if rest and first in wanted and first in live:
            _copy(wanted[first], live[first], rest)
        elif not rest and first in live:
            wanted[first] = copy.deepcopy(live[first])
        elif not rest:
            wanted.pop(first, None)
