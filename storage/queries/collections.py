"""Collections and their files (chapter 4); the records are in files of their own, see storage/records.py."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from sqlalchemy import Connection, LargeBinary, case, delete, exists, func, insert, literal, select, update

from storage.queries import tasks
from storage.queries.statements import padded
from storage.tables import collection_files, collections

#: The kind of the task that reads a file; its subject is the file's id.
IMPORT = "collection.import"

IMPORTING, READY, FAILED, REPLACED = "importing", "ready", "failed", "replaced"

Outcome = Literal["current", "replaced", "again", "over"]


class CollectionRow(NamedTuple):
    """A collection as stored. ``current_file_id``: the file whose records are served."""

    collection_id: str
    name: str
    user_id: str
    user_name: str
    created_at: int
    updated_at: int
    current_file_id: str | None


class FileRow(NamedTuple):
    """A file of a collection. ``details``: see server/collections/details.py."""

    file_id: str
    collection_id: str
    number: int
    state: str
    file_name: str | None
    file_size: int
    blob_key: str
    uploaded_by: str
    uploaded_at: int
    imported_at: int | None
    record_count: int
    details: bytes
    records_key: str | None


_columns = [collections.c[name] for name in CollectionRow._fields]
_file_columns = [collection_files.c[name] for name in FileRow._fields]
_no_bytes = literal(b"", LargeBinary)
_is_current = (collection_files.c.team_id == collections.c.team_id) & (
    collection_files.c.file_id == collections.c.current_file_id
)


def page(connection: Connection, team_id: int) -> list[CollectionRow]:
    """The team's collections in the order in which they were made."""
    query = select(*_columns).where(collections.c.team_id == team_id).order_by(collections.c.collection_id)
    return [CollectionRow(*row) for row in connection.execute(query)]


def with_current(
    connection: Connection,
    team_id: int,
    collection_ids: Sequence[str] | None,
    skip: int,
    limit: int,
    *,
    details: bool,
) -> list[tuple[CollectionRow, FileRow | None]]:
    """Collections in the order in which they were made, each with the file whose records it has. One statement.

    Args:
        collection_ids: only these; None: all of the team's.
        details: whether ``details`` are read, which may have a megabyte each; else they are empty.
    """
    if collection_ids is not None and not collection_ids:
        return []
    told = [column if details or column.name != "details" else _no_bytes for column in _file_columns]
    query = (
        select(*_columns, *told)
        .select_from(collections.outerjoin(collection_files, _is_current))
        .where(collections.c.team_id == team_id)
        .order_by(collections.c.collection_id)
        .offset(skip)
        .limit(limit)
    )
    if collection_ids is not None:
        query = query.where(collections.c.collection_id.in_(padded(collection_ids)))
    count = len(_columns)
    return [
        (CollectionRow(*row[:count]), None if row[count] is None else FileRow(*row[count:]))
        for row in connection.execute(query)
    ]


def one(connection: Connection, team_id: int, collection_id: str, lock: bool = False) -> CollectionRow | None:
    """A collection; ``lock``: until the transaction ends nobody else changes it or its files."""
    query = select(*_columns).where(
        collections.c.team_id == team_id, collections.c.collection_id == collection_id
    )
    row = connection.execute(query.with_for_update() if lock else query).one_or_none()
    return CollectionRow(*row) if row else None


def files(connection: Connection, team_id: int, collection_id: str | None = None) -> list[FileRow]:
    """The files of a collection, or of all of the team's, by collection and in their order.

    ``details`` only of the current and of the newest one, empty otherwise: they may have a megabyte each. So
    these rows are not for :func:`set_file`.
    """
    later = collection_files.alias()
    shown = exists().where(
        collections.c.team_id == collection_files.c.team_id,
        collections.c.collection_id == collection_files.c.collection_id,
        collections.c.current_file_id == collection_files.c.file_id,
    ) | ~exists().where(
        later.c.team_id == collection_files.c.team_id,
        later.c.collection_id == collection_files.c.collection_id,
        later.c.number > collection_files.c.number,
    )
    details = case((shown, collection_files.c.details), else_=_no_bytes)
    query = (
        select(*(details if column.name == "details" else column for column in _file_columns))
        .where(collection_files.c.team_id == team_id)
        .order_by(collection_files.c.collection_id, collection_files.c.number)
    )
    if collection_id is not None:
        query = query.where(collection_files.c.collection_id == collection_id)
    return [FileRow(*row) for row in connection.execute(query)]


def file(connection: Connection, team_id: int, file_id: str) -> FileRow | None:
    """A file."""
    query = select(*_file_columns).where(
        collection_files.c.team_id == team_id, collection_files.c.file_id == file_id
    )
    row = connection.execute(query).one_or_none()
    return FileRow(*row) if row else None


