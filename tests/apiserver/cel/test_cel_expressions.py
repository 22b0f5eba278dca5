"""Expressions give what Kubernetes' CEL gives, and fail with its words."""

from __future__ import annotations

import pytest

from pilothouse.apiserver.cel import (
    Authorizer,
    Budget,
    CelCompileError,
    CelError,
    CostExceededError,
    Environment,
    LazyMap,
)
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Attributes, Decision

ENVIRONMENT = Environment(["self", "oldSelf", "authorizer", "variables"])
_PARSE = "parse error during conversion from string:"
_BITS = "prefix length out of range"
_QUANTITY = "^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$"
SELF = {
    "size": 5,
    "a": {"b": {"c": "x"}},
    "list": [{"name": f"n{at}", "v": at} for at in range(20)],
    "words": ["b", "a", "b"],
}


def evaluate(text: str, **values: object) -> object:
    return ENVIRONMENT.compile(text).evaluate({"self": SELF, **values})


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("1 + 2 * 3", 7),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("7u % 2u == 1u", True),
        ("1.5 + 1.0", 2.5),
        ("'a' + 'b'", "ab"),
        ("[1] + [2]", [1, 2]),
        ("[1, 2, 3].map(x, x * 2)", [2, 4, 6]),
        ("[1, 2, 3].map(x, x > 1, x * 2)", [4, 6]),
        ("{'a': 1}.a", 1),
        ("self.?nope.orValue(7)", 7),
        ("self.?size.hasValue()", True),
        ("self.?a.?b.c.orValue('z')", "x"),
        ("self.?a.optMap(x, x.b.c)", "x"),
        ("self.words[?9].orValue('none')", "none"),
        ("[?self.?size, ?self.?nope]", [5]),
        ("{?'a': self.?nope, 'b': 1}", {"b": 1}),
        ("optional.of(3).value()", 3),
        ("optional.ofNonZeroValue('').hasValue()", False),
        ("optional.none().or(optional.of(2)).value()", 2),
        ("[1, 2, 3].sum()", 6),
        ("[3, 1, 2].min() + [3, 1, 2].max()", 4),
        ("['b', 'a'].sort()", ["a", "b"]),
        ("[3, 1, 2].sortBy(x, -x)", [3, 2, 1]),
        ("[[1], [2, 3]].flatten()", [1, 2, 3]),
        ("self.words.distinct()", ["b", "a"]),
        ("self.words.indexOf('b')", 0),
        ("self.words.lastIndexOf('b')", 2),
        ("self.words.isSorted()", False),
        ("[1, 2].includes(2)", True),
        ("lists.range(3)", [0, 1, 2]),
        ("[1, 2, 3].slice(0, 2)", [1, 2]),
        ("[1, 2, 3].reverse()", [3, 2, 1]),
        ("sets.contains([1, 2], [1])", True),
        ("sets.equivalent([1, 2, 1], [2, 1])", True),
        ("sets.intersects([1], [2])", False),
        ("quantity('1Gi').isGreaterThan(quantity('1Mi'))", True),
        ("quantity('1k').add(5).asInteger()", 1005),
        ("quantity('500m').asApproximateFloat()", 0.5),
        ("quantity('1000m') == quantity('1')", True),
        ("isQuantity('1X')", False),
        ("url('https://a.b:80/x?y=1&y=2').getQuery()", {"y": ["1", "2"]}),
        ("url('https://[::1]:80/x').getHostname()", "::1"),
        ("isURL('../x')", False),
        ("ip('10.0.0.1').family()", 4),
        ("ip('::1').isLoopback()", True),
        ("ip.isCanonical('2001:DB8::')", False),
        ("isIP('10.0.0.256')", False),
        ("cidr('10.0.0.0/8').containsIP('10.1.2.3')", True),
        ("cidr('10.0.0.0/8').containsCIDR(cidr('10.1.0.0/16'))", True),
        ("string(cidr('10.1.2.3/8').masked())", "10.0.0.0/8"),
        ("semver('1.2.3').isLessThan(semver('1.10.0'))", True),
        ("semver('1.0.0-alpha').compareTo(semver('1.0.0'))", -1),
        ("semver('v1.2', true).minor()", 2),
        ("isSemver('v1.2')", False),
        ("format.dns1123Label().validate('a').hasValue()", False),
        ("format.named('uuid').value().validate('x').value()", ["does not match the UUID format"]),
        ("'abc123'.find('[0-9]+')", "123"),
        ("'a1b2'.findAll('[0-9]', 1)", ["1"]),
        ("'%s-%d-%.2f'.format(['x', 3, 1.5])", "x-3-1.50"),
        ("'%e'.format([3.14])", "3.140000\u00d710⁰⁰"),
        ("b'\\u00e9'.size()", 2),
        ("duration('1s').getMilliseconds()", 1000),
        ("dyn([1, 2]).flatten()", [1, 2]),
        ("string(timestamp('2011-08-18T19:03:37.01+01:00'))", "2011-08-18T19:03:37.01+01:00"),
        ("url('https://a/b c').getEscapedPath()", "/b%20c"),
        ("'%s'.format([{'b': [1], 'a': [2]}])", "{a: [2], b: [1]}"),
        ("duration('1h').getMinutes()", 60),
        ("string(duration('90m'))", "5400s"),
        ("type(ip('1.2.3.4')) == net.IP && type(quantity('1')) == kubernetes.Quantity", True),
        ("timestamp('2021-01-01T00:00:00Z').getDayOfWeek('America/New_York')", 4),
        ("timestamp('2021-01-01T00:00:00Z') + duration('1h')", "2021-01-01T01:00:00Z"),
        ("timestamp('2021-01-01T00:00:00.5Z') - timestamp('2021-01-01T00:00:00Z') == duration('500ms')", True),
        ("{'a': 1, 'b': 2}.transformMap(k, v, v + 1)", {"a": 2, "b": 3}),
        ("{'a': 1}.transformMapEntry(k, v, {v: k})", {1: "a"}),
        ("['x', 'y'].transformList(i, v, i > 0, v)", ["y"]),
        ("{'a': 1}.all(k, v, k == 'a' && v > 0)", True),
        ("['x'].exists(i, v, i == 1)", False),
        ("type(1) == int && type(self) == map && type('') != bool", True),
        ("string(1.5) + string(true) + string(1e6)", "1.5true1e+06"),
        ("int('12') + int(2.9)", 14),
        ("dyn(1) == dyn(1.0) && dyn(1) != dyn(true) && 1 < 1.5", True),
        ("1 in {1: 2} && 'a' in ['a'] && !('c' in self.words)", True),
        ("[1, 2, 3].exists_one(x, x == 2)", True),
        ("'hello'.substring(1, 3) + 'hello'.charAt(4)", "elo"),
        ("' x '.trim() + 'ABC'.lowerAscii()", "xabc"),
        ("'a,b,c'.split(',', 2).join('|')", "a|b,c"),
        ("'banana'.replace('a', 'o', 2)", "bonona"),
        ("strings.quote('a\"b')", '"a\\"b"'),
        ("self.list.filter(i, i.v > 17).map(i, i.name).join(',')", "n18,n19"),
        ("false && (1 / 0 > 1)", False),
        ("(1 / 0 > 1) || true", True),
        ("[1, 0].exists(x, 1 / x > 0)", True),
        ("[0, 1].all(x, 1 / x > 5)", False),
        ("has(self.a.b) && !has(self.a.c)", True),
        ("true ? 1 : 1 / 0", 1),
        ('b"\\xff" == b"\\377"', True),
        ("'\\u00e9'.size() + bytes('\\u00e9').size()", 3),
        ("0x1F + 1", 32),
        ("- -1", 1),
        ("-9223372036854775808 < 0", True),
    ],
)
def test_an_expression_gives(text: str, result: object) -> None:
    assert evaluate(text) == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("self.nope", "no such key: nope"),
        ("self.a['x']", "no such key: x"),
        ("1 / 0", "division by zero"),
        ("1 % 0", "modulus by zero"),
        ("9223372036854775807 + self.size", "integer overflow"),
        ("self.words[7]", "index out of bounds: 7"),
        ("self.size + 'a'", "no such overload"),
        ("self.size.foo", "no such overload"),
        ("int(self.words[0])", 'strconv.ParseInt: parsing "b": invalid syntax'),
        ("optional.none().value()", "optional.none() dereference"),
        (
            "ip('1.2.3.4.5')",
            f'IP Address "1.2.3.4.5" {_PARSE} ParseAddr("1.2.3.4.5"): IPv4 address too long',
        ),
        (
            "cidr('1.0.0.0/33')",
            f'network address {_PARSE} network address {_PARSE} netip.ParsePrefix("1.0.0.0/33"): {_BITS}',
        ),
        ("quantity('1X').sign()", f"quantities must match the regular expression '{_QUANTITY}'"),
        ("oldSelf == 1", "no such attribute(s): oldSelf"),
        ("self.words.min() == self.list.min()", "no such overload"),
        ("[1, 2].slice(2, 1)", "cannot slice(2, 1), start index must be less than or equal to end index"),
    ],
)
def test_an_evaluation_fails_with(text: str, message: str) -> None:
    with pytest.raises(CelError) as failed:
        evaluate(text)
    assert str(failed.value) == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("foo", "ERROR: <input>:1:1: undeclared reference to 'foo' (in container '')\n | foo\n | ^"),
        (
            "self.size > 1 + 'a'",
            (
                "ERROR: <input>:1:15: found no matching overload for '_+_' applied to '(int, string)'\n"
                " | self.size > 1 + 'a'\n | ..............^"
            ),
        ),
        ("[1, 'a']", "ERROR: <input>:1:5: expected type 'int' but found 'string'\n | [1, 'a']\n | ....^"),
        ("'a'.foo()", "ERROR: <input>:1:8: undeclared reference to 'foo' (in container '')\n | 'a'.foo()\n | .......^"),
        ("has(self)", "ERROR: <input>:1:5: invalid argument to has() macro\n | has(self)\n | ....^"),
        (
            "size(1)",
            "ERROR: <input>:1:5: found no matching overload for 'size' applied to '(int)'\n | size(1)\n | ....^",
        ),
        (
            "'a'.size(1)",
            (
                "ERROR: <input>:1:9: found no matching overload for 'size' applied to 'string.(int)'\n"
                " | 'a'.size(1)\n | ........^"
            ),
        ),
        (
            "1.all(x, x)",
            (
                "ERROR: <input>:1:1: expression of type 'int' cannot be range of a comprehension"
                " (must be list, map, or dynamic)\n | 1.all(x, x)\n | ^"
            ),
        ),
        (
            "1 +",
            (
                "ERROR: <input>:1:4: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true',"  # noqa: E501
                " 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | 1 +\n | ...^"
            ),
        ),
    ],
)
def test_a_compilation_fails_with(text: str, message: str) -> None:
    with pytest.raises(CelCompileError) as failed:
        ENVIRONMENT.compile(text)
    assert str(failed.value) == f"compilation failed: {message}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'a'.matches('(')", "1:13: invalid matches argument"),
        ("duration('x')", "1:10: invalid duration argument"),
        ("timestamp('x')", "1:11: invalid timestamp argument"),
        ("timestamp(-62135596801)", "1:11: invalid timestamp argument"),
        ("'a'.find(')')", "program instantiation failed: error parsing regexp: unexpected"),
        ("self.true", "1:6: Syntax error: mismatched input 'true' expecting IDENTIFIER"),
        ("self! == 1", "1:5: Syntax error: mismatched input '!' expecting {<EOF>"),
    ],
)
def test_literals_that_can_never_be_right_do_not_compile(text: str, message: str) -> None:
    with pytest.raises(CelCompileError, match=message):
        ENVIRONMENT.compile(text)


