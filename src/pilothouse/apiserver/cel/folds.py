"""The closures of macros: what is done with each element, counted for each turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pilothouse.apiserver.cel.errors import CelError, CostExceededError
from pilothouse.apiserver.cel.lists import sorted_by
from pilothouse.apiserver.cel.syntax import Fold
from pilothouse.apiserver.cel.values import NONE, Optional

__all__ = ["fold_of"]

Run = Callable[[list[Any]], Any]
Turns = Callable[[list[Any]], Iterator[None]]
_FAILURES = (CelError, TypeError, ValueError, ArithmeticError, AttributeError, LookupError)
# What the expansion of a macro costs for each turn beside its body, as cel-go's expansions do.
_TURN = {"all": 3, "exists": 4, "exists_one": 3, "filter": 13, "map": 12, "sortBy": 12}
_TURN_MAP = 31


def fold_of(node: Fold, over: Run, test: Run | None, body: Run, places: tuple[int, ...], cost: int) -> Run:
    """Return the closure of a macro. places: of the iteration variables in the frame. cost: of one turn's body."""
    if node.macro in {"optMap", "optFlatMap"}:
        return _optional(node.macro, over, body, places[0], cost)
    turns = _turns(over, places, cost + _TURN.get(node.macro, _TURN_MAP))
    match node.macro:
        case "all":
            return _quantified(turns, body, stop=False)
        case "exists":
            return _quantified(turns, body, stop=True)
        case "exists_one":
            return _exactly_one(turns, body)
        case "filter":
            return _filtered(turns, body, places[0])
        case "map":
            return _mapped(turns, test, body)
        case "sortBy":
            return _sorted(turns, body, places[0])
    return _map_of(turns, test, body, places[0], entries=node.macro == "transformMapEntry")


def _turns(over: Run, places: tuple[int, ...], cost: int) -> Turns:
    """Return what goes over a range, sets the iteration variables and counts."""
    first, second = places[0], places[1] if len(places) == 2 else 0

    def go(frame: list[Any]) -> Iterator[None]:
        found, meter = over(frame), frame[0]
        if isinstance(found, dict):
            pairs: Any = found.items() if second else zip(found, found, strict=True)
        elif isinstance(found, (list, tuple)):
            pairs = enumerate(found) if second else zip(found, found, strict=True)
        else:
            raise CelError("no such overload")
        for one, two in pairs:
            meter.spent += cost
            if meter.spent > meter.limit:
                raise CostExceededError
            frame[first] = one
            if second:
                frame[second] = two
            yield

    return go


def _quantified(turns: Turns, body: Run, *, stop: bool) -> Run:
    """`all` and `exists`: the value that decides ends the loop, and outweighs errors."""

    def run(frame: list[Any]) -> bool:
        failed: Exception | None = None
        for _ in turns(frame):
            try:
                value = body(frame)
            except CostExceededError:
                raise
            except _FAILURES as error:
                failed = failed or error
                continue
            if value is stop:
                return bool(value)
            if value is not (not stop):
                failed = failed or CelError("no such overload")
        if failed is not None:
            raise failed
        return not stop

    return run


def _truth(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise CelError("no such overload")


def _exactly_one(turns: Turns, body: Run) -> Run:

    def run(frame: list[Any]) -> bool:
        found = [True for _ in turns(frame) if _truth(body(frame))]
        return len(found) == 1

    return run


def _filtered(turns: Turns, body: Run, place: int) -> Run:
    return lambda frame: [frame[place] for _ in turns(frame) if _truth(body(frame))]


def _mapped(turns: Turns, test: Run | None, body: Run) -> Run:
    if test is None:
        return lambda frame: [body(frame) for _ in turns(frame)]
    wanted = test
    return lambda frame: [body(frame) for _ in turns(frame) if _truth(wanted(frame))]


def _sorted(turns: Turns, body: Run, place: int) -> Run:
    def run(frame: list[Any]) -> list[Any]:
        pairs = [(frame[place], body(frame)) for _ in turns(frame)]
        return sorted_by([value for value, _ in pairs], [key for _, key in pairs])

    return run


def _map_of(turns: Turns, test: Run | None, body: Run, place: int, *, entries: bool) -> Run:
    def run(frame: list[Any]) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        for _ in turns(frame):
            if test is not None and not _truth(test(frame)):
                continue
            value = body(frame)
            if not entries:
                made[frame[place]] = value
                continue
            for key, item in value.items():
                if key in made:
                    raise CelError(f"insert failed: key '{key}' already exists")
                made[key] = item
        return made

    return run


def _optional(macro: str, over: Run, body: Run, place: int, cost: int) -> Run:
    flat = macro == "optFlatMap"

    def run(frame: list[Any]) -> Any:
        found = over(frame)
        if not isinstance(found, Optional):
            raise CelError("no such overload")
        if not found.present:
            return NONE
        frame[0].spend(cost)
        frame[place] = found.value
        value = body(frame)
        return value if flat else Optional(value)

    return run
