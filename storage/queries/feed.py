"""The feed: sequence numbers in commit order."""

from collections.abc import Sequence

from sqlalchemy import Connection, update

from storage.queries.statements import Hot, Rows, is_sqlite
from storage.tables import feed_entries, feeds

_incarnation = Hot(
    "SELECT incarnation FROM feeds WHERE team_id = ?", "SELECT incarnation FROM feeds WHERE team_id = $1"
)
_team = Hot(
    "SELECT incarnation, settings, wanted_events FROM feeds JOIN teams USING (team_id) WHERE team_id = ?",
    "SELECT incarnation, settings, wanted_events FROM feeds JOIN teams USING (team_id) WHERE team_id = $1",
)
_stamps = Rows(
    feed_entries,
    ("team_id", "job_id", "seq"),
    "ON CONFLICT (team_id, job_id) DO UPDATE SET seq = excluded.seq",
)
_bump = Hot(
    "UPDATE feeds SET head = head + ?, completions = completions + ? WHERE team_id = ? "
    "RETURNING head, completions",
    "UPDATE feeds SET head = head + $1, completions = completions + $2 WHERE team_id = $3 "
    "RETURNING head, completions",
)


def incarnation(connection: Connection, team_id: int) -> str:
    """The team's incarnation: the first half of every ETag."""
    rows = (
        _incarnation.on_sqlite(connection, 0, [team_id])
        if is_sqlite(connection)
        else _incarnation.on_postgresql(connection, [team_id])
    )
    value: str = rows[0][0]
    return value


def team(connection: Connection, team_id: int) -> tuple[str, bytes | None, int]:
    """The team's incarnation, its settings as they are stored, and which events its triggers want."""
    rows = (
        _team.on_sqlite(connection, 0, [team_id])
        if is_sqlite(connection)
        else _team.on_postgresql(connection, [team_id])
    )
    incarnation, settings, wanted = rows[0]
    return incarnation, None if settings is None else bytes(settings), wanted


def renew_incarnations(connection: Connection, value: str) -> None:
    """Give every team a new incarnation, after a restore from a backup."""
    connection.execute(update(feeds).values(incarnation=value))


def stamp(
    connection: Connection, team_id: int, job_ids: Sequence[str], completions: int = 0
) -> tuple[int, int]:
    """Bump the team's head and stamp each job once, and count jobs that were completed for the first time.

    The head stays locked until the commit, so that the order of both numbers is the order of commits: call this last
    in the transaction, before what needs the numbers. Answers the new head and the number of completions.
    """
    values = [len(job_ids), completions, team_id]
    rows = (
        _bump.on_sqlite(connection, 0, values)
        if is_sqlite(connection)
        else _bump.on_postgresql(connection, values)
    )
    head, completed = rows[0]
    first = head - len(job_ids) + 1
    _stamps.insert(connection, [(team_id, job_id, seq) for seq, job_id in enumerate(job_ids, start=first)])
    return head, completed