def test_the_result_must_be_of_the_wanted_type() -> None:
    with pytest.raises(CelCompileError, match="must evaluate to bool"):
        ENVIRONMENT.compile("1", result="bool")
    assert ENVIRONMENT.compile("self.a", result="bool").evaluate({"self": {"a": True}}) is True


def test_programs_are_remembered() -> None:
    assert ENVIRONMENT.compile("self.size") is ENVIRONMENT.compile("self.size")


def test_the_authorizer_is_asked() -> None:
    asked: list[Attributes] = []

    def authorize(attributes: Attributes) -> Decision:
        asked.append(attributes)
        return Decision(attributes.verb == "get", "because")

    found = Authorizer(User("ann"), authorize)
    text = "authorizer.group('apps').resource('deployments').namespace('x').check('{}').allowed()"
    assert evaluate(text.format("get"), authorizer=found) is True
    assert evaluate(text.format("list"), authorizer=found) is False
    assert evaluate("authorizer.path('/healthz').check('get').reason()", authorizer=found) == "because"
    assert evaluate("authorizer.serviceAccount('ns', 'sa').path('/x').check('get').allowed()", authorizer=found) is True
    assert (asked[0].group, asked[0].resource, asked[0].namespace, asked[0].user.name) == (
        "apps",
        "deployments",
        "x",
        "ann",
    )
    assert asked[3].user.name == "system:serviceaccount:ns:sa"
    with pytest.raises(CostExceededError):
        evaluate("[1, 2, 3].all(x, authorizer.path('/x').check('get').allowed())", authorizer=found)


