"""Which completed jobs are wanted, and where they are.

Everything is found in the order of ``seq``, whatever it is found by, so that a page costs as much as it holds:

* By a text through its index, in which the jobs of one value lie in that order.
* By a time block by block: an index says for each thousand of the sequence whether there is one. In what order jobs come
  has little to do with the times that tablets give them, and whatever sums those times up (as the first and the last of
  a block) says nothing any more after one tablet with a wrong clock.
* By both: through the text's index in the blocks of the time; through the time's where it has few jobs.

Which index is used is not left to the databases. Values lie together in the sequence (a workflow that is new, what was
changed yesterday), and a plan that walks through the sequence until a page is full then walks through all of it: 240 ms
on SQLite in a million jobs, for a workflow that has none.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    CTE,
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Text,
    TextClause,
    bindparam,
    column,
    func,
    join,
    literal,
    literal_column,
    select,
    text,
    true,
    tuple_,
    union_all,
)

from storage.queries.statements import is_sqlite, padded
from storage.tables import completed_jobs

#: How many numbers of the sequence make a block.
BLOCK = 1000
#: Filters by equality.
TEXTS = ("workflow_id", "workflow_title", "user_id", "user_name", "job_title")
#: Filters by time.
TIMES = ("created", "updated", "modified")
#: How many values one statement looks for; SQLite takes 500.
_CHUNK = 100
#: Of how many blocks at most one statement reads the jobs of a time.
_MAX_BLOCKS = 64
#: Up to so many jobs of a time in any block they are compared one by one with the texts, those of so many blocks in
#: one statement.
_FEW, _FEW_BLOCKS = 2, 256
#: So many jobs of each filter are counted to know which has the fewest.
_COUNTED = 2000
#: In how many stretches of the sequence at most a text is looked for.
_MAX_RUNS = 8
_MAX_SEQ = 2**63 - 1
_PLAN_FOR_VALUES = text("SET LOCAL plan_cache_mode = force_custom_plan")
Pairs = list[tuple[int, str]]


class Wanted(NamedTuple):
    """What a query asks for.

    Attributes:
        texts: column of :data:`TEXTS` -> the values of which one is to be there.
        job_ids: only these jobs.
        since, before: of :data:`TIMES` -> microseconds; ``since`` included, ``before`` not.
        after: only beyond this seq, in the direction of ``descending``.
        excluded: excluded jobs too.
    """

    texts: Mapping[str, Sequence[str]] = {}
    job_ids: Sequence[str] | None = None
    since: Mapping[str, int] = {}
    before: Mapping[str, int] = {}
    after: int | None = None
    descending: bool = False
    excluded: bool = False


def find(connection: Connection, team_id: int, wanted: Wanted, limit: int) -> Pairs:
    """The first jobs of what is wanted: seq and job id, in the order of the sequence."""
    if not is_sqlite(connection):
        # Or PostgreSQL, from the sixth time on, takes a plan for whatever the values are: 1.3 s where this takes 25 ms.
        connection.execute(_PLAN_FOR_VALUES)
    search = _Search(connection, team_id, wanted)
    if wanted.job_ids is not None:
        return search.named(wanted.job_ids)[:limit]
    if search.times or any(len(values) > _CHUNK for values in wanted.texts.values()):
        # What takes several statements must not find a job in a later one that was completed after one that an
        # earlier one would have found: who goes on after it would never meet that.
        search.high = min(search.high, _last_seq(connection, team_id))
    if search.times:
        return search.of_times(limit)
    if wanted.texts:
        return search.of_texts(search.low, search.high, limit)
    return search.next_ones(limit)


def _last_seq(connection: Connection, team_id: int) -> int:
    """The number of the completion that was the last so far."""
    query = select(func.max(completed_jobs.c.seq)).where(completed_jobs.c.team_id == team_id)
    return int(connection.execute(query).scalar() or 0)


def _column(name: str) -> ColumnElement[Any]:
    """A column without its table: which on SQLite is written with the index to use, and SQLAlchemy does not know."""
    return column(name, completed_jobs.c[name].type)


_SEQ, _JOB_ID, _BLOCK = (_column(name) for name in ("seq", "job_id", "block"))
_N: ColumnElement[int] = column("n", BigInteger)


class _Search:
    """Finds what is ``wanted``, as pairs of seq and job id in the order of the sequence."""

    def __init__(self, connection: Connection, team_id: int, wanted: Wanted) -> None:
        self.connection = connection
        self.sqlite = is_sqlite(connection)
        self.team_id = team_id
        self.texts = wanted.texts
        self.descending = wanted.descending
        self.times = {
            name: [
                *([_column(f"{name}_at") >= wanted.since[name]] if name in wanted.since else []),
                *([_column(f"{name}_at") < wanted.before[name]] if name in wanted.before else []),
            ]
            for name in TIMES
            if name in wanted.since or name in wanted.before
        }
        self._led: str | None = None
        #: What every job must fulfil; the team first.
        self.shown = [
            _column("team_id") == team_id,
            _column("completed" if wanted.excluded else "listed").is_(True),
        ]
        #: The first and the last number that may be found.
        self.low, self.high = 0, _MAX_SEQ
        if wanted.after is not None and self.descending:
            self.high = wanted.after - 1
        elif wanted.after is not None:
            self.low = min(wanted.after, _MAX_SEQ - 1) + 1

    def next_ones(self, limit: int) -> Pairs:
        """Of whatever kind."""
        query = self._select(None).where(*self.shown, _SEQ.between(self.low, self.high))
        return self._run(query.order_by(self._ordered(_SEQ)).limit(limit))

    def named(self, job_ids: Sequence[str]) -> Pairs:
        """Jobs by their ids, as far as they fulfil everything else."""
        query = self._select("job").where(
            *self.shown, *self._in_times(), *self._in_texts(), _JOB_ID.in_(padded(job_ids or [""]))
        )
        return self._sorted(pair for pair in self._run(query) if self.low <= pair[0] <= self.high)

    # By texts

    def of_texts(self, low: int, high: int, limit: int) -> Pairs:
        """Jobs between two numbers."""
        leading = self._leading()
        values = list(dict.fromkeys(self.texts[leading]))
        conditions = [*self.shown, *self._in_times(), *self._in_texts(leading)]
        pairs: Pairs = []
        for start in range(0, len(values), _CHUNK):
            chunk = values[start : start + _CHUNK]
            pairs = self._sorted(
                pairs + self._run(self._of_values(leading, chunk, conditions, low, high, limit))
            )
            if len(pairs) >= limit:
                pairs = pairs[:limit]
                low, high = (pairs[-1][0], high) if self.descending else (low, pairs[-1][0])
        return pairs

    def _leading(self) -> str:
        """The filter with the fewest jobs as far as they are counted, else with the fewest values."""
        if len(self.texts) > 1 and self._led is None:
            sizes = {}
            for name, values in self.texts.items():
                among = self._of_values(name, values[:_CHUNK], self.shown[:1], self.low, self.high, _COUNTED)
                counted = select(func.count()).select_from(among.subquery())
                sizes[name] = (self.connection.execute(counted).scalar_one(), len(values))
            self._led = min(sizes, key=sizes.__getitem__)
        return self._led or next(iter(self.texts))

    def _of_values(
        self,
        name: str,
        values: Sequence[str],
        conditions: Sequence[ColumnElement[bool]],
        low: int,
        high: int,
        limit: int,
    ) -> Select[Any] | CompoundSelect[Any]:
        """The first jobs between two numbers that have one of ``values``: those of each lie in order."""
        if self.sqlite:
            conditions = [*conditions, _SEQ.between(low, high)]
            parts = [self._select(name).where(*conditions, _column(name) == value) for value in values]
            # It merges them as it reads.
            merged = parts[0] if len(parts) == 1 else union_all(*parts)
            return merged.order_by(self._ordered(_SEQ)).limit(limit)
        array = bindparam(None, list(values), ARRAY(Text))
        sought = func.unnest(array).table_valued(column("value", Text)).render_derived("sought")
        place = tuple_(_column(name), _SEQ)
        # No equality, which would tell PostgreSQL that the order of (value, seq) is that of seq alone.
        each = (
            self._select(name)
            .where(*conditions, place >= tuple_(sought.c.value, low), place <= tuple_(sought.c.value, high))
            .order_by(self._ordered(_column(name)), self._ordered(_SEQ))
            .limit(limit)
            .lateral("each")
        )
        query = select(each.c.seq, each.c.job_id).select_from(join(sought, each, true()))
        return query.order_by(self._ordered(each.c.seq)).limit(limit)

    # By times

    def of_times(self, limit: int) -> Pairs:
        """Jobs by times, and by texts."""
        if not self.texts:
            return self._block_by_block(limit)
        counted = self._counted(*self._ends(), _FEW + 1)
        if all(count <= _FEW for _, count in counted):
            blocks = [block for block, _ in counted]
            pairs: Pairs = []
            for start in range(0, len(blocks), _FEW_BLOCKS):
                pairs += self._in_blocks(blocks[start : start + _FEW_BLOCKS], limit - len(pairs))
                if len(pairs) >= limit:
                    break
            return pairs
        pairs = []
        for first, last in _runs([block for block, _ in counted]):
            low, high = sorted((first, last))
            low, high = max(low * BLOCK, self.low), min((high + 1) * BLOCK - 1, self.high)
            pairs += self.of_texts(low, high, limit - len(pairs))
            if len(pairs) >= limit:
                break
        return pairs

    def _block_by_block(self, limit: int) -> Pairs:
        """Jobs by times alone: only blocks that have some are looked into, and no more of them than it takes."""
        first, last = self._ends()
        pairs: Pairs = []
        size = 1
        while len(pairs) < limit:
            counted = self._counted(first, last, limit, size)
            blocks, expected = [], len(pairs)
            for block, count in counted:
                if expected < limit:
                    blocks.append(block)
                    expected += count
            pairs += self._in_blocks(blocks, limit - len(pairs))
            if len(counted) < size and len(blocks) == len(counted):
                break
            first = blocks[-1] + (-1 if self.descending else 1)
            size = min(8 * size, _MAX_BLOCKS)
        return pairs

    def _counted(self, first: int, last: int, most: int, size: int | None = None) -> list[tuple[int, int]]:
        """The first blocks that have jobs of the times, with how many they have, ``most`` at most."""
        counts = [
            select(func.count()).select_from(self._among(name, most).subquery()).scalar_subquery()
            for name in self.times
        ]
        query: Select[Any] = select(_N, *counts).select_from(self._blocks(first, last)).limit(size)
        for name in self.times:
            query = query.where(self._among(name, 1).scalar_subquery().is_not(None))
        return [(row[0], min(row[1:])) for row in self.connection.execute(query)]

    def _in_blocks(self, blocks: Sequence[int], limit: int) -> Pairs:
        if not blocks:
            return []
        conditions = [*self.shown, *self._in_times(), *self._in_texts(), _SEQ.between(self.low, self.high)]
        query = self._select(next(iter(self.times))).where(*conditions, _BLOCK.in_(padded(blocks)))
        # Not by the sequence's own index: this order has none.
        return self._run(query.order_by(self._ordered(_SEQ + 0)).limit(limit))

    def _among(self, name: str, limit: int) -> Select[Any]:
        """Jobs of a time in the block ``n`` of what surrounds this."""
        at = _column(f"{name}_at")
        query: Select[Any] = select(literal_column("1").label("one")).select_from(self._table(name))
        query = query.where(*self.shown, _BLOCK == _N, *self.times[name], _SEQ.between(self.low, self.high))
        return query.order_by(at).limit(limit)

    def _blocks(self, first: int, last: int) -> CTE:
        """Numbers of blocks, as the column ``n``."""
        step = -1 if self.descending else 1
        numbers = (
            select(literal(first, BigInteger).label("n"))
            .where(literal((last - first) * step) >= 0)
            .cte("blocks", recursive=True)
        )
        further = numbers.c.n < last if step > 0 else numbers.c.n > last
        return numbers.union_all(select(numbers.c.n + step).where(further))

    def _ends(self) -> tuple[int, int]:
        """The first and the last block, in the order that is wanted."""
        low, high = self.low // BLOCK, self.high // BLOCK
        return (high, low) if self.descending else (low, high)

    # What these have in common

    def _table(self, index: str | None) -> TextClause:
        """The table; on SQLite with the index to use, which alone it obeys in."""
        forced = self.sqlite and index is not None
        return text(f"completed_jobs INDEXED BY ix_completed_jobs_{index}" if forced else "completed_jobs")

    def _select(self, index: str | None) -> Select[Any]:
        return select(_SEQ, _JOB_ID).select_from(self._table(index))

    def _in_times(self) -> list[ColumnElement[bool]]:
        return [condition for conditions in self.times.values() for condition in conditions]

    def _in_texts(self, but: str = "") -> list[ColumnElement[bool]]:
        return [_column(name).in_(padded(values)) for name, values in self.texts.items() if name != but]

    def _ordered(self, element: ColumnElement[Any]) -> ColumnElement[Any]:
        return element.desc() if self.descending else element.asc()

    def _sorted(self, pairs: Iterable[tuple[int, str]]) -> Pairs:
        return sorted(pairs, reverse=self.descending)

    def _run(self, query: Select[Any] | CompoundSelect[Any]) -> Pairs:
        return [(row[0], row[1]) for row in self.connection.execute(query)]


def _runs(blocks: Sequence[int]) -> list[tuple[int, int]]:
    """``blocks``, in their order, as a few stretches from one block to another, parted where most of them are missing."""
    gaps = sorted(range(1, len(blocks)), key=lambda at: -abs(blocks[at] - blocks[at - 1]))
    starts = [0, *sorted(at for at in gaps[: _MAX_RUNS - 1] if abs(blocks[at] - blocks[at - 1]) > 1)]
    ends = [*(at - 1 for at in starts[1:]), len(blocks) - 1]
    return [(blocks[start], blocks[end]) for start, end in zip(starts, ends, strict=True)] if blocks else []
