"""One request on its way: where it goes, the tries of backends, the bodies both ways, and what is counted of it.

It knows neither side's version of HTTP: `Downstream` is the client's side, an upstream a backend's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from pilothouse.traffic.plane.balancing import EndpointState
from pilothouse.traffic.plane.bodies import Http1Source, Pump, Sink, Source
from pilothouse.traffic.plane.decisions import Decision, altered_response, prepared
from pilothouse.traffic.plane.http import Body, Refused, Request, Response
from pilothouse.traffic.plane.server1 import Server1, request_head
from pilothouse.traffic.plane.wires import Buffer, Gone, Wire

if TYPE_CHECKING:
    from pilothouse.traffic.plane.connections import Peer
    from pilothouse.traffic.plane.pools import Pool
    from pilothouse.traffic.plane.worker import Worker

__all__ = ["Downstream", "Exchange"]

_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
_STALE_TRIES: Final = 3
_PROGRESS_BYTES: Final = 1024
"""Of a body with a length, that have to move between two looks at it."""


class Downstream(Protocol):
    """The side of the client, of one request."""

    peer: Peer
    wire: Wire

    def body(self) -> Source:
        """Return where the request's body comes from."""

    def send_head(self, response: Response, pieces: Sequence[Buffer], is_whole: bool) -> None:
        """Write a response's head, with the first or all of its body. Raises Gone."""

    def send_interim(self, response: Response) -> None:
        """Write an interim response. Raises Gone."""

    def sink(self, response: Response) -> Sink:
        """Return where the rest of the body goes."""

    def is_encoded_for(self, response: Response) -> bool:
        """Return whether this side frames the body on its own, so that it wants the bytes without framing."""

    def watch(self, when: float) -> None:
        """Look at the request's deadlines then."""

    def finish(self, is_clean: bool) -> None:
        """Go on after the request; not clean: it ended in the middle of its response."""

    def upgraded(self, upstream: Wire, rest: bytes) -> None:
        """From now on bytes are passed both ways. rest: what the backend has sent already."""


