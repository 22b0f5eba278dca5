"""An operator's webhooks at work: reviews answered over HTTPS, certificates renewed, configurations kept right."""

from __future__ import annotations

import asyncio
import random
import ssl
import tempfile
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pilothouse.client.informer import Informer
from pilothouse.client.metrics import Sample, register
from pilothouse.foundation import tls
from pilothouse.foundation.clock import Timer
from pilothouse.foundation.ids import Ids
from pilothouse.foundation.logs import get_logger
from pilothouse.foundation.retry import Backoff
from pilothouse.foundation.tls import Credentials
from pilothouse.kinds.structs import Resource, Secret

from .certificates import CertificateError, not_after
from .certificates_sources import CertificateSource, DirectoryCertificates, Material, SecretCertificates
from .errors import BuildError
from .serving import HttpServer, ServingLimits
from .webhook_answers import MAX_CONVERSION_BYTES, MAX_REVIEW_BYTES, Answerer
from .webhook_configurations import configuration, conversion_patch
from .webhook_conversion import Conversions
from .webhook_injection import Injector, Target
from .webhook_metrics import WebhookMetrics
from .webhook_options import CONVERT_PATH, Hook, WebhookOptions

if TYPE_CHECKING:
    from .manager import Manager

__all__ = ["Webhooks"]

_BACKOFF: Final = Backoff(base=1.0, cap=60.0, attempts=None)
_WATCH_SECONDS: Final = 60.0
_WRITING: Final = "configurations are being written"
_IDLE_SECONDS: Final = 95.0
"""A little more than Go's clients keep a connection for, so that it is they who end it."""

_log = get_logger("pilothouse.operator.webhooks")


