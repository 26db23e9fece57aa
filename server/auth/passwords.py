"""Passwords: argon2id (RFC 9106), off the event loop."""

import asyncio
import hmac
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

#: Of passwords that people choose. Length is what makes a password hard to guess; rules about kinds of
#: characters only make it hard to remember (NIST SP 800-63B-4, 3.1.1.2).
MIN_CHARACTERS = 10

#: What guessers try first, of those that are long enough; compared without case, blanks and punctuation.
_COMMON_TEXT = """
1234567890 0123456789 0987654321 12345678910 123456789012 1234567891 1111111111 0000000000 1122334455
1q2w3e4r5t 1q2w3e4r5t6y 1qaz2wsx3edc 1qazxsw23edc q1w2e3r4t5 q1w2e3r4t5y6 qwertyuiop qwertyuiop123 qwerty12345
qwerty123456 asdfghjkl123 asdfghjkl1 zxcvbnm123 abcdefghij abcdefghijk abc1234567 abcd123456 a123456789
password12 password123 password1234 password12345 password123456 password2024 password2025 password2026
passwordpassword mypassword mypassword1 passw0rd12 passw0rd123 p4ssw0rd123 passwort123 passwort1234
motdepasse contrasena contraseña senha12345 welcome123 welcome1234 willkommen willkommen1 bienvenue1
administrator admin12345 admin123456 adminadmin letmein123 letmein1234 iloveyou12 iloveyou123
iloveyou1234 changeme12 changeme123 changemenow secret1234 secretsecret football12 football123 baseball123
sunshine123 princess123 superman123 batman12345 dragon12345 monkey12345 master12345 michael123 jennifer123
trustno1234 starwars123 liverpool1 chocolate1 basketball skateboard butterfly1 computer123 internet123
samsung123 google1234 fieldsync1 fieldsync12 fieldsync123 inspection inspector1 correcthorsebatterystaple
"""
_COMMON = frozenset(_COMMON_TEXT.split())

#: Without the characters that people mistake for one another: 0 o, 1 i l.
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP = 4, 4


def generate_password() -> str:
    """A password that can be read out over a telephone, of 79 random bits: ``k7mf-x2qp-9rtd-hw4n``."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP)) for _ in range(_GROUPS))


def weakness(password: str, username: str, old: str | None = None) -> str | None:
    """What is wrong with a password somebody wants to have; None if it will do.

    Args:
        password: the new one.
        username: whose it will be.
        old: the one it replaces, if that is known here.
    """
    try:
        size = len(password.encode())
    except UnicodeEncodeError:
        return "The new password has characters that are none."
    folded = _folded(password)
    if len(password) < MIN_CHARACTERS:
        return f"The new password must have at least {MIN_CHARACTERS} characters."
    if size > MAX_LENGTH:
        return f"The new password must not be longer than {MAX_LENGTH} bytes."
    if old is not None and hmac.compare_digest(password.encode(), old.encode("utf-8", "surrogatepass")):
        return "The new password is the old one."
    if _contains_name(password, username):
        return "The new password must not contain the username."
    if folded in _COMMON or len(set(password.casefold())) <= 2:
        return "The new password is one of those that are guessed first."
    return None


def _folded(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalnum())


def _contains_name(password: str, username: str) -> bool:
    """Also the name before the @. One of three letters is in too many words."""
    name, password = username.strip().casefold(), password.casefold()
    return any(len(part) > 3 and part in password for part in (name, name.rpartition("@")[0]))


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
