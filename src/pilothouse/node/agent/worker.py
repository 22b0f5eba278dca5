"""One pod on its runtime: carries out what the pod's life asks for and tells it what came of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from pilothouse.foundation.logs import get_logger
from pilothouse.kinds.structs.core_pods import Pod
from pilothouse.node.config import RegistryAuth
from pilothouse.node.errors import ImageError, ImagePullError, InvalidConfig, NodeError, NotFound

from .configs import container_config, log_directory, sandbox_config
from .containers import field_path
from .facts import AnyContainer, hook_of, probe_of
from .life import PodLife
from .model import (
    Action,
    CreateContainer,
    Created,
    Event,
    Failed,
    Finish,
    HookDone,
    Observed,
    Probed,
    Pulled,
    PullImage,
    Record,
    RemoveContainer,
    RunHook,
    RunProbe,
    RunSandbox,
    SandboxGone,
    SandboxMade,
    StartContainer,
    StopContainer,
    StopSandbox,
    Tell,
    Tick,
    WriteStatus,
)
from .ports import ConfigError, MountError
from .records import record_of
from .termination import message_mount
from .wording import missing_secrets, present, pulled

if TYPE_CHECKING:
    from pilothouse.foundation.clock import Timer

    from .host import Host

__all__ = ["PodWorker"]

_STOP_PAUSE = 5.0
_log = get_logger("pilothouse.node.agent")


class PodWorker:
    """Runs one pod. `take` gives its life an event; all else happens in tasks that end with `close`."""

    def __init__(self, pod: Pod, host: Host) -> None:
        self.life = PodLife(pod, host.facts)
        self.sandboxes: list[str] = []
        self.deleted = False
        """Whether the API was asked to remove the pod."""
        self._host = host
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: Timer | None = None
        self._closed = False
        self._held: list[Event] | None = None
        self._seen_at = host.clock.monotonic()
        self._has_run = pod.status.phase == "Running"

    @property
    def pod(self) -> Pod:
        """The pod as it was seen last."""
        return self.life.pod

    @property
    def is_quiet(self) -> bool:
        """Whether nothing is under way."""
        return not self._tasks

    def take(self, event: Event) -> None:
        """Tell the pod's life of something, and do what it asks for."""
        if self._held is not None:
            self._held.append(event)
            return
        if self._closed:
            return
        try:
            actions = self.life.handle(event, self._host.now())
        except Exception as error:  # noqa: BLE001  one pod's fault must not end what tells all pods
            name = f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"
            _log.error("a pod's life cannot go on", pod=name, event=type(event).__name__, error=repr(error))
            return
        for action in actions:
            self._do(action)
        self._set_timer()

    def hold(self) -> None:
        """Keep events back until it is known what an earlier agent left."""
        self._held = []

    def release(self, first: Event) -> None:
        """Give the pod's life its first event, then those that were kept back."""
        held, self._held = self._held or [], None
        for event in (first, *held):
            self.take(event)

    async def close(self) -> None:
        """End all that is under way; containers run on."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def observe(self, container_id: str) -> None:
        """Look at a container in the runtime."""
        try:
            status = await self._host.runtime.container_status(container_id)
        except NotFound:
            return
        name = status.metadata.name
        self.take(Observed(name, await record_of(status, self.pod, self._host.root)))

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.life.due is not None and not self._closed:
            delay = max(self.life.due - self._host.now(), 0.001)
            self._timer = self._host.clock.call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.take(Tick())

    def _do(self, action: Action) -> None:
        match action:
            case WriteStatus(status=status):
                if status.phase == "Running" and not self._has_run:
                    self._has_run = True
                    self._host.started(self._host.clock.monotonic() - self._seen_at)
                self._host.statuses.put(self.pod, status)
            case Tell():
                path = action.container
                self._host.recorder.event(self.pod, action.type, action.reason, action.message, field_path=path)
            case _:
                self._spawn(self._carry_out_or_say(action), type(action).__name__)

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"{name} {self.pod.metadata.name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out_or_say(self, action: Action) -> None:
        """Carry out an action; whatever goes wrong, the pod's life is answered and may try again."""
        try:
            await self._carry_out(action)
        except Exception as error:  # noqa: BLE001  one pod's fault must not end the pod's life, nor others'
            _log.error("a pod's step failed", pod=self.pod.metadata.name, step=repr(action)[:200], error=repr(error))
            text = f"{type(error).__name__}: {error}"
            match action:
                case RunSandbox():
                    self.take(Failed(what="sandbox", message=text))
                case PullImage(name=name):
                    self.take(Failed(what="pull", name=name, reason="ErrImagePull", message=text))
                case CreateContainer(name=name):
                    self.take(Failed(what="create", name=name, reason="CreateContainerError", message=text))
                case StartContainer(name=name):
                    self.take(Failed(what="start", name=name, reason="RunContainerError", message=text))
                    await self._failed_start(action, text)
                case RunProbe(name=name, id=container_id, kind=kind):
                    self.take(Probed(name=name, id=container_id, kind=kind, result="error", output=text))
                case RunHook(name=name, id=container_id, hook=hook):
                    self.take(HookDone(name=name, id=container_id, hook=hook, message=text))
                case _:
                    await self._host.clock.sleep(_STOP_PAUSE)
                    await self._carry_out(action)

    async def _carry_out(self, action: Action) -> None:  # noqa: C901  one line each
        match action:
            case RunSandbox(attempt=attempt):
                await self._run_sandbox(attempt)
            case StopSandbox(id=sandbox_id):
                await self._until_done(lambda: self._host.runtime.stop_sandbox(sandbox_id))
                self.take(SandboxGone(sandbox_id))
            case PullImage(name=name):
                await self._pull(name)
            case CreateContainer():
                await self._create(action)
            case StartContainer():
                await self._start(action)
            case StopContainer(id=container_id, grace=grace):
                await self._until_done(lambda: self._host.runtime.stop_container(container_id, grace))
                await self.observe(container_id)
            case RemoveContainer(id=container_id):
                await self._until_done(lambda: self._host.runtime.remove_container(container_id))
            case RunProbe():
                await self._probe(action)
            case RunHook():
                await self._hook(action)
            case Finish(delete=delete):
                await self._finish(delete=delete)

    async def _until_done(self, call: Any) -> None:
        while True:
            try:
                await call()
            except NotFound:
                return
            except (NodeError, OSError) as error:
                _log.warning("a pod does not end; trying again", pod=self.pod.metadata.name, error=str(error))
            else:
                return
            await self._host.clock.sleep(_STOP_PAUSE)

    async def _run_sandbox(self, attempt: int) -> None:
        host, pod = self._host, self.pod
        try:
            await host.ports.mounts.prepare(pod)
        except MountError as error:
            self.take(Failed(what="mounts", reason=error.reason, message=str(error)))
            return
        except OSError as error:
            self.take(Failed(what="mounts", reason="FailedMount", message=str(error)))
            return
        config = sandbox_config(pod, attempt, logs=host.options.log_root, dns=host.ports.names.resolver(pod))
        try:
            sandbox_id = await host.runtime.run_sandbox(config)
            old, self.sandboxes = self.sandboxes, [sandbox_id]
            host.owners[sandbox_id] = self
            status = await host.runtime.sandbox_status(sandbox_id)
            for each in old:
                host.owners.pop(each, None)
                await host.runtime.remove_sandbox(each)
        except (NodeError, OSError) as error:
            self.take(Failed(what="sandbox", reason="FailedCreatePodSandBox", message=str(error)))
            return
        self.take(SandboxMade(sandbox_id, status.ip))

    async def _pull(self, name: str) -> None:
        container = self._spec(name)
        if container is None:
            return
        images, image = self._host.runtime.images, container.image
        policy = container.image_pull_policy or "IfNotPresent"
        try:
            found = await images.status(image)
            if found is not None and policy != "Always":
                self.take(Pulled(name=name, image_id=found.id, text=present(image)))
                return
            if policy == "Never":
                text = f'Container image "{image}" is not present with pull policy of Never'
                self.take(Failed(what="pull", name=name, reason="ErrImageNeverPull", message=text))
                return
            self._host.recorder.event(
                self.pod, "Normal", "Pulling", f'Pulling image "{image}"', field_path=field_path(self.life.slots[name])
            )
            began = time.monotonic()
            auths = await self._credentials(image)
            async with self._host.pulls:
                started = time.monotonic()
                image_id = await self._pulled(image, auths)
            done = time.monotonic()
            found = await images.status(image)
        except ImageError as error:
            self.take(Failed(what="pull", name=name, reason=error.reason, message=str(error)))
            return
        except (NodeError, OSError) as error:
            self.take(Failed(what="pull", name=name, reason="ErrImagePull", message=str(error)))
            return
        size = found.size if found is not None else 0
        self.take(Pulled(name=name, image_id=image_id, text=pulled(image, done - started, done - began, size)))

    async def _credentials(self, image: str) -> tuple[RegistryAuth, ...]:
        found = await self._host.ports.credentials.of(self.pod, image)
        if found.missing:
            self._host.recorder.warning(self.pod, *missing_secrets(found.missing))
        return found.auths

    async def _pulled(self, image: str, auths: tuple[RegistryAuth, ...]) -> str:
        """Pull with each of the credentials until one does, and return the image's id. Raises what the last one met."""
        for auth in auths[:-1]:
            try:
                return await self._host.runtime.images.pull(image, auth)
            except ImagePullError as error:
                _log.info("a pull is tried with other credentials", pod=self.pod.metadata.name, reason=str(error))
        return await self._host.runtime.images.pull(image, auths[-1] if auths else None)

    async def _create(self, action: CreateContainer) -> None:
        container = self._spec(action.name)
        if container is None:
            return
        host, pod = self._host, self.pod
        try:
            mounts = await host.ports.mounts.prepare(pod)
            host_ip = host.facts.host_ips[0] if host.facts.host_ips else ""
            envs = await host.ports.environment.variables(
                pod, container, pod_ip=self.life.ip or host_ip, host_ip=host_ip
            )
            image = await host.runtime.images.status(container.image)
            config = container_config(
                pod,
                container,
                action.attempt,
                mounts=(*mounts.get(action.name, ()), *message_mount(host.root, pod, container, action.attempt)),
                envs=envs,
                memory_capacity=host.memory_capacity,
                image_user=image.user if image is not None else "",
                target_id=self._target_of(container),
            )
            os.makedirs(f"{log_directory(host.options.log_root, pod)}/{container.name}", mode=0o755, exist_ok=True)
            made = await host.runtime.create_container(action.sandbox_id, config)
        except (ConfigError, InvalidConfig, MountError) as error:
            reason = "CreateContainerConfigError"
            self.take(Failed(what="create", name=action.name, reason=reason, message=str(error)))
            return
        except (NodeError, OSError) as error:
            self.take(Failed(what="create", name=action.name, reason="CreateContainerError", message=str(error)))
            return
        self.take(Created(action.name, made))

    def _target_of(self, container: AnyContainer) -> str:
        name = getattr(container, "target_container_name", "")
        slot = self.life.slots.get(name) if name else None
        return slot.current.id if slot is not None and slot.current is not None else ""

    async def _start(self, action: StartContainer) -> None:
        try:
            await self._host.runtime.start_container(action.id)
        except (NodeError, OSError) as error:
            self.take(Failed(what="start", name=action.name, reason="RunContainerError", message=str(error)))
            await self._failed_start(action, str(error))
            return
        await self.observe(action.id)

    async def _failed_start(self, action: StartContainer, message: str) -> None:
        slot = self.life.slots[action.name]
        attempt, image_id, now = slot.next_attempt, slot.image_id, self._host.now()
        try:
            status = await self._host.runtime.container_status(action.id)
            attempt = status.metadata.attempt
            if status.state == "Exited":
                self.take(Observed(action.name, await record_of(status, self.pod, self._host.root)))
                return
        except NotFound:
            pass
        record = Record(
            id=action.id,
            attempt=attempt,
            state="Exited",
            finished_at=now,
            exit_code=128,
            reason="StartError",
            message=message,
            image=slot.spec.image,
            image_id=image_id,
        )
        self.take(Observed(action.name, record))

    async def _probe(self, action: RunProbe) -> None:
        container = self._spec(action.name)
        probe = probe_of(container, action.kind) if container is not None else None
        if container is None or probe is None:
            return
        result, output = await self._host.prober.probe(probe, container, action.id, self._address())
        self._host.count_probe(action.kind, result)
        self.take(Probed(name=action.name, id=action.id, kind=action.kind, result=result, output=output))

    async def _hook(self, action: RunHook) -> None:
        container = self._spec(action.name)
        hook = hook_of(container, action.hook) if container is not None else None
        message = ""
        if container is not None and hook is not None:
            try:
                async with asyncio.timeout(action.seconds or None):
                    message = await self._host.prober.hook(hook, container, action.id, self._address())
            except TimeoutError:
                message = f"the hook did not end within {action.seconds:g} s"
        self.take(HookDone(name=action.name, id=action.id, hook=action.hook, message=message))

    async def _finish(self, *, delete: bool) -> None:
        uid = self.pod.metadata.uid
        try:
            await self._host.ports.mounts.release(uid)
        except OSError as error:
            _log.warning("volumes of a pod stay", pod=self.pod.metadata.name, error=str(error))
        if delete:
            await self._host.statuses.flushed(uid)
            self.deleted = await self._host.delete(self.pod)
        self._host.on_finish(self)

    def _address(self) -> str:
        node = self._host.facts.host_ips
        if self.pod.spec.host_network and node:
            return node[0]
        return self.life.ip or "127.0.0.1"

    def _spec(self, name: str) -> AnyContainer | None:
        slot = self.life.slots.get(name)
        return slot.spec if slot is not None else None
