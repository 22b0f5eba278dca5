"""What users write for admission, typed by the kind: validators, mutators, and functions; and how each is asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from pilothouse.kinds.status import ApiStatus, BadRequest
from pilothouse.kinds.structs import Resource, StructError, from_dict, to_dict

from .webhook_patch import json_patch
from .webhook_review import AdmissionRequest, Denied, Verdict, denial

__all__ = [
    "Handle",
    "MutateFunction",
    "Mutator",
    "RawMutation",
    "RawValidation",
    "TypedMutation",
    "TypedValidation",
    "ValidateFunction",
    "Validator",
    "Warnings",
]

R = TypeVar("R", bound=Resource)

Warnings: TypeAlias = Sequence[str] | None
"""What the client is shown besides; None is none."""
_MayWait: TypeAlias = Awaitable[Warnings] | Warnings

ValidateFunction: TypeAlias = Callable[[R, AdmissionRequest], _MayWait]
MutateFunction: TypeAlias = Callable[[R, AdmissionRequest], Awaitable[R] | R]
RawValidateFunction: TypeAlias = Callable[[AdmissionRequest], _MayWait]
RawMutateFunction: TypeAlias = Callable[[AdmissionRequest], Awaitable[dict[str, Any] | None] | dict[str, Any] | None]


class Validator(Generic[R]):
    """Judges objects of a kind. Subclass it as `Validator[Website]` and override what matters.

    Each method, a plain one or a coroutine, returns warnings or None, and raises Denied to refuse. Plain methods run on
    threads, so that one that blocks holds up nobody.
    """

    def create(self, new: R, request: AdmissionRequest) -> _MayWait:
        """Judge an object that is to be created; all is well by default."""
        return None

    def update(self, old: R, new: R, request: AdmissionRequest) -> _MayWait:
        """Judge a change; all is well by default."""
        return None

    def delete(self, old: R, request: AdmissionRequest) -> _MayWait:
        """Judge a deletion; all is well by default, and the server does not ask unless this is overridden."""
        return None


class Mutator(ABC, Generic[R]):
    """Fills in or changes objects of a kind before they are validated and stored."""

    @abstractmethod
    def mutate(self, obj: R, request: AdmissionRequest) -> Awaitable[R] | R:
        """Return the object as it shall be, the same one to leave it. Raises Denied to refuse.

        It is called again with its own result where another webhook changed the object, so it has to settle.
        """


class Run(Protocol):
    """Calls a function or coroutine function and returns its result."""

    async def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call it."""


Handle: TypeAlias = Callable[[AdmissionRequest, Run], Awaitable[Verdict]]


async def _judged(request: AdmissionRequest, work: Awaitable[Verdict]) -> Verdict:
    """Take what a handler raises to refuse as its verdict; anything else is an error of the handler."""
    try:
        return await work
    except Denied as denied:
        return Verdict(denial(request, denied))
    except ApiStatus as refused:
        if 400 <= refused.code < 500:
            return Verdict(refused)
        raise


def _decoded(kind: type[R], found: dict[str, Any] | None, what: str, request: AdmissionRequest) -> R:
    if found is None:
        raise BadRequest(f"{request}: the review has no {what}")
    try:
        return from_dict(found, kind)
    except StructError as error:
        raise BadRequest(f"{request}: {what} does not fit the type {error}") from None


def _warnings(found: Any, function: Any) -> Sequence[str]:
    if found is None:
        return ()
    if isinstance(found, str) or not isinstance(found, Sequence):
        raise TypeError(f"{_named(function)} returned {found!r}; want a list of warnings, or None")
    return [str(text) for text in found]


def _named(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__name__))


class TypedValidation(Generic[R]):
    """Asks a validator, or a function that is told of creations and changes."""

    def __init__(self, kind: type[R], validator: Validator[R] | ValidateFunction[R]) -> None:
        self.kind: Final = kind
        self.validator: Final = validator

    @property
    def judges_deletions(self) -> bool:
        """Whether it has something to say of deletions."""
        return isinstance(self.validator, Validator) and type(self.validator).delete is not Validator.delete

    async def __call__(self, request: AdmissionRequest, run: Run) -> Verdict:
        return await _judged(request, self._ask(request, run))

    async def _ask(self, request: AdmissionRequest, run: Run) -> Verdict:
        validator, arguments = self.validator, self._arguments(request)
        function: Callable[..., Any] | None
        if isinstance(validator, Validator):
            functions: dict[str, Callable[..., Any]] = {
                "CREATE": validator.create,
                "UPDATE": validator.update,
                "DELETE": validator.delete,
            }
            function = functions.get(request.operation)
        else:
            function, arguments = validator, arguments[-1:]
        if function is None:
            return Verdict()
        return Verdict(warnings=_warnings(await run(function, *arguments, request), function))

    def _arguments(self, request: AdmissionRequest) -> list[R]:
        found = []
        if request.operation in {"UPDATE", "DELETE"}:
            found.append(_decoded(self.kind, request.old_object, "oldObject", request))
        if request.operation != "DELETE":
            found.append(_decoded(self.kind, request.object, "object", request))
        return found


class TypedMutation(Generic[R]):
    """Asks a mutator or a function, and finds the patch between the object that it got and the one it returned.

    Both are compared as JSON, with all that the type does not model, so unknown fields stay as they are.
    """

    def __init__(self, kind: type[R], mutator: Mutator[R] | MutateFunction[R]) -> None:
        self.kind: Final = kind
        self.function: Final[Callable[..., Any]] = mutator.mutate if isinstance(mutator, Mutator) else mutator

    async def __call__(self, request: AdmissionRequest, run: Run) -> Verdict:
        return await _judged(request, self._ask(request, run))

    async def _ask(self, request: AdmissionRequest, run: Run) -> Verdict:
        obj = _decoded(self.kind, request.object, "object", request)
        made = await run(self.function, obj, request)
        if not isinstance(made, self.kind):
            raise TypeError(
                f"{_named(self.function)} returned {type(made).__name__}; want the {self.kind.__name__} as it shall be"
            )
        return Verdict(patch=() if made is obj else json_patch(to_dict(obj), to_dict(made)))


class RawValidation:
    """Asks a function that is given the request as it is."""

    def __init__(self, function: RawValidateFunction) -> None:
        self.function: Final = function

    async def __call__(self, request: AdmissionRequest, run: Run) -> Verdict:
        return await _judged(request, self._ask(request, run))

    async def _ask(self, request: AdmissionRequest, run: Run) -> Verdict:
        return Verdict(warnings=_warnings(await run(self.function, request), self.function))


class RawMutation:
    """Asks a function that is given the request as it is, and returns the object as it shall be or None."""

    def __init__(self, function: RawMutateFunction) -> None:
        self.function: Final = function

    async def __call__(self, request: AdmissionRequest, run: Run) -> Verdict:
        return await _judged(request, self._ask(request, run))

    async def _ask(self, request: AdmissionRequest, run: Run) -> Verdict:
        # The function may change the very object that it was given.
        before = msgspec.json.encode(request.object)
        made = await run(self.function, request)
        if made is None:
            return Verdict()
        if not isinstance(made, dict) or request.object is None:
            raise TypeError(
                f"{_named(self.function)} returned {type(made).__name__}; want the object as it shall be, or None; "
                "where there is no object there is nothing to change"
            )
        return Verdict(patch=json_patch(msgspec.json.decode(before), made))