def current(connection: Connection, team_id: int, collection_id: str) -> tuple[bool, FileRow | None]:
    """Whether there is such a collection, and the file whose records it has."""
    query = (
        select(*_file_columns)
        .select_from(collections.outerjoin(collection_files, _is_current))
        .where(collections.c.team_id == team_id, collections.c.collection_id == collection_id)
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        return False, None
    return True, FileRow(*row) if row[0] is not None else None


def add(connection: Connection, team_id: int, row: CollectionRow) -> None:
    """A new collection."""
    connection.execute(insert(collections).values(team_id=team_id, **row._asdict()))


def rename(connection: Connection, team_id: int, collection_id: str, name: str, now: int) -> bool:
    """Give another name; False if there is no such collection."""
    changed = connection.execute(
        update(collections)
        .where(collections.c.team_id == team_id, collections.c.collection_id == collection_id)
        .values(name=name, updated_at=now)
    )
    return changed.rowcount > 0


def remove(connection: Connection, team_id: int, collection_id: str) -> list[str] | None:
    """Delete a collection; answers the keys of its blobs, None if there was none."""
    if one(connection, team_id, collection_id, lock=True) is None:
        return None
    keys = [
        key
        for row in files(connection, team_id, collection_id)
        for key in (row.blob_key, row.records_key)
        if key
    ]
    for table in (collection_files, collections):
        connection.execute(
            delete(table).where(table.c.team_id == team_id, table.c.collection_id == collection_id)
        )
    return keys


def add_file(connection: Connection, team_id: int, row: FileRow) -> bool:
    """A file that has arrived, as the collection's newest, and the task that reads it. The caller holds the
    collection's lock; the number is given here. False if it is there already.
    """
    if file(connection, team_id, row.file_id) is not None:
        return False
    newest = connection.execute(
        select(func.max(collection_files.c.number)).where(
            collection_files.c.team_id == team_id, collection_files.c.collection_id == row.collection_id
        )
    ).scalar_one()
    numbered = row._replace(number=(newest or 0) + 1)
    connection.execute(insert(collection_files).values(team_id=team_id, **numbered._asdict()))
    tasks.enqueue(connection, team_id, IMPORT, row.file_id, now=row.uploaded_at)
    return True


def make_current(
    connection: Connection, team_id: int, read: FileRow, previous_id: str | None
) -> tuple[Outcome, str | None]:
    """Let a file's records be those of the collection, if they follow those of ``previous_id``.

    Args:
        read: the file with what was read.

    Returns:
        ``replaced``: a later file was faster. ``again``: another one came between, its records are to be
        compared. ``over``: the collection is gone, or somebody else has done it. With ``current``, the key of
        the records that are not needed any more.
    """
    collection = one(connection, team_id, read.collection_id, lock=True)
    there = file(connection, team_id, read.file_id)
    if collection is None or there is None or there.state != IMPORTING:
        return "over", None
    past = None
    if collection.current_file_id is not None:
        past = file(connection, team_id, collection.current_file_id)
    if past is not None and past.number > there.number:
        set_file(connection, team_id, there._replace(state=REPLACED))
        return "replaced", None
    if collection.current_file_id != previous_id:
        return "again", None
    set_file(connection, team_id, read._replace(state=READY))
    connection.execute(
        update(collections)
        .where(collections.c.team_id == team_id, collections.c.collection_id == read.collection_id)
        .values(current_file_id=read.file_id)
    )
    if past is None:
        return "current", None
    set_file(connection, team_id, past._replace(records_key=None))
    return "current", past.records_key


def fail(connection: Connection, team_id: int, read: FileRow) -> None:
    """Note why a file cannot be read, unless it is over already."""
    if one(connection, team_id, read.collection_id, lock=True) is None:
        return
    there = file(connection, team_id, read.file_id)
    if there is not None and there.state == IMPORTING:
        set_file(connection, team_id, read._replace(state=FAILED))


def set_file(connection: Connection, team_id: int, row: FileRow) -> None:
    """Write what the import of a file has changed."""
    connection.execute(
        update(collection_files)
        .where(collection_files.c.team_id == team_id, collection_files.c.file_id == row.file_id)
        .values(
            state=row.state,
            imported_at=row.imported_at,
            record_count=row.record_count,
            details=row.details,
            records_key=row.records_key,
        )
    )


def forget_past(connection: Connection, team_id: int, collection_id: str, kept: int) -> list[str]:
    """Forget the oldest files beyond so many; answers the keys of their blobs. Neither the current file nor one
    that waits to take its place is forgotten, nor the newest, whose number the next one follows."""
    collection = one(connection, team_id, collection_id)
    current_id = collection.current_file_id if collection else None
    rows = files(connection, team_id, collection_id)
    current_number = next((row.number for row in rows if row.file_id == current_id), 0)
    past = [
        row
        for row in rows[: max(0, len(rows) - kept)]
        # One before the current file would be replaced by it, if it is ever read.
        if row.file_id != current_id and (row.state != IMPORTING or row.number < current_number)
    ]
    keys: list[str] = []
    for row in past:
        keys += [key for key in (row.blob_key, row.records_key) if key]
        connection.execute(
            delete(collection_files).where(
                collection_files.c.team_id == team_id, collection_files.c.file_id == row.file_id
            )
        )
    return keys
