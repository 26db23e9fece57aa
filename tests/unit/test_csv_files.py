"""Reading CSV: encodings, separators, quotes, line ends, what is left out and what is refused."""

import csv
import io
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.collections import PARTS, encoded
from media import tables
from media.tables import Built, build, is_date, is_number
from storage.records import Record, page
from tests.unit.test_records import opened


class Table:
    """A file that was read."""

    def __init__(self, folder: Path, content: bytes | str) -> None:
        source, self.path = folder / "table.csv", folder / "table.sqlite"
        self.path.unlink(missing_ok=True)
        source.write_bytes(content.encode() if isinstance(content, str) else content)
        self.built: Built = build(str(source), str(self.path), 1, None)

    @property
    def rows(self) -> list[tuple[str, ...]]:
        with opened(self.path) as connection:
            found: list[Record] = page(connection, self.built.columns, [], None, 0, 100_000).records
        return [record.values for record in found]

    @property
    def failure(self) -> str:
        return self.built.failure[0] if self.built.failure else ""

    @property
    def types(self) -> list[str]:
        return [column.type for column in self.built.columns]


@pytest.mark.parametrize("encoding", list(encoded("")))
def test_every_encoding_is_found(tmp_path: Path, encoding: str) -> None:
    table = Table(tmp_path, encoded(PARTS)[encoding])
    assert table.built.encoding == encoding.removesuffix("-bom")
    assert table.built.header == ["PartID", "Name", "Price", "Stocked", "Note"]
    assert table.rows == [tuple(row) for row in csv.reader(io.StringIO(PARTS))][1:]


def test_windows_1252_knows_every_byte(tmp_path: Path) -> None:
    table = Table(tmp_path, b"Name\n\x80 \x81 \xe9\n")
    assert table.rows == [("€ \x81 é",)]


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    for content, code in (
        (b"PK\x03\x04 a workbook", "not-a-table"),
        (b"\x89PNG", "not-a-table"),
        (b"", "no-header"),
        (b"\r\n\r\n", "no-header"),
        (b"sep=;\n", "no-header"),
        (b"\xef\xbb\xbfName\n\xff\n", "encoding"),
        (b"\xff\xfe" + "Name\na".encode("utf-16-le") + b"\x00\xd8" + "b\n".encode("utf-16-le"), "encoding"),
        (",".join(f"c{number}" for number in range(1001)).encode(), "too-many-columns"),
        (b"x" * 501 + b"\n1\n", "no-header"),
    ):
        table = Table(tmp_path, content)
        assert table.failure == code, content[:30]


def test_a_file_that_ends_inside_a_quote_or_a_character_ends_short(tmp_path: Path) -> None:
    for content in (
        b'Name,Note\nAnna,"no end',
        b'Name,Note\n1,2\n3,"a\nb\n',
        b'"Name',
        "Name\nÄgidia\nAn\u00e4".encode()[:-1],
        "Name\nAnna".encode("utf-16")[:-1],
    ):
        assert Table(tmp_path, content).failure == "ends-short", content
    table = Table(tmp_path, 'Name,Note\n1,2\n"3\n4","a\nb\n')
    assert table.built.failure is not None
    assert "line 3" in table.built.failure[1]
    # Not short: the last line has no end, or its only byte beyond ASCII is Windows-1252.
    assert Table(tmp_path, 'Name,Note\nAnna,"end"').rows == [("Anna", "end")]
    assert Table(tmp_path, b"Name\nAndr\xe9").rows == [("André",)]


@pytest.mark.parametrize("separator", list(tables.SEPARATORS))
def test_the_separator_is_found_outside_of_quotes(tmp_path: Path, separator: str) -> None:
    others = "".join(tables.SEPARATORS)
    lines = [
        ["Name", "Note", "Price"],
        ["Anna", f'"{others} {others}"', "1"],
        ["Ben", '"line\nbreak"', "2"],
    ]
    table = Table(tmp_path, "\n".join(separator.join(line) for line in lines))
    assert table.built.separator == separator
    assert table.rows == [("Anna", f"{others} {others}", "1"), ("Ben", "line\nbreak", "2")]


