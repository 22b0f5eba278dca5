"""What requests say, by itself: bodies, options, selectors, continue tokens, and what a deletion makes of an object."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilothouse.apiserver.cache.entries import Entry, encode, form_of
from pilothouse.apiserver.model import Request
from pilothouse.apiserver.rest.bodies import media_type, read_body, read_yaml
from pilothouse.apiserver.rest.deletion import check_preconditions, decide, pod_grace
from pilothouse.apiserver.rest.gojson import syntax_error
from pilothouse.apiserver.rest.options import (
    DeleteOptions,
    delete_options,
    list_options,
    resource_version,
    write_options,
)
from pilothouse.apiserver.rest.tokens import NOW, Token, decode_token, encode_token
from pilothouse.apiserver.strategies.base import Strategy
from pilothouse.apiserver.strategies.kinds import strategy_for
from pilothouse.kinds.status import ApiStatus, BadRequest, Invalid, UnsupportedMediaType

Object = dict[str, Any]
DAY = datetime(2026, 1, 1, tzinfo=UTC)


def request(query: str = "", body: bytes = b"", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request("GET", f"/x?{query}", "/x", query, named, body)


class TestGoJson:
    # What Go's encoding/json answers.
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ('{"a"', "unexpected end of JSON input"),
            ('{"a":1', "unexpected end of JSON input"),
            ('"a', "unexpected end of JSON input"),
            ("[1,", "unexpected end of JSON input"),
            ("{a:1}", "invalid character 'a' looking for beginning of object key string"),
            ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
            ('{"a" 1}', "invalid character '1' after object key"),
            ('{"a":1 "b"}', "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("nul", "unexpected end of JSON input"),
            ("nulx", "invalid character 'x' in literal null (expecting 'l')"),
            ("tru3", "invalid character '3' in literal true (expecting 'e')"),
            ("-", "unexpected end of JSON input"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("01", "invalid character '1' after top-level value"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ('"\n"', "invalid character '\\n' in string literal"),
            ('"\\x"', "invalid character 'x' in string escape code"),
            ('"\\u12g4"', "invalid character 'g' in \\u hexadecimal character escape"),
            ("'a'", "invalid character '\\'' looking for beginning of value"),
            ("\x01", "invalid character '\\x01' looking for beginning of value"),
        ],
    )
    def test_messages(self, text: str, message: str) -> None:
        assert syntax_error(text.encode()) == message

    @given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=10))
    def test_json_has_no_errors(self, value: Any) -> None:
        assert syntax_error(json.dumps(value).encode()) == ""
        assert syntax_error(json.dumps({"a": value}, indent=1).encode()) == ""

    @given(st.text(alphabet='{}[]",:0123456789.eE+-truefalsn \\u', max_size=12))
    def test_it_agrees_with_a_decoder(self, text: str) -> None:
        try:
            json.loads(text)
        except ValueError:
            good = False
        else:
            good = True
        assert (syntax_error(text.encode()) == "") is good

    def test_deep_and_long_texts_are_no_danger(self) -> None:
        assert syntax_error(b"[" * 50_000) == "unexpected end of JSON input"
        assert syntax_error(b"[" * 10_000_000) == ""


class TestBodies:
    def test_media_types(self) -> None:
        assert media_type(request()) == "application/json"
        assert media_type(request(content_type="Application/YAML ; charset=utf-8")) == "application/yaml"
        with pytest.raises(UnsupportedMediaType) as caught:
            read_body(request(body=b"{}", content_type="text/html"), "Pod")
        assert caught.value.code == 415

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b"", "(<empty>)"),
            (b"{", "unexpected end of JSON input ({)"),
            (b"x", "(78)"),
            (b"[]", "cannot unmarshal array into Go value"),
            (b"7", "cannot unmarshal number into Go value"),
        ],
    )
    def test_what_is_no_object(self, body: bytes, words: str) -> None:
        with pytest.raises(BadRequest) as caught:
            read_body(request(body=body), "Pod")
        assert "must be of type Pod" in str(caught.value)
        assert words in str(caught.value)

    def test_a_body_shown_is_cut(self) -> None:
        with pytest.raises(BadRequest) as caught:
            read_body(request(body=b'{"password":"' + b"x" * 1000), "Secret")
        assert len(str(caught.value)) < 250

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("a: 1", {"a": 1}),
            ("a: 2020-01-01", {"a": "2020-01-01"}),
            ("a: 2001-12-14t21:59:43.10-05:00", {"a": "2001-12-14t21:59:43.10-05:00"}),
            ('{"a": [1, null]}', {"a": [1, None]}),
            ("a: &x [1]\nb: *x", {"a": [1], "b": [1]}),
        ],
    )
    def test_yaml(self, text: str, value: object) -> None:
        assert read_yaml(text.encode()) == value

    @pytest.mark.parametrize("text", ["a: [", "1: x", "a: !!set {b}", "a: !!binary aGk=", "--- a\n--- b", "&a [*a]"])
    def test_yaml_that_is_no_json(self, text: str) -> None:
        with pytest.raises(BadRequest, match="error converting YAML to JSON"):
            read_yaml(text.encode())


class TestOptions:
    def test_writes(self) -> None:
        found = write_options(request("fieldManager=m&fieldValidation=Strict&dryRun=All"), "CreateOptions")
        assert (found.manager, found.validation, found.dry_run) == ("m", "Strict", True)
        assert found.raw == {
            "kind": "CreateOptions",
            "apiVersion": "meta.k8s.io/v1",
            "dryRun": ["All"],
            "fieldManager": "m",
            "fieldValidation": "Strict",
        }
        agent = write_options(request(user_agent="kubectl/v1.36 (linux)"), "UpdateOptions")
        assert (agent.manager, agent.validation, agent.dry_run) == ("kubectl", "Warn", False)

    @pytest.mark.parametrize(
        ("query", "kind", "apply", "field"),
        [
            ("fieldManager=" + "x" * 129, "CreateOptions", False, "fieldManager"),
            ("fieldManager=%07", "CreateOptions", False, "fieldManager"),
            ("dryRun=Some", "UpdateOptions", False, "dryRun"),
            ("dryRun=All&dryRun=Some", "UpdateOptions", False, "dryRun"),
            ("fieldValidation=strict", "UpdateOptions", False, "fieldValidation"),
            ("force=true", "PatchOptions", False, "force"),
            ("", "PatchOptions", True, "fieldManager"),
        ],
    )
    def test_wrong_ones_of_writes(self, query: str, kind: str, apply: bool, field: str) -> None:
        with pytest.raises(Invalid) as caught:
            write_options(request(query), kind, apply=apply)
        assert caught.value.code == 422
        assert field in str(caught.value)

    def test_deletions(self) -> None:
        query = "gracePeriodSeconds=5&propagationPolicy=Orphan&dryRun=All"
        found = delete_options(request(query))
        assert (found.grace, found.propagation, found.dry_run) == (5, "Orphan", True)
        body = {"gracePeriodSeconds": 7, "preconditions": {"uid": "u", "resourceVersion": "9"}}
        found = delete_options(request(query, json.dumps(body).encode()))
        assert (found.grace, found.uid, found.resource_version, found.propagation) == (7, "u", "9", None)

    @pytest.mark.parametrize(
        "query",
        [
            "limit=x",
            "limit=1.5",
            "limit=99999999999999999999",
            "timeoutSeconds=x",
            "resourceVersion=a",
            "labelSelector=a%20in",
            "fieldSelector=a",
        ],
    )
    def test_wrong_ones_of_lists(self, query: str) -> None:
        for watch in (False, True):
            with pytest.raises(ApiStatus) as caught:
                list_options(request(query), watch=watch)
            assert caught.value.code == 400

    @pytest.mark.parametrize(
        ("query", "watch", "allowed"),
        [
            ("resourceVersionMatch=Exact&resourceVersion=1", False, True),
            ("resourceVersionMatch=Exact&resourceVersion=0", False, False),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=0", False, True),
            ("resourceVersionMatch=Exact", False, False),
            ("resourceVersionMatch=Other&resourceVersion=1", False, False),
            ("resourceVersionMatch=Exact&resourceVersion=1&continue=x", False, False),
            ("sendInitialEvents=true", False, False),
            ("sendInitialEvents=true", True, False),
            ("sendInitialEvents=true&resourceVersionMatch=Exact", True, False),
            ("sendInitialEvents=true&resourceVersionMatch=NotOlderThan", True, True),
            ("resourceVersionMatch=NotOlderThan&resourceVersion=1", True, False),
        ],
    )
    def test_which_versions_go_together(self, query: str, watch: bool, allowed: bool) -> None:
        if allowed:
            list_options(request(query), watch=watch)
            return
        with pytest.raises(Invalid):
            list_options(request(query), watch=watch)

    def test_versions(self) -> None:
        assert resource_version("") is None
        assert resource_version("0") == 0
        assert resource_version(str(2**64 - 1)) == 2**64 - 1
        for wrong in ("x", "-1", "+1", "1.0", " 1", str(2**64), "\uff11"):
            with pytest.raises(BadRequest, match="invalid resource version"):
                resource_version(wrong)


class TestTokens:
    @given(st.one_of(st.just(NOW), st.integers(1, 2**62)), st.text(min_size=1, max_size=40))
    def test_there_and_back(self, version: int, start: str) -> None:
        token = Token(version, start)
        if ".." in start.split("/"):
            with pytest.raises(BadRequest):
                decode_token(encode_token(token))
            return
        assert decode_token(encode_token(token)) == token

    @given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: base64.urlsafe_b64encode(data).decode()))
    def test_anything_else_is_a_bad_request(self, text: str) -> None:
        with pytest.raises(BadRequest, match="invalid continue token"):
            decode_token(text)

    @pytest.mark.parametrize(
        "content",
        [
            {"v": "v1", "rv": 1, "start": "a"},
            {"v": "meta.k8s.io/v1", "rv": 0, "start": "a"},
            {"v": "meta.k8s.io/v1", "rv": -2, "start": "a"},
            {"v": "meta.k8s.io/v1", "rv": 1, "start": ""},
            {"v": "meta.k8s.io/v1", "rv": 1, "start": "a/../b"},
            {"v": "meta.k8s.io/v1", "rv": "1", "start": "a"},
            {"v": "meta.k8s.io/v1", "start": "a"},
        ],
    )
    def test_made_up_ones(self, content: Object) -> None:
        text = base64.urlsafe_b64encode(msgspec.json.encode(content)).rstrip(b"=").decode()
        with pytest.raises(BadRequest, match="invalid continue token"):
            decode_token(text)


PLAIN, ORPHANING = Strategy(), Strategy(orphans_by_default=True)
POD = strategy_for("", "Pod")


def thing(*finalizers: str, **metadata: Any) -> Object:
    return {"metadata": {"name": "a", **({"finalizers": list(finalizers)} if finalizers else {}), **metadata}}


def pod(node: str = "n", phase: str = "Running", grace: int | None = 30, **metadata: Any) -> Object:
    spec: Object = {"nodeName": node} if node else {}
    if grace is not None:
        spec["terminationGracePeriodSeconds"] = grace
    return {**thing(**metadata), "spec": spec, "status": {"phase": phase}}


class TestDeciding:
    def test_what_nothing_holds_goes(self) -> None:
        before = thing()
        verdict = decide(before, DeleteOptions(), PLAIN, DAY)
        assert verdict.remove
        assert before == thing(), "the input is not changed"

    def test_finalizers_hold(self) -> None:
        verdict = decide(thing("x"), DeleteOptions(), PLAIN, DAY)
        assert (verdict.remove, verdict.changed) == (False, True)
        assert verdict.obj["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:00Z"
        again = decide(verdict.obj, DeleteOptions(), PLAIN, DAY)
        assert (again.remove, again.changed) == (False, False)

    @pytest.mark.parametrize(
        ("options", "strategy", "before", "after"),
        [
            (DeleteOptions(propagation="Orphan"), PLAIN, (), ("orphan",)),
            (DeleteOptions(propagation="Foreground"), PLAIN, (), ("foregroundDeletion",)),
            (DeleteOptions(propagation="Background"), ORPHANING, ("orphan", "x"), ("x",)),
            (DeleteOptions(propagation="Foreground"), PLAIN, ("orphan",), ("foregroundDeletion",)),
            (DeleteOptions(orphan=True), PLAIN, (), ("orphan",)),
            (DeleteOptions(orphan=False), ORPHANING, ("x",), ("x",)),
            (DeleteOptions(), ORPHANING, (), ("orphan",)),
            (DeleteOptions(), PLAIN, ("orphan",), ("orphan",)),
            (DeleteOptions(), ORPHANING, ("foregroundDeletion",), ("foregroundDeletion",)),
        ],
    )
    def test_dependents(
        self, options: DeleteOptions, strategy: Strategy, before: tuple[str, ...], after: tuple[str, ...]
    ) -> None:
        verdict = decide(thing(*before), options, strategy, DAY)
        assert tuple(verdict.obj["metadata"].get("finalizers", ())) == after
        assert verdict.remove is not bool(after)

    def test_pods_are_given_time(self) -> None:
        first = decide(pod(generation=1), DeleteOptions(), POD, DAY)
        metadata = first.obj["metadata"]
        assert (first.remove, first.changed) == (False, True)
        assert metadata["deletionTimestamp"] == "2026-01-01T00:00:30Z"
        assert metadata["deletionGracePeriodSeconds"] == 30
        assert metadata["generation"] == 2
        assert not decide(first.obj, DeleteOptions(), POD, DAY).changed
        assert not decide(first.obj, DeleteOptions(grace=40), POD, DAY).changed
        sooner = decide(first.obj, DeleteOptions(grace=5), POD, DAY)
        assert sooner.obj["metadata"]["deletionTimestamp"] == "2026-01-01T00:00:05Z"
        last = decide(first.obj, DeleteOptions(grace=0), POD, DAY)
        assert (last.remove, last.changed) == (True, True)
        again = decide(last.obj, DeleteOptions(), POD, DAY)
        assert (again.remove, again.changed) == (True, False)

    def test_time_that_is_over_is_not_shortened_into_the_past(self) -> None:
        first = decide(pod(), DeleteOptions(), POD, DAY)
        late = DAY + timedelta(seconds=60)
        metadata = decide(first.obj, DeleteOptions(grace=5), POD, late).obj["metadata"]
        assert (metadata["deletionTimestamp"], metadata["deletionGracePeriodSeconds"]) == ("2026-01-01T00:01:00Z", 1)

    @pytest.mark.parametrize(
        ("found", "asked", "seconds"),
        [
            (pod(), None, 30),
            (pod(), 5, 5),
            (pod(node=""), 30, 0),
            (pod(phase="Succeeded"), 30, 0),
            (pod(phase="Failed"), None, 0),
            (pod(grace=None), None, 0),
            (pod(grace=-1), None, 1),
        ],
    )
    def test_how_much(self, found: Object, asked: int | None, seconds: int) -> None:
        assert pod_grace(found, asked) == seconds

    def test_a_pod_with_finalizers_and_no_time(self) -> None:
        held = {**pod(), "metadata": thing("x")["metadata"]}
        verdict = decide(held, DeleteOptions(grace=0), POD, DAY)
        assert not verdict.remove
        assert verdict.obj["metadata"]["deletionGracePeriodSeconds"] == 0

    def test_preconditions(self) -> None:
        found = thing(uid="u", resourceVersion="7")
        for good in (DeleteOptions(), DeleteOptions(uid="u"), DeleteOptions(resource_version="7")):
            assert check_preconditions(found, good, "", "Pod", "a") is None
        for bad in (DeleteOptions(uid="v"), DeleteOptions(resource_version="8"), DeleteOptions(uid="")):
            refusal = check_preconditions(found, bad, "", "Pod", "a")
            assert refusal is not None
            assert refusal.code == 409


@given(
    st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["x", "y"])),
    st.sampled_from(["a=x", "a", "!a", "a!=x,b"]),
)
def test_label_selectors_on_stored_bytes(labels: dict[str, str], selector: str) -> None:
    """Selecting by what is read from the bytes is selecting by the whole object."""
    obj = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "n", "labels": labels}}
    entry = Entry("n", encode(obj), 3, form_of("v1", "ConfigMap", custom=False))
    options = list_options(request(urlencode({"labelSelector": selector})), watch=False)
    wanted = {"a=x": labels.get("a") == "x", "a": "a" in labels, "!a": "a" not in labels,
              "a!=x,b": labels.get("a") != "x" and "b" in labels}[selector]  # fmt: skip
    assert options.labels.matches(entry.metadata.labels) is wanted