class Webhooks:
    """The webhooks of a manager: builders add them, the manager starts and stops them, whether it leads or not.

    Nothing that is wrong with certificates or configurations ends the process: it is tried again, and told by
    `problem`, which readiness shows, the metrics and the log.
    """

    def __init__(self, manager: Manager, options: WebhookOptions, *, ids: Ids, source: random.Random | None) -> None:
        self.options: Final = options
        self.metrics: Final = WebhookMetrics()
        self.conversions: Final[dict[tuple[str, str], Conversions]] = {}
        self._manager = manager
        self._clock = manager.clock
        self._random = source or random.Random()  # noqa: S311  spreads waits
        self._hooks: dict[str, Hook] = {}
        self._answerer = Answerer(manager.clock, self.metrics, self.conversions, options.max_in_flight)
        self._context = _empty_context()
        self._server = HttpServer(
            options.address,
            self._answerer.answer,
            what="webhook address",
            remedy="",
            tls=self._context,
            limits=ServingLimits(
                connections=1_024, body_bytes=_body_limit, idle_seconds=_IDLE_SECONDS, head_bytes=16_384
            ),
        )
        self._source = self._source_of(options, ids)
        self._informers: list[Informer[Any]] = []
        self._injector: Injector | None = None
        self._serving: Credentials | None = None
        self._expires: datetime | None = None
        self._trusted = False
        self._problem = "no certificate yet"
        self._remark = ""
        self._task: asyncio.Task[None] | None = None
        self._watchdog: Timer | None = None
        self._woken = asyncio.Event()
        self._ready = asyncio.Event()
        register(self, manager.metrics)

    # What builders use

    @property
    def hooks(self) -> list[Hook]:
        """The webhooks for admission, in the order in which they were built."""
        return [*self._hooks.values()]

    def add(self, *hooks: Hook) -> None:
        """Take webhooks, as `build` does. Raises BuildError where a path is taken or the manager runs."""
        self._check_not_running()
        for hook in hooks:
            if hook.path in self._hooks:
                raise BuildError(
                    f"webhook {hook.path}: there is one already; name the other: webhook(manager, 'name').for_(...)"
                )
        for hook in hooks:
            self._hooks[hook.path] = hook
            self._answerer.add(hook)

    def add_conversions(self, conversions: Conversions) -> None:
        """Take the conversions of a kind. Raises BuildError where it has some or the manager runs."""
        self._check_not_running()
        hub = conversions.hub
        key = hub.group, hub.gvk[2]
        if key in self.conversions:
            raise BuildError(f"webhook: converted_by is said twice for {hub.gvk[2]}; pass all functions at once")
        self.conversions[key] = conversions
        self._answerer.add_conversion()

    def _check_not_running(self) -> None:
        if self._task is not None:
            raise BuildError("webhooks: the manager runs already; build them before")

    # Life

    @property
    def port(self) -> int:
        """The port that it listens on, known once it runs."""
        return self._server.port

    async def start(self) -> None:
        """Begin to listen, and to see to certificates and configurations, where there are webhooks.

        Raises OperatorError for a taken address.
        """
        if not self._hooks and not self.conversions:
            return
        await self._server.start()
        self._injector = self._make_injector()
        for informer in self._informers:
            informer.start()
        self._task = asyncio.get_running_loop().create_task(self._keep(), name="webhooks")
        self._watch()

    def _watch(self) -> None:
        """Look now and then for what has died, whether or not somebody asks."""
        self._revive()
        self._watchdog = self._clock.call_later(_WATCH_SECONDS, self._watch)

    async def stop(self, seconds: float) -> None:
        """End the listening at once and connections when they are answered, after `seconds` at the latest."""
        task = self._task
        if self._watchdog is not None:
            self._watchdog.cancel()
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        await self._server.stop(seconds)
        await asyncio.gather(*(informer.stop() for informer in self._informers))

    async def wait_ready(self) -> None:
        """Wait until servers can call the webhooks, as far as is known here; `problem` says what is missing."""
        await self._ready.wait()

    def wake(self) -> None:
        """Look at certificates and configurations now."""
        self._woken.set()

    # How it is

    def problem(self) -> str:
        """Say why webhooks cannot be called, or not for long; empty if all is well."""
        if not self._hooks and not self.conversions:
            return ""
        if not self._server.is_listening:
            return "the server does not listen"
        if self._task is None or self._task.done():
            return "what keeps certificates has ended"
        if self._expires is not None and self._expires <= self._clock.now():
            wrong = f"the certificate expired at {self._expires:%Y-%m-%dT%H:%M:%SZ}"
            return f"{wrong}; {self._problem}" if self._problem else wrong
        return self._problem

    def problems(self) -> list[str]:
        """Return what is not well, and begin anew what has died."""
        found = self._revive()
        return found + [f"webhooks: {one}" for one in (self.problem(), self._remark) if one]

    def _revive(self) -> list[str]:
        """Begin anew what has died; return what is not well with the informers."""
        found = [str(problem) for informer in self._informers for problem in informer.problems()]
        if self._task is not None and self._task.done() and self._server.is_listening:
            _log.error("what keeps certificates had ended; beginning anew", end=repr(self._task))
            self._task = asyncio.get_running_loop().create_task(self._keep(), name="webhooks")
        return found

    def samples(self) -> Iterable[Sample]:
        """Return the figures of all webhooks."""
        expiry = None if self._expires is None else self._expires.timestamp()
        return self.metrics.samples(expiry, ready=not self.problem())

    # Inside

    async def _keep(self) -> None:
        delays = _BACKOFF.delays(self._random)
        while True:
            self._woken.clear()
            try:
                seconds, problem = await self._step()
            except Exception as error:  # noqa: BLE001  it may go well the next time
                self.metrics.certificate_errors += 1
                own = isinstance(error, CertificateError)
                seconds, problem = _BACKOFF.cap, str(error) if own else f"{type(error).__name__}: {error}"
            self._tell(problem)
            if problem:
                seconds = min(next(delays), seconds)
            else:
                delays = _BACKOFF.delays(self._random)
            await self._wait(seconds)

    async def _step(self) -> tuple[float, str]:
        """Take up certificates and write configurations; return when to look again, and what is not well."""
        material = await self._source.refresh(trusted=self._trusted)
        await self._load(material)
        if self._injector is None:
            self._trusted = True
            return material.look_seconds, ""
        told = "; ".join(await self._injector.sync(material.bundle))
        self.metrics.corrections = self._injector.writes
        self._trusted = self._injector.is_injected(material.bundle)
        # Servers can call what has the bundle, whatever else is to be said of the configurations.
        self._note(told if self._trusted else "")
        return material.look_seconds if not told else _BACKOFF.cap, "" if self._trusted else told or _WRITING

    def _note(self, remark: str) -> None:
        if remark and remark != self._remark:
            _log.warning("webhook configurations are not as they shall be", problem=remark)
        self._remark = remark

    async def _load(self, material: Material) -> None:
        if material.serving == self._serving:
            return
        with tempfile.TemporaryDirectory(prefix="pilothouse-") as directory:
            certificate, key = (str(Path(directory, name)) for name in ("tls.crt", "tls.key"))
            try:
                # A pair that cannot be used would leave the live context half loaded, so it is tried elsewhere first.
                await asyncio.to_thread(_try_pair, material.serving, certificate, key)
            except tls.TlsError as error:
                raise CertificateError(f"{self._source}: {error}; put a matching pair there") from None
            self._context.load_cert_chain(certificate, key)
        self._serving, self._expires = material.serving, not_after(material.serving.certificate)
        self.metrics.certificate_loads += 1
        _log.info("webhook certificate taken up", expires=self._expires.isoformat())

    def _tell(self, problem: str) -> None:
        if problem and problem != self._problem:
            log = _log.info if problem == _WRITING else _log.error
            log("webhooks cannot be called", problem=problem)
        elif not problem and problem != self._problem:
            _log.info("webhooks can be called", port=self.port)
        self._problem = problem
        if problem:
            self._ready.clear()
        else:
            self._ready.set()

    async def _wait(self, seconds: float) -> None:
        timer = self._clock.call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    def _source_of(self, options: WebhookOptions, ids: Ids) -> CertificateSource:
        if options.certificate_dir:
            return DirectoryCertificates(options.certificate_dir, hosts=options.hosts[:1], clock=self._clock)
        client = self._manager.client
        namespace, name = options.secret_name(client.namespace)
        return SecretCertificates(
            client, namespace, name, hosts=options.hosts, policy=options.policy, clock=self._clock, ids=ids
        )

    def _make_injector(self) -> Injector | None:
        if isinstance(self._source, SecretCertificates):
            self._follow(Secret, self._source.name, self._source.namespace)
        if not self.options.configure:
            return None
        manager = self._manager
        return Injector(
            manager.client,
            self._targets(),
            field_manager=f"{self.options.name}-webhooks",
            clock=self._clock,
            leads=lambda: manager.elector is None or manager.elector.is_leader,
        )

    def _targets(self) -> list[Target]:
        from pilothouse.kinds.structs import (  # noqa: PLC0415  only where they are followed
            CustomResourceDefinition,
            MutatingWebhookConfiguration,
            ValidatingWebhookConfiguration,
        )

        made: list[Target] = []
        options, name = self.options, self.options.name
        for mutating, kind in ((True, MutatingWebhookConfiguration), (False, ValidatingWebhookConfiguration)):
            if any(hook.mutating is mutating for hook in self.hooks):
                wanted = _configured(options, self.hooks, mutating=mutating)
                made.append(Target(kind, name, wanted, self._follow(kind, name)))
        for conversions in self.conversions.values():
            hub = conversions.hub
            name = f"{hub.plural}.{hub.group}"
            informer = self._follow(CustomResourceDefinition, name)
            made.append(Target(CustomResourceDefinition, name, _converted(options, hub), informer, is_there_first=True))
        return made

    def _follow(self, kind: type[Resource], name: str, namespace: str = "*") -> Informer[Any]:
        """Make an informer of one object, which wakes us with each change."""
        lister_watcher = self._manager.client.list_watch(kind, namespace, fields={"metadata.name": name})
        informer: Informer[Any] = Informer(
            lister_watcher,
            name=f"{kind.plural} {name}",
            accepts=lambda obj: type(obj) is kind,
            clock=self._clock,
            source=self._random,
            metrics=self._manager.metrics,
        )
        wake = self._wake_later
        informer.add_handler(on_add=wake, on_update=wake, on_delete=wake, name="webhooks")
        self._informers.append(informer)
        return informer

    def _wake_later(self, *_: object) -> None:
        self.wake()


def _configured(options: WebhookOptions, hooks: list[Hook], *, mutating: bool) -> Callable[[bytes], dict[str, Any]]:
    return lambda ca: configuration(options, hooks, mutating=mutating, ca=ca) or {}


def _converted(options: WebhookOptions, hub: type[Resource]) -> Callable[[bytes], dict[str, Any]]:
    return lambda ca: conversion_patch(options, hub, ca)


def _empty_context() -> ssl.SSLContext:
    """Return a context without a certificate, whose handshakes fail until one is loaded."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _try_pair(pair: Credentials, certificate: str, key: str) -> None:
    tls.write(pair, certificate, key)
    tls.server_context(certificate, key)


def _body_limit(path: str) -> int:
    return MAX_CONVERSION_BYTES if path == CONVERT_PATH else MAX_REVIEW_BYTES
