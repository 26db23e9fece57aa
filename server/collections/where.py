"""What a page of records is asked for: conditions and sorting, as they stand in the address."""

import re
from collections.abc import Sequence

from media.tables import is_date
from server.errors import Problem
from storage.records import Column, Condition, Sort

_OPERATOR = re.compile(r">=|<=|!=|\^=|=|<|>")
_QUOTED_NAME = re.compile(r'"((?:[^"]|"")*)"\s*')
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_NUMBER = re.compile(r"[+-]?\d{1,30}(?:\.\d{1,30})?", re.ASCII)
MAX_CONDITIONS = 10
#: Characters of one condition.
MAX_LENGTH = 4_000


def conditions(texts: Sequence[str], columns: Sequence[Column]) -> list[Condition]:
    """Conditions like ``Price>=12.5``; all must hold.

    Raises:
        Problem: 422 ``invalid-where``, ``unknown-column`` or ``invalid-value``.
    """
    if len(texts) > MAX_CONDITIONS:
        raise Problem(422, "invalid-where", f"At most {MAX_CONDITIONS} conditions are taken.", field="where")
    return [_condition(text, columns) for text in texts]


def sorting(text: str | None, columns: Sequence[Column]) -> Sort | None:
    """``Price``, or ``-Price`` for the largest first; None: the order of the file.

    Raises:
        Problem: 422 ``unknown-column``.
    """
    if text is None or not text.strip():
        return None
    text = text.strip()
    descending = text.startswith("-")
    name = text[1:].strip() if descending else text
    quoted = _QUOTED.fullmatch(name)
    if quoted:
        name = quoted[1].replace('""', '"')
    return Sort(_column(name, columns, "sort"), descending)


def _condition(text: str, columns: Sequence[Column]) -> Condition:
    if len(text) > MAX_LENGTH:
        raise Problem(
            422, "invalid-where", f"A condition has at most {MAX_LENGTH:,} characters.", field="where"
        )
    found = split(text)
    if found is None:
        raise Problem(
            422,
            "invalid-where",
            f"{text[:100]!r} is no condition. One is like Name=Anna, with = != ^= < <= > or >=.",
            field="where",
        )
    name, operator, value = found
    index = _column(name, columns, "where")
    column = columns[index]
    if column.type == "text":
        return Condition(index, operator, value)
    if operator == "^=":
        raise Problem(
            422,
            "invalid-where",
            f"{column.name!r} is a {column.type}: ^= is for texts. Use >= and <.",
            field="where",
        )
    value = value.strip()
    # A plus of an address is a blank where nobody encoded it.
    if (
        column.type == "date"
        and value.count(" ") == 1
        and re.search(r"\d [01]\d:\d\d$", value)
        and "T" in value
    ):
        value = value.replace(" ", "+")
    missing = not value and operator in ("=", "!=")
    if not missing and not (_NUMBER.fullmatch(value) if column.type == "number" else is_date(value)):
        like = "12.5" if column.type == "number" else "2026-03-01 or 2026-03-01T09:20:00Z"
        raise Problem(
            422,
            "invalid-value",
            f"{column.name!r} is a {column.type}; {value[:100]!r} is none. One is like {like}.",
            field="where",
        )
    return Condition(index, operator, value)


def split(text: str) -> tuple[str, str, str] | None:
    """A condition's name, operator and value; None if it is none. Takes time in proportion to its length."""
    text = text.lstrip()
    if text.startswith('"'):
        quoted = _QUOTED_NAME.match(text)
        operator = _OPERATOR.match(text, quoted.end()) if quoted else None
        if quoted is None or operator is None:
            return None
        name = quoted[1].replace('""', '"')
    else:
        operator = _OPERATOR.search(text)
        if operator is None or '"' in text[: operator.start()]:
            return None
        name = text[: operator.start()]
    return name.strip(), operator[0], text[operator.end() :]


def _column(name: str, columns: Sequence[Column], field: str) -> int:
    name = name.strip()
    for index, column in enumerate(columns):
        if column.name == name:
            return index
    some = ", ".join(column.name for column in columns[:20])
    raise Problem(
        422, "unknown-column", f"There is no column {name[:100]!r}. There are: {some}.", field=field
    )
