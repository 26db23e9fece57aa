"""Record files: which index answers, pages against a plain search, and changes that always add up."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.tables import Built, build
from storage import record_files, record_plans, records
from storage.blobs import BlobNotFound, open_blobs
from storage.record_plans import statement
from storage.records import ALL, Column, Condition, Place, RecordFiles, Sort, changes, page

Row = tuple[str, ...]


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        yield connection
    finally:
        connection.close()


def written(
    folder: Path,
    rows: Sequence[Row],
    number: int = 1,
    previous: Path | None = None,
    header: str = "A,B,C",
    least_removed: int = 10_000,
) -> tuple[Path, Built]:
    """A record file of these rows."""
    source, target = folder / f"{number}.csv", folder / f"{number}.sqlite"
    source.write_text("".join(f"{line}\n" for line in (header, *map(",".join, rows))))
    built = build(str(source), str(target), number, str(previous) if previous else None, least_removed)
    assert built.failure is None
    return target, built


def plan(
    connection: sqlite3.Connection, columns: Sequence[Column], where: list[Condition], sort: Sort | None
) -> str:
    text, values = statement(connection, columns, where, sort, 0, 21)
    return "; ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}", values))


@contextmanager
def steps(connection: sqlite3.Connection) -> Iterator[Callable[[], int]]:
    """How many steps SQLite's machine takes, in hundreds."""
    hundreds = 0

    def count() -> int:
        nonlocal hundreds
        hundreds += 1
        return 0

    connection.set_progress_handler(count, 100)
    try:
        yield lambda: hundreds * 100
    finally:
        connection.set_progress_handler(None, 0)


# Pages


@pytest.fixture(scope="module")
def large(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[sqlite3.Connection, list[Row], list[Column]]]:
    """60,000 rows: an ascending name, one of ten groups, a price, a day."""
    draw = random.Random(4)
    rows = [
        (
            f"N{number:06}",
            f"g{draw.randrange(10)}",
            f"{draw.randrange(100_000) / 100:.2f}",
            f"20{number // 2500:02}-05-01",
        )
        for number in range(60_000)
    ]
    path, built = written(tmp_path_factory.mktemp("large"), rows, header="Name,Group,Price,Day")
    with opened(path) as connection:
        yield connection, rows, built.columns


def test_every_question_is_answered_by_an_index_or_passes_over_blocks(
    large: tuple[sqlite3.Connection, list[Row], list[Column]],
) -> None:
    connection, _, columns = large
    for where, sort, expected in (
        ([], None, "SEARCH records USING INTEGER PRIMARY KEY"),
        ([Condition(0, "=", "N000500")], None, "COVERING INDEX i0 (c0=?)"),
        ([Condition(0, "^=", "N0005")], None, "INDEX i0 (c0>? AND c0<?)"),
        ([Condition(1, "=", "g3")], None, "COVERING INDEX i1 (c1=?)"),
        ([Condition(2, ">=", "999")], None, "INDEX i2 (<expr>>?)"),
        ([Condition(2, ">=", "500")], None, "SCAN blocks; SEARCH records USING INTEGER PRIMARY KEY"),
        ([Condition(2, ">=", "500")], Sort(2, True), "SEARCH records USING INDEX i2 (<expr>>?)"),
        ([Condition(2, ">=", "500")], Sort(0, False), "SCAN records USING INDEX i0"),
        (
            [Condition(2, ">=", "999")],
            Sort(0, False),
            "SEARCH records USING INDEX i2 (<expr>>?); USE TEMP B-TREE",
        ),
        ([Condition(3, "=", "2005-05-01")], Sort(2, False), "SEARCH records USING INDEX i3 (<expr>=?)"),
        ([Condition(1, "=", "g3"), Condition(2, "<", "2")], None, "INDEX i2"),
        ([Condition(0, ">=", "N030000"), Condition(0, "<", "N030010")], None, "INDEX i0 (c0>? AND c0<?)"),
        ([], Sort(3, True), "SCAN records USING INDEX i3"),
    ):
        found = plan(connection, columns, where, sort)
        assert expected in found, (where, sort, found)


def test_a_search_in_the_order_of_the_file_passes_over_what_cannot_hold_it(
    large: tuple[sqlite3.Connection, list[Row], list[Column]],
) -> None:
    connection, rows, columns = large
    where = [Condition(3, ">=", "2018-05-01")]
    assert "SCAN blocks" in plan(connection, columns, where, None)
    with steps(connection) as taken:
        found = page(connection, columns, where, None, 0, 20)
    assert [record.values for record in found.records] == rows[18 * 2500 : 18 * 2500 + 20]
    assert taken() < 200_000  # reading all 45,000 rows before them takes 315,000


