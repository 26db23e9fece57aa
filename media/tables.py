"""Tables: CSV as programs export it, read and made into a record file. Runs in the sandbox pool.

Encoding and separator are found, not asked for. Values stay the texts they are; a column all of whose values are
numbers, or dates, is compared as such. Memory stays flat: rows go to the record file in blocks.
"""

import csv
import io
import json
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from functools import lru_cache
from hashlib import blake2b
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from media.csv_encodings import decoded
from media.csv_problems import Problems, Unreadable
from storage.record_files import BLOCK, LEAST_REMOVED, MAX_INDEXED, NUMBER_DIGITS, Column, Writer

__all__ = ["Built", "build", "is_date", "is_number"]

MAX_COLUMNS = 1_000
MAX_NAME = 500
MAX_RECORDS = 2_000_000
#: What a cell of a workbook holds at most.
MAX_CELL = 32_767
SEPARATORS = ",;\t|"

_SAMPLE = 65_536
_SAMPLE_ROWS = 50
#: Values known to be dates: most columns of dates have few different ones.
_KNOWN = 20_000
_SEPARATOR_LINE = re.compile(r"\s*sep=(.)\s*", re.IGNORECASE)
#: Comes after the last line. If it arrives inside a cell, a quote was open.
_END = f"\0{secrets.token_hex(8)}"
#: No exponent, which article numbers like 12E3 would turn out to have; no zero in front, which would be lost.
_NUMBER = re.compile(r"-?(?!0\d)\d{1,15}(?:\.\d{1,15})?", re.ASCII)
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?(?:Z|[+-](?:0\d|1[0-4]):[0-5]\d)?)?",
    re.ASCII,
)
_BREAK = re.compile(r"\r\n|\r|\n")
_JULIAN = 1_721_424.5  # of the day before the first of the year 1
_DAY_MS = 86_400_000


class Built(NamedTuple):
    """What became of a file.

    Attributes:
        failure: code and text, if it was refused; there is no record file then.
        problems: how many rows were left out.
        lines: the first of these: line and reason.
    """

    failure: tuple[str, str] | None
    header: list[str]
    columns: list[Column]
    records: int
    encoding: str
    separator: str
    problems: int
    lines: list[tuple[int, str]]


def build(
    source: str, target: str, number: int, previous: str | None, least_removed: int = LEAST_REMOVED
) -> Built:
    """Read the CSV file at ``source`` and write the record file ``target``.

    Args:
        number: of this file within its collection.
        previous: the record file of the file before it.
    """
    problems = Problems()
    reading = _Reading(Path(source), problems)
    try:
        records = reading.into(Path(target), number, Path(previous) if previous else None, least_removed)
        failure = None
    except Unreadable as error:
        records, failure = 0, (error.code, error.detail)
    return Built(
        failure,
        reading.header,
        reading.columns,
        records,
        reading.encoding,
        reading.separator,
        problems.count,
        problems.lines,
    )


