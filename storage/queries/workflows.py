"""Workflows (section 14), their versions, and the order in which they changed.

Whoever changes a workflow calls :func:`take_place` first: it holds the team's row in ``workflow_feeds`` until
the commit, so that changes of one team's workflows come one after the other, and none is missed by somebody
who asks what came after a place.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec
import zstandard
from sqlalchemy import Connection, FromClause, Select, bindparam, func, insert, select, update

from storage.queries.statements import padded, upsert_insert
from storage.queries.users import present_user_ids
from storage.tables import feeds, groups, workflow_feeds, workflow_versions, workflows

_EVERYBODY = b"[]"


class WorkflowRow(NamedTuple):
    """A workflow as stored. ``tags`` and ``live_object_ids`` are JSON arrays of strings."""

    team_id: int
    workflow_id: str
    name: str
    description: str
    tags: bytes
    live_object_ids: bytes
    active_version_id: str | None
    archived: bool
    created_by: str
    created_at: int
    updated_at: int
    seq: int
    document: bytes
    deleted_at: int | None


class VersionRow(NamedTuple):
    """A version as stored, without its steps. ``blob_key`` is None once it was deleted."""

    team_id: int
    version_id: str
    workflow_id: str
    number: int
    file_reference: str
    file_name: str | None
    file_size: int
    sha256: bytes
    blob_key: str | None
    notes: str
    author_id: str
    author_name: str
    uploaded_at: int
    archived: bool
    approved_by: str | None
    approved_at: int | None
    opaque: bool
    problem: str | None
    deleted_at: int | None


class ListedWorkflow(NamedTuple):
    """What a list takes of a workflow."""

    workflow_id: str
    document: bytes
    tags: bytes
    live_object_ids: bytes


class WorkflowSummary(NamedTuple):
    """A workflow without its versions. ``tags`` is a JSON array of strings."""

    workflow_id: str
    name: str
    description: str
    tags: bytes
    active_version_id: str | None
    archived: bool
    created_at: int
    updated_at: int


class ChangedWorkflow(NamedTuple):
    """What the sequence of changes takes of a workflow."""

    workflow_id: str
    seq: int
    document: bytes
    live_object_ids: bytes
    deleted_at: int | None


class StoredSteps(NamedTuple):
    """The steps of one version; ``steps`` is JSON, compressed, and empty of an opaque one."""

    version_id: str
    number: int
    opaque: bool
    problem: str | None
    steps: bytes
    live_object_ids: bytes
    workflow_deleted_at: int | None


_workflow = [workflows.c[name] for name in WorkflowRow._fields]
_version = [workflow_versions.c[name] for name in VersionRow._fields]
_listed = [workflows.c[name] for name in ListedWorkflow._fields]
_summary = [workflows.c[name] for name in WorkflowSummary._fields]
_changed = [workflows.c[name] for name in ChangedWorkflow._fields]
_present = workflows.c.deleted_at.is_(None)


# The sequence of changes


def take_place(connection: Connection, team_id: int, count: int = 1) -> int:
    """The last of ``count`` new places in the team's sequence, held until the transaction ends."""
    insertion = upsert_insert(connection, workflow_feeds).values(team_id=team_id, head=count)
    head: int = connection.execute(
        insertion.on_conflict_do_update(
            index_elements=[workflow_feeds.c.team_id], set_={"head": workflow_feeds.c.head + count}
        ).returning(workflow_feeds.c.head)
    ).scalar_one()
    return head


