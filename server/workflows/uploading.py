"""Sending a workflow's package in blocks, and finalizing it (section 14.4)."""

import msgspec
from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath

from media.uploads import Upload, Uploads
from server.blocks import MAX_SESSION_BYTES, find_session, new_session, open_session, receive_block
from server.http import json_response
from server.workflows.finalizing import UPLOAD_KIND, Finalizing
from server.workflows.intake import TAGS, WorkflowRequest, checked_finalize
from storage.ids import new_id

#: Section 14.4.4.5. MB are of 1,024 KB, as KB are of 1,024 bytes in section 14.4.2.
MAX_FILE_BYTES = 200 * 1024 * 1024
_POLICY = {"policy": "Workflow_Create"}


@post(
    "/workflows/v2/upload",
    status_code=200,
    opt=_POLICY,
    tags=TAGS,
    summary="Create a workflow upload session",
    description="For a file of at most 200 MB in blocks of at most 100 KB.",
    request_max_body_size=MAX_SESSION_BYTES,
)
async def create_session(request: WorkflowRequest, uploads: NamedDependency[Uploads]) -> Response[bytes]:
    """Section 14.4.3."""
    asked = await new_session(request)
    upload = await open_session(request, uploads, asked, UPLOAD_KIND, new_id(), MAX_FILE_BYTES)
    return _session(upload)


@post(
    "/workflows/v2/upload/{upload_id:str}",
    status_code=202,
    opt=_POLICY,
    tags=TAGS,
    summary="Upload a workflow block",
    description="Blocks may come in any order, in parallel and again. 202 while bytes are missing, 204 once all "
    "have arrived. The end that Content-Range prints is not looked at: the body's length decides.",
    request_max_body_size=None,
)
async def send_block(
    request: WorkflowRequest, upload_id: FromPath[str], uploads: NamedDependency[Uploads]
) -> Response[bytes]:
    """Section 14.4.4."""
    upload = await receive_block(
        request, uploads, await find_session(request, uploads, upload_id, UPLOAD_KIND)
    )
    return Response(b"", status_code=204 if upload.complete else 202)


@get(
    "/workflows/v2/upload/{upload_id:str}",
    opt=_POLICY,
    tags=TAGS,
    summary="Get a workflow upload session",
    description="Which bytes have arrived: `received` has ranges whose ends belong to them.",
)
async def get_session(
    request: WorkflowRequest, upload_id: FromPath[str], uploads: NamedDependency[Uploads]
) -> Response[bytes]:
    """Where to go on after a cut."""
    return _session(await find_session(request, uploads, upload_id, UPLOAD_KIND))


@delete(
    "/workflows/v2/upload/{upload_id:str}",
    status_code=204,
    opt=_POLICY,
    tags=TAGS,
    summary="Cancel a workflow upload session",
)
async def cancel_session(
    request: WorkflowRequest, upload_id: FromPath[str], uploads: NamedDependency[Uploads]
) -> None:
    """Forget what has arrived. A workflow that was made of it stays."""
    await uploads.cancel(await find_session(request, uploads, upload_id, UPLOAD_KIND))


@post(
    "/workflows/v2",
    status_code=200,
    opt=_POLICY,
    tags=TAGS,
    summary="Finalize a workflow upload",
    description="Makes a workflow of an upload; with `workflowId` another version of that one. Asked again for the "
    "same upload, it answers the same ids and changes nothing.",
)
async def finalize(request: WorkflowRequest, finalizing: NamedDependency[Finalizing]) -> Response[bytes]:
    """Section 14.4.5, whose answer has the workflowId alone."""
    asked = checked_finalize(await request.body())
    version = await finalizing.finalize(request.user, asked)
    return json_response(
        msgspec.json.encode(
            {
                "workflowId": version.workflow_id,
                "versionId": version.version_id,
                "version": version.number,
                "opaque": version.opaque,
                "problem": version.problem,
            }
        )
    )


def _session(upload: Upload) -> Response[bytes]:
    received = ((0, upload.file_size),) if upload.finished else upload.received
    body = {
        "id": upload.upload_id,
        "blockSize": upload.block_size,
        "fileSize": upload.file_size,
        "friendlyFileName": upload.file_name,
        "received": [{"start": start, "end": stop - 1} for start, stop in received],
        "complete": upload.complete,
        "finalized": upload.finished,
    }
    return json_response(msgspec.json.encode(body))


route_handlers = [create_session, send_block, get_session, cancel_session, finalize]
