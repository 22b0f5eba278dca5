"""What expressions of webhooks and policies see, and conditions whether to ask them at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from pilothouse.apiserver.admission.matching import Match
from pilothouse.apiserver.ports import AdmissionRequest, Authorizer, Gvk, Gvr, Object

if TYPE_CHECKING:
    from pilothouse.apiserver.cel import Budget, Environment, Program
    from pilothouse.apiserver.cel.program import Result

__all__ = [
    "CONDITION_BUDGET",
    "Conditions",
    "ConditionsFailed",
    "EvaluationFailed",
    "OutOfBudget",
    "activation",
    "compiled",
    "evaluate",
    "options_of",
    "plain_environment",
    "request_value",
    "user_info",
]

CONDITION_BUDGET: Final = 2_500_000
"""What the conditions of one webhook or policy may cost."""

_OPTIONS: Final = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}


class EvaluationFailed(Exception):
    """An expression does not compile or could not be evaluated; the message is Kubernetes'."""


class OutOfBudget(EvaluationFailed):
    """The expressions of one policy cost too much together."""

    def __init__(self) -> None:
        super().__init__("validation failed due to running out of cost budget, no further validation rules will be run")


def compiled(environment: Environment, text: str, result: Result) -> Program | str:
    """Compile an expression; return why it does not compile instead where it does not."""
    from pilothouse.apiserver.cel import CelCompileError  # noqa: PLC0415

    try:
        return environment.compile(text, result=result)
    except CelCompileError as error:
        return str(error)


def evaluate(program: Program | str, text: str, values: Mapping[str, Any], budget: Budget) -> Any:
    """Evaluate an expression. Raises EvaluationFailed, OutOfBudget where the budget does not suffice."""
    from pilothouse.apiserver.cel import CelError  # noqa: PLC0415

    if isinstance(program, str):
        raise EvaluationFailed(f"compilation error: {program}")
    try:
        return program.evaluate(values, budget=budget)
    except CelError as error:
        if budget.exhausted:
            raise OutOfBudget from None
        raise EvaluationFailed(f"expression '{text}' resulted in error: {error}") from None


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

    environment: where they are compiled; by default with `object`, `oldObject`, `request` and the authorizer's.
    """

    def __init__(
        self,
        found: Sequence[Mapping[str, Any]],
        failure_policy: str,
        environment: Callable[[], Environment] | None = None,
    ) -> None:
        self._texts = tuple(str(one.get("expression") or "") for one in found)
        self._ignores = failure_policy == "Ignore"
        self._environment = environment or plain_environment
        self._programs: list[Program | str] | None = None

    def __bool__(self) -> bool:
        return bool(self._texts)

    def hold(self, values: Mapping[str, Any]) -> bool:
        """Whether all conditions hold. One that is false decides; else raises ConditionsFailed for one that failed."""
        from pilothouse.apiserver.cel import Budget  # noqa: PLC0415

        if self._programs is None:
            environment = self._environment()
            self._programs = [compiled(environment, text, "bool") for text in self._texts]
        budget = Budget(CONDITION_BUDGET)
        errors: list[str] = []
        for text, program in zip(self._texts, self._programs, strict=True):
            try:
                if evaluate(program, text, values, budget) is False:
                    return False
            except OutOfBudget as error:
                errors = [str(error)]
                break
            except EvaluationFailed as error:
                errors.append(str(error))
        if not errors:
            return True
        if self._ignores:
            return False
        raise ConditionsFailed(errors[0] if len(errors) == 1 else f"[{', '.join(dict.fromkeys(errors))}]")


@cache
def plain_environment() -> Environment:
    """Return the environment of webhooks' conditions."""
    from pilothouse.apiserver.cel import Environment  # noqa: PLC0415

    return Environment(["object", "oldObject", "request", "authorizer", "authorizer.requestResource"])