def test_variables_of_policies_are_made_when_needed() -> None:
    made: list[str] = []

    def one() -> int:
        made.append("a")
        return 1

    variables = LazyMap({"a": one, "b": one})
    assert evaluate("variables.a == 1 && variables.a == 1 && has(variables.b)", variables=variables) is True
    assert made == ["a"]


def test_what_costs_too_much_is_stopped() -> None:
    numbers = list(range(300))
    with pytest.raises(CostExceededError, match="operation cancelled: actual cost limit exceeded"):
        evaluate("self.all(a, self.all(b, self.all(c, a <= 1000)))", self=numbers)
    budget = Budget(1000)
    assert evaluate("self.all(a, a >= 0)", self=numbers[:10]) is True
    with pytest.raises(CostExceededError):
        ENVIRONMENT.compile("self.all(a, a >= 0)").evaluate({"self": numbers}, budget=budget)
    assert budget.exhausted
    with pytest.raises(CostExceededError):
        evaluate("lists.range(1000000).size()")


@pytest.mark.parametrize(
    "text", ["self.all(x, self.indexOf(x) >= 0)", "self.all(x, x in self)", "self.distinct() == []"]
)
def test_large_values_cost_more_to_look_for(text: str) -> None:
    large = [{"pad": ["same"] * 1000, "n": at} for at in range(600)]
    with pytest.raises(CostExceededError):
        evaluate(text, self=large)


@pytest.mark.parametrize("text", ["(" * 500 + "1" + ")" * 500, "[" * 300, "a." * 5000 + "a", "1" * 90000])
def test_hostile_texts_are_refused(text: str) -> None:
    with pytest.raises(CelCompileError):
        ENVIRONMENT.compile(text)


def test_patterns_take_linear_time() -> None:
    assert evaluate("self.matches('^(a+)+$')", self="a" * 5000 + "b") is False


def test_policies_make_objects() -> None:
    environment = Environment(["object"], objects=True)
    program = environment.compile("Object{spec: Object.spec{replicas: object.n + 1, ?x: object.?x}}")
    assert program.evaluate({"object": {"n": 1}}) == {"spec": {"replicas": 2}}
    program = environment.compile("[JSONPatch{op: 'add', path: '/' + jsonpatch.escapeKey('a/b'), value: 1}]")
    assert program.evaluate({"object": {}}) == [{"op": "add", "path": "/a~1b", "value": 1}]
    with pytest.raises(CelCompileError):
        ENVIRONMENT.compile("Object{}")