def test_a_line_may_say_the_separator(tmp_path: Path) -> None:
    table = Table(tmp_path, "sep=;\r\nName;Price\r\nAnna;1,5\r\nshort\r\n")
    assert (table.built.separator, table.built.header) == (";", ["Name", "Price"])
    assert table.rows == [("Anna", "1,5")]
    assert table.built.lines == [(4, "It has 1 cells and the header 2.")]
    assert Table(tmp_path, "sep=^\nName^Price\nAnna^1\n").rows == [("Anna", "1")]


def test_a_single_column_needs_no_separator(tmp_path: Path) -> None:
    table = Table(tmp_path, "Name\nAnna\n\nBen\n\n\n")
    assert table.rows == [("Anna",), ("Ben",)]
    assert table.built.problems == 0


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_line_end_is_one_and_a_quoted_one_stays_as_it_is(tmp_path: Path, ending: str) -> None:
    content = f'Name,Note{ending}Anna,"two{ending}lines"{ending}short{ending}Ben,""{ending}{ending}'
    table = Table(tmp_path, content)
    assert table.rows == [("Anna", f"two{ending}lines"), ("Ben", "")]
    assert table.built.lines == [(4, "It has 1 cells and the header 2.")]


def test_rows_with_a_nul_are_left_out(tmp_path: Path) -> None:
    table = Table(tmp_path, "Name,Note\nAnna,1\nB\0en,2\nCleo,3\n")
    assert table.rows == [("Anna", "1"), ("Cleo", "3")]
    assert table.built.lines == [(3, "It holds a NUL.")]


def test_separators_at_the_end_of_a_row_and_rows_of_separators_are_nothing(tmp_path: Path) -> None:
    table = Table(tmp_path, "Name,Note\nAnna,1,,\n,,\n,\nBen,,\n")
    assert table.rows == [("Anna", "1"), ("Ben", "")]
    assert table.built.problems == 0


def test_few_ragged_rows_are_counted_and_many_refuse_the_file(tmp_path: Path) -> None:
    good = "".join(f"{number},x\n" for number in range(1000))
    table = Table(tmp_path, f"Number,Note\n{good}{'short' + chr(10)}" + "1,2,3\n" * 110)
    assert (table.failure, table.built.records, table.built.problems) == ("", 1000, 111)
    assert len(table.built.lines) == 100
    assert table.built.lines[:2] == [
        (1002, "It has 1 cells and the header 2."),
        (1003, "It has 3 cells and the header 2."),
    ]
    assert Table(tmp_path, f"Number,Note\n{good}" + "1,2,3\n" * 112).failure == "ragged-rows"
    assert Table(tmp_path, "Number,Note\n" + "1,2,3\n" * 10).failure == ""
    assert Table(tmp_path, "Number,Note\n" + "1,2,3\n" * 11).failure == "ragged-rows"


def test_a_cell_has_a_longest_length(tmp_path: Path) -> None:
    assert Table(tmp_path, f"Name,Note\nAnna,{'x' * 32_767}\n").failure == ""
    assert Table(tmp_path, f"Name,Note\nAnna,{'x' * 32_768}\n").failure == "cell-too-long"


def test_there_is_a_largest_number_of_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MAX_RECORDS", 2)
    assert Table(tmp_path, "Name\n1\n2\n").failure == ""
    assert Table(tmp_path, "Name\n1\n2\n3\n").failure == "too-many-records"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ("1 20 -3 4.50", "number"),
        ("007 1", "text"),
        ("0 0.5 -0.25", "number"),
        ("1e5 2", "text"),
        ("1,5 2", "text"),
        ("+1 2", "text"),
        ("123456789012345 1", "number"),
        ("123456789012345 1.5", "text"),  # 16 digits altogether
        ("1234567890123456 1", "text"),
        ("٣ ٤", "text"),
        ("2026-03-01 1999-12-31", "date"),
        ("2026-02-30 2026-03-01", "text"),
        ("2026-03-01T09:20:00Z 2026-03-01T09:20:00.123+02:00 2026-03-01", "date"),
        ("2026-03-01T24:00:00Z", "text"),
        ("01.03.2026", "text"),
        ("2026-03-01 5", "text"),
        ("", "text"),
    ],
)
def test_a_column_is_of_a_type_if_all_its_values_are(tmp_path: Path, values: str, kind: str) -> None:
    rows = "".join(f'"{value}",x\n' for value in values.split())
    assert Table(tmp_path, f"Value,Note\n,empty\n{rows}").types[0] == kind