def test_nothing_more_is_counted_when_a_condition_leads_to_a_handful_of_rows(
    large: tuple[sqlite3.Connection, list[Row], list[Column]],
) -> None:
    connection, rows, columns = large
    where = [Condition(1, "=", rows[500][1]), Condition(2, ">=", "0"), Condition(0, "=", "N000500")]
    with steps(connection) as taken:
        found = page(connection, columns, where, Sort(2, False), 0, 20)
    assert [record.values for record in found.records] == rows[500:501]
    assert taken() < 10_000  # counting the 6,000 rows of the group takes more


_values = st.sampled_from(["", "1", "2.5", "10", "-3"])
_texts = st.sampled_from(["a", "ab", "b", "Ab", "ä", ""])
_days = st.sampled_from(["", "2026-01-01", "2026-01-01T00:00:00.001Z", "2025-12-31T23:30:00-01:00"])
_operators = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])


def _conditions() -> st.SearchStrategy[list[Condition]]:
    texts = st.builds(Condition, st.just(0), st.one_of(_operators, st.just("^=")), _texts)
    numbers = st.builds(Condition, st.just(1), _operators, _values.filter(bool))
    days = st.builds(Condition, st.just(2), _operators, _days.filter(bool))
    empty = st.builds(Condition, st.sampled_from([1, 2]), st.sampled_from(["=", "!="]), st.just(""))
    return st.lists(st.one_of(texts, numbers, days, empty), max_size=3)


_MOMENTS = {"": None, "2026-01-01": 0, "2026-01-01T00:00:00.001Z": 1, "2025-12-31T23:30:00-01:00": 1_800_000}


def _key(column: int, text: str) -> object:
    if column == 1:
        return float(text) if text else None
    return _MOMENTS[text] if column == 2 else text


def _holds(row: Row, condition: Condition) -> bool:
    mine, other = _key(condition.column, row[condition.column]), _key(condition.column, condition.value)
    if condition.operator == "=":
        return mine == other
    if condition.operator == "!=":
        return mine != other
    if condition.operator == "^=":
        return str(mine).startswith(str(other))
    if mine is None:
        return False
    tests = {"<": "__lt__", "<=": "__le__", ">": "__gt__", ">=": "__ge__"}
    return bool(getattr(mine, tests[condition.operator])(other))


@settings(deadline=None, max_examples=200)
@given(
    rows=st.lists(st.tuples(_texts, _values, _days).filter(any), min_size=1, max_size=30),
    where=_conditions(),
    sort=st.none() | st.builds(Sort, st.integers(0, 2), st.booleans()),
    skip=st.integers(0, 5),
    limit=st.integers(1, 8),
    few=st.sampled_from([0, 3, 5000]),
)
def test_a_page_has_what_a_plain_search_finds(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Row],
    where: list[Condition],
    sort: Sort | None,
    skip: int,
    limit: int,
    few: int,
) -> None:
    rows = [("a", "1", "2026-01-01"), *rows]  # so that the columns have their types
    path, built = written(tmp_path_factory.mktemp("page"), rows)
    assert [column.type for column in built.columns] == ["text", "number", "date"]
    found = [row for row in rows if all(_holds(row, condition) for condition in where)]
    if sort is not None:
        # Python's sort keeps the order of the file; reversed as a whole, like ours.
        found.sort(
            key=lambda row: (
                _key(sort.column, row[sort.column]) is not None,
                _key(sort.column, row[sort.column]) or (0 if sort.column else ""),
            )
        )
        if sort.descending:
            found.reverse()
    with pytest.MonkeyPatch.context() as patch, opened(path) as connection:
        patch.setattr(record_plans, "_FEW", few)
        answer = page(connection, built.columns, where, sort, skip, limit)
    assert [record.values for record in answer.records] == found[skip : skip + limit]
    assert answer.more == (len(found) > skip + limit)


def test_blocks_are_passed_over_only_if_they_cannot_hold_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_plans, "_FEW", 0)
    monkeypatch.setattr(record_plans, "_IN_FILE_ORDER", 0)
    draw = random.Random(1)
    rows = [
        (
            f"{draw.choice('abc')}{number // 40}{draw.randrange(3)}",
            f"{number / 100:.2f}" if number % 7 else "",
            f"2026-{1 + number // 100:02}-05",
        )
        for number in range(1100)
    ]
    path, built = written(tmp_path, rows)
    with opened(path) as connection:
        for condition in (
            Condition(0, "^=", "b2"),
            Condition(0, "<=", "a1"),
            Condition(1, ">=", "9.99"),
            Condition(1, "<", "2.5"),
            Condition(1, ">", "2.499"),
            Condition(2, ">=", "2026-10-05"),
            Condition(2, "<", "2026-02-05"),
        ):
            assert "SCAN blocks" in plan(connection, built.columns, [condition], None)
            found = page(connection, built.columns, [condition], None, 3, 50)
            expected = [row for row in rows if _holds_large(row, condition)]
            assert expected
            assert [record.values for record in found.records] == expected[3:53], condition


