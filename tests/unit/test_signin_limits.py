"""Sliding windows of failed sign-ins, by a clock that the test turns."""

from contextlib import ExitStack

import pytest

from server.auth.signin_limits import (
    ACCOUNT_FAILURES,
    ADDRESS_FAILURES,
    MAX_KEYS,
    WINDOW_SECONDS,
    SignInLimits,
    TooManyAttempts,
)


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(clock: Clock) -> SignInLimits:
    return SignInLimits(clock)


def fail(limits: SignInLimits, account: str, address: str = "192.0.2.1") -> None:
    with limits.attempt(account, address) as attempt:
        attempt.failed = True


def test_an_account_is_refused_after_ten_failures_and_again_allowed_when_the_oldest_is_old(
    limits: SignInLimits, clock: Clock
) -> None:
    for _ in range(ACCOUNT_FAILURES):
        fail(limits, "ann")
        clock.time += 10
    with pytest.raises(TooManyAttempts) as refused:
        fail(limits, "ann", "192.0.2.99")
    assert refused.value.retry_after == WINDOW_SECONDS - 10 * ACCOUNT_FAILURES
    clock.time += refused.value.retry_after
    fail(limits, "ann")
    with pytest.raises(TooManyAttempts):
        fail(limits, "ann")


def test_other_accounts_of_the_same_address_go_on_until_the_address_is_over_its_limit(
    limits: SignInLimits,
) -> None:
    for number in range(ADDRESS_FAILURES):
        fail(limits, f"user{number}")
    with pytest.raises(TooManyAttempts):
        fail(limits, "somebody else")
    fail(limits, "somebody else", "192.0.2.2")


def test_success_counts_nothing(limits: SignInLimits) -> None:
    for _ in range(200):
        with limits.attempt("ann", "192.0.2.1"):
            pass


def test_guesses_sent_at_once_are_counted_before_they_fail(limits: SignInLimits) -> None:
    with ExitStack() as under_way:
        for _ in range(ACCOUNT_FAILURES):
            under_way.enter_context(limits.attempt("ann", "192.0.2.1"))
        with pytest.raises(TooManyAttempts):
            fail(limits, "ann")
        under_way.enter_context(limits.attempt("ann", "192.0.2.1", guessable=False))
    fail(limits, "ann")


def test_the_memory_is_bounded(limits: SignInLimits) -> None:
    for number in range(MAX_KEYS + 100):
        fail(limits, f"user{number}", f"address{number}")
    assert len(limits._accounts._failures) == MAX_KEYS
