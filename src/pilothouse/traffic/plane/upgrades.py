"""Requests that become tunnels: what their handshake says in either version of HTTP, and the change of protocols."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pilothouse.traffic.plane.attempts import Attempts
from pilothouse.traffic.plane.decisions import altered_response
from pilothouse.traffic.plane.http import FieldList, Refused, Response
from pilothouse.traffic.plane.switching import WEBSOCKET, answered, asked
from pilothouse.traffic.plane.upstream import Upstream
from pilothouse.traffic.plane.wires import Gone

if TYPE_CHECKING:
    from pilothouse.traffic.plane.pools import Pool

__all__ = ["Upgrades"]


class Upgrades(Attempts):
    """What an exchange does with interim answers and upgrades."""

    __slots__ = ()

    # What the rest of an exchange does

    def _downloaded(self, error: Exception | None, is_sources: bool) -> None:
        raise NotImplementedError

    def _close_up(self) -> None:
        raise NotImplementedError

    # Upgrades

    def _switched(self, fields: FieldList, pool: Pool) -> FieldList:
        """Return the fields of a request that asks for an upgrade. Raises Refused."""
        request = self.request
        if request.upgrade.lower() == WEBSOCKET:
            nonce = self._worker.nonce()
            return asked(fields, nonce, by_frames=request.minor == 2, to_frames=pool.is_framed)
        if pool.is_framed:
            request.upgrade = b""  # HTTP/2 has no others, and who asks has to do without (RFC 9110, 7.8)
        return fields

    def _interim(self, response: Response, rest: bytes) -> None:
        if response.status == 101:
            upstream = self._upstream
            if not self.request.upgrade or not response.upgrade or upstream is None:
                self.on_bad_response(Refused(502, "upgrade", "the backend switches protocols unasked"))
                return
            self._switch(upstream, response, rest)
            return
        try:
            self._client.send_interim(response)
        except Gone as error:
            self._downloaded(error, False)

    def _switch(self, upstream: Upstream, response: Response, rest: bytes) -> None:
        """Have both sides' bytes passed on as they are."""
        request, pool, outgoing, decision = self.request, self._pool, self._outgoing, self._decision
        assert pool is not None and outgoing is not None and decision is not None  # noqa: S101, PT018
        if request.upgrade.lower() == WEBSOCKET:
            by_frames, to_frames, came = request.minor == 2, pool.is_framed, request.fields
            try:
                response.fields = answered(
                    response.fields, outgoing.fields, came, by_frames=by_frames, to_frames=to_frames
                )
            except Refused as error:
                self.on_bad_response(error)
                return
            response.lines = None
        if decision.changes_response:
            altered_response(decision, self._client.peer, request, response, upstream.endpoint.address)
        self.status = 101
        self._is_answered = True
        try:
            self._client.send_head(response, (), True)
        except Gone as error:
            self._downloaded(error, False)
            return
        end = upstream.tunnelled(rest)
        self._upstream = None
        upstream.endpoint.active -= 1
        self._close_up()
        self._client.upgraded(end)
