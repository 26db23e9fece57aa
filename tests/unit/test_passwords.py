"""Passwords: what is generated, and what is answered without an account."""

import asyncio

from argon2 import PasswordHasher, Type

from server.auth import passwords

#: As this module is imported, before other tests have hashing take less time.
HASHER, NOBODY = passwords._hasher, passwords._NOBODY


def test_a_generated_password_is_readable_and_long_enough() -> None:
    made = {passwords.generate_password() for _ in range(100)}
    assert len(made) == 100
    for password in made:
        assert len(password) >= 16
        assert not set(password) & set("0o1il")


def test_a_password_verifies_against_its_own_hash_only() -> None:
    stored = asyncio.run(passwords.hash_password("correct horse"))
    assert stored.startswith("$argon2id$")
    assert asyncio.run(passwords.verify_password(stored, "correct horse"))
    assert not asyncio.run(passwords.verify_password(stored, "correct horses"))
    assert not asyncio.run(passwords.verify_password(stored, "x" * 5000))


def test_hashing_takes_the_work_that_rfc_9106_recommends() -> None:
    second = PasswordHasher(time_cost=3, memory_cost=64 * 1024, parallelism=4, type=Type.ID)
    assert not second.check_needs_rehash(HASHER.hash("correct horse"))


def test_an_unknown_account_costs_as_much_as_a_known_one() -> None:
    # The same parameters, so the same work; comparing times would be a test that fails at random.
    assert not HASHER.check_needs_rehash(NOBODY)
    assert not asyncio.run(passwords.verify_password(None, ""))
