"""The same server with one more route: checks the token, decodes the same body, and answers without storing."""

from litestar import Litestar, Response, post

from server.app import create_app
from server.http import json_response
from server.jobs.intake import JobRequest
from sync.snapshot import parse


@post(
    "/bench/noStore",
    status_code=200,
    opt={"policy": "Workflow_Execute"},
    tags=["Benchmark"],
    summary="Decode and answer",
)
async def no_store(request: JobRequest) -> Response[bytes]:
    """Everything a sync does but the merge and the storage."""
    snapshot = parse(await request.body())
    return json_response(snapshot.body)


def create() -> Litestar:
    """The application with the extra route."""
    app = create_app()
    app.register(no_store)
    return app
