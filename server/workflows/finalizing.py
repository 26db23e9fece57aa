"""From an upload to a version of a workflow: put together, read, stored."""

import contextlib
import uuid

import msgspec

from media.sandbox import Interrupted, Refused, Sandbox
from media.uploads import Assembled, NoSuchUpload, Upload, Uploads
from media.workflow_package import Package, PackageRefused, read_package
from server.auth.principal import Principal
from server.clock import now
from server.errors import Problem
from server.joined import Joined
from server.workflows import documents
from server.workflows.intake import Finalize, not_found
from storage.blobs import BlobNotFound, BlobStore, BlobsUnavailable
from storage.database import Connection, Database
from storage.queries import uploads as upload_queries
from storage.queries import workflows as queries
from storage.queries.team_settings import approver_mode
from storage.queries.workflows import VersionRow, WorkflowRow

#: The kind of the uploads that become versions.
UPLOAD_KIND = "workflow"
#: The largest steps there can be are read in a third of this.
_SECONDS = 60.0


class Finalizing:
    """Finalizes uploads, one at a time for each upload, whether the caller waits for it or not.

    Args:
        sandbox: where packages are read: what strangers wrote must not stop the server.
    """

    def __init__(self, database: Database, blobs: BlobStore, uploads: Uploads, sandbox: Sandbox) -> None:
        self._database = database
        self._blobs = blobs
        self._uploads = uploads
        self._sandbox = sandbox
        self._running: Joined[tuple[int, str], VersionRow] = Joined()

    async def finalize(self, user: Principal, asked: Finalize) -> VersionRow:
        """The version that the upload has become, now or earlier.

        Goes on when the caller is gone: whoever asks again gets the outcome.

        Raises:
            Problem: 404 ``workflow-not-found``, 409 ``upload-incomplete``, 422 ``not-a-package`` or
                ``unsafe-package``, 503 ``reading-interrupted``. The upload stays as it is.
            NoSuchUpload, Expired: see :meth:`Uploads.find`.
        """
        key = (user.team_id, asked.upload_id)
        # After an earlier one, not with it: that may be refused for what only its own body says.
        return await self._running.run_after(key, lambda: self._finalize(user, asked))

    async def close(self) -> None:
        """Let what is under way end."""
        await self._running.close()

    async def find(self, user: Principal, upload_id: str) -> Upload:
        """The caller's session; those who see the whole team see its sessions too.

        Raises:
            NoSuchUpload, Expired: see :meth:`Uploads.find`.
        """
        upload = await self._uploads.find(user.team_id, upload_id)
        if upload.kind != UPLOAD_KIND or (user.own_work_only and upload.subject_id != user.subject_id):
            raise NoSuchUpload("There is no such upload.")
        return upload

    async def _finalize(self, user: Principal, asked: Finalize) -> VersionRow:
        # Before the session: that is removed some days after its end, and the answer stays the same.
        known = await self._known(user, asked.upload_id)
        if known is not None:
            return known
        upload = await self.find(user, asked.upload_id)
        if not upload.complete:
            raise _incomplete(upload)
        if asked.workflow_id is not None:
            workflow = await self._database.read(queries.by_id, user.team_id, asked.workflow_id)
            if workflow is None:
                raise not_found()
        file = None if upload.finished else await self._uploads.assemble(upload, now())
        if file is None:
            # Another process was faster, or the blob store has lost something.
            known = await self._known(user, asked.upload_id)
            if known is not None:
                return known
            raise _incomplete(await self.find(user, asked.upload_id))
        package = await self._read(file)
        try:
            row = await self._database.settle(_store, user, asked, upload, file, package, now())
        except NoSuchUpload:
            # Given up: nobody can finalize it any more. After other refusals somebody may be about to.
            await self._uploads.discard(file)
            raise
        # What is left of the blocks the clock removes.
        with contextlib.suppress(BlobsUnavailable, NoSuchUpload):
            await self._uploads.finish(upload)
        return row

    async def _known(self, user: Principal, upload_id: str) -> VersionRow | None:
        row = await self._database.read(queries.by_file, user.team_id, upload_id)
        if row is not None and user.own_work_only and row.author_id != user.subject_id:
            raise NoSuchUpload("There is no such upload.")
        return row

    async def _read(self, file: Assembled) -> Package:
        try:
            async with self._blobs.local_path(file.blob_key) as path:
                return await self._sandbox.run(read_package, path, seconds=_SECONDS)
        except Refused as refused:
            return Package(b"", b"", str(refused), given_up=True)
        except Interrupted:
            raise Problem(
                503,
                "reading-interrupted",
                "Reading the package was interrupted, which is not its fault. The upload is kept: finalize it again.",
            ) from None
        except PackageRefused as refused:
            # Whoever finalizes the same bytes is refused as well.
            await self._uploads.discard(file)
            raise Problem(422, refused.code, refused.detail, field="uploadId") from None
        except (BlobNotFound, OSError) as error:
            raise BlobsUnavailable(str(error)) from error


