"""Passwords: argon2id (RFC 9106), off the event loop."""

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

#: The second recommended option of RFC 9106, section 4: 64 MiB, three passes, four lanes.
_hasher = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=4, type=Type.ID)

#: Each takes 64 MiB while it runs; more threads would neither be faster nor fit a small server.
_threads = ThreadPoolExecutor(max_workers=4, thread_name_prefix="passwords")

#: Nobody's password, hashed with the parameters above: verified where there is no account, so that the
#: time of the answer does not tell which accounts exist. Its 256 random bits were thrown away.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$XHci/AMn5cjXJme6x/TeBg$ewTpWnfAzkm3MacogdlHE32Jf1RscS3XwLsX/dqbhwI"

#: Nobody types more, and hashing megabytes would be a gift to an attacker.
MAX_LENGTH = 1024

#: Without the characters that people mistake for one another: 0 o, 1 i l.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP = 4, 4


def generate_password() -> str:
    """A password that can be read out over a telephone, of 79 random bits: ``k7mf-x2qp-9rtd-hw4n``."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))


async def hash_password(password: str) -> str:
    """The hash to store, with its salt and parameters."""
    return await asyncio.get_running_loop().run_in_executor(_threads, _hasher.hash, password)


async def verify_password(stored: str | None, password: str) -> bool:
    """Whether ``password`` is the one hashed as ``stored``.

    Args:
        stored: the account's hash; None where there is no account, which takes the same time to refuse.
        password: as it was sent.
    """
    if len(password) > MAX_LENGTH:
        password, stored = "", None
    return await asyncio.get_running_loop().run_in_executor(_threads, _verify, stored, password)


def _verify(stored: str | None, password: str) -> bool:
    try:
        matches = _hasher.verify(stored if stored is not None else _NOBODY, password)
    except (VerificationError, InvalidHashError, UnicodeEncodeError):
        return False
    return matches and stored is not None
