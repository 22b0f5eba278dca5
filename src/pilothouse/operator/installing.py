"""Install definitions of custom resources and wait until the server serves them."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Final

from pilothouse.client import Client
from pilothouse.client.deadline import within
from pilothouse.foundation.clock import Clock, SystemClock
from pilothouse.kinds import conditions

from .errors import OperatorError

__all__ = ["install"]

_SECONDS: Final = 30.0


async def install(
    client: Client, *definitions: Mapping[str, Any], seconds: float = _SECONDS, clock: Clock | None = None
) -> None:
    """Apply CustomResourceDefinitions, as `definition` makes them, and wait until they are established.

    For tests, examples and operators that may do so; elsewhere whoever installs the operator applies them. Raises
    OperatorError where a name is taken or it takes longer than `seconds`; ApiStatus for what the server refuses.
    """
    handle = client.dynamic("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    for wanted in definitions:
        name = wanted["metadata"]["name"]
        made = await handle.apply(dict(wanted), force=True)
        if _is_established(made):
            continue
        try:
            async with (
                within(clock or SystemClock(), seconds, f"definition {name}"),
                aclosing(handle.watch(fields={"metadata.name": name}, resume=True)) as events,
            ):
                async for event in events:
                    if _is_established(event.object):
                        break
        except TimeoutError:
            raise OperatorError(f"definition {name}: not established within {seconds:g} s; see its status") from None


def _is_established(found: Mapping[str, Any]) -> bool:
    listed = found.get("status", {}).get("conditions")
    if conditions.is_false(listed, "NamesAccepted"):
        refused = conditions.find(listed, "NamesAccepted") or {}
        raise OperatorError(f"definition {found['metadata']['name']}: {refused.get('message')}; choose other names")
    return conditions.is_true(listed, "Established")