def touch_for_object(connection: Connection, team_id: int, object_id: str) -> None:
    """Give every workflow that names this user or group a new place: who may use it has changed.

    Nothing of the workflows themselves changes, nor when they were changed last.
    """
    # Before looking: a workflow that is being kept to the group at this moment is seen, or sees the member.
    take_place(connection, team_id, 0)
    query = select(workflows.c.workflow_id, workflows.c.live_object_ids).where(
        workflows.c.team_id == team_id, _present, workflows.c.live_object_ids != _EVERYBODY
    )
    named = [row.workflow_id for row in connection.execute(query) if object_id in _ids(row.live_object_ids)]
    if not named:
        return
    first = take_place(connection, team_id, len(named)) - len(named) + 1
    connection.execute(
        update(workflows)
        .where(workflows.c.team_id == bindparam("team"), workflows.c.workflow_id == bindparam("workflow"))
        .values(seq=bindparam("place")),
        [
            {"team": team_id, "workflow": workflow_id, "place": place}
            for place, workflow_id in enumerate(sorted(named), start=first)
        ],
    )


def position(connection: Connection, team_id: int) -> tuple[str, int]:
    """The team's incarnation and the last place given in its sequence."""
    row = connection.execute(
        select(feeds.c.incarnation, func.coalesce(workflow_feeds.c.head, 0))
        .select_from(feeds.outerjoin(workflow_feeds, workflow_feeds.c.team_id == feeds.c.team_id))
        .where(feeds.c.team_id == team_id)
    ).one()
    return row[0], row[1]


def changed_since(connection: Connection, team_id: int, place: int, limit: int) -> list[ChangedWorkflow]:
    """The workflows that changed after a place, in the order of their last change, tombstones included."""
    query = (
        select(*_changed)
        .where(workflows.c.team_id == team_id, workflows.c.seq > place)
        .order_by(workflows.c.seq)
        .limit(limit)
    )
    return [ChangedWorkflow(*row) for row in connection.execute(query)]


# Workflows


def by_id(
    connection: Connection, team_id: int, workflow_id: str, include_deleted: bool = False
) -> WorkflowRow | None:
    """The team's workflow."""
    query = select(*_workflow).where(workflows.c.team_id == team_id, workflows.c.workflow_id == workflow_id)
    row = connection.execute(query if include_deleted else query.where(_present)).one_or_none()
    return WorkflowRow(*row) if row else None


def listed(
    connection: Connection, team_id: int, archived: bool | None, skip: int, limit: int | None
) -> list[ListedWorkflow]:
    """The team's workflows, newest first; ``archived``: only those that are, or are not."""
    query = _page(select(*_listed), team_id, archived, skip, limit)
    return [ListedWorkflow(*row) for row in connection.execute(query)]


def summaries(
    connection: Connection, team_id: int, archived: bool | None, skip: int, limit: int
) -> list[WorkflowSummary]:
    """The same workflows as :func:`listed` in the same order, without their documents, which may be large."""
    query = _page(select(*_summary), team_id, archived, skip, limit)
    return [WorkflowSummary(*row) for row in connection.execute(query)]


def _page(
    query: Select[Any], team_id: int, archived: bool | None, skip: int, limit: int | None
) -> Select[Any]:
    query = query.where(workflows.c.team_id == team_id, _present)
    if archived is not None:
        query = query.where(workflows.c.archived.is_(archived))
    query = query.order_by(workflows.c.created_at.desc(), workflows.c.workflow_id)
    if skip:
        query = query.offset(skip)
    return query if limit is None else query.limit(limit)


def tags_of(connection: Connection, team_id: int, workflow_ids: Sequence[str] | None) -> dict[str, bytes]:
    """workflow id -> its tags, a JSON array, of these workflows or of all; deleted ones keep theirs."""
    query = select(workflows.c.workflow_id, workflows.c.tags).where(workflows.c.team_id == team_id)
    if workflow_ids is not None:
        if not workflow_ids:
            return {}
        query = query.where(workflows.c.workflow_id.in_(padded(workflow_ids)))
    return {row.workflow_id: bytes(row.tags) for row in connection.execute(query)}


def add(connection: Connection, row: WorkflowRow) -> None:
    """A new workflow."""
    connection.execute(insert(workflows), row._asdict())


def save(connection: Connection, row: WorkflowRow) -> None:
    """Store a changed workflow, in the place that :func:`take_place` gave."""
    values = row._asdict()
    key = (workflows.c.team_id == values.pop("team_id")) & (
        workflows.c.workflow_id == values.pop("workflow_id")
    )
    connection.execute(update(workflows).where(key).values(values))


