"""Completed jobs are found as a loop over all of them would find them, and no search walks through all of them."""

import asyncio
import re
import sqlite3
from collections.abc import Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, make_url, text

from storage.database import Database, open_database, sqlite_url
from storage.queries import completed_jobs as queries
from storage.queries.completed_jobs import BLOCK, TEXTS, TIMES, Found, Wanted, page
from storage.queries.teams import insert_team
from storage.tables import completed_jobs, jobs
from tests.conftest import BACKENDS
from tests.support.postgres import Postgres

JOBS, JOBS_OF_OTHERS = 50_000, 2_000
LIMIT = 50
#: Times are numbers from here on, two for every job.
START = 10_000_000
MIDDLE, END = START + JOBS, START + 2 * JOBS
#: What a page may read: its block, besides those of many values. A walk through all reads fifty blocks.
MOST_ROWS = 10 * BLOCK
#: A row that is read takes SQLite some ten steps, and as many to be sorted.
MOST_STEPS = 20 * MOST_ROWS


class Job(NamedTuple):
    """A row of the table, as it is written and as the loop looks at it."""

    team_id: int
    seq: int
    block: int
    job_id: str
    listed: bool
    completed: bool
    workflow_id: str | None
    workflow_title: str | None
    user_id: str | None
    user_name: str | None
    job_title: str | None
    created_at: int | None
    updated_at: int | None
    modified_at: int


