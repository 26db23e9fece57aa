"""Cells of a CSV file (RFC 4180), written so that no spreadsheet takes one for a formula.

A text whose first visible character is one of those that begin a formula somewhere gets an apostrophe in front. A plain
number such as ``-12.5`` gets none: it means the same either way, and coordinates are often texts.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

#: Their full-width, small and raised forms become these, or begin with them, when they are normalized.
_SIGNS = frozenset("=+-@|%\N{MINUS SIGN}")
#: Letters and a symbol for Unicode, nothing for the eye.
_FILLERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")
_NUMBER = re.compile(r"[+-](\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
#: Texts that begin so, and the empty one, are never formulas. It is for speed: most texts are done with it.
_HARMLESS = frozenset(["", *"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"])


def line_of(values: Iterable[Any]) -> str:
    """Values of JSON as cells, with commas between them. Lists and objects are told as JSON."""
    told = [
        value
        if value.__class__ is str and value[:1] in _HARMLESS
        else _SPELLED.get(value.__class__, _json)(value)
        for value in values
    ]
    line = ",".join(told)
    # Looked at together, since few need quotes: that is faster than to look at each.
    if line.count(",") >= len(told) or '"' in line or "\n" in line or "\r" in line:
        line = ",".join(
            [
                '"' + cell.replace('"', '""') + '"'
                if "," in cell or '"' in cell or "\n" in cell or "\r" in cell
                else cell
                for cell in told
            ]
        )
    return line


def _text(value: str) -> str:
    return f"'{value}" if _is_like_formula(value) else value


def _float(value: float) -> str:
    text = msgspec.json.encode(value).decode()
    return "" if text == "null" else text  # JSON has no infinity


def _json(value: Any) -> str:
    return _text(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def _is_like_formula(text: str) -> bool:
    """Whether the first character that can be seen begins a formula somewhere, and it is no plain number."""
    for character in text:
        if unicodedata.normalize("NFKC", character)[0] in _SIGNS:
            return _NUMBER.fullmatch(text) is None
        # Controls, spaces, and marks, which lie on another character.
        if unicodedata.category(character)[0] not in "CZM" and character not in _FILLERS:
            return False
    return False


#: How the values of each type are written, save what is quick to tell.
_SPELLED: dict[type, Callable[[Any], str]] = {
    type(None): lambda _: "",
    bool: lambda value: "true" if value else "false",
    int: int.__repr__,
    float: _float,
    str: _text,
}