def known_objects(connection: Connection, team_id: int, object_ids: Collection[str]) -> set[str]:
    """Which of these are users or groups of the team."""
    if not object_ids:
        return set()
    asked = sorted(object_ids)
    of_groups = select(groups.c.group_id).where(
        groups.c.team_id == team_id, groups.c.group_id.in_(padded(asked))
    )
    return present_user_ids(connection, team_id, asked).union(connection.scalars(of_groups))


# Versions


def versions(
    connection: Connection, team_id: int, workflow_id: str, include_deleted: bool = False
) -> list[VersionRow]:
    """The versions of a workflow, oldest first."""
    query = (
        select(*_version)
        .where(workflow_versions.c.team_id == team_id, workflow_versions.c.workflow_id == workflow_id)
        .order_by(workflow_versions.c.number)
    )
    if not include_deleted:
        query = query.where(workflow_versions.c.deleted_at.is_(None))
    return [VersionRow(*row) for row in connection.execute(query)]


def version(connection: Connection, team_id: int, version_id: str) -> VersionRow | None:
    """A version that was not deleted, of whichever workflow."""
    row = connection.execute(
        select(*_version).where(
            workflow_versions.c.team_id == team_id,
            workflow_versions.c.version_id == version_id,
            workflow_versions.c.deleted_at.is_(None),
        )
    ).one_or_none()
    return VersionRow(*row) if row else None


def by_file(connection: Connection, team_id: int, file_reference: str) -> VersionRow | None:
    """The version that came by this upload, deleted or not."""
    row = connection.execute(
        select(*_version).where(
            workflow_versions.c.team_id == team_id, workflow_versions.c.file_reference == file_reference
        )
    ).one_or_none()
    return VersionRow(*row) if row else None


def last_number(connection: Connection, team_id: int, workflow_id: str) -> int:
    """The highest number a version of this workflow has had; 0 if there was none."""
    query = select(func.coalesce(func.max(workflow_versions.c.number), 0)).where(
        workflow_versions.c.team_id == team_id, workflow_versions.c.workflow_id == workflow_id
    )
    return int(connection.execute(query).scalar_one())


def add_version(connection: Connection, row: VersionRow, steps: bytes, names: bytes) -> None:
    """A new version.

    Args:
        steps: JSON, compressed with zstandard before: nobody else writes meanwhile. Empty of an opaque one.
        names: stepId -> [title, tag, type], likewise.

    Raises:
        sqlalchemy.exc.IntegrityError: its upload has become a version already.
    """
    values = {**row._asdict(), "steps": steps, "step_names": names or None}
    connection.execute(insert(workflow_versions), values)


def change_version(connection: Connection, team_id: int, version_id: str, **values: Any) -> None:
    """Set columns of a version."""
    connection.execute(
        update(workflow_versions)
        .where(workflow_versions.c.team_id == team_id, workflow_versions.c.version_id == version_id)
        .values(values)
    )


# Steps


def stored_steps(
    connection: Connection, team_id: int, workflow_id: str, wanted: str | int | None
) -> StoredSteps | None:
    """The steps of a version: of this id or number, deleted or not; None: the active one's, else the newest's."""
    columns = workflow_versions.c
    query = (
        select(
            columns.version_id,
            columns.number,
            columns.opaque,
            columns.problem,
            columns.steps,
            workflows.c.live_object_ids,
            workflows.c.deleted_at,
        )
        .join_from(
            workflow_versions,
            workflows,
            (workflows.c.team_id == columns.team_id) & (workflows.c.workflow_id == columns.workflow_id),
        )
        .where(columns.team_id == team_id, columns.workflow_id == workflow_id)
    )
    if isinstance(wanted, str):
        query = query.where(columns.version_id == wanted)
    elif wanted is not None:
        query = query.where(columns.number == wanted)
    else:
        # Not of this query itself: it would sort the steps of all versions.
        query = query.where(columns.version_id == _preferred(workflows).scalar_subquery())
    row = connection.execute(query).one_or_none()
    return StoredSteps(*row) if row else None


