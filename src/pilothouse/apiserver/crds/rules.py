"""The rules of a schema (`x-kubernetes-validations`): compiled once, run within a cost budget, as Kubernetes does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pilothouse.apiserver.cel.costs import estimate
from pilothouse.apiserver.cel.errors import CelCompileError
from pilothouse.apiserver.cel.program import Environment, Program
from pilothouse.apiserver.cel.syntax import Call, children
from pilothouse.apiserver.cel.syntax import Node as Syntax
from pilothouse.apiserver.cel.types import Type, optional_of
from pilothouse.apiserver.crds.celtypes import Convert, converter, declared, escape
from pilothouse.apiserver.crds.fieldpaths import FieldPathError, resolve
from pilothouse.apiserver.crds.structural import Node, Rule

__all__ = ["CompiledRule", "RuleNode", "compile_rule", "compile_rules", "has_rules"]

_COMPARING = frozenset({"_==_", "_!=_", "_+_", "@in"})
_AGGREGATES = frozenset({"list", "map", "object", "dyn"})


@dataclass(slots=True)
class CompiledRule:
    """A rule with its programs, or what is wrong with it. cost, message_cost: the most that one evaluation costs."""

    rule: Rule
    program: Program | None = None
    error: str = ""
    message: Program | None = None
    message_error: str = ""
    cost: int = 0
    message_cost: int = 0
    uses_old: bool = False
    field_path: str = ""


@dataclass(slots=True)
class RuleNode:
    """A node of a schema at which, or below which, there are rules."""

    node: Node
    rules: list[CompiledRule] = field(default_factory=list)
    convert: Convert | None = None
    properties: dict[str, RuleNode] = field(default_factory=dict)
    additional: RuleNode | None = None
    items: RuleNode | None = None
    all_of: list[RuleNode] = field(default_factory=list)
    error: str = ""

    @property
    def empty(self) -> bool:
        """Whether nothing has to be run here or below."""
        return not (self.rules or self.properties or self.additional or self.items or self.all_of or self.error)


def has_rules(node: Node | None) -> bool:
    """Whether there are rules at a node or below it."""
    if node is None:
        return False
    below = [*node.properties.values(), *node.all_of]
    additional = node.additional if isinstance(node.additional, Node) else None
    return bool(node.rules) or has_rules(node.items) or has_rules(additional) or any(map(has_rules, below))


class _Environments:
    """The two environments of a node's rules: with `oldSelf` as it is, and optional."""

    def __init__(self, self_type: Type) -> None:
        self._type = self_type
        self._made: dict[bool, Environment] = {}

    def get(self, *, optional: bool) -> Environment:
        if optional not in self._made:
            old = optional_of(self._type) if optional else self._type
            variables: Mapping[str, Type] = {"self": self._type, "oldSelf": old}
            self._made[optional] = Environment(variables)
        return self._made[optional]


def compile_rule(rule: Rule, node: Node, environments: _Environments | Type) -> CompiledRule:
    """Compile one rule of a node; what is wrong is said in the result. An empty rule has no program."""
    if isinstance(environments, Type):
        environments = _Environments(environments)
    made = CompiledRule(rule)
    if not rule.rule.strip():
        return made
    environment = environments.get(optional=rule.optional_old_self)
    try:
        made.program = environment.compile(rule.rule)
    except CelCompileError as error:
        made.error = str(error)
        return made
    if made.program.type.kind != "bool":
        made.program = None
        made.error = "cel expression must evaluate to a bool"
        return made
    made.uses_old = "oldSelf" in made.program.variables
    made.cost = estimate(made.program.root)
    if rule.message_expression:
        _compile_message(made, environment)
    if rule.field_path:
        try:
            made.field_path = resolve(rule.field_path, node)[0]
        except FieldPathError:
            made.field_path = ""
    return made


def _compile_message(made: CompiledRule, environment: Environment) -> None:
    try:
        message = environment.compile(made.rule.message_expression)
    except CelCompileError as error:
        made.message_error = f"messageExpression {error}"
        return
    if message.type.kind != "string":
        made.message_error = "messageExpression must evaluate to a string"
        return
    made.message = message
    made.message_cost = estimate(message.root)


def compile_rules(node: Node, *, root: bool = True) -> RuleNode | None:
    """Compile all rules of a schema; None where there are none. root: of a whole resource."""
    if not has_rules(node):
        return None
    made = _compiled(node, node, declared(node, root=root), root=root)
    return None if made.empty else made


def _compiled(rules: Node, node: Node, self_type: Type | None, *, root: bool) -> RuleNode:
    """Compile a node: rules are those of `rules`, which may be one of the `allOf` of `node`."""
    made = RuleNode(node)
    if rules.rules:
        if self_type is None:
            made.error = "failed to convert to declType for CEL validation rules"
        else:
            environments = _Environments(self_type)
            made.rules = [compile_rule(rule, node, environments) for rule in rules.rules]
            made.convert = converter(node, lists=any(map(_compares, made.rules)))
    if rules.items is not None and node.items is not None and has_rules(rules.items):
        inner = self_type.params[0] if self_type is not None and self_type.kind == "list" else None
        made.items = _compiled(rules.items, node.items, inner, root=node.items.embedded)
    for name, part in _properties(rules, node):
        found = _property_type(name, part, self_type)
        if found is not None:
            made.properties[name] = _compiled(rules.properties[name], part, found, root=part.embedded)
    if isinstance(rules.additional, Node) and isinstance(node.additional, Node) and has_rules(rules.additional):
        inner = self_type.params[1] if self_type is not None and self_type.kind == "map" else None
        made.additional = _compiled(rules.additional, node.additional, inner, root=node.additional.embedded)
    nested = [_compiled(part, node, self_type, root=root) for part in rules.all_of if has_rules(part)]
    made.all_of = [each for each in nested if not each.empty]
    return made


def _properties(rules: Node, node: Node) -> Iterator[tuple[str, Node]]:
    for name, part in rules.properties.items():
        if name in node.properties and has_rules(part):
            yield name, node.properties[name]


def _property_type(name: str, part: Node, self_type: Type | None) -> Type | None:
    escaped = escape(name)
    if escaped is None:
        return declared(part, root=part.embedded)
    if self_type is None or self_type.kind != "object":
        return None
    found = self_type.fields.get(escaped)
    return None if found is None else found.type


def _compares(compiled: CompiledRule) -> bool:
    """Whether a rule compares or adds what may be lists, so that it matters how they merge."""
    programs = [program for program in (compiled.program, compiled.message) if program is not None]
    return any(_compares_in(program.root) for program in programs)


def _compares_in(node: Syntax) -> bool:
    compares = isinstance(node, Call) and node.function in _COMPARING
    if compares and any(part.type.kind in _AGGREGATES for part in children(node)):
        return True
    return any(map(_compares_in, children(node)))
