"""Impersonation: acting as somebody else, for those who may."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from pilothouse.apiserver.access.forbidden import forbidden_because
from pilothouse.apiserver.access.frontproxy import unescaped
from pilothouse.apiserver.access.users import (
    ANONYMOUS_NAME,
    AUTHENTICATED,
    MASTERS,
    NODE_NAME,
    NODES,
    UNAUTHENTICATED,
    node_of,
    service_account_groups,
    split_service_account,
)
from pilothouse.apiserver.model import Request, User
from pilothouse.apiserver.ports import Attributes, Authorizer
from pilothouse.kinds.fielderrors import quote
from pilothouse.kinds.status import BadRequest, Forbidden

__all__ = ["impersonated", "wanted_user"]

_USER: Final = "impersonate-user"
_UID: Final = "impersonate-uid"
_GROUP: Final = "impersonate-group"
_EXTRA: Final = "impersonate-extra-"
_AUTHENTICATION: Final = "authentication.k8s.io"
_MANY: Final = 4
"""From so many groups or values of extra on, the right to all of them is asked for first."""
_EXTRA_KEY: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[a-z0-9A-Z._~!$&'()*+,;=:@%/-]+").fullmatch
_ASSOCIATED: Final = "authentication.kubernetes.io/associated-node-keys"


def wanted_user(request: Request) -> User | None:
    """Return whom a request's headers ask to act as, None where they ask for nobody. Raises BadRequest."""
    name, uid = request.headers.get(_USER, ""), request.headers.get(_UID, "")
    if not name and not any(header.startswith("impersonate-") for header in request.headers):
        return None
    groups = tuple(request.all_headers(_GROUP))
    extra: dict[str, tuple[str, ...]] = {}
    for header, value in request.header_list:
        if header.startswith(_EXTRA):
            key = unescaped(header[len(_EXTRA) :])
            extra[key] = (*extra.get(key, ()), value)
    wanted = User(name, uid, groups, extra)
    if name:
        return wanted
    if uid or groups or extra:
        raise BadRequest(f"requested {_go(wanted)} without impersonating a user name")
    return None


def _go(user: User) -> str:
    """Write a user as Go's `%#v` does."""
    groups = _go_strings(user.groups)
    pairs = ", ".join(f"{quote(key)}:{_go_strings(user.extra[key])}" for key in sorted(user.extra))
    extra = f"map[string][]string{{{pairs}}}" if user.extra else "map[string][]string(nil)"
    return f"&user.DefaultInfo{{Name:{quote(user.name)}, UID:{quote(user.uid)}, Groups:{groups}, Extra:{extra}}}"


def _go_strings(texts: Sequence[str]) -> str:
    return f"[]string{{{', '.join(map(quote, texts))}}}" if texts else "[]string(nil)"


def impersonated(wanted: User, attributes: Attributes, authorizer: Authorizer) -> User:
    """Return the user to act as, if the one who asks (`attributes.user`) may.

    attributes: of the request itself. The narrow ways are tried first (acting as a node, a service account or another
    user for this one verb), the right to impersonate for everything last, as Kubernetes 1.36 does. Raises Forbidden
    with what the first way that applies lacks.
    """
    first: Forbidden | None = None
    for mode in _MODES:
        if not mode.applies(wanted, attributes.user):
            continue
        try:
            return _Attempt(mode, wanted, attributes, authorizer).user()
        except Forbidden as error:
            first = first or error
    raise first or forbidden_because(attributes, "all impersonation modes failed")


class _Mode(NamedTuple):
    name: str
    """Empty for the right to impersonate for everything."""
    applies: Callable[[User, User], bool]


def _only_name(wanted: User) -> bool:
    return not wanted.uid and not wanted.groups and not wanted.extra


def _own_node(wanted: User, requester: User) -> bool:
    node = node_of(wanted.name)
    account = split_service_account(requester.name)
    return bool(_only_name(wanted) and node and account and requester.extra.get(NODE_NAME) == (node,))


_MODES: Final = (
    _Mode("associated-node", _own_node),
    _Mode("arbitrary-node", lambda wanted, _: _only_name(wanted) and bool(node_of(wanted.name))),
    _Mode("serviceaccount", lambda wanted, _: _only_name(wanted) and split_service_account(wanted.name) is not None),
    _Mode("user-info", lambda wanted, _: not node_of(wanted.name) and split_service_account(wanted.name) is None),
    _Mode("", lambda wanted, requester: True),
)