def made(team_id: int, seq: int, of: int) -> Job:
    """The ``seq``-th of ``of`` jobs: see :data:`VALUES` for its texts, and times of every kind."""
    mixed = seq * 2_654_435_761 >> 7
    number = 0 if mixed % 10 < 3 else mixed % 400
    texts: list[str | None] = [None if mixed % 91 == 0 else f"{column} {number}" for column in TEXTS]
    if mixed % 10 == 4 and (seq < of // 10 or seq > of - of // 10):
        texts = [f"{column} {'early' if seq < of // 10 else 'late'}" for column in TEXTS]
    created: int | None = START + 2 * seq
    if seq % 499 == 0:  # a clock that is wrong, in every block
        created = created_wrong(seq)
    return Job(
        team_id,
        seq,
        seq // BLOCK,
        f"{seq:024x}",
        seq % 37 != 0 and seq % 41 != 0,
        seq % 41 != 0,
        *texts,
        None if seq % 53 == 0 else created,
        None if seq % 59 == 0 else START + mixed % (2 * JOBS),
        min(START + 2 * seq + mixed % JOBS, END) if seq % 101 == 0 else START + 2 * seq,
    )


def created_wrong(seq: int) -> int:
    return seq if seq % 2 else 2 * END + seq


class Filled:
    """A database full of jobs of one team, and some of another one's under the same ids."""

    def __init__(self, url: str) -> None:
        self.runner = asyncio.Runner()
        self.database: Database = open_database(url)
        self.runner.run(self.database.migrate())
        self.team: int = self.runner.run(self.database.write(insert_team, "a", 1))
        other: int = self.runner.run(self.database.write(insert_team, "b", 1))
        # Every now and then one was deleted.
        self.jobs = [made(self.team, seq, JOBS) for seq in range(1, JOBS + 1) if seq % 977]
        others = [made(other, seq, JOBS_OF_OTHERS) for seq in range(1, JOBS_OF_OTHERS + 1)]
        self._insert(completed_jobs.name, list(Job._fields), self.jobs + others)
        self._insert(jobs.name, *_documents(self.jobs + others))
        self.runner.run(self.database.write(_analyze))
        self.explaining: list[sqlite3.Connection] = []
        if self.database.is_sqlite:
            # With statistics, and as it is in service, where nobody gathers any.
            self.explaining = [sqlite3.connect(self.path, isolation_level=None) for _ in range(2)]
            for statement in ("BEGIN", "DELETE FROM sqlite_stat1", "ANALYZE sqlite_master"):
                self.explaining[1].execute(statement)

    def _insert(self, table: str, columns: list[str], rows: Sequence[tuple[Any, ...]]) -> None:
        if self.database.is_sqlite:
            places = ", ".join("?" * len(columns))
            with sqlite3.connect(self.path) as connection:
                connection.executemany(
                    f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", list(rows)
                )
            connection.close()
        else:
            self.runner.run(self._copy(table, columns, rows))

    async def _copy(self, table: str, columns: list[str], rows: Sequence[tuple[Any, ...]]) -> None:
        async with self.database._reader.begin() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.copy_records_to_table(table, records=rows, columns=columns)

    @property
    def path(self) -> str:
        return make_url(str(self.database.url)).database or ""

    def page(self, wanted: Wanted, limit: int = LIMIT) -> list[Found]:
        return self.runner.run(self.database.read(page, self.team, wanted, limit))

    def close(self) -> None:
        for connection in self.explaining:
            connection.close()
        self.runner.run(self.database.close())
        self.runner.close()


def _documents(rows: Sequence[Job]) -> tuple[list[str], list[tuple[Any, ...]]]:
    columns = [
        *("team_id", "job_id", "client_job_id", "rev", "finished", "excluded", "created_at", "modified_at"),
        *("format", "view", "edits"),
    ]
    return columns, [
        (job.team_id, job.job_id, job.job_id, job.team_id, True, False, 1, 1, 1, b"%d" % job.seq, b"")
        for job in rows
    ]


def _analyze(connection: Connection) -> None:
    connection.exec_driver_sql("ANALYZE")


@pytest.fixture(scope="module", params=BACKENDS)
def filled(
    request: pytest.FixtureRequest, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filled]:
    folder: Path = tmp_path_factory.mktemp("completed")
    url = postgres.new_database() if request.param == "postgresql" else sqlite_url(folder / "fieldsync.db")
    opened = Filled(url)
    yield opened
    opened.close()


# What is wanted

#: Values of every text: of a third of the jobs, of few, of none, of some at one end of the sequence only.
VALUES = {
    "a common value": ["0"],
    "a rare value": ["123"],
    "a value of no job": ["none"],
    "a value of the first jobs": ["early"],
    "a value of the last jobs": ["late"],
    "20 rare values": [str(number) for number in range(100, 120)],
    "20 values, one of them common": [str(number) for number in range(20)],
    "150 values": [str(number) for number in range(150)],
}
#: since, before
SPANS: dict[str, tuple[int | None, int | None]] = {
    "since the start": (START, None),
    "since the middle": (MIDDLE, None),
    "before the middle": (None, MIDDLE),
    "at the start": (None, START + 60),
    "at the end": (END - 60, None),
    "in a moment of the middle": (MIDDLE, MIDDLE + 60),
    "in a tenth in the middle": (MIDDLE, MIDDLE + JOBS // 5),
    "never": (3 * END, None),
}


def _texts(column: str, name: str) -> dict[str, list[str]]:
    return {column: [f"{column} {value}" for value in VALUES[name]]}


def _times(time: str, name: str) -> Wanted:
    since, before = SPANS[name]
    return Wanted(
        since={} if since is None else {time: since}, before={} if before is None else {time: before}
    )


CASES: dict[str, Wanted] = {
    "everything": Wanted(),
    "excluded ones too": Wanted(excluded=True),
    "one job": Wanted(job_ids=[f"{25_000:024x}"]),
    "100 jobs": Wanted(job_ids=[f"{number * 523:024x}" for number in range(100)]),
    "no jobs": Wanted(job_ids=[]),
    **{f"workflow_id: {name}": Wanted(_texts("workflow_id", name)) for name in VALUES},
    **{
        f"{column}: {name}": Wanted(_texts(column, name))
        for column in TEXTS[1:]
        for name in ("a common value", "a rare value", "20 rare values", "20 values, one of them common")
    },
    **{f"{time} {name}": _times(time, name) for time in TIMES for name in SPANS},
    **{
        f"{text}, {time} {name}": _times(time, name)._replace(texts=_texts("workflow_id", text))
        for text in ("a common value", "a rare value", "20 values, one of them common")
        for time, name in (
            ("created", "at the end"),
            ("updated", "since the middle"),
            ("updated", "in a moment of the middle"),
            ("modified", "in a tenth in the middle"),
        )
    },
    "two texts": Wanted({**_texts("user_id", "a common value"), **_texts("workflow_id", "20 rare values")}),
    "two times": Wanted(since={"created": MIDDLE, "modified": MIDDLE}, before={"updated": MIDDLE}),
    "a job of a time": Wanted(job_ids=[f"{40_000:024x}"], since={"modified": MIDDLE}),
    "everything of a time": Wanted(since={"updated": MIDDLE}, excluded=True),
}


def _turned(wanted: Wanted) -> Iterator[Wanted]:
    """Up and down, from the beginning and from somewhere."""
    for descending in (False, True):
        for after in (None, 24_983):
            yield wanted._replace(descending=descending, after=after)


def looped(rows: Sequence[Job], wanted: Wanted) -> list[Job]:
    """What a loop over all jobs finds, in ascending order."""
    found = [job for job in rows if (job.completed if wanted.excluded else job.listed)]
    if wanted.job_ids is not None:
        ids = set(wanted.job_ids)
        found = [job for job in found if job.job_id in ids]
    for column, values in wanted.texts.items():
        text, sought = attrgetter(column), set(values)
        found = [job for job in found if text(job) in sought]
    for time, since in wanted.since.items():
        at = attrgetter(f"{time}_at")
        found = [job for job in found if at(job) is not None and at(job) >= since]
    for time, before in wanted.before.items():
        at = attrgetter(f"{time}_at")
        found = [job for job in found if at(job) is not None and at(job) < before]
    return found


def first_of(found: Sequence[Job], wanted: Wanted, limit: int = LIMIT) -> list[tuple[int, str, int, bytes]]:
    """The page of these that is wanted, as :class:`Found` says it."""
    after = wanted.after
    if wanted.descending:
        found = [job for job in reversed(found) if after is None or job.seq < after]
    else:
        found = [job for job in found if after is None or job.seq > after]
    return [(job.seq, job.job_id, job.team_id, b"%d" % job.seq) for job in found[:limit]]


def said(found: Sequence[Found]) -> list[tuple[int, str, int, bytes]]:
    return [(row.seq, row.job_id, row.rev, bytes(row.view)) for row in found]


@pytest.mark.parametrize("name", CASES)
def test_a_page_is_what_a_loop_finds_and_is_found_by_an_index(filled: Filled, name: str) -> None:
    found = looped(filled.jobs, CASES[name])
    for wanted in _turned(CASES[name]):
        with _collected(filled.database) as statements:
            assert said(filled.page(wanted)) == first_of(found, wanted), wanted
        assert statements
        for statement, values in statements:
            if "completed_jobs" in statement:
                check_on_sqlite(
                    filled, statement, values
                ) if filled.database.is_sqlite else filled.runner.run(
                    check_on_postgresql(filled.database, statement, values)
                )


@st.composite
def searches(draw: st.DrawFn) -> Wanted:
    numbers = st.sampled_from([*map(str, range(0, 400, 7)), "early", "late", "none"])
    columns = draw(st.sets(st.sampled_from(TEXTS), max_size=2))
    moments = st.integers(START - 10, END + 10)
    return Wanted(
        texts={
            column: [f"{column} {value}" for value in draw(st.lists(numbers, min_size=1, max_size=30))]
            for column in sorted(columns)
        },
        job_ids=draw(st.none() | st.lists(st.integers(1, JOBS).map("{:024x}".format), max_size=40)),
        since={time: draw(moments) for time in sorted(draw(st.sets(st.sampled_from(TIMES), max_size=2)))},
        before={time: draw(moments) for time in sorted(draw(st.sets(st.sampled_from(TIMES), max_size=2)))},
        after=draw(st.none() | st.integers(0, JOBS + 2_000) | st.sampled_from([-1, 2**63 - 1])),
        descending=draw(st.booleans()),
        excluded=draw(st.booleans()),
    )


@settings(max_examples=40, deadline=None)
@given(wanted=searches(), limit=st.integers(1, 100))
def test_whatever_is_wanted_together_is_what_a_loop_finds(filled: Filled, wanted: Wanted, limit: int) -> None:
    assert said(filled.page(wanted, limit)) == first_of(looped(filled.jobs, wanted), wanted, limit)


@pytest.mark.parametrize(
    "name",
    [
        "workflow_id: a value of the last jobs",
        "updated in a tenth in the middle",
        "a common value, updated since the middle",
    ],
)
@pytest.mark.parametrize("descending", [False, True])
def test_pages_follow_each_other_without_a_gap(filled: Filled, name: str, descending: bool) -> None:
    wanted = CASES[name]._replace(descending=descending)
    found: list[int] = []
    while rows := filled.page(wanted, 100):
        found += [row.seq for row in rows]
        wanted = wanted._replace(after=found[-1])
    expected = [job.seq for job in looped(filled.jobs, CASES[name])]
    assert found == (expected[::-1] if descending else expected)


def test_however_often_it_is_asked_a_search_is_planned_for_its_values(filled: Filled) -> None:
    """PostgreSQL takes one plan for all values from the sixth time on, if it takes that for as good."""
    if filled.database.is_sqlite:
        pytest.skip("SQLite plans once, with the index that it is told")
    searched = CASES["updated in a tenth in the middle"]

    def plans(connection: Connection) -> list[tuple[int, int]]:
        for _ in range(8):
            page(connection, filled.team, searched, LIMIT)
        asked = text(
            "SELECT generic_plans, custom_plans FROM pg_prepared_statements "
            "WHERE statement ~ '^(SELECT|WITH).* completed_jobs' AND statement !~ 'pg_'"
        )
        return [(row[0], row[1]) for row in connection.execute(asked)]

    counted = filled.runner.run(filled.database.read(plans))
    assert max(custom for _, custom in counted) >= 8
    assert all(generic == 0 for generic, _ in counted), counted


@pytest.mark.parametrize("name", ["_known", "_retire", "_forget"])
@pytest.mark.parametrize("count", [1, 64])
def test_what_a_push_asks_is_found_by_the_ids_of_its_jobs(filled: Filled, name: str, count: int) -> None:
    asked = getattr(queries, name)
    ids = [f"{number * 523:024x}" for number in range(count)]
    if filled.database.is_sqlite:
        check_on_sqlite(filled, asked._text(count), [filled.team, *ids])
    else:
        filled.runner.run(check_on_postgresql(filled.database, asked._postgresql, [filled.team, ids]))


# How it is found


class _collected:
    """What is asked of a database within the block."""

    def __init__(self, database: Database) -> None:
        self._engine = database._reader.sync_engine
        self._statements: list[tuple[str, Any]] = []

    def __enter__(self) -> list[tuple[str, Any]]:
        event.listen(self._engine, "before_cursor_execute", self._note)
        return self._statements

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._note)

    def _note(self, _connection: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        self._statements.append((statement, values))


def check_on_sqlite(filled: Filled, statement: str, values: Any) -> None:
    """Every use of the table goes through an index, and what is done takes no more than a page may."""
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1000
        return 0

    for connection in filled.explaining:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
        uses = [line for line in plan if "completed_jobs" in line]
        assert uses, plan
        assert all(line.startswith("SEARCH") for line in uses), (statement, plan)
        # Of the primary key more than the team; the last number alone is found without.
        whole = any("KEY (team_id=?)" in line for line in uses)
        assert not whole or "max(" in statement, (statement, plan)
        # Sorted is only what a few blocks have of a time.
        assert " block IN " in statement or not any("TEMP B-TREE" in line for line in plan), (statement, plan)
    connection = filled.explaining[1]  # whose transaction is never committed
    connection.execute("SAVEPOINT asked")
    connection.set_progress_handler(count, 1000)
    connection.execute(statement, values).fetchall()
    connection.set_progress_handler(None, 0)
    connection.execute("ROLLBACK TO asked")
    assert steps < MOST_STEPS, (steps, statement, plan)


async def check_on_postgresql(database: Database, statement: str, values: Any) -> None:
    """No plan, for these values or for any, reads the whole table; this one reads no more than a page may."""
    async with database._reader.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        changing = driver.transaction()
        await changing.start()
        own = await driver.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", *values)
        await changing.rollback()
        read = sum(map(_rows_read, _nodes(own[0]["Plan"])))
        assert read < MOST_ROWS, (read, statement, own)
        await driver.execute(f"SET plan_cache_mode = force_generic_plan; PREPARE asked AS {statement}")
        try:
            nothing = ", ".join(["NULL"] * len(set(re.findall(r"\$\d+", statement))))
            execute = f"EXECUTE asked ({nothing})" if nothing else "EXECUTE asked"
            generic = await driver.fetchval(f"EXPLAIN (FORMAT JSON) {execute}")
        finally:
            await driver.execute("DEALLOCATE asked; RESET plan_cache_mode")
        for node in [*_nodes(own[0]["Plan"]), *_nodes(generic[0]["Plan"])]:
            if node.get("Relation Name") == "completed_jobs":
                assert node["Node Type"] != "Seq Scan", (statement, node)
            if node.get("Index Name") == "pk_completed_jobs":
                assert "seq" in node["Index Cond"] or "max" in statement, (statement, node)


def _nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)


def _rows_read(node: dict[str, Any]) -> float:
    """Rows of the table that a node has looked at."""
    if node.get("Relation Name") != "completed_jobs":
        return 0
    removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
    rows: float = (node["Actual Rows"] + removed) * node["Actual Loops"]
    return rows
