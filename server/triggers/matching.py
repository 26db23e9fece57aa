"""Which triggers an event concerns, and what is delivered for them."""

import logging
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeGuard

import msgspec

from server.clock import now
from server.triggers import preparing
from server.worker import Handler
from storage.database import Connection, Database
from storage.queries import completed_jobs, deliveries, feed, jobs, tasks, triggers, workflows
from storage.queries.deliveries import NewDelivery
from storage.queries.triggers import TriggerRow
from storage.queries.users import user_by_id
from storage.queue import Task
from sync.cursor import format_cursor
from sync.facts import job_facts
from sync.fitting import MAX_FACTS, fitted

log = logging.getLogger("fieldsync.triggers")

#: Events that are matched, and deliveries that are prepared, at once. Each is a transaction or two, and those of several
#: share a commit.
CONCURRENCY = 32

_HOUR = 3600 * 1_000_000
_MEDIA_COMPLETE = "job.mediaComplete"


def handlers(database: Database) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""

    async def match(task: Task) -> None:
        """Note a delivery for each trigger that an event concerns."""
        await database.settle(_match, task.team_id, task.subject, task.payload, now())

    return {triggers.MATCH: match, deliveries.PREPARE: preparing.handler(database)}


def applies(
    trigger: TriggerRow,
    event_type: str,
    workflow_id: object,
    tags: Collection[str],
    object_ids: Collection[str],
) -> bool:
    """Whether a trigger fires at an event.

    Args:
        trigger: any; one that is disabled or archived never does.
        event_type: of the event.
        workflow_id: of the job, as the tablet wrote it: not always a text.
        tags: of the job's workflow.
        object_ids: the id of the job's user, and those of the groups which that user is in.
    """
    if event_type == _MEDIA_COMPLETE or not triggers.is_wanted(event_type, triggers.wanted_by(trigger)):
        return False
    folded = {tag.casefold() for tag in tags}
    return (
        _meets(_texts(trigger.template_ids), (workflow_id,))
        and _meets([tag.casefold() for tag in _texts(trigger.template_tags)], folded)
        and _meets(_texts(trigger.object_ids), object_ids)
    )


def frozen(connection: Connection, team_id: int, document: Mapping[str, Any]) -> bytes:
    """What deliveries tell of a job: its facts as they are in ``document``, as it is shown, what the team calls and
    tags the workflow now, and where a query goes on after the job.
    """
    facts = job_facts(document)
    return _frozen(connection, team_id, facts, _workflow(connection, team_id, facts))


def add_for(
    connection: Connection,
    team_id: int,
    trigger: TriggerRow,
    event_id: str,
    event_type: str,
    job_id: str,
    client_job_id: str,
    rev: int,
    payload: bytes,
    now: int,
) -> str | None:
    """Note that a trigger is to tell of an event; the delivery's id, or None if the trigger was to already.

    Args:
        payload: of :func:`frozen`.
    """
    wait_until = None
    if trigger.pdf_requirement != "NotRequired":
        wait_until = now + _HOUR if trigger.pdf_requirement == "FullImages" else now
    new = NewDelivery(
        trigger.trigger_id, event_id, event_type, job_id, client_job_id, rev, payload, wait_until
    )
    return deliveries.add(connection, team_id, new, now)


def _match(connection: Connection, team_id: int, event_id: str, event: Mapping[str, Any], now: int) -> None:
    facts: Mapping[str, Any] = event["job"]
    if event["type"] == _MEDIA_COMPLETE:
        for delivery_id in deliveries.preparing_of_job(connection, team_id, facts["jobId"]):
            tasks.enqueue(connection, team_id, deliveries.PREPARE, delivery_id, now=now)
        return
    live = [trigger for trigger in triggers.all_of(connection, team_id) if trigger.live]
    if not live:
        return
    workflow = _workflow(connection, team_id, facts)
    object_ids = _object_ids(connection, team_id, facts)
    payload: bytes | None = None
    # In the order of their ids, as everybody has the tasks of several triggers done.
    for trigger in live:
        if _fires(trigger, event["type"], facts.get("workflowId"), workflow.tags, object_ids):
            payload = payload or _frozen(connection, team_id, facts, workflow)
            names = (facts["jobId"], facts["clientJobId"], event["rev"])
            add_for(connection, team_id, trigger, event_id, event["type"], *names, payload, now)


def _fires(trigger: TriggerRow, *event: Any) -> bool:
    """:func:`applies`, where a trigger about which nothing can be said does not keep the others from firing.

    Of the database it asks nothing: after an error of that, nothing could be written either.
    """
    try:
        return applies(trigger, *event)
    except Exception:
        log.exception("trigger %s cannot be matched; an event passed it by", trigger.trigger_id)
        return False


class _Workflow(NamedTuple):
    """What the team says of a job's workflow."""

    name: str | None
    tags: tuple[str, ...]


def _workflow(connection: Connection, team_id: int, facts: Mapping[str, Any]) -> _Workflow:
    workflow_id = facts.get("workflowId")
    row = None
    if _can_be_looked_for(workflow_id):
        row = workflows.by_id(connection, team_id, workflow_id, include_deleted=True)
    return _Workflow(row.name, tuple(_texts(row.tags))) if row is not None else _Workflow(None, ())


def user_id_of(connection: Connection, team_id: int, facts: Mapping[str, Any]) -> str | None:
    """Whose job it is: the user whom the tablet names, else whoever the job came from."""
    user_id = facts.get("userId")
    if user_id is None or user_id == "":
        job = jobs.by_job_id(connection, team_id, facts["jobId"])
        return job.owner_id if job is not None else None
    return user_id if _can_be_looked_for(user_id) else None


def _object_ids(connection: Connection, team_id: int, facts: Mapping[str, Any]) -> Collection[str]:
    user_id = user_id_of(connection, team_id, facts)
    if user_id is None:
        return ()
    user = user_by_id(connection, team_id, user_id)
    return {user_id, *(user.group_ids if user is not None else ())}


def _frozen(connection: Connection, team_id: int, facts: Mapping[str, Any], workflow: _Workflow) -> bytes:
    title = facts.get("workflowTitle")
    beside = {
        "workflowTitle": workflow.name if title is None or title == "" else title,
        "workflowTags": workflow.tags,
        "completedJobCursor": _cursor(connection, team_id, facts["jobId"]),
    }
    return msgspec.json.encode(fitted({**facts, **beside}, MAX_FACTS))


def _cursor(connection: Connection, team_id: int, job_id: str) -> str | None:
    """A job's ``completedJobCursor``; None if it was never completed, or is deleted.

    The push that completes a job learns its number last, when what it tells is written: so it is looked up here.
    """
    seq = completed_jobs.known(connection, team_id, [job_id]).get(job_id)
    return None if seq is None else format_cursor(feed.incarnation(connection, team_id), seq)


def _meets(wanted: Collection[str], has: Collection[Any]) -> bool:
    """Whether a job has one of the texts that are wanted; an empty list wants all."""
    return not wanted or any(text in has for text in wanted)


def _texts(encoded: bytes) -> list[str]:
    return msgspec.json.decode(encoded, type=list[str])


def _can_be_looked_for(text: Any) -> TypeGuard[str]:
    """Tablets write what they like; PostgreSQL refuses to look for a NUL."""
    return isinstance(text, str) and "\0" not in text