def test_a_late_value_of_another_kind_makes_a_column_one_of_texts(tmp_path: Path) -> None:
    rows = "".join(f"{number},2026-01-01\n" for number in range(1000))
    assert Table(tmp_path, f"A,B\n{rows}").types == ["number", "date"]
    assert Table(tmp_path, f"A,B\n{rows}x,y\n").types == ["text", "text"]


def test_names_of_columns_are_unique(tmp_path: Path) -> None:
    table = Table(tmp_path, "A,A (2),A,, B ,Column 4\n1,2,3,4,5,6\n")
    assert [column.name for column in table.built.columns] == [
        "A",
        "A (2)",
        "A (3)",
        "Column 4",
        "B",
        "Column 4 (2)",
    ]
    assert table.built.header == ["A", "A (2)", "A", "", " B ", "Column 4"]


def _names_plainly(header: list[str]) -> list[str]:
    plain = [name.strip() or f"Column {number}" for number, name in enumerate(header, start=1)]
    names: list[str] = []
    for name in plain:
        choices = [name] + [f"{name} ({number})" for number in range(2, 100)]
        names.append(
            next(
                choice
                for number, choice in enumerate(choices)
                if choice not in names and (not number or choice not in plain)
            )
        )
    return names


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["A", "A (2)", "A (3)", "A (2) (2)", "", "Column 3"]), min_size=1, max_size=9)
)
def test_a_name_gets_the_first_number_that_no_other_column_has(header: list[str]) -> None:
    names = tables._names(header)
    assert names == _names_plainly(header)
    assert len(set(names)) == len(header)


def test_equal_names_take_a_few_steps_each() -> None:
    lines = 0

    def trace(_frame: object, event: str, _argument: object) -> object:
        nonlocal lines
        lines += event == "line"
        return trace

    header = ["n" * 480] * 1000
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        names = tables._names(header)
    finally:
        sys.settrace(before)
    assert names[-1] == f"{header[0]} (1000)"
    assert lines < 50_000


_cell = st.text(st.sampled_from('a1,;|\t"\r\n é€😀.-\u2028'), max_size=6)


@settings(deadline=None, max_examples=150)
@given(
    rows=st.lists(st.lists(_cell, min_size=3, max_size=3).filter(any), max_size=8),
    separator=st.sampled_from(list(tables.SEPARATORS)),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_what_a_program_wrote_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[list[str]],
    separator: str,
    ending: str,
    encoding: str,
) -> None:
    text = io.StringIO(newline="")
    # It does not quote the other line ends.
    quoting = csv.QUOTE_MINIMAL if ending == "\r\n" else csv.QUOTE_ALL
    writer = csv.writer(text, delimiter=separator, lineterminator=ending, quoting=quoting)
    # Said in words: values of one letter could fall apart by another separator just as well.
    text.write(f"sep={separator}{ending}")
    writer.writerows([["One", "Two", "Three"], *rows])
    table = Table(tmp_path_factory.mktemp("table"), text.getvalue().encode(encoding))
    assert table.built.failure is None
    assert table.built.problems == 0
    assert table.rows == [tuple(row) for row in rows]


@settings(deadline=None, max_examples=300)
@given(content=st.binary(max_size=300))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    table = Table(tmp_path_factory.mktemp("table"), content)
    if table.built.failure is None:
        assert len(table.rows) == table.built.records
        width = len(table.built.header)
        assert all(len(row) == width for row in table.rows)


def test_numbers_and_dates_are_told_from_what_looks_like_them() -> None:
    assert is_number("-12.50")
    assert not is_number("1.")
    assert not is_number("12\n")
    assert is_date("2026-03-01 09:20")
    assert not is_date("2026-3-1")
    assert not is_date("0000-01-01")
