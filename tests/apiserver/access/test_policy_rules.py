from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.access.rules import PolicyRule, Rule, compact, covers, described
from pilothouse.apiserver.model import User
from pilothouse.apiserver.ports import Attributes
from support.accessview import asks, rule, urls

WHO = User("who")
verbs = st.sampled_from(["get", "list", "create", "*"])
groups = st.sampled_from(["", "apps", "*"])
resources = st.sampled_from(["pods", "pods/log", "*/log", "*/scale", "deployments", "*", "pods/scale"])
names = st.sampled_from(["a", "b"])
paths = st.sampled_from(["/", "/a", "/a/*", "/a/b", "*", "/a*", "/b/**"])


def some(values: st.SearchStrategy[str], least: int = 1) -> st.SearchStrategy[list[str]]:
    return st.lists(values, min_size=least, max_size=3, unique=True)


resource_rules = st.fixed_dictionaries(
    {"verbs": some(verbs), "apiGroups": some(groups), "resources": some(resources)},
    optional={"resourceNames": some(names, 0)},
)
path_rules = st.fixed_dictionaries({"verbs": some(verbs), "nonResourceURLs": some(paths)})
rules: st.SearchStrategy[PolicyRule] = st.one_of(resource_rules, path_rules)
plain_paths = st.sampled_from(["/", "/a", "/a/", "/a/b", "/ab", "/b/", "/b"])
requests = st.one_of(
    st.builds(
        lambda verb, group, resource, sub, name: Attributes(
            WHO, verb, group=group, resource=resource, subresource=sub, name=name
        ),
        st.sampled_from(["get", "list", "create", "watch"]),
        st.sampled_from(["", "apps", "batch"]),
        st.sampled_from(["pods", "deployments"]),
        st.sampled_from(["", "log", "scale", "status"]),
        st.sampled_from(["", "a", "b", "c"]),
    ),
    st.builds(
        lambda verb, path: Attributes(WHO, verb, is_resource=False, path=path),
        st.sampled_from(["get", "create"]),
        plain_paths,
    ),
)


def naive(rule: dict[str, Any], wanted: Attributes) -> bool:
    """Match as Kubernetes documents it, word by word."""
    if not any(verb in {"*", wanted.verb} for verb in rule["verbs"]):
        return False
    if not wanted.is_resource:
        return any(
            url in {"*", wanted.path} or (url.endswith("*") and wanted.path.startswith(url.rstrip("*")))
            for url in rule.get("nonResourceURLs", [])
        )
    if not any(group in {"*", wanted.group} for group in rule.get("apiGroups", [])):
        return False
    combined = f"{wanted.resource}/{wanted.subresource}" if wanted.subresource else wanted.resource
    if not any(
        one in {"*", combined} or (wanted.subresource and one == f"*/{wanted.subresource}")
        for one in rule.get("resources", [])
    ):
        return False
    return not rule.get("resourceNames") or wanted.name in rule["resourceNames"]


@given(rules, requests)
def test_a_rule_allows_what_the_naive_model_allows(source: PolicyRule, wanted: Attributes) -> None:
    assert Rule(source).allows(wanted) == naive(source, wanted)


@given(st.lists(rules, max_size=3), st.lists(rules, max_size=2), st.lists(requests, min_size=5, max_size=15))
def test_rules_that_are_covered_allow_nothing_more(
    owned: list[PolicyRule], wanted: list[PolicyRule], asked: list[Attributes]
) -> None:
    missing = covers(owned, wanted)
    for request in asked:
        held, given_ = (any(naive(one, request) for one in some) for some in (owned, wanted))
        if given_ and not held:
            assert any(naive(one, request) for one in missing)


@given(st.lists(rules, max_size=3))
def test_rules_cover_themselves_and_everything_is_covered_by_all(some_rules: list[PolicyRule]) -> None:
    assert covers(some_rules, some_rules) == []
    everything = [rule("*", "*", "*"), urls("*", "*")]
    assert covers(everything, some_rules) == []
    assert covers([], some_rules) == covers([], covers([], some_rules))


def test_what_is_missing_is_told_in_parts_and_joined_by_resource() -> None:
    missing = covers([rule("get", "", "pods")], [rule("get,list,watch", "", "pods,secrets"), urls("get", "/metrics")])
    assert [described(one) for one in sorted(compact(missing), key=str)] == [
        '{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}',
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list" "watch"]}',
        '{NonResourceURLs:["/metrics"], Verbs:["get"]}',
    ]
    named = covers([], [rule("get", "apps", "deployments", "a,b")])
    assert [described(one) for one in named] == [
        '{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["a"], Verbs:["get"]}',
        '{APIGroups:["apps"], Resources:["deployments"], ResourceNames:["b"], Verbs:["get"]}',
    ]


def test_a_holder_of_some_names_does_not_hold_all() -> None:
    assert covers([rule("get", "", "secrets", "a")], [rule("get", "", "secrets")])
    assert not covers([rule("get", "", "secrets")], [rule("get", "", "secrets", "a")])
    assert not covers([rule("get", "*", "*/scale")], [rule("get", "apps", "deployments/scale")])
    assert covers([rule("get", "*", "*/scale")], [rule("get", "apps", "deployments")])


def test_a_rule_of_paths_allows_no_resource_and_the_other_way_round() -> None:
    assert not Rule(urls("*", "*")).allows(asks(WHO, "get", "pods"))
    assert not Rule(rule("*", "*", "*")).allows(Attributes(WHO, "get", is_resource=False, path="/metrics"))
