"""Preparing a delivery: its job's files are waited for, then its report is made."""

import logging
from typing import NamedTuple, TypedDict

from server.clock import now
from server.reports.requesting import NoSuchTemplate, request_report
from server.worker import Handler
from storage.database import Connection, Database
from storage.queries import attachment_references, deliveries, reports, tasks, triggers
from storage.queries.attachment_references import JobFiles
from storage.queries.deliveries import DeliveryRow
from storage.queries.triggers import TriggerRow
from storage.queue import Task

log = logging.getLogger("fieldsync.triggers")

_SECOND = 1_000_000
_MINUTE = 60 * _SECOND
#: job.mediaComplete happens once in a job's life; files of later photos are found by looking.
_LOOK_AGAIN = _MINUTE
_THUMBNAILS_WAIT = 2 * _MINUTE
_LEAST_THUMBNAILS_GAP, _MOST_THUMBNAILS_GAP = 2 * _SECOND, 15 * _SECOND
#: Whoever makes a report has its deliveries looked at. Only what is told to nobody is found by looking: that the job
#: was deleted, say, or that the making has died.
_REPORT_GAPS = (5 * _SECOND, 15 * _SECOND, 30 * _SECOND, _MINUTE)
#: Some six hours of this server's work; hours in which it is down do not count. A report has limits of its own, but
#: after a day without network thousands may be before it.
_MOST_LOOKS = 360
_MAX_NOTE = 300
#: A defect in making the report does not keep the rest from being sent: they take some 13 minutes.
_ATTEMPTS = 5

#: ``pdfRequirement`` -> the images in the report; others want no report.
_IMAGES = {"FullImages": "large", "Thumbnails": "small", "WithoutImages": "none"}


class _Asked(TypedDict):
    """Payload of the task while a report is made: which, and how often it has been looked for."""

    report: str
    looks: int


class _Outcome(NamedTuple):
    """What is sent beside the job. ``problem``: why there is no report."""

    report_id: str | None
    problem: str | None = None


def handler(database: Database) -> Handler:
    """What does the tasks ``deliveries.PREPARE``."""

    async def prepare(task: Task) -> None:
        """One look at a delivery: it is waited for further, or it is prepared."""
        found = await database.read(_look, task.team_id, task.subject)
        if found is None:
            return  # done before
        delivery, trigger, files = found
        images = _IMAGES.get(trigger.pdf_requirement) if trigger is not None else None
        moment = now()
        wakes_at = _waits_until(delivery, files, images, moment)
        asked: _Asked | None = None
        outcome = _Outcome(None)
        if wakes_at is None and trigger is not None and images is not None:
            try:
                answer = await _report(database, task.team_id, delivery, trigger, images, task.payload)
            except Exception:
                if task.attempts < _ATTEMPTS:
                    raise
                log.exception("the report of delivery %s cannot be made", task.subject)
                answer = _Outcome(
                    None, "There is no report: an error of this server, which its log tells of."
                )
            if isinstance(answer, _Outcome):
                outcome = answer
            else:
                gap = _REPORT_GAPS[min(answer["looks"], len(_REPORT_GAPS)) - 1]
                wakes_at, asked = moment + gap, answer

        def write(connection: Connection) -> None:
            if wakes_at is not None:
                # A task of its own, not another attempt of this one: what happens meanwhile can bring it forward.
                tasks.enqueue(
                    *(connection, task.team_id, deliveries.PREPARE, task.subject, asked),
                    run_at=wakes_at,
                    now=moment,
                )
                return
            note = _note(files, images, outcome.problem)
            deliveries.prepared(connection, task.team_id, delivery, outcome.report_id, note, moment)

        await database.settle(write)

    return prepare


def _look(
    connection: Connection, team_id: int, delivery_id: str
) -> tuple[DeliveryRow, TriggerRow | None, JobFiles] | None:
    delivery = deliveries.one(connection, team_id, delivery_id)
    if delivery is None or delivery.state != deliveries.PREPARING:
        return None
    trigger = triggers.one(connection, team_id, delivery.trigger_id)
    return delivery, trigger, attachment_references.files_of_job(connection, team_id, delivery.job_id)


def _waits_until(delivery: DeliveryRow, files: JobFiles, images: str | None, moment: int) -> int | None:
    """When to look again; None if nothing has to be waited for."""
    if images is None or images == "none":
        return None
    files_end = max(delivery.created_at, delivery.wait_until or 0)
    if images == "large" and files.missing and moment < files_end:
        return min(files_end, moment + _LOOK_AGAIN)
    # From the last file that was waited for: those that arrive later do not prolong this.
    stored_at = max(delivery.created_at, min(files.last_stored_at, files_end))
    if files.in_the_making and moment < (until := stored_at + _THUMBNAILS_WAIT):
        gap = min(max((moment - stored_at) // 2, _LEAST_THUMBNAILS_GAP), _MOST_THUMBNAILS_GAP)
        return min(until, moment + gap)
    return None


async def _report(
    database: Database,
    team_id: int,
    delivery: DeliveryRow,
    trigger: TriggerRow,
    images: str,
    asked: _Asked | None,
) -> _Outcome | _Asked:
    """The report, or why there is none; or what has been asked for and is still being made."""
    report = await database.read(reports.one, team_id, asked["report"]) if asked is not None else None
    if report is None:
        template_id = trigger.report_template_id
        try:
            report = await request_report(database, team_id, delivery.client_job_id, template_id, images)
        except NoSuchTemplate:
            return _Outcome(None, "There is no report: its template was archived.")
    if report is None:
        return _Outcome(None, "There is no report: the job was deleted.")
    if report.state == reports.READY:
        return _Outcome(report.report_id)
    if report.state == reports.FAILED:
        return _Outcome(None, f"There is no report, it could not be made: {report.failure}"[:_MAX_NOTE])
    looks = asked["looks"] + 1 if asked is not None else 1
    if looks > _MOST_LOOKS:
        return _Outcome(None, "There is no report: it was not made in time.")
    return _Asked(report=report.report_id, looks=looks)


def _note(files: JobFiles, images: str | None, problem: str | None) -> str | None:
    if problem is not None:
        return problem
    if images in (None, "none") or not files.missing:
        return None
    return f"{files.missing} of {files.total} photos and files had not arrived when the report was made."