class Exchange:
    """Carries one request. deadline: on the reactor's clock; whoever owns the client's side looks at it."""

    __slots__ = (
        "_attempt",
        "_began",
        "_client",
        "_decision",
        "_download",
        "_head",
        "_is_answered",
        "_is_over",
        "_looked_at",
        "_pool",
        "_replay",
        "_response",
        "_seen",
        "_stale",
        "_state",
        "_tried",
        "_try_deadline",
        "_upload",
        "_upstream",
        "_worker",
        "bytes_in",
        "bytes_out",
        "deadline",
        "region",
        "request",
        "status",
    )

    def __init__(self, worker: Worker, client: Downstream, request: Request) -> None:
        self._worker = worker
        self._client = client
        self.request = request
        self.status = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.region = ""
        self.deadline = math.inf
        self._began = worker.clock()
        self._decision: Decision | None = None
        self._pool: Pool | None = None
        self._state: EndpointState | None = None
        self._upstream: Server1 | None = None
        self._upload: Pump | None = None
        self._download: Pump | None = None
        self._response: Response | None = None
        self._replay: Sequence[Buffer] | None = None
        self._head = b""
        self._is_answered = False
        self._is_over = False
        self._tried: list[EndpointState] = []
        self._attempt = 0
        self._stale = 0
        self._try_deadline = math.inf
        self._looked_at = math.inf
        self._seen = 0

    # Where it goes

    def begin(self) -> None:
        """Decide, and send the request on its way."""
        try:
            answer = self._decide()
            pool = self._admit() if answer is None else None
        except Refused as error:
            self.refuse(error)
            return
        if answer is not None or pool is None:
            self.answer(answer or Response(500, b"", []), b"")
            return
        worker, request, decision = self._worker, self.request, self._decision
        assert decision is not None  # noqa: S101
        rule = decision.rule
        self._pool = pool
        pool.active += 1
        if rule.timeouts.request:
            self.deadline = self._began + rule.timeouts.request
        fields = self._client.peer.forwarding.fields(decision.fields, request.authority)
        self._head = request_head(request, decision.target, decision.authority, worker.traced(fields))
        if request.body is Body.NONE:
            self._replay = ()
        else:
            self._take_body()
            if self._is_over:
                return
        if decision.mirrors and self._replay is not None and (request.body is Body.NONE or self._client.body().done):
            worker.mirror(decision, request, self._client.peer, self._replay)
        if rule.retry is not None:
            pool.budget.earn(rule.retry.budget)
        self._try()

    def _decide(self) -> Response | None:
        """Find the rule and apply its filters; return the answer where they have one. Raises Refused."""
        worker, request, peer = self._worker, self.request, self._client.peer
        decision = self._decision = worker.plan.decide(peer, request, worker.shares)
        self.region = decision.region
        if decision.rule.rate is not None:
            worker.limit(decision, peer, request)
        most = worker.plan.limits.body_bytes
        if most and request.length > most:
            raise Refused(413, "body", "the request's body is too large")
        if not decision.filters and not decision.cookie:
            return None
        return prepared(decision, peer, request)

    def _admit(self) -> Pool:
        """Return the backend's pool. Raises Refused."""
        decision = self._decision
        pool = self._worker.pools.get(decision.backend) if decision is not None else None
        if pool is None:
            raise Refused(500, "no backend", "the route leads nowhere")
        if not pool.balancer.states:
            raise Refused(503, "no endpoints", "the backend has no endpoints")
        if pool.is_full:
            raise Refused(503, "circuit", "the backend has as many requests as it may have")
        return pool

    def _take_body(self) -> None:
        """Take a body that came with its head, so that it may be sent again."""
        source = self._client.body()
        if not isinstance(source, Http1Source) or not source.has_more:
            return
        try:
            pieces = [bytes(piece) for piece in source.read() or ()]
        except Refused as error:
            self.refuse(error)
            return
        self.bytes_in += sum(map(len, pieces))
        most = self._worker.plan.limits.body_bytes
        if most and self.bytes_in > most:
            self.refuse(Refused(413, "body", "the request's body is too large"))
        self._replay = pieces

    def _try(self) -> None:
        pool, worker = self._pool, self._worker
        assert pool is not None  # noqa: S101
        state = pool.balancer.pick(worker.reactor.now, self._tried)
        if state is None:
            self.refuse(Refused(503, "no endpoints", "the backend has no healthy endpoints"))
            return
        self._state = state
        kept = pool.idle(state) if self._stale < _STALE_TRIES else None
        decision = self._decision
        if decision is not None and decision.rule.timeouts.backend:
            self._try_deadline = worker.reactor.now + decision.rule.timeouts.backend
        if self._try_deadline < self.deadline or self.deadline != math.inf or self.request.body is not Body.NONE:
            self._client.watch(self.next_deadline())
        if kept is not None:
            self.on_connected(kept)
            return
        try:
            upstream = pool.open(state, self)
        except OverflowError:
            self.refuse(Refused(503, "circuit", "too many requests wait for the backend"))
        except OSError:
            self.refuse(Refused(503, "descriptors", "no more connections can be opened"))
        else:
            self._upstream = upstream
            if upstream is not None:
                upstream.open(self)

    def on_room(self) -> None:
        """There is room for a connection to the backend."""
        if not self._is_over and self._upstream is None:
            self._try()

    def on_connected(self, upstream: Server1) -> None:
        """Send the request over a connection."""
        self._upstream = upstream
        state = upstream.endpoint
        state.active += 1
        state.total += 1
        self._attempt += 1
        request = self.request
        try:
            upstream.begin(self, self._head, request.method, self._replay or ())
        except Gone as error:
            upstream.abort()
            self.on_lost(upstream, str(error), True)
            return
        if request.body is Body.NONE:
            return
        source = self._client.body()
        if not source.done and self._upload is None:
            pump = self._upload = Pump(
                self._worker.reactor, self._worker.pipes, source, upstream.sink(request), self._uploaded
            )
            most = self._worker.plan.limits.body_bytes
            pump.most = max(1, most - self.bytes_in) if most else 0
            self._look_later()
            pump.run()

    def on_unreachable(self, upstream: Server1, reason: str) -> None:
        """Try another endpoint: nothing was sent."""
        del upstream
        self._upstream = None
        self._failed(None)
        if not self._again():
            timed_out = reason == "timed out"
            self.refuse(Refused(504 if timed_out else 503, "connect", f"the backend cannot be reached: {reason}"))

    def on_lost(self, upstream: Server1, reason: str, is_untouched: bool) -> None:
        """Act on that a connection ended before its answer."""
        self._upstream = None
        upstream.endpoint.active -= 1
        is_safe = self.request.method in _IDEMPOTENT
        if is_untouched and upstream.served > 1 and is_safe and self._may_repeat() and self._stale < _STALE_TRIES:
            self._stale += 1  # closed while it was kept, which says nothing of the endpoint
            self._try()
            return
        self._failed(None)
        if not (is_safe and self._may_repeat() and self._again()):
            self.refuse(Refused(502, "reset", f"the backend closed the connection: {reason}"))

    def _may_repeat(self) -> bool:
        if self._is_answered or self._upload is not None or self._replay is None:
            return False
        return self.request.body is Body.NONE or self._client.body().done

    def _again(self) -> bool:
        """Try once more where the rule and the budget allow it; return whether it is tried."""
        decision, pool, state = self._decision, self._pool, self._state
        if decision is None or pool is None or state is None or self._upload is not None:
            return False
        retry = decision.rule.retry
        others = len(pool.balancer.states) > len(self._tried) + 1
        if retry is None:
            # nothing was asked for: one other endpoint, where the connection itself failed
            if self._attempt or self._tried or not others:
                return False
        elif len(self._tried) >= retry.attempts or not pool.budget.spend(retry.least, self._worker.reactor.now):
            return False
        self._tried.append(state)
        self._worker.later(retry.backoff if retry is not None else 0.0, self.on_room)
        return True

    def _failed(self, status: int | None) -> None:
        pool, state = self._pool, self._state
        if pool is not None and state is not None and pool.balancer.erred(state, self._worker.reactor.now):
            self._worker.note("ejected", backend=pool.name, endpoint=state.address, status=status)

    # The answer

    def on_response(self, response: Response, rest: bytes) -> None:
        """Take a response's head; rest: what came behind it."""
        client, decision = self._client, self._decision
        upstream, pool, state = self._upstream, self._pool, self._state
        assert decision is not None and upstream is not None and pool is not None  # noqa: S101, PT018
        assert state is not None  # noqa: S101
        if response.status < 200:
            self._interim(response, rest)
            return
        if response.status >= 500:
            self._failed(response.status)
            retry = decision.rule.retry
            if retry is not None and response.status in retry.codes and self._retried(upstream):
                return
        elif state.failures:
            pool.balancer.succeeded(state)
        if decision.changes_response:
            altered_response(decision, client.peer, self.request, response)
        self._response = response
        self._is_answered = True
        self.status = response.status
        self._try_deadline = math.inf
        try:
            if response.body is Body.NONE or (response.body is Body.LENGTH and len(rest) == response.length):
                self.bytes_out = len(rest)
                client.send_head(response, (rest,) if rest and response.body is not Body.NONE else (), True)
                self._downloaded(None, False)
                return
            self._begin_download(response, rest)
        except Gone as error:
            self._downloaded(error, False)

    def _begin_download(self, response: Response, rest: bytes) -> None:
        client, upstream = self._client, self._upstream
        assert upstream is not None  # noqa: S101
        source = upstream.source(response, rest)
        source.is_decoded = client.is_encoded_for(response)
        pieces: Sequence[Buffer] = ()
        if rest and not source.is_decoded:
            try:
                pieces = source.read() or ()
            except Refused as error:
                self.on_bad_response(error)
                return
        if source.beyond:
            response.persistent = True  # what follows its end is nobody's
        self.bytes_out = sum(map(len, pieces))
        client.send_head(response, pieces, source.done)
        if source.done:
            self._downloaded(None, False)
            return
        sink = client.sink(response)
        pump = self._download = Pump(self._worker.reactor, self._worker.pipes, source, sink, self._downloaded)
        self._look_later()
        pump.run()

    def _interim(self, response: Response, rest: bytes) -> None:
        if response.status == 101:
            upstream = self._upstream
            if not self.request.upgrade or not response.upgrade or upstream is None:
                self.on_bad_response(Refused(502, "upgrade", "the backend switches protocols unasked"))
                return
            self.status = 101
            self._is_answered = True
            try:
                self._client.send_head(response, (), True)
            except Gone as error:
                self._downloaded(error, False)
                return
            wire = upstream.detach()
            self._upstream = None
            upstream.endpoint.active -= 1
            self._close_up()
            self._client.upgraded(wire, rest)
            return
        try:
            self._client.send_interim(response)
        except Gone as error:
            self._downloaded(error, False)

    def _retried(self, upstream: Server1) -> bool:
        if self.request.method not in _IDEMPOTENT or not self._may_repeat() or not self._again():
            return False
        upstream.endpoint.active -= 1
        self._upstream = None
        upstream.abort()
        return True

    def on_bad_response(self, error: Refused) -> None:
        """Act on a response that cannot be passed on."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.endpoint.active -= 1
            upstream.abort()
        self._failed(None)
        self.refuse(error)

    # Bodies

    def on_readable(self) -> None:
        """Read from the backend's connection."""
        if self._download is not None:
            self._download.run()

    def on_writable(self) -> None:
        """Write to the backend's connection."""
        if self._upload is not None and not self._upload.is_over:
            self._upload.run()
        elif self._upstream is not None:
            try:
                self._upstream.wire.flush()
            except Gone as error:
                self._upload_failed(error, False)

    def on_client_readable(self) -> bool:
        """Read from the client's connection; return whether what is there is of this request."""
        if self._upload is None or self._upload.is_over:
            return False
        self._upload.run()
        return True

    def on_client_writable(self) -> None:
        """Write to the client's connection."""
        if self._download is not None:
            self._download.run()

    def _uploaded(self, error: Exception | None, is_sources: bool) -> None:
        upload = self._upload
        if upload is not None:
            self.bytes_in += upload.moved
        if error is not None:
            self._upload_failed(error, is_sources)
        elif self._is_answered and self._download is not None and self._download.is_over:
            self._conclude(True)

    def _upload_failed(self, error: Exception, is_sources: bool) -> None:
        upstream = self._upstream
        if not is_sources:
            # the backend takes no more; what it has to say may still come, else it is `on_lost`
            if self._upload is not None:
                self._upload.stop()
            if self._is_answered or upstream is None or upstream.has_more():
                return
        self._upstream = None
        if upstream is not None:
            upstream.endpoint.active -= 1
            upstream.abort()
        if self._is_answered:
            self._conclude(False)
        elif isinstance(error, Refused):
            self.refuse(error)
        elif is_sources:
            self.status = 499
            self._conclude(False)
        else:
            self._failed(None)
            self.refuse(Refused(502, "reset", "the backend closed the connection"))

    def _downloaded(self, error: Exception | None, is_sources: bool) -> None:
        download, upstream, response = self._download, self._upstream, self._response
        if download is not None:
            self.bytes_out += download.moved
        is_clean = error is None
        is_uploaded = self._upload is None or self._upload.is_over
        self._upstream = None
        if upstream is not None:
            upstream.endpoint.active -= 1
            if is_clean and is_uploaded and response is not None:
                upstream.finish(response.persistent and not self._has_beyond())
            else:
                upstream.abort()
        if error is not None and is_sources:
            self._worker.note("truncated", reason=str(error))
        self._conclude(is_clean)

    def _has_beyond(self) -> bool:
        source = self._download.source if self._download is not None else None
        return isinstance(source, Http1Source) and bool(source.beyond)

    # Ends

    def answer(self, response: Response, body: bytes) -> None:
        """Answer without a backend."""
        self.status = response.status
        self._response = response
        self._is_answered = True
        is_head = self.request.method == b"HEAD"
        response.body, response.length = (Body.LENGTH, len(body)) if body else (Body.NONE, 0)
        try:
            self._client.send_head(response, (body,) if body and not is_head else (), True)
        except Gone:
            self._conclude(False)
            return
        self.bytes_out = len(body)
        self._conclude(True)

    def refuse(self, error: Refused) -> None:
        """Answer with an error, or end the response that has begun."""
        if self._is_over:
            return
        self._worker.refused(error, self.request)
        if self._is_answered:
            self._conclude(False)
            return
        response, body = self._worker.refusal(error, self._decision, self.request)
        self.answer(response, body)

    @property
    def client_address(self) -> str:
        """The client's address, as far as it is known."""
        return self._client.peer.forwarding.client(self.request.fields)

    @property
    def endpoint_address(self) -> str:
        """The endpoint that was tried last, empty for none."""
        return self._state.address if self._state is not None else ""

    def next_deadline(self) -> float:
        """Return when to look at this request next."""
        return min(self.deadline, self._try_deadline, self._looked_at)

    def on_deadline(self, now: float) -> None:
        """Look at the deadlines that are past."""
        if self.deadline <= now or self._try_deadline <= now:
            is_whole = self.deadline <= now
            upstream, self._upstream = self._upstream, None
            if upstream is not None:
                if upstream.served and upstream.is_busy:
                    upstream.endpoint.active -= 1
                upstream.abort()
            self._failed(None)
            self._try_deadline = math.inf
            if not is_whole and self.request.method in _IDEMPOTENT and self._may_repeat() and self._again():
                return
            self.refuse(Refused(504, "timeout", "the backend did not answer in time"))
        elif self._looked_at <= now:
            self._look(now)

    def _look_later(self) -> None:
        self._looked_at = self._worker.reactor.now + self._worker.plan.limits.body_idle_seconds
        self._client.watch(self.next_deadline())

    def _look(self, now: float) -> None:
        """See whether the client does its part: sends its body, takes the response."""
        self._looked_at = now + self._worker.plan.limits.body_idle_seconds
        upload, download = self._upload, self._download
        moved = (upload.moved if upload else 0) + (download.moved if download else 0)
        progress, self._seen = moved - self._seen, moved
        is_sending = upload is not None and not upload.is_over and not upload.sink.wire.blocked
        is_stuck = download is not None and not download.is_over and download.is_stuck
        least = _PROGRESS_BYTES if self.request.body is Body.LENGTH and is_sending else 1
        if progress >= least or not (is_sending or is_stuck):
            return
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.endpoint.active -= 1
            upstream.abort()
        self.refuse(Refused(408, "slow client", "the request's body came too slowly"))

    def client_gone(self) -> None:
        """Give up: the client is not there any more."""
        if self._is_over:
            return
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            if upstream.is_busy:
                upstream.endpoint.active -= 1
                upstream.abort()
            else:
                upstream.forsake()
        self.status = self.status or 499
        self._conclude(False)

    def _conclude(self, is_clean: bool) -> None:
        if self._is_over:
            return
        self._close_up()
        self._client.finish(is_clean)

    def _close_up(self) -> None:
        self._is_over = True
        for pump in (self._upload, self._download):
            if pump is not None and not pump.is_over:
                pump.stop()
        pool = self._pool
        if pool is not None:
            pool.active -= 1
            if self._upstream is None and pool.waiting:
                pool.unwait(self)
        self._worker.count(self, self._decision, self._began)