def _holds_large(row: Row, condition: Condition) -> bool:
    text = row[condition.column]
    if condition.column == 1:
        value, other = float(text or "nan"), float(condition.value)
        return {"<": value < other, ">": value > other, ">=": value >= other}[condition.operator]
    if condition.operator == "^=":
        return text.startswith(condition.value)
    return {"<": text < condition.value, "<=": text <= condition.value, ">=": text >= condition.value}[
        condition.operator
    ]


def test_columns_beyond_the_indexed_ones_are_searched_row_by_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "MAX_INDEXED", 1)
    path, built = written(tmp_path, [("a", "2", "x"), ("b", "1", "y"), ("c", "3", "x")])
    assert [column.indexed for column in built.columns] == [True, False, False]
    with opened(path) as connection:
        for where, sort, expected in (
            ([Condition(2, "=", "x")], None, "ac"),
            ([], Sort(1, False), "bac"),
            ([Condition(0, ">", "a"), Condition(2, "=", "x")], Sort(1, True), "c"),
            ([Condition(1, ">", "1")], Sort(0, True), "ca"),
        ):
            found = page(connection, built.columns, where, sort, 0, 20)
            assert "".join(record.values[0] for record in found.records) == expected


def test_texts_before_and_after_every_prefix_are_told_apart(tmp_path: Path) -> None:
    texts = ["a", "a\ud7ff", "a\ue000", "a\U0010ffff", "a\U0010ffffb", "b", "\U0010ffff"]
    path, built = written(tmp_path, [(text, "1", "x") for text in texts])
    with opened(path) as connection:
        for prefix in ("a", "a\ud7ff", "a\U0010ffff", "\U0010ffff", "", "c"):
            found = page(connection, built.columns, [Condition(0, "^=", prefix)], None, 0, 20)
            expected = [text for text in texts if text.startswith(prefix)]
            assert [record.values[0] for record in found.records] == expected


# Identity and changes


def test_a_record_keeps_its_id_wherever_it_stands_and_equal_ones_have_two(tmp_path: Path) -> None:
    rows = [("a", "1", "x"), ("b", "2", "y"), ("a", "1", "x"), ("a", "1", "x"), ("a1", "", "x")]
    path, built = written(tmp_path, rows)
    other, _ = written(tmp_path, [("b", "2", "y"), *rows[2:], ("c", "", "")], 2, path)
    with opened(path) as first, opened(other) as second:
        before = page(first, built.columns, [], None, 0, 20).records
        after = page(second, built.columns, [], None, 0, 20).records
    ids = [record.record_id for record in before]
    assert len(set(ids)) == 5
    assert all(len(bytes.fromhex(identity)) == 16 for identity in ids)
    assert {record.record_id for record in after[:4]} == set(ids) - {ids[3]}


def test_many_equal_rows_are_told_apart(tmp_path: Path) -> None:
    rows = [("a", "1", "x")] * 3000
    path, built = written(tmp_path, rows)
    other, _ = written(tmp_path, rows[:-1], 2, path)
    with opened(path) as first, opened(other) as second:
        found = changes(first, built.columns, None, 5000)
        assert len({change.record_id for change in found.changes}) == 3000
        after = changes(second, built.columns, found.place, 5000)
    assert [change.values for change in after.changes] == [None]


def test_another_header_makes_other_records(tmp_path: Path) -> None:
    path, built = written(tmp_path, [("a", "1", "x")])
    other, renamed = written(tmp_path, [("a", "1", "x")], 2, path, header="A,B,D")
    with opened(path) as first, opened(other) as second:
        place = changes(first, built.columns, None, 10).place
        found = changes(second, renamed.columns, place, 10).changes
    assert sorted(change.values is None for change in found) == [False, True]


def test_a_reader_without_anything_new_gets_nothing(tmp_path: Path) -> None:
    path, built = written(tmp_path, [("a", "1", "x")])
    with opened(path) as connection:
        found = changes(connection, built.columns, None, 10)
        assert (len(found.changes), found.more, found.place) == (1, False, Place(1, ALL, 1))
        again = changes(connection, built.columns, found.place, 10)
    assert (again.changes, again.more, again.reset, again.place) == ([], False, False, found.place)


def test_a_reader_from_before_a_restored_database_starts_anew(tmp_path: Path) -> None:
    path, built = written(tmp_path, [("a", "1", "x")])
    with opened(path) as connection:
        found = changes(connection, built.columns, Place(7, ALL, 5), 10)
    assert found.reset
    assert len(found.changes) == 1


