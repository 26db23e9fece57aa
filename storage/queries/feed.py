"""The feed: sequence numbers in commit order."""

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select, update

from storage.queries.statements import upsert_insert
from storage.tables import feed_entries, feeds

_incarnation = select(feeds.c.incarnation).where(feeds.c.team_id == bindparam("team"))
_bump = (
    update(feeds)
    .where(feeds.c.team_id == bindparam("team"))
    .values(head=feeds.c.head + bindparam("count"))
    .returning(feeds.c.head)
)


def incarnation(connection: Connection, team_id: int) -> str:
    """The team's incarnation: the first half of every ETag."""
    value: str = connection.execute(_incarnation, {"team": team_id}).scalar_one()
    return value


def renew_incarnations(connection: Connection, value: str) -> None:
    """Give every team a new incarnation, after a restore from a backup."""
    connection.execute(update(feeds).values(incarnation=value))


def stamp(connection: Connection, team_id: int, job_ids: Sequence[str]) -> int:
    """Bump the team's head and stamp each job once. The head stays locked until the commit, so that
    sequence order is commit order: call this last in the transaction. Answers the new head."""
    head: int = connection.execute(_bump, {"team": team_id, "count": len(job_ids)}).scalar_one()
    insert = upsert_insert(connection, feed_entries)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=[feed_entries.c.team_id, feed_entries.c.job_id], set_={"seq": insert.excluded.seq}
        ),
        [
            {"team_id": team_id, "job_id": job_id, "seq": head - len(job_ids) + index}
            for index, job_id in enumerate(job_ids, start=1)
        ],
    )
    return head
