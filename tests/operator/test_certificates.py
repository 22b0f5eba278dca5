"""When certificates are made and renewed: at no instant is one shown that servers do not trust."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from pilothouse.foundation import tls
from pilothouse.foundation.clock import FakeClock
from pilothouse.foundation.ids import SeededIds
from pilothouse.foundation.tls import Credentials
from pilothouse.operator import BuildError, CertificateError, CertificatePolicy
from pilothouse.operator.certificates import Certificates, Plan, fault, not_after, plan, wait_seconds

HOSTS = ("hooks.space.svc", "127.0.0.1")
POLICY = CertificatePolicy(days=30, ca_days=60, overlap_seconds=86_400)
DAY = 86_400.0


def planned(found: Certificates | None, clock: FakeClock, *, trusted: bool = True) -> Plan:
    return plan(found, HOSTS, POLICY, clock, trusted=trusted, ids=SeededIds(int(clock.monotonic())))


def is_trusted(serving: bytes, bundle: bytes, clock: FakeClock) -> bool:
    """Check the chain as a server does."""
    certificate = x509.load_pem_x509_certificate(serving)
    store = x509.verification.Store(x509.load_pem_x509_certificates(bundle))
    builder = x509.verification.PolicyBuilder().store(store).time(clock.now())
    try:
        builder.build_server_verifier(x509.DNSName(HOSTS[0])).verify(certificate, [])
    except x509.verification.VerificationError:
        return False
    return True


def test_the_first_ones_are_made_for_all_hosts() -> None:
    clock = FakeClock()
    made, why = planned(None, clock)
    assert why == "there was none"
    assert fault(made.serving, HOSTS, clock.now()) == ""
    assert is_trusted(made.serving.certificate, made.bundle, clock)
    assert planned(made, clock) == (made, "")
    assert "***" in repr(made)
    assert made.ca_key.decode() not in repr(made)


def test_they_come_back_from_a_secret_as_they_were() -> None:
    made = planned(None, FakeClock()).certificates
    assert Certificates.of_secret(made.secret_data()) == made
    assert Certificates.of_secret({}) is None
    assert Certificates.of_secret({**made.secret_data(), "ca.crt": b"damaged"}) is None
    with pytest.raises(CertificateError, match=r"no ca.key, so something else made it; name another Secret"):
        Certificates.of_secret({"tls.crt": made.serving.certificate, "tls.key": made.serving.key})


def test_the_serving_certificate_is_renewed_by_the_same_authority() -> None:
    clock = FakeClock()
    made = planned(None, clock).certificates
    clock.advance(19 * DAY)
    assert planned(made, clock).why == ""
    clock.advance(1.1 * DAY)
    renewed, why = planned(made, clock)
    assert why == "the serving certificate has to be renewed"
    assert renewed.authorities == made.authorities
    assert not_after(renewed.serving.certificate) > not_after(made.serving.certificate)


def test_a_new_authority_is_trusted_before_it_signs() -> None:
    clock = FakeClock()
    first = planned(None, clock).certificates
    clock.advance(20.5 * DAY)
    first = planned(first, clock).certificates
    clock.advance(20 * DAY)
    both, why = planned(first, clock)
    assert why == "the authority has to be renewed"
    assert both.authorities[1:] == first.authorities
    assert both.serving == first.serving
    assert planned(both, clock).why == ""  # the serving one is due, and waits for the overlap
    clock.advance(1.1 * DAY)
    assert planned(both, clock, trusted=False).why == ""
    switched, why = planned(both, clock)
    assert why == "the new authority is trusted"
    assert switched.authorities == both.authorities
    assert is_trusted(switched.serving.certificate, both.bundle, clock)
    assert is_trusted(switched.serving.certificate, both.authorities[0], clock)
    clock.advance(19 * DAY)
    last, why = planned(switched, clock)
    assert "an old authority has expired" in why
    assert last.authorities == both.authorities[:1]


def test_where_servers_never_get_the_bundle_it_is_switched_before_the_end() -> None:
    clock = FakeClock()
    made = planned(None, clock).certificates
    clock.advance(20.5 * DAY)
    made = planned(made, clock).certificates
    clock.advance(20 * DAY)
    made = planned(made, clock, trusted=False).certificates
    before = made.serving
    clock.advance(6 * DAY)
    assert planned(made, clock, trusted=False).certificates.serving == before
    clock.advance(1.1 * DAY)
    assert planned(made, clock, trusted=False).why == "the serving certificate ends soon"


def test_what_cannot_serve_is_replaced_at_once() -> None:
    clock = FakeClock()
    made = planned(None, clock).certificates
    other = tls.make_ca("other", clock=clock)
    strange = tls.issue(other, "x", hosts=HOSTS, server=True, clock=clock)
    for serving, why in (
        (Credentials(made.serving.certificate, strange.key), "the key does not belong to the certificate"),
        (strange, "no authority that is trusted issued it"),
        (
            tls.issue(
                Credentials(made.authorities[0], made.ca_key), "x", hosts=HOSTS[:1], server=True, days=9, clock=clock
            ),
            "the certificate is not for 127.0.0.1",
        ),
    ):
        fixed, told = planned(Certificates(made.authorities, made.ca_key, serving), clock)
        assert told == why
        assert is_trusted(fixed.serving.certificate, fixed.bundle, clock)
    fixed, why = planned(Certificates(made.authorities, other.key, made.serving), clock)
    assert why == "the authority has to be renewed"
    assert fixed.authorities[1:] == made.authorities
    clock.advance(400 * DAY)
    fixed, why = planned(made, clock)
    assert "the certificate expired at" in why
    assert is_trusted(fixed.serving.certificate, fixed.bundle, clock)
    assert len(fixed.authorities) == 1


@settings(max_examples=6, deadline=None)
@given(st.lists(st.floats(0.05, 3.0), min_size=30, max_size=60), st.integers(0, 3))
def test_whatever_the_steps_the_last_bundle_trusts_what_is_shown(days: list[float], late: int) -> None:
    """Servers have the bundle of `late` plans ago at worst, which is less than the overlap."""
    clock = FakeClock()
    found = planned(None, clock).certificates
    bundles = [found.bundle]
    for step in days:
        steps = max(int(step / 0.25), 1)
        for _ in range(steps):  # a copy looks at least every twelve hours
            clock.advance(step * DAY / steps)
            found = planned(found, clock).certificates
            bundles.append(found.bundle)
            assert fault(found.serving, HOSTS, clock.now()) == ""
            assert is_trusted(found.serving.certificate, found.bundle, clock)
            if step / steps * late < 0.9:
                assert is_trusted(found.serving.certificate, bundles[max(len(bundles) - 1 - late, 0)], clock)
    assert len(found.authorities) <= 3


def test_it_waits_no_longer_than_something_is_due() -> None:
    clock = FakeClock()
    found = planned(None, clock).certificates
    assert wait_seconds(found, POLICY, clock.now()) == 43_200
    plans = 0
    while clock.monotonic() < 70 * DAY:
        wait = wait_seconds(found, POLICY, clock.now())
        assert 1 <= wait <= 43_200
        clock.advance(wait)
        found, why = planned(found, clock)
        plans += bool(why)
    assert plans >= 6


def test_faults_of_a_pair() -> None:
    clock = FakeClock()
    made = planned(None, clock).certificates.serving
    early = clock.now() - timedelta(days=1)
    assert "not valid before" in fault(made, HOSTS, early)
    assert fault(Credentials(b"x", b"y"), HOSTS, early) == "the certificate is no PEM certificate"
    wild = tls.issue(tls.make_ca("a", clock=clock), "w", hosts=["*.space.svc"], server=True, clock=clock)
    assert fault(wild, HOSTS[:1], clock.now()) == ""
    assert "is not for 127.0.0.1" in fault(wild, HOSTS, clock.now())


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ({"days": 0}, "at least 1 day"),
        ({"days": 30, "ca_days": 40}, "twice as long"),
        ({"days": 30, "overlap_seconds": 6 * DAY}, "at most a sixth"),
        ({"overlap_seconds": -1.0}, "at most a sixth"),
    ],
)
def test_policies_that_leave_no_time_are_refused(words: dict[str, float], why: str) -> None:
    with pytest.raises(BuildError, match=why):
        CertificatePolicy(**words)  # type: ignore[arg-type]