def step_lists(
    connection: Connection, team_id: int, workflow_id: str, version_id: str | None
) -> bytes | None:
    """The steps of a version as JSON, whether it or its workflow was deleted or not.

    Args:
        version_id: None: the active version, else the newest.

    Returns:
        None if there is no such version, or it is opaque.
    """
    found = stored_steps(connection, team_id, workflow_id, version_id)
    return decompressed(found.steps) if found is not None and found.steps else None


def naming_versions(
    connection: Connection, team_id: int, wanted: Collection[tuple[str, str | None]]
) -> dict[tuple[str, str | None], str]:
    """For each (workflow id, version id) the version whose steps name those of a job: this one if it was read, else
    the active one, else the newest.

    Whether it or its workflow was deleted or not. Where the workflow has no versions there is none.
    """
    read: dict[str, str] = {}
    version_ids = list(dict.fromkeys(version_id for _, version_id in wanted if version_id is not None))
    if version_ids:
        rows = connection.execute(_read_versions, {"team": team_id, "ids": padded(version_ids)})
        read = {row.version_id: row.workflow_id for row in rows}
    found = {pair: pair[1] for pair in wanted if pair[1] is not None and read.get(pair[1]) == pair[0]}
    left = list(dict.fromkeys(pair[0] for pair in wanted if pair not in found))
    if left:
        rows = connection.execute(_usual_versions, {"team": team_id, "ids": padded(left)})
        usual = {row.workflow_id: row.version_id for row in rows if row.version_id is not None}
        found |= {pair: usual[pair[0]] for pair in wanted if pair not in found and pair[0] in usual}
    return found


def step_names(connection: Connection, team_id: int, version_id: str) -> bytes | None:
    """stepId -> [title, tag, type] of a version as JSON, compressed; None if it is opaque."""
    query = select(workflow_versions.c.step_names).where(
        workflow_versions.c.team_id == team_id, workflow_versions.c.version_id == version_id
    )
    found: bytes | None = connection.execute(query).scalar_one_or_none()
    return found


def _preferred(of: FromClause) -> Select[str]:
    """The id of the version of this workflow that is meant where none is named: the active one, else the newest."""
    # SQLite sorts by nothing of an outer query: so the workflow is joined once more.
    versions, owners = workflow_versions.alias(), workflows.alias()
    columns = versions.c
    is_active = func.coalesce(columns.version_id == owners.c.active_version_id, False)
    return (
        select(columns.version_id)
        .join_from(
            versions,
            owners,
            (owners.c.team_id == columns.team_id) & (owners.c.workflow_id == columns.workflow_id),
        )
        .where(columns.team_id == of.c.team_id, columns.workflow_id == of.c.workflow_id)
        # A deleted workflow has no other versions than deleted ones.
        .order_by(is_active.desc(), columns.deleted_at.is_(None).desc(), columns.number.desc())
        .limit(1)
        .correlate(of)
    )


# Made once: making a statement takes longer than these take.
_read_versions = select(workflow_versions.c.version_id, workflow_versions.c.workflow_id).where(
    workflow_versions.c.team_id == bindparam("team"),
    workflow_versions.c.version_id.in_(bindparam("ids", expanding=True)),
    workflow_versions.c.step_names.is_not(None),
)
_usual_versions = select(
    workflows.c.workflow_id, _preferred(workflows).scalar_subquery().label("version_id")
).where(
    workflows.c.team_id == bindparam("team"), workflows.c.workflow_id.in_(bindparam("ids", expanding=True))
)


def decompressed(steps: bytes) -> bytes:
    """What :func:`add_version` was given, as JSON."""
    result: bytes = zstandard.ZstdDecompressor().decompress(steps)
    return result


def _ids(text: bytes) -> Sequence[str]:
    return msgspec.json.decode(text, type=list[str])
