"""Which index answers a question about records is decided here and not by SQLite, which knows neither how many rows
a value has nor that a page needs few.

A page is the first rows in an order that fulfil all conditions. There are two ways to it:

- by a condition: all rows that an index of one of its columns leads to are looked at and sorted. It costs as many
  rows as the conditions on this column hold for.
- in order: rows are read in the order asked for, by that column's index or as they stand in the file, until the page
  is full. It costs as many rows as are passed over, about one divided by the part that fulfils all conditions for
  each row of the page; in the order of the file less, as blocks are passed over whose smallest and largest values
  exclude a match.

So it is counted in the index of each condition how many rows it leads to. If one leads to a handful, that is all;
otherwise up to some thousands are counted. The part of the rows that fulfils everything is taken for the product of
these parts, as if the columns had nothing to do with each other. The cheaper way is taken, and the first one whenever
few rows are to be looked at: it cannot be slow then, and the other one can, if all matches stand at the end.

No counting is needed where one index gives both the rows and their order.
"""

import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, NamedTuple

from storage.record_files import Column, date_key, key_of

__all__ = ["Condition", "Sort", "statement"]

#: So many rows are always looked at one by one and sorted, some milliseconds. Of more, it depends on how soon a
#: page would be full if all rows were read in the order asked for.
_FEW = 5_000
#: As far as is counted how many rows a condition leads to.
_COUNTED = 20_000
#: What part of the rows those beyond are taken for. Too large a guess costs much more than too small a one.
_MANY = 0.1
#: What reading a row in the order of the file costs beside one found by an index.
_IN_FILE_ORDER = 0.15
_LARGEST = 2**62


class Condition(NamedTuple):
    """What a record must fulfil. ``operator``: ``=``, ``!=``, ``^=``, ``<``, ``<=``, ``>`` or ``>=``.

    Attributes:
        column: its place in the table.
        value: of a number or a date, one of that type, or empty, which stands for no value.
    """

    column: int
    operator: str
    value: str


class Sort(NamedTuple):
    """By which column a page is sorted."""

    column: int
    descending: bool


class _Test(NamedTuple):
    """A condition as SQL. ``span``: the values between which all that fulfil it lie, if it is one range."""

    condition: Condition
    sql: str
    values: tuple[Any, ...]
    span: tuple[Any, Any] | None
    indexed: bool


def statement(
    connection: sqlite3.Connection,
    columns: Sequence[Column],
    where: Sequence[Condition],
    sort: Sort | None,
    skip: int,
    count: int,
) -> tuple[str, list[Any]]:
    """The SELECT that finds the places of a page's rows, with its values."""
    tests = [_test(connection, columns, condition) for condition in where]
    if not tests and sort is None:
        # Places are numbered without gaps.
        return "SELECT position FROM records WHERE position > ? ORDER BY position LIMIT ?", [skip, count]
    values = [value for test in tests for value in test.values]
    fulfilled = f" WHERE {' AND '.join(test.sql for test in tests)}" if tests else ""
    direction = "DESC" if sort and sort.descending else "ASC"
    order = f"position {direction}"
    if sort is not None:
        order = f"{key_of(sort.column, columns[sort.column])} {direction}, {order}"
    (sided,) = connection.execute("SELECT sided FROM meta").fetchone()
    spans = [test for test in tests if test.span is not None and test.condition.column < sided]
    source = _source(connection, columns, tests, sort, skip + count, bool(spans))
    text = f"SELECT position FROM {source}{fulfilled} ORDER BY {order} LIMIT ? OFFSET ?"  # noqa: S608
    if source == _BLOCKS:
        between, more = "", []
        for test in spans:
            assert test.span is not None
            low, high = test.span
            index = test.condition.column
            # Of a column without known sides nothing can be passed over.
            between += f" AND (low{index} IS NULL OR (low{index} <= ? AND high{index} >= ?))"
            more += [_HIGHEST if high is None else high, _LOWEST if low is None else low]
        text = (
            f"SELECT position FROM {source} WHERE position BETWEEN first AND last{between}"  # noqa: S608
            f" AND {' AND '.join(test.sql for test in tests)} ORDER BY first LIMIT ? OFFSET ?"
        )
        values = more + values
    return text, [*values, count, skip]


#: Before and after every value there is: SQLite sorts numbers before texts before blobs.
_LOWEST, _HIGHEST = -(2**63), b"\xff"
#: Not indexed: an index would change the order within a block.
_BLOCKS = "blocks CROSS JOIN records NOT INDEXED"


