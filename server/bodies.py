"""Request bodies: JSON of a known shape in, or a refusal that names the member at fault."""

import re
from typing import TypeVar

import msgspec

from server.errors import Problem

T = TypeVar("T")

#: The end of msgspec's messages: "... - at `$.scopes[1]`".
_PATH = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
#: Its messages about members that are missing or unknown name them apart from the path.
_MEMBER = re.compile(r"(?:missing required|contains unknown) field `([^`]*)`")

#: Longest file name in UTF-8: what common file systems take.
MAX_FILE_NAME_BYTES = 255
#: An extension that is worth keeping when a name is shortened.
_EXTENSION = re.compile(r"\.\w{1,10}$")
_PATH_SEPARATOR = re.compile(r"[/\\]")

#: Longest name of anything that people name.
MAX_NAME = 200
MAX_EMAIL = 254  # RFC 5321, 4.5.3.1.3, without the angle brackets


def decode(body: bytes, shape: type[T]) -> T:
    """The body as ``shape``.

    Raises:
        Problem: 400 ``malformed-json`` when it is not JSON, 422 ``invalid-body`` with the path of the
            member when a type is wrong or a member is missing.
    """
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(400, "malformed-json", f"The body is not JSON: {error}.") from None


def invalid(field: str, detail: str) -> Problem:
    """The refusal of a value that has the right type but cannot be taken."""
    return Problem(422, "invalid-body", detail, field=field)


def name(value: str, field: str) -> str:
    """``value`` as a name, without the blanks around it.

    Raises:
        Problem: 422 when it is empty, longer than 200 characters or holds control characters, which would
            break the mails, file names and logs that names end up in.
    """
    value = value.strip()
    if not value:
        raise invalid(field, f"{field} must not be empty.")
    if len(value) > MAX_NAME:
        raise invalid(field, f"{field} must not be longer than {MAX_NAME} characters.")
    if not value.isprintable():
        raise invalid(field, f"{field} must not hold control characters.")
    return value


def email(value: str, field: str) -> str:
    """``value`` as an e-mail address. Whether it exists shows when a mail is sent; a pattern cannot tell.

    Raises:
        Problem: 422 when it has no ``@`` between two parts, is too long or holds blanks.
    """
    value = value.strip()
    local, _, domain = value.rpartition("@")
    if not local or not domain:
        raise invalid(field, f"{field} must be an e-mail address, with an @.")
    if len(value) > MAX_EMAIL:
        raise invalid(field, f"{field} must not be longer than {MAX_EMAIL} characters.")
    if not value.isprintable() or " " in value:
        raise invalid(field, f"{field} must not hold blanks or control characters.")
    return value


def clean_file_name(text: str | None) -> str | None:
    """A file name as it is kept: for people to read, never as a path.

    Folders are cut off, as Windows and others write them; characters that do not print are left out; a long
    name is shortened before its extension. None if nothing is left.
    """
    if text is None:
        return None
    last = _PATH_SEPARATOR.split(text)[-1]
    # Lone surrogates are not printable either.
    name = "".join(char for char in last if char.isprintable()).strip()
    if name.strip(".") == "":
        return None
    found = _EXTENSION.search(name)
    extension = found[0] if found else ""
    most = MAX_FILE_NAME_BYTES - len(extension.encode())
    stem = name[: len(name) - len(extension)].encode()[:most].decode("utf-8", "ignore")
    return stem + extension


def _invalid(message: str) -> Problem:
    found = _PATH.search(message)
    path = found[1] if found else ""
    text = _PATH.sub("", message)
    member = _MEMBER.search(text)
    if member:
        path = f"{path}.{member[1]}" if path else member[1]
    where = f" at {path}" if path else ""
    return Problem(422, "invalid-body", f"{text}{where}.", field=path or None)
