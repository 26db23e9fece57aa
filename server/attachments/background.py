"""What follows from the arrival of a file: jobs are told, thumbnails are made."""

from collections.abc import Mapping

from media.details import Details
from media.sandbox import Interrupted, Sandbox
from media.thumbnails import Outcome, make
from server.attachments import forgetting
from server.clock import now
from server.worker import GiveUp, Handler, Retry
from storage.blobs import BlobNotFound, BlobStore, BlobsUnavailable
from storage.database import Connection, Database
from storage.queries import attachments as queries
from storage.queries import jobs as job_queries
from storage.queries.tasks import MAX_ATTEMPTS
from storage.queue import Task
from sync.edits import SERVER
from sync.errors import Busy, NotFound
from sync.ingest import Ingest
from sync.items import Caller, ChangeItem

_RETRY_SECONDS = 10


def handlers(database: Database, blobs: BlobStore, ingest: Ingest, sandbox: Sandbox) -> Mapping[str, Handler]:
    """Kind of task -> what does it."""

    async def tell_job(task: Task) -> None:
        """Tell a job that files it refers to have come or gone."""
        job = await database.read(job_queries.by_job_id, task.team_id, task.subject)
        if job is None:
            return  # deleted meanwhile
        caller = Caller(task.team_id, "", SERVER, own_work_only=False)
        try:
            await ingest.apply(ChangeItem(caller, job.client_job_id, now(), "files"))
        except NotFound:
            pass  # deleted in this moment
        except Busy:
            raise Retry(_RETRY_SECONDS) from None

    async def thumbnails(task: Task) -> None:
        """Make the thumbnails of the file, and say what it is."""
        row = await database.read(queries.one, task.team_id, task.subject)
        # A failed one: an administrator lets its task be done again.
        if row is None or row.state not in (queries.STORED, queries.FAILED) or row.blob_key is None:
            return  # gone meanwhile, or done before
        interrupted: Interrupted | None = None
        try:
            outcome = await make(blobs, sandbox, row.blob_key, row.content_type or "")
        except Interrupted as error:
            if task.attempts < MAX_ATTEMPTS:
                raise
            # Perhaps the picture is what ends its readers.
            interrupted = error
            outcome = Outcome("failed", Details(), "Its reader was ended each time before it had read it.")
        except BlobsUnavailable:
            raise Retry(_RETRY_SECONDS) from None
        except BlobNotFound:
            raise GiveUp("The file is not in the blob store.") from None

        def describe(connection: Connection) -> bool:
            return queries.describe(
                connection,
                task.team_id,
                task.subject,
                blob_key=row.blob_key or "",
                state=outcome.state,
                details=outcome.details.encoded(),
                failure=outcome.failure,
            )

        if not await database.write(describe):
            # Another file stands under the id now; these thumbnails are nobody's.
            await blobs.delete([item.key for item in outcome.details.thumbnails])
        if interrupted is not None:
            raise interrupted  # its last attempt: the task is dead, for an administrator to see

    return {
        queries.JOB_FILES: tell_job,
        queries.THUMBNAILS: thumbnails,
        forgetting.DELETE_BLOBS: forgetting.handler(blobs),
    }
