"""The builder of webhooks: what is asked about which objects, described in a sentence.

`webhook(manager).for_(Website).defaulted_by(fill_in).validated_by(WebsiteValidator()).build()`
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeVar, get_args

from pilothouse.kinds.structs import Resource

from .errors import BuildError
from .webhook_conversion import Conversions
from .webhook_handlers import (
    Handle,
    MutateFunction,
    Mutator,
    RawMutateFunction,
    RawMutation,
    RawValidateFunction,
    RawValidation,
    TypedMutation,
    TypedValidation,
    ValidateFunction,
    Validator,
)
from .webhook_options import Hook, HookOptions, Operation, Rule, texts

if TYPE_CHECKING:
    from .manager import Manager
    from .webhook_server import Webhooks

__all__ = ["RawWebhookBuilder", "WebhookBuilder", "WebhookStart", "webhook"]

R = TypeVar("R", bound=Resource)

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,40}[a-z0-9])?")
_TYPED_SUBRESOURCES: Final = ("status",)


def webhook(manager: Manager, name: str = "") -> WebhookStart:
    """Begin to describe webhooks of a manager. name: part of their names and paths, where a kind has several.

    Raises BuildError for a name that is none, and for a manager without `webhooks`.
    """
    return WebhookStart(manager, name)


class WebhookStart:
    """Webhooks of which it is still to be said what they are about."""

    def __init__(self, manager: Manager, name: str = "") -> None:
        if name and not _NAME.fullmatch(name):
            raise BuildError(f"webhook name {name!r}: want lower-case letters, digits and '-', at most 42")
        if manager.webhooks is None:
            raise BuildError(
                "this manager serves no webhooks; make it with Manager(client, webhooks=WebhookOptions(name=..., "
                "service='NAMESPACE/NAME')), or url='https://HOST:PORT' where it runs outside of the cluster"
            )
        self._manager = manager
        self._webhooks: Webhooks = manager.webhooks
        self._name = name

    def for_(self, kind: type[R]) -> WebhookBuilder[R]:
        """Ask about objects of a kind, in its version. Raises NotRegistered."""
        self._manager.scheme.check(kind)
        return WebhookBuilder(self._webhooks, self._name, kind)

    def for_resources(self, *resources: str, group: str = "", versions: Sequence[str] = ("v1",)) -> RawWebhookBuilder:
        """Ask about any resources, with their subresources (`pods`, `pods/exec`, `*`), whose objects are dictionaries.

        Raises BuildError without a name, which there is no kind to take it from.
        """
        if not self._name:
            raise BuildError("webhook: one for resources has to have a name: webhook(manager, 'name').for_resources()")
        if not resources:
            raise BuildError(f"webhook {self._name}: for_resources() of nothing; name some, such as 'pods'")
        rule = Rule((group,), texts("versions", versions), tuple(resources), ("CREATE", "UPDATE"))
        return RawWebhookBuilder(self._webhooks, self._name, rule)


class _Options:
    """What all builders of webhooks share: options, operations and subresources."""

    _label: str

    def __init__(self, webhooks: Webhooks) -> None:
        self._webhooks = webhooks
        self._options = HookOptions()
        self._operations: tuple[Operation, ...] | None = None
        self._subresources: tuple[str, ...] = ()
        self._scope: Literal["*", "Cluster", "Namespaced"] = "*"

    def with_options(  # noqa: PLR0913  the words of a webhook
        self,
        *,
        failure_policy: Literal["Fail", "Ignore"] | None = None,
        timeout_seconds: int | None = None,
        match_conditions: Mapping[str, str] | None = None,
        namespace_selector: Mapping[str, Any] | None = None,
        object_selector: Mapping[str, Any] | None = None,
        side_effects: Literal["None", "NoneOnDryRun"] | None = None,
        match_policy: Literal["Equivalent", "Exact"] | None = None,
        reinvocation_policy: Literal["Never", "IfNeeded"] | None = None,
        operations: Sequence[Operation] | None = None,
        subresources: Sequence[str] | None = None,
    ) -> Self:
        """Set options of all webhooks of this sentence, see `HookOptions`; those not given stay. Raises BuildError.

        operations: which ones are asked about. subresources: besides the objects themselves, such as `status`.
        """
        given = {
            "failure_policy": failure_policy,
            "timeout_seconds": timeout_seconds,
            "match_conditions": match_conditions,
            "namespace_selector": namespace_selector,
            "object_selector": object_selector,
            "side_effects": side_effects,
            "match_policy": match_policy,
            "reinvocation_policy": reinvocation_policy,
        }
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        try:
            self._options = dataclasses.replace(self._options, **changes)
        except ValueError as error:
            raise BuildError(f"webhook {self._label}: {error}") from error
        if operations is not None:
            self._operations = self._checked(operations)
        if subresources is not None:
            self._subresources = texts("subresources", subresources)
        return self

    def _checked(self, operations: Sequence[Operation]) -> tuple[Operation, ...]:
        known = get_args(Operation)
        for operation in operations:
            if operation not in known:
                raise BuildError(f"webhook {self._label}: operation {operation!r}; want some of {', '.join(known)}")
        return tuple(operations)


class WebhookBuilder(_Options, Generic[R]):
    """Webhooks for objects of one kind, as far as they are described."""

    def __init__(self, webhooks: Webhooks, name: str, kind: type[R]) -> None:
        super().__init__(webhooks)
        self._name = name
        self._kind = kind
        self._label = kind.__name__
        self._mutation: TypedMutation[R] | None = None
        self._validation: TypedValidation[R] | None = None
        self._conversions: Conversions | None = None
        self._scope = "Namespaced" if kind.namespaced else "Cluster"

    def defaulted_by(self, mutator: Mutator[R] | MutateFunction[R]) -> Self:
        """Have objects changed before they are stored.

        mutator: an object of `Mutator`, or a function or coroutine function that takes the object and the request and
        returns the object as it shall be.
        """
        self._check_object(mutator, self._mutation, "defaulted_by")
        self._mutation = TypedMutation(self._kind, mutator)
        return self

    def validated_by(self, validator: Validator[R] | ValidateFunction[R]) -> Self:
        """Have objects judged before they are stored.

        validator: an object of `Validator`, or a function or coroutine function that takes the new object and the
        request, returns warnings or None, and raises Denied to refuse.
        """
        self._check_object(validator, self._validation, "validated_by")
        self._validation = TypedValidation(self._kind, validator)
        return self

    def converted_by(self, *functions: Callable[[Any], Resource]) -> Self:
        """Have objects converted between versions, of which this kind is the hub: all others convert to and from it.

        functions: one from each other version and one back, as `converts` checks them. Raises BuildError where one is
        missing.
        """
        self._conversions = Conversions(self._kind, functions)
        return self

    def build(self) -> list[Hook]:
        """Give the webhooks to the manager, which serves them. Raises BuildError."""
        hooks = []
        if self._mutation is not None:
            hooks.append(self._hook("mutate", self._mutation, ("CREATE", "UPDATE")))
        if self._validation is not None:
            deletions: tuple[Operation, ...] = ("DELETE",) if self._validation.judges_deletions else ()
            hooks.append(self._hook("validate", self._validation, ("CREATE", "UPDATE", *deletions)))
        if not hooks and self._conversions is None:
            raise BuildError(
                f"webhook {self._label}: nothing to do; say defaulted_by(...), validated_by(...) or converted_by(...)"
            )
        self._webhooks.add(*hooks)
        if self._conversions is not None:
            self._webhooks.add_conversions(self._conversions)
        return hooks

    def _hook(self, verb: Literal["mutate", "validate"], handle: Handle, default: tuple[Operation, ...]) -> Hook:
        kind = self._kind
        group, version, name = kind.gvk
        operations = self._operations or default
        self._check_typed(verb, operations)
        resources = (str(kind.plural), *(f"{kind.plural}/{one}" for one in self._subresources))
        suffix = f"-{self._name}" if self._name else ""
        return Hook(
            f"{verb}{suffix}.{kind.plural}.{version}.{group or 'core'}",
            f"/{verb}-{group.replace('.', '-')}-{version}-{name.lower()}{suffix}",
            verb == "mutate",
            Rule((group,), (version,), resources, operations, self._scope),
            self._options,
            handle,
        )

    def _check_typed(self, verb: str, operations: Sequence[Operation]) -> None:
        for one in self._subresources:
            if one not in _TYPED_SUBRESOURCES:
                raise BuildError(
                    f"webhook {self._label}: objects of {self._kind.plural}/{one} are no {self._kind.__name__}; use "
                    f"webhook(manager, 'name').for_resources('{self._kind.plural}/{one}', group={self._kind.group!r})"
                )
        if "CONNECT" in operations or (verb == "mutate" and "DELETE" in operations):
            raise BuildError(
                f"webhook {self._label}: a CONNECT has no {self._kind.__name__}, and a DELETE none to be changed; "
                " leave these operations out, or use for_resources"
            )

    def _check_object(self, given: object, present: object, word: str) -> None:
        if isinstance(given, type):
            raise BuildError(f"webhook {self._label}: {given.__name__} is a class; pass {given.__name__}()")
        if not callable(given) and not isinstance(given, Validator | Mutator):
            raise BuildError(f"webhook {self._label}: {word}({given!r}) is neither a function nor one of our classes")
        if present is not None:
            raise BuildError(f"webhook {self._label}: {word} is said twice; name another: webhook(manager, 'name')")


class RawWebhookBuilder(_Options):
    """A webhook for any resources, as far as it is described."""

    def __init__(self, webhooks: Webhooks, name: str, rule: Rule) -> None:
        super().__init__(webhooks)
        self._label = self._name = name
        self._rule = rule
        self._handles: dict[Literal["mutate", "validate"], Handle] = {}

    def mutated_by(self, function: RawMutateFunction) -> Self:
        """Have objects changed: a function or coroutine function that takes the request and returns the object.

        It may change and return `request.object`; None leaves it.
        """
        self._handles["mutate"] = RawMutation(function)
        return self

    def validated_by(self, function: RawValidateFunction) -> Self:
        """Have requests judged: a function that returns warnings or None, and raises Denied to refuse."""
        self._handles["validate"] = RawValidation(function)
        return self

    def build(self) -> list[Hook]:
        """Give the webhooks to the manager, which serves them. Raises BuildError."""
        if not self._handles:
            raise BuildError(f"webhook {self._name}: nothing to do; say mutated_by(...) or validated_by(...)")
        resources = self._rule.resources
        below = (f"{one}/{sub}" for one in resources for sub in self._subresources)
        rule = dataclasses.replace(
            self._rule,
            resources=(*resources, *below),
            operations=self._operations or self._rule.operations,
        )
        options = self._webhooks.options
        hooks = [
            Hook(
                f"{verb}.{self._name}.{options.name if '.' in options.name else f'{options.name}.webhooks'}",
                f"/{verb}-{self._name}",
                verb == "mutate",
                rule,
                self._options,
                handle,
            )
            for verb, handle in self._handles.items()
        ]
        self._webhooks.add(*hooks)
        return hooks
