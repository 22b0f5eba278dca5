"""The scheme: what is known, what is refused, and that refusals name the remedy."""

from __future__ import annotations

import pytest

from pilothouse.kinds.structs import ConfigMap, CronJob, Deployment, Resource, Struct, TokenRequest
from pilothouse.kinds.structs._resource import types_made
from pilothouse.operator.errors import NotRegistered, SchemeConflict
from pilothouse.operator.scheme import Scheme


class Website(Resource, group="scheme.example.com", version="v1", plural="websites"):
    """A kind of our own."""


class Twin(Resource, group="scheme.example.com", version="v1", kind="Website", plural="websites"):
    """Another type of the same kind."""


def test_built_in_types_are_known_and_own_ones_once_they_are_registered() -> None:
    scheme = Scheme()
    assert Deployment in scheme
    assert Website not in scheme
    assert Website in scheme.register(Website, Website)
    assert [*scheme] == [Website]
    assert Website not in Scheme()
    scheme.check(Website)
    scheme.check(ConfigMap)


def test_an_unregistered_type_is_an_error_that_names_the_remedy() -> None:
    with pytest.raises(NotRegistered, match=r"Website \(Website of scheme.example.com/v1\) is not registered; .*"):
        Scheme().check(Website)
    with pytest.raises(NotRegistered, match=r"scheme=Scheme\(Website\)\) or manager.scheme.register\(Website\)"):
        Scheme().check(Website)
    with pytest.raises(NotRegistered, match=r"Deployment of apps/v1\) is not registered"):
        Scheme(built_in=False).check(Deployment)


def test_one_kind_has_one_type() -> None:
    with pytest.raises(SchemeConflict, match=r"Website of scheme.example.com/v1 is registered as .*Website already"):
        Scheme(Website, Twin)
    with pytest.raises(NotRegistered, match=r"is .*Website here, use that class"):
        Scheme(Website).check(Twin)


@pytest.mark.parametrize("kind", [Struct, Resource, str, "Website", TokenRequest])
def test_what_is_no_type_of_resource_is_refused(kind: type[Resource]) -> None:
    with pytest.raises(NotRegistered, match=r"no type of resource|no plural"):
        Scheme().register(kind)
    assert kind not in Scheme()


def test_types_are_found_by_kind() -> None:
    scheme = Scheme(Website)
    assert scheme.type_of("scheme.example.com", "v1", "Website") is Website
    assert scheme.type_of("apps", "v1", "Deployment") is Deployment
    with pytest.raises(NotRegistered, match=r"no type is registered for Gadget of x.io/v1; write `class Gadget"):
        scheme.type_of("x.io", "v1", "Gadget")


def test_another_class_for_a_built_in_kind_counts_where_it_is_registered_alone() -> None:
    class Mine(Resource, group="batch", version="v1", kind="CronJob", plural="cronjobs"):
        """Somebody's own idea of cron jobs."""

    try:
        assert Scheme().type_of("batch", "v1", "CronJob") is CronJob
        assert Scheme(Mine).type_of("batch", "v1", "CronJob") is Mine
    finally:
        types_made["batch", "v1", "CronJob"] = CronJob
