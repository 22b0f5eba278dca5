"""The auth store: etcd's rules and texts, merged permissions against a key-by-key oracle, tokens and secrecy."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pilothouse.store.auth import (
    Auth,
    AuthCommand,
    AuthDisable,
    AuthEnable,
    AuthInfo,
    AuthState,
    Permission,
    PermissionType,
    RoleAdd,
    RoleDelete,
    RoleGrantPermission,
    RoleRevokePermission,
    UserAdd,
    UserChangePassword,
    UserDelete,
    UserGrantRole,
    UserRevokeRole,
)
from pilothouse.store.auth_tokens import DUMMY_HASH, SimpleTokens, hash_password, verify_password
from pilothouse.store.errors import AuthError
from pilothouse.store.model import Compare, DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest

READ, WRITE, READWRITE = PermissionType


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def grant(role: str, kind: PermissionType, key: bytes, range_end: bytes = b"") -> RoleGrantPermission:
    return RoleGrantPermission(role, Permission(kind, key, range_end))


def enabled(*commands: AuthCommand) -> Auth:
    """Return a store with a root user and authentication enabled, on which the commands were applied."""
    auth = Auth(SimpleTokens(Clock()))
    for command in (UserAdd("root", b"hash"), UserGrantRole("root", "root"), AuthEnable(), *commands):
        auth.apply(command)
    return auth


def refused(auth: Auth, command: AuthCommand, text: str, code: int) -> None:
    before = auth.dump()
    with pytest.raises(AuthError) as caught:
        auth.apply(command)
    assert (caught.value.message, caught.value.code) == (text, code)
    assert auth.dump() == before


def may(auth: Auth, name: str, key: bytes, range_end: bytes = b"", *, write: bool = False) -> bool:
    check = auth.require_write if write else auth.require_read
    try:
        check(AuthInfo(name, auth.revision), key, range_end)
    except AuthError as error:
        if (error.message, error.code) != ("etcdserver: permission denied", 7):
            raise
        return False
    return True


def test_enabling_wants_a_root_user_with_the_root_role() -> None:
    auth = Auth()
    refused(auth, AuthEnable(), "etcdserver: root user does not exist", 9)
    auth.apply(UserAdd("root", b"hash"))
    refused(auth, AuthEnable(), "etcdserver: root user does not have root role", 9)
    auth.apply(UserGrantRole("root", "root"))
    auth.apply(AuthEnable())
    auth.apply(AuthEnable())
    assert auth.enabled
    # etcd counts from 1; enabling is no change of users or roles, disabling is one.
    assert auth.revision == 3
    auth.apply(AuthDisable())
    auth.apply(AuthDisable())
    assert (auth.enabled, auth.revision) == (False, 4)


@pytest.mark.parametrize(
    ("command", "text", "code"),
    [
        (UserAdd("", b"h"), "etcdserver: user name is empty", 3),
        (UserAdd("ann", b"h"), "etcdserver: user name already exists", 9),
        (UserDelete("bob"), "etcdserver: user name not found", 9),
        (UserDelete("root"), "etcdserver: invalid auth management", 3),
        (UserChangePassword("bob", b"h"), "etcdserver: user name not found", 9),
        (UserGrantRole("bob", "dev"), "etcdserver: user name not found", 9),
        (UserGrantRole("ann", "ops"), "etcdserver: role name not found", 9),
        (UserRevokeRole("bob", "dev"), "etcdserver: user name not found", 9),
        (UserRevokeRole("ann", "dev"), "etcdserver: role is not granted to the user", 9),
        (UserRevokeRole("root", "root"), "etcdserver: invalid auth management", 3),
        (RoleAdd(""), "etcdserver: role name is empty", 3),
        (RoleAdd("dev"), "etcdserver: role name already exists", 9),
        (RoleDelete("ops"), "etcdserver: role name not found", 9),
        (RoleDelete("root"), "etcdserver: invalid auth management", 3),
        (RoleGrantPermission("dev"), "etcdserver: permission not given", 3),
        (grant("ops", READ, b"a"), "etcdserver: role name not found", 9),
        (grant("dev", READ, b""), "etcdserver: invalid auth management", 3),
        (grant("dev", READ, b"b", b"a"), "etcdserver: invalid auth management", 3),
        (grant("dev", READ, b"b", b"b"), "etcdserver: invalid auth management", 3),
        (RoleRevokePermission("ops", b"a"), "etcdserver: role name not found", 9),
        (RoleRevokePermission("dev", b"a"), "etcdserver: permission is not granted to the role", 9),
    ],
)
def test_wrong_changes_are_refused_in_etcds_words_and_change_nothing(
    command: AuthCommand, text: str, code: int
) -> None:
    refused(enabled(UserAdd("ann", b"h"), RoleAdd("dev")), command, text, code)


def test_root_may_be_taken_apart_while_authentication_is_off() -> None:
    auth = enabled(RoleAdd("root"), AuthDisable(), RoleDelete("root"), UserAdd("x"), UserDelete("root"))
    assert auth.user_list() == ["x"]
    refused(auth, AuthEnable(), "etcdserver: root user does not exist", 9)


def test_users_and_roles_are_listed_in_order() -> None:
    auth = enabled(UserAdd("zoe"), UserAdd("ann"), RoleAdd("ops"), RoleAdd("dev"), RoleAdd("root"))
    for role in ("ops", "dev"):
        auth.apply(UserGrantRole("ann", role))
    revision = auth.revision
    auth.apply(UserGrantRole("ann", "dev"))
    assert auth.revision == revision
    assert auth.user_list() == ["ann", "root", "zoe"]
    assert auth.role_list() == ["dev", "ops", "root"]
    assert auth.user_get("ann") == ["dev", "ops"]
    auth.apply(RoleDelete("ops"))
    assert auth.user_get("ann") == ["dev"]
    auth.apply(UserRevokeRole("ann", "dev"))
    assert auth.user_get("ann") == []
    assert auth.role_get("root") == [Permission(READWRITE, b"", b"\0")]
    with pytest.raises(AuthError, match="role name not found"):
        auth.role_get("nobody")


def test_a_grant_for_the_same_keys_replaces_and_a_revoke_wants_exactly_them() -> None:
    auth = enabled(RoleAdd("dev"), grant("dev", READ, b"b"), grant("dev", READ, b"a", b"c"), grant("dev", READ, b"a"))
    auth.apply(grant("dev", WRITE, b"a", b"c"))
    assert auth.role_get("dev") == [Permission(READ, b"a"), Permission(WRITE, b"a", b"c"), Permission(READ, b"b")]
    refused(auth, RoleRevokePermission("dev", b"a", b"b"), "etcdserver: permission is not granted to the role", 9)
    auth.apply(RoleRevokePermission("dev", b"a", b"c"))
    assert auth.role_get("dev") == [Permission(READ, b"a"), Permission(READ, b"b")]


def test_ranges_that_touch_reach_as_far_as_one() -> None:
    auth = enabled(UserAdd("ann"), RoleAdd("r1"), RoleAdd("r2"), UserGrantRole("ann", "r1"), UserGrantRole("ann", "r2"))
    for command in (grant("r1", READ, b"a", b"c"), grant("r2", READWRITE, b"c", b"e"), grant("r2", WRITE, b"x")):
        auth.apply(command)
    assert may(auth, "ann", b"a", b"e")
    assert may(auth, "ann", b"b")
    assert not may(auth, "ann", b"a", b"e\0")
    assert not may(auth, "ann", b"a", b"\0")
    assert not may(auth, "ann", b"z", b"b")
    assert not may(auth, "ann", b"b", write=True)
    assert may(auth, "ann", b"c", b"e", write=True)
    assert may(auth, "ann", b"x", write=True)
    assert not may(auth, "ann", b"x")
    assert not may(auth, "ann", b"x", b"y", write=True)
    auth.apply(grant("r1", READ, b"\0", b"\0"))
    assert may(auth, "ann", b"", b"\0")
    assert may(auth, "ann", b"", b"")
    auth.apply(UserRevokeRole("ann", "r1"))
    assert not may(auth, "ann", b"a")


def test_the_root_role_reaches_everything_and_nobody_else_does() -> None:
    auth = enabled(UserAdd("ann"))
    assert may(auth, "root", b"\0", b"\0", write=True)
    assert not may(auth, "ann", b"a")
    assert not may(auth, "ghost", b"a")
    auth.require_admin(AuthInfo("root", auth.revision))
    for info, text in (
        (AuthInfo("ann", auth.revision), "etcdserver: permission denied"),
        (AuthInfo("ghost", auth.revision), "etcdserver: user name not found"),
        (None, "etcdserver: user name is empty"),
    ):
        with pytest.raises(AuthError, match=text):
            auth.require_admin(info)


def test_who_was_checked_against_an_older_state_must_ask_again() -> None:
    auth = enabled()
    info = AuthInfo("root", auth.revision)
    auth.apply(UserAdd("ann"))
    with pytest.raises(AuthError, match="etcdserver: revision of auth store is old") as caught:
        auth.require_read(info, b"a")
    assert caught.value.code == 3
    with pytest.raises(AuthError, match="etcdserver: user name is empty"):
        auth.require_read(None, b"a")


def test_everything_is_allowed_while_authentication_is_off() -> None:
    auth = Auth()
    auth.require(None, TxnRequest(success=(PutRequest(b"a", lease=3), DeleteRangeRequest(b"a", b"\0"))), lambda _: [])
    auth.require_read(None, b"a")
    auth.require_admin(None)
    auth.require_user_get(None, "x")
    auth.require_lease_write(None, [b"a"])
    auth.require_lease_read(None, [b"a"])
    assert auth.identify("anything") is None
    with pytest.raises(AuthError, match="etcdserver: authentication is not enabled"):
        auth.credentials("root")


def test_users_read_their_own_entry_and_roles() -> None:
    auth = enabled(UserAdd("ann"), RoleAdd("dev"), RoleAdd("ops"), UserGrantRole("ann", "dev"))
    ann = AuthInfo("ann", auth.revision)
    auth.require_user_get(ann, "ann")
    auth.require_role_get(ann, "dev")
    auth.require_role_get(AuthInfo("root", auth.revision), "ops")
    for check, name in ((auth.require_user_get, "root"), (auth.require_role_get, "ops")):
        with pytest.raises(AuthError, match="permission denied"):
            check(ann, name)


@pytest.mark.parametrize(
    ("request_", "allowed"),
    [
        (RangeRequest(b"r"), True),
        (RangeRequest(b"w"), False),
        (PutRequest(b"w"), True),
        (PutRequest(b"w", prev_kv=True), False),
        (PutRequest(b"b", prev_kv=True), True),
        (PutRequest(b"r"), False),
        (PutRequest(b"w", lease=1), True),
        (PutRequest(b"w", lease=2), False),
        (DeleteRangeRequest(b"w"), True),
        (DeleteRangeRequest(b"w", prev_kv=True), False),
        (DeleteRangeRequest(b"b", b"c", prev_kv=True), True),
        (TxnRequest(compare=(Compare(b"r"),), success=(PutRequest(b"w"),)), True),
        (TxnRequest(compare=(Compare(b"w"),)), False),
        (TxnRequest(success=(PutRequest(b"w"),), failure=(PutRequest(b"r"),)), False),
        (TxnRequest(success=(TxnRequest(failure=(RangeRequest(b"w"),)),)), False),
        (TxnRequest(success=(TxnRequest(failure=(RangeRequest(b"r"),)),)), True),
    ],
)
def test_each_part_of_a_request_must_be_allowed(request_: Any, allowed: bool) -> None:
    auth = enabled(UserAdd("ann"), RoleAdd("dev"), UserGrantRole("ann", "dev"))
    for command in (grant("dev", READ, b"r"), grant("dev", WRITE, b"w"), grant("dev", READWRITE, b"b", b"c")):
        auth.apply(command)
    bound = {1: [b"w", b"b1"], 2: [b"w", b"secret"]}
    ann = AuthInfo("ann", auth.revision)
    if allowed:
        auth.require(ann, request_, lambda lease: bound[lease])
    else:
        with pytest.raises(AuthError, match="permission denied"):
            auth.require(ann, request_, lambda lease: bound[lease])
    auth.require(AuthInfo("root", auth.revision), request_, lambda lease: bound[lease])
    for anyones in (request_, TxnRequest()):
        with pytest.raises(AuthError, match="user name is empty"):
            auth.require(None, anyones, lambda lease: bound[lease])


def test_a_lease_is_read_and_ended_by_those_who_reach_all_its_keys() -> None:
    auth = enabled(UserAdd("ann"), RoleAdd("dev"), UserGrantRole("ann", "dev"), grant("dev", READ, b"a", b"c"))
    ann = AuthInfo("ann", auth.revision)
    auth.require_lease_read(ann, [b"a", b"b"])
    auth.require_lease_write(ann, [])
    for check, keys in ((auth.require_lease_read, [b"a", b"c"]), (auth.require_lease_write, [b"a"])):
        with pytest.raises(AuthError, match="permission denied"):
            check(ann, keys)
    for check in (auth.require_lease_read, auth.require_lease_write):
        with pytest.raises(AuthError, match="user name is empty"):
            check(None, [])


def test_a_login_lasts_until_the_user_changes() -> None:
    auth = enabled(UserAdd("ann", hash_password("secret", salt=b"s" * 16, cost=2)), UserAdd("bot", b"", True))
    stored, revision = auth.credentials("ann")
    assert verify_password("secret", stored)
    token = auth.login("ann", True, revision)
    assert auth.identify(token) == auth.identify("Bearer " + token) == AuthInfo("ann", auth.revision)
    assert auth.identify("") is None
    for name, verified in (("ann", False), ("ghost", True)):
        with pytest.raises(AuthError, match="authentication failed, invalid user ID or password") as caught:
            auth.login(name, verified, revision)
        assert caught.value.code == 3
    assert auth.credentials("ghost") == auth.credentials("bot") == (DUMMY_HASH, revision)
    auth.apply(UserChangePassword("bot", b"hash"))
    assert auth.credentials("bot")[0] == DUMMY_HASH
    with pytest.raises(AuthError, match="revision of auth store is old"):
        auth.login("ann", True, revision)
    assert auth.identify(token) is not None
    auth.apply(UserChangePassword("ann", b"hash"))
    with pytest.raises(AuthError, match="etcdserver: invalid auth token") as caught:
        auth.identify(token)
    assert caught.value.code == 16


@pytest.mark.parametrize("command", [UserDelete("ann"), AuthDisable()])
def test_logins_end_with_their_user_and_with_authentication(command: AuthCommand) -> None:
    auth = enabled(UserAdd("ann", b"hash"))
    token = auth.login("ann", True, auth.revision)
    auth.apply(command)
    auth.apply(AuthEnable())
    with pytest.raises(AuthError, match="invalid auth token"):
        auth.identify(token)


def test_tokens_end_after_their_time_without_use() -> None:
    clock = Clock()
    tokens = SimpleTokens(clock)
    used, idle = tokens.assign("ann"), tokens.assign("bob")
    clock.now = 299
    assert tokens.user(used) == "ann"
    clock.now = 300
    assert tokens.user(idle) is None
    clock.now = 598
    assert tokens.user(used) == "ann"
    assert tokens.user("unknown") is None
    clock.now = 898
    assert tokens.user(used) is None
    assert len(tokens) == 0


def test_tokens_are_bounded_and_the_longest_unused_goes_first() -> None:
    clock = Clock()
    tokens = SimpleTokens(clock, limit=3)
    first, second, third = (tokens.assign(name) for name in "abc")
    tokens.user(first)
    fourth = tokens.assign("d")
    assert [tokens.user(each) for each in (first, second, third, fourth)] == ["a", None, "c", "d"]
    assert (len(tokens), tokens.evicted) == (3, 1)
    clock.now = 1000
    tokens.assign("e")
    assert (len(tokens), tokens.evicted) == (1, 1)
    with pytest.raises(ValueError, match="must be positive"):
        SimpleTokens(clock, limit=0)


def test_a_password_matches_its_hash_alone() -> None:
    stored = hash_password("pass wörd", salt=b"0" * 16, cost=2)
    assert stored == hash_password("pass wörd", salt=b"0" * 16, cost=2)
    assert stored != hash_password("pass wörd", salt=b"1" * 16, cost=2)
    assert verify_password("pass wörd", stored)
    for wrong in ("", "pass word", "pass wörd "):
        assert not verify_password(wrong, stored)
    for damaged in (b"", b"x", b"bcrypt" + stored[6:], stored[:-4] + b"!!!!", stored.replace(b"$2$", b"$3$", 1)):
        assert not verify_password("pass wörd", damaged)


def test_the_default_cost_is_todays() -> None:
    stored = hash_password("a")
    assert stored.startswith(b"scrypt$16384$8$5$")
    assert DUMMY_HASH.startswith(b"scrypt$16384$8$5$")
    assert verify_password("a", stored)
    assert not verify_password("a", DUMMY_HASH)
    assert hash_password("a") != stored


def test_no_secret_is_shown() -> None:
    auth = enabled(UserAdd("ann", b"the-hash"))
    token = auth.login("ann", True, auth.revision)
    shown = [UserAdd("ann", b"the-hash"), UserChangePassword("ann", b"the-hash"), auth.dump(), auth.tokens, auth]
    for each in shown:
        text = repr(each) + str(each)
        assert "the-hash" not in text
        assert token not in text
    assert "ann" in repr(UserAdd("ann", b"the-hash"))


bounds = st.sampled_from([b"\0", b"a", b"aa", b"b", b"bb", b"c", b"d", b"e"])
grants = st.builds(
    Permission, st.sampled_from(PermissionType), bounds, st.one_of(st.just(b""), st.just(b"\0"), bounds)
).filter(lambda each: each.range_end in {b"", b"\0"} or each.range_end > each.key)


def holds(permission: Permission, key: bytes) -> bool:
    if not permission.range_end:
        return key == permission.key
    return key >= permission.key and (permission.range_end == b"\0" or key < permission.range_end)


@settings(max_examples=300, deadline=None)
@given(st.lists(grants, max_size=6), bounds, st.one_of(st.just(b""), st.just(b"\0"), bounds), st.booleans())
def test_merged_permissions_are_those_of_each_key(
    held: list[Permission], key: bytes, range_end: bytes, write: bool
) -> None:
    # An empty range reads nothing, whoever may.
    assume(range_end in {b"", b"\0"} or range_end > key)
    auth = enabled(UserAdd("ann"))
    for number, permission in enumerate(held):
        # One role each, so that permissions for the same keys add up and are not replaced.
        auth.apply(RoleAdd(f"r{number}"))
        auth.apply(RoleGrantPermission(f"r{number}", permission))
        auth.apply(UserGrantRole("ann", f"r{number}"))
    wanted = PermissionType.WRITE if write else PermissionType.READ
    useful = [each for each in held if each.perm_type in {wanted, READWRITE}]
    # All bounds and points just after them decide a range: between them no permission starts or ends.
    edges = sorted({b"\0", *(each for item in held for each in (item.key, item.range_end) if each), key})
    points = sorted({*edges, *(each + b"\0" for each in edges)})
    if range_end:
        points = [each for each in points if each >= key and (range_end == b"\0" or each < range_end)]
    else:
        points = [key]
    expected = all(any(holds(each, point) for each in useful) for point in points)
    if range_end == b"\0":
        expected = expected and any(each.range_end == b"\0" for each in useful)
    assert may(auth, "ann", key, range_end, write=write) is expected


names = st.sampled_from(["root", "ann", "bob", ""])
roles = st.sampled_from(["root", "dev", "ops", ""])
commands: st.SearchStrategy[AuthCommand] = st.one_of(
    st.just(AuthEnable()),
    st.just(AuthDisable()),
    st.builds(UserAdd, names, st.binary(max_size=3), st.booleans()),
    st.builds(UserDelete, names),
    st.builds(UserChangePassword, names, st.binary(max_size=3)),
    st.builds(UserGrantRole, names, roles),
    st.builds(UserRevokeRole, names, roles),
    st.builds(RoleAdd, roles),
    st.builds(RoleDelete, roles),
    st.builds(RoleGrantPermission, roles, st.one_of(st.none(), grants)),
    st.builds(RoleRevokePermission, roles, bounds, bounds),
)


def outcome(auth: Auth, command: AuthCommand) -> str:
    try:
        auth.apply(command)
    except AuthError as error:
        return error.message
    return ""


@settings(max_examples=200, deadline=None)
@given(st.lists(commands, max_size=40), st.integers(0, 40))
def test_a_replay_from_log_or_snapshot_ends_the_same(log: list[AuthCommand], cut: int) -> None:
    first, second = Auth(), Auth()
    written = msgspec.msgpack.encode(log)
    replayed = msgspec.msgpack.decode(written, type=list[AuthCommand])
    assert replayed == log
    for number, (command, again) in enumerate(zip(log, replayed, strict=True)):
        if number == cut:
            restored = Auth()
            restored.load(msgspec.msgpack.decode(msgspec.msgpack.encode(second.dump()), type=AuthState))
            second = restored
        before = first.revision
        said = outcome(first, command)
        assert said == outcome(second, again)
        assert first.revision - before in ({0} if said else {0, 1})
    assert first.dump() == second.dump()
    state = first.dump()
    known = {role.name for role in state.roles} | {"root"}
    assert all(set(user.roles) <= known and list(user.roles) == sorted(set(user.roles)) for user in state.users)
    if state.enabled:
        assert first.has_role("root", "root")
