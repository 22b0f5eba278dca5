"""One request on its way: where it goes, the tries of backends, the bodies both ways, and what is counted of it.

It knows neither side's version of HTTP: `Downstream` is the client's side, an upstream a backend's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pilothouse.traffic.numbers import Key
from pilothouse.traffic.plane.attempts import IDEMPOTENT
from pilothouse.traffic.plane.bodies import Http1Source, Pump
from pilothouse.traffic.plane.decisions import Decision, altered_response, prepared
from pilothouse.traffic.plane.http import UNKNOWN, Body, Refused, Response
from pilothouse.traffic.plane.upgrades import Upgrades
from pilothouse.traffic.plane.upstream import Outgoing, Upstream
from pilothouse.traffic.plane.wires import Buffer, Gone

if TYPE_CHECKING:
    from pilothouse.traffic.plane.pools import Pool

__all__ = ["Exchange"]

_PROGRESS_BYTES: Final = 1024
"""Of a body with a length, that have to move between two looks at it."""


class Exchange(Upgrades):
    """Carries one request from its decision to its numbers."""

    __slots__ = ()

    # Where it goes

    def begin(self) -> None:
        """Decide, and send the request on its way."""
        try:
            decision = self._decide()
            if decision.rule.rate is not None and not self._worker.limit(decision, self._client.peer, self):
                return  # until `released`
            self._go_on(decision, self._worker.pools.get(decision.backend))
        except Refused as error:
            self.refuse(error)

    def released(self, pool: Pool | None, error: Refused | None) -> bool:
        """Go on after the store of a rate limit has spoken; return whether there is still something to go on with."""
        decision = self._decision
        if self._is_over or decision is None:
            return False
        try:
            if error is not None:
                raise error
            self._go_on(decision, pool)
        except Refused as refused:
            self.refuse(refused)
        return True

    def _go_on(self, decision: Decision, pool: Pool | None) -> None:
        """Send the request on its way within its limits. Raises Refused."""
        worker, request = self._worker, self.request
        most = self._client.peer.scope.limits.body_bytes
        if most and request.length > most:
            raise Refused(413, "body", "the request's body is too large")
        if decision.filters or decision.session is not None:
            answer = prepared(decision, self._client.peer, request)
            if answer is not None:
                self.answer(answer, b"")
                return
        rule = decision.rule
        pool = self._admitted(pool)
        self._pool = pool
        pool.active += 1
        if rule.timeouts.request:
            self.deadline = self._began + rule.timeouts.request
        if request.body is Body.NONE:
            self._replay = ()
        else:
            self._take_body()
            if self._is_over:
                return
        fields = self._client.peer.forwarding.fields(decision.fields, request.authority)
        if request.upgrade:
            fields = self._switched(fields, pool)
        self._outgoing = Outgoing(request, decision.target, decision.authority, worker.traced(fields))
        if decision.mirrors:
            self._mirror(decision, self._outgoing)
        if rule.retry is not None:
            pool.budget.earn(rule.retry.budget)
        self._try()

    def _mirror(self, decision: Decision, outgoing: Outgoing) -> None:
        is_whole = self.request.body is Body.NONE or self._client.body().done
        trailers = (self._trailers or []) if is_whole else None
        self._mirrored = self._worker.mirror(decision, outgoing, self._replay or (), trailers)

    def _decide(self) -> Decision:
        """Find the rule. Raises Refused."""
        worker, request, peer = self._worker, self.request, self._client.peer
        decision = self._decision = worker.plan.decide(peer, request, worker.shares)
        self.region = decision.region
        self.key = Key(decision.route, decision.rule_name, decision.backend, decision.version, decision.region)
        worker.tally.begin(self.key)
        return decision

    def _admitted(self, pool: Pool | None) -> Pool:
        """Return the backend's pool, if it takes the request. Raises Refused."""
        if pool is None:
            raise Refused(500, "no backend", "the route leads nowhere")
        if not pool.balancer.states:
            raise Refused(503, "no endpoints", "the backend has no endpoints")
        if pool.is_full:
            raise Refused(503, "circuit", "the backend has as many requests as it may have")
        return pool

    def _take_body(self) -> None:
        """Take a body that came with its head, so that it may be sent again."""
        source, request, pool, decision = self._client.body(), self.request, self._pool, self._decision
        if isinstance(source, Http1Source) and request.body is Body.CHUNKED:
            is_framed = pool is not None and pool.is_framed
            if is_framed or (decision is not None and decision.mirrors):  # each side puts its own framing on
                source.is_decoded, request.body = True, Body.FRAMES
        if not source.has_more and not source.done:
            return
        try:
            pieces = [bytes(piece) for piece in source.read() or ()]
        except Refused as error:
            self.refuse(error)
            return
        self.bytes_in += sum(map(len, pieces))
        most = self._client.peer.scope.limits.body_bytes
        if most and self.bytes_in > most:
            self.refuse(Refused(413, "body", "the request's body is too large"))
        self._replay = pieces
        if source.done:
            self._trailers = source.trailers()
            if request.body is Body.FRAMES and not self._trailers:
                request.body, request.length = Body.LENGTH, self.bytes_in

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
        if self.request.upgrade and self.request.minor == 2 and response.status < 300:
            error = Refused(502, "upgrade", "the backend does not switch protocols")
            self.on_bad_response(error, is_endpoints=False)  # 2xx would say that it does
            return
        if response.status >= 500:
            self._failed(response.status)
            retry = decision.rule.retry
            if retry is not None and response.status in retry.codes and self._retried(upstream):
                return
        elif state.failures:
            pool.balancer.succeeded(state)
        if decision.changes_response:
            altered_response(decision, client.peer, self.request, response, state.address)
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
        if isinstance(source, Http1Source):
            source.is_decoded = client.is_encoded_for(response)
        pieces: Sequence[Buffer] = ()
        is_readable = bool(rest) and not source.is_decoded
        if response.body is Body.FRAMES and source.is_all and not source.trailers():
            response.body, is_readable = Body.LENGTH, True
        if is_readable or (response.body is Body.LENGTH and source.has_more):
            try:
                pieces = source.read() or ()
            except Refused as error:
                self.on_bad_response(error)
                return
        if response.length == UNKNOWN and response.body is Body.LENGTH:
            response.length = sum(map(len, pieces))
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

    def _retried(self, upstream: Upstream) -> bool:
        if self.request.method not in IDEMPOTENT or not self._may_repeat() or not self._again():
            return False
        upstream.endpoint.active -= 1
        self._upstream = None
        upstream.abort()
        return True

    def on_bad_response(self, error: Refused, *, is_endpoints: bool = True) -> None:
        """Act on a response that cannot be passed on."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.endpoint.active -= 1
            upstream.abort()
        if is_endpoints:
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
            if self._is_answered or upstream is None or upstream.has_spoken():
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
            if not is_whole and self.request.method in IDEMPOTENT and self._may_repeat() and self._again():
                return
            self.refuse(Refused(504, "timeout", "the backend did not answer in time"))
        elif self._looked_at <= now:
            self._look(now)

    def _look_later(self) -> None:
        self._looked_at = self._worker.reactor.now + self._client.peer.scope.limits.body_idle_seconds
        self._client.watch(self.next_deadline())

    def _look(self, now: float) -> None:
        """See whether the client does its part: sends its body, takes the response."""
        self._looked_at = now + self._client.peer.scope.limits.body_idle_seconds
        upload, download = self._upload, self._download
        moved = (upload.passed if upload else 0) + (download.passed if download else 0)
        progress, self._seen = moved - self._seen, moved
        if self._is_half_closed and progress == 0:
            self.client_gone()  # who closes in both directions looks the same until something is written
            return
        is_sending = upload is not None and not upload.is_over and not upload.is_stuck
        is_stuck = download is not None and not download.is_over and download.is_stuck
        least = _PROGRESS_BYTES if self.request.body is Body.LENGTH and is_sending else 1
        if progress >= least or not (is_sending or is_stuck):
            return
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.endpoint.active -= 1
            upstream.abort()
        self.refuse(Refused(408, "slow client", "the request's body came too slowly"))

    def half_closed(self) -> None:
        """Take note that the client says nothing more: it may wait for its answer, or be gone."""
        if not self._is_half_closed:
            self._is_half_closed = True
            self._look_later()

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
        self._upload = self._download = None  # they know us: without this only the collector would end it
        for mirrored in self._mirrored:
            mirrored.cut_if_open()
        pool = self._pool
        if pool is not None:
            pool.active -= 1
            if self._upstream is None and pool.waiting:
                pool.unwait(self)
        self._worker.count(self, self._decision, self._began)
