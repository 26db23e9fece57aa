"""Tasks of the queue, in whatever state a test needs them."""

from server.clock import now
from storage.database import Connection
from storage.queries import tasks as queries
from storage.queries.tasks import enqueue
from tests.support.app import Team

#: Of a later version: nothing here takes it.
KIND = "unknown.to.all"


def put(team: Team, subject: str, state: str = "ready") -> str:
    """A task of the team in a state, and its id."""

    def work(connection: Connection) -> str:
        enqueue(connection, team.team_id, KIND, subject, now=now())
        (row,) = queries.page(connection, team.team_id, "ready", 0, 1)
        if state != "ready":
            key = (team.team_id, row.task_id)
            queries.take(connection, [key], "lease", now() + 10**9, now())
            queries.finish(connection, key, "lease", state, "the reason" if state == "dead" else None, now())
        return row.task_id

    task_id: str = team.app.write(work)
    return task_id