def _source(
    connection: sqlite3.Connection,
    columns: Sequence[Column],
    tests: Sequence[_Test],
    sort: Sort | None,
    wanted: int,
    spans: bool,
) -> str:
    """The table with the index that finds the rows soonest."""
    usable = [test for test in tests if test.indexed]
    if sort is None:
        # The rows of one value stand in the order of the file.
        equal = [test for test in usable if test.condition.operator == "="]
        if len(tests) == 1 and equal:
            return f"records INDEXED BY i{equal[0].condition.column}"
    elif columns[sort.column].indexed and all(test.condition.column == sort.column for test in tests):
        return f"records INDEXED BY i{sort.column}"
    of = _worth_it(connection, columns, usable, wanted, 1.0 if sort else _IN_FILE_ORDER)
    if of is not None:
        return f"records INDEXED BY i{of}"
    if sort is not None:
        column = sort.column
        return f"records INDEXED BY i{column}" if columns[column].indexed else "records NOT INDEXED"
    return _BLOCKS if spans else "records NOT INDEXED"


def _worth_it(
    connection: sqlite3.Connection,
    columns: Sequence[Column],
    usable: Sequence[_Test],
    wanted: int,
    cost: float,
) -> int | None:
    """The column whose index leads to so few rows that looking at all of them is best; None: reading the rows
    in the order asked for, until ``wanted`` are found, is cheaper.

    Args:
        cost: of reading a row in the order asked for, in parts of that of one found by an index.
    """
    (records,) = connection.execute("SELECT records FROM meta").fetchone()
    if not usable or not records:
        return None
    # Numbers and dates first: their keys are counted in half the time.
    by_column = {
        test.condition.column: [other for other in usable if other.condition.column == test.condition.column]
        for test in sorted(usable, key=lambda test: columns[test.condition.column].type == "text")
    }
    handful = _FEW // 10
    first = {column: _counted(connection, tests, handful) for column, tests in by_column.items()}
    of = min(first, key=lambda column: first[column])
    if first[of] < handful:
        return of
    fewest, chosen, part, worth_it = _COUNTED, None, 1.0, False
    for column, tests in by_column.items():
        # Once it is clear that this way is taken, only what leads to fewer rows still matters.
        found = _counted(connection, tests, fewest if worth_it else _COUNTED)
        if found < fewest:
            fewest, chosen = found, column
        if not worth_it:
            part *= found / records if found < _COUNTED else _MANY
            read = min(records, wanted / part) if part else records
            # Every further condition makes the other way longer.
            worth_it = chosen is not None and (fewest <= _FEW or fewest < read * cost)
    return chosen if worth_it else None


def _counted(connection: sqlite3.Connection, tests: Sequence[_Test], most: int) -> int:
    """How many rows the index of a column leads to with all conditions on it, if fewer than ``most``."""
    text = (
        f"SELECT count(*) FROM (SELECT 1 FROM records INDEXED BY i{tests[0].condition.column}"  # noqa: S608
        f" WHERE {' AND '.join(test.sql for test in tests)} LIMIT {most})"
    )
    (found,) = connection.execute(text, [value for test in tests for value in test.values]).fetchone()
    return int(found)


def _test(connection: sqlite3.Connection, columns: Sequence[Column], condition: Condition) -> _Test:
    column = columns[condition.column]
    key = key_of(condition.column, column)
    operator, text = condition.operator, condition.value
    # Of nearly all rows, no index finds those that are another value's.
    indexed = column.indexed and operator != "!="
    if operator == "^=":
        if not text:
            return _Test(condition, f"{key} >= ?", ("",), ("", None), indexed)
        after = _after(text)
        if after is None:
            return _Test(condition, f"{key} >= ?", (text,), (text, None), indexed)
        return _Test(condition, f"{key} >= ? AND {key} < ?", (text, after), (text, after), indexed)
    if column.type == "text":
        value: Any = text
    elif not text:
        sql = f"{key} IS NULL" if operator == "=" else f"{key} IS NOT NULL"
        return _Test(condition, sql, (), None, indexed)
    elif column.type == "number":
        value = _number(text, column.scale)
    else:
        (value,) = connection.execute(f"SELECT {date_key('?')}", (text,)).fetchone()
    if operator == "!=":
        return _Test(condition, f"{key} IS NOT ?", (value,), None, False)
    span = {
        "=": (value, value),
        "<": (None, value),
        "<=": (None, value),
        ">": (value, None),
        ">=": (value, None),
    }[operator]
    return _Test(condition, f"{key} {operator} ?", (value,), span, indexed)


def _number(text: str, scale: int) -> int | float:
    """A number as the columns of this scale are compared."""
    scaled = Decimal(text).scaleb(scale)
    if abs(scaled) > _LARGEST:
        return _LARGEST if scaled > 0 else -_LARGEST
    whole = int(scaled)
    # Between two that the column can hold: any number between them compares as it does.
    return whole if whole == scaled else whole + (0.5 if scaled > 0 else -0.5)


def _after(text: str) -> str | None:
    """The first text after all that begin with ``text``; None if there is none."""
    while text:
        last = ord(text[-1])
        if last < 0x10FFFF:
            # Surrogates are no characters.
            return text[:-1] + chr(0xE000 if last == 0xD7FF else last + 1)
        text = text[:-1]
    return None
