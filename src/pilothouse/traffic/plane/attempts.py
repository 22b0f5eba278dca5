"""The tries of one request: an endpoint is chosen, reached and sent the request; another one where that failed.

Only what is idempotent, and whose body is still at hand, is sent twice, and no more often than the rule and the
backend's budget allow. A connection that was closed while it was kept says nothing of its endpoint, and is replaced.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from pilothouse.traffic.numbers import Key
from pilothouse.traffic.plane.balancing import EndpointState
from pilothouse.traffic.plane.bodies import Pump
from pilothouse.traffic.plane.decisions import Decision
from pilothouse.traffic.plane.downstream import Downstream
from pilothouse.traffic.plane.http import Body, FieldList, Refused, Request, Response
from pilothouse.traffic.plane.mirrors import CopyingPump, Mirrored
from pilothouse.traffic.plane.upstream import Outgoing, Upstream
from pilothouse.traffic.plane.wires import Buffer, Gone

if TYPE_CHECKING:
    from pilothouse.traffic.plane.pools import Pool
    from pilothouse.traffic.plane.worker import Worker

__all__ = ["IDEMPOTENT", "Attempts"]

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"})
_STALE_TRIES: Final = 3


class Attempts:
    """What a request has tried. deadline: on the reactor's clock; whoever owns the client's side looks at it."""

    __slots__ = (
        "_attempt",
        "_began",
        "_client",
        "_decision",
        "_download",
        "_is_answered",
        "_is_half_closed",
        "_is_over",
        "_looked_at",
        "_mirrored",
        "_outgoing",
        "_pool",
        "_replay",
        "_response",
        "_seen",
        "_stale",
        "_state",
        "_trailers",
        "_tried",
        "_try_deadline",
        "_upload",
        "_upstream",
        "_worker",
        "bytes_in",
        "bytes_out",
        "deadline",
        "key",
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
        self.key: Key | None = None
        self.deadline = math.inf
        self._began = worker.clock()
        self._decision: Decision | None = None
        self._pool: Pool | None = None
        self._state: EndpointState | None = None
        self._upstream: Upstream | None = None
        self._upload: Pump | None = None
        self._download: Pump | None = None
        self._response: Response | None = None
        self._replay: Sequence[Buffer] | None = None
        self._outgoing: Outgoing | None = None
        self._trailers: FieldList | None = None
        self._mirrored: Sequence[Mirrored] = ()
        self._is_answered = False
        self._is_over = False
        self._is_half_closed = False
        self._tried: list[EndpointState] = []
        self._attempt = 0
        self._stale = 0
        self._try_deadline = math.inf
        self._looked_at = math.inf
        self._seen = 0

    # What the rest of an exchange does

    def refuse(self, error: Refused) -> None:
        """Answer with an error."""
        raise NotImplementedError

    def on_response(self, response: Response, rest: bytes) -> None:
        """Take a response's head; rest: what came behind it."""
        raise NotImplementedError

    def on_bad_response(self, error: Refused, *, is_endpoints: bool = True) -> None:
        """Act on a response that cannot be passed on."""
        raise NotImplementedError

    def on_readable(self) -> None:
        """Read from the backend's connection."""
        raise NotImplementedError

    def on_writable(self) -> None:
        """Write to the backend's connection."""
        raise NotImplementedError

    def _uploaded(self, error: Exception | None, is_sources: bool) -> None:
        raise NotImplementedError

    def _look_later(self) -> None:
        raise NotImplementedError

    @property
    def fields(self) -> FieldList:
        """The fields as a backend gets them, or as they came where none was asked."""
        return self.request.fields if self._outgoing is None else self._outgoing.fields

    def next_deadline(self) -> float:
        """Return when to look at this request next."""
        return min(self.deadline, self._try_deadline, self._looked_at)

    # Tries

    def _try(self) -> None:
        pool, worker = self._pool, self._worker
        assert pool is not None  # noqa: S101
        decision = self._decision
        session = decision.session if decision is not None else None
        now, tried = worker.reactor.now, self._tried
        state = pool.balancer.pick(now, tried) if session is None else session.pick(pool.balancer, now, tried)
        if state is None:
            self.refuse(Refused(503, "no endpoints", "the backend has no healthy endpoints"))
            return
        self._state = state
        kept = pool.idle(state) if self._stale < _STALE_TRIES else None
        if decision is not None and decision.rule.timeouts.backend:
            self._try_deadline = now + decision.rule.timeouts.backend
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

    def on_connected(self, upstream: Upstream) -> None:
        """Send the request over a connection."""
        self._upstream = upstream
        state = upstream.endpoint
        state.active += 1
        state.total += 1
        self._attempt += 1
        request, outgoing = self.request, self._outgoing
        assert outgoing is not None  # noqa: S101
        try:
            upstream.begin(self, outgoing, self._replay or (), self._trailers)
        except Gone as error:
            upstream.abort()
            self.on_lost(upstream, str(error), True)
            return
        if request.body is Body.NONE:
            return
        source = self._client.body()
        if not source.done and self._upload is None:
            worker, sink = self._worker, upstream.sink(request)
            pump = self._upload = (
                CopyingPump(worker, source, sink, self._uploaded, self._mirrored)
                if self._mirrored
                else Pump(worker.reactor, worker.pipes, source, sink, self._uploaded)
            )
            most = self._client.peer.scope.limits.body_bytes
            pump.most = max(1, most - self.bytes_in) if most else 0
            self._look_later()
            pump.run()

    def on_unreachable(self, upstream: Upstream, reason: str) -> None:
        """Try another endpoint: nothing was sent."""
        del upstream
        self._upstream = None
        self._failed(None)
        if not self._again():
            timed_out = reason == "timed out"
            self.refuse(Refused(504 if timed_out else 503, "connect", f"the backend cannot be reached: {reason}"))

    def on_lost(self, upstream: Upstream, reason: str, is_untouched: bool) -> None:
        """Act on that a connection ended before its answer."""
        self._upstream = None
        upstream.endpoint.active -= 1
        is_safe = self.request.method in IDEMPOTENT
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