class _Reader:
    """A client that keeps records by applying changes."""

    def __init__(self) -> None:
        self.place: Place | None = None
        self.known: dict[str, Row] = {}
        self.resets = 0

    def read(self, path: Path, columns: Sequence[Column], limit: int) -> bool:
        with opened(path) as connection:
            found = changes(connection, columns, self.place, limit)
        assert len(found.changes) <= limit
        if found.reset:
            self.known.clear()
            self.resets += 1
        for change in found.changes:
            if change.values is None:
                self.known.pop(change.record_id, None)
            else:
                self.known[change.record_id] = change.values
        self.place = found.place
        return found.more


_rows = st.lists(
    st.tuples(st.sampled_from("abcdef"), st.sampled_from("12"), st.just("x")), min_size=0, max_size=12
)


@settings(deadline=None, max_examples=120)
@given(
    files=st.lists(_rows, min_size=1, max_size=6),
    reads=st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 5)), max_size=4), max_size=6),
    skipped=st.lists(st.booleans(), min_size=6, max_size=6),
    least_removed=st.sampled_from([0, 2, 1000]),
)
def test_whoever_applies_the_changes_has_exactly_the_newest_records(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[Row]],
    reads: list[list[tuple[int, int]]],
    skipped: list[bool],
    least_removed: int,
) -> None:
    folder = tmp_path_factory.mktemp("changes")
    readers = [_Reader() for _ in range(3)]
    path: Path | None = None
    number = 0
    for index, rows in enumerate(files):
        number += 2 if skipped[index] else 1  # some files fail and leave a gap
        path, built = written(folder, rows, number, path, least_removed=least_removed)
        for who, limit in reads[index] if index < len(reads) else []:
            readers[who].read(path, built.columns, limit)
    assert path is not None
    with opened(path) as connection:
        every = page(connection, built.columns, [], None, 0, 1000).records
    expected = {record.record_id: record.values for record in every}
    assert sorted(expected.values()) == sorted(files[-1])
    for reader in readers:
        pages = 0
        while reader.read(path, built.columns, 2):
            pages += 1
            assert pages < 200
        assert reader.known == expected
        if least_removed == 1000:
            assert not reader.resets


def test_removals_beyond_the_limit_are_forgotten_and_their_readers_start_anew(tmp_path: Path) -> None:
    rows = [(str(number), "1", "x") for number in range(10)]
    path, built = written(tmp_path, rows)
    readers = [_Reader(), _Reader()]
    for reader in readers:
        reader.read(path, built.columns, 100)
    path, _ = written(tmp_path, rows[6:], 2, path, least_removed=7)
    readers[1].read(path, built.columns, 100)
    path, _ = written(tmp_path, rows[8:], 3, path, least_removed=7)
    for reader, resets in zip(readers, (1, 0), strict=True):
        reader.read(path, built.columns, 100)
        assert sorted(reader.known.values()) == sorted(rows[8:])
        assert reader.resets == resets


def test_a_reader_that_has_read_some_of_the_removals_that_were_forgotten_starts_anew() -> None:
    for place, reaches in (
        (Place(2, ALL, 1), True),
        (Place(2, "ab", 1), False),
        (Place(1, ALL, 1), False),
        (Place(1, "ab", 2), True),  # it began with nothing after them
        (Place(3, "", 1), True),
    ):
        assert records._reaches(place, number=3, floor=2) is reaches, place


# Files


def test_files_that_are_gone_are_told_from_those_that_are_there(tmp_path: Path) -> None:
    path, built = written(tmp_path, [("a", "1", "x")])

    async def scene() -> None:
        blobs = open_blobs("", tmp_path / "blobs", "http://files.example", b"s" * 32)
        files = RecordFiles(blobs, tmp_path / "cache")
        await blobs.put("1/a", path.read_bytes(), content_type="x")
        for _ in range(3):
            assert len((await files.read("1/a", page, built.columns, [], None, 0, 5)).records) == 1
        answers = await asyncio.gather(
            *(files.read("1/a", page, built.columns, [], None, 0, 5) for _ in range(20))
        )
        assert len(answers) == 20
        await blobs.delete(["1/a"])
        with pytest.raises(BlobNotFound):
            await files.read("1/a", page, built.columns, [], None, 0, 5)
        assert not (tmp_path / "cache").exists()
        await files.close()
        await blobs.close()

    asyncio.run(scene())


def test_meta_says_what_the_file_is(tmp_path: Path) -> None:
    path, _ = written(tmp_path, [("a", "1", "x")], 4)
    with opened(path) as connection:
        assert connection.execute("SELECT number, records, base, floor, sided FROM meta").fetchall() == [
            (4, 1, 4, 4, 3)
        ]
        assert json.dumps(connection.execute("PRAGMA integrity_check").fetchall()) == '[["ok"]]'