def _store(
    connection: Connection,
    user: Principal,
    asked: Finalize,
    upload: Upload,
    file: Assembled,
    package: Package,
    at: int,
) -> VersionRow:
    team_id = user.team_id
    place = queries.take_place(connection, team_id)
    known = queries.by_file(connection, team_id, upload.upload_id)
    if known is not None:
        return known
    if not upload_queries.finish(connection, team_id, upload.upload_id, at):
        raise NoSuchUpload("There is no such upload.")
    workflow = _workflow(connection, user, asked, place, at)
    problem = package.problem
    # What a slow moment may have made opaque must not take the place of a version that devices can work with.
    passed_over = package.given_up and workflow.active_version_id is not None
    if passed_over:
        problem = (
            f"{problem} It was not made the active version: send the package again, or activate it as it is."
        )
    version = VersionRow(
        team_id=team_id,
        version_id=str(uuid.uuid4()),
        workflow_id=workflow.workflow_id,
        number=queries.last_number(connection, team_id, workflow.workflow_id) + 1,
        file_reference=upload.upload_id,
        file_name=upload.file_name,
        file_size=file.size,
        sha256=file.sha256,
        blob_key=file.blob_key,
        notes=asked.version_notes or "",
        author_id=user.subject_id,
        author_name=user.username,
        uploaded_at=at,
        archived=False,
        approved_by=None,
        approved_at=None,
        opaque=package.opaque,
        problem=problem,
        deleted_at=None,
    )
    queries.add_version(connection, version, package.steps, package.names)
    if not passed_over and not approver_mode(connection, team_id):
        workflow = workflow._replace(active_version_id=version.version_id)
    versions = queries.versions(connection, team_id, workflow.workflow_id)
    documents.save(connection, workflow, versions, user.team_name, place)
    return version


def _workflow(connection: Connection, user: Principal, asked: Finalize, place: int, at: int) -> WorkflowRow:
    """The workflow that gets the version: a new one, or a known one with what was sent of its metadata."""
    if asked.workflow_id is None:
        row = WorkflowRow(
            team_id=user.team_id,
            workflow_id=str(uuid.uuid4()),
            name=asked.name or "",
            description=asked.description or "",
            tags=msgspec.json.encode(asked.tags or []),
            live_object_ids=b"[]",
            active_version_id=None,
            archived=False,
            created_by=user.subject_id,
            created_at=at,
            updated_at=at,
            seq=place,
            document=b"",
            deleted_at=None,
        )
        queries.add(connection, row)
        return row
    known = queries.by_id(connection, user.team_id, asked.workflow_id)
    if known is None:
        raise not_found()
    return known._replace(
        name=known.name if asked.name is None else asked.name,
        description=known.description if asked.description is None else asked.description,
        tags=known.tags if asked.tags is None else msgspec.json.encode(asked.tags),
        updated_at=at,
    )


def _incomplete(upload: Upload) -> Problem:
    missing, at = [], 0
    for start, stop in (*upload.received, (upload.file_size, upload.file_size)):
        if start > at:
            missing.append({"start": at, "end": start - 1})
        at = stop
    return Problem(
        409,
        "upload-incomplete",
        "Bytes of the file are missing. Send the blocks that `missing` names, then finalize again.",
        field="uploadId",
        extra={"missing": missing},
    )
