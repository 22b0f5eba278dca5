"""The sentence that describes webhooks, the configurations that it becomes, and what is refused with the way out."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from typing import Any

import pytest

import pilothouse.operator
from pilothouse.client import Client
from pilothouse.kinds.structs import Pod, Resource
from pilothouse.operator import (
    AdmissionRequest,
    BuildError,
    Manager,
    Mutator,
    NotRegistered,
    Validator,
    WebhookOptions,
    definition,
    webhook,
    webhook_manifests,
)
from pilothouse.operator.webhook_configurations import conversion_of, conversion_patch, covers
from pilothouse.operator.webhook_injection import bundle_patch
from support.webhookkit import CONVERSIONS, Page, PageV1, PageV3, manager_of


class NoTransport:
    """Carries nothing: building asks no server."""

    async def aclose(self) -> None:
        """End nothing."""


def managed(**options: Any) -> Manager:
    return manager_of(Client(NoTransport()), 0, options=options)  # type: ignore[arg-type]


def fill(obj: Page, request: AdmissionRequest) -> Page:
    return obj


def judge(new: Page, request: AdmissionRequest) -> None:
    return None


class Deletions(Validator[Page]):
    def delete(self, old: Page, request: AdmissionRequest) -> None:
        return None


def test_golden_configurations() -> None:
    manager = managed(service="space/hooks", service_port=8443)
    webhook(manager).for_(Page).defaulted_by(fill).validated_by(Deletions()).with_options(
        failure_policy="Ignore",
        timeout_seconds=5,
        match_conditions={"not-kube": "!request.userInfo.username.startsWith('system:')"},
        namespace_selector={"matchLabels": {"team": "a"}},
        side_effects="NoneOnDryRun",
        subresources=["status"],
    ).build()
    config = {"name": "hooks", "namespace": "space", "port": 8443}
    shared = {
        "admissionReviewVersions": ["v1"],
        "failurePolicy": "Ignore",
        "timeoutSeconds": 5,
        "sideEffects": "NoneOnDryRun",
        "matchPolicy": "Equivalent",
        "namespaceSelector": {"matchLabels": {"team": "a"}},
        "objectSelector": {},
        "matchConditions": [
            {"name": "not-kube", "expression": "!request.userInfo.username.startsWith('system:')"},
        ],
    }
    rule = {
        "apiGroups": ["hooks.example.com"],
        "apiVersions": ["v2"],
        "resources": ["pages", "pages/status"],
        "scope": "Namespaced",
    }
    metadata = {"name": "pages", "labels": {"app.kubernetes.io/managed-by": "pilothouse"}}
    assert webhook_manifests(manager, ca=b"PEM") == [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "MutatingWebhookConfiguration",
            "metadata": metadata,
            "webhooks": [
                {
                    "name": "mutate.pages.v2.hooks.example.com",
                    "clientConfig": {
                        "service": {**config, "path": "/mutate-hooks-example-com-v2-page"},
                        "caBundle": "UEVN",
                    },
                    "rules": [{**rule, "operations": ["CREATE", "UPDATE"]}],
                    "reinvocationPolicy": "Never",
                    **shared,
                }
            ],
        },
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": metadata,
            "webhooks": [
                {
                    "name": "validate.pages.v2.hooks.example.com",
                    "clientConfig": {
                        "service": {**config, "path": "/validate-hooks-example-com-v2-page"},
                        "caBundle": "UEVN",
                    },
                    "rules": [{**rule, "operations": ["CREATE", "UPDATE", "DELETE"]}],
                    **shared,
                }
            ],
        },
    ]
    assert "caBundle" not in str(webhook_manifests(manager))


def test_raw_webhooks_and_core_kinds_have_names_and_paths_too() -> None:
    manager = managed()
    hooks = (
        webhook(manager, "exec")
        .for_resources("pods/exec")
        .validated_by(lambda _: None)
        .with_options(operations=["CONNECT"])
        .build()
    )
    hooks += webhook(manager).for_(Pod).validated_by(lambda new, _: None).build()
    hooks += webhook(manager, "second").for_(Pod).validated_by(lambda new, _: None).build()
    assert [(hook.name, hook.path, hook.rule.resources, hook.rule.operations) for hook in hooks] == [
        ("validate.exec.pages.webhooks", "/validate-exec", ("pods/exec",), ("CONNECT",)),
        ("validate.pods.v1.core", "/validate--v1-pod", ("pods",), ("CREATE", "UPDATE")),
        ("validate-second.pods.v1.core", "/validate--v1-pod-second", ("pods",), ("CREATE", "UPDATE")),
    ]
    (made,) = webhook_manifests(manager)
    assert made["webhooks"][1]["clientConfig"] == {"url": "https://127.0.0.1:0/validate--v1-pod"}


def test_conversion_goes_into_the_definition() -> None:
    manager = managed(service="space/hooks")
    assert conversion_of(manager, Page) is None
    assert webhook(manager).for_(Page).converted_by(*CONVERSIONS).build() == []
    assert webhook_manifests(manager) == []
    wanted = {
        "strategy": "Webhook",
        "webhook": {
            "clientConfig": {"service": {"namespace": "space", "name": "hooks", "path": "/convert", "port": 443}},
            "conversionReviewVersions": ["v1"],
        },
    }
    assert definition(PageV1, Page, PageV3, conversion=conversion_of(manager, Page))["spec"]["conversion"] == wanted
    assert manager.webhooks is not None
    assert conversion_patch(manager.webhooks.options, Page)["spec"] == {"conversion": wanted}
    with pytest.raises(BuildError, match="converted_by is said twice for Page"):
        webhook(manager).for_(Page).converted_by(*CONVERSIONS).build()


class Unknown(Resource, group="hooks.example.com", version="v1", plural="unknowns"):
    """A kind that nobody registered."""


@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda start: start().for_(Page).build(), r"Page: nothing to do; say defaulted_by"),
        (lambda start: start("x").for_resources("pods").build(), r"x: nothing to do; say mutated_by"),
        (lambda start: start().for_resources("pods"), "has to have a name"),
        (lambda start: start("x").for_resources(), "for_resources\\(\\) of nothing"),
        (lambda start: start("x").for_resources("pods", versions="v1"), "is one text; write a list"),
        (lambda start: start("X"), "webhook name 'X': want lower-case"),
        (lambda start: start().for_(Page).validated_by(Deletions), "Deletions is a class; pass Deletions()"),
        (lambda start: start().for_(Page).defaulted_by(3), r"defaulted_by\(3\) is neither a function"),
        (lambda start: start().for_(Page).validated_by(judge).validated_by(judge), "validated_by is said twice"),
        (lambda start: start().for_(Page).with_options(timeout_seconds=31), "timeout_seconds=31; want 1 to 30"),
        (
            lambda start: start().for_(Page).with_options(failure_policy="fail"),
            "failure_policy='fail'; want one of Fail",
        ),
        (lambda start: start().for_(Page).with_options(operations=["PATCH"]), "operation 'PATCH'; want some of CREATE"),
        (
            lambda start: start().for_(Page).validated_by(judge).with_options(subresources=["scale"]).build(),
            r"pages/scale are no Page; use webhook\(manager, 'name'\).for_resources\('pages/scale'",
        ),
        (
            lambda start: start().for_(Page).defaulted_by(fill).with_options(operations=["DELETE"]).build(),
            "a DELETE none to be changed",
        ),
        (
            lambda start: (
                start().for_(Page).validated_by(judge).build(),
                start().for_(Page).validated_by(judge).build(),
            ),
            "/validate-hooks-example-com-v2-page: there is one already; name the other",
        ),
    ],
)
def test_what_cannot_work_is_refused(build: Any, why: str) -> None:
    manager = managed()
    with pytest.raises(BuildError, match=why):
        build(lambda name="": webhook(manager, name))


def test_kinds_and_managers_that_are_not_ready_for_it() -> None:
    with pytest.raises(NotRegistered, match="Unknown"):
        webhook(managed()).for_(Unknown)
    bare = Manager(Client(NoTransport()))  # type: ignore[arg-type]
    for refused in (lambda: webhook(bare), lambda: webhook_manifests(bare)):
        with pytest.raises(
            BuildError, match=r"this manager serves no webhooks; make it with Manager\(client, webhooks="
        ):
            refused()
    with pytest.raises(TypeError, match="abstract"):
        Mutator()  # type: ignore[abstract]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"name": "Pages", "url": "https://a"}, "no name of an object"),
        ({"name": "a"}, "wants either service='NAMESPACE/NAME' or url="),
        ({"name": "a", "service": "a/b", "url": "https://a"}, "wants either"),
        ({"name": "a", "service": "hooks"}, r"service='hooks'\) is not of the form NAMESPACE/NAME"),
        ({"name": "a", "url": "http://a"}, "over https:// alone"),
        ({"name": "a", "url": "https://a?b=c"}, "without user, query"),
        ({"name": "a", "url": "https://a", "secret": "x"}, r"secret='x'\) is not of the form"),
        ({"name": "a", "url": "https://a", "secret": "x/y", "certificate_dir": "/z"}, "leave out one of both"),
        ({"name": "a", "url": "https://a", "max_in_flight": 0}, "want 1 or more"),
    ],
)
def test_options_that_cannot_work_are_refused(words: dict[str, Any], why: str) -> None:
    with pytest.raises(BuildError, match=why):
        WebhookOptions(**words)


def test_hosts_and_the_secret_follow_from_where_it_is() -> None:
    service = WebhookOptions(name="pages", service="space/hooks")
    assert service.hosts == ("hooks.space.svc", "hooks.space.svc.cluster.local", "hooks.space")
    assert service.secret_name("default") == ("space", "pages-webhooks")
    url = WebhookOptions(name="pages", url="https://[::1]:9443/base/", secret="a/b")
    assert url.hosts == ("::1",)
    assert url.secret_name("default") == ("a", "b")
    assert url.client_config("/x")["url"] == "https://[::1]:9443/base/x"


# What a configuration lacks


def test_what_servers_add_is_no_lack() -> None:
    wanted = {"webhooks": [{"name": "a", "rules": [{"operations": ["CREATE"]}], "namespaceSelector": {}}]}
    present = {
        "metadata": {"resourceVersion": "1"},
        "webhooks": [
            {"name": "other"},
            {"name": "a", "rules": [{"operations": ["CREATE"], "scope": "*"}], "namespaceSelector": {}, "more": 1},
        ],
    }
    assert covers(present, wanted)
    assert not covers({"webhooks": [{"name": "a", "rules": []}]}, wanted)
    assert not covers({}, wanted)
    assert not covers(None, wanted)


def test_the_bundle_alone_is_put_right_at_the_version_seen() -> None:
    def config(bundle: str) -> dict[str, Any]:
        return {"clientConfig": {"url": "https://a", **({"caBundle": bundle} if bundle else {})}}

    present = {
        "metadata": {"resourceVersion": "5"},
        "webhooks": [{"name": "theirs", **config("x")}, {"name": "a", **config("old")}, {"name": "b", **config("")}],
    }
    wanted = {"webhooks": [{"name": "a", **config("new")}, {"name": "b", **config("new")}]}
    assert bundle_patch(present, wanted) == [
        {"op": "replace", "path": "/metadata/resourceVersion", "value": "5"},
        {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": "new"},
        {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": "new"},
    ]
    assert bundle_patch(wanted, wanted) == []
    assert bundle_patch({"webhooks": []}, wanted) == []
    crd = {"spec": {"conversion": {"strategy": "Webhook", "webhook": config("old")}}}
    fresh = {"spec": {"conversion": {"strategy": "Webhook", "webhook": config("new")}}}
    patch = bundle_patch({"metadata": {"resourceVersion": "7"}, **crd}, fresh)
    assert patch[1]["path"] == "/spec/conversion/webhook/clientConfig/caBundle"
    assert bundle_patch({"spec": {"conversion": {"strategy": "None"}}}, fresh) == []


def test_no_module_hides_a_public_name() -> None:
    modules = {found.name for found in pkgutil.iter_modules(pilothouse.operator.__path__)}
    assert modules.isdisjoint(pilothouse.operator.__all__)


def test_an_operator_without_webhooks_loads_nothing_of_them() -> None:
    program = (
        "import sys; from pilothouse.client import Client; from pilothouse.operator import Manager; "
        "Manager(Client(type('T', (), {})())); "
        "print([name for name in sys.modules if 'webhook' in name or 'cryptography' in name or 'aiohttp' in name])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
