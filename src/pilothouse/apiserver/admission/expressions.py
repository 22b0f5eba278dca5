"""What expressions of webhooks and policies see, and conditions whether to ask them at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from pilothouse.apiserver.admission.matching import Match
from pilothouse.apiserver.ports import AdmissionRequest, Authorizer, Gvk, Gvr, Object

if TYPE_CHECKING:
    from pilothouse.apiserver.cel import Program

__all__ = [
    "CONDITION_BUDGET",
    "Conditions",
    "ConditionsFailed",
    "activation",
    "failed",
    "options_of",
    "out_of_budget",
    "request_value",
    "user_info",
]

CONDITION_BUDGET: Final = 2_500_000
"""What the conditions of one webhook or policy may cost."""

_OPTIONS: Final = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}
_EXHAUSTED: Final = "validation failed due to running out of cost budget, no further validation rules will be run"


def failed(expression: str, error: Exception) -> str:
    """Word an evaluation that failed."""
    return f"expression '{expression}' resulted in error: {error}"


def out_of_budget() -> str:
    """Word evaluations that cost too much together."""
    return _EXHAUSTED


def user_info(request: AdmissionRequest) -> Object:
    """Return who asks, as reviews and expressions have it."""
    user = request.user
    told: Object = {
        "username": user.name,
        "uid": user.uid,
        "groups": list(user.groups),
        "extra": {key: list(values) for key, values in user.extra.items()},
    }
    return {name: value for name, value in told.items() if value}


def _kind(found: Gvk) -> Object:
    return {"group": found[0], "version": found[1], "kind": found[2]}


def _resource(found: Gvr) -> Object:
    return {"group": found[0], "version": found[1], "resource": found[2]}


def options_of(request: AdmissionRequest) -> Object:
    """Return the options of a request, with their kind."""
    if "kind" in request.options or request.operation not in _OPTIONS:
        return request.options
    return {"kind": _OPTIONS[request.operation], "apiVersion": "meta.k8s.io/v1", **request.options}


def request_value(request: AdmissionRequest, match: Match) -> Object:
    """Return the variable `request`: what a review says, without the objects."""
    value: Object = {
        "kind": _kind(match.kind),
        "resource": _resource(match.resource),
        "subResource": request.subresource,
        "requestKind": _kind(request.kind),
        "requestResource": _resource(request.resource),
        "requestSubResource": request.subresource,
        "name": request.name,
        "namespace": request.namespace,
        "operation": request.operation,
        "userInfo": user_info(request),
        "dryRun": request.dry_run,
        "options": options_of(request),
    }
    return {name: found for name, found in value.items() if found != ""}


class _Activation(dict[str, Any]):
    """Variables, of which `request` is made when first asked for."""

    __slots__ = ("_match", "_request")

    def __init__(self, request: AdmissionRequest, match: Match) -> None:
        super().__init__()
        self._request = request
        self._match = match

    def __missing__(self, name: str) -> Any:
        if name != "request":
            raise KeyError(name)
        value = self["request"] = request_value(self._request, self._match)
        return value


def activation(
    request: AdmissionRequest,
    match: Match,
    item: Object | None,
    old: Object | None,
    authorizer: Authorizer | None,
) -> dict[str, Any]:
    """Return the variables of an expression; item and old in the version that matched."""
    from pilothouse.apiserver.cel import Authorizer as Asking  # noqa: PLC0415 - only where there are expressions
    from pilothouse.apiserver.cel import ResourceCheck  # noqa: PLC0415

    values = _Activation(request, match)
    values["object"], values["oldObject"] = item, old
    if authorizer is not None:
        asking = Asking(request.user, authorizer.authorize)
        group, version, plural = request.resource
        values["authorizer"] = asking
        values["authorizer.requestResource"] = ResourceCheck(
            asking, group, plural, request.subresource, request.namespace, request.name, version
        )
    return values


class ConditionsFailed(Exception):
    """A condition could not be evaluated, and the failure policy says to refuse then."""


class Conditions:
    """The `matchConditions` of a webhook or policy, compiled when first needed.

    names: the variables that they may use beside `object`, `oldObject`, `request` and the authorizer's.
    """

    def __init__(self, found: Sequence[Mapping[str, Any]], failure_policy: str, names: Sequence[str] = ()) -> None:
        self._texts = tuple(str(one.get("expression") or "") for one in found)
        self._ignores = failure_policy == "Ignore"
        self._names = tuple(names)
        self._programs: list[Program | str] | None = None

    def __bool__(self) -> bool:
        return bool(self._texts)

    def hold(self, values: Mapping[str, Any]) -> bool:
        """Whether all conditions hold. One that is false decides; else raises ConditionsFailed for one that failed."""
        from pilothouse.apiserver.cel import Budget, CelError  # noqa: PLC0415

        budget = Budget(CONDITION_BUDGET)
        errors: list[str] = []
        for text, program in zip(self._texts, self._compiled(), strict=True):
            if isinstance(program, str):
                errors.append(f"compilation error: {program}")
                continue
            try:
                if program.evaluate(values, budget=budget) is False:
                    return False
            except CelError as error:
                if budget.exhausted:
                    errors = [out_of_budget()]
                    break
                errors.append(failed(text, error))
        if not errors:
            return True
        if self._ignores:
            return False
        raise ConditionsFailed(errors[0] if len(errors) == 1 else f"[{', '.join(dict.fromkeys(errors))}]")

    def _compiled(self) -> list[Program | str]:
        from pilothouse.apiserver.cel import CelCompileError, Environment  # noqa: PLC0415

        if self._programs is None:
            names = ["object", "oldObject", "request", "authorizer", "authorizer.requestResource", *self._names]
            environment = Environment(names)
            made: list[Program | str] = []
            for text in self._texts:
                try:
                    made.append(environment.compile(text, result="bool"))
                except CelCompileError as error:
                    made.append(str(error))
            self._programs = made
        return self._programs