class _Reading:
    """One file as far as it has been read."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self._path = path
        self._problems = problems
        self.header: list[str] = []
        self.columns: list[Column] = []
        self.encoding = self.separator = ""
        self._nul = False

    def into(self, target: Path, number: int, previous: Path | None, least_removed: int) -> int:
        with decoded(self._path) as (text, self.encoding, self._nul):
            skipped, self.separator = _sniffed(text)
            blocks = self._blocks(text, skipped)
            names = _names(self.header if next(blocks, None) is not None else [])
            seed = blake2b(json.dumps(self.header).encode(), digest_size=32).digest()
            writer = Writer(target, len(names), seed)
            try:
                guesses = [_Guess(index < MAX_INDEXED) for index in range(len(names))]
                count = 0
                for block in _even(blocks):
                    writer.add(block)
                    count += len(block)
                    if count > MAX_RECORDS:
                        raise Unreadable("too-many-records", f"It has more than {MAX_RECORDS:,} records.")
                    for guess, values in zip(guesses, zip(*block, strict=True), strict=True):
                        guess.look(values)
                self._problems.judge(count)
                columns = [guess.column(name) for guess, name in zip(guesses, names, strict=True)]
                extremes = [
                    guess.extremes(column)
                    for guess, column in zip(guesses[:MAX_INDEXED], columns[:MAX_INDEXED], strict=True)
                ]
                self.columns = writer.finish(
                    number, columns, list(zip(*extremes, strict=True)), previous, least_removed
                )
            finally:
                writer.close()
        return count

    def _blocks(self, text: io.TextIOWrapper, skipped: int) -> Iterator[list[list[str]]]:
        """First nothing, when the header is known; then the rows that have as many cells, many at once."""
        csv.field_size_limit(MAX_CELL)
        text.seek(0)
        reader = csv.reader(chain(islice(text, skipped, None), (_END,)), delimiter=self.separator)
        line, width, ended = 1 + skipped, 0, False
        while not ended:
            try:
                rows = list(islice(reader, BLOCK))
            except csv.Error as error:
                raise _refused(error, skipped + reader.line_num) from None
            if rows[-1] and _END in rows[-1][-1]:
                if rows.pop() != [_END]:
                    began = line + sum(map(_height, rows))
                    raise Unreadable(
                        "ends-short", f"It ends inside a quote, in the record at line {began:,}."
                    )
                ended = True
            if not width:
                while rows and not any(rows[0]):
                    line += _height(rows.pop(0))
                if not rows:
                    continue
                self.header = rows.pop(0)
                line, width = line + _height(self.header), len(self.header)
                yield []
            good = [row for row in rows if len(row) == width and (row[0] or any(row))]
            if len(good) < len(rows) or self._nul:
                good = list(self._sifted(rows, line, width))
            line = skipped + reader.line_num + 1
            yield good

    def _sifted(self, rows: Sequence[list[str]], line: int, width: int) -> Iterator[list[str]]:
        """The rows that fit, of some that begin at ``line``."""
        for row in rows:
            began, line = line, line + _height(row)
            if not any(row):
                continue  # a blank line, or nothing but separators
            if len(row) > width and not any(row[width:]):
                row = row[:width]  # separators at the end, as some programs write them
            if any("\0" in cell for cell in row):
                self._problems.note(began, "It holds a NUL.")
            elif len(row) != width:
                self._problems.note(began, f"It has {len(row):,} cells and the header {width:,}.")
            else:
                yield row


def _even(blocks: Iterable[list[list[str]]]) -> Iterator[list[list[str]]]:
    """All rows in blocks of :data:`BLOCK`, the last one aside."""
    waiting: list[list[str]] = []
    for block in blocks:
        waiting = waiting + block if waiting else block
        if len(waiting) >= BLOCK:
            yield waiting[:BLOCK]
            waiting = waiting[BLOCK:]
    if waiting:
        yield waiting


def _height(row: Sequence[str]) -> int:
    """How many lines a record takes."""
    return 1 + sum(len(_BREAK.findall(cell)) for cell in row)


def _refused(error: csv.Error, line: int) -> Unreadable:
    if "field limit" not in str(error):
        return Unreadable("unreadable", f"{error}, near line {line:,}.")
    return Unreadable(
        "cell-too-long",
        f"A cell that goes on at line {line:,} has more than {MAX_CELL:,} characters. A quote that opens and "
        "does not close reads like this.",
    )


def _sniffed(text: io.TextIOWrapper) -> tuple[int, str]:
    """How many lines come before the header, and the separator.

    It is the one into which most of the first records fall apart as the header does; with the same number of
    them, the one that makes more columns.
    """
    text.seek(0)
    sample = text.read(_SAMPLE)
    first = sample.splitlines()[0] if sample.strip() else ""
    said = _SEPARATOR_LINE.fullmatch(first)
    if said and not said[1].isalnum() and said[1] not in '"\r\n\0 ':
        return 1, said[1]
    best, separator = (0, 0), ","
    csv.field_size_limit(_SAMPLE + 1)
    for candidate in SEPARATORS:
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=candidate)
        rows = [row for row in islice(reader, _SAMPLE_ROWS) if any(row)]
        if len(rows) > 1 and len(sample) == _SAMPLE:
            rows.pop()  # it may have been cut
        width = len(rows[0]) if rows else 0
        score = (sum(len(row) == width for row in rows), width)
        if width > 1 and score > best:
            best, separator = score, candidate
    return 0, separator


def _names(header: Sequence[str]) -> list[str]:
    """Under which the columns are asked for: `Name`, the second one `Name (2)`, one without a name `Column 3`."""
    if not header:
        raise Unreadable("no-header", "It has no line with the names of columns.")
    if len(header) > MAX_COLUMNS:
        raise Unreadable("too-many-columns", f"It has {len(header):,} columns; {MAX_COLUMNS:,} are taken.")
    if any(len(name) > MAX_NAME or "\0" in name for name in header):
        raise Unreadable(
            "no-header", f"Its first line is no header: a name has at most {MAX_NAME} characters and no NUL."
        )
    plain = [name.strip() or f"Column {number}" for number, name in enumerate(header, start=1)]
    taken = set(plain)
    names: list[str] = []
    given: set[str] = set()
    #: Of a name, the number of the last column that got it: the numbers below are taken and stay so.
    last: dict[str, int] = {}
    for name in plain:
        unique, number = name, last.get(name, 1)
        while unique in given or (number > 1 and unique in taken):
            number += 1
            unique = f"{name} ({number})"
        last[name] = number
        given.add(unique)
        names.append(unique)
    return names


class _Guess:
    """What kind of values a column has, block by block, and the extremes of each block."""

    def __init__(self, kept: bool) -> None:
        self._kept = kept
        self._number = self._date = True
        self._digits = self._scale = 0
        self._any = False
        self._texts: list[tuple[str, str]] = []
        self._numbers: list[tuple[float, float] | None] = []
        #: Of a block of dates without times: these sort as texts.
        self._dates: list[tuple[str, str] | None] = []
        self._known: set[str] = set()

    def look(self, values: Sequence[str]) -> None:
        low, high = min(values), max(values)
        if self._kept:
            self._texts.append((low, high))
        if not self._number and not self._date:
            return
        filled = values if low else [value for value in values if value]
        if not filled:
            self._numbers.append(None)
            self._dates.append(None)
            return
        self._any = True
        if self._number:
            self._number = all(map(_NUMBER.fullmatch, filled)) and self._measured(filled)
        if self._date:
            unknown = set(filled) - self._known
            self._date = all(map(is_date, unknown))
            if len(self._known) < _KNOWN:
                self._known |= unknown
            plain = self._date and max(map(len, filled)) == 10
            self._dates.append((min(filled), high) if plain else None)

    def _measured(self, values: Sequence[str]) -> bool:
        numbers = list(map(float, values))
        low, high = min(numbers), max(numbers)
        self._digits = max(self._digits, len(str(int(max(abs(low), abs(high))))))
        self._scale = max(self._scale, max(len(value.partition(".")[2]) for value in values))
        self._numbers.append((low, high))
        return self._digits + self._scale <= NUMBER_DIGITS

    def column(self, name: str) -> Column:
        if self._any and self._number:
            return Column(name, "number", self._scale)
        return Column(name, "date" if self._any and self._date else "text")

    def extremes(self, column: Column) -> list[Any]:
        """Of each block, as it is compared; one is added on both sides where it was rounded."""
        if column.type == "number":
            scale = 10**column.scale
            return [pair and (int(pair[0] * scale) - 1, int(pair[1] * scale) + 1) for pair in self._numbers]
        if column.type == "date":
            return [pair and (_milliseconds(pair[0]), _milliseconds(pair[1])) for pair in self._dates]
        return list(self._texts)


def is_number(text: str) -> bool:
    """Whether a column of such values is one of numbers."""
    return _NUMBER.fullmatch(text) is not None


def is_date(text: str) -> bool:
    """Whether it is a date, or a time of a date: ISO 8601 as `2026-03-01` or `2026-03-01T09:20:00.5Z`."""
    return _DATE.fullmatch(text) is not None and _is_day(text[:10])


@lru_cache(maxsize=65_536)
def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _milliseconds(day: str) -> int:
    return int((date.fromisoformat(day).toordinal() + _JULIAN) * _DAY_MS)