class _Attempt:
    """One way to impersonate, tried for one request."""

    def __init__(self, mode: _Mode, wanted: User, attributes: Attributes, authorizer: Authorizer) -> None:
        self._wanted = wanted
        self._narrow = bool(mode.name)
        self._verb = f"impersonate:{mode.name}" if mode.name else "impersonate"
        self._authorizer = authorizer
        self._requester = attributes.user
        self._node_name: str | None = None
        self._mode = mode.name
        self._attributes = attributes

    def user(self) -> User:
        """Return the user to act as. Raises Forbidden."""
        if self._mode == "associated-node":
            # which node is settled already, so the right is asked for all, as are the rights of all its pods
            self._node_name = "*"
            keys = tuple(sorted(self._requester.extra))
            self._requester = replace(self._requester, extra={_ASSOCIATED: keys})
        if self._narrow:
            verb = f"impersonate-on:{self._mode}:{self._attributes.verb}"
            self._check(replace(self._attributes, user=self._requester, verb=verb))
        groups = self._check_name()
        if self._wanted.uid:
            self._check(self._asks(_AUTHENTICATION, "uids", self._wanted.uid))
        self._check_groups()
        self._check_extra()
        return replace(self._wanted, groups=_completed(self._wanted.name, groups))

    def _check(self, attributes: Attributes) -> None:
        decision = self._authorizer.authorize(attributes)
        if not decision.allowed:
            raise forbidden_because(attributes, decision.reason)

    def _asks(self, group: str, resource: str, name: str, namespace: str = "", subresource: str = "") -> Attributes:
        return Attributes(
            self._requester,
            self._verb,
            group=group,
            version="v1",
            resource=resource,
            subresource=subresource,
            namespace=namespace,
            name=name,
        )

    @property
    def _core(self) -> str:
        return _AUTHENTICATION if self._narrow else ""

    def _check_name(self) -> tuple[str, ...]:
        """Check the name and return the groups that come with it."""
        name, groups = self._wanted.name, self._wanted.groups
        node, account = node_of(name), split_service_account(name)
        if self._narrow and node:
            self._check(self._asks(self._core, "nodes", self._node_name or node))
            return (NODES,)
        if account:
            namespace, own = account
            self._check(self._asks(self._core, "serviceaccounts", own, namespace))
            return groups or service_account_groups(namespace)
        self._check(self._asks(self._core, "users", name))
        return groups

    def _check_groups(self) -> None:
        groups = self._wanted.groups
        if not groups:
            return
        asked = self._asks(self._core, "groups", "")
        if self._narrow and "" in groups:
            raise forbidden_because(asked, "impersonating the empty string group is not allowed")
        if self._narrow and MASTERS in groups:
            named = replace(asked, name=MASTERS)
            raise forbidden_because(named, "impersonating the system:masters group is not allowed")
        if self._narrow and len(groups) >= _MANY and self._allows(replace(asked, name="*")):
            return
        for group in groups:
            self._check(replace(asked, name=group))

    def _check_extra(self) -> None:
        extra = self._wanted.extra
        if not extra:
            return
        asked = self._asks(_AUTHENTICATION, "userextras", "")
        if self._narrow:
            for wrong in _wrong_extra(extra):
                raise forbidden_because(asked, wrong)
            many = sum(map(len, extra.values())) >= _MANY
            if many and self._allows(replace(asked, subresource="*", name="*")):
                return
        for key, values in extra.items():
            for value in values:
                self._check(replace(asked, subresource=key, name=value))

    def _allows(self, attributes: Attributes) -> bool:
        return self._authorizer.authorize(attributes).allowed


def _wrong_extra(extra: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for key, values in extra.items():
        if not key:
            yield "impersonating the empty string key in extra is not allowed"
        elif key != key.lower():
            yield f"impersonating a non-lowercase key in extra is not allowed: {quote(key)}"
        elif not _EXTRA_KEY(key):
            told = 'must be a domain-prefixed path (such as "acme.io/foo")'
            yield (
                f"impersonating an invalid key in extra is not allowed: extra.key: Invalid value: {quote(key)}: {told}"
            )
        elif "" in values:
            yield "impersonating the empty string value in extra is not allowed"


def _completed(name: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    if name == ANONYMOUS_NAME:
        return groups if UNAUTHENTICATED in groups else (*groups, UNAUTHENTICATED)
    if UNAUTHENTICATED in groups or AUTHENTICATED in groups:
        return groups
    return (*groups, AUTHENTICATED)
